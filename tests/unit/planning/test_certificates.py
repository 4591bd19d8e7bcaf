"""What a certificate publishes, what its status says of the hosts, when its deletion is let go; observed hosts."""

import base64
import datetime
import gc
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document, metadata, seconds, stamp
from tests.world import certificates

from directdownload.planning import certificates as planning
from directdownload.planning import observed, publications
from directdownload.planning.certificates import CertificatePlan
from directdownload.planning.observed import ObservedHost, Views
from directdownload.planning.publications import Source
from directdownload.resources import base, pem
from directdownload.resources.certificate import (
    CertificateHosts,
    DirectDownloadCertificate,
    DirectDownloadCertificateStatus,
)
from directdownload.resources.reasons import Reason

DAY = 86400
PEM = certificates.pem(begins=NOW - seconds(DAY), ends=NOW + seconds(365 * DAY))
NEW = certificates.pem("new", begins=NOW - seconds(DAY), ends=NOW + seconds(365 * DAY))
ENDED = certificates.pem("ended", begins=NOW - seconds(9 * DAY), ends=NOW - seconds(DAY))
LATER = certificates.pem("later", begins=NOW + seconds(60), ends=NOW + seconds(365 * DAY))
FINGERPRINT = pem.parse(PEM).fingerprint_sha256
SHORT = FINGERPRINT[:23]
ZONE = build.zone()


def certificate(name: str = "my-ca", *, spec: Document | None = None, **fields: Any) -> DirectDownloadCertificate:
    source = {} if "certificateRef" in (spec or {}) else {"certificate": PEM}
    return build.certificate(name, spec={**source, **(spec or {})}, **fields)


def published(text: str = PEM, **status: Any) -> Document:
    return {"certificate": text, **status}


def host(
    name: str = "kvm-1", state: str | None = "Up", proof: str | Document | None = "Uploaded", *, told: bool = True
) -> ObservedHost:
    """`proof`: a state, or an entry without its name; `told`: its agent keeps a keystore."""
    entry: Document | None = {"state": proof} if isinstance(proof, str) else proof
    if entry is not None and entry["state"] == "Uploaded":
        entry = {"fingerprintSHA256": FINGERPRINT, **entry}
    status: Document = {"certificates": [{"name": "my-ca", **entry}] if entry is not None else []}
    if told:
        status["keystore"] = {"type": "JKS"}
    return build.host(name, state, status=status)


def plan(
    item: DirectDownloadCertificate | None = None,
    *hosts: ObservedHost,
    source: Source | None = None,
    rivals: tuple[DirectDownloadCertificate, ...] = (),
    zone: Any = ZONE,
    now: datetime.datetime = NOW,
) -> CertificatePlan:
    """Of `item`, whose status is checked on the way."""
    item = item or certificate()
    found = planning.plan_certificate(item, source or publications.inline(item), zone, rivals, hosts, now)
    build.check_resource(item, found.status)
    return found


def told(found: CertificatePlan) -> tuple[Reason, set[str]]:
    """The reason of Ready, and the conditions that are True."""
    ready = found.status.condition("Ready")
    assert ready is not None
    return ready.reason, {c.type for c in found.status.conditions if c.status == "True"}


def words(found: CertificatePlan, name: str = "Ready") -> str:
    condition = found.status.condition(name)
    assert condition is not None
    return condition.message


# --- what is published


@pytest.mark.parametrize("text", [PEM, PEM.replace("\n", "\r\n"), "".join(PEM.splitlines()[1:-1])])
def test_what_is_published_is_normalised_and_described(text: str) -> None:
    found = plan(certificate(spec={"certificate": text}))
    parsed, status = pem.parse(PEM), found.status
    assert (status.certificate, status.fingerprint_sha256) == (PEM, FINGERPRINT)
    assert (status.subject, status.issuer) == ("CN=images.example.org",) * 2
    assert status.serial_number == "1234abcd"
    assert (status.not_before, status.not_after) == (parsed.not_before, parsed.not_after)
    assert status.previous is None
    assert found.needs_finalizer


