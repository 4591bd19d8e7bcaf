"""The objects around a placement, as its planner gets them, and the hosts whose volumes may use its file."""

import datetime
from collections.abc import Iterable, Iterator

from directdownload import sourcing
from directdownload.controller.world import World
from directdownload.planning import demands, hosts, plans, sharing
from directdownload.planning.observed import ObservedHost, PlacementView
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.templateplacement import Phase


def of(world: World, placement: PlacementView, now: datetime.datetime) -> plans.Surroundings:
    wanting, template = world.wanting(placement), world.template_of(placement)
    host, pool = world.hosts.get(placement.host), world.pools.get(placement.pool)
    held = template is not None and world.held(template)
    using = list(users(world, placement, pool))
    demanded = template is not None and demands.wants(template, asked(world, using), sourcing.refusal)
    return plans.Surroundings(
        template=template,
        zone=world.zones.get(placement.zone),
        host=host,
        pool=pool,
        pool_roots=world.pool_roots,
        paused=(held or bool(wanting)) and not demanded and all(d.spec.rollout.paused for d in wanting),
        demanded=demanded,
        in_use=demands.in_use(placement, using),
        held=held,
        claimed=any(
            other.path == placement.path and other.key != placement.key and other.phase is not Phase.REMOVING
            for other in world.placements_of_host[placement.host]
        ),
        departed=host is None and placement.host not in world.hosts.unreadable and not _returns(world, placement.host),
        successor=sharing.successor(
            pool, host, placement, world.hosts_of_zone[placement.zone], wanting, world.pool_roots, now
        )
        if pool is not None and pool.spec.shared
        else "",
    )


def users(world: World, placement: PlacementView, pool: StoragePool | None) -> Iterator[ObservedHost]:
    """The hosts that may have volumes of the copy, which is in `pool`."""
    if pool is None or pool.spec.shared:
        return (h for h in world.hosts_of_demand[placement.template_key] if h.spec.zone == placement.zone)
    host = world.hosts.get(placement.host)
    return iter((host,) if host is not None and host.status.demands else ())


def asked(world: World, hosts: Iterable[ObservedHost]) -> Iterator[demands.Asking]:
    """The demands on `hosts`."""
    return (a for h in hosts for a in demands.asked(h, world.zones.get(h.spec.zone), world.labels_of))


def _returns(world: World, name: str) -> bool:
    """Whether a Host of this name, which is gone, is created again, or may be by a Zone that cannot be read."""
    node = world.nodes.get(name)
    unread = len(world.zones.unreadable) > 0
    return unread or (node is not None and bool(hosts.selecting_zones(node.labels, world.zones)))
