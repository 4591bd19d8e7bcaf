"""Maps of pieces do what sets of numbers do."""

import hypothesis
from hypothesis import strategies

from directdownload.peer import maps

PIECES = 200
SETS = strategies.sets(strategies.integers(0, PIECES - 1))


@hypothesis.given(SETS)
def test_a_map_has_what_it_was_made_of(found: set[int]) -> None:
    made = maps.of([*found, -1, PIECES, 2**40], PIECES)
    assert maps.indices(made) == sorted(found)
    assert maps.first(made) == min(found, default=-1)


@hypothesis.given(SETS, strategies.integers(1, 100))
def test_the_lowest_pieces_of_a_map(found: set[int], count: int) -> None:
    assert maps.indices(maps.first_of(maps.of(found, PIECES), count)) == sorted(found)[:count]


@hypothesis.given(SETS.filter(bool), strategies.data())
def test_any_piece_of_a_map(found: set[int], data: strategies.DataObject) -> None:
    number = data.draw(strategies.integers(0, len(found) - 1))
    assert maps.nth(maps.of(found, PIECES), number) == sorted(found)[number]


def test_a_full_map_has_all() -> None:
    assert maps.indices(maps.full(PIECES)) == list(range(PIECES))
