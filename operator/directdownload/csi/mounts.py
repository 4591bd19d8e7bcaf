"""Mounts of volumes: the only code that mounts and unmounts.

Called by `publishing`. A volume is a tiny read-only tmpfs at the target path with one file `disk.img`, onto which the
template's file is mounted. The file alone would not do: from version 1.2 on, runc makes a bind mount writable for a pod
that asks for `rw`. Its change reaches only the topmost mount, which here is a tmpfs that is read-only itself.

Promises: `attach` leaves a complete volume or nothing; a volume that a killed process left half made is recognised
(`Partial`) and replaced. No link in a path is followed, neither to the target nor to the file. Only mounts whose source
begins with our prefix are unmounted: a foreign mount at a target is an error, for the administrator to unmount.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence

from directdownload.csi import mountsource, syscalls
from directdownload.hostfiles import mountinfo
from directdownload.hostfiles.mountinfo import Mount
from directdownload.resources.volumes import MountedVolume

logger = logging.getLogger(__name__)

#: The one file of a volume, by the name that KubeVirt expects in a PersistentVolumeClaim.
DISK = "disk.img"
_OPTIONS = "size=64k,nr_inodes=16"
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_SAFE = frozenset({"ro", "nosuid", "nodev", "noexec"})
#: Mounts on top of each other at one target; more than two are never ours.
_MOST_LAYERS = 64
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


class ForeignMountError(Exception):
    """Something is mounted at a target that is not a volume of ours. `mount` is its mount."""

    def __init__(self, found: Mount) -> None:
        self.mount = found
        super().__init__(f"a mount of {found.source!r} ({found.type}) is at {found.point}, which is not a volume")


class NotRegularError(OSError):
    """The template's file is something else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where a volume is mounted: `path` below the directory `pods` of kubelet; `path` has no `.`, `..` or `//`."""

    pods: str
    path: str


class Partial:
    """A volume of ours that is not complete."""


def mounted(table: Sequence[Mount], pods: str) -> tuple[MountedVolume, ...]:
    """The volumes that are mounted below the directory `pods`, by their names; a half-made one counts."""
    found = {}
    for each in table:
        if _ours(each) and mountinfo.below(each.point, pods) and (volume := mountsource.read(each.source)):
            found[volume.volume] = volume
    return tuple(found[name] for name in sorted(found))


def at(table: Sequence[Mount], path: str) -> MountedVolume | Partial | None:
    """What is at a target: a complete volume, a part of one, or nothing. Raises ForeignMountError."""
    top = _top(table, path)
    if top is None:
        return None
    disk = mountinfo.covering(table, f"{path}/{DISK}")
    complete = "ro" in top.super_options and disk is not None and disk.parent == top.id and disk.options >= _SAFE
    volume = mountsource.read(top.source)
    return volume if complete and volume is not None else Partial()


def open_image(path: str, root: str) -> int:
    """A mount of the file `path` below the directory `root`, read-only, which nothing refers to yet.

    Blocks as long as its file system does. Raises OSError, also NotRegularError.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = syscalls.open_beneath(directory, os.path.relpath(path, root), os.O_PATH | os.O_NOFOLLOW)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise NotRegularError(errno.EINVAL, "it is not a regular file")
        tree = syscalls.clone(file)
    finally:
        os.close(file)
    try:
        syscalls.make_read_only(tree)
    except OSError:
        os.close(tree)
        raise
    return tree


def attach(target: Target, volume: MountedVolume, tree: int) -> None:
    """Make the volume at `target`, with the file of `open_image`. Raises OSError and ForeignMountError.

    Nothing of ours is there afterwards, or before: `detach` goes first.
    """
    source = mountsource.source(volume)
    with _parent(target) as (parent, name):
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o750, dir_fd=parent)
            with _opened(syscalls.open_beneath(parent, name, _DIRECTORY)) as directory:
                syscalls.mount_tmpfs(source, directory, _FLAGS, f"{_OPTIONS},mode=0755")
            with _opened(syscalls.open_beneath(parent, name, _DIRECTORY)) as top:
                _fill(top, tree)
                syscalls.mount_tmpfs(source, top, syscalls.MS_REMOUNT | syscalls.MS_RDONLY | _FLAGS, _OPTIONS)
            if at(mountinfo.read(), target.path) != volume:
                raise OSError(errno.EIO, "the volume that was just mounted is not there")
        except BaseException:
            with contextlib.suppress(OSError, ForeignMountError):
                detach(target)
            raise


def detach(target: Target) -> None:
    """Unmount the volume at `target`, complete or not, and remove its directory; nothing there is fine.

    Raises OSError and ForeignMountError.
    """
    with contextlib.suppress(FileNotFoundError), _parent(target) as (parent, name):
        for _ in range(_MOST_LAYERS):
            if _top(mountinfo.read(), target.path) is None:
                break
            syscalls.detach(parent, name)
        os.rmdir(name, dir_fd=parent)


def _fill(directory: int, tree: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(DISK, flags, 0o444, dir_fd=directory))
    syscalls.move(tree, directory, DISK)


def _top(table: Sequence[Mount], path: str) -> Mount | None:
    """The topmost mount at `path`; None if it is no mount point. Raises ForeignMountError."""
    found = mountinfo.covering(table, path)
    if found is None or found.point != path:
        return None
    if not _ours(found):
        raise ForeignMountError(found)
    return found


def _ours(found: Mount) -> bool:
    return found.type == "tmpfs" and found.source.startswith(mountsource.PREFIX)


@contextlib.contextmanager
def _parent(target: Target) -> Iterator[tuple[int, str]]:
    """The directory in which the target is, and its name there. Raises OSError."""
    above, name = os.path.split(os.path.relpath(target.path, target.pods))
    with (
        _opened(os.open(target.pods, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as pods,
        _opened(syscalls.open_beneath(pods, above or ".", _DIRECTORY)) as parent,
    ):
        yield parent, name


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
