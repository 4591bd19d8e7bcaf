"""One sync of a host's keystore: real stores, the ledger beside them, and the trust bundle."""

import collections
import dataclasses
import datetime
import json
import logging
import os
import pathlib
import stat
from typing import Any

import pytest
from tests.world import docs, stores
from tests.world.stores import HostFiles

from directdownload.agent.keystore import bundle, sync
from directdownload.agent.keystore.bundle import Bundle
from directdownload.agent.keystore.sync import KeystoreSync, Synced, Wishes
from directdownload.download.sources import tls
from directdownload.keystore import store
from directdownload.planning.keystores import Drift, Previous, Published
from directdownload.resources.host import DriftKind, KeystoreSpec
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
A, B, FOREIGN = (stores.certificate(name) for name in ("a", "b", "foreign"))


def published(alias: str, certificate: Certificate, **fields: Any) -> Published:
    return Published(f"cert-{alias}", NOW, "z", alias, certificate, **fields)


class Host:
    def __init__(self, directory: pathlib.Path) -> None:
        self.state = directory / "state"
        self.state.mkdir()
        self.files = HostFiles(directory / "agent")
        self.roots = (str(directory / "agent"),)
        self.restart()

    def restart(self) -> None:
        self.synchroniser = KeystoreSync(self.roots, str(self.state))

    def wishes(self, *certificates: Published, enabled: bool | None = True, **keystore: Any) -> Wishes:
        spec = KeystoreSpec.model_validate({**self.files.spec, **keystore})
        return Wishes("kvm-1", "z", enabled, 0, spec, certificates, 1)

    def sync(self, *certificates: Published, now: datetime.datetime = NOW, **fields: Any) -> Synced:
        return self.synchroniser.sync(self.wishes(*certificates, **fields), now)

    @property
    def ledger(self) -> dict[str, Any]:
        path = self.state / "keystores.json"
        stores: dict[str, Any] = json.loads(path.read_text())["stores"] if path.exists() else {}
        return stores

    @property
    def bundle(self) -> frozenset[bytes]:
        """As a download job reads it."""
        return tls.trust(str(self.state / "trust" / "bundle.pem")).certificates


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("store_type", ["JKS", "PKCS12"])
def test_a_missing_store_is_made_and_a_certificate_put(host: Host, store_type: str) -> None:
    synced = host.sync(published("ca", A), type=store_type)
    assert synced.error is None
    assert synced.reason is Reason.KEYSTORE_SYNCED
    assert [(proof.state, proof.fingerprint) for proof in synced.proofs] == [("Uploaded", A.fingerprint_sha256)]
    assert synced.store is not None
    assert (synced.store.type, synced.store.entries, synced.store.managed) == (store_type, 1, 1)
    assert host.files.fingerprints() == {"ca": A.fingerprint_sha256}
    assert host.bundle == {A.der}
    bundle = host.state / "trust" / "bundle.pem"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o644
    assert stat.S_IMODE(bundle.parent.stat().st_mode) == 0o755
    before = host.files.path.stat(), bundle.stat()
    assert host.sync(published("ca", A), type=store_type).proofs == synced.proofs
    assert (host.files.path.stat(), bundle.stat()) == before, "nothing is written again"


