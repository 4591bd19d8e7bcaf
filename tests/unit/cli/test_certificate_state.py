"""What hosts have proved of a certificate, and what that makes of the whole."""

import io
from typing import Any

import pytest
import rich.console
from tests.unit.cli.support import condition
from tests.world import certificates

from directdownload.cli import certificate_state
from directdownload.cli.certificate_state import ProofState, State
from directdownload.cli.view import progress
from directdownload.resources import pem
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host

PEM = certificates.pem()
FINGERPRINT = pem.parse(PEM).fingerprint_sha256
UPLOADED = {"name": "ca", "state": "Uploaded", "fingerprintSHA256": FINGERPRINT}
REVOKED = {"name": "ca", "state": "Revoked"}
FAILED = {"name": "ca", "state": "Failed", "reason": "KeystoreMissing"}


def certificate(
    spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **metadata: Any
) -> DirectDownloadCertificate:
    return DirectDownloadCertificate.model_validate(
        {
            "metadata": {"name": "ca", "generation": 2, **metadata},
            "spec": {"zone": "z", "alias": "CA", "certificate": PEM, **(spec or {})},
            "status": {"observedGeneration": 2, "certificate": PEM, "fingerprintSHA256": FINGERPRINT, **(status or {})},
        }
    )


def host(name: str, *entries: dict[str, Any], state: str | None = "Up", zone: str = "z", **status: Any) -> Host:
    return Host.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"nodeName": name, "zone": zone},
            "status": {"state": state, "certificates": list(entries), **status},
        }
    )


OTHER = {**UPLOADED, "fingerprintSHA256": "AA:BB"}
ANOTHER = "it still has another certificate of this alias"
PENDING = {"name": "ca", "state": "Pending", "reason": "ZoneDisabled"}
STORE = condition("KeystoreSynced", "False", "KeystoreMissing", message="/x is not there")
WELL = condition("KeystoreSynced", "True", "KeystoreSynced", message="7 entries")
DOWN = condition("Ready", "False", "NodeNotReady")


@pytest.mark.parametrize(
    ("spec", "status", "of", "state", "details"),
    [
        ({}, {}, host("h", UPLOADED), State.UPLOADED, ""),
        ({}, {}, host("h", UPLOADED, state="Maintenance"), State.UPLOADED, ""),
        ({}, {}, host("h"), State.PENDING, ""),
        ({}, {}, host("h", {**UPLOADED, "name": "other"}), State.PENDING, ""),
        ({}, {}, host("h", OTHER), State.PENDING, ANOTHER),
        ({}, {}, host("h", REVOKED), State.PENDING, ""),
        ({}, {}, host("h", PENDING), State.PENDING, "ZoneDisabled"),
        ({}, {}, host("h", FAILED), State.FAILED, "KeystoreMissing"),
        ({}, {}, host("h", FAILED, conditions=[STORE]), State.FAILED, "KeystoreMissing: /x is not there"),
        ({}, {}, host("h", FAILED, conditions=[WELL]), State.FAILED, "KeystoreMissing"),
        ({}, {}, host("h", {**FAILED, "message": "a\nb"}, conditions=[STORE]), State.FAILED, "KeystoreMissing: a b"),
        ({}, {}, host("h", UPLOADED, state="Down", conditions=[DOWN]), State.SKIPPED, "Down (NodeNotReady)"),
        ({}, {}, host("h", UPLOADED, state=None), State.SKIPPED, "not Up yet (-)"),
        ({"revoked": True}, {}, host("h", REVOKED), State.REVOKED, ""),
        ({"revoked": True}, {}, host("h", UPLOADED), State.PENDING, ""),
        ({"revoked": True}, {}, host("h"), State.PENDING, ""),
        ({"revoked": True}, {"certificate": None}, host("h"), State.REVOKED, "no host ever got it"),
        ({"revokedHosts": ["h"]}, {}, host("h", REVOKED), State.REVOKED, ""),
        ({"revokedHosts": ["g"]}, {}, host("h", UPLOADED), State.UPLOADED, ""),
        ({"certificate": "damaged"}, {}, host("h", UPLOADED), State.PENDING, ANOTHER),
    ],
)
def test_what_one_host_has_proved(
    spec: dict[str, Any], status: dict[str, Any], of: Host, state: State, details: str
) -> None:
    (found,) = certificate_state.of_hosts(certificate(spec, status), [of, host("elsewhere", UPLOADED, zone="y")])
    assert (found.state, found.details) == (state, details)
    assert found.awaited is (of.status.state == "Up")


def test_a_certificate_that_is_being_deleted_is_revoked() -> None:
    (found,) = certificate_state.of_hosts(certificate(deletionTimestamp="2026-05-01T12:00:00Z"), [host("h", REVOKED)])
    assert found.state is State.REVOKED


def test_of_a_reference_the_published_fingerprint_counts() -> None:
    reference = {"certificate": None, "certificateRef": {"kind": "Secret", "name": "s", "key": "k"}}
    item = certificate(reference, {"fingerprintSHA256": "AA:BB"})
    assert [proof.state for proof in certificate_state.of_hosts(item, [host("h", OTHER)])] == [State.UPLOADED]
    unpublished = certificate(reference, {"certificate": None, "fingerprintSHA256": None})
    nothing = {**UPLOADED, "fingerprintSHA256": None}
    assert [proof.state for proof in certificate_state.of_hosts(unpublished, [host("h", nothing)])] == [State.PENDING]


