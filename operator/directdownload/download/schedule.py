"""Who fetches which bytes, and when one more connection is worth it. Pure: no clock, no threads, no I/O.

Called by the transfer, under its lock. A connection works on one claim at a time. A single connection claims all that
is missing; with more of them claims are short and go out in ascending order, so that hashing can follow. When nothing
is unclaimed, the claim that would end last is divided: nobody waits for a slow source.
"""

import dataclasses

from directdownload.download.ranges import Ranges

#: What is written at once; claims begin and end at its multiples, save at the ends of the file and of what was there.
BLOCK_BYTES = 1024 * 1024
_CLAIM_SECONDS = 8.0
_CLAIM_BYTES = 16 * BLOCK_BYTES
#: less than this is not worth a connection of its own
_DIVIDE_SECONDS = 1.0
_DIVIDE_BYTES = 2 * BLOCK_BYTES
#: so much faster is one that takes from a slow one even what is less
_FASTER = 4
_RATE_SECONDS = 2.0


class Rate:
    """Bytes per second over the last seconds, two to four of them."""

    def __init__(self, now: float, total_bytes: int = 0) -> None:
        self._marks = [(now, total_bytes), (now, total_bytes)]

    def at(self, now: float, total_bytes: int) -> float:
        if now - self._marks[1][0] >= _RATE_SECONDS:
            self._marks = [self._marks[1], (now, total_bytes)]
        since, base = self._marks[0]
        return (total_bytes - base) / (now - since) if now > since else 0.0


@dataclasses.dataclass(eq=False, slots=True)
class Claim:
    """`position` is the first byte to be received; `end` None while the size of the file is not known.

    What lies between `written` and `position` is about to be written: nobody else may write it, not even the same.
    """

    position: int
    written: int
    end: int | None
    began: float
    rate: Rate
    bytes_per_second: float = 0.0
    #: up to which byte its stream was asked for: 0 before that, None to the end of the file
    reach: int | None = 0

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
    """What is done, what is claimed, what is missing."""

    def __init__(self, size_bytes: int | None, done: Ranges) -> None:
        self.size_bytes = size_bytes
        self.done = done
        self.claims: list[Claim] = []

    @property
    def complete(self) -> bool:
        return self.size_bytes is not None and self.done.end_from(0) >= self.size_bytes

    @property
    def missing_bytes(self) -> int | None:
        return None if self.size_bytes is None else max(0, self.size_bytes - self.done.total_bytes)

    def set_size(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        for claim in self.claims:
            claim.end = size_bytes if claim.end is None else min(claim.end, size_bytes)

    def take(self, now: float, bytes_per_second: float, *, alone: bool) -> Claim | None:
        """Work for a connection that has delivered at this rate (0: new); None if there is none worth having."""
        gap = self._first_gap()
        if gap is None:
            gap = self._divide(now, bytes_per_second)
        if gap is None:
            return None
        start, end = gap
        if not alone and end is not None:
            end = min(end, _align(start + _claim_bytes(bytes_per_second)))
        claim = Claim(start, start, end, now, Rate(now, start), bytes_per_second)
        self.claims.append(claim)
        return claim

    def receive(self, claim: Claim, count: int) -> int:
        """`count` bytes have come for `claim`; how many of them are still wanted, and so must be written."""
        if (left := claim.left_bytes) is not None:
            # another connection may have been given the end of the claim meanwhile
            count = min(count, left)
        claim.position += count
        return count

    def advance(self, claim: Claim, now: float, count: int) -> None:
        """`count` more bytes of `claim` are on disk."""
        self.done.add(claim.written, claim.written + count)
        claim.written += count
        claim.position = max(claim.position, claim.written)
        claim.bytes_per_second = claim.rate.at(now, claim.position)

    def give_back(self, claim: Claim) -> None:
        """What is left of it is anybody's: first of the one before it, if its stream goes on to there."""
        if claim not in self.claims:
            return
        self.claims.remove(claim)
        taken = self._taken()
        for other in self.claims:
            if other.end is not None and not other.exhausted:
                free = taken.start_from(other.end) or self.size_bytes
                other.end = max(other.end, _lowest(free, other.reach) or 0)

    def _taken(self) -> Ranges:
        taken = self.done.copy()
        for claim in self.claims:
            if claim.end is not None:
                taken.add(claim.written, max(claim.position, claim.end))
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
        """Cut the claim that would end last, where both would end together; the part that is free then."""
        for claim in self.claims:
            # one that has only just begun is as good as another
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
        if stalled or little:
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
        last.end = cut
        return cut, end


def _lowest(*ends: int | None) -> int | None:
    return min((end for end in ends if end is not None), default=None)


def _claim_bytes(bytes_per_second: float) -> int:
    return max(_CLAIM_BYTES, int(bytes_per_second * _CLAIM_SECONDS))


def _align(position: int) -> int:
    return -(-position // BLOCK_BYTES) * BLOCK_BYTES


@dataclasses.dataclass(slots=True)
class Candidate:
    """A source as the ramp sees it."""

    connections: int = 0
    #: no more than this many; fewer once it refused another one
    limit: int = 1
    failed: bool = False


def next_candidate(candidates: list[Candidate]) -> int | None:
    """Which source gets the next connection: the one with the fewest, in order of preference; None if none may."""
    usable = [
        (candidate.connections, index)
        for index, candidate in enumerate(candidates)
        if not candidate.failed and candidate.connections < candidate.limit
    ]
    return min(usable)[1] if usable else None


class Ramp:
    """Whether one more connection is worth it: tried one at a time, kept if the whole became faster."""

    _STEP_SECONDS = 2.0
    _WORTH_SECONDS = 5.0
    _GAIN = 1.1
    _SLOWED = 0.5

    def __init__(self, now: float) -> None:
        # the first rate is known sooner
        self._changed = now - self._STEP_SECONDS / 2
        #: the rate before the connection that is on trial
        self._before: float | None = None
        #: no further one helped when it went at this rate
        self._best: float | None = None

    def decide(self, now: float, bytes_per_second: float, missing_bytes: int) -> int:
        """+1: open one more; -1: the one opened last did not help, close it; 0: leave it as it is."""
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
        """A connection has gone: what was measured says nothing any more."""
        self._changed, self._before, self._best = now, None, None
