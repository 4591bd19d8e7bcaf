"""What is reported of the volumes, and what a volume is answered."""

import datetime
from typing import Any

import pytest
from tests.world.plugin import NOW, ROOT, UID, served

from directdownload.agent.volumes import demands
from directdownload.agent.volumes.ledger import Entry, Volume
from directdownload.resources.host import DEMANDS_LIMIT, Demand, Served
from directdownload.resources.templateplacement import Progress
from directdownload.resources.volumes import Answer

MIB = 2**20
VOLUME = Volume(namespace="web", template="debian-13", since=NOW)


def later(seconds: float) -> datetime.datetime:
    return NOW + datetime.timedelta(seconds=seconds)


def entry(template: str, since: float = 0, used: float | None = None, uid: str = "") -> Entry:
    last = later(used) if used is not None else None
    return Entry(namespace="web", template=template, uid=uid, since=later(since), last_used_time=last)


def reported(*entries: Entry, volumes: tuple[Volume, ...] = (), limit: int = DEMANDS_LIMIT) -> list[Demand]:
    return list(demands.report(volumes, {each.key: each for each in entries}, {}, limit))


def volume_of(found: Entry) -> Volume:
    return Volume(namespace=found.namespace, template=found.template, uid=found.uid, since=found.since)


def test_a_demand_counts_its_volumes_and_has_a_time_of_use_only_without_them() -> None:
    used, unused = entry("a"), entry("b", used=5)
    found = reported(used, unused, volumes=(volume_of(used), volume_of(used)))
    assert [(each.template, each.volumes, each.last_used_time) for each in found] == [
        ("a", 2, None),
        ("b", 0, later(5)),
    ]


def test_volumes_of_several_namespaces_and_uids_are_several_demands() -> None:
    one, other = entry("a"), entry("a", uid="u")
    tenant = Entry(namespace="db", template="a", since=NOW)
    volumes = tuple(volume_of(each) for each in (one, other, tenant))
    assert {each.key for each in reported(one, other, tenant, volumes=volumes)} == {one.key, other.key, tenant.key}


def test_at_the_limit_copies_in_use_come_before_those_waited_for_and_these_before_unused_ones() -> None:
    waits, waits_longer = entry("w1", since=9), entry("w2", since=1)
    has = entry("h", since=20, uid="u")
    unused, unused_longer = entry("o1", used=30), entry("o2", used=2)
    volumes = tuple(volume_of(each) for each in (waits, waits_longer, has))
    entries = (unused_longer, waits, unused, has, waits_longer)
    for limit in range(1, 6):
        found = reported(*entries, volumes=volumes, limit=limit)
        assert [each.template for each in found] == ["h", "w2", "w1", "o1", "o2"][:limit]
    assert reported(*entries, volumes=volumes) == reported(*reversed(entries), volumes=volumes)


def test_a_namespace_that_asks_for_everything_crowds_out_no_other() -> None:
    """It may be one that may have nothing: the agent does not know the rights."""
    greedy = [entry(f"t{number:03}", since=number) for number in range(2 * DEMANDS_LIMIT)]
    modest = Entry(namespace="db", template="a", since=later(10**6))
    volumes = tuple(map(volume_of, (*greedy, modest)))
    found = reported(*greedy, modest, volumes=volumes)
    assert [each.namespace for each in found[:3]] == ["web", "db", "web"]
    assert len(found) == DEMANDS_LIMIT


def test_a_new_demand_replaces_no_reported_one_of_its_namespace() -> None:
    entries = [entry(f"t{number}", since=number) for number in range(DEMANDS_LIMIT)]
    before = reported(*entries, volumes=tuple(map(volume_of, entries)))
    new = entry("a", since=DEMANDS_LIMIT)
    assert reported(*entries, new, volumes=tuple(map(volume_of, (*entries, new)))) == before


@pytest.mark.parametrize(
    ("state", "volumes", "since", "goes"),
    [
        ("Released", 0, 0, True),
        ("Refused", 0, 0, True),
        ("Released", 1, 0, False),
        ("Refused", 1, 0, False),
        ("Waiting", 0, 0, False),
        ("Ready", 0, 0, False),
        ("OfTomorrow", 0, 0, False),
        ("Released", 0, 1, False),
    ],
)
def test_only_an_answer_to_this_demand_ends_it_and_only_without_volumes(
    state: str, volumes: int, since: int, goes: bool
) -> None:
    known = entry("debian-13", used=1)
    answer = served(later(since), state)
    found = list(demands.released({known.key: volumes}, {known.key: known}, {answer.key: answer}))
    assert found == ([known.key] if goes else [])


