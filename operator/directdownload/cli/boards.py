"""Progress as the user sees it: a board of lines, one per copy (or per deployment), and a total.

`following` makes a board from each new state and gives it to a reporter of `progress`. Pure: state in, lines out.
"""

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from directdownload.cli import rollout, units
from directdownload.resources.templateplacement import Phase, TemplatePlacement

#: With more lines than this, done and waiting lines are counted in the total only.
FULL_BOARD_LINES = 20


class Mood(enum.Enum):
    """How a line is coloured, and whether it is shown on a crowded board."""

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


@dataclass(frozen=True, slots=True)
class Board:
    lines: tuple[Line, ...]
    total: Line

    @property
    def crowded(self) -> bool:
        return len(self.lines) > FULL_BOARD_LINES

    def shown(self, limit: int) -> tuple[Line, ...]:
        """All lines. A crowded board shows at most `limit`: failures first, then active lines."""
        if not self.crowded:
            return self.lines
        return tuple(line for mood in (Mood.FAILED, Mood.ACTIVE) for line in self.lines if line.mood is mood)[:limit]


def of_placements(state: rollout.Rollout, now: datetime.datetime) -> Board:
    """One line per copy of a deployment."""
    return Board(tuple(_placement_line(placement, now) for placement in state.placements), _total(state))


def of_deployments(states: Sequence[rollout.Rollout]) -> Board:
    """One line per deployment, from what its status sums up."""
    lines = tuple(_deployment_line(state) for state in states)
    sizes = [state.bytes_total for state in states if state.bytes_total]
    ready = sum(state.verdict is rollout.Verdict.READY for state in states)
    stalled = sum(state.verdict is rollout.Verdict.STALLED for state in states)
    rate = sum(state.bytes_per_second or 0 for state in states if state.verdict is rollout.Verdict.RUNNING)
    downloaded = sum(state.bytes_downloaded for state in states)
    notes = [f"ETA {units.span(max(0, sum(sizes) - downloaded) / rate)}"] if rate and sizes else []
    notes += [f"{stalled} failed"] if stalled else []
    total = Line(
        labels=("total", ""),
        state=f"{ready} of {units.count(len(states), 'deployment')} ready",
        mood=Mood.FAILED if stalled else Mood.DONE if ready == len(states) else Mood.ACTIVE,
        downloaded_bytes=downloaded,
        total_bytes=sum(sizes) if sizes else None,
        bytes_per_second=rate or None,
        note=", ".join(notes),
    )
    return Board(lines, total)


def text(line: Line, widths: Sequence[int] = ()) -> str:
    """One line of plain text: `kvm-1  local  Downloading  45 %  4.5 MiB / 10.0 MiB  1.2 MiB/s  ETA 5 s`.

    Labels are padded to `widths`.
    """
    labels = [label.ljust(width) for label, width in zip(line.labels, widths, strict=True)] if widths else line.labels
    parts = [*labels, line.state]
    if line.mood is Mood.DONE and line.downloaded_bytes is not None:
        parts.append(units.size(line.downloaded_bytes))
    elif line.percent is not None and (line.downloaded_bytes or line.mood is Mood.ACTIVE):
        parts.append(f"{line.percent} %")
        if line.mood is Mood.ACTIVE:
            parts.append(f"{units.size(line.downloaded_bytes)} / {units.size(line.total_bytes)}")
    if line.bytes_per_second and line.mood is Mood.ACTIVE:
        parts.append(units.rate(line.bytes_per_second))
    if line.note:
        parts.append(line.note)
    return "  ".join(parts).rstrip()


def placement_note(placement: TemplatePlacement, now: datetime.datetime) -> str:
    """A download's time left. For other copies that are not Ready, the reason and the next attempt."""
    phase, reason, status = rollout.phase_of(placement), rollout.reason_of(placement), placement.status
    if phase is Phase.READY:
        return ""
    if phase is Phase.DOWNLOADING:
        eta = status.progress.eta_seconds if status.progress else None
        return "" if eta is None else f"ETA {units.span(eta)}"
    if phase is Phase.PENDING and status.next_attempt_time is not None and status.next_attempt_time > now:
        return f"{reason}, next attempt in {units.span((status.next_attempt_time - now).total_seconds())}"
    return reason


def _placement_line(placement: TemplatePlacement, now: datetime.datetime) -> Line:
    phase = rollout.phase_of(placement)
    # A transient failure stands out as well while it waits for its next attempt.
    retrying = phase is Phase.PENDING and placement.status.next_attempt_time is not None
    mood = {
        Phase.PENDING: Mood.FAILED if retrying else Mood.WAITING,
        Phase.DOWNLOADING: Mood.ACTIVE,
        Phase.READY: Mood.DONE,
        Phase.FAILED: Mood.FAILED,
        Phase.REMOVING: Mood.WAITING,
        # written by another version
        Phase.UNKNOWN: Mood.WAITING,
    }[phase]
    return Line(
        labels=(placement.spec.host, placement.spec.pool),
        state=phase.value,
        mood=mood,
        downloaded_bytes=rollout.downloaded_of(placement),
        total_bytes=rollout.size_of(placement),
        bytes_per_second=placement.status.progress.bytes_per_second if placement.status.progress else None,
        note=placement_note(placement, now),
    )


def _total(state: rollout.Rollout) -> Line:
    mood = {
        rollout.Verdict.READY: Mood.DONE,
        rollout.Verdict.STALLED: Mood.FAILED,
        rollout.Verdict.RUNNING: Mood.ACTIVE,
    }[state.verdict]
    notes = []
    if mood is Mood.ACTIVE and state.eta_seconds is not None:
        notes.append(f"ETA {units.span(state.eta_seconds)}")
    if state.failed:
        notes.append(f"{state.failed} failed")
    waits = state.verdict is rollout.Verdict.RUNNING and not state.downloading
    if state.reason and (waits or not state.desired):
        notes.append(state.reason)
    return Line(
        labels=("total", ""),
        state=f"{state.ready} of {state.desired} ready",
        mood=mood,
        downloaded_bytes=state.bytes_downloaded,
        total_bytes=state.bytes_total,
        bytes_per_second=state.bytes_per_second,
        note=", ".join(notes),
    )


def _deployment_line(state: rollout.Rollout) -> Line:
    mood = {
        rollout.Verdict.READY: Mood.DONE,
        rollout.Verdict.STALLED: Mood.FAILED,
        rollout.Verdict.RUNNING: Mood.ACTIVE if state.downloading else Mood.WAITING,
    }[state.verdict]
    metadata = state.deployment.metadata
    eta = state.eta_seconds if mood is Mood.ACTIVE else None
    return Line(
        labels=(metadata.namespace, metadata.name),
        state=f"{state.ready} of {state.desired} ready",
        mood=mood,
        downloaded_bytes=state.bytes_downloaded,
        total_bytes=state.bytes_total,
        bytes_per_second=state.bytes_per_second,
        note="" if mood is Mood.DONE else f"ETA {units.span(eta)}" if eta is not None else state.reason,
    )
