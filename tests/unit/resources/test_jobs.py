"""The document of a job: complete for its verb, and nothing that its verb must not have."""

import copy
import functools
import json
from typing import Any

import pydantic
import pytest

from directdownload.resources.jobs import JobDocument
from directdownload.resources.zone import Zone

PLACED: dict[str, Any] = {
    "placement": "debian-0123456789",
    "placementUid": "u",
    "pool": {"name": "local", "path": "/var/lib/libvirt/images"},
    "fileName": "f",
}
COMMON = {"templateUid": "t", "host": "kvm-1", "url": "https://images.example.org/a"}


@pytest.mark.parametrize("verb", ["fetch", "verify", "remove"])
def test_a_verb_on_a_file_needs_all_that_names_the_file(verb: str) -> None:
    assert JobDocument.model_validate({"verb": verb, **COMMON, **PLACED}).verb == verb
    for field in PLACED:
        rest = {name: value for name, value in PLACED.items() if name != field}
        with pytest.raises(pydantic.ValidationError, match=f"{field}: {verb} needs it"):
            JobDocument.model_validate({"verb": verb, **COMMON, **rest})


def test_a_document_of_an_earlier_version_asks_for_no_rate() -> None:
    limits = {"bandwidthBytesPerSecond": 1, "deadlineSeconds": 2}
    document = JobDocument.model_validate({"verb": "fetch", **COMMON, **PLACED, "limits": limits})
    assert document.limits.minimum_bytes_per_second == 0


@pytest.mark.parametrize("field", ["nfsExports", "nfsUser"])
def test_no_zone_allows_every_export_or_names_no_user(field: str) -> None:
    """As `directdownload fetch` may, in the same type."""
    spec = {"nodeSelector": {}, "sourcePolicy": {field: None}}
    with pytest.raises(pydantic.ValidationError, match="expected a value, not null"):
        Zone.model_validate({"metadata": {"name": "zone-1"}, "spec": spec})


def test_a_probe_has_nothing_that_names_a_file() -> None:
    probe = JobDocument.model_validate({"verb": "probe", **COMMON})
    assert JobDocument.model_validate_json(probe.model_dump_json(exclude_defaults=True)) == probe
    for field, value in PLACED.items():
        with pytest.raises(pydantic.ValidationError, match=f"{field}: a probe has none"):
            JobDocument.model_validate({"verb": "probe", **COMMON, field: value})


@pytest.mark.parametrize(
    "place", [(), ("pool",), ("pool", "file"), ("timeouts",), ("limits",), ("policy",), ("policy", "nfsUser")]
)
def test_no_key_is_overlooked(place: tuple[str, ...]) -> None:
    """A later version may forbid something by it."""
    document = copy.deepcopy({"verb": "fetch", **COMMON, **PLACED})
    functools.reduce(lambda part, name: part.setdefault(name, {}), place, document)["newer"] = 1
    with pytest.raises(pydantic.ValidationError, match=r"newer\n *Extra inputs are not permitted"):
        JobDocument.read(json.dumps(document))
