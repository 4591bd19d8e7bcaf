"""Connects the parts of the agent: watches its Host, pools and zone, runs the monitors of pools and the keeper of the
keystore, the desk of the volumes, and passes results to the writers.

`main` makes one `Supervisor` per process. Level-triggered: every change compares the wanted monitors with the running
ones, and starts or ends monitors.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from directdownload.agent import cluster_view as views
from directdownload.agent.keystore.keeper import KeystoreKeeper, ZoneWatch
from directdownload.agent.keystore.sync import Wishes
from directdownload.agent.peers import PeerKeeper, served
from directdownload.agent.peers import Wishes as PeerWishes
from directdownload.agent.pools import monitor as pools
from directdownload.agent.settings import Settings
from directdownload.agent.status.host import HostReporter, Report
from directdownload.agent.status.placements import Owners, Publisher
from directdownload.agent.status.told import Told
from directdownload.agent.volumes.desk import VolumeDesk
from directdownload.cluster import client, kinds, reflector
from directdownload.observe import logs
from directdownload.resources.host import HostStorage

logger = logging.getLogger(__name__)

#: Lists are repeated every 10 minutes; without one for this long, watches hang or the API server is gone.
LIVENESS_SECONDS = 45 * 60


class Supervisor:
    """`run` ends only when cancelled or by a bug; `ready` and `alive` answer the kubelet meanwhile."""

    def __init__(self, settings: Settings, api: client.Api) -> None:
        self._settings = settings
        self._api = api
        self._hosts = reflector.Store[views.HostView]()
        self._pools = reflector.Store[views.PoolView]()
        self._host_reflector = reflector.Reflector(
            api,
            kinds.HOSTS,
            views.project_host,
            self._hosts,
            field_selector=f"metadata.name={settings.node_name}",
            on_change=self._changed,
        )
        self._pool_reflector = reflector.Reflector(
            api, kinds.STORAGE_POOLS, views.project_pool, self._pools, on_change=self._changed
        )
        self._reporter = HostReporter(
            api, settings.node_name, numbers_interval_seconds=settings.numbers_interval_seconds
        )
        self._told = Told.load(settings.state_directory)
        self._owners = Owners(api, self._told, interval_seconds=settings.check_interval_seconds)
        self._publisher = Publisher(
            api,
            settings.node_name,
            self._told,
            self._owners,
            foreign_interval_seconds=settings.foreign_interval_seconds,
        )
        self._keystore = KeystoreKeeper(settings, on_report=self._report)
        #: None: there is no CSI plugin
        self._desk = (
            VolumeDesk(settings, progress=self._publisher.progress, on_change=self._report)
            if settings.csi_socket
            else None
        )
        #: None: there are no peers
        self._peers = PeerKeeper(settings, on_request=self._report) if settings.peers else None
        #: of the host's zone
        self._zone: tuple[ZoneWatch, asyncio.Task[None]] | None = None
        #: uid of the Host that the keeper of the keystore has read
        self._host_uid = ""
        self._monitors: dict[str, tuple[views.Target, asyncio.Task[None]]] = {}
        #: by pool; a pool without facts yet is missing
        self._facts: dict[str, HostStorage] = {}
        self._targets: dict[str, views.Target] = {}
        self._wake = asyncio.Event()
        self._latched = False

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._host_reflector.run())
                group.create_task(self._pool_reflector.run())
                group.create_task(self._reporter.run())
                group.create_task(self._publisher.run())
                group.create_task(self._owners.run())
                group.create_task(self._keystore.run())
                if self._desk is not None:
                    group.create_task(self._desk.run())
                if self._peers is not None:
                    group.create_task(self._peers.run())
                await self._host_reflector.synced.wait()
                await self._pool_reflector.synced.wait()
                while True:
                    self._wake.clear()
                    self._reconcile(group)
                    await self._wake.wait()
        finally:
            self._monitors.clear()

    def ready(self) -> str | None:
        """None once the Host was written, or there is no Host to write; else the reason. Stays None from then on.

        The first write follows the first sync: a host is not Up before it has executed a missed revocation, or
        reported its failure. An outage of the API server does not count, because it must not take hosts down.
        """
        if not self._latched:
            if not (self._host_reflector.synced.is_set() and self._pool_reflector.synced.is_set()):
                return "waiting for the API server: Host and StoragePools are not read yet"
            if self._host() is not None and not self._reporter.told.is_set():
                if self._zone is None or not self._zone[0].synced:
                    return "waiting for the API server: Zone and certificates are not read yet"
                return self._reporter.failure or "waiting for the keystore and the first facts of the storage pools"
            self._latched = True
        return None

    def alive(self) -> str | None:
        relists = [self._host_reflector.last_relist_monotonic, self._pool_reflector.last_relist_monotonic]
        if self._zone is not None:
            relists.append(self._zone[0].last_relist_monotonic)
        age_seconds = time.monotonic() - min(relists)
        return f"nothing was listed for {age_seconds:.0f} s" if age_seconds > LIVENESS_SECONDS else None

    def _changed(self, *_: object) -> None:
        self._wake.set()

    def _host(self) -> views.HostView | None:
        # by key, because only the selector keeps other hosts out of the store
        return self._hosts.get(self._settings.node_name)

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        host = self._host()
        self._keystore.want(self._wishes(host, group))
        if self._desk is not None and host is not None:
            self._desk.hear(host)
        found = [views.target_of(pool, host) for pool in self._pools] if host is not None else []
        self._targets = {target.pool: target for target in found if target is not None}
        exposed = {
            name: target for name, target in self._targets.items() if pools.exposed(target, self._settings.pool_roots)
        }
        if self._peers is not None:
            self._peers.want(_peer_wishes(host, exposed.values()))
        for name, (target, task) in list(self._monitors.items()):
            if exposed.get(name) != target:
                task.cancel()
                del self._monitors[name]
                self._publisher.forget(name)
                self._owners.forget(name)
                self._facts.pop(name, None)
        for name, target in exposed.items():
            if name not in self._monitors:
                about = logs.about("StoragePool", name)
                logger.info("Pool %s at %s belongs to this host", name, target.path, extra=about)
                monitor = pools.PoolMonitor(
                    target,
                    self._settings,
                    self._told,
                    self._owners,
                    on_storage=self._take_storage,
                    on_copies=self._publisher.want,
                )
                self._monitors[name] = target, group.create_task(monitor.run())
        self._facts = {name: facts for name, facts in self._facts.items() if name in exposed} | {
            name: pools.not_exposed(target) for name, target in self._targets.items() if name not in exposed
        }
        self._report()

    def _wishes(self, host: views.HostView | None, group: asyncio.TaskGroup) -> Wishes | None:
        """The wishes for the host's keystore; None: not known. Watches only the host's zone."""
        if self._zone is not None and (host is None or host.zone != self._zone[0].zone):
            self._zone[1].cancel()
            self._zone = None
        if host is None:
            return None
        if self._zone is None:
            made = ZoneWatch(self._api, host.zone, self._changed)
            self._zone = made, group.create_task(made.run())
        if self._host_uid != host.uid:
            self._host_uid = host.uid
            self._keystore.remember(host.status)
        watch = self._zone[0]
        if not watch.synced:
            # an object that is not listed yet would look deleted
            return None
        zone = watch.found()
        return Wishes(
            host=host.key,
            zone=host.zone,
            enabled=zone.enabled if zone is not None else None,
            sync_interval_seconds=zone.sync_interval_seconds if zone is not None else 0,
            keystore=host.keystore,
            published=watch.published(),
            unread=watch.unread(),
            generation=host.generation,
        )

    def _take_storage(self, facts: HostStorage) -> None:
        if facts.pool in self._monitors:
            self._facts[facts.pool] = facts
            self._report()

    def _report(self) -> None:
        host = self._host()
        if host is None:
            self._reporter.want(None)
        elif self._facts.keys() == self._targets.keys() and self._keystore.report is not None:
            # Only complete reports: a pool without facts yet would look removed.
            demands = self._desk.demands if self._desk is not None else None
            if self._peers is None or self._peers.settled:
                request = self._peers.request if self._peers is not None else None
                self._reporter.want(Report(host.uid, dict(self._facts), self._keystore.report, demands, request))


def _peer_wishes(host: views.HostView | None, exposed: Iterable[views.Target]) -> PeerWishes | None:
    if host is None:
        return None
    said = host.status.get("peer")
    paths = served({target.path: target.shared for target in exposed})
    return PeerWishes(host.key, host.zone, paths, said if isinstance(said, Mapping) else None)
