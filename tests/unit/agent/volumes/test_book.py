"""Which volumes count, and what is demanded for them."""

import pathlib

import pytest
from tests.world.plugin import NOW, UID, at, mounted, served

from directdownload.agent.volumes import book
from directdownload.agent.volumes.book import Asked, Moment, VolumeBook
from directdownload.agent.volumes.ledger import Entry, Ledger, Volume
from directdownload.resources.host import Demand

Reported = list[tuple[str, str, int, bool]]


def empty(directory: pathlib.Path) -> tuple[VolumeBook, Ledger]:
    ledger = Ledger.load(str(directory))
    return VolumeBook(ledger, at()), ledger


def asked(found: VolumeBook, name: str = "v1", *, template: str = "debian-13", when: Moment | None = None) -> Asked:
    return found.ask(name, "web", template, when or at())


def reported(found: VolumeBook) -> Reported:
    """Template, uid, number of volumes, and whether there is a time of the last use."""
    return [(each.template, each.uid, each.volumes, each.last_used_time is not None) for each in found.demands()]


def told(volumes: int = 1, uid: str = UID, template: str = "debian-13") -> Demand:
    return Demand(
        namespace="web",
        template=template,
        uid=uid,
        since=NOW,
        volumes=volumes,
        last_used_time=NOW if not volumes else None,
    )


