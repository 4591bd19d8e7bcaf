"""What the agent keeps of the objects that decide about its keystore."""

import datetime
from typing import Any

import pytest
from tests.world import odd_certificates as odd
from tests.world import stores

from directdownload.agent import cluster_view as views
from directdownload.planning.keystores import Previous

CREATED = "2026-01-01T00:00:00Z"
A, B = stores.certificate("a"), stores.certificate("b")


def document(name: str, spec: dict[str, Any], status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    made = {"name": name, "uid": "u", "resourceVersion": "1", "generation": 2, "creationTimestamp": CREATED}
    return {"metadata": {**made, **metadata}, "spec": spec, **({"status": status} if status is not None else {})}


def certificate(status: dict[str, Any] | None, **fields: Any) -> views.CertificateView:
    metadata = {"deletionTimestamp": CREATED} if fields.pop("deleting", False) else {}
    spec = {"zone": "z", "alias": "My-CA", "certificate": B.pem, **fields}
    return views.project_certificate(document("my-ca", spec, status, **metadata))


def test_a_certificate_is_what_its_status_publishes() -> None:
    published = certificate({"certificate": A.pem}).published
    assert published is not None
    assert (published.name, published.zone, published.alias, published.certificate) == ("my-ca", "z", "my-ca", A)
    assert published.created == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert not published.revoked


@pytest.mark.parametrize("status", [None, {}, {"certificate": ""}])
def test_what_is_not_published_is_none(status: dict[str, Any] | None) -> None:
    assert certificate(status).published is None


@pytest.mark.parametrize("text", ["damaged", "QUJD", "\ud800", "x" * 70_000, odd.pem(odd.NO_NAMES)])
def test_what_java_cannot_read_is_published_with_what_is_wrong_with_it(text: str) -> None:
    """Nothing is said of it otherwise, and the controller would wait for a proof for ever."""
    published = certificate({"certificate": text}).published
    assert published is not None
    assert published.flaws.keys() == {published.certificate.fingerprint_sha256}
    assert not published.readable
    previous = {"certificate": text, "until": "2030-01-01T00:00:00Z"}
    published = certificate({"certificate": A.pem, "previous": previous}).published
    assert published is not None
    assert published.readable == {A.fingerprint_sha256}


def test_a_previous_one_that_the_parser_cannot_read_is_kept_for_its_time() -> None:
    previous = {"certificate": odd.pem(odd.UNPARSED), "until": "2030-01-01T00:00:00Z"}
    published = certificate({"certificate": A.pem, "previous": previous}).published
    assert published is not None
    assert published.previous is not None
    assert published.previous.until == datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    assert not published.flaws


def test_who_shall_not_have_it() -> None:
    for fields in ({"revoked": True}, {"deleting": True}, {"revokedHosts": ["kvm-1"]}):
        published = certificate({"certificate": A.pem}, **fields).published
        assert published is not None
        assert published.revoked_on("kvm-1")
        assert published.revoked_on("kvm-2") == (fields != {"revokedHosts": ["kvm-1"]})


def test_a_previous_certificate_ends_with_its_time_or_its_own_end() -> None:
    for until, ends in (("2026-01-02T00:00:00Z", None), ("9999-01-01T00:00:00Z", B.not_after)):
        previous = {"certificate": B.pem, "fingerprintSHA256": B.fingerprint_sha256, "until": until}
        published = certificate({"certificate": A.pem, "previous": previous}).published
        assert published is not None
        assert published.previous == Previous(B, ends or datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))


def test_a_zone_has_its_interval() -> None:
    zone = views.project_zone(document("z", {"enabled": False, "certificates": {"syncInterval": "1m30s"}}))
    assert (zone.enabled, zone.sync_interval_seconds) == (False, 90)
    zone = views.project_zone(document("z", {"certificates": {"syncInterval": 0}}))
    assert (zone.enabled, zone.sync_interval_seconds) == (True, 0)
    assert views.project_zone(document("z", {})).sync_interval_seconds == 600


@pytest.mark.parametrize("interval", ["9" * 13 + "s", "0." + "9" * 13 + "s", "soon", "", None, [5]])
def test_an_interval_that_is_not_understood_is_the_default(interval: Any, caplog: pytest.LogCaptureFixture) -> None:
    zone = views.project_zone(document("z", {"certificates": {"syncInterval": interval}}))
    assert zone.sync_interval_seconds == 600
    assert "Zone z: spec.certificates.syncInterval is not understood" in caplog.text


@pytest.mark.parametrize("until", [{}, {"until": "2026-01-02T00:00:60Z"}, {"until": "2026-01-02"}, {"until": None}])
def test_a_previous_certificate_without_an_end_that_is_understood_is_none(until: dict[str, Any]) -> None:
    published = certificate({"certificate": A.pem, "previous": {"certificate": B.pem, **until}}).published
    assert published is not None
    assert (published.certificate, published.previous) == (A, None)


def test_a_host_without_keystore_in_its_spec_has_cloudstacks_and_one_not_understood_none() -> None:
    host = views.project_host(document("kvm-1", {"zone": "z"}))
    assert host.keystore is not None
    assert host.keystore.path == "/etc/cloudstack/agent/cloud.jks"
    assert (host.generation, host.status) == (2, {})
    assert views.project_host(document("kvm-1", {"zone": "z", "keystore": {"type": "BKS"}})).keystore is None
