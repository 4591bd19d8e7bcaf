"""A certificate: read its reference, publish it, sum up the hosts' proofs, hold its deletion."""

import logging
import math
import time

from directdownload.cluster import errors, kinds
from directdownload.controller.context import Context, dump
from directdownload.controller.queue import Key
from directdownload.planning import certificates as planning
from directdownload.planning import publications, requests
from directdownload.resources.base import Condition, ConditionStatus
from directdownload.resources.certificate import DirectDownloadCertificate, DirectDownloadCertificateStatus
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: Its status goes to every agent: while only counts change it is written at most this often, and less often by this
#: much for each host of the zone.
WRITE_SECONDS, WRITE_SECONDS_PER_HOST = 2.0, 0.01
#: Counts that a fleet's proofs change one by one.
_SUMS = frozenset({"hosts", "failures", "conditions"})
_NORMAL = frozenset({Reason.PROVISIONED, Reason.REVOKED, Reason.NOT_YET_VALID, Reason.ZONE_DISABLED})


async def reconcile(context: Context, name: str) -> None:
    world = context.world
    certificate = world.certificates.get(name)
    if certificate is None:
        return
    world.gathering.discard(certificate.spec.zone)
    source = await _source(context, certificate)
    zone, hosts = world.zones.get(certificate.spec.zone), world.hosts_of_zone[certificate.spec.zone]
    now = context.now()
    plan = planning.plan_certificate(certificate, source, zone, world.rivals(certificate), hosts, now)
    if certificate.deleting and not plan.needs_finalizer:
        logger.info("DirectDownloadCertificate %s: released", name)
        await context.set_finalizer(kinds.CERTIFICATES, certificate, present=False)
        return
    if plan.needs_finalizer and not certificate.deleting:
        # Before it is published: the controller must not forget it without the hosts that have taken it.
        await context.set_finalizer(kinds.CERTIFICATES, certificate, present=True)
    await _write(context, certificate, plan.status)
    for when in (plan.look_again, requests.later(requests.due_of(certificate, now), now)):
        context.look_again(Key("certificate", name), when)


async def _source(context: Context, certificate: DirectDownloadCertificate) -> publications.Source:
    """The certificate that it wants to publish. Each version of a Secret or ConfigMap is read once."""
    reference, world, namespace = certificate.spec.certificate_ref, context.world, context.settings.namespace
    if reference is None:
        return publications.inline(certificate)
    kind, revisions = {
        "Secret": (kinds.SECRETS, world.secret_revisions),
        "ConfigMap": (kinds.CONFIG_MAPS, world.config_map_revisions),
    }[reference.kind]
    present, last = revisions.get(f"{namespace}/{reference.name}"), world.sources.get(certificate.uid)
    if present is None:
        return publications.referred(certificate, None, namespace)
    if last is not None and (last.reference, last.resource_version) == (reference, present.resource_version):
        return last.source
    try:
        document = await context.api.get(kind, reference.name, namespace=namespace)
    except errors.NotFound:
        return publications.referred(certificate, None, namespace)
    source = publications.referred(certificate, document, namespace)
    world.sources[certificate.uid] = publications.Found(reference, int(document["metadata"]["resourceVersion"]), source)
    return source


async def _write(
    context: Context, certificate: DirectDownloadCertificate, status: DirectDownloadCertificateStatus
) -> None:
    """Writes `status`; mere counts wait until the pace allows it, but the last proof of all does not."""
    before, written = certificate.status, context.world.summaries
    hosts = context.world.hosts_of_zone.count(certificate.spec.zone)
    pace = max(WRITE_SECONDS, WRITE_SECONDS_PER_HOST * hosts)
    left = written.get(certificate.uid, -math.inf) + pace - time.monotonic()
    if left > 0 and not _urgent(before, status):
        context.queue.add_later(Key("certificate", certificate.key), left)
    elif await context.write_status(kinds.CERTIFICATES, certificate, status):
        written[certificate.uid] = time.monotonic()
        _tell(context, certificate, status)


def _urgent(before: DirectDownloadCertificateStatus, status: DirectDownloadCertificateStatus) -> bool:
    old, new = dump(before), dump(status)
    if any(old.get(field) != new.get(field) for field in (old.keys() | new.keys()) - _SUMS):
        return True
    return _true(status.condition("Ready")) and not _true(before.condition("Ready"))


def _true(condition: Condition | None) -> bool:
    return condition is not None and condition.status == ConditionStatus.TRUE


def _tell(context: Context, certificate: DirectDownloadCertificate, status: DirectDownloadCertificateStatus) -> None:
    """Log and events of a transition; hosts that are at work on it are no news."""
    for name in ("Ready", "Expiring"):
        new, old = status.condition(name), certificate.status.condition(name)
        if new is None or (old is not None and old.reason == new.reason) or new.reason is Reason.PROVISIONING:
            continue
        if name == "Ready" or new.reason is Reason.EXPIRING_SOON:
            normal = new.reason in _NORMAL
            context.tell(kinds.CERTIFICATES, certificate, "Normal" if normal else "Warning", new.reason, new.message)
