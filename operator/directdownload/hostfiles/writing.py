"""Writes files so that a name has the old or the new content, and never a part of it."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def write_atomically(
    path: str, data: bytes, *, temporary: str = "", finish: Callable[[int], None] | None = None
) -> None:
    """Replace `path` by `data`, whole and synced, through the file `temporary` (by default `path` and `.tmp`).

    The mode is 0600, unless `finish` sets other attributes, by the descriptor of the complete file. `sync_directory`
    makes the new name durable. Raises OSError; `path` is unchanged then.
    """
    temporary = temporary or f"{path}.tmp"
    remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if finish is not None:
                finish(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        remove(temporary)
        raise


def remove(path: str) -> bool:
    """Remove `path`; return whether it existed. Raises OSError for any other failure."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        return True
    return False


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate(descriptor: int, position: int, length: int, *, punch: bool = False) -> bool:
    """Allocate blocks of a file, or free them with `punch` (a hole). Its length stays. Raises OSError.

    False where the file system cannot. Not posix_fallocate: it changes the length, and writes every block as fallback.
    """
    mode = _FALLOC_FL_KEEP_SIZE | (_FALLOC_FL_PUNCH_HOLE if punch else 0)
    while _libc.fallocate(descriptor, mode, position, length) != 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
