"""Conditions from verdicts: how Ready, Reconciling and Stalled relate, and when their times move."""

import itertools

import pytest
from tests.unit.planning.build import NOW, seconds

from directdownload.planning.conditions import Verdict, conditions
from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.reasons import Reason

READY = Verdict(True, Reason.DOWNLOADED)
WORKING = Verdict(False, Reason.DOWNLOADING, "attempt 1 runs")
STALLED = Verdict(False, Reason.CHECKSUM_MISMATCH, "expected another digest", stalled=True)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (READY, ("True", "False", "False")),
        (WORKING, ("False", "True", "False")),
        (STALLED, ("False", "False", "True")),
    ],
)
def test_exactly_one_of_the_three_is_true(verdict: Verdict, expected: tuple[str, ...]) -> None:
    found = conditions(verdict, (), 7, NOW)
    assert [c.type for c in found] == ["Ready", "Reconciling", "Stalled"]
    assert tuple(c.status.value for c in found) == expected
    assert {(c.reason, c.message, c.observed_generation) for c in found} == {(verdict.reason, verdict.message, 7)}
    assert {c.last_transition_time for c in found} == {NOW}


@pytest.mark.parametrize(("before", "after"), list(itertools.product((READY, WORKING, STALLED), repeat=2)))
def test_a_time_moves_exactly_with_its_status(before: Verdict, after: Verdict) -> None:
    later = NOW + seconds(60)
    old = conditions(before, (), 1, NOW)
    for was, now in zip(old, conditions(after, old, 2, later), strict=True):
        assert now.last_transition_time == (NOW if was.status == now.status else later)
        assert now.observed_generation == 2


def test_a_new_reason_or_message_does_not_move_the_time() -> None:
    old = conditions(WORKING, (), 1, NOW)
    found = conditions(Verdict(False, Reason.HOST_DOWN, "the host is Down"), old, 1, NOW + seconds(60))
    assert {c.last_transition_time for c in found} == {NOW}
    assert {c.reason for c in found} == {Reason.HOST_DOWN}


def test_a_condition_without_a_time_gets_one() -> None:
    old = Condition(type="Ready", status=ConditionStatus.TRUE, reason=Reason.DOWNLOADED)
    assert conditions(READY, [old], 1, NOW)[0].last_transition_time == NOW


def test_only_the_types_that_were_asked_for() -> None:
    assert [c.type for c in conditions(READY, (), 1, NOW, types=("Ready",))] == ["Ready"]


def test_a_message_that_is_longer_than_any_may_be_is_cut() -> None:
    long = Verdict(False, Reason.TEMPLATE_NOT_IN_ZONE, "z" * 70_000)
    (ready,) = conditions(long, (), 1, NOW, types=("Ready",))
    assert (len(ready.message), ready.message[-2:]) == (32768, "z…")
    (whole,) = conditions(Verdict(False, Reason.UP, "z" * 32768), (), 1, NOW, types=("Ready",))
    assert whole.message == "z" * 32768
