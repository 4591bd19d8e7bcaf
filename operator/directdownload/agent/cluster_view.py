"""Views of the objects that the agent watches: its Host, the storage pools, its zone and the zone's certificates.

Projections for `cluster.reflector`. They never fail on an object that the API server has accepted, nor on one that a
newer version of the product wrote.
"""

import contextlib
import dataclasses
import datetime
import logging
from collections.abc import Mapping
from typing import Any

import pydantic

from directdownload.cluster import objects
from directdownload.observe import logs
from directdownload.planning.keystores import Previous, Published
from directdownload.resources import pem, quantities
from directdownload.resources.base import LabelSelector
from directdownload.resources.host import KeystoreSpec

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class HostView:
    key: str
    uid: str
    resource_version: int
    generation: int
    zone: str
    labels: Mapping[str, str]
    #: None: not understood
    keystore: KeystoreSpec | None
    status: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class ZoneView:
    key: str
    uid: str
    resource_version: int
    enabled: bool
    sync_interval_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateView:
    key: str
    uid: str
    resource_version: int
    #: None: nothing is published yet
    published: Published | None


@dataclasses.dataclass(frozen=True, slots=True)
class PoolView:
    key: str
    uid: str
    resource_version: int
    zone: str
    path: str
    shared: bool
    #: None: not understood, so no host matches
    host_selector: LabelSelector | None


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A pool that this host should have."""

    pool: str
    path: str
    shared: bool


def project_host(document: Mapping[str, Any]) -> HostView:
    metadata, spec = document["metadata"], document["spec"]
    keystore: KeystoreSpec | None
    try:
        keystore = KeystoreSpec.model_validate(spec.get("keystore") or {})
    except pydantic.ValidationError as error:
        logger.warning("Host %s: spec.keystore is not understood: %s", metadata["name"], error)
        keystore = None
    return HostView(
        key=objects.key_of(metadata),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        generation=metadata["generation"],
        zone=spec["zone"],
        labels=objects.shared(metadata.get("labels")),
        keystore=keystore,
        status=document.get("status") or {},
    )


def project_zone(document: Mapping[str, Any]) -> ZoneView:
    metadata, spec = document["metadata"], document["spec"]
    return ZoneView(
        key=objects.key_of(metadata),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        enabled=spec.get("enabled", True),
        sync_interval_seconds=_sync_interval_seconds(metadata["name"], spec.get("certificates") or {}),
    )


def project_certificate(document: Mapping[str, Any]) -> CertificateView:
    metadata = document["metadata"]
    return CertificateView(
        key=objects.key_of(metadata),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        published=_published(document),
    )


def project_pool(document: Mapping[str, Any]) -> PoolView:
    metadata, spec = document["metadata"], document["spec"]
    selector: LabelSelector | None
    try:
        selector = LabelSelector.model_validate(spec.get("hostSelector") or {})
    except pydantic.ValidationError as error:
        about = logs.about("StoragePool", metadata["name"])
        logger.warning("StoragePool %s: spec.hostSelector is not understood: %s", metadata["name"], error, extra=about)
        selector = None
    return PoolView(
        key=objects.key_of(metadata),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        zone=spec["zone"],
        path=spec["path"],
        shared=spec.get("type", "Filesystem") != "Filesystem",
        host_selector=selector,
    )


def target_of(pool: PoolView, host: HostView) -> Target | None:
    """The pool as this host should have it; None if it does not belong to this host."""
    if pool.zone != host.zone or pool.host_selector is None or not pool.host_selector.matches(host.labels):
        return None
    return Target(pool=pool.key, path=pool.path, shared=pool.shared)


def _sync_interval_seconds(zone: str, certificates: Mapping[str, Any]) -> float:
    """The interval; the default if it cannot be read, so that the host still checks its keystore."""
    try:
        return quantities.parse_duration(str(certificates.get("syncInterval", "10m")))
    except ValueError as error:
        text = "Zone %s: spec.certificates.syncInterval is not understood, using 10m: %s"
        logger.warning(text, zone, error, extra=logs.about("Zone", zone))
        return 600.0


def _published(document: Mapping[str, Any]) -> Published | None:
    """The certificate in the status, where the controller puts what it has checked; never that of the spec.

    An older controller also publishes certificates that Java cannot read; `planning.keystores` reports those.
    """
    metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
    if not status.get("certificate"):
        return None
    certificate, previous = _certificate(status["certificate"]), _previous(status.get("previous") or {})
    return Published(
        name=metadata["name"],
        created=datetime.datetime.fromisoformat(metadata["creationTimestamp"]),
        zone=spec["zone"],
        alias=spec["alias"].lower(),
        certificate=certificate,
        previous=previous,
        revoked=bool(spec.get("revoked")) or "deletionTimestamp" in metadata,
        revoked_hosts=frozenset(spec.get("revokedHosts") or ()),
        settled=status.get("observedGeneration") == metadata.get("generation"),
        flaws=_flaws(certificate, *((previous.certificate,) if previous is not None else ())),
    )


def _flaws(*certificates: pem.Certificate) -> Mapping[str, str]:
    found = ((each.fingerprint_sha256, each.unreadable) for each in certificates)
    return {fingerprint: flaw for fingerprint, flaw in found if flaw is not None}


def _previous(document: Mapping[str, Any]) -> Previous | None:
    if not document.get("certificate"):
        return None
    certificate = _certificate(document["certificate"])
    try:
        until = datetime.datetime.fromisoformat(document["until"])
        with contextlib.suppress(pem.CertificateError):
            until = min(until, certificate.not_after)
        return Previous(certificate, until)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("Ignored a previous certificate, because its `until` is not understood: %s", error)
        return None


def _certificate(text: str) -> pem.Certificate:
    """The certificate in PEM text; an unreadable one for other text."""
    try:
        return pem.decode(text)
    except pem.CertificateError:
        return pem.Certificate(text.encode(errors="replace"))
