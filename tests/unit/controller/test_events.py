"""Events: what becomes one Event, what is too many, what an Event says, and a Recorder whose API server is away."""

import asyncio
import dataclasses
import datetime
import logging
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Any

import prometheus_client
import pytest
import pytest_asyncio
import yaml
from tests.unit.planning.build import NOW, host, placement, seconds, template

from directdownload.cluster import client, kinds
from directdownload.controller import events
from directdownload.controller.events import Series
from directdownload.resources.reasons import Reason
from directdownload.tokenbucket import TokenBucket


def happening(after: datetime.timedelta = datetime.timedelta(0), **fields: Any) -> Series:
    """One that happens `after` the start."""
    moment = NOW + after
    first = Series(
        kinds.TEMPLATE_PLACEMENTS,
        "debian-kvm-1",
        "uid-1",
        "Warning",
        Reason.SOURCE_UNAVAILABLE,
        "Fetch",
        "the server answered 503",
        moment,
        moment,
    )
    return dataclasses.replace(first, **fields)


def dropped(cause: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value("directdownload_events_dropped_total", {"cause": cause}) or 0.0


# One Event or two


@pytest.mark.parametrize(("pause", "count"), [(0.0, 2), (6.0, 2), (6.1, 1)])
def test_what_happens_again_within_six_minutes_is_one_event(pause: float, count: int) -> None:
    again = happening(datetime.timedelta(minutes=pause), note="the server answered 502")
    found = events.continued(happening(), again)
    assert (found.count, found.last) == (count, again.last)
    # The same Event, or another one.
    assert (events.name_of(found) == events.name_of(happening())) is (count == 2)
    assert found.note == ("the server answered 503" if count == 2 else "the server answered 502")


def test_the_six_minutes_begin_with_the_last_repetition() -> None:
    series = happening()
    for number in range(1, 5):
        series = events.continued(series, happening(datetime.timedelta(minutes=5 * number)))
    assert (series.count, series.first, series.last) == (5, NOW, NOW + datetime.timedelta(minutes=20))


def test_a_clock_that_is_set_back_lets_no_event_end_before_it_began() -> None:
    series = events.continued(happening(), happening(datetime.timedelta(hours=-1)))
    assert (series.count, series.last) == (2, NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"uid": "uid-2"},
        {"reason": Reason.SOCKET_TIMEOUT},
        {"event_type": "Normal"},
        {"action": "Verify"},
    ],
    ids=str,
)
def test_another_object_reason_type_or_action_is_another_event(other: dict[str, Any]) -> None:
    backlog = events.Backlog()
    assert backlog.add(happening()) is None
    assert backlog.add(happening(**other)) is None
    assert [backlog.pop().count, backlog.pop().count] == [1, 1]


# Too many


def spent(bucket: TokenBucket | None, now: datetime.datetime) -> tuple[int, TokenBucket]:
    """How many Events are allowed at once."""
    for number in range(1000):
        bucket, allowed = events.spend(bucket, now)
        if not allowed:
            return number, bucket
    raise AssertionError("there is no end")


def test_an_object_has_25_events_at_once_and_one_more_each_five_minutes() -> None:
    number, bucket = spent(None, NOW)
    assert number == 25
    almost = NOW + datetime.timedelta(minutes=4, seconds=59)
    number, bucket = spent(bucket, almost)
    assert number == 0
    assert spent(bucket, NOW + datetime.timedelta(minutes=5))[0] == 1
    assert spent(bucket, NOW + datetime.timedelta(minutes=52))[0] == 10
    assert spent(bucket, NOW + datetime.timedelta(days=30))[0] == 25


def test_a_clock_that_is_set_back_takes_no_events_away() -> None:
    bucket, _ = events.spend(None, NOW)
    assert spent(bucket, NOW - datetime.timedelta(hours=1))[0] == 24


def test_repetitions_that_are_too_many_are_told_by_the_next_event() -> None:
    backlog = events.Backlog()
    causes = []
    for number in range(40):
        causes.append(backlog.add(happening(seconds(number))))
        if causes[-1] is None:
            assert backlog.pop().count == number + 1
    assert causes == [None] * 25 + ["Throttled"] * 15
    assert backlog.add(happening(datetime.timedelta(minutes=5))) is None
    assert backlog.pop().count == 41


def test_one_object_that_tells_too_much_silences_no_other_and_no_other_type() -> None:
    backlog = events.Backlog()
    reasons = [*Reason][:30]
    causes = [backlog.add(happening(reason=reason)) for reason in reasons]
    assert causes == [None] * 25 + ["Throttled"] * 5
    assert backlog.add(happening(uid="uid-2")) is None
    assert backlog.add(happening(event_type="Normal")) is None


# Bounds


def test_what_happens_while_its_event_waits_is_told_by_one_write() -> None:
    backlog = events.Backlog()
    for number in range(100):
        assert backlog.add(happening(seconds(number))) is None
    assert len(backlog) == 1
    assert backlog.pop().count == 100


def test_at_most_1000_events_wait_and_they_are_told_in_order() -> None:
    backlog = events.Backlog()
    causes = [backlog.add(happening(uid=f"uid-{number}")) for number in range(1200)]
    assert causes == [None] * 1000 + ["QueueFull"] * 200
    assert [backlog.pop().uid for _ in range(1000)] == [f"uid-{number}" for number in range(1000)]
    with pytest.raises(KeyError):
        backlog.pop()


