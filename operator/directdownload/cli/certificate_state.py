"""Each host's proof of a certificate, and whether the proofs are complete. Pure: no I/O, no clock.

`certificate` and `watch.certificates` look at a certificate through `snapshot`. The states are those of CloudStack's
class DirectDownloadManager, and PENDING: CloudStack answers after it has tried, these commands may answer before.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from directdownload.cli import objects, rollout
from directdownload.cli.view import units
from directdownload.cli.view.screen import Line, Mood, Screen
from directdownload.planning.observed import ObservedHost
from directdownload.resources import pem
from directdownload.resources.base import ConditionStatus
from directdownload.resources.certificate import CertificateFailure, DirectDownloadCertificate
from directdownload.resources.host import Host, HostCertificate
from directdownload.resources.reasons import Reason


class State(enum.StrEnum):
    UPLOADED = "UPLOADED"
    REVOKED = "REVOKED"
    FAILED = "FAILED"
    #: the host is Down: its agent catches up when it returns, and no command waits for it
    SKIPPED = "SKIPPED"
    PENDING = "PENDING"


PROVED = frozenset({State.UPLOADED, State.REVOKED})


class ProofState(enum.Enum):
    RUNNING = enum.auto()
    #: every Up host has proved the request
    PROVED = enum.auto()
    #: every Up host has proved it or failed; agents try again
    FAILED = enum.auto()
    #: no progress until somebody changes something
    STALLED = enum.auto()
    #: no host of the zone is Up, so nothing is proved
    NOBODY = enum.auto()


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of one host. `details` say why it is not complete."""

    host: str
    state: State
    details: str
    #: the host is Up; hosts in Maintenance take certificates as well, but no command waits for them
    awaited: bool


@dataclass(frozen=True, slots=True)
class Proofs:
    """A certificate at one moment. `hosts` is None if the user may not see hosts; then only counts are known."""

    certificate: DirectDownloadCertificate
    hosts: tuple[Proof, ...] | None
    end: ProofState
    #: reason of the certificate's deciding condition
    reason: str
    message: str
    proved: int
    failed: int
    pending: int
    skipped: int
    failures: tuple[CertificateFailure, ...]

    @property
    def total(self) -> int:
        return self.proved + self.failed + self.pending + self.skipped


def snapshot(
    certificate: DirectDownloadCertificate, hosts: Iterable[Host] | None, only_host: str | None = None
) -> Proofs:
    """`hosts` may include hosts of other zones. With `only_host`, only that host counts."""
    status = certificate.status
    said, reason, message = rollout.judged(certificate.metadata, status)
    if hosts is None:
        counts, proofs = status.hosts, None
        proved, failed = (counts.uploaded + counts.revoked, counts.failed) if counts else (0, 0)
        pending, skipped = (counts.pending, counts.down) if counts else (0, 0)
        # Ready does not wait for hosts in Maintenance, but the counts include them.
        ready = said is rollout.End.READY
        waiting, failing = counts is None or (pending > 0 and not ready), failed > 0 and not ready
        # With no pending host, Provisioning means that no host is Up.
        nobody = reason == Reason.PROVISIONING
    else:
        proofs = tuple(proof for proof in of_hosts(certificate, hosts) if only_host in (None, proof.host))
        states = [proof.state for proof in proofs]
        proved = sum(state in PROVED for state in states)
        failed, pending, skipped = (states.count(s) for s in (State.FAILED, State.PENDING, State.SKIPPED))
        awaited = {proof.state for proof in proofs if proof.awaited}
        waiting, failing = State.PENDING in awaited, State.FAILED in awaited
        nobody = only_host is None and not awaited
    revoking = certificate.spec.revoked or only_host in certificate.spec.revoked_hosts
    if (status.observed_generation or 0) < certificate.metadata.generation:
        end = ProofState.RUNNING
    elif said is rollout.End.STALLED and not (revoking and proofs is not None):
        # Hosts can revoke an invalid certificate, and prove that; counts alone do not show it.
        end = ProofState.STALLED
    elif waiting:
        end = ProofState.RUNNING
    elif failing:
        end = ProofState.FAILED
    else:
        end = ProofState.NOBODY if nobody else ProofState.PROVED
    return Proofs(
        certificate=certificate,
        hosts=proofs,
        end=end,
        reason=reason,
        message=message,
        proved=proved,
        failed=failed,
        pending=pending,
        skipped=skipped,
        failures=status.failures,
    )


