"""The demo's output: numbered headings, commands as a user types them, their output, checks that fail loudly."""

import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.world import checkout

_POLL_SECONDS = 0.3


class DemoError(Exception):
    """A promise of the demo does not hold."""


class RefusedError(DemoError):
    """The demo would disturb an installation that it did not make; it has changed nothing."""


#: Ends of a step that are shown without a traceback.
FAILURES = (DemoError, AssertionError, RuntimeError, OSError, subprocess.SubprocessError)


class Stage:
    """Prints to standard output; commands get `environment`."""

    def __init__(self) -> None:
        self.environment = checkout.environment()
        self.began_monotonic = time.monotonic()
        self.heading_text = ""
        self._number = -1
        self._bold = sys.stdout.isatty()

    def say(self, text: str = "") -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def heading(self, text: str, *explanation: str) -> None:
        self._number += 1
        seconds = time.monotonic() - self.began_monotonic
        self.heading_text = f"{self._number}. {text}"
        line = f"=== {self.heading_text} " + "=" * max(3, 90 - len(self.heading_text)) + f" [{seconds:.0f} s]"
        self.say()
        self.say(self._strong(line))
        for sentence in explanation:
            self.say(f"    {sentence}")

    def run(self, *command: str, shown: str = "") -> None:
        """Show and run a command whose output is for the reader; raises DemoError when it fails."""
        self.command(shown or shlex.join(command))
        status = subprocess.run(list(command), env=self.environment, cwd=checkout.REPOSITORY, check=False).returncode
        if status != 0:
            raise DemoError(f"`{shown or shlex.join(command)}` ended with exit status {status}")

    def command(self, text: str) -> None:
        self.say()
        self.say(self._strong(f"$ {text}"))

    def read(self, *command: str) -> str:
        """The output of a command that the reader need not see; raises DemoError when it fails."""
        done = subprocess.run(
            list(command), env=self.environment, cwd=checkout.REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise DemoError(f"`{shlex.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def ask(self, *command: str) -> str:
        """As `read`, for a command that may fail: then return its error message."""
        try:
            return self.read(*command)
        except (DemoError, OSError) as error:
            return str(error)

    def show_file(self, path: pathlib.Path, title: str) -> None:
        self.say()
        self.say(self._strong(f"# {title}"))
        for line in path.read_text().splitlines():
            self.say(f"    {line}")

    def until(self, what: str, seconds: float, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise DemoError(f"waited {seconds:.0f} s for {what}")
            time.sleep(_POLL_SECONDS)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [[column.upper() for column in columns], *rows]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            self.say("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def _strong(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._bold else text
