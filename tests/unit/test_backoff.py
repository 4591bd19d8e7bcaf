"""The pauses after failures: how long each user waits, at least and at most."""

import random
from collections.abc import Callable

import pytest

from directdownload import backoff
from directdownload.agent import retry
from directdownload.cluster import errors, reflector
from directdownload.controller import queue

AWAY = errors.Unreachable(503, "ServiceUnavailable", "away")
REFUSED = errors.Forbidden(403, "Forbidden", "refused")
INVALID = errors.Invalid(422, "Invalid", "refused")
BUSY = errors.TooManyRequests(429, "TooManyRequests", "busy", 20)
FULL = OSError(28, "No space left on device")

#: The pause after so many failures, without jitter: the first eleven, and the thousandth.
UP_TO_30 = (0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30)
UP_TO_300 = (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300)
UP_TO_60 = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60, 60)

USERS: dict[str, tuple[Callable[[int], float], tuple[float, ...], float, float]] = {
    "agent": (lambda failures: retry.pause_seconds(failures, AWAY), UP_TO_30, 0.5, 1.0),
    "agent, disk full": (lambda failures: retry.pause_seconds(failures, FULL), UP_TO_30, 0.5, 1.0),
    "agent, forbidden": (lambda failures: retry.pause_seconds(failures, REFUSED), UP_TO_300, 0.5, 1.0),
    "agent, invalid": (lambda failures: retry.pause_seconds(failures, INVALID), UP_TO_300, 0.5, 1.0),
    "reflector": (reflector._BACKOFF.pause_seconds, UP_TO_30, 0.5, 1.0),
    "queue": (queue._BACKOFF.pause_seconds, UP_TO_60, 0.8, 1.2),
}


@pytest.mark.parametrize(("pause", "expected", "least", "largest"), USERS.values(), ids=USERS)
def test_pauses_double_up_to_a_limit_and_are_spread(
    pause: Callable[[int], float],
    expected: tuple[float, ...],
    least: float,
    largest: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = (*range(1, 12), 1000)
    for factor, drawn in ((least, lambda low, high: low), (largest, lambda low, high: high)):
        monkeypatch.setattr(random, "uniform", drawn)
        assert [pause(each) for each in failures] == pytest.approx([factor * seconds for seconds in expected])


def test_the_agent_does_not_come_back_before_the_api_server_allows() -> None:
    assert retry.pause_seconds(1, BUSY) == 20
    assert min(retry.pause_seconds(7, BUSY) for _ in range(20)) >= 20


def test_those_who_begin_together_do_not_go_on_together() -> None:
    seen = {backoff.spread(10, 0.9, 1.1) for _ in range(100)}
    assert len(seen) > 50
    assert min(seen) >= 9
    assert max(seen) <= 11
