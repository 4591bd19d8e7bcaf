"""Whether a pool has room, asked before a byte moves and, where the size is unknown, while bytes move.

Called by the engine and the transfer. `reserve` is a percentage of the file system or a quantity that stays free.
"""

import ctypes
import errno
import os

from directdownload.download.errors import StorageError, storage_error
from directdownload.resources import quantities
from directdownload.resources.reasons import Reason

_FALLOC_FL_KEEP_SIZE = 1
#: the part becomes the file; beside it lie a journal and a record, each written through a temporary file
_INODES_NEEDED = 4
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})


def check_space(directory: str, needed_bytes: int, reserve: str) -> None:
    """StorageError(InsufficientSpace) unless `needed_bytes` fit beside the reserve, and so do our inodes."""
    try:
        state = os.statvfs(directory)
    except OSError as error:
        raise StorageError(Reason.POOL_NOT_READY, f"pool directory {directory}: {error.strerror}") from error
    free = state.f_bavail * state.f_frsize
    reserved = quantities.parse_reserve(reserve, state.f_blocks * state.f_frsize)
    if needed_bytes > free - reserved:
        raise StorageError(
            Reason.INSUFFICIENT_SPACE,
            f"{directory}: {needed_bytes} bytes are needed, {free} are free of which {reserved} stay in reserve "
            f"({reserve}); free some space or lower the pool's reserve",
        )
    # file systems without a fixed number of inodes report 0 of 0
    if state.f_files and state.f_favail < _INODES_NEEDED:
        raise StorageError(
            Reason.INSUFFICIENT_SPACE, f"{directory}: {state.f_favail} inodes are free, {_INODES_NEEDED} are needed"
        )


def preallocate(descriptor: int, size_bytes: int, path: str) -> None:
    """Claim the blocks of a file of known size where the file system can; its length stays as it is.

    Not posix_fallocate: it changes the length, and writes every block where the file system cannot allocate.
    """
    if size_bytes <= 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while libc.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, 0, size_bytes) != 0:
        error_number = ctypes.get_errno()
        if error_number in _UNSUPPORTED:
            return
        if error_number != errno.EINTR:
            raise storage_error(OSError(error_number, os.strerror(error_number)), path, "allocate")
