"""Changes of certificates by `certificate upload|revoke|provision`, found by zone and keystore alias.

Each command has a `Decide`, which is pure. `write` calls it with the object in the cluster, whatever its name, and
again after each concurrent change: a change applies to the version that was read, or is decided anew.
"""

import asyncio
import datetime
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from directdownload.backoff import spread
from directdownload.cli import objects, refusals
from directdownload.cli.exit_status import TRANSIENT, Failure
from directdownload.cli.session import Session
from directdownload.cli.view import units
from directdownload.cluster import errors, kinds
from directdownload.resources import pem
from directdownload.resources.certificate import PREVIOUS_SUFFIX, DirectDownloadCertificate

#: Returns the fields of the spec to set; empty: nothing to change. Raises Failure.
Decide = Callable[[DirectDownloadCertificate], Mapping[str, Any]]
_DAY = "%Y-%m-%d %H:%M UTC"
#: The controller writes status into the same object, in bursts while hosts prove a change.
_ATTEMPTS = 30
_LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Written:
    """A write's result; `before` is None if the object was created."""

    before: DirectDownloadCertificate | None
    after: DirectDownloadCertificate


async def write(
    session: Session, zone: str, alias: str, decide: Decide, new: Mapping[str, Any] | None = None
) -> Written:
    """Sets the fields of the spec that `decide` returns, or creates the certificate with the spec `new`.

    Raises Failure if there is no certificate and `new` is None, or if several objects claim the alias.
    """
    for _ in range(_ATTEMPTS):
        current = await _find(session, zone, alias)
        try:
            if current is not None:
                return Written(current, await _change(session, current, decide(current)))
            if new is None:
                raise await _missing(session, zone, alias)
            return Written(None, await _create(session, zone, alias, new))
        except errors.Conflict:
            await asyncio.sleep(spread(_LONGEST_PAUSE_SECONDS, 0, 1))
    raise Failure(f"certificate {alias!r} of zone {zone} keeps changing; try again in a moment", TRANSIENT)


def object_names(alias: str, zone: str) -> tuple[str, str]:
    """Names for a new certificate's object: the alias as a name (RFC 1123), then the same with the zone appended."""
    plain = re.sub(r"-*\.[-.]*", ".", re.sub(r"[^-.a-z0-9]", "-", alias.lower())).strip("-.")
    return plain or "certificate", f"{plain or 'certificate'}-{zone}"


async def _find(session: Session, zone: str, alias: str) -> DirectDownloadCertificate | None:
    found = [item for item in await _of_zone(session, zone) if item.spec.keystore_alias == alias.lower()]
    if len(found) > 1:
        names = ", ".join(item.name for item in found)
        raise Failure(
            f"several certificates of zone {zone} have the alias {alias.lower()!r}: {names}. Delete all but one of "
            "them: kubectl delete ddcert NAME"
        )
    for item in found:
        if item.deleting:
            raise Failure(
                f"certificate {item.name!r} is being deleted, which removes it from every host of zone {zone}; "
                "try again when it is gone",
                TRANSIENT,
            )
    return found[0] if found else None


async def _of_zone(session: Session, zone: str) -> list[DirectDownloadCertificate]:
    documents, _ = await session.api.list(kinds.CERTIFICATES, field_selector=objects.zone_selector(zone))
    return objects.readable(DirectDownloadCertificate.model_validate, documents)


async def _missing(session: Session, zone: str, alias: str) -> Failure:
    await objects.expect_zone(session, zone)
    known = sorted(item.spec.keystore_alias for item in await _of_zone(session, zone))
    alike = refusals.suggestion(alias.lower(), known)
    return Failure(
        f"zone {zone} has no certificate {alias.lower()!r}{alike}; its certificates: {', '.join(known) or 'none yet'}\n"
        "A certificate belongs to a whole zone; --host only restores it on a host. Upload it to the zone: "
        f"directdownload certificate upload --name {alias} --zone {zone} --file FILE"
    )


async def _change(
    session: Session, current: DirectDownloadCertificate, fields: Mapping[str, Any]
) -> DirectDownloadCertificate:
    if not fields:
        return current
    # With the version, the API server refuses the patch (409) if the object has changed since.
    metadata = {"resourceVersion": current.metadata.resource_version, "uid": current.uid}
    patch = {"metadata": metadata, "spec": dict(fields)}
    changed = await session.api.merge_patch(kinds.CERTIFICATES, current.name, patch)
    return DirectDownloadCertificate.model_validate(changed)


async def _create(session: Session, zone: str, alias: str, spec: Mapping[str, Any]) -> DirectDownloadCertificate:
    """Raises `errors.Conflict` if somebody has just created a certificate of this zone and alias."""
    names = object_names(alias, zone)
    for name in names:
        body = {
            "apiVersion": kinds.CERTIFICATES.api_version,
            "kind": kinds.CERTIFICATES.kind,
            "metadata": {"name": name},
            "spec": dict(spec),
        }
        try:
            return DirectDownloadCertificate.model_validate(await session.api.create(kinds.CERTIFICATES, body))
        except errors.AlreadyExists:
            if await _find(session, zone, alias) is not None:
                raise
    raise Failure(
        f"the names {names[0]!r} and {names[1]!r} belong to other certificates. Choose another alias with --name, or "
        "create the object with a name of its own: kubectl create -f FILE"
    )


