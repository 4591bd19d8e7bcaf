"""Finds and changes certificates by zone and keystore alias, whatever the names of their objects.

Used by `certificate`. A change never overwrites a concurrent change: it applies to the version that was read, or is
decided anew.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from directdownload.backoff import spread
from directdownload.cli import inventory, reading, refusals
from directdownload.cli.exit_status import TRANSIENT, Failure
from directdownload.cli.session import Session
from directdownload.cli.trust import Decide
from directdownload.cluster import errors, kinds
from directdownload.resources.certificate import DirectDownloadCertificate

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
    documents, _ = await session.api.list(kinds.CERTIFICATES, field_selector=inventory.zone_selector(zone))
    return reading.readable(DirectDownloadCertificate.model_validate, documents)


async def _missing(session: Session, zone: str, alias: str) -> Failure:
    await inventory.expect_zone(session, zone)
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