@pytest.mark.parametrize("kept", ["", PEM], ids=["nothing published", "published before"])
@pytest.mark.parametrize(
    ("text", "reason", "true", "message"),
    [
        (PEM + NEW, "InvalidCertificate", {"Stalled"}, "spec.certificate: expected one certificate, found 2: create"),
        (PEM + "x", "InvalidCertificate", {"Stalled"}, "spec.certificate: expected one certificate and nothing else"),
        (certificates.private_key(), "InvalidCertificate", {"Stalled"}, "spec.certificate: expected one certificate"),
        ("", "InvalidCertificate", {"Stalled"}, "spec.certificate: expected one certificate in PEM, found nothing"),
        (ENDED, "Expired", {"Stalled"}, f"expired on {NOW - seconds(DAY):%Y-%m-%d %H:%M:%S} UTC: expected one that is"),
        (LATER, "NotYetValid", {"Reconciling"}, f"is valid from {NOW + seconds(60):%Y-%m-%d %H:%M:%S} UTC, and"),
    ],
)
def test_what_is_not_valid_is_refused_and_takes_nothing_away(
    text: str, reason: str, true: set[str], message: str, kept: str
) -> None:
    item = certificate(spec={"certificate": text}, status=published(kept) if kept else {})
    found = plan(item, host())
    assert found.status.certificate == (kept or None)
    assert told(found) == (reason, true)
    assert message in words(found)
    assert (f"; hosts keep the certificate {SHORT}…" in words(found)) is bool(kept)
    assert (found.status.hosts is not None) is bool(kept)
    assert found.needs_finalizer is bool(kept)


def test_a_certificate_that_is_not_yet_valid_is_published_when_it_is() -> None:
    item = certificate(spec={"certificate": LATER})
    assert plan(item).look_again == NOW + seconds(60)
    assert plan(item, now=NOW + seconds(60)).status.certificate == LATER


@pytest.mark.parametrize("alias", ["cloud", "CLOUD", "cloudca", "CloudCA2", "x-previous", "X-Previous"])
def test_reserved_aliases_are_refused(alias: str) -> None:
    found = plan(certificate(spec={"alias": alias}, status=published()), host())
    assert told(found) == ("ReservedAlias", {"Stalled"})
    assert f"spec.alias: {alias.lower()} is reserved" in words(found)
    assert found.status.certificate is None


def test_the_older_of_two_with_one_alias_has_it() -> None:
    older = certificate("z-ca", creationTimestamp=stamp(NOW - seconds(2 * DAY)), spec={"alias": "MY-ca"})
    younger = certificate(status=published())
    refused = plan(younger, host(), rivals=(older,))
    assert told(refused) == ("AliasConflict", {"Stalled"})
    assert "DirectDownloadCertificate z-ca, which is older, has the alias my-ca in Zone zone-1" in words(refused)
    # What it had published is taken back, and holds nothing.
    assert (refused.status.certificate, refused.status.hosts, refused.needs_finalizer) == (None, None, False)
    assert plan(older, rivals=(younger,)).status.certificate == PEM


def test_of_two_made_in_one_second_the_name_decides() -> None:
    first, second = certificate("a"), certificate("b")
    assert plan(first, rivals=(second,)).status.certificate == PEM
    assert plan(second, rivals=(first,)).status.certificate is None


def test_an_alias_whose_object_is_being_deleted_is_waited_for() -> None:
    older = certificate("a", deleting=True)
    found = plan(certificate("b"), rivals=(older,))
    assert told(found) == ("AliasConflict", {"Reconciling"})
    assert "its deletion has to end first" in words(found)


def test_a_published_certificate_that_someone_has_spoilt_is_published_anew() -> None:
    assert plan(certificate(status=published("spoilt"))).status.certificate == PEM


def test_a_request_is_answered() -> None:
    assert plan(certificate(requested_at="now")).status.last_handled_request == "now"


# --- Secrets and ConfigMaps


