"""A keystore that Java cannot open: the agent takes out what it put there, leaves the rest, and says so. Real Java."""

import pathlib
import subprocess
from typing import Any

import pytest
from tests.unit.agent.keystore.test_sync import Host, published
from tests.world import jdks, stores
from tests.world import odd_certificates as odd

from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

A, BAD = stores.certificate("a"), Certificate(odd.NO_NAMES)
FLAWS = {BAD.fingerprint_sha256: str(BAD.unreadable)}


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


def opens(host: Host) -> bool:
    """Whether Java does."""
    command = (
        "keytool",
        *jdks.BRIEF_KEYTOOL,
        "-list",
        "-keystore",
        str(host.files.path),
        "-storepass",
        stores.PASSWORD,
    )
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("store_type", ["JKS", "PKCS12"])
def test_what_an_agent_of_before_imported_is_taken_out(host: Host, store_type: Any) -> None:
    # An agent that knows of no flaws puts it there, as version 0.1.0 did.
    host.sync(published("ca", A), published("bad", BAD), type=store_type)
    assert not opens(host)
    synced = host.sync(published("ca", A), published("bad", BAD, flaws=FLAWS), type=store_type)
    assert opens(host)
    assert host.files.fingerprints() == {"ca": A.fingerprint_sha256}
    assert [(each.state, each.reason) for each in synced.proofs] == [
        ("Failed", Reason.INVALID_CERTIFICATE),
        ("Uploaded", None),
    ]
    assert (synced.reason, synced.error) == (Reason.KEYSTORE_SYNCED, None)
    # From a backup of the store it does not come back.
    host.files.put(bad=BAD)
    host.restart()
    host.sync(published("ca", A), published("bad", BAD, flaws=FLAWS), type=store_type)
    assert host.files.fingerprints() == {"ca": A.fingerprint_sha256}


@pytest.mark.parametrize("store_type", ["JKS", "PKCS12"])
def test_what_others_put_there_is_left_and_nothing_counts_as_proven(host: Host, store_type: Any) -> None:
    host.files.put(store_type, theirs=BAD)
    synced = host.sync(published("ca", A), published("gone", A, revoked=True))
    assert host.files.fingerprints() == {"ca": A.fingerprint_sha256, "theirs": BAD.fingerprint_sha256}
    assert synced.reason is Reason.KEYSTORE_UNREADABLE
    assert "'theirs'" in synced.message
    assert "issuer" in synced.message
    assert "remove this entry on the host" in synced.message
    assert [(each.state, each.reason) for each in synced.proofs] == [
        ("Failed", Reason.KEYSTORE_UNREADABLE),
        ("Revoked", None),
    ]
    # What the message says helps.
    host.files.remove("theirs")
    assert opens(host)
    assert host.sync(published("ca", A)).reason is Reason.KEYSTORE_SYNCED


def test_what_was_only_adopted_is_left_over_a_restart(host: Host) -> None:
    host.files.put(bad=BAD)
    host.sync(published("bad", BAD))
    assert host.ledger[str(host.files.path)]["entries"]["bad"]["adopted"] is True
    host.restart()
    for certificates in ((published("bad", BAD, flaws=FLAWS),), ()):
        synced = host.sync(*certificates)
        assert host.files.fingerprints() == {"bad": BAD.fingerprint_sha256}
        assert synced.reason is Reason.KEYSTORE_UNREADABLE


def test_a_ledger_of_version_0_1_0_is_read_and_one_of_ours_is_read_by_it(host: Host) -> None:
    """It begins anew over a field that it does not know, and would forget what was taken back."""
    host.sync(published("ca", A))
    (store,) = host.ledger.values()
    assert store["entries"]["ca"].keys() == {"certificate", "fingerprints", "placed"}
