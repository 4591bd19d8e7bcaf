"""The changes of a certificate's spec by `certificate upload|revoke|provision`. Pure except for reading the file.

Each command has a `Decide`. `aliases.write` calls it with the object in the cluster, and again after each concurrent
change.
"""

import datetime
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from directdownload.cli import units
from directdownload.cli.exit_status import Failure
from directdownload.resources import pem
from directdownload.resources.certificate import PREVIOUS_SUFFIX, DirectDownloadCertificate

#: Returns the fields of the spec to set; empty: nothing to change. Raises Failure.
Decide = Callable[[DirectDownloadCertificate], Mapping[str, Any]]
_DAY = "%Y-%m-%d %H:%M UTC"


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
