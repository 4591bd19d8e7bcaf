"""A store never goes back, whatever the order in which events, lists and write-throughs arrive."""

from dataclasses import dataclass

import pytest

from directdownload.cluster import reflector


@dataclass(frozen=True, slots=True)
class Thing:
    key: str
    resource_version: int
    uid: str = "u"


class Recorded:
    def __init__(self) -> None:
        self.changes: list[tuple[str, int | None, int | None]] = []
        self.store: reflector.Store[Thing] = reflector.Store()
        self.store.subscribe(self.record)

    def record(self, key: str, old: Thing | None, new: Thing | None) -> None:
        self.changes.append((key, old.resource_version if old else None, new.resource_version if new else None))


def test_newer_replaces_older_and_every_change_is_told_once() -> None:
    recorded = Recorded()
    assert recorded.store.observe(Thing("a", 5))
    assert recorded.store.observe(Thing("a", 7))
    assert not recorded.store.observe(Thing("a", 7))
    assert not recorded.store.observe(Thing("a", 6))
    assert recorded.changes == [("a", None, 5), ("a", 5, 7)]
    assert recorded.store.get("a") == Thing("a", 7)


def test_resource_versions_are_compared_as_numbers() -> None:
    recorded = Recorded()
    recorded.store.observe(Thing("a", 9))
    assert recorded.store.observe(Thing("a", 10))


def test_late_write_through_does_not_bring_back_what_was_deleted() -> None:
    recorded = Recorded()
    recorded.store.observe(Thing("a", 5))
    assert recorded.store.forget("a", 8)
    assert not recorded.store.observe(Thing("a", 7))
    assert "a" not in recorded.store
    assert recorded.store.observe(Thing("a", 9, "another"))
    assert recorded.changes == [("a", None, 5), ("a", 5, None), ("a", None, 9)]


def test_write_through_that_arrives_after_the_deletion_of_an_unknown_object() -> None:
    recorded = Recorded()
    assert not recorded.store.forget("a", 8)
    assert not recorded.store.observe(Thing("a", 7))


def test_late_deletion_leaves_the_object_that_came_after() -> None:
    recorded = Recorded()
    recorded.store.observe(Thing("a", 9, "another"))
    assert not recorded.store.forget("a", 8)
    assert "a" in recorded.store


def test_tombstones_are_dropped_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded()
    monkeypatch.setattr(reflector, "TOMBSTONE_SECONDS", 0)
    recorded.store.forget("a", 8)
    recorded.store.forget("b", 9)
    assert recorded.store.observe(Thing("a", 7))
    assert not recorded.store.observe(Thing("b", 7))


def test_history_that_went_back() -> None:
    recorded = Recorded()
    for key in ("kept", "vanished", "deleted"):
        recorded.store.observe(Thing(key, 100))
    recorded.store.forget("deleted", 101)
    recorded.store.rewind()
    assert recorded.store.observe(Thing("kept", 50))
    assert recorded.store.observe(Thing("deleted", 40))
    assert recorded.store.forget("vanished", 60)
    assert not recorded.store.observe(Thing("kept", 49))
    assert {thing.key for thing in recorded.store} == {"kept", "deleted"}