STALLED = {"conditions": [condition("Stalled", "True", "InvalidCertificate", message="found two")]}
READY = {"conditions": [condition("Ready", "True", "Provisioned")]}
LATE = {"observedGeneration": 1}
PROVISIONING = {"conditions": [condition("Ready", "False", "Provisioning")]}
ALL_REVOKED = {"revoked": True}


@pytest.mark.parametrize(
    ("spec", "status", "hosts", "only", "end"),
    [
        ({}, {}, [host("a", UPLOADED), host("b", UPLOADED)], None, ProofState.PROVED),
        ({}, {}, [host("a", UPLOADED), host("b")], None, ProofState.RUNNING),
        ({}, {}, [host("a", UPLOADED), host("b")], "a", ProofState.PROVED),
        ({}, {}, [host("a", UPLOADED), host("b", state="Down")], None, ProofState.PROVED),
        ({}, {}, [host("a", UPLOADED), host("b", state="Maintenance")], None, ProofState.PROVED),
        ({}, {}, [host("a", UPLOADED), host("b", FAILED, state="Maintenance")], None, ProofState.PROVED),
        ({}, {}, [host("a", UPLOADED), host("b", FAILED)], None, ProofState.FAILED),
        ({}, {}, [host("a"), host("b", FAILED)], None, ProofState.RUNNING),
        ({}, {}, [], None, ProofState.NOBODY),
        ({}, {}, [host("a", state="Down"), host("b", UPLOADED, state="Maintenance")], None, ProofState.NOBODY),
        (ALL_REVOKED, {}, [host("a", state="Down")], None, ProofState.NOBODY),
        ({}, {}, [host("a", state="Down")], "a", ProofState.PROVED),
        ({}, LATE, [host("a", UPLOADED)], None, ProofState.RUNNING),
        ({}, LATE | STALLED, [host("a", UPLOADED)], None, ProofState.RUNNING),
        ({}, STALLED, [host("a")], None, ProofState.STALLED),
        ({}, STALLED, [], None, ProofState.STALLED),
        # what is invalid can be revoked all the same
        (ALL_REVOKED, STALLED, [host("a", REVOKED)], None, ProofState.PROVED),
        (ALL_REVOKED, STALLED, [host("a", UPLOADED)], None, ProofState.RUNNING),
        ({"revokedHosts": ["a"]}, STALLED, [host("a", REVOKED), host("b")], "a", ProofState.PROVED),
        # those who may not see hosts
        ({}, {}, None, None, ProofState.RUNNING),
        ({}, {"hosts": {"desired": 2, "uploaded": 1, "down": 1}}, None, None, ProofState.PROVED),
        ({}, {"hosts": {"desired": 2, "uploaded": 1, "pending": 1}}, None, None, ProofState.RUNNING),
        ({}, {"hosts": {"desired": 2, "uploaded": 1, "failed": 1}}, None, None, ProofState.FAILED),
        ({}, {"hosts": {"desired": 2, "uploaded": 1, "pending": 1}} | READY, None, None, ProofState.PROVED),
        ({}, {"hosts": {"desired": 2, "uploaded": 1, "failed": 1}} | READY, None, None, ProofState.PROVED),
        (ALL_REVOKED, {"hosts": {"revoked": 2}}, None, None, ProofState.PROVED),
        ({}, {"hosts": {"desired": 2, "down": 2}} | PROVISIONING, None, None, ProofState.NOBODY),
        ({}, {"hosts": {"desired": 2, "uploaded": 1, "pending": 1}} | PROVISIONING, None, None, ProofState.RUNNING),
        (ALL_REVOKED, STALLED, None, None, ProofState.STALLED),
    ],
)
def test_whether_it_is_over(
    spec: dict[str, Any], status: dict[str, Any], hosts: list[Host] | None, only: str | None, end: ProofState
) -> None:
    assert certificate_state.snapshot(certificate(spec, status), hosts, only).end is end


def test_a_host_of_another_zone_is_not_looked_at() -> None:
    state = certificate_state.snapshot(certificate(), [host("b", UPLOADED), host("a", UPLOADED), host("c", zone="y")])
    assert [proof.host for proof in state.hosts or ()] == ["a", "b"]
    assert (state.proved, state.total) == (2, 2)


def test_the_screen_is_a_table_without_bars() -> None:
    hosts = [host("kvm-1", UPLOADED), host("kvm-2", FAILED), host("kvm-3"), host("kvm-4", state="Down")]
    screen = certificate_state.screen(certificate_state.snapshot(certificate(), hosts))
    console = rich.console.Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(progress.bars(screen, 50))
    assert [line.split() for line in captured.get().splitlines()] == [
        ["kvm-1", "UPLOADED"],
        ["kvm-2", "FAILED", "KeystoreMissing"],
        ["kvm-3", "PENDING"],
        ["kvm-4", "SKIPPED", "Down", "(-)"],
        ["total", "1", "of", "4", "hosts", "proved", "it", "1", "failed,", "1", "skipped"],
    ]
