"""Which pieces a server announces. Pure: no clock, no threads, no I/O.

The copy of a Seed is announced by super-seeding: a piece that was given to one host is no longer announced, so that the
others get it from that host, and the Seed gives each piece about once. It is announced again after eight piece times,
for that host may be gone, and meanwhile given to nobody: several hosts may ask before they read that it is dropped.
"""

import collections
import dataclasses
import heapq
import statistics

from directdownload.peer import maps

#: A piece is announced again after so many times the median of an upload.
REST_PIECES = 8
#: of an upload, until one has been measured
_FIRST_SECONDS = 1.0
_SAMPLES = 31


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """Of the announced map, since the last ones; ascending."""

    add: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.drop)


class Offering:
    """The pieces of one copy that are here and verified, and which of them are announced."""

    def __init__(self, pieces: int, super_seeding: bool) -> None:
        """`pieces`: of the file, or the most that it may have while its size is not known."""
        self.pieces = pieces
        self.super_seeding = super_seeding
        self._here = 0
        self._announced = 0
        #: pieces that were given -> when each is announced again
        self._resting: dict[int, float] = {}
        self._returns: list[tuple[float, int]] = []
        self._uploads: collections.deque[float] = collections.deque(maxlen=_SAMPLES)
        self._median = _FIRST_SECONDS
        self._changed = False

    @property
    def announced(self) -> frozenset[int]:
        """The pieces that the last `due` has brought about: a new reader begins with them."""
        return frozenset(maps.indices(self._announced))

    def add(self, index: int) -> None:
        """A piece is here and verified."""
        if 0 <= index < self.pieces:
            self._here |= 1 << index
            self._changed = True

    def remove(self, index: int) -> None:
        """A piece is not right any more."""
        if self.has(index):
            self._here &= ~(1 << index)
            self._resting.pop(index, None)
            self._changed = True

    def has(self, index: int) -> bool:
        return 0 <= index < self.pieces and bool(self._here >> index & 1)

    def given(self, index: int, now: float) -> bool:
        """The upload of a piece begins. False: give it not, for it is not here or has been given just now."""
        if not self.has(index) or index in self._resting:
            return False
        if self.super_seeding:
            again = now + REST_PIECES * self._median
            self._resting[index] = again
            heapq.heappush(self._returns, (again, index))
            self._changed = True
        return True

    def failed(self, index: int) -> None:
        """The upload of a piece broke off: it is announced again at once."""
        if self._resting.pop(index, None) is not None:
            self._changed = True

    def piece_seconds(self, seconds: float) -> None:
        """How long one upload took."""
        self._uploads.append(max(0.0, seconds))
        self._median = statistics.median(self._uploads)

    def due(self, now: float) -> Changes:
        """Bring the announced map up to date."""
        while self._returns and self._returns[0][0] <= now:
            again, index = heapq.heappop(self._returns)
            if self._resting.get(index) == again:
                del self._resting[index]
                self._changed = True
        if not self._changed:
            return Changes()
        self._changed = False
        wanted = self._here & ~maps.of(self._resting, self.pieces)
        add, drop = wanted & ~self._announced, self._announced & ~wanted
        self._announced = wanted
        return Changes(tuple(maps.indices(add)), tuple(maps.indices(drop)))
