"""The present bytes of a file: sorted, disjoint, half-open ranges. Pure; used by the schedule and the journal."""

import bisect
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of byte positions as ranges `[start, end)`; adjacent ranges are joined."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __bool__(self) -> bool:
        return bool(self._starts)

    @property
    def total_bytes(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        low = bisect.bisect_left(self._ends, start)
        high = bisect.bisect_right(self._starts, end)
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high], self._ends[low:high] = [start], [end]

    def remove(self, start: int, end: int) -> None:
        if start >= end:
            return
        kept = [
            part
            for first, last in self
            for part in ((first, min(last, start)), (max(first, end), last))
            if part[0] < part[1]
        ]
        self._starts, self._ends = [first for first, _ in kept], [last for _, last in kept]

    def end_from(self, position: int) -> int:
        """The first missing byte at or after `position`."""
        index = bisect.bisect_right(self._starts, position) - 1
        return self._ends[index] if index >= 0 and self._ends[index] > position else position

    def start_from(self, position: int) -> int | None:
        """The first present byte at or after `position`; None if there is none."""
        index = bisect.bisect_right(self._ends, position)
        return max(position, self._starts[index]) if index < len(self._starts) else None

    def overlaps(self, start: int, end: int) -> bool:
        first = self.start_from(start)
        return first is not None and first < end

    def copy(self) -> "Ranges":
        ranges = Ranges()
        ranges._starts, ranges._ends = self._starts.copy(), self._ends.copy()
        return ranges
