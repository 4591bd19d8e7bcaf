"""Progress as the user sees it: a screen of lines, one per copy, deployment or host, and a total.

`rollout` and `certificate_state` make a screen from each new state, and `progress` shows it. Pure.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from directdownload.cli.view import units

#: With more lines than this, done and waiting lines are counted in the total only.
FULL_SCREEN_LINES = 20


class Mood(enum.Enum):
    """How a line is coloured, and whether it is shown on a crowded screen."""

    WAITING = enum.auto()
    ACTIVE = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True, slots=True)
class Line:
    labels: tuple[str, ...]
    state: str
    mood: Mood
    #: None: this work is not measured in bytes
    downloaded_bytes: int | None = 0
    #: None: not known
    total_bytes: int | None = None
    bytes_per_second: int | None = None
    #: the time left, or why there is no progress
    note: str = ""

    @property
    def percent(self) -> int | None:
        if self.mood is Mood.DONE:
            return 100
        return units.whole_percent(self.downloaded_bytes, self.total_bytes)

    def text(self, widths: Sequence[int] = ()) -> str:
        """One line of plain text: `kvm-1  local  Downloading  45 %  4.5 MiB / 10.0 MiB  1.2 MiB/s  ETA 5 s`.

        Labels are padded to `widths`.
        """
        widths = widths or [0] * len(self.labels)
        parts = [*(label.ljust(width) for label, width in zip(self.labels, widths, strict=True)), self.state]
        if self.mood is Mood.DONE and self.downloaded_bytes is not None:
            parts.append(units.size(self.downloaded_bytes))
        elif self.percent is not None and (self.downloaded_bytes or self.mood is Mood.ACTIVE):
            parts.append(f"{self.percent} %")
            if self.mood is Mood.ACTIVE:
                parts.append(f"{units.size(self.downloaded_bytes)} / {units.size(self.total_bytes)}")
        if self.bytes_per_second and self.mood is Mood.ACTIVE:
            parts.append(units.rate(self.bytes_per_second))
        if self.note:
            parts.append(self.note)
        return "  ".join(parts).rstrip()


@dataclass(frozen=True, slots=True)
class Screen:
    lines: tuple[Line, ...]
    total: Line

    @property
    def crowded(self) -> bool:
        return len(self.lines) > FULL_SCREEN_LINES

    def shown(self, limit: int) -> tuple[Line, ...]:
        """All lines. A crowded screen shows at most `limit`: failures first, then active lines."""
        if not self.crowded:
            return self.lines
        return tuple(line for mood in (Mood.FAILED, Mood.ACTIVE) for line in self.lines if line.mood is mood)[:limit]
