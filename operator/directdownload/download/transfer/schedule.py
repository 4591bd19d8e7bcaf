"""Dividing the bytes among connections, and adding connections. Pure: no clock, no threads, no I/O.

Called by the transfer, under its lock. A connection works on one claim at a time. A single connection claims all
missing bytes; several connections get short claims in ascending order, so that hashing can follow. When no byte is
unclaimed, the claim that would end last is divided, so that no slow source delays the end.
"""

import dataclasses

from directdownload.download.transfer.ranges import Ranges

#: The size of a write. Claims begin and end at its multiples, except at the ends of the file and of earlier ranges.
BLOCK_BYTES = 1024 * 1024
_CLAIM_SECONDS = 8.0
_CLAIM_BYTES = 16 * BLOCK_BYTES
#: fewer bytes do not justify a connection
_DIVIDE_SECONDS = 1.0
_DIVIDE_BYTES = 2 * BLOCK_BYTES
#: a connection that is faster by this factor takes even fewer bytes from a slow one
_FASTER = 4
_RATE_SECONDS = 2.0


class Rate:
    """Bytes per second over the last two to four seconds."""

    def __init__(self, now: float, total_bytes: int = 0) -> None:
        self._marks = [(now, total_bytes), (now, total_bytes)]

    def at(self, now: float, total_bytes: int) -> float:
        if now - self._marks[1][0] >= _RATE_SECONDS:
            self._marks = [self._marks[1], (now, total_bytes)]
        since, base = self._marks[0]
        return (total_bytes - base) / (now - since) if now > since else 0.0


@dataclasses.dataclass(eq=False, slots=True)
class Claim:
    """`position` is the first byte to be received; `end` None while the size of the file is not known."""

    start: int
    end: int | None
    #: up to which byte its stream is asked for; None: to the end of the file
    reach: int | None
    began: float
    rate: Rate
    bytes_per_second: float = 0.0
    position: int = 0
    #: another connection took all that was left of it
    overtaken: bool = False

    def __post_init__(self) -> None:
        self.position = self.start

    @property
    def exhausted(self) -> bool:
        return self.end is not None and self.position >= self.end

    @property
    def left_bytes(self) -> int | None:
        return None if self.end is None else max(0, self.end - self.position)

    def seconds_left(self) -> float:
        left = self.left_bytes
        if not left:
            return 0.0
        return left / self.bytes_per_second if self.bytes_per_second > 0 else float("inf")