def of_hosts(certificate: DirectDownloadCertificate, hosts: Iterable[Host]) -> tuple[Proof, ...]:
    """The proofs of the current certificate by hosts of its zone, sorted by host. They may be as the CRD has them, or
    `ObservedHost`s."""
    expected = fingerprint(certificate)
    members = sorted((host for host in hosts if host.spec.zone == certificate.spec.zone), key=lambda host: host.name)
    proofs = []
    for host in members:
        state, details = _state(certificate, expected, host)
        proofs.append(Proof(host.name, state, " ".join(details.split()), awaited=host.status.state == "Up"))
    return tuple(proofs)


def fingerprint(certificate: DirectDownloadCertificate) -> str | None:
    """SHA-256 fingerprint of the wanted certificate: the spec's, which may be newer than the published one.

    None: not known, or the spec holds no certificate that can be read."""
    if certificate.spec.certificate is None:
        return certificate.status.fingerprint_sha256
    try:
        return pem.decode(certificate.spec.certificate).fingerprint_sha256
    except pem.CertificateError:
        return None


def screen(state: Proofs) -> Screen:
    """One line per host, and the total."""
    moods = {
        State.UPLOADED: Mood.DONE,
        State.REVOKED: Mood.DONE,
        State.FAILED: Mood.FAILED,
        State.SKIPPED: Mood.WAITING,
        State.PENDING: Mood.ACTIVE,
    }
    mood = {
        ProofState.RUNNING: Mood.ACTIVE,
        ProofState.PROVED: Mood.DONE,
        ProofState.FAILED: Mood.FAILED,
        ProofState.STALLED: Mood.FAILED,
        ProofState.NOBODY: Mood.FAILED,
    }[state.end]
    lines = tuple(
        Line((proof.host,), proof.state.value, moods[proof.state], downloaded_bytes=None, note=proof.details)
        for proof in state.hosts or ()
    )
    notes = [f"{number} {word}" for number, word in ((state.failed, "failed"), (state.skipped, "skipped")) if number]
    total = Line(
        ("total",),
        f"{state.proved} of {units.count(state.total, 'host')} proved it",
        mood,
        downloaded_bytes=None,
        note=", ".join(notes),
    )
    return Screen(lines, total)


def _state(certificate: DirectDownloadCertificate, expected: str | None, host: Host) -> tuple[State, str]:
    if host.status.state not in ("Up", "Maintenance"):
        return State.SKIPPED, f"{host.status.state or 'not Up yet'} ({objects.ready_word(host.status)})"
    unwanted = certificate.spec.revoked or host.name in certificate.spec.revoked_hosts or certificate.deleting
    entry = _entry(certificate.name, host)
    if entry is None:
        if unwanted and certificate.status.certificate is None:
            return State.REVOKED, "no host ever got it"
        return State.PENDING, ""
    why = ": ".join(filter(None, (entry.reason and entry.reason.value, entry.message)))
    if entry.state == "Failed":
        return State.FAILED, why if entry.message else why + _of_keystore(host)
    if unwanted:
        return (State.REVOKED, "") if entry.state == "Revoked" else (State.PENDING, why)
    if entry.state != "Uploaded":
        return State.PENDING, why
    if expected is None or entry.fingerprint_sha256 != expected:
        return State.PENDING, "it still has another certificate of this alias"
    return State.UPLOADED, ""


def _entry(certificate: str, host: Host) -> HostCertificate | None:
    if isinstance(host, ObservedHost):
        return host.proofs.get(certificate)
    return next((entry for entry in host.status.certificates if entry.name == certificate), None)


def _of_keystore(host: Host) -> str:
    """The problem of the whole keystore, which only the host's condition holds."""
    condition = host.status.condition("KeystoreSynced")
    if condition is None or condition.status is ConditionStatus.TRUE or not condition.message:
        return ""
    return f": {condition.message}"
