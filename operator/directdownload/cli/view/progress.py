"""Shows screens as they change: bars that redraw on a terminal, lines anywhere else.

`watch` calls `update` with each new screen, and `note` with messages in between. Both reporters are context managers,
so that the terminal is restored however the command ends.
"""

import sys
import types
from collections.abc import Sequence
from typing import Protocol, Self

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text

from directdownload.cli.view import terminal, units
from directdownload.cli.view.screen import Line, Mood, Screen

_BAR_WIDTH = 30
#: The longest percent, bytes and rate, so that columns do not move while numbers grow.
_NUMBER_WIDTHS = (len("100 %"), len("999.9 MiB / 999.9 MiB"), len("999.9 MiB/s"))
_STYLES = {Mood.WAITING: "dim", Mood.ACTIVE: "", Mood.DONE: "green", Mood.FAILED: "red"}
#: Lines of a terminal that a crowded screen leaves free: for the total, "… more" and some earlier output.
_SPARE_LINES = 6


class Reporter(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None: ...
    def update(self, screen: Screen) -> None: ...
    def note(self, text: str) -> None: ...


def reporter(*, aside: bool = False) -> Reporter:
    """A reporter for standard output. `aside`: for standard error; bars vanish at the end, before the result."""
    stream = terminal.unguarded(sys.stderr if aside else sys.stdout)
    console = rich.console.Console(highlight=False, file=stream)
    return Bars(console, aside) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Bars:
    """One bar per line of the screen, redrawn in place."""

    def __init__(self, console: rich.console.Console, transient: bool = False) -> None:
        self._console = console
        self._live = rich.live.Live(console=console, refresh_per_second=4, transient=transient)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def update(self, screen: Screen) -> None:
        self._live.update(bars(screen, max(1, self._console.height - _SPARE_LINES)))

    def note(self, text: str) -> None:
        self._console.print(terminal.visible(text), style="yellow", markup=False)


class Lines:
    """A line whenever something changes; of a crowded screen, failures and the total."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self._said: dict[tuple[str, ...], tuple[object, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        return

    def update(self, screen: Screen) -> None:
        everything = (*screen.lines, screen.total)
        widths = [max(len(line.labels[index]) for line in everything) for index in range(len(screen.total.labels))]
        for line in screen.lines:
            # A crowded screen prints failures, and the recovery of a failure; the total covers the rest.
            percent = line.percent if line.mood is Mood.ACTIVE else None
            if not screen.crowded or line.mood is Mood.FAILED or line.labels in self._said:
                self._say(line, widths, (line.state, percent, line.mood, _steady(line)))
        percent = screen.total.percent
        # With few lines each shows its percent, so the total changes only every tenth of the way.
        self._say(screen.total, widths, (screen.total.state, percent if screen.crowded else (percent or 0) // 10))

    def note(self, text: str) -> None:
        self._write(text)

    def _say(self, line: Line, widths: list[int], what: tuple[object, ...]) -> None:
        if self._said.get(line.labels) != what:
            self._said[line.labels] = what
            self._write(line.text(widths))

    def _write(self, text: str) -> None:
        # Not console.print, which wraps at 80 columns in a pipe.
        self._console.file.write(terminal.visible(text) + "\n")
        self._console.file.flush()


def bars(screen: Screen, limit: int) -> rich.console.RenderableType:
    """The screen for a terminal with room for `limit` lines."""
    grid = rich.table.Table.grid(padding=(0, 2))
    for _ in screen.total.labels:
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    if screen.total.downloaded_bytes is not None:
        grid.add_column(width=_BAR_WIDTH)
        for width in _NUMBER_WIDTHS:
            grid.add_column(justify="right", no_wrap=True, min_width=width)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    shown = screen.shown(limit)
    for line in shown:
        _add(grid, line, _STYLES[line.mood])
    if len(shown) < len(screen.lines):
        grid.add_row(rich.text.Text(f"… {len(screen.lines) - len(shown)} more", style="dim"))
    _add(grid, screen.total, f"bold {_STYLES[screen.total.mood]}".strip())
    return grid


def _add(grid: rich.table.Table, line: Line, style: str) -> None:
    cells = [*line.labels, line.state, *(() if line.downloaded_bytes is None else _amounts(line)), line.note]
    texts = (rich.text.Text(terminal.visible(cell), style=style) if isinstance(cell, str) else cell for cell in cells)
    grid.add_row(*texts)


def _amounts(line: Line) -> Sequence[str | rich.progress_bar.ProgressBar]:
    """The bar, percent, bytes and rate."""
    total = line.total_bytes
    # Without a total rich's bar pulses, which looks like progress; show an empty bar instead.
    bar = rich.progress_bar.ProgressBar(
        total=100,
        completed=line.percent or 0,
        width=_BAR_WIDTH,
        complete_style="red" if line.mood is Mood.FAILED else "cyan",
        finished_style="green" if line.mood is Mood.DONE else "cyan",
    )
    amount = units.size(line.downloaded_bytes)
    return (
        bar,
        "" if line.percent is None else f"{line.percent} %",
        amount if line.mood is Mood.DONE or total is None else f"{amount} / {units.size(total)}",
        units.rate(line.bytes_per_second) if line.mood is Mood.ACTIVE and line.bytes_per_second else "",
    )


def _steady(line: Line) -> str:
    """The note without its countdown, which alone is no reason to print a line."""
    return "" if line.mood is Mood.ACTIVE else line.note.partition(",")[0]
