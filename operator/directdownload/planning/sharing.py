"""Which host has the one copy of a shared pool, and when another one takes it over."""

from collections.abc import Collection, Iterable

from directdownload.planning import pools as pool_planning
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.templateplacement import Phase


def able(pool: StoragePool, host: Host, roots: Collection[str]) -> bool:
    """Whether work in the pool may start on `host`."""
    return host.status.state == "Up" and pool_planning.obstacle(pool, host, roots) is None


def stays(pool: StoragePool, host: Host | None, phase: Phase | None, roots: Collection[str]) -> bool:
    """Whether the copy is left with its present host; None: it has no Host (any more)."""
    if host is None or host.spec.zone != pool.spec.zone:
        return False
    if phase is Phase.DOWNLOADING:
        # A download outlives its host's agent and a cordon. It does not outlive its node, nor a mount that hangs.
        return not _node_lost(host) and pool_planning.obstacle(pool, host, roots) is None
    return host.status.state != "Down" if phase is Phase.READY else able(pool, host, roots)


def choose(pool: StoragePool, hosts: Iterable[Host], roots: Collection[str]) -> str:
    """The host that is to fetch it: one that can, with the most space; empty if none can."""
    candidates = [host for host in pool_planning.hosts_of(pool, hosts) if able(pool, host, roots)]
    candidates.sort(key=lambda host: (-pool_planning.available_bytes(pool, host), host.name))
    return candidates[0].name if candidates else ""


def _node_lost(host: Host) -> bool:
    ready = host.status.condition("Ready")
    return ready is not None and ready.reason in (Reason.NODE_NOT_READY, Reason.NODE_NOT_FOUND)
