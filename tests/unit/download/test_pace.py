"""Whether sources deliver too little: what counts, over which time, by a clock of the tests."""

import random

import pytest

from directdownload.download.sources.urls import Url
from directdownload.download.transfer.pace import WINDOW_SECONDS, Pace
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import PERMANENT, Reason

KIB = 1024
TICK = 0.25


class Clock:
    """Looks at a pace as a transfer does, at time that passes at once."""

    def __init__(self, minimum: int = 64 * KIB, bandwidth: int = 0) -> None:
        limits = Limits(minimum_bytes_per_second=minimum, bandwidth_bytes_per_second=bandwidth)
        self.now, self.received = 1000.0, 0.0
        self.pace = Pace(limits, self.now)

    def passes(self, seconds: float, rate: float, *, waiting: bool = True, tick: float = TICK) -> float | None:
        """Seconds until the sources were found too slow, or None, while `rate` bytes per second come."""
        began = self.now
        while self.now - began < seconds:
            self.now += tick
            self.received += rate * tick
            if self.pace.look(self.now, int(self.received), waiting=waiting) is not None:
                return self.now - began
        return None


def test_a_trickle_is_found_after_a_window_and_no_sooner() -> None:
    found = Clock().passes(3600, 0.25)
    assert found is not None
    assert WINDOW_SECONDS <= found <= WINDOW_SECONDS * 1.05


@pytest.mark.parametrize("rate", [64 * KIB, 65 * KIB, 10**9])
def test_who_delivers_the_minimum_is_never_too_slow(rate: int) -> None:
    assert Clock().passes(3600, rate) is None


def test_what_came_before_is_forgotten_after_a_window() -> None:
    clock = Clock()
    assert clock.passes(600, 10**8) is None
    found = clock.passes(3600, 1)
    assert found is not None
    assert found <= WINDOW_SECONDS * 1.1


def test_a_pause_shorter_than_what_the_average_bears_is_forgiven() -> None:
    clock = Clock()
    for _ in range(20):
        assert clock.passes(60, 160 * KIB) is None
        assert clock.passes(60, 0) is None


def test_whatever_the_bursts_an_average_above_the_minimum_is_enough() -> None:
    rng = random.Random(7)
    for _ in range(20):
        clock = Clock()
        for _ in range(40):
            # over any window it is at least the minimum: no pause is longer than what each burst has brought for it
            pause = rng.uniform(0.3, 50)
            assert clock.passes(1, (pause + 3) * 1.1 * 64 * KIB * 2) is None
            assert clock.passes(pause, 0) is None


def test_time_in_which_something_of_ours_is_waited_for_does_not_count() -> None:
    clock = Clock()
    assert clock.passes(WINDOW_SECONDS * 0.9, 0) is None
    assert clock.passes(36_000, 0, waiting=False) is None
    assert clock.passes(WINDOW_SECONDS * 0.09, 0) is None
    assert clock.passes(WINDOW_SECONDS * 0.1, 0) is not None


def test_a_process_that_stood_still_finds_nobody_slow() -> None:
    clock = Clock()
    for _ in range(20):
        assert clock.passes(1, 64 * KIB) is None
        # suspended, or starved of CPU
        assert clock.passes(3600, 0, tick=3600) is None
        assert clock.passes(1, 2 * 64 * KIB) is None


@pytest.mark.parametrize(
    ("minimum", "bandwidth", "effective"),
    [(64 * KIB, 0, 64 * KIB), (64 * KIB, 10**9, 64 * KIB), (64 * KIB, 100 * KIB, 50 * KIB), (64 * KIB, 1, 0)],
)
def test_the_minimum_is_at_most_half_of_our_own_limit(minimum: int, bandwidth: int, effective: int) -> None:
    clock = Clock(minimum, bandwidth)
    assert clock.pace.minimum == effective
    if bandwidth:
        assert clock.passes(3600, bandwidth) is None


def test_without_a_minimum_nobody_is_too_slow() -> None:
    assert Limits().minimum_bytes_per_second == 0
    assert Clock(minimum=0).passes(36_000, 0) is None


def test_those_who_come_next_have_a_whole_window() -> None:
    clock = Clock()
    assert clock.passes(3600, 0) is not None
    clock.pace.begin_anew()
    found = clock.passes(3600, 0)
    assert found is not None
    assert found >= WINDOW_SECONDS


def test_what_is_said_names_source_rate_minimum_window_and_field() -> None:
    error = Clock().pace.failure(Url.parse("https://images.example.org/a?token=hush"), 12.34)
    assert error.reason is Reason.SOURCE_TOO_SLOW
    assert error.reason not in PERMANENT
    for word in (
        "https://images.example.org/a",
        "12 bytes",
        "120 s",
        "65536",
        "downloads.minimumRate",
    ):
        assert word in error.message
    assert "hush" not in error.message