def reference(kind: str = "Secret", key: str = "tls.crt") -> DirectDownloadCertificate:
    return certificate(spec={"certificateRef": {"kind": kind, "name": "images", "key": key}})


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    ("kind", "data"), [("Secret", {"tls.crt": encoded(PEM), "tls.key": ""}), ("ConfigMap", {"tls.crt": PEM})]
)
def test_a_reference_is_read(kind: str, data: Document) -> None:
    found = publications.referred(reference(kind), {"data": data}, "operator")
    assert found.certificate == pem.parse(PEM)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "spec.certificateRef: there is no Secret operator/images: create it, or correct the reference"),
        ({}, "spec.certificateRef: Secret operator/images has no key tls.crt: expected the certificate there"),
        ({"data": None}, "spec.certificateRef: Secret operator/images has no key tls.crt"),
        ({"data": {"tls.crt": encoded(PEM + NEW)}}, "Secret operator/images, key tls.crt: expected one certificate, f"),
        ({"data": {"tls.crt": encoded(b"\xff\x00\x80")}}, "Secret operator/images, key tls.crt: expected one cert"),
        ({"data": {"tls.crt": encoded(certificates.private_key())}}, "block that begins with -----BEGIN PRIVATE KEY"),
    ],
)
def test_a_reference_that_holds_no_certificate_is_waited_for(document: Document | None, message: str) -> None:
    item = reference()
    source = publications.referred(item, document, "operator")
    assert source.certificate is None
    found = plan(item, source=source)
    # Not the object must be changed, and what it refers to is followed.
    assert told(found) == ("InvalidCertificate", {"Reconciling"})
    assert message in words(found)
    key = "".join(certificates.private_key().splitlines()[1:-1])
    assert not any(key[at : at + 10] in f"{source}{found}" for at in range(len(key) - 10))


def test_an_ended_certificate_in_a_secret_is_waited_for() -> None:
    found = plan(reference(), source=Source(pem.parse(ENDED)))
    assert told(found) == ("Expired", {"Reconciling"})


# --- rotation


def test_a_change_keeps_the_one_before_for_a_while() -> None:
    item = certificate(spec={"certificate": NEW, "keepPrevious": "1h"}, status=published())
    found = plan(item, host())
    previous = found.status.previous
    assert (found.status.certificate, found.look_again) == (NEW, NOW + seconds(3600))
    assert previous is not None
    assert (previous.certificate, previous.fingerprint_sha256) == (PEM, FINGERPRINT)
    assert previous.until == NOW + seconds(3600)
    # The hosts have still to prove the new one.
    assert told(found) == ("Provisioning", {"Reconciling"})
    changed = item.model_copy(update={"status": found.status})
    kept = plan(changed, host(), now=NOW + seconds(3599))
    assert (kept.status.certificate, kept.status.previous) == (NEW, previous)
    ended = plan(changed, host(), now=NOW + seconds(3600))
    assert (ended.status.certificate, ended.status.previous) == (NEW, None)


def test_the_one_before_is_trusted_no_longer_than_it_is_valid() -> None:
    ends = NOW + seconds(30)
    old = certificates.pem("old", begins=NOW - seconds(DAY), ends=ends)
    for keep in ("24h", "100000000h"):
        found = plan(certificate(spec={"certificate": NEW, "keepPrevious": keep}, status=published(old)))
        assert found.status.previous is not None
        assert found.status.previous.until == ends
    gone = plan(certificate(spec={"certificate": NEW}, status=published(ENDED)))
    assert (gone.status.certificate, gone.status.previous) == (NEW, None)


def test_no_previous_certificate_is_kept_when_none_is_asked_for() -> None:
    spec = {"certificate": NEW, "keepPrevious": "0s"}
    assert plan(certificate(spec=spec, status=published())).status.previous is None
    until = stamp(NOW + seconds(60))
    before = {"certificate": PEM, "fingerprintSHA256": FINGERPRINT, "until": until}
    assert plan(certificate(spec=spec, status=published(NEW, previous=before))).status.previous is None


def test_a_second_change_keeps_the_last_one() -> None:
    before = {"certificate": PEM, "fingerprintSHA256": FINGERPRINT, "until": stamp(NOW + seconds(60))}
    found = plan(certificate(spec={"certificate": PEM}, status=published(NEW, previous=before)))
    assert found.status.previous is not None
    assert (found.status.certificate, found.status.previous.certificate) == (PEM, NEW)


_STEPS: dict[str, Document] = {
    "revoked": {"revoked": True},
    "taken back": {"revoked": False},
    "changed": {"certificate": NEW},
    "changed and taken back": {"certificate": NEW, "revoked": False},
    "changed and revoked": {"certificate": NEW, "revoked": True},
    "not one": {"certificate": "x"},
    "not one and taken back": {"certificate": "x", "revoked": False},
    "not yet valid and taken back": {"certificate": LATER, "revoked": False},
}


