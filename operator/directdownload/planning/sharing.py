"""Which host has the one copy of a shared pool, and when another host takes it over."""

import datetime
from collections.abc import Collection, Iterable

from directdownload.planning import pools as pool_planning
from directdownload.planning.observed import PlacementView
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase

#: How long a download on a mount that does not answer may make no progress before another host takes over.
HANG_PATIENCE = datetime.timedelta(minutes=2)


def able(pool: StoragePool, host: Host, roots: Collection[str]) -> bool:
    """Whether work in the pool may start on `host`."""
    return host.status.state == "Up" and pool_planning.obstacle(pool, host, roots) is None


def stays(
    pool: StoragePool, host: Host | None, placement: PlacementView, roots: Collection[str], now: datetime.datetime
) -> bool:
    """Whether the copy stays with its present host; None: it has no Host (any more)."""
    if host is None or host.spec.zone != pool.spec.zone:
        return False
    if placement.phase is Phase.DOWNLOADING:
        # A download survives a lost agent and a cordon. It survives neither its node nor its mount.
        return not (_node_lost(host) or _mount_lost(pool, host, placement, roots, now))
    if placement.phase is Phase.READY:
        # A cordoned host watches the file as before; one that does not see the pool cannot.
        return host.status.state != "Down" and pool_planning.obstacle(pool, host, roots) is None
    return able(pool, host, roots)


def successor(
    pool: StoragePool,
    host: Host | None,
    placement: PlacementView,
    hosts: Iterable[Host],
    wanting: Collection[TemplateDeployment],
    roots: Collection[str],
    now: datetime.datetime,
) -> str:
    """Which of `hosts`, those of the zone, takes over the copy of a shared pool; empty: it stays, or none can."""
    if stays(pool, host, placement, roots, now):
        return ""
    others = [other for other in hosts if other.name != placement.host]
    selected = [other for other in others if any(d.spec.selects(other.name, other.metadata.labels) for d in wanting)]
    # Preferably one that a deployment names; but the pool, and so its copy, belongs to all.
    return choose(pool, selected, roots) or choose(pool, others, roots)


def choose(pool: StoragePool, hosts: Iterable[Host], roots: Collection[str]) -> str:
    """The host that is to fetch it: the able one with the most space; empty if none is able."""
    candidates = [host for host in pool_planning.hosts_of(pool, hosts) if able(pool, host, roots)]
    candidates.sort(key=lambda host: (-pool_planning.available_bytes(pool, host), host.name))
    return candidates[0].name if candidates else ""


def _node_lost(host: Host) -> bool:
    ready = host.status.condition("Ready")
    return ready is not None and ready.reason in (Reason.NODE_NOT_READY, Reason.NODE_NOT_FOUND)


def _mount_lost(
    pool: StoragePool, host: Host, placement: PlacementView, roots: Collection[str], now: datetime.datetime
) -> bool:
    obstacle = pool_planning.obstacle(pool, host, roots)
    if obstacle is not Reason.POOL_NOT_READY:
        return obstacle is not None
    # It does not answer and may only be slow. While bytes come in, another host would start over for nothing.
    since = max(filter(None, (placement.progressed, placement.started_time)), default=None)
    return since is not None and now - since >= HANG_PATIENCE
