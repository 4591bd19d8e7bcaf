"""An object that cannot be read is there: no projection ends what calls it, and nothing forgets the object."""

import dataclasses
import logging
from typing import Any

import pydantic
import pytest

from directdownload.cluster import kinds
from directdownload.cluster.reflector import Store


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    key: str
    resource_version: int
    uid: str
    size: int


class Model(pydantic.BaseModel):
    size: int


def project(document: dict[str, Any]) -> Thing:
    metadata = document["metadata"]
    size = Model.model_validate(document["spec"]).size
    return Thing(f"{metadata['namespace']}/{metadata['name']}", int(metadata["resourceVersion"]), metadata["uid"], size)


def document(version: int, size: object = 1, **more: Any) -> dict[str, Any]:
    metadata = {"namespace": "n", "name": "a", "uid": "u", "resourceVersion": str(version), "managedFields": [{}]}
    return {"metadata": metadata, "spec": {"size": size}, **more}


class Recorded:
    """A store, and what its subscribers heard: of the readable and of the unreadable."""

    def __init__(self) -> None:
        self.store: Store[Thing] = Store()
        self.heard: list[tuple[str, int | None, int | None]] = []
        self.store.subscribe(lambda _, old, new: self._hear("readable", old, new))
        self.store.unreadable.subscribe(lambda _, old, new: self._hear("unreadable", old, new))

    def _hear(self, which: str, old: Any, new: Any) -> None:
        self.heard.append((which, old and old.resource_version, new and new.resource_version))

    def take(self, *documents: dict[str, Any]) -> None:
        for each in documents:
            self.store.take(kinds.TEMPLATES, project, each)

    def keys(self) -> tuple[list[str], list[str]]:
        return [item.key for item in self.store], [item.key for item in self.store.unreadable]


def test_what_cannot_be_read_is_there_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Recorded()
    with caplog.at_level(logging.ERROR):
        found.take(document(5, "large"), document(5, "large"))
    assert found.keys() == ([], ["n/a"])
    (unread,) = found.store.unreadable
    assert (unread.uid, unread.resource_version, unread.document["spec"]) == ("u", 5, {"size": "large"})
    assert "managedFields" not in unread.document["metadata"]
    assert found.store.current("n/a", 5)
    assert not found.store.current("n/a", 6)
    (record,) = caplog.records
    assert "Template n/a cannot be read by this version and is left alone: size: " in record.getMessage()
    # What stands there may be a secret.
    assert "large" not in record.getMessage()


def test_an_object_is_readable_or_unreadable_and_subscribers_hear_which_first() -> None:
    found = Recorded()
    found.take(document(5), document(6, "large"), document(7))
    assert found.keys() == (["n/a"], [])
    # Whoever hears that it is gone can see that it is not.
    assert found.heard == [
        ("readable", None, 5),
        ("unreadable", None, 6),
        ("readable", 5, None),
        ("readable", None, 7),
        ("unreadable", 6, None),
    ]


def test_nothing_goes_back() -> None:
    found = Recorded()
    found.take(document(7), document(6, "large"))
    assert found.keys() == (["n/a"], [])
    found.take(document(9, "large"), document(8))
    assert found.keys() == ([], ["n/a"])
    found.store.forget("n/a", 10)
    found.take(document(9, "large"), document(8))
    assert found.keys() == ([], [])
    found.take(document(11, "large"))
    assert found.keys() == ([], ["n/a"])


async def test_a_list_forgets_what_is_not_on_it_and_nothing_else() -> None:
    found = Recorded()
    found.take(document(5, "large"))
    await found.store.forget_all_but({"n/a"}, 8)
    assert found.keys() == ([], ["n/a"])
    await found.store.forget_all_but(set(), 4)
    assert found.keys() == ([], ["n/a"])
    await found.store.forget_all_but(set(), 8)
    assert found.keys() == ([], [])


def test_a_restored_etcd_brings_older_versions() -> None:
    found = Recorded()
    found.take(document(500, "large"))
    found.store.rewind()
    assert not found.store.current("n/a", 500)
    found.take(document(7, "large"))
    assert found.store.current("n/a", 7)


@pytest.mark.parametrize(
    "error", [KeyError("path"), TypeError("x"), ValueError("x"), AttributeError(), OverflowError(), RecursionError()]
)
def test_whatever_a_projection_raises(error: Exception) -> None:
    def fails(_: dict[str, Any]) -> Thing:
        raise error

    store: Store[Thing] = Store()
    store.take(kinds.TEMPLATES, fails, document(5))
    (unread,) = store.unreadable
    assert unread.problem in ("'path' is missing", type(error).__name__)


def test_what_is_wrong_is_said_on_one_bounded_line() -> None:
    def fails(_: dict[str, Any]) -> Thing:
        raise KeyError("\x1b[2J\n" + "x" * 10_000)

    store: Store[Thing] = Store()
    store.take(kinds.TEMPLATES, fails, document(5))
    (unread,) = store.unreadable
    assert unread.problem.isprintable()
    assert len(unread.problem) <= 512


@pytest.mark.parametrize("size", [1, "large"])
def test_what_a_store_has_already_is_not_projected_again(size: object) -> None:
    projected: list[str] = []

    def counted(each: dict[str, Any]) -> Thing:
        projected.append(each["metadata"]["resourceVersion"])
        return project(each)

    store: Store[Thing] = Store()
    for version in (5, 5, 4, 6):
        store.take(kinds.TEMPLATES, counted, document(version, size))
    assert projected == ["5", "6"]
