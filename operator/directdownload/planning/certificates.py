"""The content that a DirectDownloadCertificate publishes to the hosts of its zone, and their proofs.

Hosts use the status alone: they trust the certificate in `status.certificate`. An invalid spec does not withdraw it, as
the servers behind it still serve; only another object that has the alias does. A deletion is held back until every
host that is not Down has proved that the certificate is gone.
"""

import dataclasses
import datetime
import heapq
from collections.abc import Collection, Iterable
from typing import Any

from directdownload.planning import requests
from directdownload.planning.conditions import Verdict, condition, conditions
from directdownload.planning.observed import MESSAGE_LIMIT, ObservedHost
from directdownload.planning.publications import Publication, Published, Source, named, publish, written
from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.certificate import (
    CertificateFailure,
    CertificateHosts,
    DirectDownloadCertificate,
    DirectDownloadCertificateStatus,
)
from directdownload.resources.host import HostCertificate
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Zone, ZoneCertificates

#: Entries of `status.failures`.
FAILURES_LIMIT = 10
_SAMPLE = 3
#: Set only while it is False.
ACCEPTED = "Accepted"


@dataclasses.dataclass(frozen=True, slots=True)
class CertificatePlan:
    status: DirectDownloadCertificateStatus
    needs_finalizer: bool
    look_again: datetime.datetime | None = None


@dataclasses.dataclass(slots=True)
class _Count:
    """The reports of the zone's hosts: counts over all of them, and details of those that are Up."""

    hosts: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(CertificateHosts.model_fields, 0))
    #: of Up hosts: how many are done, which failed, how many are still working on it
    done: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    pending: int = 0
    failures: list[CertificateFailure] = dataclasses.field(default_factory=list)


def plan_certificate(
    certificate: DirectDownloadCertificate,
    source: Source,
    zone: Zone | None,
    rivals: Iterable[DirectDownloadCertificate],
    hosts: Iterable[ObservedHost],
    now: datetime.datetime,
) -> CertificatePlan:
    """`rivals` are the other objects of the zone with its alias, `hosts` those of the zone."""
    hosts = tuple(hosts)
    publication = publish(certificate, source, rivals, now)
    published = publication.certificate
    before, generation = certificate.status, certificate.metadata.generation
    count = _count(certificate, published.certificate if published is not None else None, hosts)
    verdict = _verdict(certificate, publication, zone, hosts, count, now)
    expiring, turning = _expiring(certificate, published, zone, now)
    facts: dict[str, Any] = {}
    if published is not None:
        facts = {
            **published.facts,
            "certificate": published.certificate.pem,
            "fingerprint_sha256": published.certificate.fingerprint_sha256,
            "previous": publication.previous,
            "revoked": certificate.spec.revoked,
            "hosts": CertificateHosts(**count.hosts),
            "failures": tuple(count.failures),
        }
    status = DirectDownloadCertificateStatus(
        **facts,
        observed_generation=generation,
        **requests.served(certificate, now).fields(),
        conditions=(
            *conditions(verdict, before.conditions, generation, now),
            expiring,
            *_not_accepted(certificate, published, now),
        ),
    )
    turns = [publication.look_again, turning, publication.previous.until if publication.previous else None]
    needs_finalizer = bool(_holding(certificate, published, hosts)) if certificate.deleting else published is not None
    return CertificatePlan(status, needs_finalizer, min((turn for turn in turns if turn is not None), default=None))


# The hosts' proofs


def _down(host: ObservedHost) -> bool:
    """Whether it does nothing: it is Down, or has reported no state yet."""
    return host.status.state in (None, "Down")


def _count(
    certificate: DirectDownloadCertificate, published: Certificate | None, hosts: Iterable[ObservedHost]
) -> _Count:
    spec, found = certificate.spec, _Count()
    nowhere, revoked_hosts = spec.revoked or certificate.deleting, frozenset(spec.revoked_hosts)
    fingerprint = published.fingerprint_sha256 if published is not None else None
    failed: list[tuple[str, ObservedHost, HostCertificate]] = []
    name = certificate.name
    # This runs for each of thousands of hosts, for hundreds of certificates. Hosts with equal reports share the proof.
    states: dict[tuple[int, bool], str] = {}
    for host in hosts:
        proof, at = host.proofs.get(name), host.status.state
        wanted = not nowhere and (not revoked_hosts or host.name not in revoked_hosts)
        found.hosts["desired"] += wanted
        if at is None or at == "Down":
            # A host without a state yet does nothing either.
            found.hosts["down"] += 1
            continue
        state = states.get((id(proof), wanted))
        if state is None:
            state = states[id(proof), wanted] = _state(proof, fingerprint, wanted=wanted)
        found.hosts[state] += 1
        if proof is not None and state == "failed":
            failed.append((host.name, host, proof))
        if at == "Up":
            if state == "failed":
                found.failed.append(host.name)
            elif state == "pending":
                found.pending += 1
            else:
                found.done += 1
    first = heapq.nsmallest(FAILURES_LIMIT, failed, key=lambda each: each[0])
    found.failures = [_failure(host, proof) for _, host, proof in first]
    return found


def _state(proof: HostCertificate | None, fingerprint: str | None, *, wanted: bool) -> str:
    """The counter that a host counts in, by its name."""
    if proof is None:
        return "pending"
    if proof.state == "Failed":
        return "failed"
    if not wanted:
        return "revoked" if proof.state == "Revoked" else "pending"
    return "uploaded" if (proof.state, proof.fingerprint_sha256) == ("Uploaded", fingerprint) else "pending"


