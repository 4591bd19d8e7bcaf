"""What upload, revoke and provision change, and what a file may hold."""

import datetime
import pathlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.world import certificates

from directdownload.cli import certificate_changes as changes
from directdownload.cli.exit_status import PERMANENT, Failure
from directdownload.resources import pem
from directdownload.resources.certificate import DirectDownloadCertificate

PEM, SECOND = certificates.pem(), certificates.pem()
NOW = datetime.datetime.now(datetime.UTC)


def certificate(status: dict[str, Any] | None = None, **spec: Any) -> DirectDownloadCertificate:
    body = {"zone": "z", "alias": "CA", "certificate": PEM, **spec}
    return DirectDownloadCertificate.model_validate({"metadata": {"name": "ca"}, "spec": body, "status": status or {}})


@pytest.mark.parametrize(
    ("spec", "decide", "fields"),
    [
        ({}, changes.upload(pem.parse(PEM), None), {}),
        ({"certificate": "".join(PEM.split("\n")[1:-2])}, changes.upload(pem.parse(PEM), None), {}),
        ({}, changes.upload(pem.parse(SECOND), None), {"certificate": SECOND}),
        ({"certificate": "damaged"}, changes.upload(pem.parse(PEM), None), {"certificate": PEM}),
        ({"revoked": True}, changes.upload(pem.parse(PEM), None), {"revoked": False}),
        (
            {"revoked": True, "revokedHosts": ["a"]},
            changes.upload(pem.parse(SECOND), None),
            {"certificate": SECOND, "revoked": False, "revokedHosts": []},
        ),
        ({"revokedHosts": ["a", "b"]}, changes.upload(pem.parse(PEM), "a"), {"revokedHosts": ["b"]}),
        ({"revokedHosts": ["b"]}, changes.upload(pem.parse(PEM), "a"), {}),
        ({"revokedHosts": ["a", "b", "a"]}, changes.provision("a"), {"revokedHosts": ["b"]}),
        ({}, changes.provision("a"), {}),
        ({}, changes.revoke(None), {"revoked": True}),
        ({"revoked": True}, changes.revoke(None), {}),
        ({"revokedHosts": ["a"]}, changes.revoke("b"), {"revokedHosts": ["a", "b"]}),
        ({"revokedHosts": ["a"]}, changes.revoke("a"), {}),
        ({"revoked": True}, changes.revoke("a"), {"revokedHosts": ["a"]}),
    ],
)
def test_the_fields_that_change(spec: dict[str, Any], decide: changes.Decide, fields: dict[str, Any]) -> None:
    assert decide(certificate(**spec)) == fields


REFERENCE = {"certificate": None, "certificateRef": {"kind": "ConfigMap", "name": "s", "key": "k"}}


@pytest.mark.parametrize(
    ("spec", "decide", "words"),
    [
        (REFERENCE, changes.upload(pem.parse(PEM), None), "takes its bytes from the ConfigMap s"),
        ({}, changes.upload(pem.parse(SECOND), "a"), "differs from the file"),
        ({"revoked": True}, changes.upload(pem.parse(PEM), "a"), "is revoked in all of zone z"),
        ({"revoked": True}, changes.provision("a"), "is revoked in all of zone z"),
    ],
)
def test_what_is_refused(spec: dict[str, Any], decide: changes.Decide, words: str) -> None:
    with pytest.raises(Failure, match=words) as refused:
        decide(certificate(**spec))
    assert refused.value.exit_code == PERMANENT


def test_a_rotation_tells_of_the_one_before_only_where_hosts_keep_it() -> None:
    published = {"certificate": PEM}
    stays, revoked = (
        "The previous certificate stays trusted as ca-previous for 1d0h.",
        "The previous certificate was revoked, and is not kept.",
    )
    for before, told in (
        (certificate(published), stays),
        (certificate(published, revokedHosts=["a"]), f"{stays[:-1]}, but not where it was revoked."),
        (certificate(published, revoked=True), revoked),
        # taken back a moment ago, which the controller has not seen
        (certificate({**published, "revoked": True}), revoked),
        (certificate(), ""),
        # changed back to what hosts still have
        (certificate({"certificate": SECOND}, certificate="x"), ""),
    ):
        text = changes.uploaded_text(before, certificate(certificate=SECOND))
        assert text == " ".join(["Certificate ca changed: every host of z takes the new one.", *filter(None, [told])])
    assert "previous" not in changes.uploaded_text(
        certificate(published), certificate(certificate=SECOND, keepPrevious="0s")
    )


def test_a_certificate_is_read_from_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(PEM.replace("\n", "\r\n"))
    assert changes.read(path, NOW).pem == PEM
    for days, words in ((3651, "the certificate expired at "), (-2, "the certificate is not valid before ")):
        with pytest.raises(Failure, match=f"{re.escape(str(path))}: {words}"):
            changes.read(path, NOW + datetime.timedelta(days=days))


def test_a_private_key_is_refused_and_not_repeated(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(PEM + certificates.private_key())
    with pytest.raises(Failure) as refused:
        changes.read(path, NOW)
    assert certificates.private_key().split("\n")[1] not in refused.value.message
    assert refused.value.message.endswith("found a block that begins with -----BEGIN PRIVATE KEY")


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(Failure, match="/dev/zero: expected one certificate, found 65537 characters"):
        changes.read(pathlib.Path("/dev/zero"), NOW)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("my-ca", "my-ca"),
        ("My_CA", "my-ca"),
        ("images.example.org", "images.example.org"),
        ("a..b", "a.b"),
        ("a_._-b", "a.b"),
        ("a--b", "a--b"),
        ("my ca!", "my-ca"),
        ("", "certificate"),
    ],
)
def test_names_of_objects(alias: str, name: str) -> None:
    assert changes.object_names(alias, "zone-1") == (name, f"{name}-zone-1")


@given(st.from_regex(r"[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?", fullmatch=True))
def test_every_alias_makes_a_name(alias: str) -> None:
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    for name in changes.object_names(alias, "zone-1"):
        assert re.fullmatch(rf"{label}(\.{label})*", name)
