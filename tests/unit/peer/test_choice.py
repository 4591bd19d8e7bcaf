"""A client's choice: one writer per piece, one piece per parent, random within the window, and only what is offered."""

import random
from collections.abc import Iterator

from directdownload.peer.choice import Choice


def choice(pieces: int, *parents: str, window: int = 64, in_flight: int = 3) -> Choice[str]:
    """All `parents` have everything."""
    made = Choice[str](pieces, random.Random(1), window, in_flight)
    for parent in parents:
        made.announce(parent, range(pieces))
    return made


def flights(made: Choice[str]) -> Iterator[tuple[str, int]]:
    while (found := made.next()) is not None:
        yield found


def test_nothing_is_chosen_before_a_parent_offers_it() -> None:
    made = choice(10)
    made.announce("a")
    assert made.next() is None
    made.announce("a", [7])
    assert made.next() == ("a", 7)


def test_three_pieces_are_in_flight_from_three_parents() -> None:
    found = list(flights(choice(10, "a", "b", "c", "d")))
    assert len(found) == 3
    assert len(dict(found)) == 3
    assert len({index for _, index in found}) == 3


def test_a_piece_that_one_parent_alone_has_comes_first() -> None:
    made = choice(100, "a", "b")
    made.announce("a", drop=[41])
    made.announce("c", range(100))
    made.announce("c", drop=[41])
    assert made.next() == ("b", 41)
    made.give_back(41)
    assert made.take("b") == 41


def test_a_rare_piece_of_a_busy_parent_keeps_nobody_from_another() -> None:
    made = choice(3, "a")
    assert made.take("a") is not None
    made.announce("b", [0, 1, 2])
    made.announce("a", [0, 1, 2])
    found = made.next()
    assert found is not None
    assert found[0] == "b"


def test_one_parent_has_one_piece_in_flight() -> None:
    made = choice(10, "a")
    assert len(list(flights(made))) == 1
    assert made.take("a") is None


def test_more_or_fewer_may_be_in_flight() -> None:
    assert len(list(flights(choice(10, "a", "b", "c", "d", in_flight=4)))) == 4
    assert len(list(flights(choice(10, "a", "b", "c", "d", in_flight=1)))) == 1


def test_a_piece_in_flight_has_one_writer_until_it_is_given_back() -> None:
    made = choice(1, "a", "b")
    assert made.take("a") == 0
    assert made.take("b") is None
    made.give_back(0)
    assert made.take("b") == 0


def test_a_parent_that_is_gone_leaves_its_piece_in_flight_to_the_caller() -> None:
    made = choice(1, "a", "b")
    assert made.take("a") == 0
    made.forget("a")
    assert made.take("b") is None


def test_all_pieces_come_within_the_window() -> None:
    made, limit = choice(300, "a", "b"), 8
    made._window = limit
    order: list[int] = []
    while not made.complete:
        for _, index in list(flights(made)):
            missing = sorted(set(range(300)) - set(order))
            assert index in missing[: limit + 1]
            order.append(index)
            made.have(index)
            made.follow(next(each for each in range(301) if each not in order))
    assert sorted(order) == list(range(300))
    assert order != sorted(order)


def test_two_hosts_choose_differently() -> None:
    one, other = Choice[str](64, random.Random(1)), Choice[str](64, random.Random(2))
    order: list[list[int]] = [[], []]
    for made, found in zip((one, other), order, strict=True):
        made.announce("a", range(64))
        while (index := made.take("a")) is not None:
            found.append(index)
            made.have(index)
    assert sorted(order[0]) == sorted(order[1])
    assert order[0] != order[1]


def test_the_parent_is_random_too() -> None:
    made = choice(64, "a", "b", "c", in_flight=1)
    chosen = set()
    for _ in range(100):
        found = made.next()
        assert found is not None
        chosen.add(found[0])
        made.give_back(found[1])
    assert chosen == {"a", "b", "c"}


def test_nothing_is_fetched_too_far_ahead_of_the_hash() -> None:
    made = choice(1000, "a", window=4)
    while (index := made.take("a")) is not None:
        made.have(index)
    assert made.missing == 1000 - 16
    made.follow(5)
    assert made.take("a") in range(16, 21)


def test_a_piece_that_is_lost_after_the_hash_has_passed_is_fetched_again() -> None:
    made = choice(1000, "a", window=4)
    for index in range(500):
        made.have(index)
    made.follow(500)
    made.lost(3)
    made.announce("b", [3])
    assert made.take("b") == 3


def test_slow_parents_are_set_aside_and_taken_up() -> None:
    made = choice(10, "a", "b")
    made.set_aside("a")
    assert [parent for parent, _ in flights(made)] == ["b"]
    assert made.take("a") is None
    assert made.offered == 10
    made.take_up("a")
    assert [parent for parent, _ in flights(made)] == ["a"]


def test_dropped_pieces_are_not_chosen() -> None:
    made = choice(3, "a")
    made.announce("a", drop=[0, 2])
    assert made.take("a") == 1


def test_what_cannot_be_is_never_chosen() -> None:
    made = choice(3)
    made.announce("a", [-1, 3, 2**40], [-5, 2**40])
    made.have(17)
    made.have(-1)
    made.lost(-1)
    made.lost(3)
    made.give_back(9)
    assert made.next() is None
    assert (made.offered, made.known, made.missing) == (0, 0, 3)


def test_counts_are_of_missing_offered_and_ever_known_pieces() -> None:
    made = choice(10)
    made.have(0)
    made.announce("a", [0, 1, 2])
    made.announce("b", [2, 3])
    assert (made.missing, made.offered, made.known) == (9, 3, 4)
    made.forget("b")
    made.announce("a", drop=[1])
    assert (made.missing, made.offered, made.known) == (9, 1, 4)


def test_a_seed_reads_what_no_parent_offers() -> None:
    made = choice(4)
    made.have(0)
    made.announce("a", [1, 3])
    assert (made.first_missing(), made.first_unoffered()) == (1, 2)
    made.announce("a", [2])
    assert made.first_unoffered() is None
    for index in range(4):
        made.have(index)
    assert made.complete
    assert made.first_missing() is None


def test_the_number_of_pieces_may_come_late() -> None:
    made = choice(32768)
    made.announce("a", [0, 1, 2, 5])
    made.end(3)
    for index in range(3):
        made.have(index)
    assert made.complete
    assert (made.offered, made.known) == (0, 3)
