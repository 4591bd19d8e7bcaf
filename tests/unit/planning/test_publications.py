"""What an earlier version published and today's rules do not take: what Java cannot read goes, all else stays."""

import base64
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document, seconds, stamp
from tests.world import certificates
from tests.world import odd_certificates as odd

from directdownload.planning import certificates as planning
from directdownload.planning import publications
from directdownload.planning.certificates import CertificatePlan
from directdownload.resources import pem
from directdownload.resources.certificate import DirectDownloadCertificate

DAY = 86400
GOOD = certificates.pem("good", begins=NOW - seconds(DAY), ends=NOW + seconds(365 * DAY))
OTHER = certificates.pem("other", begins=NOW - seconds(DAY), ends=NOW + seconds(365 * DAY))
#: Java reads neither a certificate nor a keystore with this one in it.
BAD = odd.pem(odd.NO_NAMES)
#: Java reads it, our parser does not.
UNPARSED = odd.pem(odd.UNPARSED)


def certificate(text: str, published: str = "", previous: str = "", **spec: Any) -> DirectDownloadCertificate:
    status: Document = {"certificate": published} if published else {}
    if previous:
        before = {"certificate": previous, "fingerprintSHA256": "x", "until": stamp(NOW + seconds(3600))}
        status["previous"] = before
    return build.certificate("my-ca", spec={"certificate": text, **spec}, status=status)


def plan(item: DirectDownloadCertificate) -> CertificatePlan:
    found = planning.plan_certificate(item, publications.inline(item), build.zone(), (), (), NOW)
    build.check_resource(item, found.status)
    return found


def said(found: CertificatePlan, name: str) -> tuple[str, str]:
    """Status and reason of a condition; empty where it is not there."""
    condition = found.status.condition(name)
    return (condition.status, condition.reason) if condition is not None else ("", "")


def test_what_java_cannot_read_is_published_by_no_version_from_now_on() -> None:
    found = plan(certificate(BAD))
    assert found.status.certificate is None
    assert said(found, "Ready") == ("False", "InvalidCertificate")
    assert said(found, "Stalled") == ("True", "InvalidCertificate")


@pytest.mark.parametrize("text", [BAD, GOOD])
def test_what_an_earlier_version_published_and_java_cannot_read_is_withdrawn(text: str) -> None:
    found = plan(certificate(text, BAD))
    assert found.status.certificate == (GOOD if text == GOOD else None)
    assert found.status.previous is None
    assert (said(found, "Ready")[1] == "InvalidCertificate") is (text == BAD)


def test_what_hosts_had_before_it_is_what_they_keep() -> None:
    found = plan(certificate(BAD, BAD, GOOD))
    assert (found.status.certificate, found.status.previous) == (GOOD, None)
    assert said(found, "Ready") == ("False", "InvalidCertificate")
    condition = found.status.condition("Ready")
    assert condition is not None
    assert "hosts keep the certificate" in condition.message
    # And it is kept for a while when something good comes.
    found = plan(certificate(OTHER, BAD, GOOD))
    assert found.status.certificate == OTHER
    assert found.status.previous is not None
    assert found.status.previous.certificate == GOOD


@pytest.mark.parametrize("fields", [{"revoked": True}, {"keepPrevious": "0"}])
def test_but_not_where_somebody_has_taken_it_back(fields: Document) -> None:
    assert plan(certificate(BAD, BAD, GOOD, **fields)).status.certificate is None


def test_one_before_that_java_cannot_read_is_dropped() -> None:
    found = plan(certificate(GOOD, GOOD, BAD))
    assert (found.status.certificate, found.status.previous) == (GOOD, None)
    assert said(found, "Ready")[1] == "Provisioning"


def test_what_would_not_be_taken_today_stays_published_and_is_said_to_be_so() -> None:
    found = plan(certificate(UNPARSED, UNPARSED))
    assert found.status.certificate == UNPARSED
    assert found.status.fingerprint_sha256 == pem.decode(UNPARSED).fingerprint_sha256
    assert found.needs_finalizer
    assert said(found, "Ready")[1] == "Provisioning"
    assert said(found, "Accepted") == ("False", "InvalidCertificate")
    assert said(found, "Stalled")[0] == "False"
    # As new bytes it is refused, and nothing is lost by that.
    found = plan(certificate(UNPARSED, GOOD))
    assert found.status.certificate == GOOD
    assert said(found, "Ready") == ("False", "InvalidCertificate")
    assert said(found, "Accepted") == ("", "")
    assert plan(certificate(UNPARSED)).status.certificate is None


def test_what_is_replaced_is_kept_for_a_while_though_nothing_is_known_of_it() -> None:
    found = plan(certificate(GOOD, UNPARSED, keepPrevious="1h"))
    assert found.status.certificate == GOOD
    assert found.status.previous is not None
    assert (found.status.previous.certificate, found.status.previous.until) == (UNPARSED, NOW + seconds(3600))


@pytest.mark.parametrize("text", ["", "damaged", "\x00"])
def test_what_somebody_has_spoilt_is_published_anew(text: str) -> None:
    assert plan(certificate(GOOD, text)).status.certificate == GOOD


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


DER = pem.decode(GOOD).der


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("ConfigMap", {"binaryData": {"ca.crt": encoded(DER)}}),
        ("ConfigMap", {"data": {"other": "x"}, "binaryData": {"ca.crt": encoded(b"\xef\xbb\xbf" + GOOD.encode())}}),
        ("ConfigMap", {"data": {"ca.crt": "\ufeff" + GOOD}}),
        ("Secret", {"data": {"ca.crt": encoded(DER)}}),
        ("Secret", {"data": {"ca.crt": encoded(GOOD.encode("utf-16"))}}),
    ],
)
def test_der_and_marked_text_are_taken_from_where_a_reference_leads(kind: str, document: Document) -> None:
    reference = {"kind": kind, "name": "images", "key": "ca.crt"}
    item = build.certificate("my-ca", spec={"certificateRef": reference})
    assert publications.referred(item, document, "operator").certificate == pem.decode(GOOD)


def test_a_reference_to_what_is_published_and_not_taken_any_more_keeps_it() -> None:
    reference = {"kind": "Secret", "name": "images", "key": "ca.crt"}
    item = build.certificate("my-ca", spec={"certificateRef": reference}, status={"certificate": UNPARSED})
    for content in (UNPARSED.encode(), odd.UNPARSED):
        source = publications.referred(item, {"data": {"ca.crt": encoded(content)}}, "operator")
        assert source.certificate is None
        found = planning.plan_certificate(item, source, build.zone(), (), (), NOW)
        assert found.status.certificate == UNPARSED
