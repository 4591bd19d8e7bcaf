"""What the Host's status says of its keystore, and when it says something else."""

import datetime
from typing import Any

import pytest

from directdownload.agent.keystore import report
from directdownload.agent.keystore.sync import Synced
from directdownload.planning.keystores import Drift, Proof
from directdownload.resources import crd
from directdownload.resources.host import DriftKind, Host, KeystoreStatus
from directdownload.resources.reasons import Reason

NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=datetime.UTC)
SHOWN = "2026-01-01T12:00:00Z"
LATER = NOW + datetime.timedelta(minutes=30)
MUCH_LATER = NOW + datetime.timedelta(hours=2)
STORE = KeystoreStatus(type="JKS", entries=7, managed=2, sha256="00")
FAILED = Proof("cb", "Failed", reason=Reason.ALIAS_CONFLICT, message="taken")


def synced(*proofs: Proof, reason: Reason = Reason.KEYSTORE_SYNCED, **fields: Any) -> Synced:
    values: dict[str, Any] = {"message": "", "store": STORE, **fields}
    return Synced(proofs, reason, **values)


GOOD = synced(Proof("ca", "Uploaded", fingerprint="AA:BB"), FAILED, Proof("cc", "Revoked"))
BAD = synced(Proof("ca", "Failed", reason=Reason.KEYSTORE_UNREADABLE), reason=Reason.KEYSTORE_UNREADABLE, store=None)


def test_the_status_is_compact_and_complete() -> None:
    assert report.made(GOOD, 3, report.NOTHING, NOW).status == {
        "keystore": {"type": "JKS", "entries": 7, "managed": 2, "sha256": "00", "lastVerifiedTime": SHOWN},
        "certificates": [
            {"name": "ca", "fingerprintSHA256": "AA:BB", "state": "Uploaded"},
            {
                "name": "cb",
                "state": "Failed",
                "reason": "AliasConflict",
                "message": "taken",
                "lastTransitionTime": SHOWN,
            },
            {"name": "cc", "state": "Revoked", "lastTransitionTime": SHOWN},
        ],
        "conditions": [
            {
                "type": "KeystoreSynced",
                "status": "True",
                "reason": "KeystoreSynced",
                "message": "",
                "lastTransitionTime": SHOWN,
                "observedGeneration": 3,
            }
        ],
    }


def test_texts_from_the_host_are_shown_escaped_and_bounded() -> None:
    failed = Proof("ca", "Failed", reason=Reason.KEYSTORE_UNREADABLE, message="/etc/\udcff\x1b[2J")
    found = synced(failed, message="x" * 5000, drift=(Drift(DriftKind.ENTRY_REPLACED, "a\udcff\n"),))
    status = report.made(found, 3, report.NOTHING, NOW).status
    assert status["certificates"][0]["message"] == "/etc/\\xff\\x1b[2J"
    assert len(status["conditions"][0]["message"]) == 4096
    assert status["keystore"]["lastDrift"]["alias"] == "a\\xff\\n"


@pytest.mark.parametrize("restarted", [False, True])
def test_the_same_again_is_told_hourly(restarted: bool) -> None:
    first = report.made(GOOD, 3, report.NOTHING, NOW)
    if restarted:
        first = report.told(first.status)
    assert report.made(GOOD, 3, first, LATER) is first
    hourly = report.made(GOOD, 3, first, MUCH_LATER)
    assert hourly.status["keystore"]["lastVerifiedTime"] == "2026-01-01T14:00:00Z"
    assert hourly.status["certificates"] == first.status["certificates"]
    assert hourly.status["conditions"] == first.status["conditions"]


def test_a_change_is_told_at_once_and_times_change_with_what_they_belong_to() -> None:
    first = report.made(GOOD, 3, report.NOTHING, NOW)
    foreign = report.made(synced(*GOOD.proofs, store=STORE.model_copy(update={"entries": 8})), 3, first, LATER)
    assert foreign.status["keystore"]["lastVerifiedTime"] == "2026-01-01T12:30:00Z"
    assert foreign.status["certificates"] == first.status["certificates"]
    other = report.made(synced(Proof("cb", "Failed", reason=Reason.ALIAS_CONFLICT, message="m")), 3, first, LATER)
    assert other.status["certificates"][0]["lastTransitionTime"] == SHOWN, "another message is no transition"
    revoked = report.made(synced(Proof("cb", "Revoked")), 3, first, LATER)
    assert revoked.status["certificates"][0]["lastTransitionTime"] == "2026-01-01T12:30:00Z"
    assert report.made(GOOD, 4, first, LATER).status["conditions"][0]["observedGeneration"] == 4


def test_a_failure_keeps_what_was_read_before_and_its_time_is_when_it_began() -> None:
    first = report.made(GOOD, 3, report.NOTHING, NOW)
    failed = report.made(BAD, 3, first, LATER)
    assert failed.keystore == first.keystore
    (condition,) = failed.status["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "KeystoreUnreadable")
    assert condition["lastTransitionTime"] == "2026-01-01T12:30:00Z"
    assert report.made(BAD, 3, failed, MUCH_LATER) == failed, "still the same: nothing to write"
    assert "keystore" not in report.made(BAD, 3, report.NOTHING, NOW).status


def test_the_last_drift_stays() -> None:
    first = report.made(GOOD, 3, report.NOTHING, NOW)
    drifted = report.made(
        synced(*GOOD.proofs, drift=(Drift(DriftKind.ENTRY_MISSING, "ca"), Drift(DriftKind.ENTRY_MISSING, "cb"))),
        3,
        first,
        LATER,
    )
    told = {"kind": "EntryMissing", "alias": "ca", "time": "2026-01-01T12:30:00Z"}
    assert drifted.status["keystore"]["lastDrift"] == told
    assert report.made(GOOD, 3, drifted, MUCH_LATER).status["keystore"]["lastDrift"] == told
    gone = report.made(synced(*GOOD.proofs, drift=(Drift(DriftKind.STORE_MISSING),)), 3, drifted, MUCH_LATER)
    assert gone.status["keystore"]["lastDrift"] == {"kind": "StoreMissing", "time": "2026-01-01T14:00:00Z"}


def test_as_many_certificates_are_proven_as_a_host_may_have() -> None:
    """300 is what the product is made for; the definition of Host lets just as many through as the agent tells."""
    status = crd.definition(Host)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    limit = status["properties"]["certificates"]["maxItems"]
    for count, told in ((300, 300), (limit, limit), (limit + 7, limit)):
        proofs = [Proof(f"c-{number:05}", "Uploaded", fingerprint="AA:BB") for number in range(count)]
        found = report.made(synced(*proofs, message="all"), 3, report.NOTHING, NOW)
        assert [each["name"] for each in found.status["certificates"]] == [each.name for each in proofs[:told]]
        assert report.told(found.status) == found
        extra = f" ({count} certificates; only the first {limit} by name are proven here)" if told < count else ""
        assert found.status["conditions"][0]["message"] == f"all{extra}"


def test_a_status_that_is_not_understood_is_as_none() -> None:
    assert report.told({}) == report.NOTHING
    assert report.told({"certificates": [{"state": "Failed"}]}) == report.NOTHING