def read(path: pathlib.Path, now: datetime.datetime) -> pem.Certificate:
    """The certificate in the file `path`. Raises Failure for any other content, and if it is not valid now, as
    CloudStack does (checkValidity)."""
    try:
        with path.open("rb") as file:
            data = file.read(pem.TEXT_LIMIT + 1)
    except OSError as error:
        raise Failure(f"{path}: cannot be read: {error.strerror}") from None
    try:
        found = pem.read(data)
    except pem.CertificateError as error:
        raise Failure(f"{path}: {error}") from None
    if found.not_after < now:
        raise Failure(f"{path}: the certificate expired at {found.not_after.strftime(_DAY)}; get a new one")
    if found.not_before > now:
        raise Failure(f"{path}: the certificate is not valid before {found.not_before.strftime(_DAY)}; upload it then")
    return found


def upload(certificate: pem.Certificate, host: str | None) -> Decide:
    """Gives `certificate` to the whole zone, and ends its revocation; with `host`, only restores it there."""

    def decide(current: DirectDownloadCertificate) -> Mapping[str, Any]:
        spec = current.spec
        if spec.certificate_ref is not None:
            reference = spec.certificate_ref
            raise Failure(
                f"certificate {current.name!r} takes its bytes from the {reference.kind} {reference.name} (key "
                f"{reference.key}), not from a file: change them there. To bring it back where it was revoked, use "
                f"`directdownload certificate provision` or `kubectl edit ddcert {current.name}`"
            )
        same = _is(current, certificate)
        if host is None:
            return {
                **({} if same else {"certificate": certificate.pem}),
                **({"revoked": False} if spec.revoked else {}),
                **({"revokedHosts": []} if spec.revoked_hosts else {}),
            }
        if not same:
            raise Failure(
                f"certificate {spec.keystore_alias!r} of zone {spec.zone} differs from the file, and all hosts of a "
                f"zone have the same certificate: upload it without --host to change it on every host"
            )
        return _without(current, host)

    return decide


def provision(host: str) -> Decide:
    """Restores the certificate on `host`."""
    return lambda current: _without(current, host)


def revoke(host: str | None) -> Decide:
    """Revokes the certificate on every host, or on `host` only."""

    def decide(current: DirectDownloadCertificate) -> Mapping[str, Any]:
        if host is None:
            return {} if current.spec.revoked else {"revoked": True}
        hosts = current.spec.revoked_hosts
        return {} if host in hosts else {"revokedHosts": [*hosts, host]}

    return decide


def uploaded_text(before: DirectDownloadCertificate | None, after: DirectDownloadCertificate) -> str:
    """The result of an upload to the whole zone, as text. `before`: None if there was no certificate."""
    spec = after.spec
    what, everywhere = f"Certificate {spec.keystore_alias}", f"every host of {spec.zone}"
    if before is None:
        return f"{what} created (object {after.name}): it goes to {everywhere}."
    if before.spec.certificate != spec.certificate:
        text = f"{what} changed: {everywhere} takes the new one."
        if before.spec.revoked or before.status.revoked:
            text += " The previous certificate was revoked, and is not kept."
        elif spec.keep_previous and before.status.certificate not in (None, spec.certificate):
            text += (
                f" The previous certificate stays trusted as {spec.keystore_alias}{PREVIOUS_SUFFIX} for "
                f"{units.span(spec.keep_previous)}"
                f"{', but not where it was revoked' if before.spec.revoked_hosts else ''}."
            )
        return text
    if before.spec.revoked:
        return f"{what} is no longer revoked: it goes to {everywhere}."
    if before.spec.revoked_hosts:
        return f"{what} goes back to {', '.join(before.spec.revoked_hosts)}; the other hosts of {spec.zone} keep it."
    return f"{what} of {spec.zone} already has these bytes: nothing to change."


def host_text(before: DirectDownloadCertificate, host: str) -> str:
    """The result of `upload --host` and `provision`, as text."""
    what = f"Certificate {before.spec.keystore_alias}"
    if host in before.spec.revoked_hosts:
        return f"{what} goes back to {host}."
    return f"{what} was not revoked on {host}: nothing to change, its agent keeps it there."


def revoked_text(before: DirectDownloadCertificate, host: str | None) -> str:
    what, zone = f"Certificate {before.spec.keystore_alias}", before.spec.zone
    if host is None:
        if before.spec.revoked:
            return f"{what} of {zone} was already revoked."
        return f"{what} is revoked: every host of {zone} removes it."
    if host in before.spec.revoked_hosts:
        return f"{what} was already revoked on {host}."
    return f"{what} is revoked on {host}: the host removes it."


def _is(current: DirectDownloadCertificate, certificate: pem.Certificate) -> bool:
    """Whether the spec holds the same certificate, in any notation."""
    try:
        return pem.decode(current.spec.certificate or "") == certificate
    except pem.CertificateError:
        return False


def _without(current: DirectDownloadCertificate, host: str) -> Mapping[str, Any]:
    spec = current.spec
    if spec.revoked:
        raise Failure(
            f"certificate {spec.keystore_alias!r} is revoked in all of zone {spec.zone}: {host} alone cannot have it. "
            f"Upload it to the zone again: directdownload certificate upload --name {spec.keystore_alias} "
            f"--zone {spec.zone} --file FILE"
        )
    hosts = [name for name in spec.revoked_hosts if name != host]
    return {"revokedHosts": hosts} if len(hosts) < len(spec.revoked_hosts) else {}
