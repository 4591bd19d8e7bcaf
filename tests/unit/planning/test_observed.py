"""Small views of objects: they say what the models say, and share what is the same."""

import datetime
import pathlib
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload.planning import observed
from directdownload.planning.conditions import Verdict
from directdownload.planning.plans import status_of
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase, PlacedFile, TemplatePlacementStatus

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
    "content": "ef" * 32,
    "bytesFrom": {"origin": 1, "peers": 4095},
}


#: The same in words, by the field that they are of.
WORDS = {
    "sizeBytes": ("size", "4.0 KiB"),
    "servedBytes": ("served", "1.0 KiB"),
    "virtualSizeBytes": ("virtualSize", "8.0 KiB"),
}


@pytest.mark.parametrize("left_out", [None, *(name for name in FILE if name != "path")])
def test_a_file_view_says_what_the_status_says_and_its_sizes_in_words(left_out: str | None) -> None:
    document = {key: value for key, value in FILE.items() if key != left_out}
    words = dict(WORDS[name] for name in document if name in WORDS)
    assert build.VIEWS.file(document).placed() == PlacedFile.model_validate({**document, **words})


def test_every_field_of_a_placed_file_is_kept() -> None:
    words = {name for name, _ in WORDS.values()}
    fields = {name for name, field in PlacedFile.model_fields.items() if field.alias not in words}
    assert set(observed.FileView.__slots__) == fields
    assert {field.alias for field in PlacedFile.model_fields.values()} == {*FILE, *words}


def test_every_field_that_the_controller_writes_is_kept_compared_and_carried_on() -> None:
    status = {
        "file": {**FILE, **dict(WORDS.values())},
        "peers": {"role": "Peer", "unavailable": 1, "distrustedEpoch": 7},
        "attempts": 1,
        "recentFailures": 1,
        "startedTime": build.stamp(build.NOW),
        "nextAttemptTime": build.stamp(build.NOW),
        "lastHandledRequest": "now",
        "lastHandledRequestTime": build.stamp(build.NOW),
        "observedInputs": "0123456789",
    }
    document = build.placement_document(phase="Ready", requested_at="now", status=status)
    view, written = build.VIEWS.placement(document), TemplatePlacementStatus.model_validate(document["status"])
    assert written.model_fields_set == TemplatePlacementStatus.model_fields.keys() - {"observed", "progress"}
    assert TemplatePlacementStatus(**view.fields()) == written
    assert view.shows(written)
    for name in written.model_fields_set:
        assert not view.shows(written.model_copy(update={name: None})), name
    verdict = Verdict(True, Reason.DOWNLOADED, view.message)
    assert status_of(view, Phase.READY, verdict, build.NOW, next_attempt=build.NOW) == written


def test_copies_that_say_the_same_share_it() -> None:
    def document(name: str) -> dict[str, Any]:
        # As it comes from two answers: equal texts that are not one object.
        found = build.placement_document(phase="Ready", status={"file": dict(FILE)})
        found["metadata"]["name"] = name
        found["spec"]["path"] = str(pathlib.PurePosixPath(FILE["path"]))  # type: ignore[arg-type] # a text
        return found

    one, other = build.VIEWS.placement(document("a")), build.VIEWS.placement(document("b"))
    assert one.conditions
    assert one.conditions is other.conditions
    assert one.path is other.path
    assert one.file is not None
    assert other.file is not None
    assert one.file.digest is other.file.digest
    assert one.file.verified_time is other.file.verified_time
    assert one.file.verified_time == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def test_sizes_in_words_are_no_reason_to_write_a_placement_again() -> None:
    """An upgrade must not cost a write for each of thousands of copies that have none."""
    view = build.placement(phase="Ready", status=build.file_status())
    assert view.file is not None
    assert view.file.placed().size == "4.0 KiB"
    again = status_of(view, Phase.READY, Verdict(True, Reason.DOWNLOADED, view.message), build.NOW)
    assert again.file is not None
    assert again.file.size == "4.0 KiB"
    assert view.shows(again)