def test_certificates_that_stay_are_checked_once_and_one_that_comes_back_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keystore may hold hundreds, and each sync reads all of them more than once."""
    for_java, for_openssl = collections.Counter[bytes](), collections.Counter[bytes]()
    unreadable, judge = vars(Certificate)["unreadable"], bundle._judge

    def flaw(certificate: Certificate) -> Any:
        for_java[certificate.der] += 1
        return unreadable.fget(certificate)

    def judged(certificate: bytes) -> Any:
        for_openssl[certificate] += 1
        return judge(certificate)

    monkeypatch.setattr(Certificate, "unreadable", property(flaw))
    monkeypatch.setattr(bundle, "_judge", judged)
    ca, cb = published("ca", A), published("cb", B)
    for wanted in ((ca,), (ca, cb), (ca, cb)):
        assert host.sync(*wanted).error is None
    assert for_java == for_openssl == {A.der: 1, B.der: 1}
    assert host.sync(ca).error is None
    assert host.sync(ca, cb).error is None
    assert for_java == for_openssl == {A.der: 1, B.der: 2}


def test_nothing_wanted_makes_no_store_and_misses_none(host: Host) -> None:
    for keystore in ({}, {"path": "/srv/elsewhere.jks"}, {"passwordFrom": {"file": f"{host.roots[0]}/none"}}):
        synced = host.sync(**keystore)
        assert (synced.reason, synced.error) == (Reason.KEYSTORE_SYNCED, None)
    os.unlink(host.files.properties)
    assert host.sync(published("ca", A, revoked=True)).proofs[0].state == "Revoked", "no password needed"
    assert host.sync(published("ca", A), enabled=False).proofs[0].state == "Pending"
    host.files.path.write_bytes(b"damaged")
    assert host.sync().error is None
    assert not host.ledger
    assert host.bundle == frozenset()
    assert (host.state / "trust" / "bundle.pem").exists()


FAILURES = {
    "no password file": (Reason.KEYSTORE_PASSWORD_MISSING, {"passwordFrom": {"file": "ROOT/none"}}, "ROOT/none"),
    "password file elsewhere": (Reason.KEYSTORE_PASSWORD_MISSING, {"passwordFrom": {"file": "/p"}}, "keystoreRoots"),
    "keystore elsewhere": (Reason.KEYSTORE_UNREADABLE, {"path": "/srv/cloud.jks"}, "agent.keystoreRoots"),
    "a link out of the roots": (Reason.KEYSTORE_UNREADABLE, {"path": "ROOT/out/cloud.jks"}, "agent.keystoreRoots"),
    "not to be made": (Reason.KEYSTORE_MISSING, {"createIfMissing": False}, "ROOT/cloud.jks"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_what_cannot_be_done_is_told_with_its_reason(
    host: Host, tmp_path: pathlib.Path, failure: tuple[Reason, dict[str, Any], str]
) -> None:
    reason, keystore, named = failure
    (host.files.directory / "out").symlink_to(tmp_path)
    spec = json.loads(json.dumps(keystore).replace("ROOT", host.roots[0]))
    synced = host.sync(published("ca", A), published("cb", B, revoked=True), **spec)
    assert synced.error is not None
    assert synced.reason is reason
    assert named.replace("ROOT", host.roots[0]) in synced.message
    assert [(proof.state, proof.reason, proof.message) for proof in synced.proofs] == [("Failed", reason, None)] * 2
    assert not (tmp_path / "cloud.jks").exists()


def test_a_wrong_password_and_a_damaged_store_are_told_and_leave_the_store(host: Host) -> None:
    host.sync(published("ca", A))
    content = host.files.path.read_bytes()
    host.files.set_password("another password")
    synced = host.sync(published("ca", A), published("cb", B))
    assert synced.reason is Reason.KEYSTORE_PASSWORD_WRONG
    assert "another password" not in synced.message
    assert host.files.path.read_bytes() == content
    os.utime(host.files.path, (0, 0))
    host.files.path.write_bytes(b"\xfe\xed\xfe\xed damaged")
    os.utime(host.files.path, (0, 0))
    assert host.sync(published("ca", A)).reason is Reason.KEYSTORE_UNREADABLE
    assert host.files.path.read_bytes() == b"\xfe\xed\xfe\xed damaged"
    assert "ca" in host.ledger[str(host.files.path)]["entries"]


def test_while_the_store_fails_the_bundle_loses_what_is_revoked_and_gains_nothing(host: Host) -> None:
    host.files.put(theirs=FOREIGN)
    host.sync(published("ca", A), published("cb", B))
    assert host.bundle == {A.der, B.der, FOREIGN.der}
    host.files.set_password("wrong")
    more = stores.certificate("more")
    host.sync(published("ca", A, revoked=True), published("cb", B), published("cc", more))
    assert host.bundle == {B.der, FOREIGN.der}
    host.restart()
    host.sync(published("cc", more))
    assert host.bundle == {FOREIGN.der}, "an object that is gone is not wanted either"


def test_a_trusted_certificate_that_tls_cannot_use_does_not_spoil_the_bundle(host: Host) -> None:
    Bundle(str(host.state)).write([FOREIGN.der, b"no certificate", A.der + b"x" * 100_000])
    assert host.bundle == {FOREIGN.der}


def test_the_ledger_is_on_disk_before_the_store_is_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.sync(published("ca", A))
    content = host.files.path.read_bytes()
    (host.state / "keystores.json.tmp").mkdir()
    synced = host.sync(published("ca", A), published("cb", B))
    assert synced.reason is Reason.KEYSTORE_WRITE_FAILED
    assert "keystores.json" in synced.message
    assert host.files.path.read_bytes() == content


def test_a_lost_ledger_costs_nothing_for_what_is_published(host: Host) -> None:
    host.sync(published("ca", A), published("cb", B))
    for content in (None, "damaged", '{"version": 2, "stores": {}}'):
        ledger = host.state / "keystores.json"
        ledger.unlink() if content is None else ledger.write_text(content)
        host.restart()
        synced = host.sync(published("ca", A), published("cb", B))
        assert synced.store is not None
        assert synced.store.managed == 2
        assert synced.drift == ()
    host.sync(published("ca", A, revoked=True))
    assert host.files.fingerprints() == {}


def test_drift_is_repaired_and_told(host: Host) -> None:
    certificates = published("ca", A), published("cb", B)
    host.sync(*certificates)
    host.files.remove("ca")
    assert host.sync(*certificates).drift == (Drift(DriftKind.ENTRY_MISSING, "ca"),)
    host.files.put(cb=FOREIGN)
    assert host.sync(*certificates).drift == (Drift(DriftKind.ENTRY_REPLACED, "cb"),)
    host.files.path.unlink()
    host.restart()
    assert host.sync(*certificates).drift == (Drift(DriftKind.STORE_MISSING),)
    assert host.files.fingerprints() == {"ca": A.fingerprint_sha256, "cb": B.fingerprint_sha256}
    assert host.sync(*certificates).drift == ()


def test_another_path_takes_our_entries_out_of_the_old_store(host: Host) -> None:
    host.files.put(theirs=FOREIGN)
    host.sync(published("ca", A))
    new = str(host.files.directory / "new.p12")
    host.files.set_password("changed")
    moved = host.sync(published("ca", A), path=new, type="PKCS12")
    assert moved.proofs[0].state == "Uploaded"
    assert moved.reason is Reason.KEYSTORE_SYNCED
    assert "entries of the agent stay in a keystore that is no longer used" in moved.message
    assert str(host.files.path) in moved.message
    assert moved.error is not None, "to be tried again"
    old = HostFiles(host.files.directory, stores.PASSWORD)
    assert set(old.entries()) == {"theirs", "ca"}
    # The new store has the other password now, and cannot be opened: that does not hold up the old one.
    host.sync(published("ca", A), path=new)
    assert set(old.entries()) == {"theirs"}
    assert set(host.ledger) == {new}


def test_what_could_not_be_left_is_left_when_it_opens(host: Host) -> None:
    host.sync(published("ca", A))
    old, new = HostFiles(host.files.directory, stores.PASSWORD), str(host.files.directory / "new.p12")
    password = host.files.directory / "password"
    password.write_text("changed")
    moved: dict[str, Any] = {"path": new, "passwordFrom": {"file": str(password)}}
    host.files.set_password("wrong")
    assert host.sync(published("ca", A), **moved).error is not None
    host.files.set_password(stores.PASSWORD)
    synced = host.sync(published("ca", A), **moved)
    assert (synced.error, synced.message) == (None, f"{new}: 1 Uploaded")
    assert old.fingerprints() == {}


def test_a_backup_that_is_restored_after_a_deletion_does_not_bring_the_certificate_back(host: Host) -> None:
    host.files.put(theirs=A)
    host.sync(published("ca", A))
    backup = host.files.path.read_bytes()
    host.sync()
    assert host.files.fingerprints() == {"theirs": A.fingerprint_sha256}
    for restart in (False, True):
        host.files.path.write_bytes(backup)
        if restart:
            host.restart()
        assert host.sync().error is None
        assert host.files.fingerprints() == {"theirs": A.fingerprint_sha256}
    assert host.sync(published("ca", A)).proofs[0].state == "Uploaded", "uploaded again it is wanted again"


def test_what_is_revoked_while_the_store_fails_does_not_come_back_as_the_previous_one(host: Host) -> None:
    host.sync(published("ca", A))
    host.files.set_password("wrong")
    assert host.sync(published("ca", A, revoked=True)).error is not None
    rotated = published("ca", B, previous=Previous(A, NOW + datetime.timedelta(hours=1)))
    host.restart()
    assert host.sync(rotated).error is not None
    assert host.bundle == frozenset()
    host.files.set_password(stores.PASSWORD)
    assert host.sync(rotated).error is None
    assert host.files.fingerprints() == {"ca": B.fingerprint_sha256}
    assert host.bundle == {B.der}


def test_a_ledger_that_cannot_be_read_is_told_and_kept_and_read_again(host: Host) -> None:
    host.sync(published("ca", A), published("cb", B))
    ledger, aside = host.state / "keystores.json", host.state / "aside"
    content = host.files.path.read_bytes()
    ledger.rename(aside)
    ledger.mkdir()
    host.restart()
    for wanted in ((published("cb", B), published("cc", FOREIGN)), ()):
        synced = host.sync(*wanted)
        assert (synced.reason, synced.error is None) == (Reason.KEYSTORE_WRITE_FAILED, False)
        assert str(ledger) in synced.message
        assert {(proof.state, proof.reason) for proof in synced.proofs} <= {("Failed", Reason.KEYSTORE_WRITE_FAILED)}
        assert host.files.path.read_bytes() == content
    ledger.rmdir()
    aside.rename(ledger)
    assert host.sync(published("cb", B)).error is None
    assert host.files.fingerprints() == {"cb": B.fingerprint_sha256}, "it knows what was its own"


def test_a_ledger_without_what_was_taken_back_is_read(host: Host) -> None:
    host.sync(published("ca", A))
    ledger = host.state / "keystores.json"
    content = json.loads(ledger.read_text())
    del content["taken"]
    ledger.write_text(json.dumps(content))
    host.restart()
    host.sync()
    assert host.files.fingerprints() == {}


def test_previous_certificates_go_in_time(host: Host) -> None:
    until = NOW + datetime.timedelta(hours=1)
    host.sync(published("ca", A))
    rotated = published("ca", B, previous=Previous(A, until))
    synced = host.sync(rotated)
    assert synced.until == until
    assert host.files.fingerprints() == {"ca": B.fingerprint_sha256, "ca-previous": A.fingerprint_sha256}
    assert synced.proofs[0].fingerprint == B.fingerprint_sha256
    assert host.sync(rotated, now=until).until is None
    assert host.files.fingerprints() == {"ca": B.fingerprint_sha256}
    assert host.bundle == {B.der}


def test_a_spec_that_is_not_understood_changes_nothing(host: Host) -> None:
    wishes = dataclasses.replace(host.wishes(published("ca", A)), keystore=None)
    assert host.synchroniser.sync(wishes, NOW).reason is Reason.KEYSTORE_UNREADABLE
    assert not host.files.path.exists()


def test_a_defect_of_ours_is_told_and_does_not_end_the_agent(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def update(*_: object, **__: object) -> None:
        raise RecursionError("secret")

    monkeypatch.setattr(store, "update", update)
    synced = host.sync(published("ca", A))
    assert (synced.reason, synced.proofs[0].state) == (Reason.KEYSTORE_UNREADABLE, "Failed")
    assert "RecursionError" in synced.message
    assert "secret" not in synced.message
    assert "Traceback" in caplog.text


def test_stamps_change_with_either_file(host: Host) -> None:
    spec = KeystoreSpec.model_validate(host.files.spec)
    seen = [sync.stamps(spec)]
    host.files.put(ca=A)
    seen.append(sync.stamps(spec))
    host.files.set_password("b")
    seen.append(sync.stamps(spec))
    assert len(set(map(str, seen))) == 3


def test_everything_that_is_done_is_logged_and_no_password(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.files.put(cb=B)
    with caplog.at_level(logging.DEBUG):
        host.sync(published("ca", A), published("cb", B))
        host.sync(published("cb", B, revoked=True))
    text = caplog.text
    assert f"put {A.fingerprint_sha256} under ca for certificate cert-ca" in text
    assert "adopted cb for certificate cert-cb" in text
    assert f"removed ca ({A.fingerprint_sha256}) of certificate cert-ca" in text
    assert stores.PASSWORD not in text


@pytest.mark.parametrize("properties", [None, "guid=4711\n"], ids=["no file", "no passphrase"])
def test_the_page_shows_what_is_seen_without_agent_properties(host: Host, properties: str | None) -> None:
    path = host.files.directory / "agent.properties"
    path.unlink(missing_ok=True)
    if properties is not None:
        path.write_text(properties)
    source: dict[str, Any] = {"passwordFrom": {"agentProperties": str(path)}}
    assert host.sync(**source).reason is Reason.KEYSTORE_SYNCED, "nothing is missing before a certificate is needed"
    found = host.sync(published("ca", A), **source)
    assert [proof.state for proof in found.proofs] == ["Failed"]
    page = (docs.DOCS / "certificates.md").read_text()
    shown = "/etc/cloudstack/agent/agent.properties" if properties is None else "…"
    assert f"`{found.message.replace(str(path), shown)}`" in page
    assert f"False, `{found.reason}`" in page
