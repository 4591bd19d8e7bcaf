"""What a pool is worth on this host: the facts that stand in `Host.status.storage`. Pure.

Called by `pools` with what the pool's worker found out and the mount table. The agent mounts each pool root as the host
has it, so that the options of a mount, of a root's or of one below it, are the host's own.
"""

import dataclasses
import errno
import os.path
from collections.abc import Sequence

from directdownload.download import mountinfo
from directdownload.resources import quantities
from directdownload.resources.host import HostStorage
from directdownload.resources.reasons import Reason

#: Free space that moved by this share of the capacity is told at once.
SIGNIFICANT = 0.01
#: Free inodes, by this share of what was told (file systems that make inodes as needed report them by free space).
SIGNIFICANT_INODES = 0.05
#: Whoever can write into a pool cannot make a program with rights of it, nor a device.
_WANTED = ("nosuid", "nodev")
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A pool that this host should have."""

    pool: str
    path: str
    shared: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What the worker found at a pool's path; `error_number` of the call that failed, or 0."""

    error_number: int = 0
    directory: bool = False
    real_path: str = ""
    #: of the directory; another one later means that something was mounted or unmounted
    device: int = 0
    #: records lie there
    recorded: bool = False
    capacity_bytes: int = 0
    available_bytes: int = 0
    inodes_free: int = 0


def exposed(target: Target, pool_roots: Sequence[str]) -> bool:
    """A local pool may be a root itself; a shared one lies strictly below, else its mount could not be told."""
    root = mountinfo.root_of(target.path, pool_roots)
    return root is not None and not (target.shared and root == target.path)


def not_exposed(target: Target) -> HostStorage:
    return _unusable(target, Reason.PATH_NOT_EXPOSED)


def over_budget(target: Target) -> HostStorage:
    """Its work directory holds more than is read of one pool."""
    return _unusable(target, Reason.POOL_NOT_READY)


def judge(
    target: Target,
    pool_roots: Sequence[str],
    mounts: Sequence[mountinfo.Mount],
    facts: Facts | None,
    *,
    was_own_mount: bool = False,
) -> HostStorage:
    """`facts` is None when the pool does not answer (a hung network file system).

    `was_own_mount`: copies lay there when `on_own_mount` was true. A local pool needs no mount of its own. But one that
    had one, and now has neither that nor a record, is a disk that is not mounted: its files are not lost, and must not
    be fetched again onto the disk below.
    """
    if facts is None:
        return _unusable(target, Reason.POOL_NOT_READY)
    if facts.error_number:
        absent = facts.error_number in _ABSENT
        return _unusable(target, Reason.PATH_MISSING if absent else Reason.POOL_NOT_READY)
    # A link that leads out of the roots ends in the agent's own file system, not in the host's.
    root = mountinfo.root_of(facts.real_path, pool_roots)
    if root is None:
        return not_exposed(target)
    if not facts.directory:
        return _unusable(target, Reason.NOT_WRITABLE)
    mount = mountinfo.covering(mounts, facts.real_path)
    if target.shared and not mountinfo.is_pool_mount(mount, facts.real_path, root):
        # without numbers: they would be those of the disk below
        return _unusable(target, Reason.NOT_MOUNTED)
    if was_own_mount and not facts.recorded and not on_own_mount(pool_roots, mounts, facts):
        return _unusable(target, Reason.NOT_MOUNTED)
    read_only = mount is not None and "ro" in mount.super_options | mount.options
    return HostStorage(
        pool=target.pool,
        path=target.path,
        # some file systems (and servers of network file systems) claim more than the API can hold
        capacity_bytes=min(facts.capacity_bytes, quantities.LARGEST_INTEGER),
        available_bytes=min(facts.available_bytes, quantities.LARGEST_INTEGER),
        inodes_free=min(facts.inodes_free, quantities.LARGEST_INTEGER),
        writable=not read_only,
        mounted=True,
        reason=Reason.NOT_WRITABLE if read_only else None,
        missing_mount_options=() if mount is None else tuple(each for each in _WANTED if each not in mount.options),
    )


def on_own_mount(pool_roots: Sequence[str], mounts: Sequence[mountinfo.Mount], facts: Facts) -> bool:
    """Whether the host mounts a file system for the pool, at a pool root or below one, apart from the root's parent.

    A pool root is a mount of the agent's in any case. Where it is a plain directory of the host, the mount table says
    which: a path that ends as the root's own does. Where the host has mounted a file system, that is its top.
    """
    root, mount = mountinfo.root_of(facts.real_path, pool_roots), mountinfo.covering(mounts, facts.real_path)
    if root is None or mount is None:
        return False
    if mount.point == root:
        return os.path.basename(mount.root) != os.path.basename(root)
    return mountinfo.below(mount.point, root)


def significant(told: HostStorage | None, now: HostStorage) -> bool:
    """Whether the change is to be told at once rather than some time."""
    if told is None or _flags(told) != _flags(now):
        return True
    capacity = now.capacity_bytes or 0
    moved = abs((told.available_bytes or 0) - (now.available_bytes or 0))
    inodes_moved = abs((told.inodes_free or 0) - (now.inodes_free or 0))
    return (moved > 0 and moved >= capacity * SIGNIFICANT) or (
        inodes_moved > 0 and inodes_moved >= (told.inodes_free or 0) * SIGNIFICANT_INODES
    )


def _flags(storage: HostStorage) -> HostStorage:
    return storage.model_copy(
        update={"available_bytes": None, "inodes_free": None, "unplaced": (), "unplaced_bytes": None}
    )


def _unusable(target: Target, reason: Reason) -> HostStorage:
    mounted = reason not in (Reason.NOT_MOUNTED, Reason.PATH_MISSING, Reason.PATH_NOT_EXPOSED)
    return HostStorage(pool=target.pool, path=target.path, writable=False, mounted=mounted, reason=reason)
