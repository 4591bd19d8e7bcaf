"""Sets of byte ranges, against sets of numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from directdownload.download.transfer.ranges import Ranges

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 40)), max_size=12)


@given(steps, st.integers(0, 42))
def test_ranges_are_sets_of_bytes(steps: list[tuple[bool, int, int]], position: int) -> None:
    ranges, model = Ranges(), set[int]()
    for add, start, end in steps:
        if add:
            ranges.add(start, end)
            model |= set(range(start, end))
        else:
            ranges.remove(start, end)
            model -= set(range(start, end))
    kept = list(ranges)
    assert {byte for start, end in kept for byte in range(start, end)} == model
    assert all(one[1] < other[0] for one, other in itertools.pairwise(kept)), "neighbours are joined"
    assert ranges.total_bytes == len(model)
    assert bool(ranges) == bool(model)
    end = position
    while end in model:
        end += 1
    assert ranges.end_from(position) == end
    assert ranges.start_from(position) == min((byte for byte in model if byte >= position), default=None)
    copy = ranges.copy()
    copy.add(0, 50)
    assert list(ranges) == kept
