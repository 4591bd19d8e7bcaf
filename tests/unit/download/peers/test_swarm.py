"""Which parents are asked, and when a job gives up: decided without a clock."""

import random
from typing import Any

import pytest

from directdownload.download.peers import swarm as swarms
from directdownload.download.peers.swarm import Swarm
from directdownload.peer.protocol import Changes, State

MIB = 1024 * 1024
SIZE = 4 * MIB


def make(*hosts: str, **fields: Any) -> Swarm:
    return Swarm(hosts, MIB, random.Random(1), 0.0, **fields)


def having(*hosts: str, pieces: tuple[int, ...] = (0, 1, 2, 3)) -> Swarm:
    found = make(*hosts)
    for host in hosts:
        found.state(host, State(MIB, SIZE, frozenset(pieces)), 0.0)
    return found


def test_a_parent_that_is_banned_is_asked_for_nothing_more() -> None:
    swarm = having("a")
    swarm.ban("a", "a: it lies", lied=True)
    swarm.state("a", State(MIB, SIZE, frozenset({0})), 1.0)
    swarm.changes("a", Changes(add=(1,)), 1.0)
    assert swarm.next(100.0) is None
    assert swarm.bad_host == "a"
    assert swarm.unavailable(1.0) == "no host is left to ask (a: it lies)"


def test_a_parent_that_rests_is_asked_afterwards() -> None:
    swarm = having("a")
    swarm.rest("a", 5.0, 0.0)
    swarm.changes("a", Changes(add=(1,)), 1.0)
    assert swarm.next(4.9) is None
    assert swarm.next(5.0) is not None


@pytest.mark.parametrize(("asked", "counts"), [(1e9, 30.0), (float("inf"), 30.0), (float("nan"), 0.0), (-5.0, 0.0)])
def test_a_parent_cannot_ask_for_a_long_pause(asked: float, counts: float) -> None:
    swarm = having("a")
    swarm.rest("a", asked, 0.0)
    assert counts == 0 or swarm.next(counts - 0.1) is None
    assert swarm.next(counts) is not None


def test_each_failure_makes_a_parent_rest_longer_and_a_piece_ends_that() -> None:
    swarm = having("a")
    rests = []
    for number in range(8):
        swarm.failed("a", "a: it broke", 1000.0 * number)
        now = 1000.0 * number
        while (found := swarm.next(now)) is None:
            now += 0.5
        swarm.choice.give_back(found[1])
        rests.append(now - 1000.0 * number)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    swarm.accepted("a", 0, 1.0, 9000.0)
    swarm.failed("a", "a: it broke", 9000.0)
    assert swarm.next(9001.0) is not None


def test_silence_of_all_ends_a_job_and_one_heartbeat_does_not() -> None:
    swarm = make("a", "b")
    assert swarm.unavailable(30.0) is None
    assert swarm.unavailable(30.1) == "no host has answered for 30 s"
    swarm.state("a", State(None, None, frozenset()), 20.0)
    swarm.silent("b", "b: connection refused")
    assert swarm.unavailable(30.0) is None
    swarm.changes("a", Changes(), 40.0)
    assert swarm.unavailable(40.1) == "no host has had a further piece for 30 s (b: connection refused)"


def test_hosts_that_were_all_tried_and_never_reached_end_a_job_sooner() -> None:
    swarm = make("a", "b")
    swarm.silent("a", "a: no answer within 5 s")
    assert swarm.unavailable(11.0) is None
    swarm.silent("b", "b: connection refused")
    assert swarm.unavailable(10.0) is None
    said = "no host has answered for 10 s (a: no answer within 5 s; b: connection refused)"
    assert swarm.unavailable(11.0) == said
    # one that has answered once may come back, as in an upgrade
    swarm.state("a", State(None, None, frozenset()), 11.0)
    swarm.silent("a", "a: connection refused")
    assert swarm.unavailable(30.0) is None
    assert swarm.unavailable(30.1) is not None


def test_pieces_that_come_or_are_announced_are_progress() -> None:
    swarm = having("a", pieces=(0,))
    swarm.changes("a", Changes(add=(1,)), 25.0)
    assert swarm.unavailable(55.0) is None
    swarm.changes("a", Changes(add=(1, 0)), 56.0)
    assert swarm.unavailable(56.0) is not None
    swarm.accepted("a", 0, 1.0, 57.0)
    assert swarm.unavailable(80.0) is None


def test_large_pieces_on_a_slow_network_get_more_time() -> None:
    swarm = having("a")
    swarm.accepted("a", 0, 10.0, 0.0)
    for now in (30.0, 60.0, 90.0, 119.0):
        swarm.changes("a", Changes(), now)
        assert swarm.unavailable(now) is None
    swarm.changes("a", Changes(), 121.0)
    assert swarm.unavailable(121.0) == "no host has had a further piece for 120 s"


def test_a_seed_that_reads_slowly_gets_the_time_of_a_large_piece() -> None:
    swarm = Swarm(["a"], 64 * MIB, random.Random(1), 0.0)
    for now in (29.0, 58.0, 255.0):
        swarm.changes("a", Changes(), now)
        assert swarm.unavailable(now) is None
    swarm.changes("a", Changes(), 257.0)
    assert swarm.unavailable(257.0) == "no host has had a further piece for 256 s"


