"""Speed, ETA and percent from one state of a journal after the other."""

import datetime
import itertools
from typing import Any

import pytest

from directdownload.agent.pools import progress
from directdownload.download.transfer.journal import Journal
from directdownload.resources.templateplacement import Progress

START = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
MIB = 1024 * 1024


def at(seconds: float) -> datetime.datetime:
    return START + datetime.timedelta(seconds=seconds)


def journal(seconds: float, bytes_on_disk: int, **fields: Any) -> Journal:
    defaults: dict[str, Any] = {
        "source": "http://images.example.org:8080/a.qcow2",
        "size_bytes": 100 * MIB,
        "started_time": START,
    }
    return Journal(updated_time=at(seconds), bytes_on_disk=bytes_on_disk, **{**defaults, **fields})


def follow(*states: Journal) -> progress.Meter:
    meter = None
    for state in states:
        meter = progress.advance(meter, state)
    assert meter is not None
    return meter


def show(*states: Journal, after_seconds: float = 0) -> Progress:
    last = states[-1]
    return progress.progress(follow(*states), last, last.updated_time + datetime.timedelta(seconds=after_seconds))


def test_a_steady_download_shows_its_speed_eta_and_percent() -> None:
    shown = show(*(journal(2 * n, 10 * MIB * n) for n in range(6)))
    assert (shown.bytes_downloaded, shown.bytes_total, shown.percent) == (50 * MIB, 100 * MIB, 50)
    assert shown.bytes_per_second == 5 * MIB
    assert shown.eta_seconds == 10
    assert shown.source == "images.example.org"
    assert shown.updated_time == at(10)


def test_a_change_of_speed_shows_by_degrees_and_in_the_end_fully() -> None:
    states = [journal(0, 0), journal(2, 20 * MIB)]
    fast = follow(*states).bytes_per_second
    speeds = []
    for n in range(1, 31):
        states.append(journal(2 + 2 * n, 20 * MIB + n * MIB))
        speeds.append(follow(*states).bytes_per_second)
    assert fast == 10 * MIB
    assert fast > speeds[0] > fast / 2
    assert all(earlier > later for earlier, later in itertools.pairwise(speeds))
    assert speeds[-1] == pytest.approx(MIB / 2, rel=0.1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(journal(10, 50 * MIB), journal(12, 1 * MIB), id="began again from zero"),
        pytest.param(journal(10, 50 * MIB), journal(30, 50 * MIB, started_time=at(30)), id="next attempt, resumed"),
    ],
)
def test_another_attempt_starts_measuring_anew(before: Journal, after: Journal) -> None:
    meter = follow(journal(0, 0), before, after)
    assert meter.bytes_on_disk == after.bytes_on_disk
    assert meter.bytes_per_second == after.bytes_per_second == 0


def test_a_resumed_download_does_not_count_what_was_there() -> None:
    meter = follow(journal(0, 80 * MIB), journal(2, 82 * MIB))
    assert meter.bytes_per_second == MIB


def test_a_state_seen_twice_or_from_the_past_changes_nothing() -> None:
    meter = follow(journal(0, 0), journal(2, 2 * MIB))
    assert progress.advance(meter, journal(2, 2 * MIB)) is meter
    assert progress.advance(meter, journal(1, 3 * MIB)) is meter


@pytest.mark.parametrize(
    ("after_seconds", "interval_seconds", "stalled"), [(9, 2, False), (11, 2, True), (59, 20, False), (61, 20, True)]
)
def test_a_journal_that_stands_still_has_no_speed(after_seconds: float, interval_seconds: float, stalled: bool) -> None:
    states = [journal(2 * n, n * MIB, progress_interval_seconds=interval_seconds) for n in range(3)]
    shown = show(*states, after_seconds=after_seconds)
    assert (shown.bytes_per_second == 0) is stalled
    assert (shown.eta_seconds is None) is stalled
    assert shown.percent == 2


def test_without_a_known_size_there_is_no_percent_and_no_eta() -> None:
    shown = show(journal(0, 0, size_bytes=None), journal(2, MIB, size_bytes=None))
    assert (shown.bytes_total, shown.percent, shown.eta_seconds) == (None, None, None)
    assert shown.bytes_per_second == MIB // 2


@pytest.mark.parametrize(
    ("size_bytes", "bytes_on_disk", "percent"),
    [(0, 0, 100), (1000, 999, 99), (1000, 1000, 100), (1000, 5000, 100), (2**62, 2**62 - 1, 99)],
)
def test_percent_is_rounded_down_and_ends_at_100(size_bytes: int, bytes_on_disk: int, percent: int) -> None:
    assert show(journal(0, bytes_on_disk, size_bytes=size_bytes)).percent == percent


def test_numbers_of_a_hostile_journal_still_fit_the_api() -> None:
    states = journal(0, 0, size_bytes=2**62), journal(0.000001, 2**62, size_bytes=2**62)
    shown = show(*states)
    assert shown.bytes_per_second is not None
    assert shown.bytes_per_second < 2**63
    far = datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-14)))
    assert progress.utc(far).year == 9999
    assert progress.utc(datetime.datetime(2026, 1, 1)) == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)  # noqa: DTZ001, RUF100


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("https://user:secret@images.example.org/a?token=x", "images.example.org"),
        ("http://[2001:db8::1]:80/a", "2001:db8::1"),
        ("http://[broken/a", None),
        ("no url", None),
        ("http://a\x07b/", None),
    ],
)
def test_of_the_source_only_the_host_is_told(source: str, host: str | None) -> None:
    assert progress.source_host(source) == host
