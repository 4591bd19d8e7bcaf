"""The product's small files beside the images: read as if hostile, written atomically.

Called by the journal and the record. Others may write the pool, so no link is followed and no content trusted.
"""

import contextlib
import ctypes
import errno
import os
import stat
from typing import TypeVar

import pydantic

from directdownload.resources.jobs import Document

D = TypeVar("D", bound=Document)

_READ_LIMIT_BYTES = 64 * 1024
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def read_small(path: str) -> bytes | None:
    """The content of a regular file of at most 64 KiB, not a symbolic link; None if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = os.read(descriptor, _READ_LIMIT_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data if len(data) <= _READ_LIMIT_BYTES else None


def read_document(path: str, model: type[D]) -> D | None:
    """The document at `path`; None if there is none that `model` accepts. Its values are untrusted."""
    return parse_document(read_small(path), model)


def parse_document(data: bytes | None, model: type[D]) -> D | None:
    """`data` as a document; None if `model` does not accept it."""
    if data is None:
        return None
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError:
        return None


def write_atomically(path: str, data: bytes, *, mode: int | None = None) -> None:
    """Replace `path` by `data`, durably; mode 0600, or exactly `mode`. Raises OSError."""
    temporary = f"{path}.tmp"
    remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
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
    """Make renames and removals in a directory durable."""
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
