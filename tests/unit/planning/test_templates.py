"""The status of a Template: Ready at once, what it says of mistakes, and what copies teach."""

from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import DIGEST, NOW

from directdownload.planning.observed import PlacementView
from directdownload.planning.templates import count, plan_template, protocol, source_host
from directdownload.resources import quantities
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import BytesFrom


@pytest.mark.parametrize(
    ("url", "name", "origin"),
    [
        ("http://images.example.org/a.qcow2", "HTTP", "images.example.org"),
        ("HTTPS://Images.Example.org:8443/a.qcow2", "HTTPS", "images.example.org"),
        ("nfs://nas/export/a.qcow2", "NFS", "nas"),
        ("https://images.example.org/a.metalink", "HTTPS", "images.example.org"),
        ("http://[::1]:80/a", "HTTP", "::1"),
        ("http://[::1/a", "HTTP", ""),
        ("https:///a.qcow2", "HTTPS", ""),
        ("ftp://images.example.org/a", None, "images.example.org"),
        ("/a.qcow2", None, ""),
        ("", None, ""),
    ],
)
def test_protocol_and_origin(url: str, name: str | None, origin: str) -> None:
    assert protocol(url) == name
    assert source_host(url) == origin


@pytest.mark.parametrize(
    ("spec", "reason", "stalled", "words"),
    [
        ({}, Reason.REGISTERED, False, ""),
        ({"url": "ftp://images.example.org/a"}, Reason.UNSUPPORTED_PROTOCOL, True, "spec.url"),
        ({"url": "https:///a"}, Reason.INVALID_URL, True, "spec.url"),
        ({"mirrors": ["https://m/a", "gopher://m/a"]}, Reason.UNSUPPORTED_PROTOCOL, True, "spec.mirrors[1]"),
        ({"mirrors": ["http://[/a"]}, Reason.INVALID_URL, True, "spec.mirrors[0]"),
        ({"checksum": "{SHA-256}" + "AB" * 32}, Reason.REGISTERED, False, ""),
        ({"checksum": "sha512:" + "ab" * 64}, Reason.REGISTERED, False, ""),
        ({"checksum": "ab" * 16}, Reason.REGISTERED, False, ""),
        ({"checksum": "ab" * 32}, Reason.INVALID_CHECKSUM, True, "spec.checksum"),
        ({"checksum": "{}" + "ab" * 16}, Reason.INVALID_CHECKSUM, True, "spec.checksum"),
        ({"checksum": "{MD5}" + "ab" * 32}, Reason.INVALID_CHECKSUM, True, "spec.checksum"),
        ({"checksum": "{SHA-256}" + "ab" * 32 + "XXXXX"}, Reason.INVALID_CHECKSUM, True, "spec.checksum"),
        ({"zones": ["zone-1"]}, Reason.REGISTERED, False, ""),
        ({"zones": ["zone-1", "zone-9"]}, Reason.ZONE_NOT_FOUND, False, "zone-9"),
    ],
)
def test_verdict(spec: dict[str, Any], reason: Reason, stalled: bool, words: str) -> None:
    template = build.template(spec=spec, status={"conditions": []}, generation=4, requested_at="today")
    status = plan_template(template, {"zone-1"}, [], NOW)
    ready, stall = status.conditions
    assert (ready.type, stall.type) == ("Ready", "Stalled")
    assert ready.reason is reason
    assert (ready.status == "True") == (reason is Reason.REGISTERED)
    assert (stall.status == "True") == stalled
    assert words in ready.message
    assert (status.observed_generation, status.last_handled_request) == (4, "today")
    build.check_resource(template, status)
    again = plan_template(template.model_copy(update={"status": status}), {"zone-1"}, [], NOW + build.seconds(9))
    assert again == status


def copy(host: str, phase: str = "Ready", digest: str | None = DIGEST, size_bytes: int | None = 4096) -> Any:
    file = {"path": "/p", **({"digest": digest} if digest else {}), **({"sizeBytes": size_bytes} if size_bytes else {})}
    return build.placement(host=host, phase=phase, status={"file": file})


@pytest.mark.parametrize(
    ("before", "copies", "digest", "size_bytes"),
    [
        ({}, [], None, None),
        ({}, [copy("a", "Downloading")], None, None),
        ({}, [copy("a", "Failed"), copy("b", "Removing")], None, None),
        ({}, [copy("a", digest=None)], None, None),
        # Its status may be anybody's word.
        ({}, [copy("a")], None, 4096),
        ({"digest": "sha256:first", "sizeBytes": 7}, [copy("a")], "sha256:first", 7),
        ({"digest": "sha256:first", "sizeBytes": 7}, [], "sha256:first", 7),
        # a probe's word, before anybody has seen the file
        ({"sizeBytes": 7}, [copy("a")], None, 4096),
        ({"sizeBytes": 7}, [copy("a", size_bytes=None)], None, 7),
    ],
)
def test_what_copies_teach_is_kept(
    before: dict[str, Any], copies: list[Any], digest: str | None, size_bytes: int | None
) -> None:
    status = plan_template(build.template(status={"etag": '"x"', **before}), {"zone-1"}, copies, NOW)
    assert (status.digest, status.size_bytes, status.etag) == (digest, size_bytes, '"x"')


def test_counts() -> None:
    phases = [None, "Pending", "Pending", "Downloading", "Ready", "Ready", "Ready", "Failed", "Removing", "Removing"]
    counts = count(build.placement(host=f"h{i}", phase=phase) for i, phase in enumerate(phases))
    assert (counts.total, counts.pending, counts.downloading, counts.ready, counts.failed) == (8, 3, 1, 3, 1)


def test_a_template_sums_up_where_the_bytes_of_its_copies_came_from() -> None:
    def ready(host: str, origin: int, peers: int) -> PlacementView:
        status = build.file_status()
        status["file"]["bytesFrom"] = {"origin": origin, "peers": peers}
        return build.placement(host=host, phase="Ready", status=status)

    template = build.template()
    alone = [build.placement(host="kvm-9", phase="Ready", status=build.file_status())]
    assert plan_template(template, (), alone, NOW).bytes_from is None
    status = plan_template(
        template, (), [ready("kvm-1", 5, 0), ready("kvm-2", 0, 5), ready("kvm-3", 1, 4), *alone], NOW
    )
    assert status.bytes_from == BytesFrom(origin=6, peers=9)
    most = ready("kvm-1", quantities.LARGEST_INTEGER, 0)
    status = plan_template(template, (), [most, ready("kvm-2", 1, 0)], NOW)
    assert status.bytes_from == BytesFrom(origin=quantities.LARGEST_INTEGER)
