"""Which of several installations in one cluster leads, judged by their Leases as one process sees them. Pure.

`controller/installations` supplies what it reads and the time of its own clock. Times in a Lease count only as changes:
clocks of others are never compared. The oldest installation whose Lease moves leads. One whose Lease stands still has
ended, is handing over, or could not reach its API server: only a watch without gaps can decide which.
"""

import dataclasses
import datetime
import enum
from collections.abc import Iterable, Mapping

#: How long a Lease that was seen to move counts: a failover takes 20 s at most.
STILL_SECONDS = 30.0
#: How long a released Lease counts that was never seen to move: an orderly handover takes less than a second.
GIVEN_BACK_SECONDS = 6.0
#: Longest time between two looks. After a longer one, a Lease that stands still may have moved, or could not.
GAP_SECONDS = 25.0


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One Lease as it was read; `renewed` and `transitions` are opaque."""

    namespace: str
    name: str
    uid: str
    created: datetime.datetime
    holder: str
    renewed: str
    transitions: int

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def rank(self) -> tuple[datetime.datetime, str, str]:
        """The smallest leads. The time is the API server's, and never changes."""
        return self.created, self.namespace, self.name

    def same(self, other: "Record") -> bool:
        """Whether nobody wrote it in between, labels aside."""
        return (self.holder, self.renewed, self.transitions) == (other.holder, other.renewed, other.transitions)


class Motion(enum.Enum):
    MOVES = "moves"
    STANDS_STILL = "stands still"
    #: not watched for long enough
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """`since`: from when every look found it as it is; `moved`: it was seen to change to that."""

    record: Record
    since: float
    moved: bool = False

    def motion(self, now: float) -> Motion:
        """`now` is the time of the last look."""
        stood = now - self.since
        if self.moved:
            return Motion.MOVES if stood < STILL_SECONDS else Motion.STANDS_STILL
        limit = STILL_SECONDS if self.record.holder else GIVEN_BACK_SECONDS
        return Motion.UNKNOWN if stood < limit else Motion.STANDS_STILL


#: By uid: a Lease that was created anew is another one.
Sightings = Mapping[str, Sighting]


def look(before: Sightings, found: Iterable[Record], now: float, last: float | None) -> dict[str, Sighting]:
    """The sightings after a look at `now` that found these; `last`: time of the look before, None if it failed."""
    gap = last is None or now - last > GAP_SECONDS
    return {record.uid: _seen(before.get(record.uid), record, now, gap=gap) for record in found}


def _seen(before: Sighting | None, record: Record, now: float, *, gap: bool) -> Sighting:
    if before is None:
        return Sighting(record, now)
    if not record.same(before.record):
        return Sighting(record, now, moved=True)
    return Sighting(record, now) if gap else dataclasses.replace(before, record=record)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """`leader` leads instead of us. None and `sure`: no other does."""

    leader: Record | None
    sure: bool


def judge(own: Record | None, others: Sightings, now: float) -> Verdict:
    """`own` is None while we have no Lease: then every other one is older."""
    older = [each for each in others.values() if own is None or each.record.rank < own.rank]
    moving = [each.record for each in older if each.motion(now) is Motion.MOVES]
    unknown = any(each.motion(now) is Motion.UNKNOWN for each in older)
    return Verdict(min(moving, key=lambda record: record.rank, default=None), sure=not unknown)