class Board:
    """The bytes that are done, being written, claimed and missing."""

    def __init__(self, size_bytes: int | None, done: Ranges) -> None:
        self.size_bytes = size_bytes
        self.done = done
        #: received and not yet on disk: no other connection may write them, even identical
        self._writing = Ranges()
        self.claims: list[Claim] = []

    @property
    def begun(self) -> bool:
        """Whether there are bytes on disk, or on their way."""
        return bool(self.done) or bool(self._writing)

    @property
    def has_gap(self) -> bool:
        """Whether there are bytes that no connection fetches, and that are not on their way to the disk."""
        return self._first_gap() is not None

    @property
    def complete(self) -> bool:
        return self.size_bytes is not None and self.done.end_from(0) >= self.size_bytes

    @property
    def missing_bytes(self) -> int | None:
        return None if self.size_bytes is None else max(0, self.size_bytes - self.done.total_bytes)

    @property
    def bytes_per_second(self) -> float:
        """Of all connections, when they received last."""
        return sum(claim.bytes_per_second for claim in self.claims)

    def set_size(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        for claim in self.claims:
            claim.end = size_bytes if claim.end is None else min(claim.end, size_bytes)

    def take(self, now: float, bytes_per_second: float, *, alone: bool) -> Claim | None:
        """A claim for a connection that has delivered at this rate (0: new); None if none is worthwhile."""
        gap = self._first_gap()
        if gap is None:
            gap = self._divide(now, bytes_per_second)
        if gap is None:
            return None
        start, end = gap
        if not alone and end is not None:
            end = min(end, _align(start + _claim_bytes(bytes_per_second)))
        reach = None if end == self.size_bytes else end
        claim = Claim(start, end, reach, now, Rate(now, start), bytes_per_second)
        self.claims.append(claim)
        return claim

    def receive(self, claim: Claim, now: float, count: int) -> int:
        """Account for `count` received bytes of `claim`; return how many of them must be written."""
        if (left := claim.left_bytes) is not None:
            # another connection may have got the end of the claim meanwhile
            count = min(count, left)
        self._writing.add(claim.position, claim.position + count)
        claim.position += count
        claim.bytes_per_second = claim.rate.at(now, claim.position)
        return count

    def advance(self, start: int, end: int) -> None:
        """Account for received bytes that are on disk now."""
        self._writing.remove(start, end)
        self.done.add(start, end)

    def give_back(self, claim: Claim) -> None:
        """Release the rest of a claim: to the one before it if its stream reaches that far, else to any connection."""
        if claim not in self.claims:
            return
        self.claims.remove(claim)
        taken = self._taken()
        for other in self.claims:
            if other.end is not None and not other.overtaken:
                other.end = max(other.end, self._within(other, taken.start_from(other.end)))

    def go_on(self, claim: Claim) -> bool:
        """Whether the stream of `claim` is of further use.

        At its end it takes what follows from a connection that has received nothing. The server may refuse that one,
        and may not give to a new request what it gives to this stream.
        """
        if not claim.exhausted or claim.overtaken:
            return not claim.exhausted
        for other in self.claims:
            if other.start == other.position == claim.end and not other.exhausted:
                claim.end = max(claim.end, self._within(claim, other.end))
                if claim.end == other.end:
                    other.end, other.overtaken = other.position, True
        if claim.exhausted:
            claim.reach = claim.end
        return not claim.exhausted

    def _within(self, claim: Claim, end: int | None) -> int:
        """`end` (None: of the file), as far as the stream of `claim` reaches."""
        ends = (end or self.size_bytes, claim.reach)
        return min((end for end in ends if end is not None), default=0)

    def _taken(self) -> Ranges:
        taken = self.done.copy()
        for start, end in self._writing:
            taken.add(start, end)
        for claim in self.claims:
            if claim.end is not None:
                taken.add(claim.position, claim.end)
        return taken

    def _first_gap(self) -> tuple[int, int | None] | None:
        if any(claim.end is None for claim in self.claims):
            return None
        taken = self._taken()
        start = taken.end_from(0)
        if self.size_bytes is not None and start >= self.size_bytes:
            return None
        return start, taken.start_from(start) or self.size_bytes

    def _divide(self, now: float, bytes_per_second: float) -> tuple[int, int] | None:
        """Cut the claim that would end last so that both parts end together; return the freed range."""
        for claim in self.claims:
            # a claim that has just begun keeps its assumed rate
            if now - claim.began >= _RATE_SECONDS:
                claim.bytes_per_second = claim.rate.at(now, claim.position)
        last = max(self.claims, key=Claim.seconds_left, default=None)
        if last is None or last.end is None:
            return None
        left, end, theirs = last.end - last.position, last.end, last.bytes_per_second
        if left <= 0:
            return None
        stalled = not theirs and now - last.began >= _RATE_SECONDS
        little = left <= _DIVIDE_BYTES
        if not stalled and (
            last.seconds_left() <= _DIVIDE_SECONDS or (little and bytes_per_second <= _FASTER * theirs)
        ):
            return None
        # One that has delivered nothing may be refused: the server may only be slow to begin, and take one connection.
        if little or (stalled and bytes_per_second):
            keep = 0
        elif left > _claim_bytes(theirs) + _claim_bytes(bytes_per_second):
            keep = _claim_bytes(theirs)
        elif theirs and bytes_per_second:
            keep = int(left * theirs / (theirs + bytes_per_second))
        else:
            keep = left // 2
        cut = _align(last.position + keep) if keep else last.position
        if keep and end - cut < BLOCK_BYTES:
            return None
        last.end, last.overtaken = cut, not keep
        return cut, end


def _claim_bytes(bytes_per_second: float) -> int:
    return max(_CLAIM_BYTES, int(bytes_per_second * _CLAIM_SECONDS))


def _align(position: int) -> int:
    return -(-position // BLOCK_BYTES) * BLOCK_BYTES


@dataclasses.dataclass(slots=True)
class Candidate:
    """The view of a source for the ramp."""

    connections: int = 0
    #: the maximum of connections; lower once the source refused one more
    limit: int = 1
    failed: bool = False


def next_candidate(candidates: list[Candidate]) -> int | None:
    """The source that gets the next connection: the one with the fewest, in order of preference; None if none may."""
    usable = [
        (candidate.connections, index)
        for index, candidate in enumerate(candidates)
        if not candidate.failed and candidate.connections < candidate.limit
    ]
    return min(usable)[1] if usable else None


class Ramp:
    """Adds connections one at a time, and keeps each if the total rate rose."""

    _STEP_SECONDS = 2.0
    _WORTH_SECONDS = 5.0
    _GAIN = 1.1
    _SLOWED = 0.5

    def __init__(self, now: float) -> None:
        # the first rate is measured sooner
        self._changed = now - self._STEP_SECONDS / 2
        #: the rate before the connection that is on trial
        self._before: float | None = None
        #: at this rate one more connection did not help
        self._best: float | None = None

    def decide(self, now: float, bytes_per_second: float, missing_bytes: int) -> int:
        """+1: open one more; -1: close the one opened last, which did not help; 0: no change."""
        if now - self._changed < self._STEP_SECONDS:
            return 0
        if self._before is not None:
            helped = bytes_per_second >= self._before * self._GAIN
            self._changed = now
            if not helped:
                self._best = max(bytes_per_second, self._before)
                self._before = None
                return -1
            self._before = None
        if bytes_per_second and missing_bytes / bytes_per_second < self._WORTH_SECONDS:
            return 0
        if self._best is not None and bytes_per_second > self._best * self._SLOWED:
            return 0
        self._changed, self._before, self._best = now, bytes_per_second, None
        return 1

    def lost(self, now: float) -> None:
        """A connection has ended: restart the measurement."""
        self._changed, self._before, self._best = now, None, None