@pytest.mark.parametrize(
    "steps",
    [
        ("revoked", "changed", "taken back"),
        ("revoked", "changed and taken back"),
        ("changed and revoked", "taken back"),
        ("revoked", "not one", "changed and taken back"),
        ("revoked", "not one", "taken back", "changed"),
        ("revoked", "not one and taken back", "changed"),
        ("revoked", "not yet valid and taken back", "changed"),
    ],
    ids=" | ".join,
)
def test_what_was_revoked_is_never_kept_as_the_one_before(steps: tuple[str, ...]) -> None:
    spec: Document = {}
    item = certificate(status=published())
    for step in steps:
        spec |= _STEPS[step]
        item = certificate(spec=spec).model_copy(update={"status": item.status})
        item = item.model_copy(update={"status": plan(item, host()).status})
        assert item.status.previous is None
        # Nor do hosts get it back under its own alias.
        assert item.spec.revoked or item.status.certificate != PEM
    assert (item.status.certificate, item.status.revoked) == (NEW, False)


def test_what_was_revoked_and_taken_back_as_it_was_is_trusted_again_and_kept_after_a_change() -> None:
    back = plan(certificate(status=published(revoked=True)), host())
    assert (back.status.certificate, back.status.revoked) == (PEM, False)
    changed = plan(certificate(spec={"certificate": NEW}, status=published(revoked=back.status.revoked)))
    assert changed.status.previous is not None
    assert changed.status.previous.certificate == PEM


def test_a_revocation_ends_the_one_before_for_good() -> None:
    before = {"certificate": NEW, "fingerprintSHA256": "AA", "until": stamp(NOW + seconds(60))}
    revoked = plan(certificate(spec={"revoked": True}, status=published(previous=before)), host())
    assert (revoked.status.certificate, revoked.status.previous, revoked.status.revoked) == (PEM, None, True)
    assert plan(certificate(status=published(previous=before)), host()).status.previous is not None


# --- what the hosts say


def test_every_host_is_counted_once() -> None:
    other = {"state": "Uploaded", "fingerprintSHA256": "AA:BB"}
    hosts = [
        host("kvm-1"),
        host("kvm-2", proof={"state": "Failed", "reason": "AliasConflict", "message": "words"}),
        host("kvm-3", proof=None),
        host("kvm-4", proof=other),
        host("kvm-5", "Down"),
        host("kvm-6", None),
        host("kvm-7", "Maintenance"),
        host("kvm-8", proof="Revoked"),
        host("kvm-9", proof="Uploaded"),
        host("kvm-a", proof="Pending"),
    ]
    found = plan(certificate(spec={"revokedHosts": ["kvm-8", "kvm-9", "elsewhere"]}, status=published()), *hosts)
    assert found.status.hosts == CertificateHosts(desired=8, uploaded=2, revoked=1, failed=1, pending=4, down=2)
    assert told(found) == ("ProvisioningFailed", {"Reconciling"})
    assert words(found) == "2 of 7 Up hosts have proved the certificate; failed on kvm-2"


def test_ready_when_every_up_host_has_proved_it() -> None:
    hosts = [host(), host("kvm-2", "Down", None), host("kvm-3", "Maintenance", None), host("kvm-4", proof="Revoked")]
    found = plan(certificate(spec={"revokedHosts": ["kvm-4"]}, status=published()), *hosts)
    assert told(found) == ("Provisioned", {"Ready"})
    assert words(found) == "2 of 2 Up hosts have proved the certificate"


@pytest.mark.parametrize("proof", [None, "Pending", "Revoked", {"state": "Uploaded", "fingerprintSHA256": "AA:BB"}])
def test_a_host_that_has_not_proved_these_very_bytes_is_waited_for(proof: Any) -> None:
    assert told(plan(certificate(status=published()), host(), host("kvm-2", proof=proof))) == (
        "Provisioning",
        {"Reconciling"},
    )


def test_a_host_where_it_is_revoked_is_waited_for() -> None:
    item = certificate(spec={"revokedHosts": ["kvm-1"]}, status=published())
    assert told(plan(item, host())) == ("Provisioning", {"Reconciling"})
    assert told(plan(item, host(proof="Revoked"))) == ("Provisioned", {"Ready"})


def test_without_hosts_that_are_up_it_is_not_ready() -> None:
    for item in (certificate(status=published()), certificate(status=published(), spec={"revoked": True})):
        found = plan(item, host(state="Down"), host("kvm-2", "Maintenance"))
        assert told(found) == ("Provisioning", {"Reconciling"})
        assert words(found) == "no host of Zone zone-1 is Up"


