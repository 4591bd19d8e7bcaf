"""Several ways to the same file, in turn: what each costs, and how ours compares with the others.

Used by the bench of one file. Other load of the machine changes from round to round, and affects all ways of one round.
So each round has its own ratio, and a row has the median of these ratios, not the ratio of medians.
"""

import dataclasses
import os
import pathlib
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

_LIMIT_SECONDS = 600


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Of one run. The CPU time is that of the process and its children, in user and system mode."""

    seconds: float
    cpu_seconds: float


Way = Callable[[], Cost]
Round = Mapping[str, Cost]


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """The seconds in a round that ours are divided by."""

    name: str
    seconds: Callable[[Round], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """A way against a reference. `aim` is the largest ratio, or words where there is no such number."""

    work: str
    way: str
    reference: Reference
    aim: float | str = ""

    def ratio(self, rounds: Sequence[Round]) -> float:
        return statistics.median(each[self.way].seconds / self.reference.seconds(each) for each in rounds)

    def row(self, rounds: Sequence[Round]) -> str:
        costs = [each[self.way] for each in rounds]
        seconds = [cost.seconds for cost in costs]
        against = statistics.median(self.reference.seconds(each) for each in rounds)
        ratio = self.ratio(rounds)
        cells = (
            self.work,
            f"{statistics.median(seconds):.2f}",
            spread(seconds),
            f"{statistics.median(cost.cpu_seconds for cost in costs):.2f}",
            self.reference.name,
            f"{against:.2f}",
            f"{ratio:.2f}",
            *((self.aim, "") if isinstance(self.aim, str) else verdict(ratio, self.aim)),
        )
        return f"| {' | '.join(cells)} |"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Ways that took turns, and what is compared of them."""

    rounds: Sequence[Round]
    comparisons: Sequence[Comparison]

    def rows(self) -> list[str]:
        return [comparison.row(self.rounds) for comparison in self.comparisons]


def header(rounds: int) -> list[str]:
    """Of the rows of tables."""
    return [
        f"| work, median of {rounds} rounds | seconds | min to max | CPU seconds | against | seconds | ratio | aim | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]


def reference(way: str, factor: float = 1) -> Reference:
    return Reference(way if factor == 1 else f"{factor:g} times {way}", lambda each: factor * each[way].seconds)


def longer(one: Reference, other: Reference) -> Reference:
    name = f"the longer of {one.name} and {other.name}"
    return Reference(name, lambda each: max(one.seconds(each), other.seconds(each)))


def verdict(value: float, limit: float) -> tuple[str, str]:
    """The aim, and whether `value` meets it, in the two decimals that the table shows."""
    return f"≤ {limit:g}", "met" if round(value, 2) <= limit else "missed"


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def costs(columns: Mapping[str, Sequence[Table]]) -> list[str]:
    """A Markdown table of every way by itself: a column of seconds and one of CPU seconds for each size."""
    found: dict[str, dict[str, list[Cost]]] = {}
    for size, tables in columns.items():
        for each in (each for table in tables for each in table.rounds):
            for way, cost in each.items():
                found.setdefault(way, {}).setdefault(size, []).append(cost)
    names = " | ".join(f"{size}: seconds (min to max) | CPU seconds" for size in columns)
    rows = (
        f"| {way} | {' | '.join(_cells(of_way[size]) if size in of_way else ' | ' for size in columns)} |"
        for way, of_way in found.items()
    )
    return [f"| every way by itself | {names} |", "|---" * (1 + 2 * len(columns)) + "|", *rows]


def _cells(found: Sequence[Cost]) -> str:
    seconds = [cost.seconds for cost in found]
    cpu = statistics.median(cost.cpu_seconds for cost in found)
    return f"{statistics.median(seconds):.2f} ({spread(seconds)}) | {cpu:.2f}"


def in_turn(ways: Mapping[str, Way], rounds: int) -> list[Round]:
    """Run all ways once, then all once more, and so on. Standard error shows the seconds of each round."""
    found: list[Round] = []
    for number in range(1, rounds + 1):
        found.append({name: way() for name, way in ways.items()})
        words = ", ".join(f"{name} {cost.seconds:.2f}" for name, cost in found[-1].items())
        print(f"round {number}: {words}", file=sys.stderr, flush=True)
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """The directory where the ways make their file, on the disk that is measured."""

    directory: pathlib.Path

    @property
    def out(self) -> pathlib.Path:
        return self.directory / "out"

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Way:
        """`command`, which may write `out`."""

        def way() -> Cost:
            try:
                return timed(command, self.directory, environment)
            finally:
                self.out.unlink(missing_ok=True)

        return way

    def to_disk(self, *command: str) -> Way:
        """`command` with `out` as its last argument."""
        return self.run([*command, str(self.out)])

    def shell(self, script: str) -> Way:
        return self.run(["bash", "-o", "pipefail", "-ec", script])


def timed(command: Sequence[str], directory: pathlib.Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run `command` when nothing waits to be written; raises CalledProcessError when it fails, or takes ten minutes."""
    os.sync()
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        descriptor = os.pidfd_open(process.pid)
        try:
            if not select.select([descriptor], [], [], _LIMIT_SECONDS)[0]:
                process.kill()
        finally:
            os.close(descriptor)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(seconds, usage.ru_utime + usage.ru_stime)
