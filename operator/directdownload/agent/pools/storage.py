"""The facts of a pool on this host, for `Host.status.storage`. Pure.

Called by `pools` with the findings of the pool's worker and the mount table. The agent mounts each pool root as the
host has it, so that mount options, of a root or below it, are the host's own.
"""

import dataclasses
import errno
import os.path
from collections.abc import Sequence

from directdownload.hostfiles import mountinfo
from directdownload.resources import quantities
from directdownload.resources.host import HostStorage
from directdownload.resources.reasons import Reason

#: A change of free space by this share of the capacity is reported at once.
SIGNIFICANT = 0.01
#: The same for free inodes, by share of the reported number (some file systems derive it from free space).
SIGNIFICANT_INODES = 0.05
#: With these options, writers of a pool can create neither setuid programs nor devices.
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
    """The worker's findings at a pool's path; `error_number` of the failed call, or 0."""

    error_number: int = 0
    directory: bool = False
    real_path: str = ""
    #: device of the directory; it changes with a mount or unmount
    device: int = 0
    #: the pool has records
    recorded: bool = False
    capacity_bytes: int = 0
    available_bytes: int = 0
    inodes_free: int = 0


def exposed(target: Target, pool_roots: Sequence[str]) -> bool:
    """Whether the path is exposed. A local pool may be a root itself; a shared one must be below, because its mount
    would otherwise be undetectable."""
    root = mountinfo.root_of(target.path, pool_roots)
    return root is not None and not (target.shared and root == target.path)


def not_exposed(target: Target) -> HostStorage:
    return _unusable(target, Reason.PATH_NOT_EXPOSED)


def over_budget(target: Target) -> HostStorage:
    """The state of a pool whose work directory is over its budget."""
    return _unusable(target, Reason.POOL_NOT_READY)


def judge(
    target: Target,
    pool_roots: Sequence[str],
    mounts: Sequence[mountinfo.Mount],
    facts: Facts | None,
    *,
    was_own_mount: bool = False,
) -> HostStorage:
    """The state of a pool. `facts` is None if it does not answer (a hung network file system).

    `was_own_mount`: the pool had copies while `on_own_mount` was true. A local pool needs no mount of its own. But a
    pool that had one, and now has neither mount nor record, is an unmounted disk: its files are not lost, and must not
    be fetched again onto the disk below.
    """
    if facts is None:
        return _unusable(target, Reason.POOL_NOT_READY)
    if facts.error_number:
        absent = facts.error_number in _ABSENT
        return _unusable(target, Reason.PATH_MISSING if absent else Reason.POOL_NOT_READY)
    # A link out of the roots leads into the agent's own file system, not the host's.
    root = mountinfo.root_of(facts.real_path, pool_roots)
    if root is None:
        return not_exposed(target)
    if not facts.directory:
        return _unusable(target, Reason.NOT_WRITABLE)
    mount = mountinfo.covering(mounts, facts.real_path)
    if target.shared and not mountinfo.is_pool_mount(mount, facts.real_path, root):
        # without numbers, which would be those of the disk below
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

    A pool root is always a mount of the agent. If it is a plain directory of the host, the mount's root is a path with
    the same last name. If the host has mounted a file system there, the mount's root is the top of that.
    """
    root, mount = mountinfo.root_of(facts.real_path, pool_roots), mountinfo.covering(mounts, facts.real_path)
    if root is None or mount is None:
        return False
    if mount.point == root:
        return os.path.basename(mount.root) != os.path.basename(root)
    return mountinfo.below(mount.point, root)


def significant(told: HostStorage | None, now: HostStorage) -> bool:
    """Whether the change must be reported at once."""
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
