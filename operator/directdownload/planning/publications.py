"""The certificate that a DirectDownloadCertificate publishes to the hosts of its zone.

Called by `certificates`, and by the controller for `Source`. Hosts use the status alone. A published certificate is
withdrawn only if another object has the alias or Java could not read it; a rule that is newer than it is no reason.
"""

import base64
import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from directdownload.planning.conditions import Verdict
from directdownload.resources import pem
from directdownload.resources.certificate import (
    PREVIOUS_SUFFIX,
    CertificateReference,
    DirectDownloadCertificate,
    PreviousCertificate,
    of_cloudstack,
)
from directdownload.resources.pem import Certificate
from directdownload.resources.reasons import Reason

#: The fields of the status that describe the published certificate.
_FACTS = ("subject", "issuer", "serial_number", "not_before", "not_after")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """The certificate that an object wants to publish; else the problem, and the bytes that were not accepted."""

    certificate: Certificate | None
    problem: str = ""
    refused: Certificate | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The last look at a reference: the source that was read, and the version of the object that it was read from."""

    reference: CertificateReference
    resource_version: int
    source: Source


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """The certificate that hosts trust. If an earlier version published what today's parser cannot read, only its bytes
    are known."""

    certificate: Certificate
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, certificate: Certificate) -> "Published":
        try:
            return cls(certificate, {name: getattr(certificate, name) for name in _FACTS})
        except pem.CertificateError:
            return cls(certificate, {})

    @property
    def not_after(self) -> datetime.datetime | None:
        end: datetime.datetime | None = self.facts.get("not_after")
        return end

    def ended(self, now: datetime.datetime) -> bool:
        return self.not_after is not None and self.not_after <= now


@dataclasses.dataclass(frozen=True, slots=True)
class Publication:
    """The certificate that hosts are to trust now, why it differs from the wanted one, and when that may change."""

    certificate: Published | None
    previous: PreviousCertificate | None = None
    problem: Verdict | None = None
    look_again: datetime.datetime | None = None


def inline(certificate: DirectDownloadCertificate) -> Source:
    """The source in `spec.certificate`."""
    return _read("spec.certificate", (certificate.spec.certificate or "").encode())


def referred(certificate: DirectDownloadCertificate, document: Mapping[str, Any] | None, namespace: str) -> Source:
    """The source that `spec.certificateRef` names: `document` is that object in `namespace`, None if there is none."""
    reference = certificate.spec.certificate_ref
    if reference is None:
        raise ValueError(f"DirectDownloadCertificate {certificate.name} refers to nothing")
    name = f"{reference.kind} {namespace}/{reference.name}"
    if document is None:
        return Source(None, f"spec.certificateRef: there is no {name}: create it, or correct the reference")
    text = (document.get("data") or {}).get(reference.key)
    binary = (document.get("binaryData") or {}).get(reference.key) if reference.kind == "ConfigMap" else text
    if text is None and binary is None:
        return Source(None, f"spec.certificateRef: {name} has no key {reference.key}: expected the certificate there")
    content = base64.b64decode(binary) if binary is not None else str(text).encode()
    return _read(f"{name}, key {reference.key}", content)


def _read(where: str, content: bytes) -> Source:
    """The source in `content`. One that is not accepted keeps its bytes, as it may be the published one."""
    try:
        return Source(pem.read(content))
    except pem.CertificateError as error:
        return Source(None, f"{where}: {error}", pem.bare(content))


def publish(
    certificate: DirectDownloadCertificate,
    source: Source,
    rivals: Iterable[DirectDownloadCertificate],
    now: datetime.datetime,
) -> Publication:
    refused = _alias_refused(certificate, rivals)
    if refused is not None:
        return Publication(None, problem=refused)
    published, previous = _published(certificate), _previous(certificate, now)
    if published is not None and published.unreadable is not None:
        # An earlier version published it by mistake. Hosts keep the certificate before it.
        published, previous = (pem.decode(previous.certificate) if previous is not None else None), None
    wanted = source.certificate or source.refused
    if certificate.deleting or (wanted is not None and wanted == published):
        return _published_as(published, previous)
    problem, look_again = _refusal(certificate, source, now)
    if problem is not None:
        if certificate.status.revoked and not certificate.spec.revoked:
            # A revoked certificate comes back only if the object wants exactly that one.
            return Publication(None, None, problem, look_again)
        if published is not None:
            message = f"{problem.message}; hosts keep {named(published)}"
            problem = dataclasses.replace(problem, message=message)
        return _published_as(published, previous, problem, look_again)
    if published is not None:
        previous = _succeeded(certificate, Published.of(published), now)
    return _published_as(wanted, previous)


def _published_as(
    certificate: Certificate | None,
    previous: PreviousCertificate | None,
    problem: Verdict | None = None,
    look_again: datetime.datetime | None = None,
) -> Publication:
    published = Published.of(certificate) if certificate is not None else None
    return Publication(published, previous, problem, look_again)


def _alias_refused(
    certificate: DirectDownloadCertificate, rivals: Iterable[DirectDownloadCertificate]
) -> Verdict | None:
    """Why this object may not have the alias; None: it may."""
    alias = certificate.spec.keystore_alias
    if of_cloudstack(alias) or alias.endswith(PREVIOUS_SUFFIX):
        message = (
            f"spec.alias: {alias} is reserved, as are cloud, cloudca… and …{PREVIOUS_SUFFIX} in any case; "
            "create another object with another alias, for example my-ca"
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
        return Verdict(False, Reason.ALIAS_CONFLICT, f"{taken}; its deletion has to end first")
    advice = f"; delete one of the two, or create another object with another alias, for example {alias}-2"
    return Verdict(False, Reason.ALIAS_CONFLICT, taken + advice, stalled=True)


def _published(certificate: DirectDownloadCertificate) -> Certificate | None:
    """The certificate in the status; None if it is no certificate: then the wanted one is published anew."""
    try:
        return pem.decode(certificate.status.certificate or "")
    except pem.CertificateError:
        return None


def _previous(certificate: DirectDownloadCertificate, now: datetime.datetime) -> PreviousCertificate | None:
    """The certificate before, while it is trusted. A revocation ends that for good, as does `keepPrevious` of 0."""
    spec, previous = certificate.spec, certificate.status.previous
    if previous is None or previous.until <= now or spec.keep_previous <= 0 or spec.revoked:
        return None
    try:
        return previous if pem.decode(previous.certificate).unreadable is None else None
    except pem.CertificateError:
        return None


def _succeeded(
    certificate: DirectDownloadCertificate, published: Published, now: datetime.datetime
) -> PreviousCertificate | None:
    """`published` as the previous certificate from now on; None if it was revoked, even if it no longer is."""
    # Compared as numbers: a time cannot hold 1000000h.
    left = certificate.spec.keep_previous
    if published.not_after is not None:
        left = min((published.not_after - now).total_seconds(), left)
    if left <= 0 or certificate.spec.revoked or certificate.status.revoked:
        return None
    return PreviousCertificate(
        certificate=published.certificate.pem,
        fingerprint_sha256=published.certificate.fingerprint_sha256,
        until=now + datetime.timedelta(seconds=left),
    )


def _refusal(
    certificate: DirectDownloadCertificate, source: Source, now: datetime.datetime
) -> tuple[Verdict | None, datetime.datetime | None]:
    """Why the wanted certificate is not published now, and when it may be."""
    # A Secret or ConfigMap can change without the object, and is followed.
    stalled = certificate.spec.certificate_ref is None
    wanted = source.certificate
    if wanted is None:
        return Verdict(False, Reason.INVALID_CERTIFICATE, source.problem, stalled=stalled), None
    if wanted.not_after <= now:
        message = f"{named(wanted)} expired on {written(wanted.not_after)}: expected one that is valid"
        return Verdict(False, Reason.EXPIRED, message, stalled=stalled), None
    if wanted.not_before > now:
        message = f"{named(wanted)} is valid from {written(wanted.not_before)}, and is published then"
        return Verdict(False, Reason.NOT_YET_VALID, message), wanted.not_before
    return None, None


def named(certificate: Certificate) -> str:
    return f"the certificate {certificate.fingerprint_sha256[:23]}…"


def written(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