def test_failures_are_ten_in_the_order_of_hosts_with_the_words_of_the_host() -> None:
    synced = build.condition("KeystoreSynced", "False", Reason.KEYSTORE_PASSWORD_WRONG)
    entry = {"name": "my-ca", "state": "Failed", "reason": "KeystorePasswordWrong"}
    hosts = [
        build.host(f"kvm-{number:02}", status={"certificates": [entry], "conditions": [synced]})
        for number in range(20, 0, -1)
    ]
    hosts.append(host("kvm-00", proof={"state": "Failed", "reason": "AliasConflict", "message": "m" * 5000}))
    found = plan(certificate(status=published()), *hosts)
    failures = found.status.failures
    assert [failure.host for failure in failures] == [f"kvm-{number:02}" for number in range(10)]
    assert (failures[0].reason, failures[0].message) == ("AliasConflict", "m" * observed.MESSAGE_LIMIT)
    assert (failures[1].reason, failures[1].message) == ("KeystorePasswordWrong", "because of KeystorePasswordWrong")
    assert found.status.hosts is not None
    assert found.status.hosts.failed == 21
    assert "failed on 21 hosts, for example kvm-00, kvm-01, kvm-02" in words(found)


def test_revoked_everywhere() -> None:
    item = certificate(spec={"revoked": True}, status=published())
    waiting = plan(item, host(proof="Revoked"), host("kvm-2"))
    assert told(waiting) == ("Provisioning", {"Reconciling"})
    assert waiting.status.hosts == CertificateHosts(desired=0, revoked=1, pending=1)
    done = plan(item, host(proof="Revoked"), host("kvm-2", "Down"))
    assert told(done) == ("Revoked", {"Ready"})
    # Published all the same: only of what is published hosts say that it is gone.
    assert done.status.certificate == PEM


def test_what_is_revoked_may_end_unnoticed() -> None:
    item = certificate(spec={"revoked": True, "certificate": ENDED}, status=published(ENDED))
    assert told(plan(item, host(proof="Revoked"))) == ("Revoked", {"Ready"})


def test_without_a_zone_it_waits() -> None:
    found = plan(certificate(status=published()), host(), zone=None)
    assert told(found) == ("ZoneNotFound", {"Reconciling"})
    assert words(found) == "spec.zone: there is no Zone zone-1; create it"


def test_a_disabled_zone_is_told_while_something_is_missing() -> None:
    disabled = build.zone(spec={"enabled": False})
    missing = plan(certificate(status=published()), host(), host("kvm-2", proof="Pending"), zone=disabled)
    assert told(missing) == ("ZoneDisabled", {"Reconciling"})
    assert told(plan(certificate(status=published()), host(), zone=disabled)) == ("Provisioned", {"Ready"})


# --- the end of its validity


def test_its_end_is_told_before_it_comes_and_when_it_has() -> None:
    ends = NOW + seconds(720 * 3600 + 60)
    text = certificates.pem("ending", begins=NOW - seconds(DAY), ends=ends)
    item = certificate(spec={"certificate": text}, status=published(text))
    up = host(proof={"state": "Uploaded", "fingerprintSHA256": pem.parse(text).fingerprint_sha256})

    def seen(now: datetime.datetime) -> tuple[Reason, set[str], Reason, datetime.datetime | None]:
        found = plan(item, up, now=now)
        expiring = found.status.condition("Expiring")
        assert expiring is not None
        assert expiring.message == f"valid until {ends:%Y-%m-%d %H:%M:%S} UTC"
        # What it serves with is not taken away at its end.
        assert found.status.certificate == text
        return *told(found), expiring.reason, found.look_again

    soon = NOW + seconds(60)
    provisioned = Reason.PROVISIONED
    assert seen(NOW) == (provisioned, {"Ready"}, Reason.NOT_EXPIRING, soon)
    assert seen(soon) == (provisioned, {"Ready", "Expiring"}, Reason.EXPIRING_SOON, ends)
    assert seen(ends) == (Reason.EXPIRED, {"Stalled", "Expiring"}, Reason.EXPIRED, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spec": {"revoked": True}, "status": published()}, "it is revoked, so its expiry does not matter"),
        ({"spec": {"certificate": "no certificate"}}, "no certificate is published"),
    ],
)
def test_expiring_that_is_false_has_a_reason_of_its_own(fields: Document, message: str) -> None:
    found = plan(certificate(**fields), host())
    expiring = found.status.condition("Expiring")
    assert expiring is not None
    assert (expiring.status, expiring.reason, expiring.message) == ("False", Reason.NOT_EXPIRING, message)