def test_a_piece_is_slow_only_if_another_parent_has_it() -> None:
    swarm = having("a", "b")
    swarm.changes("b", Changes(drop=(3,)), 0.0)
    assert not swarm.is_slow("a", 0, 10.0)
    assert swarm.is_slow("a", 0, 10.1)
    assert not swarm.is_slow("a", 3, 1000.0)
    swarm.rest("b", 30.0, 0.0)
    assert not swarm.is_slow("a", 0, 1000.0)


def test_the_size_of_most_parents_counts_and_is_kept() -> None:
    swarm = make("a", "b", "c")
    swarm.state("a", State(MIB, 3 * MIB, frozenset({0, 1, 2})), 0.0)
    others = []
    for host in ("b", "c"):
        others.append(swarm.other_size_bytes)
        swarm.state(host, State(MIB, SIZE, frozenset({3})), 0.0)
    assert swarm.size_bytes == 3 * MIB
    assert [*others, swarm.other_size_bytes] == [None, None, SIZE]
    again = make("a", "b", "c", size_bytes=SIZE)
    again.state("a", State(MIB, 3 * MIB, frozenset({0, 1, 2})), 0.0)
    assert again.next(0.0) is None
    again.state("b", State(MIB, SIZE, frozenset({3})), 0.0)
    assert again.next(0.0) == ("b", 3)


def test_a_size_that_most_named_is_contested_by_more_parents_only() -> None:
    """A liar that is always first would else have one transfer after the other begun anew."""
    swarm = make("a", "b", "c", "d", size_bytes=SIZE, votes=2)
    others = []
    for host in ("a", "b", "c"):
        swarm.state(host, State(MIB, 3 * MIB, frozenset({0})), 0.0)
        others.append(swarm.other_size_bytes)
    assert others == [None, None, 3 * MIB]


def test_a_parent_of_another_piece_size_or_of_too_large_a_file_is_banned() -> None:
    swarm = make("a", "b", "c", max_size_bytes=SIZE)
    swarm.state("a", State(2 * MIB, SIZE, frozenset({0})), 0.0)
    swarm.state("b", State(MIB, SIZE + 1, frozenset({0})), 0.0)
    swarm.state("c", State(None, None, frozenset()), 0.0)
    swarm.changes("c", Changes(SIZE, (1,)), 0.0)
    assert [swarm.is_banned(host) for host in ("a", "b", "c")] == [True, True, False]
    assert swarm.next(0.0) == ("c", 1)


def test_a_parent_whose_pieces_are_always_gone_rests_shortly() -> None:
    swarm = having("a", pieces=(0,))
    for _ in range(swarms._ABSENT):
        found = swarm.next(0.0)
        assert found == ("a", 0)
        swarm.choice.give_back(0)
        swarm.absent("a", 0, 0.0)
        assert swarm.next(0.0) is None
        swarm.changes("a", Changes(add=(0,)), 0.0)
    assert swarm.next(0.9) is None
    assert swarm.next(1.0) == ("a", 0)


def test_a_piece_that_was_not_given_is_asked_for_again_while_it_is_announced() -> None:
    swarm = having("a", pieces=(0,))
    assert swarm.next(0.0) == ("a", 0)
    swarm.choice.give_back(0)
    swarm.absent("a", 0, 0.0)
    assert swarm.next(4.9) is None
    assert swarm.next(5.0) == ("a", 0)
    swarm.choice.give_back(0)
    swarm.absent("a", 0, 5.0)
    swarm.changes("a", Changes(drop=(0,)), 6.0)
    assert swarm.next(100.0) is None


def test_where_there_is_another_source_nothing_is_waited_for() -> None:
    swarm = make("a", "b", brief=True)
    swarm.state("a", State(None, None, frozenset()), 1.0)
    assert swarm.unavailable(1.0) is None
    swarm.state("b", State(MIB, SIZE, frozenset({0})), 1.0)
    assert swarm.unavailable(1.0) is None
    assert swarm.next(1.0) == ("b", 0)
    assert swarm.unavailable(1.0) is None
    swarm.accepted("b", 0, 0.1, 1.5)
    assert swarm.unavailable(1.5) == "no host has a further piece now"


def test_a_host_that_does_not_answer_is_not_waited_for_long() -> None:
    swarm = make("a", "b", brief=True)
    swarm.state("a", State(None, None, frozenset()), 1.0)
    assert swarm.unavailable(3.0) is None
    assert swarm.unavailable(3.1) is not None


def test_only_a_few_hosts_are_named_in_a_message() -> None:
    hosts = [f"h{number}" for number in range(16)]
    swarm = make(*hosts)
    for host in hosts:
        swarm.silent(host, f"{host}: refused")
    problem = swarm.unavailable(31.0) or ""
    assert problem.endswith("(h0: refused; h1: refused; h2: refused; h3: refused, and 12 more)")
