"""What a DirectDownloadCertificate publishes to the hosts of its zone, and what they have made of it.

Hosts use the status alone: what stands in `status.certificate` is what they trust. Nothing invalid takes it away, as
the servers behind it still serve; only another object that has the alias does. A deletion is held back until every
host that is not Down has proved that the certificate is gone.
"""

import base64
import dataclasses
import datetime
import heapq
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from directdownload.planning.conditions import Verdict, condition, conditions
from directdownload.planning.observed import MESSAGE_LIMIT, ObservedHost
from directdownload.resources import pem
from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.certificate import (
    PREVIOUS_SUFFIX,
    CertificateFailure,
    CertificateHosts,
    CertificateReference,
    DirectDownloadCertificate,
    DirectDownloadCertificateStatus,
    PreviousCertificate,
    of_cloudstack,
)
from directdownload.resources.host import HostCertificate
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Zone, ZoneCertificates

#: Entries of `status.failures`.
FAILURES_LIMIT = 10
_SAMPLE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """What an object wants to have published; or why there is none. Never holds what is no certificate."""

    certificate: Certificate | None
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What was read of a reference, and of which version of the object."""

    reference: CertificateReference
    resource_version: int
    source: Source


@dataclasses.dataclass(frozen=True, slots=True)
class CertificatePlan:
    status: DirectDownloadCertificateStatus
    needs_finalizer: bool
    look_again: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Publication:
    """What hosts shall trust from now on, why it is not what the object wants, and when that may change."""

    certificate: Certificate | None
    previous: PreviousCertificate | None = None
    problem: Verdict | None = None
    look_again: datetime.datetime | None = None


@dataclasses.dataclass(slots=True)
class _Count:
    """What the hosts of the zone say: of all of them how many, of those that are Up which."""

    hosts: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(CertificateHosts.model_fields, 0))
    #: of Up hosts: how many are done, which failed, how many are still at work on it
    done: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    pending: int = 0
    failures: list[CertificateFailure] = dataclasses.field(default_factory=list)


def inline(certificate: DirectDownloadCertificate) -> Source:
    """What `spec.certificate` says."""
    return _parsed("spec.certificate", certificate.spec.certificate or "")


def referred(certificate: DirectDownloadCertificate, document: Mapping[str, Any] | None, namespace: str) -> Source:
    """What `spec.certificateRef` says; `document` is that Secret or ConfigMap in `namespace`, None: there is none."""
    reference = certificate.spec.certificate_ref
    if reference is None:
        raise ValueError(f"DirectDownloadCertificate {certificate.name} refers to nothing")
    name = f"{reference.kind} {namespace}/{reference.name}"
    if document is None:
        return Source(None, f"spec.certificateRef: there is no {name}: create it, or correct the reference")
    data = document.get("data") or {}
    text = data.get(reference.key)
    if text is None:
        return Source(None, f"spec.certificateRef: {name} has no key {reference.key}: expected the certificate there")
    if reference.kind == "Secret":
        # Whatever is not text is none that the parser accepts.
        text = base64.b64decode(text).decode(errors="replace")
    return _parsed(f"{name}, key {reference.key}", text)


def _parsed(where: str, text: str) -> Source:
    try:
        return Source(pem.parse(text))
    except pem.CertificateError as error:
        return Source(None, f"{where}: {error}")


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
    publication = _publication(certificate, source, rivals, now)
    published = publication.certificate
    before, generation = certificate.status, certificate.metadata.generation
    count = _count(certificate, published, hosts)
    verdict = _verdict(certificate, publication, zone, hosts, count, now)
    expiring, turning = _expiring(certificate, published, zone, verdict, now)
    facts: dict[str, Any] = {}
    if published is not None:
        facts = {
            "certificate": published.pem,
            "subject": published.subject,
            "issuer": published.issuer,
            "serial_number": published.serial_number,
            "fingerprint_sha256": published.fingerprint_sha256,
            "not_before": published.not_before,
            "not_after": published.not_after,
            "previous": publication.previous,
            "revoked": certificate.spec.revoked,
            "hosts": CertificateHosts(**count.hosts),
            "failures": tuple(count.failures),
        }
    status = DirectDownloadCertificateStatus(
        **facts,
        observed_generation=generation,
        last_handled_request=certificate.metadata.requested_at or None,
        conditions=(*conditions(verdict, before.conditions, generation, now), expiring),
    )
    turns = [publication.look_again, turning, publication.previous.until if publication.previous else None]
    needs_finalizer = bool(_holding(certificate, published, hosts)) if certificate.deleting else published is not None
    return CertificatePlan(status, needs_finalizer, min((turn for turn in turns if turn is not None), default=None))


# What is published


def _publication(
    certificate: DirectDownloadCertificate,
    source: Source,
    rivals: Iterable[DirectDownloadCertificate],
    now: datetime.datetime,
) -> _Publication:
    refused = _alias_refused(certificate, rivals)
    if refused is not None:
        return _Publication(None, problem=refused)
    published = _published(certificate)
    previous = _previous(certificate, now)
    wanted = source.certificate
    if certificate.deleting or (wanted is not None and wanted == published):
        return _Publication(published, previous)
    problem, look_again = _refusal(certificate, source, now)
    if problem is not None:
        if certificate.status.revoked and not certificate.spec.revoked:
            # What was revoked comes back only where the object wants just that.
            return _Publication(None, None, problem, look_again)
        if published is not None:
            message = f"{problem.message}; hosts keep {_named(published)}"
            problem = dataclasses.replace(problem, message=message)
        return _Publication(published, previous, problem, look_again)
    if published is not None:
        previous = _succeeded(certificate, published, now)
    return _Publication(wanted, previous)


def _alias_refused(
    certificate: DirectDownloadCertificate, rivals: Iterable[DirectDownloadCertificate]
) -> Verdict | None:
    """Why the alias is not for this object."""
    alias = certificate.spec.keystore_alias
    if of_cloudstack(alias) or alias.endswith(PREVIOUS_SUFFIX):
        message = (
            f"spec.alias: {alias} is reserved, as are cloud, cloudca… and …{PREVIOUS_SUFFIX} in any case; "
            "make another object with another alias, for example my-ca"
        )
        return Verdict(False, Reason.RESERVED_ALIAS, message, stalled=True)
    first = min((certificate, *rivals), key=lambda each: each.seniority)
    if first is certificate:
        return None
    taken = (
        f"spec.alias: DirectDownloadCertificate {first.name}, which is older, has the alias {alias} in Zone "
        f"{certificate.spec.zone}"
    )
    if first.deleting:
        return Verdict(False, Reason.ALIAS_CONFLICT, f"{taken}; it is being deleted, which is waited for")
    advice = f"; delete one of the two, or make another object with another alias, for example {alias}-2"
    return Verdict(False, Reason.ALIAS_CONFLICT, taken + advice, stalled=True)


def _published(certificate: DirectDownloadCertificate) -> Certificate | None:
    """What the status publishes; one that somebody has spoilt counts for nothing, and is published anew."""
    try:
        return pem.parse(certificate.status.certificate or "")
    except pem.CertificateError:
        return None


def _previous(certificate: DirectDownloadCertificate, now: datetime.datetime) -> PreviousCertificate | None:
    """The one before, while it is trusted; a revocation ends that for good, and so does `keepPrevious` set to 0."""
    spec, previous = certificate.spec, certificate.status.previous
    trusted = previous is not None and previous.until > now and spec.keep_previous > 0 and not spec.revoked
    return previous if trusted else None


def _succeeded(
    certificate: DirectDownloadCertificate, published: Certificate, now: datetime.datetime
) -> PreviousCertificate | None:
    """`published`, as the one before from now on; None where it was revoked, also if it is not any more."""
    # Compared as numbers: what is written as 1000000h is more than a time can hold.
    left = min((published.not_after - now).total_seconds(), certificate.spec.keep_previous)
    if left <= 0 or certificate.spec.revoked or certificate.status.revoked:
        return None
    return PreviousCertificate(
        certificate=published.pem,
        fingerprint_sha256=published.fingerprint_sha256,
        until=now + datetime.timedelta(seconds=left),
    )


def _refusal(
    certificate: DirectDownloadCertificate, source: Source, now: datetime.datetime
) -> tuple[Verdict | None, datetime.datetime | None]:
    """Why what is wanted is not published now, and when it may be."""
    # What a Secret or ConfigMap holds changes without the object, and is followed.
    stalled = certificate.spec.certificate_ref is None
    wanted = source.certificate
    if wanted is None:
        return Verdict(False, Reason.INVALID_CERTIFICATE, source.problem, stalled=stalled), None
    if wanted.not_after <= now:
        message = f"{_named(wanted)} ended on {_time(wanted.not_after)}: expected one that is valid"
        return Verdict(False, Reason.EXPIRED, message, stalled=stalled), None
    if wanted.not_before > now:
        message = f"{_named(wanted)} begins on {_time(wanted.not_before)}, and is published then"
        return Verdict(False, Reason.NOT_YET_VALID, message), wanted.not_before
    return None, None


def _named(certificate: Certificate) -> str:
    return f"the certificate {certificate.fingerprint_sha256[:23]}…"


def _time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


# What hosts have made of it


def _down(host: ObservedHost) -> bool:
    """One that nothing is known of yet does nothing either."""
    return host.status.state in (None, "Down")


def _count(
    certificate: DirectDownloadCertificate, published: Certificate | None, hosts: Iterable[ObservedHost]
) -> _Count:
    spec, found = certificate.spec, _Count()
    nowhere, revoked_hosts = spec.revoked or certificate.deleting, frozenset(spec.revoked_hosts)
    fingerprint = published.fingerprint_sha256 if published is not None else None
    failed: list[tuple[str, ObservedHost, HostCertificate]] = []
    name = certificate.name
    # This runs for each of thousands of hosts, for hundreds of certificates. Hosts that say the same share the proof.
    states: dict[tuple[int, bool], str] = {}
    for host in hosts:
        proof, at = host.proofs.get(name), host.status.state
        wanted = not nowhere and (not revoked_hosts or host.name not in revoked_hosts)
        found.hosts["desired"] += wanted
        if at is None or at == "Down":
            # One that nothing is known of yet does nothing either.
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
    """What a host counts as, by the name of its counter."""
    if proof is None:
        return "pending"
    if proof.state == "Failed":
        return "failed"
    if not wanted:
        return "revoked" if proof.state == "Revoked" else "pending"
    return "uploaded" if (proof.state, proof.fingerprint_sha256) == ("Uploaded", fingerprint) else "pending"


def _failure(host: ObservedHost, proof: HostCertificate) -> CertificateFailure:
    """What the host says of this certificate, else of its keystore as a whole."""
    synced = host.status.condition("KeystoreSynced")
    of_keystore = synced.message if synced is not None and synced.status != ConditionStatus.TRUE else ""
    message = proof.message or of_keystore or "see the conditions of the Host"
    reason = proof.reason or Reason.PROVISIONING_FAILED
    return CertificateFailure(host=host.name, reason=reason, message=message[:MESSAGE_LIMIT])


def _holding(
    certificate: DirectDownloadCertificate, published: Certificate | None, hosts: Iterable[ObservedHost]
) -> list[str]:
    """Hosts that hold the deletion back: they have not proved that the certificate is gone.

    A host that says nothing of it holds only what was published, and only if its agent has ever told of a keystore:
    one that never did (it keeps none, or is too old to) would hold it for ever.
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
    publication: _Publication,
    zone: Zone | None,
    hosts: Collection[ObservedHost],
    count: _Count,
    now: datetime.datetime,
) -> Verdict:
    spec, published, problem = certificate.spec, publication.certificate, publication.problem
    if certificate.deleting:
        holding = _holding(certificate, published, hosts)
        reason = Reason.PROVISIONING_FAILED if count.failures else Reason.PROVISIONING
        return Verdict(False, reason, f"to be deleted: waits for {_sample(holding)} to prove that it is gone")
    if problem is not None and (published is None or not spec.revoked):
        return problem
    if published is not None and published.not_after <= now and not spec.revoked:
        stalled = spec.certificate_ref is None
        message = f"{_named(published)} ended on {_time(published.not_after)}; hosts keep it until it is replaced"
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


def _expiring(
    certificate: DirectDownloadCertificate,
    published: Certificate | None,
    zone: Zone | None,
    verdict: Verdict,
    now: datetime.datetime,
) -> tuple[Condition, datetime.datetime | None]:
    """The condition Expiring, and when it changes. What is revoked may end unnoticed."""
    status, reason, message, turning = ConditionStatus.FALSE, verdict.reason, "", None
    if published is not None and not certificate.spec.revoked:
        settings = zone.spec.certificates if zone is not None else ZoneCertificates()
        left = (published.not_after - now).total_seconds()
        if left <= 0:
            status, reason = ConditionStatus.TRUE, Reason.EXPIRED
        elif left <= settings.expiry_warning:
            status, reason, turning = ConditionStatus.TRUE, Reason.EXPIRING_SOON, published.not_after
        else:
            turning = published.not_after - datetime.timedelta(seconds=settings.expiry_warning)
        message = f"valid until {_time(published.not_after)}"
    old, generation = certificate.status.conditions, certificate.metadata.generation
    return condition("Expiring", status, reason, message, old, generation, now), turning
