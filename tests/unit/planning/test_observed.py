"""Small views of objects: they say what the models say, and share what is the same."""

import datetime
import pathlib
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload.planning import observed
from directdownload.resources.templateplacement import PlacedFile, TemplatePlacementStatus

FILE = {
    "path": "/var/lib/libvirt/images/8f0c",
    "sizeBytes": 4096,
    "servedBytes": 1024,
    "digest": "sha256:" + "ab" * 32,
    "publishedDigest": "sha256:" + "cd" * 32,
    "format": "QCOW2",
    "virtualSizeBytes": 8192,
    "verifiedTime": "2026-01-02T03:04:05Z",
    "revision": "0123456789ab",
}


@pytest.mark.parametrize("left_out", [None, *(name for name in FILE if name != "path")])
def test_a_file_view_says_what_the_status_says(left_out: str | None) -> None:
    document = {key: value for key, value in FILE.items() if key != left_out}
    assert observed.project_file(document).placed() == PlacedFile.model_validate(document)


def test_every_field_of_a_placed_file_is_kept() -> None:
    assert set(observed.FileView.__slots__) == set(PlacedFile.model_fields)
    assert {field.alias for field in PlacedFile.model_fields.values()} == set(FILE)


def test_a_view_shows_its_own_status() -> None:
    document = build.placement_document(phase="Ready", status={"file": FILE, "attempts": 1})
    view = observed.project_placement(document)
    status = TemplatePlacementStatus.model_validate(document["status"])
    assert view.shows(status)
    other = status.model_copy(update={"file": PlacedFile.model_validate({**FILE, "sizeBytes": 1})})
    assert not view.shows(other)


def test_copies_that_say_the_same_share_it() -> None:
    def document(name: str) -> dict[str, Any]:
        # As it comes from two answers: equal texts that are not one object.
        found = build.placement_document(phase="Ready", status={"file": dict(FILE)})
        found["metadata"]["name"] = name
        found["spec"]["path"] = str(pathlib.PurePosixPath(FILE["path"]))  # type: ignore[arg-type] # a text
        return found

    one, other = observed.project_placement(document("a")), observed.project_placement(document("b"))
    assert one.conditions
    assert one.conditions is other.conditions
    assert one.path is other.path
    assert one.file is not None
    assert other.file is not None
    assert one.file.digest is other.file.digest
    assert one.file.verified_time is other.file.verified_time
    assert one.file.verified_time == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
