"""A server's announcements: what is here, but for what a Seed has just given; and nothing is kept back for ever."""

from directdownload.peer.offering import REST_PIECES, Changes, Offering


def offering(pieces: int = 8, *, super_seeding: bool = True, seconds: float = 2.0) -> Offering:
    """All pieces are here and announced, and an upload takes `seconds`."""
    made = Offering(pieces, super_seeding)
    made.piece_seconds(seconds)
    for index in range(pieces):
        made.add(index)
    assert made.due(0.0) == Changes(add=tuple(range(pieces)))
    return made


def test_what_comes_is_announced_once() -> None:
    made = Offering(8, super_seeding=False)
    made.add(3)
    made.add(1)
    assert made.announced == set()
    assert made.due(0.0) == Changes(add=(1, 3))
    assert made.announced == {1, 3}
    assert not made.due(1.0)


def test_what_is_not_right_any_more_is_dropped() -> None:
    made = offering(super_seeding=False)
    made.remove(5)
    assert made.due(1.0) == Changes(drop=(5,))
    assert not made.has(5)


def test_what_comes_and_goes_between_two_looks_is_no_change() -> None:
    made = Offering(8, super_seeding=False)
    made.add(3)
    made.remove(3)
    assert not made.due(0.0)


def test_only_a_seed_keeps_back_what_it_has_given() -> None:
    made = offering(super_seeding=False)
    made.given(2, 1.0)
    assert not made.due(1.0)


def test_a_seed_announces_a_given_piece_again_after_eight_piece_times() -> None:
    made = offering(seconds=2.0)
    made.given(2, 1.0)
    assert made.due(1.0) == Changes(drop=(2,))
    assert made.has(2)
    assert not made.due(1.0 + REST_PIECES * 2.0 - 0.01)
    assert made.due(1.0 + REST_PIECES * 2.0) == Changes(add=(2,))


def test_a_seed_gives_a_piece_once_though_several_ask_before_it_is_dropped() -> None:
    made = offering(seconds=2.0)
    assert made.given(2, 1.0)
    assert not made.given(2, 1.0)
    made.due(17.0)
    assert made.given(2, 17.0)


def test_any_other_copy_gives_a_piece_as_often_as_it_is_asked_for() -> None:
    made = offering(super_seeding=False)
    assert made.given(2, 1.0)
    assert made.given(2, 1.0)


def test_asking_again_and_again_keeps_no_piece_from_others() -> None:
    made = offering(seconds=1.0)
    for second in range(8):
        made.given(2, float(second))
        made.due(float(second))
        assert 2 not in made.announced
    made.due(8.0)
    assert 2 in made.announced


def test_an_upload_that_broke_off_is_announced_at_once() -> None:
    made = offering()
    made.given(2, 1.0)
    made.due(1.0)
    made.failed(2)
    assert made.due(1.1) == Changes(add=(2,))
    # the return of the first gift was cancelled with it
    made.given(2, 2.0)
    made.due(2.0)
    assert not made.due(17.5)


def test_a_piece_that_is_removed_while_it_rests_does_not_return() -> None:
    made = offering()
    made.given(2, 1.0)
    made.due(1.0)
    made.remove(2)
    assert not made.due(100.0)
    made.add(2)
    assert made.due(100.0) == Changes(add=(2,))


def test_one_slow_upload_does_not_change_the_median() -> None:
    made = offering(seconds=1.0)
    for seconds in (1.0, 1.0, 500.0):
        made.piece_seconds(seconds)
    made.given(0, 0.0)
    made.due(0.0)
    assert made.due(REST_PIECES * 1.0) == Changes(add=(0,))


def test_what_cannot_be_is_never_announced() -> None:
    made = Offering(8, super_seeding=True)
    for index in (-1, 8, 2**40):
        made.add(index)
        assert not made.given(index, 0.0)
        made.failed(index)
        made.remove(index)
        assert not made.has(index)
    assert not made.due(100.0)


def test_all_pieces_of_the_largest_file_are_announced() -> None:
    made = Offering(32768, super_seeding=True)
    for index in range(32768):
        made.add(index)
    assert len(made.due(0.0).add) == 32768
