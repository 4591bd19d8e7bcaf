"""Who fetches what, and when one more connection is worth it: decisions without clock or network."""

import random

import pytest
from tests.unit.download.support import deliver

from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.schedule import BLOCK_BYTES, Board, Candidate, Claim, Ramp, next_candidate

MIB = 1024 * 1024
GIB = 1024 * MIB


def test_a_single_connection_claims_everything() -> None:
    board = Board(GIB, Ranges())
    claim = board.take(0, 0, alone=True)
    assert claim is not None
    assert (claim.position, claim.end) == (0, GIB)
    assert board.take(0.1, 0, alone=False) is not None, "a second one gets its share of that"
    assert claim.end == 16 * MIB


def test_claims_of_several_go_out_in_ascending_order() -> None:
    board = Board(GIB, Ranges())
    claims = [board.take(0, 0, alone=False) for _ in range(4)]
    assert [claim and claim.position for claim in claims] == [0, 16 * MIB, 32 * MIB, 48 * MIB]


def test_what_is_there_is_not_fetched() -> None:
    board = Board(100 * MIB, Ranges([(0, 10 * MIB), (20 * MIB, 90 * MIB)]))
    claims = [board.take(0, 0, alone=True), board.take(0, 0, alone=True)]
    assert [(claim.position, claim.end) for claim in claims if claim] == [
        (10 * MIB, 20 * MIB),
        (90 * MIB, 100 * MIB),
    ]
    assert board.missing_bytes == 20 * MIB


def test_the_claim_that_would_end_last_is_divided_where_both_end_together() -> None:
    board = Board(20 * MIB, Ranges())
    slow, fast = board.take(0, 0, alone=True), None
    assert slow is not None
    deliver(board, slow, 4, 4 * MIB)
    fast = board.take(4, 3 * MIB, alone=False)
    assert fast is not None
    assert (slow.end, fast.position, fast.end) == (8 * MIB, 8 * MIB, 20 * MIB), "1 MiB/s and 3 MiB/s"


@pytest.mark.parametrize(("delivered", "taken_from"), [(MIB, 3 * MIB), (0, 12 * MIB)], ids=["one that delivers", "new"])
def test_a_claim_that_stands_still_is_taken_over_whole_by_a_connection_that_delivers(
    delivered: int, taken_from: int
) -> None:
    """A new one may be refused: the other, whose server may only be slow to begin, keeps what it has."""
    board = Board(20 * MIB, Ranges())
    stalled = board.take(0, 0, alone=True)
    assert stalled is not None
    deliver(board, stalled, 0.1, 3 * MIB)
    for second in range(1, 8):
        stalled.rate.at(second, stalled.position)
    other = board.take(8, delivered, alone=False)
    assert other is not None
    assert (stalled.end, other.position, other.end) == (taken_from, taken_from, min(taken_from + 16 * MIB, 20 * MIB))


def test_what_is_nearly_done_is_left_to_whom_it_is() -> None:
    board = Board(20 * MIB, Ranges())
    claim = board.take(0, 0, alone=True)
    assert claim is not None
    deliver(board, claim, 2, 19 * MIB)
    assert board.take(2, 10 * MIB, alone=False) is None
    assert claim.end == 20 * MIB


def test_while_the_size_is_unknown_there_is_one_claim() -> None:
    board = Board(None, Ranges())
    claim = board.take(0, 0, alone=True)
    assert claim is not None
    assert (claim.end, board.take(0, 0, alone=False), board.missing_bytes, board.complete) == (None, None, None, False)
    board.set_size(5)
    assert (claim.end, board.missing_bytes) == (5, 5)


@pytest.mark.parametrize("seed", range(20))
def test_connections_of_any_speed_that_come_and_go_fetch_every_byte(seed: int) -> None:
    chance = random.Random(seed)
    size = chance.randrange(1, 300 * MIB)
    board = Board(size, Ranges())
    speeds = [chance.choice([0, MIB // 2, 3 * MIB, 40 * MIB]) for _ in range(chance.randrange(1, 6))] + [9 * MIB]
    held: list[Claim | None] = [None] * len(speeds)
    writing: list[tuple[int, int]] = []
    sent = 0
    now = 0.0
    while not board.complete:
        now += 0.5
        assert now < 4000, "somebody waits for ever"
        for index, speed in enumerate(speeds):
            claim = held[index]
            if claim is not None and claim.exhausted:
                board.give_back(claim)
                claim = held[index] = None
            if claim is None:
                claim = held[index] = board.take(now, speed and float(speed), alone=False)
            if claim is None:
                continue
            if chance.random() < 0.02:
                board.give_back(claim)
                held[index] = None
                continue
            count = min(speed // 2, claim.left_bytes or 0)
            if count:
                sent += count
                start = claim.position
                writing.append((start, start + board.receive(claim, now, count)))
        chance.shuffle(writing)
        for _ in range(chance.randrange(len(writing) + 1)):
            board.advance(*writing.pop())
    assert list(board.done) == [(0, size)]
    assert sent <= size + len(speeds) * BLOCK_BYTES, "nothing is fetched twice"


def test_the_source_with_the_fewest_connections_is_next_in_order_of_preference() -> None:
    candidates = [Candidate(1, 4), Candidate(0, 4, failed=True), Candidate(0, 4), Candidate(0, 4)]
    assert next_candidate(candidates) == 2
    candidates[2].connections = candidates[3].connections = 1
    assert next_candidate(candidates) == 0
    assert next_candidate([Candidate(1, 1), Candidate(0, 4, failed=True)]) is None


def test_connections_are_added_as_long_as_they_help() -> None:
    """Each brings 10 MiB/s, up to 25 MiB/s of the link."""
    ramp, connections, history = Ramp(0), 1, []
    for tick in range(1, 400):
        step = ramp.decide(tick * 0.25, min(connections * 10, 25) * MIB, 100 * GIB)
        connections += step
        if step:
            history.append(connections)
    assert history == [2, 3, 4, 3]


def test_nothing_is_added_for_the_last_seconds() -> None:
    ramp = Ramp(0)
    assert [ramp.decide(tick * 0.25, 10 * MIB, 40 * MIB) for tick in range(40)] == [0] * 40


def test_one_is_tried_again_when_it_became_slow() -> None:
    ramp, steps = Ramp(0), []
    for tick in range(1, 120):
        rate = 10 if tick < 60 else 2
        steps.append(ramp.decide(tick * 0.25, rate * MIB, 100 * GIB))
    assert steps[:59].count(1) == 1
    assert steps[:59].count(-1) == 1
    assert 1 in steps[59:]
