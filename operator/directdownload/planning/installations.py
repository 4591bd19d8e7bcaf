"""Which of several installations in one cluster leads: told by their Leases, as one process sees them. Pure.

`controller/installations` brings what it reads, and the time of its own clock; what is written in a Lease counts only
as something that changes: clocks of others are never compared. The oldest installation whose Lease moves leads. One
that stands still has ended, or is handing over, or its API server was away: only a watch without gaps tells which.
"""

import dataclasses
import datetime
import enum
from collections.abc import Iterable, Mapping

#: A Lease that was seen to move counts for so long: a failover takes 20 s at most.
STILL_SECONDS = 30.0
#: One that was given back, and was never seen to move: a handover in order takes less than a second.
GIVEN_BACK_SECONDS = 6.0
#: Between two looks. What stood still before a longer one may have moved, or could not.
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
        """Whether nobody has written it in between; labels aside."""
        return (self.holder, self.renewed, self.transitions) == (other.holder, other.renewed, other.transitions)


class Motion(enum.Enum):
    MOVES = "moves"
    STANDS_STILL = "stands still"
    #: not watched for long enough
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """`since` it has been seen as it is, look after look; `moved`: it was seen to change to that."""

    record: Record
    since: float
    moved: bool = False

    def motion(self, now: float) -> Motion:
        """`now` is the moment of the last look."""
        stood = now - self.since
        if self.moved:
            return Motion.MOVES if stood < STILL_SECONDS else Motion.STANDS_STILL
        limit = STILL_SECONDS if self.record.holder else GIVEN_BACK_SECONDS
        return Motion.UNKNOWN if stood < limit else Motion.STANDS_STILL


#: By uid: a Lease that was made anew is another one.
Sightings = Mapping[str, Sighting]


def look(before: Sightings, found: Iterable[Record], now: float, last: float | None) -> dict[str, Sighting]:
    """What is known after a look at `now` that found these; `last`: the moment of the one before, None if it failed."""
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
    """`leader` leads instead of us. None and `sure`: nobody does."""

    leader: Record | None
    sure: bool


def judge(own: Record | None, others: Sightings, now: float) -> Verdict:
    """`own` is None while there is no Lease of ours: then every other one is older."""
    older = [each for each in others.values() if own is None or each.record.rank < own.rank]
    moving = [each.record for each in older if each.motion(now) is Motion.MOVES]
    unknown = any(each.motion(now) is Motion.UNKNOWN for each in older)
    return Verdict(min(moving, key=lambda record: record.rank, default=None), sure=not unknown)