def _failure(host: ObservedHost, proof: HostCertificate) -> CertificateFailure:
    """The host's report on this certificate, else on its keystore as a whole."""
    synced = host.status.condition("KeystoreSynced")
    of_keystore = synced.message if synced is not None and synced.status != ConditionStatus.TRUE else ""
    message = proof.message or of_keystore or "see the conditions of the Host"
    reason = proof.reason or Reason.PROVISIONING_FAILED
    return CertificateFailure(host=host.name, reason=reason, message=message[:MESSAGE_LIMIT])


def _holding(
    certificate: DirectDownloadCertificate, published: Published | None, hosts: Iterable[ObservedHost]
) -> list[str]:
    """Hosts that hold the deletion back: they have not proved that the certificate is gone.

    A host that reports nothing of it holds the deletion only if the certificate was published and its agent has ever
    reported a keystore: one that never did (it keeps none, or is too old) would hold it for ever.
    """
    holding = []
    for host in hosts:
        proof = host.proofs.get(certificate.name)
        tells = host.status.keystore is not None or host.status.condition("KeystoreSynced") is not None
        silent = proof is None and tells and published is not None
        if not _down(host) and (silent or (proof is not None and proof.state != "Revoked")):
            holding.append(host.name)
    return holding


# Conditions


def _verdict(
    certificate: DirectDownloadCertificate,
    publication: Publication,
    zone: Zone | None,
    hosts: Collection[ObservedHost],
    count: _Count,
    now: datetime.datetime,
) -> Verdict:
    spec, published, problem = certificate.spec, publication.certificate, publication.problem
    if certificate.deleting:
        holding = _holding(certificate, published, hosts)
        reason = Reason.PROVISIONING_FAILED if count.failures else Reason.PROVISIONING
        return Verdict(False, reason, f"the deletion waits for {_sample(holding)} to prove the removal")
    if problem is not None and (published is None or not spec.revoked):
        return problem
    if published is not None and published.not_after is not None and published.ended(now) and not spec.revoked:
        stalled = spec.certificate_ref is None
        end = written(published.not_after)
        message = f"{named(published.certificate)} expired on {end}; hosts keep it until you replace it"
        return Verdict(False, Reason.EXPIRED, message, stalled=stalled)
    if zone is None:
        return Verdict(False, Reason.ZONE_NOT_FOUND, f"spec.zone: there is no Zone {spec.zone}; create it")
    return _progress(certificate, zone, count)


def _progress(certificate: DirectDownloadCertificate, zone: Zone, count: _Count) -> Verdict:
    """How far the Up hosts are; those in Maintenance follow, and are not waited for."""
    failed, total = count.failed, count.done + len(count.failed) + count.pending
    if not total:
        return Verdict(False, Reason.PROVISIONING, f"no host of Zone {zone.name} is Up")
    what = "removal" if certificate.spec.revoked else "certificate"
    progress = f"{count.done} of {total} Up hosts have proved the {what}"
    if failed:
        return Verdict(False, Reason.PROVISIONING_FAILED, f"{progress}; failed on {_sample(failed)}")
    if count.pending and not zone.spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, f"{progress}; Zone {zone.name} is disabled")
    if count.pending:
        return Verdict(False, Reason.PROVISIONING, progress)
    return Verdict(True, Reason.REVOKED if certificate.spec.revoked else Reason.PROVISIONED, progress)


def _sample(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_SAMPLE])
    return shown if len(names) <= _SAMPLE else f"{len(names)} hosts, for example {shown}"


def _not_accepted(
    certificate: DirectDownloadCertificate, published: Published | None, now: datetime.datetime
) -> tuple[Condition, ...]:
    """The condition Accepted, if the published certificate would not be accepted as a new one."""
    refusal = published.certificate.refusal if published is not None else None
    if refusal is None:
        return ()
    message = f"{refusal}; an earlier version published it, and hosts keep it: replace it with one that is accepted"
    old, generation = certificate.status.conditions, certificate.metadata.generation
    return (condition(ACCEPTED, ConditionStatus.FALSE, Reason.INVALID_CERTIFICATE, message, old, generation, now),)


def _expiring(
    certificate: DirectDownloadCertificate,
    published: Published | None,
    zone: Zone | None,
    now: datetime.datetime,
) -> tuple[Condition, datetime.datetime | None]:
    """The condition Expiring, and when it changes. A revoked certificate may expire without one."""
    status, reason, turning = ConditionStatus.FALSE, Reason.NOT_EXPIRING, None
    if certificate.spec.revoked:
        message = "it is revoked, so its expiry does not matter"
    elif published is None:
        message = "no certificate is published"
    elif published.not_after is None:
        message = "the expiry of the published certificate is not known"
    else:
        settings = zone.spec.certificates if zone is not None else ZoneCertificates()
        left = (published.not_after - now).total_seconds()
        if left <= 0:
            status, reason = ConditionStatus.TRUE, Reason.EXPIRED
        elif left <= settings.expiry_warning:
            status, reason, turning = ConditionStatus.TRUE, Reason.EXPIRING_SOON, published.not_after
        else:
            turning = published.not_after - datetime.timedelta(seconds=settings.expiry_warning)
        message = f"valid until {written(published.not_after)}"
    old, generation = certificate.status.conditions, certificate.metadata.generation
    return condition("Expiring", status, reason, message, old, generation, now), turning
