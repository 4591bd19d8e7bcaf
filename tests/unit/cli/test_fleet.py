"""What `pool files` makes of placements, templates and the reports of agents."""

from typing import Any

import pytest

from directdownload.cli import fleet
from directdownload.cli.fleet import State
from directdownload.resources.host import Host
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import TemplatePlacement

PATH = "/var/lib/libvirt/images"
FILE = {"path": f"{PATH}/u", "sizeBytes": 7}
PART = ".directdownload/u.kvm-1.part"


def pool(**spec: Any) -> StoragePool:
    return StoragePool.model_validate({"metadata": {"name": "local"}, "spec": {"zone": "z", "path": PATH, **spec}})


def host(name: str, unplaced: list[dict[str, Any]] | None = None, *, more: int = 0, **storage: Any) -> Host:
    """`more`: bytes of files that are not listed."""
    if unplaced is not None:
        storage = {"unplaced": unplaced, "unplacedBytes": sum(f["sizeBytes"] for f in unplaced) + more, **storage}
    status = {"storage": [{"pool": "local", **storage}]} if storage else {}
    return Host.model_validate({"metadata": {"name": name}, "spec": {"nodeName": name, "zone": "z"}, "status": status})


def file(name: str, size: int = 5, state: str = "Published") -> dict[str, Any]:
    return {"name": name, "sizeBytes": size, "state": state}


def placement(on: str = "kvm-1", **status: Any) -> TemplatePlacement:
    reference = {"namespace": "ns", "name": "t", "uid": "u"}
    spec = {"templateRef": reference, "zone": "z", "pool": "local", "host": on, "path": f"{PATH}/u"}
    return TemplatePlacement.model_validate({"metadata": {"name": "p"}, "spec": spec, "status": status})


def template(uid: str = "u", name: str = "t") -> Template:
    spec = {"url": "https://images.example.org/x", "format": "QCOW2"}
    return Template.model_validate({"metadata": {"namespace": "ns", "name": name, "uid": uid}, "spec": spec})


def rows(listing: fleet.Listing) -> list[tuple[str, str, State, int | None, str]]:
    return [(e.host, e.file, e.state, e.size_bytes, e.template) for e in listing.entries]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Ready", "file": FILE}, ("u", State.PLACED, 7)),
        ({"phase": "Ready", "file": FILE, "observed": {"present": True, "changed": True}}, ("u", State.PLACED, 7)),
        ({"phase": "Removing", "file": FILE}, ("u", State.PLACED, 7)),
        ({"phase": "Pending", "file": FILE, "observed": {"present": False}}, None),
        (
            {"phase": "Ready", "file": FILE, "observed": {"present": False}, "progress": {"bytesDownloaded": 7}},
            None,
        ),
        ({"phase": "Downloading", "progress": {"bytesDownloaded": 3}}, (PART, State.PARTIAL, 3)),
        ({"phase": "Pending", "progress": {"bytesDownloaded": 3}}, (PART, State.PARTIAL, 3)),
        ({"phase": "Downloading", "progress": {"bytesDownloaded": 0}}, None),
        ({"phase": "Pending"}, None),
        ({}, None),
    ],
)
def test_a_placement_is_what_lies_there(status: dict[str, Any], expected: tuple[str, State, int] | None) -> None:
    listing = fleet.listing(pool(), [host("kvm-1", [])], [placement(**status)], [template()])
    assert [(e.file, e.state, e.size_bytes) for e in listing.entries] == ([expected] if expected else [])
    assert all((e.host, e.template) == ("kvm-1", "ns/t") for e in listing.entries)
    assert listing.notes == []


def test_files_without_placement_are_retained_while_their_template_exists_and_orphaned_then() -> None:
    unplaced = [file("u.iso"), file("v"), file(".directdownload/u.kvm-1.part", state="Partial")]
    found = rows(fleet.listing(pool(), [host("kvm-1", unplaced)], [], [template()]))
    assert found == [
        ("kvm-1", ".directdownload/u.kvm-1.part", State.PARTIAL, 5, "ns/t"),
        ("kvm-1", "u.iso", State.RETAINED, 5, "ns/t"),
        ("kvm-1", "v", State.ORPHANED, 5, "v"),
    ]


def test_a_placement_counts_for_more_than_an_older_report() -> None:
    placed = placement(phase="Ready", file=FILE)
    found = rows(fleet.listing(pool(), [host("kvm-1", [file("u")]), host("kvm-2", [file("u")])], [placed], []))
    assert found == [("kvm-1", "u", State.PLACED, 7, "ns/t"), ("kvm-2", "u", State.ORPHANED, 5, "u")]


def test_a_file_in_a_shared_pool_is_listed_once() -> None:
    shared = pool(type="NetworkFilesystem", path=f"{PATH}/shared")
    hosts = [host("kvm-2", [file("u"), file("v")]), host("kvm-1", [file("v"), file("w")])]
    found = rows(fleet.listing(shared, hosts, [placement("kvm-2", phase="Ready", file=FILE)], []))
    assert [row[:3] for row in found] == [
        ("kvm-1", "v", State.ORPHANED),
        ("kvm-1", "w", State.ORPHANED),
        ("kvm-2", "u", State.PLACED),
    ]


def test_one_host_only() -> None:
    hosts = [host("kvm-1", [file("v")]), host("kvm-2")]
    listing = fleet.listing(pool(), hosts, [placement("kvm-2", phase="Ready", file=FILE)], [], "kvm-1")
    assert [entry.file for entry in listing.entries] == ["v"]
    assert listing.notes == []


def test_what_is_not_known_is_said() -> None:
    hosts = [
        host("kvm-4", [file("v", size=2 * 1024**3)], more=1024**3),
        host("kvm-1"),
        host("kvm-2", writable=True),
        host("kvm-3", reason="NotMounted"),
        host("kvm-5", []),
    ]
    elsewhere = Host.model_validate({"metadata": {"name": "x"}, "spec": {"nodeName": "x", "zone": "y"}})
    listing = fleet.listing(pool(), [*hosts, elsewhere], [], [])
    assert listing.notes == [
        "kvm-1: its agent has not reported its files yet; only placed files are listed.",
        "kvm-2: its agent has not reported its files yet; only placed files are listed.",
        "kvm-3: the pool is not usable (NotMounted); its files are not known.",
        "kvm-4: only the 1 largest files without a placement are listed; the others take 1.0 GiB.",
    ]
