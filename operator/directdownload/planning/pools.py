"""Which hosts have a StoragePool, whether it is usable there, and the status of the pool."""

import datetime
import posixpath
from collections.abc import Collection, Iterable

from directdownload.planning import requests
from directdownload.planning.conditions import Verdict, conditions
from directdownload.resources import quantities
from directdownload.resources.host import Host, HostStorage
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import PoolHosts, StoragePool, StoragePoolStatus


def hosts_of(pool: StoragePool, hosts: Iterable[Host]) -> list[Host]:
    """The hosts of the pool's zone that its selector matches."""
    return [
        host
        for host in hosts
        if host.spec.zone == pool.spec.zone and pool.spec.host_selector.matches(host.metadata.labels)
    ]


def facts(pool: StoragePool, host: Host) -> HostStorage | None:
    """The report of `host`'s agent on the pool; None before the first."""
    return host.status.storage_by_pool.get(pool.name)


def exposed(path: str, roots: Iterable[str], *, shared: bool) -> bool:
    """Whether the chart mounts `path`: at or below a root; strictly below for a shared pool (its mount must show)."""
    return any(path.startswith(root + "/") or (path == root and not shared) for root in (r.rstrip("/") for r in roots))


def told_roots(pools: Iterable[StoragePool]) -> tuple[str, ...]:
    """Directories that the chart exposes, derived from the pools' own conditions, for callers without its values.

    A pool that the controller has not looked at yet counts as exposed.
    """
    found = set()
    for pool in pools:
        ready = pool.status.condition("Ready")
        if ready is None or ready.reason is not Reason.PATH_NOT_EXPOSED:
            # The root of a shared pool lies above it: what else is there is exposed as well.
            found.add(posixpath.dirname(pool.spec.path) if pool.spec.shared else pool.spec.path)
    return tuple(sorted(found))


def obstacle(pool: StoragePool, host: Host, roots: Collection[str]) -> Reason | None:
    """Why the pool cannot be used on `host`, or None. Before the agent's first report the job itself finds out."""
    if not exposed(pool.spec.path, roots, shared=pool.spec.shared):
        return Reason.PATH_NOT_EXPOSED
    entry = facts(pool, host)
    if entry is None:
        return None
    if entry.reason is not None:
        return entry.reason
    if pool.spec.shared and entry.mounted is False:
        return Reason.NOT_MOUNTED
    return Reason.NOT_WRITABLE if entry.writable is False else None


def available_bytes(pool: StoragePool, host: Host | None) -> int:
    """Free bytes of the pool on `host` as last reported; 0 if unknown."""
    entry = facts(pool, host) if host is not None else None
    return (entry.available_bytes if entry is not None else None) or 0


def plan_pool(
    pool: StoragePool, zone_exists: bool, hosts: Iterable[Host], roots: Collection[str], now: datetime.datetime
) -> StoragePoolStatus:
    members = hosts_of(pool, hosts)
    obstacles = {host.name: obstacle(pool, host, roots) for host in members}
    ready = [
        host for host in members if host.status.state == "Up" and obstacles[host.name] is None and facts(pool, host)
    ]
    entries = [entry for host in ready if (entry := facts(pool, host)) is not None]
    if pool.spec.shared:
        entries = entries[:1]
    if not exposed(pool.spec.path, roots, shared=pool.spec.shared):
        where = "strictly below" if pool.spec.shared else "at or below"
        message = f"spec.path {pool.spec.path}: expected a path {where} one of agent.poolRoots: {', '.join(roots)}"
        verdict = Verdict(False, Reason.PATH_NOT_EXPOSED, message, stalled=True)
    elif not zone_exists:
        verdict = Verdict(False, Reason.ZONE_NOT_FOUND, f"there is no Zone {pool.spec.zone}; create it")
    elif ready:
        verdict = Verdict(True, Reason.READY, f"usable on {len(ready)} of {len(members)} hosts")
    else:
        found = next((reason for reason in obstacles.values() if reason is not None), Reason.NO_READY_HOSTS)
        message = f"usable on none of {len(members)} hosts; see status.storage of the Hosts"
        verdict = Verdict(False, found, message + _first_down(members))
    generation = pool.metadata.generation
    capacity = quantities.total(entry.capacity_bytes or 0 for entry in entries)
    available = quantities.total(entry.available_bytes or 0 for entry in entries)
    return StoragePoolStatus(
        observed_generation=generation,
        capacity_bytes=capacity,
        available_bytes=available,
        **quantities.in_words(capacity=capacity, available=available),
        hosts=PoolHosts(total=len(members), ready=len(ready)),
        **requests.served(pool, now).fields(),
        conditions=conditions(verdict, pool.status.conditions, generation, now, types=("Ready",)),
    )


def _first_down(hosts: Iterable[Host]) -> str:
    """Why the first host that is Down is so, for a pool that no host can use; empty: none is."""
    down = next((host for host in hosts if host.status.state == "Down"), None)
    ready = down.status.condition("Ready") if down is not None else None
    return f"; {down.name} is Down: {ready.message}" if down is not None and ready is not None else ""
