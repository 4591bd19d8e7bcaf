"""The triggers of volumes: what changes a demand's rights, its copy or its answer, and the looks that this asks for.

Beside `watches.py`, which has all others. A Host without demands asks for nothing here.
"""

from collections.abc import Iterable

from directdownload.controller import surroundings
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.watches import COUNT_SECONDS, SUM_SECONDS_PER_OBJECT, decided_anew, usability
from directdownload.controller.world import World
from directdownload.planning import demands
from directdownload.planning.observed import Namespace, ObservedHost, PlacementView
from directdownload.resources.host import Host
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.zone import Zone


class DemandWatches:
    """Subscribes to the stores on which demands depend, and feeds `queue`."""

    def __init__(self, world: World, queue: WorkQueue) -> None:
        self._world = world
        self._queue = queue
        world.hosts.subscribe(self._host)
        world.placements.subscribe(self._placement)
        world.templates.subscribe(self._template)
        world.zones.subscribe(self._zone)
        world.pools.subscribe(self._pool)
        world.namespaces.subscribe(self._namespace)

    def _host(self, key: str, old: ObservedHost | None, new: ObservedHost | None) -> None:
        before, after = (host.status.demands if host is not None else () for host in (old, new))
        if not before and not after:
            return
        if old is not None and new is not None and before == after and usability(old) == usability(new):
            return
        self._queue.add(Key("host", key))
        for host in filter(None, (old, new)):
            for template in demands.keys_of(host):
                # Each look at it goes over all hosts that demand it: of thousands, one look takes many.
                pause = SUM_SECONDS_PER_OBJECT * self._world.hosts_of_demand.count(template)
                self._queue.add_later(Key("template", template), pause)
            # Volumes that use a copy keep it from being removed, and are first in line.
            for placement in self._seen(host):
                self._queue.add(Key("placement", placement.key))

    def _seen(self, host: Host) -> Iterable[PlacementView]:
        """The copies, of Templates that are demanded on `host`, that it sees."""
        keys = demands.keys_of(host)
        yield from (p for p in self._world.placements_of_host[host.name] if p.template_key in keys)
        for pool in self._world.pools:
            if pool.spec.shared and pool.spec.zone == host.spec.zone:
                yield from (p for p in self._world.placements_of_pool[pool.name] if p.template_key in keys)

    def _placement(self, key: str, old: PlacementView | None, new: PlacementView | None) -> None:
        placement = new or old
        if placement is None or not self._world.hosts_of_demand.count(placement.template_key):
            return
        if old is not None and new is not None and _shown(old) == _shown(new):
            return
        for host in surroundings.users(self._world, placement, self._world.pools.get(placement.pool)):
            self._queue.add(Key("host", host.name))

    def _template(self, key: str, old: Template | None, new: Template | None) -> None:
        if decided_anew(old, new) or _ready(old) != _ready(new):
            self._hosts(self._world.hosts_of_demand[key])

    def _zone(self, key: str, old: Zone | None, new: Zone | None) -> None:
        if decided_anew(old, new):
            self._both(host for host in self._world.hosts_of_zone[key] if host.status.demands)

    def _pool(self, key: str, old: StoragePool | None, new: StoragePool | None) -> None:
        pool = new or old
        if pool is not None and decided_anew(old, new):
            self._both(host for host in self._world.hosts_of_zone[pool.spec.zone] if host.status.demands)

    def _namespace(self, key: str, old: Namespace | None, new: Namespace | None) -> None:
        if old is None or new is None or old.labels != new.labels:
            self._both(h for h in self._world.hosts if any(d.namespace == key for d in h.status.demands))

    def _both(self, hosts: Iterable[Host]) -> None:
        """Which copies there should be, and what the demands are told."""
        found = list(hosts)
        self._hosts(found)
        for template in frozenset[str]().union(*map(demands.keys_of, found)):
            self._queue.add(Key("template", template))

    def _hosts(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            self._queue.add_later(Key("host", host.name), COUNT_SECONDS)


def _shown(placement: PlacementView) -> object:
    return placement.uid, placement.phase, placement.reason, placement.message, placement.deleting, placement.host


def _ready(template: Template | None) -> object:
    ready = template.status.condition("Ready") if template is not None else None
    return (ready.status, ready.message) if ready is not None else None