def test_what_is_remembered_of_a_large_fleet_is_bounded() -> None:
    backlog = events.Backlog()
    reasons = [*Reason][:25]
    for reason in reasons:
        backlog.add(happening(uid="early", reason=reason))
        backlog.pop()
    assert backlog.add(happening(uid="early")) == "Throttled"
    for number in range(events.SERIES_LIMIT):
        for uid in ("chatty", f"uid-{number}"):
            if backlog.add(happening(uid=uid)) is None:
                backlog.pop()
    # Of the early one neither what it told is known nor how often; of one that keeps telling it is.
    assert backlog.add(happening(uid="early")) is None
    assert backlog.pop().count == 1
    assert backlog.add(happening(datetime.timedelta(minutes=5), uid="chatty")) is None
    assert backlog.pop().count == events.SERIES_LIMIT + 1


# What an Event says


def test_an_event_has_all_that_the_api_demands() -> None:
    series = events.continued(happening(), happening(datetime.timedelta(minutes=1)))
    assert events.document(series, "controller-7d9f") == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": events.name_of(series), "namespace": "default"},
        "eventTime": "2025-01-31T12:00:00.000000Z",
        "reportingController": "directdownload.dev/controller",
        "reportingInstance": "controller-7d9f",
        "action": "Fetch",
        "reason": "SourceUnavailable",
        "regarding": {
            "apiVersion": "directdownload.dev/v1alpha1",
            "kind": "TemplatePlacement",
            "name": "debian-kvm-1",
            "uid": "uid-1",
        },
        "note": "the server answered 503",
        "type": "Warning",
        "series": {"count": 2, "lastObservedTime": "2025-01-31T12:01:00.000000Z"},
    }
    assert "series" not in events.document(happening(), "controller-7d9f")


def test_an_event_lies_in_the_namespace_of_its_object() -> None:
    series = happening(resource=kinds.TEMPLATES, key="tenant/debian")
    document = events.document(series, "controller-7d9f")
    assert document["metadata"]["namespace"] == "tenant"
    assert document["regarding"] == {
        "apiVersion": "directdownload.dev/v1alpha1",
        "kind": "Template",
        "namespace": "tenant",
        "name": "debian",
        "uid": "uid-1",
    }


@pytest.mark.parametrize("key", ["debian-kvm-1", "tenant/debian", "h" * 253, "h" * 235 + "." + "h" * 17])
def test_the_name_of_an_event_is_a_name_of_the_api(key: str) -> None:
    name = events.name_of(happening(key=key))
    assert len(name) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)


def test_names_of_events_follow_from_what_happened_and_when() -> None:
    others = [
        happening(uid="uid-2"),
        happening(reason=Reason.TRUNCATED),
        happening(event_type="Normal"),
        happening(action="Verify"),
        happening(datetime.timedelta(microseconds=1)),
    ]
    assert len({events.name_of(each) for each in (happening(), *others)}) == 6
    assert events.name_of(happening()) == events.name_of(happening(note="other words", count=7))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("the file is gone", "the file is gone"),
        ("two\nlines\x1b[31m\x00", "two lines [31m "),
        ("GET https://user:pass@example.org/a?sig=secret failed", "GET https://***@example.org/a?*** failed"),
        ("half a pair: \ud83d", "half a pair:  "),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + "…"),
        # a character of three bytes at the limit is left out whole
        ("€" * 1000, "€" * 340 + "…"),
    ],
    ids=lambda text: text[:12],
)
def test_notes_are_short_plain_and_without_secrets(message: str, shown: str) -> None:
    found = events.note(message)
    assert found == shown
    assert len(found.encode()) <= 1024


# A Recorder whose API server is away


@pytest_asyncio.fixture
async def away(tmp_path: pathlib.Path) -> AsyncIterator[client.Api]:
    """An API whose server refuses every connection."""
    config = {
        "current-context": "away",
        "contexts": [{"name": "away", "context": {"cluster": "away", "user": "nobody"}}],
        "clusters": [{"name": "away", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "nobody", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    api = await client.Api.connect(kubeconfig=str(path))
    yield api
    await api.close()


async def test_without_an_api_server_events_are_dropped_and_that_is_logged_once(
    away: client.Api, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = events.Recorder(away, "controller-7d9f", pauses_seconds=(0.01, 0.01))
    before = dropped("Unreachable")
    for number in range(3):
        recorder.tell(kinds.HOSTS, host(f"kvm-{number}"), "Warning", Reason.NODE_NOT_READY, "its Node is not Ready")
    running = asyncio.create_task(recorder.run())
    async with asyncio.timeout(10):
        while dropped("Unreachable") < before + 3:  # noqa: ASYNC110 - a counter knows no event
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.wait((running,))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("Events are being dropped (Unreachable): ")


async def test_telling_never_waits_and_never_fails(away: client.Api, caplog: pytest.LogCaptureFixture) -> None:
    recorder = events.Recorder(away, "controller-7d9f")
    full, throttled = dropped("QueueFull"), dropped("Throttled")
    for number in range(events.QUEUE_LIMIT + 10):
        copy = placement(host=f"kvm-{number}", uid=f"uid-{number}")
        recorder.tell(kinds.TEMPLATE_PLACEMENTS, copy, "Normal", Reason.DOWNLOADED, "", "Fetch")
    assert dropped("QueueFull") == full + 10
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    other = events.Recorder(away, "controller-7d9f")
    for reason in [*Reason][:30]:
        other.tell(kinds.TEMPLATES, template(), "Normal", reason, "")
    assert dropped("Throttled") == throttled + 5