def test_a_warning_of_nothing_and_one_of_a_thousand_years() -> None:
    for warning, true in (("0s", {"Ready"}), ("100000000h", {"Ready", "Expiring"})):
        zone = build.zone(spec={"certificates": {"expiryWarning": warning}})
        assert told(plan(certificate(status=published()), host(), zone=zone)) == ("Provisioned", true)


def test_validity_until_the_end_of_time() -> None:
    text = certificates.pem(
        "for ever", begins=NOW - seconds(DAY), ends=datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    )
    found = plan(certificate(spec={"certificate": text}))
    assert found.status.not_after == datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def test_a_time_of_the_first_century_is_written_as_the_api_server_takes_it() -> None:
    begins = datetime.datetime(1, 2, 3, tzinfo=datetime.UTC)
    told = DirectDownloadCertificateStatus(not_before=begins).model_dump(mode="json", by_alias=True)
    assert told["notBefore"] == "0001-02-03T00:00:00Z"


# --- deletion


@pytest.mark.parametrize(
    ("one", "held"),
    [
        (host(), True),
        (host(proof="Failed"), True),
        (host(proof="Pending"), True),
        (host(proof="Revoked"), False),
        (host(proof=None), True),
        (host(proof=None, told=False), False),
        (host(state="Maintenance"), True),
        (host(state="Down"), False),
        (host(state=None), False),
    ],
    ids=["uploaded", "failed", "pending", "revoked", "silent", "no keystore", "Maintenance", "Down", "unknown"],
)
def test_who_holds_a_deletion(one: ObservedHost, held: bool) -> None:
    item = certificate(deleting=True, finalizers=[base.FINALIZER], status=published())
    found = plan(item, host("kvm-0", proof="Revoked"), one)
    assert found.needs_finalizer is held
    if held:
        assert "the deletion waits for kvm-1 to prove the removal" in words(found)
        assert found.status.certificate == PEM


def test_a_deletion_of_what_was_never_published_is_not_held() -> None:
    item = certificate(deleting=True, spec={"certificate": "x"})
    assert not plan(item, host(proof=None)).needs_finalizer
    # One that a host still has is waited for whatever the status says.
    assert plan(item, host()).needs_finalizer


def test_nothing_new_is_published_while_it_is_deleted() -> None:
    item = certificate(deleting=True, spec={"certificate": NEW}, status=published())
    assert plan(item, host()).status.certificate == PEM


# --- observed hosts


def test_a_host_is_kept_without_the_models_of_its_certificates() -> None:
    found = host()
    assert found.status.certificates == ()
    assert found.proofs["my-ca"].fingerprint_sha256 == FINGERPRINT
    assert found.status.keystore is not None


def document(number: int, *, differing: bool = False) -> Document:
    entries = [{"name": f"ca-{each}", "fingerprintSHA256": "AA", "state": "Uploaded"} for each in range(200)]
    entries[0] = {
        "name": "ca-0",
        "state": "Revoked",
        "lastTransitionTime": stamp(NOW + seconds(number)),
        **({"message": f"number {number}"} if differing else {}),
    }
    return {
        "metadata": metadata(f"kvm-{number}"),
        "spec": {"nodeName": f"kvm-{number}", "zone": "zone-1"},
        "status": {"certificates": entries},
    }


def test_of_what_a_host_says_only_so_much_is_kept() -> None:
    long = "m" * 32768
    found = host(proof={"state": "Failed", "reason": "AliasConflict", "message": long, "fingerprintSHA256": long})
    proof = found.proofs["my-ca"]
    assert (proof.message, proof.fingerprint_sha256) == (long[: observed.MESSAGE_LIMIT],) * 2


def test_hosts_that_say_the_same_share_it() -> None:
    views = Views()
    hosts = [views.host(document(number)) for number in range(1000)]
    assert len({id(each.proofs) for each in hosts}) == 1
    differing = [views.host(document(number, differing=True)) for number in range(1000)]
    assert len({id(each.proofs) for each in differing}) == 1000
    assert len({id(proof) for each in differing for proof in each.proofs.values()}) == 1000 + 199


def test_what_no_host_says_any_more_is_forgotten() -> None:
    views = Views()
    hosts = [views.host(document(number, differing=True)) for number in range(50)]
    assert len(views._reports) == 50
    del hosts
    gc.collect()
    assert not views._reports