@pytest.mark.parametrize(
    ("uid", "answer", "counts"),
    [
        pytest.param("", served(NOW), True, id="its own"),
        pytest.param("", served(NOW, "Waiting"), True, id="whatever it says"),
        pytest.param("", served(later(-1)), False, id="to an earlier one of its name"),
        pytest.param("", served(NOW, "Released"), False, id="from before it had volumes"),
        pytest.param("", served(NOW, uid=UID), False, id="to that of a Template, which this one does not know"),
        pytest.param(UID, served(NOW, uid=UID), True, id="its own, of a Template"),
        pytest.param(UID, served(NOW), True, id="the one that gave it its uid"),
        pytest.param(UID, served(NOW, template_uid="other"), False, id="one that would give it another uid"),
        pytest.param(UID, served(NOW, "Waiting", template_uid=UID), False, id="one that gives no uid"),
        pytest.param(UID, served(later(-1)), False, id="one to an earlier demand"),
    ],
)
def test_an_answer_counts_for_its_demand_and_for_what_became_of_it(uid: str, answer: Served, counts: bool) -> None:
    found = demands.answer_to(entry("debian-13", uid=uid), {answer.key: answer})
    assert found == (answer if counts else None)


@pytest.mark.parametrize(
    ("uid", "fields", "expected"),
    [
        pytest.param("", {}, Answer("Ready", f"{ROOT}/images/{UID}", UID), id="the first copy"),
        pytest.param(UID, {}, Answer("Ready", f"{ROOT}/images/{UID}", UID), id="the same Template again"),
        pytest.param("", {"path": f"{ROOT}/{UID}.iso"}, Answer("Ready", f"{ROOT}/{UID}.iso", UID), id="an ISO image"),
        pytest.param("another", {}, "'another'", id="another Template than the volume has"),
        pytest.param("", {"template_uid": None}, "uid ''", id="no Template"),
        pytest.param("", {"path": None}, "expected the file", id="no path"),
        pytest.param("", {"path": f"/etc/{UID}"}, "expected the file", id="outside of the pool roots"),
        pytest.param("", {"path": f"{ROOT}/../{UID}"}, "expected the file", id="out of a pool root"),
        pytest.param("", {"path": f"{ROOT}2/{UID}"}, "expected the file", id="beside a pool root"),
        pytest.param("", {"path": f"{ROOT}/images/other"}, "expected the file", id="another file"),
        pytest.param("", {"path": f"{ROOT}/images/{UID}/"}, "expected the file", id="a directory"),
        pytest.param("", {"path": f"{ROOT}/a\0b/{UID}"}, "expected the file", id="no path at all"),
    ],
)
def test_ready_is_only_the_file_of_the_volumes_template_in_a_pool(
    uid: str, fields: dict[str, Any], expected: Answer | str
) -> None:
    volume = VOLUME.model_copy(update={"uid": uid})
    found = demands.judged(volume, served(NOW, uid=uid, **fields), (ROOT,))
    if isinstance(expected, Answer):
        assert found == expected
    else:
        assert found.state == "Waiting"
        assert expected in found.message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, Answer("Waiting", message="the controller has not answered yet")),
        (
            served(NOW, "Refused", reason="TemplateNotFound", message="no 100% match"),
            Answer("Refused", reason="TemplateNotFound", message="no 100 per cent match"),
        ),
        (
            served(NOW, "Waiting", reason="WaitingForSlot", message="2 of 2 downloads run"),
            Answer("Waiting", reason="WaitingForSlot", message="2 of 2 downloads run"),
        ),
        (served(NOW, "OfTomorrow"), Answer("Waiting")),
    ],
)
def test_whatever_else_is_answered_waits_or_is_refused(answer: Served | None, expected: Answer) -> None:
    assert demands.judged(VOLUME, answer, (ROOT,)) == expected


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (None, ""),
        (Progress(), ""),
        (Progress(bytes_downloaded=251 * MIB, bytes_total=612 * MIB, percent=41), "251.0 of 612.0 MiB"),
        (Progress(bytes_downloaded=980 * 1024, bytes_total=612 * MIB), "980.0 KiB of 612.0 MiB"),
        (Progress(bytes_downloaded=251 * MIB), "251.0 MiB"),
        (Progress(bytes_downloaded=0, bytes_total=5), "0 of 5 B"),
    ],
)
def test_amounts_have_no_per_cent(progress: Progress | None, words: str) -> None:
    assert demands.amounts(progress) == words


def test_a_message_says_what_it_waits_for_how_far_it_is_and_what_blocks() -> None:
    progress = Progress(bytes_downloaded=251 * MIB, bytes_total=612 * MIB)
    answer = Answer("Waiting", reason="SourceTooSlow", message="tried again at 5%\n")
    assert demands.waiting(VOLUME, answer, progress) == Answer(
        "Waiting",
        reason="SourceTooSlow",
        message="waiting for Template debian-13 (251.0 of 612.0 MiB): tried again at 5 per cent\\n",
    )
    assert demands.waiting(VOLUME, Answer("Waiting"), None).message == "waiting for Template debian-13"
    assert len(demands.waiting(VOLUME, Answer("Waiting", message="x" * 5000), None).message) <= 1024


def test_an_item_that_cannot_be_read_hides_no_other() -> None:
    good = served(NOW).model_dump(by_alias=True, mode="json", exclude_none=True)
    found, flaw = demands.readable([{"namespace": 1}, good, None], Served)
    assert found == (served(NOW),)
    assert "Field required" in flaw or "valid string" in flaw
    assert demands.readable([good], Served) == ((served(NOW),), "")
    assert [demands.readable(none, Served) for none in (None, {"a": 1}, "x")] == [((), "")] * 3
