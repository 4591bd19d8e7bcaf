"""The controller as it runs in pods, but with a record of how long each turn of its event loop took.

Started by `scale` in place of `directdownload`, with its arguments. The file in SCALE_TURNS gets a line for each turn
that was not short: when it ended, its CPU and its wall time, in seconds.
"""

import dataclasses
import functools
import os
import pathlib
import selectors
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tests.world.turns import TimedSelector, Turn

from directdownload.cli import main as command_line

FILE_VARIABLE = "SCALE_TURNS"
#: Shorter ones are noted nowhere.
_LEAST_SECONDS = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """The turns of a controller, which may still run."""

    file: pathlib.Path

    def longest(self, since: float) -> Turn:
        """The longest CPU and the longest wall time of those that ended after `since` (monotonic)."""
        found = [(float(cpu), float(wall)) for ended, cpu, wall in self._lines() if float(ended) >= since]
        return Turn(max((cpu for cpu, _ in found), default=0.0), max((wall for _, wall in found), default=0.0))

    def _lines(self) -> Sequence[list[str]]:
        # The last line may not be complete yet.
        return [line.split() for line in self.file.read_text().split("\n")[:-1]]


def _note(file: TextIO, turn: Turn) -> None:
    if max(turn.cpu, turn.wall) >= _LEAST_SECONDS:
        file.write(f"{time.monotonic():.3f} {turn.cpu:.4f} {turn.wall:.4f}\n")


def main() -> None:
    file = open(os.environ[FILE_VARIABLE], "w", buffering=1)  # noqa: SIM115 - open as long as the process runs
    selectors.DefaultSelector = functools.partial(TimedSelector, functools.partial(_note, file))  # type: ignore[assignment,misc] # what asyncio makes its loops with
    sys.argv[0] = "directdownload"
    command_line.main()


if __name__ == "__main__":
    main()
