"""The system calls of Linux for mounts and for paths without links, which Python's library does not have.

Called by `mounts`. Each raises OSError, which names the call. The numbers are the same on every architecture, as for
all calls since Linux 5.1 (but Alpha's). Descriptors are never inherited by other programs.
"""

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_UNMOUNT_DETACH, _UNMOUNT_NOFOLLOW = 0x2, 0x8
#: linux/mount.h: of mount(2), and of mount_setattr(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
#: A rename anywhere can make the kernel give up a restricted lookup (EAGAIN); it may be asked again.
_TRIES = 16


def missing() -> str:
    """The calls that this kernel does not have; empty if it has all."""
    numbers = {
        "open_tree": _OPEN_TREE,
        "move_mount": _MOVE_MOUNT,
        "openat2": _OPENAT2,
        "mount_setattr": _MOUNT_SETATTR,
    }
    return ", ".join(name for name, number in numbers.items() if not _exists(number))


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open `path`, relative to and below `directory`, with no link in any of its parts."""
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES):
        found: int = _libc.syscall(_OPENAT2, directory, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        if found >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _checked(found, "openat2")


def clone(descriptor: int) -> int:
    """A mount of what `descriptor` has open, which nothing refers to yet; it goes with its descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    return _checked(_libc.syscall(_OPEN_TREE, descriptor, b"", flags), "open_tree")


def make_read_only(tree: int) -> None:
    """Such a mount becomes read-only, without setuid, devices and programs."""
    attributes = struct.pack("=QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    _checked(_libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, size), "mount_setattr")


def move(tree: int, directory: int, name: str) -> None:
    """Mount `tree` onto `name` in `directory`; `name` is not followed if it is a link."""
    done = _libc.syscall(_MOVE_MOUNT, tree, b"", directory, os.fsencode(name), _MOVE_MOUNT_F_EMPTY_PATH)
    _checked(done, "move_mount")


def mount_tmpfs(source: str, descriptor: int, flags: int, options: str) -> None:
    """Mount a tmpfs onto the directory `descriptor`, or with MS_REMOUNT change the one that it is in.

    By mount(2): fsconfig(2) takes at most 255 bytes of `source`.
    """
    target = b"/proc/self/fd/%d" % descriptor
    done = _libc.mount(os.fsencode(source), target, b"tmpfs", ctypes.c_ulong(flags), options.encode())
    _checked(done, "mount")


def detach(directory: int, name: str) -> None:
    """Unmount the topmost mount at `name` in `directory` with all below it, also while it is in use."""
    target = b"/proc/self/fd/%d/%s" % (directory, os.fsencode(name))
    _checked(_libc.umount2(target, _UNMOUNT_DETACH | _UNMOUNT_NOFOLLOW), "umount2")


def _exists(number: int) -> bool:
    # no kernel has a file -1, or a structure of no bytes
    zero = ctypes.c_size_t(0)
    return not (_libc.syscall(number, -1, None, zero, None, zero) < 0 and ctypes.get_errno() == errno.ENOSYS)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
