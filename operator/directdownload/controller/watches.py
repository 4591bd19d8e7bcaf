"""The triggers: every change of an object, and the reconciles that it asks for.

This is the only place that decides why something is looked at again. Changes that no decision depends on (heartbeats,
our own status writes) ask for nothing; changes that come in crowds (progress, counts) ask for one look a little later.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set

from directdownload.cluster.objects import JobView, NodeView, PodView
from directdownload.cluster.reflector import Unreadable
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.world import (
    COMPONENT_LABEL,
    GROUPS_ANNOTATION,
    HOST_ANNOTATION,
    PLACEMENT_LABEL,
    PROBE_LABEL,
    World,
    alias_of,
)
from directdownload.planning import quotas, rights, slots
from directdownload.planning.observed import Namespace, ObservedHost, PlacementView, Revision
from directdownload.resources import naming
from directdownload.resources.base import Resource
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host, KeystoreDrift
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment, TemplateDeploymentSpec
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import Zone

#: A status that sums up others is looked at again within this time.
COUNT_SECONDS = 1.0
#: While its counts and sums of bytes still change, it is written at most this often.
SUMMARY_SECONDS = 5.0
#: Hosts' proofs of a certificate are collected for this long, and longer by this much for each host of the zone: one
#: look takes the time of all of them.
PROOF_SECONDS, PROOF_SECONDS_PER_HOST = 0.1, 0.002
#: The same for the sums of a pool over its hosts, and of a Template over its copies.
SUM_SECONDS_PER_OBJECT = 0.001


class Watches:
    """Subscribes to every store of `world` and feeds `queue` and the slots."""

    def __init__(self, world: World, queue: WorkQueue) -> None:
        self._world = world
        self._queue = queue
        world.nodes.subscribe(self._node)
        world.pods.subscribe(self._pod)
        world.jobs.subscribe(self._job)
        world.namespaces.subscribe(self._namespace)
        world.zones.subscribe(self._zone)
        world.hosts.subscribe(self._host)
        world.pools.subscribe(self._pool)
        world.templates.subscribe(self._template)
        world.deployments.subscribe(self._deployment)
        world.placements.subscribe(self._placement)
        world.certificates.subscribe(self._certificate)
        world.secret_revisions.subscribe(self._secret)
        world.config_map_revisions.subscribe(self._config_map)
        world.deployments.unreadable.subscribe(self._unread_deployment)
        world.placements.unreadable.subscribe(self._unread_placement)

    def _node(self, key: str, old: NodeView | None, new: NodeView | None) -> None:
        if old and new and dataclasses.replace(old, resource_version=new.resource_version) == new:
            return
        self._queue.add(Key("host", key))
        for zone in self._world.zones:
            self._queue.add_later(Key("zone", zone.name), COUNT_SECONDS)

    def _pod(self, key: str, old: PodView | None, new: PodView | None) -> None:
        pod = new or old
        if pod is None:
            return
        if pod.labels.get(COMPONENT_LABEL) == "agent" and pod.node:
            self._queue.add(Key("host", pod.node))
        self._owner_of_job(pod.labels)

    def _job(self, key: str, old: JobView | None, new: JobView | None) -> None:
        job = new or old
        if job is None:
            return
        self._owner_of_job(job.labels)
        if new is None or new.succeeded or new.failed or new.deleting:
            self._release(job)
        else:
            self._occupy(new)

    def _owner_of_job(self, labels: Mapping[str, str]) -> None:
        for kind, label in (("placement", PLACEMENT_LABEL), ("probe", PROBE_LABEL)):
            if name := labels.get(label):
                self._queue.add(Key(kind, name))

    def _release(self, job: JobView) -> None:
        if self._world.slots.release(job.name):
            call_next(self._world, self._queue)
            call_next_probe(self._world, self._queue)

    def _occupy(self, job: JobView) -> None:
        """A job holds its slots while its host lives: one on a Down host frees them at once."""
        placement = self._world.placements.get(job.labels.get(PLACEMENT_LABEL, ""))
        name = placement.host if placement is not None else job.annotations.get(HOST_ANNOTATION, "")
        host = self._world.hosts.get(name)
        if host is not None and host.status.state == "Down":
            self._release(job)
        else:
            self._world.slots.occupy(job.name, job.annotations.get(GROUPS_ANNOTATION, "").split())

    def _occupy_again(self, placement: PlacementView) -> None:
        for job in self._world.jobs_of_placement[placement.key]:
            if not (job.succeeded or job.failed or job.deleting):
                self._occupy(job)

    def _namespace(self, key: str, old: Namespace | None, new: Namespace | None) -> None:
        if old is not None and new is not None and old.labels == new.labels:
            return
        for deployment in self._world.deployments:
            if deployment.metadata.namespace == key:
                self._queue.add(Key("template", deployment.template_key))
        self._probes_without_host()

    def _zone(self, key: str, old: Zone | None, new: Zone | None) -> None:
        if not decided_anew(old, new):
            return
        for node in self._world.nodes:
            self._queue.add(Key("host", node.name))
        for zone in self._world.zones:
            self._queue.add(Key("zone", zone.name))
        for pool in self._world.pools:
            if pool.spec.zone == key:
                self._queue.add(Key("pool", pool.name))
        self._templates_of_zone(key)
        self._probes_without_host()
        for template in self._world.templates:
            # Its policy decides how a probe ends; the list of zones decides whether one may start.
            self._queue.add_later(probe_of(template), COUNT_SECONDS)
            if key in template.spec.zones:
                self._queue.add(Key("template", template.key))
        self._placements(self._world.placements_of_zone[key])
        for certificate in self._world.certificates_of_zone[key]:
            self._queue.add(Key("certificate", certificate.key))

    def _host(self, key: str, old: ObservedHost | None, new: ObservedHost | None) -> None:
        zones = {host.spec.zone for host in (old, new) if host is not None}
        if decided_anew(old, new) or (new is not None and old is not None and _drift(old) != _drift(new)):
            self._queue.add(Key("host", key))
        self._proofs(zones, old, new)
        if old is None or new is None or len(zones) > 1:
            self._named_elsewhere(zones, lambda spec: bool(spec.hosts) and spec.names(key))
        usable_before, usable_now = (usability(h) if h is not None else None for h in (old, new))
        if usable_before != usable_now:
            for name in zones:
                self._queue.add_later(Key("zone", name), COUNT_SECONDS)
                self._templates_of_zone(name, COUNT_SECONDS)
            for placement in self._world.placements_of_host[key]:
                self._queue.add(Key("placement", placement.key))
                self._occupy_again(placement)
            for job in self._world.probe_jobs_of_host[key]:
                self._owner_of_job(job.labels)
            self._probes_without_host()
        elif old is not None and new is not None and old.status.keystore != new.status.keystore:
            refused = (p for p in self._world.placements_of_host[key] if p.reason is Reason.TLS_VERIFICATION_FAILED)
            self._placements(refused)
        if old is not None and new is not None and old.status.architecture != new.status.architecture:
            self._templates_of_zone(new.spec.zone, COUNT_SECONDS)
        for pool in self._world.pools:
            if pool.spec.zone in zones:
                pause = COUNT_SECONDS + SUM_SECONDS_PER_OBJECT * self._world.hosts_of_zone.count(pool.spec.zone)
                self._queue.add_later(Key("pool", pool.name), pause)
                if pool.spec.shared and usable_before != usable_now:
                    # This host may take over copies that another one has, or had.
                    self._placements(self._world.placements_of_pool[pool.name])

    def _proofs(self, zones: Set[str], old: ObservedHost | None, new: ObservedHost | None) -> None:
        """Certificates that a host reports differently than before, or for which it counts differently."""
        everything = old is None or new is None or _telling(old) != _telling(new)
        for zone in zones:
            pause = PROOF_SECONDS + PROOF_SECONDS_PER_HOST * self._world.hosts_of_zone.count(zone)
            if everything and zone in self._world.gathering:
                # Thousands of hosts that come or go at once ask for the same hundreds of looks.
                continue
            if everything:
                self._world.gathering.add(zone)
                names: Iterable[str] = (certificate.name for certificate in self._world.certificates_of_zone[zone])
            elif old is not None and new is not None and old.proofs is not new.proofs:
                either = {**old.proofs, **new.proofs}
                names = (name for name in either if old.proofs.get(name) != new.proofs.get(name))
            else:
                names = ()
            for name in names:
                # Agents write these names: only existing certificates count.
                if name in self._world.certificates:
                    self._queue.add_later(Key("certificate", name), pause)

    def _certificate(
        self, key: str, old: DirectDownloadCertificate | None, new: DirectDownloadCertificate | None
    ) -> None:
        if not decided_anew(old, new):
            return
        for certificate in filter(None, (old, new)):
            self._queue.add(Key("certificate", certificate.key))
            for other in self._world.certificates_of_alias[alias_of(certificate)]:
                self._queue.add(Key("certificate", other.key))

    def _secret(self, key: str, old: Revision | None, new: Revision | None) -> None:
        self._referred("Secret", old, new)

    def _config_map(self, key: str, old: Revision | None, new: Revision | None) -> None:
        self._referred("ConfigMap", old, new)

    def _referred(self, kind: str, old: Revision | None, new: Revision | None) -> None:
        for name in {revision.name for revision in (old, new) if revision is not None}:
            for certificate in self._world.certificates_of_source[f"{kind}/{name}"]:
                self._queue.add(Key("certificate", certificate.key))

    def _pool(self, key: str, old: StoragePool | None, new: StoragePool | None) -> None:
        pool = new or old
        if pool is None or not decided_anew(old, new):
            return
        self._queue.add(Key("pool", key))
        self._templates_of_zone(pool.spec.zone)
        if old is None or new is None:
            self._named_elsewhere({pool.spec.zone}, lambda spec: key in spec.pools)
        self._placements(self._world.placements_of_pool[key])

    def _named_elsewhere(self, zones: Set[str], names: Callable[[TemplateDeploymentSpec], bool]) -> None:
        """Deployments outside of `zones` that name what is there: they say where it is."""
        for deployment in self._world.deployments:
            if names(deployment.spec) and deployment.spec.zone not in zones:
                self._queue.add_later(Key("template", deployment.template_key), COUNT_SECONDS)

    def _template(self, key: str, old: Template | None, new: Template | None) -> None:
        if decided_anew(old, new):
            self._queue.add(Key("template", key))
            for template in filter(None, (old, new)):
                self._queue.add(probe_of(template))
            self._placements(self._world.placements_of_template_key[key])

    def _deployment(self, key: str, old: TemplateDeployment | None, new: TemplateDeployment | None) -> None:
        deployment = new or old
        if deployment is None or not decided_anew(old, new):
            return
        self._queue.add(Key("template", deployment.template_key))
        self._placements(self._world.placements_of_template_key[deployment.template_key])

    def _unread_deployment(self, key: str, old: Unreadable | None, new: Unreadable | None) -> None:
        """It holds copies, or no longer does."""
        for name in {rights.template_of(unread.document) for unread in (old, new) if unread is not None}:
            for template in (name,) if name else tuple(template.key for template in self._world.templates):
                self._queue.add(Key("template", template))
                self._placements(self._world.placements_of_template_key[template])

    def _unread_placement(self, key: str, old: Unreadable | None, new: Unreadable | None) -> None:
        for uid in {rights.template_uid_of(unread.document) for unread in (old, new) if unread is not None}:
            for template in self._world.templates:
                if template.uid == uid:
                    self._queue.add_later(Key("template", template.key), COUNT_SECONDS)

    def _placement(self, key: str, old: PlacementView | None, new: PlacementView | None) -> None:
        placement = new or old
        if placement is None:
            return
        if new is None or (old is not None and old.namespace != new.namespace):
            call_for_room(self._world, self._queue)
        if new is None or old is None or _placement_wish(old) != _placement_wish(new):
            self._queue.add(Key("placement", key))
        if old is None and new is not None:
            # After a restart its job may have been seen before it: only now is the job's host known.
            self._occupy_again(new)
        if old is None or new is None or (old.phase, old.reason) != (new.phase, new.reason):
            copies = self._world.placements_of_template_key.count(placement.template_key)
            pause = COUNT_SECONDS + SUM_SECONDS_PER_OBJECT * copies
            self._queue.add_later(Key("template", placement.template_key), pause)
        elif old.bytes_downloaded != new.bytes_downloaded:
            self._queue.add_later(Key("template", placement.template_key), SUMMARY_SECONDS)

    def _probes_without_host(self) -> None:
        for name in self._world.probes_without_host:
            self._queue.add_later(Key("probe", name), COUNT_SECONDS)

    def _templates_of_zone(self, zone: str, seconds: float = 0.0) -> None:
        for deployment in self._world.deployments:
            if deployment.spec.zone == zone:
                self._queue.add_later(Key("template", deployment.template_key), seconds)

    def _placements(self, placements: Iterable[PlacementView]) -> None:
        self._queue.add_all(Key("placement", placement.key) for placement in placements)


def call_next(world: World, queue: WorkQueue) -> None:
    """A slot is free: the first waiting placement that has room in all its groups tries to take it."""
    name = world.line.call(world.slots)
    if name is not None:
        queue.add(Key("placement", name))


def call_for_room(world: World, queue: WorkQueue) -> None:
    """There may be room for more placements: the first Templates that wait for it are looked at.

    A little later: if a whole fleet of copies goes, each look costs as much as there are hosts.
    """
    for template, account in world.templates_with_room():
        hosts = len(world.hosts) if account == quotas.ALL else world.hosts_of_zone.count(account.zone)
        queue.add_later(Key("template", template), COUNT_SECONDS + SUM_SECONDS_PER_OBJECT * hosts)


def call_next_probe(world: World, queue: WorkQueue) -> None:
    """If there is room for one more probe, the one that waits longest tries to take it."""
    name = next(iter(world.probe_line), None)
    if name is not None and world.slots.full_group((slots.PROBES,)) is None:
        del world.probe_line[name]
        queue.add(Key("probe", name))


def probe_of(template: Template) -> Key:
    return Key("probe", naming.probe_name(template.name, template.uid))


def decided_anew(old: Resource | None, new: Resource | None) -> bool:
    """Whether the part that people write has changed: not the status, which we write ourselves."""
    if old is None or new is None:
        return True
    before, after = old.metadata, new.metadata
    return (
        before.uid != after.uid
        or before.generation != after.generation
        or before.deletion_timestamp != after.deletion_timestamp
        or before.labels != after.labels
        or before.requested_at != after.requested_at
    )


def usability(host: Host) -> object:
    """All facts that decide whether work may start on the host, and where."""
    storage = tuple((s.pool, s.reason, s.mounted, s.writable) for s in host.status.storage)
    return host.spec.zone, host.metadata.labels, host.status.state, storage


def _telling(host: Host) -> object:
    """The facts that decide how a host counts for every certificate of its zone."""
    synced = host.status.condition("KeystoreSynced")
    said = (synced.status, synced.message) if synced is not None else None
    return host.spec.zone, host.status.state, host.status.keystore is None, said


def _drift(host: Host) -> KeystoreDrift | None:
    return host.status.keystore.last_drift if host.status.keystore is not None else None


def _placement_wish(placement: PlacementView) -> object:
    removing = placement.phase is Phase.REMOVING
    seen = placement.observed_present, placement.observed_changed, placement.observed_revision
    return placement.uid, placement.generation, placement.deleting, placement.requested_at, removing, seen