def test_a_volume_demands_its_template_until_it_has_one_and_that_uid_from_then_on(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    assert asked(found) is Asked.FIRST
    assert asked(found, when=at(5)) is Asked.AGAIN
    assert reported(found) == [("debian-13", "", 1, False)]
    found.resolve("v1", UID, at(7))
    assert reported(found) == [("debian-13", UID, 1, False)]
    assert found.demands()[0].since == NOW, "since it was asked for"


def test_volumes_that_still_wait_keep_the_demand_without_uid(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    asked(found, "v2", when=at(3))
    found.resolve("v1", UID, at(5))
    assert reported(found) == [("debian-13", UID, 1, False), ("debian-13", "", 1, False)]
    assert {each.since for each in found.demands()} == {NOW}, "the one that v1 has begun"
    found.resolve("v2", UID, at(6))
    assert reported(found) == [("debian-13", UID, 2, False)]


def test_the_last_volume_leaves_a_demand_with_the_time_of_its_use_until_it_is_released(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    found.resolve("v1", UID, at(1))
    found.unpublish("v1", at(9))
    (left,) = found.demands()
    assert (left.uid, left.volumes, left.since, left.last_used_time) == (UID, 0, NOW, at(9).time)
    for state in ("Ready", "Waiting"):
        found.hear([served(NOW, state, uid=UID)])
        assert len(found.demands()) == 1
    found.hear([served(NOW, "Released", uid=UID)])
    assert found.demands() == ()


def test_a_demand_that_is_needed_again_is_the_one_that_it_was(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    found.unpublish("v1", at(9))
    asked(found, "v2", when=at(20))
    (again,) = found.demands()
    assert (again.volumes, again.since, again.last_used_time) == (1, NOW, None)
    found.hear([served(NOW, "Released")])
    assert len(found.demands()) == 1, "it is not released while it has a volume"
    volume = found.volume("v2")
    assert volume is not None
    assert found.answer(volume) is None, "the answer was to a demand without volumes"


def test_an_answer_to_an_earlier_demand_of_the_same_template_is_none(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found, when=at(5))
    volume = found.volume("v1")
    assert volume is not None
    found.hear([served(NOW)])
    assert found.answer(volume) is None
    found.hear([served(at(5).time)])
    assert found.answer(volume) is not None


def test_a_mounted_volume_counts_however_long_nobody_asks(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    found.resolve("v1", UID, at(1))
    found.state([mounted()], at(2))
    for seconds in range(60, 4000, 50):
        found.state([mounted()], at(seconds))
    assert reported(found) == [("debian-13", UID, 1, False)]
    found.state([], at(4000))
    assert reported(found) == [("debian-13", UID, 0, True)]


def test_a_volume_that_nobody_asks_for_is_forgotten_after_ten_minutes(tmp_path: pathlib.Path) -> None:
    found, ledger = empty(tmp_path)
    asked(found)
    for seconds in range(0, 600, 10):
        found.state([], at(seconds))
    assert reported(found) == [("debian-13", "", 1, False)]
    asked(found, when=at(599))
    for seconds in range(600, 1199, 10):
        found.state([], at(seconds))
    assert reported(found) == [("debian-13", "", 1, False)]
    found.state([], at(1199))
    assert reported(found) == [("debian-13", "", 0, True)]
    assert ledger.volumes == {}
    found.hear([served(NOW, "Refused")])
    assert found.demands() == ()


def test_a_volume_that_was_handed_over_counts_though_a_statement_was_made_before_it_was_mounted(
    tmp_path: pathlib.Path,
) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    found.resolve("v1", UID, at(1))
    assert found.handed_over("v1", at(7)) == 7
    assert found.mounted == 1
    found.state([], at(8))
    assert reported(found) == [("debian-13", UID, 1, False)]
    assert found.mounted == 0
    found.state([mounted()], at(18))
    assert found.mounted == 1


def test_while_the_plugin_is_away_nothing_is_forgotten(tmp_path: pathlib.Path) -> None:
    """Nobody could ask: the kubelet does so through the plugin."""
    found, _ = empty(tmp_path)
    asked(found)
    found.state([], at(10))
    assert found.connected(at(70))
    assert not found.connected(at(71))
    found.state([], at(5000))
    assert reported(found) == [("debian-13", "", 1, False)]
    for seconds in range(5010, 5601, 10):
        found.state([], at(seconds))
    assert reported(found) == [("debian-13", "", 0, True)]


def test_a_mounted_volume_that_the_ledger_lost_comes_back_with_the_uid_of_its_mount(tmp_path: pathlib.Path) -> None:
    found, ledger = empty(tmp_path)
    assert found.state([mounted(), mounted("v2", uid="other")], at()) == []
    assert reported(found) == [("debian-13", UID, 1, False), ("debian-13", "other", 1, False)]
    assert {name: volume.uid for name, volume in ledger.volumes.items()} == {"v1": UID, "v2": "other"}


def test_a_mount_decides_which_template_a_volume_has(tmp_path: pathlib.Path) -> None:
    found, ledger = empty(tmp_path)
    asked(found)
    found.state([mounted()], at(1))
    assert ledger.volumes["v1"].uid == UID
    assert reported(found) == [("debian-13", UID, 1, False)]


def test_mounts_that_no_agent_could_have_served_are_returned(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    assert found.state([mounted(namespace="../x"), mounted("a b"), mounted("v3")], at()) == ["v1", "a b"]
    assert reported(found) == [("debian-13", UID, 1, False)]


def test_a_mount_of_another_template_leaves_the_demand_for_the_first_one_to_be_released(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    found.state([mounted(uid="first")], at())
    found.state([mounted(uid="second")], at(1))
    assert reported(found) == [("debian-13", "second", 1, False), ("debian-13", "first", 0, True)]


# --- before the plugin has spoken


def test_until_the_first_statement_a_host_has_at_least_the_demands_that_it_had(tmp_path: pathlib.Path) -> None:
    """The ledger is lost, and a pod has its volume."""
    found, _ = empty(tmp_path)
    found.remember([told(3), told(0, template="a")], at(50))
    assert reported(found) == [("debian-13", UID, 3, False), ("a", UID, 0, True)]
    assert {each.since for each in found.demands()} == {NOW}
    asked(found, "new", when=at(51))
    found.unpublish("new", at(52))
    found.hear([served(NOW, "Released", uid=UID)])
    assert ("debian-13", UID, 3, False) in reported(found)
    found.state([mounted()], at(53))
    assert ("debian-13", UID, 1, False) in reported(found)


def test_what_the_first_statement_does_not_confirm_is_unused_from_then_on(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    found.remember([told(3)], at(50))
    found.state([], at(60))
    (left,) = found.demands()
    assert (left.volumes, left.last_used_time, left.since) == (0, at(60).time, NOW)


def test_until_the_first_statement_nothing_is_forgotten_or_unused(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(str(tmp_path / "x"), {"v1": Volume(namespace="web", template="debian-13", uid=UID, since=NOW)})
    found = VolumeBook(ledger, at())
    found.remember([told(2)], at())
    found.unpublish("v1", at(5000))
    assert reported(found) == [("debian-13", UID, 2, False)], "as many as the Host had"


def test_of_what_the_ledger_knows_better_only_the_number_of_volumes_is_remembered(tmp_path: pathlib.Path) -> None:
    entry = Entry(namespace="web", template="debian-13", uid=UID, since=at(30).time, last_used_time=at(40).time)
    found = VolumeBook(Ledger(str(tmp_path / "x"), {}, {entry.key: entry}), at(50))
    found.remember([told(2)], at(50))
    (known,) = found.demands()
    assert (known.since, known.volumes) == (at(30).time, 2)


def test_a_status_that_is_not_ours_is_not_remembered(tmp_path: pathlib.Path) -> None:
    found, ledger = empty(tmp_path)
    found.remember([told(template="a b"), told(template="b")], at())
    assert [each.template for each in found.demands()] == ["b"]
    assert len(ledger.demands) == 1


def test_a_host_that_is_made_anew_gets_the_demands_of_this_agent(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    found.state([], at(1))
    before = found.demands()
    found.remember([], at(2))
    assert found.demands() == before


# --- what is not noted


@pytest.mark.parametrize(
    ("name", "namespace", "template"),
    [
        ("v1", "web", ""),
        ("v1", "web", "a/b/c"),
        ("v1", "web", "../a"),
        ("v1", "web", "A"),
        ("v1", "web", "a\n"),
        ("v1", "web", "a" * 254),
        ("v1", "w.b", "a"),
        ("v1", "", "a"),
        ("v1", "n" * 64, "a"),
        ("", "web", "a"),
        ("v 1", "web", "a"),
        ("v\udc80", "web", "a"),
        ("v" * 257, "web", "a"),
    ],
)
def test_names_that_no_object_can_have_are_not_noted(
    tmp_path: pathlib.Path, name: str, namespace: str, template: str
) -> None:
    found, ledger = empty(tmp_path)
    assert found.ask(name, namespace, template, at()) is Asked.MALFORMED
    assert (ledger.volumes, ledger.demands, found.demands()) == ({}, {}, ())


def test_the_longest_names_are_noted_and_can_be_reported(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    assert found.ask("v" * 256, "n" * 63, f"{'m' * 63}/{'t' * 253}", at()) is Asked.FIRST
    assert len(found.demands()) == 1


def test_a_volume_of_another_pod_or_template_is_not_given_away(tmp_path: pathlib.Path) -> None:
    found, _ = empty(tmp_path)
    asked(found)
    found.resolve("v1", UID, at())
    assert asked(found, template="other") is Asked.OTHER
    assert found.ask("v1", "db", "debian-13", at()) is Asked.OTHER
    assert reported(found) == [("debian-13", UID, 1, False)]


def test_the_numbers_of_volumes_and_of_demands_are_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "VOLUMES_LIMIT", 3)
    monkeypatch.setattr(book, "ENTRIES_LIMIT", 2)
    found, _ = empty(tmp_path)
    assert [asked(found, name, template=name) for name in ("a", "b", "c")] == [Asked.FIRST, Asked.FIRST, Asked.FULL]
    assert asked(found, "a2", template="a") is Asked.FIRST
    assert asked(found, "a3", template="a") is Asked.FULL
    assert asked(found, "a2", template="a") is Asked.AGAIN


# --- how long a volume waits


def test_a_volume_waits_from_its_first_request_also_over_a_restart_of_the_agent(tmp_path: pathlib.Path) -> None:
    found, ledger = empty(tmp_path)
    asked(found)
    asked(found, when=at(50))
    asked(found, "v2", when=at(60))
    assert sorted(found.waiting_seconds(at(70))) == [10, 70]
    again = VolumeBook(Ledger(str(tmp_path), ledger.volumes, ledger.demands), Moment(at(80).time, 5))
    assert sorted(again.waiting_seconds(Moment(at(80).time, 5))) == [20, 80]


def test_a_volume_that_had_its_copy_waits_from_the_start_of_the_agent(tmp_path: pathlib.Path) -> None:
    """After a reboot: it was asked for days ago."""
    volume = Volume(namespace="web", template="debian-13", uid=UID, since=NOW)
    found = VolumeBook(Ledger(str(tmp_path / "x"), {"v1": volume}), at(90_000))
    assert found.waiting_seconds(at(90_007)) == [7]
