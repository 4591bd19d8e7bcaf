"""Whether a pool has room, checked before the transfer and, where the size is unknown, during it.

Called by the engine and the transfer. `reserve` is a percentage of the file system or a quantity that stays free.
"""

import os

from directdownload.download.errors import StorageError, storage_error
from directdownload.download.settings import Setting
from directdownload.hostfiles import writing
from directdownload.resources import quantities
from directdownload.resources.reasons import Reason

#: the part becomes the file; journal and record are each written through a temporary file
_INODES_NEEDED = 4


def check_space(descriptor: int, directory: str, needed_bytes: int, reserve: str) -> None:
    """Raise StorageError(InsufficientSpace) unless `needed_bytes` and the inodes fit beside the reserve.

    `descriptor` is of a file in `directory`, whose name is for messages.
    """
    try:
        state = os.statvfs(descriptor)
    except OSError as error:
        raise StorageError(Reason.POOL_NOT_READY, f"pool directory {directory}: {error.strerror}") from error
    free = state.f_bavail * state.f_frsize
    reserved = quantities.parse_reserve(reserve, state.f_blocks * state.f_frsize)
    if needed_bytes > free - reserved:
        message = f"{directory}: {needed_bytes} bytes are needed, {free} are free"
        if reserved:
            message += f" of which {reserved} stay in reserve ({reserve}); free some space or lower {Setting.RESERVE}"
        else:
            message += "; free some space"
        raise StorageError(Reason.INSUFFICIENT_SPACE, message)
    # file systems without a fixed number of inodes report a total of 0
    if state.f_files and state.f_favail < _INODES_NEEDED:
        raise StorageError(
            Reason.INSUFFICIENT_SPACE, f"{directory}: {state.f_favail} inodes are free, {_INODES_NEEDED} are needed"
        )


def preallocate(descriptor: int, size_bytes: int, path: str) -> None:
    """Allocate the blocks of a file of known size where the file system can, and set its length.

    Holes can only be punched within a file's length.
    """
    if size_bytes <= 0:
        return
    try:
        writing.allocate(descriptor, 0, size_bytes)
        os.ftruncate(descriptor, max(size_bytes, os.fstat(descriptor).st_size))
    except OSError as error:
        raise storage_error(error, path, "allocate") from error
