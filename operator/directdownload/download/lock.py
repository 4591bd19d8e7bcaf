"""Locks between processes of one host and, where the file system shares flock, between hosts.

Used by `place` (a part), and by every change under a final name (the place's lock file). The kernel releases a lock
when its process ends.
"""

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Iterator

from directdownload.download.errors import StorageError, storage_error
from directdownload.download.guard import Guard
from directdownload.hostfiles import locks, reading, writing
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: A terminated job has 30 s, and work under a final name takes milliseconds. So a later holder hangs, is not a job of
#: this product, or is on a lost host whose locks the file server still holds. A waiting job occupies a slot of its host
#: and its zone, which others need.
LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.5
_TRIES = 20


def acquire(path: str, guard: Guard) -> tuple[int, bool]:
    """Open or create the file and lock it; return its descriptor and whether another process had it before.

    Waits within the guard, up to LIMIT_SECONDS. Raises StorageError after that, and if the file cannot be opened.
    """
    end = time.monotonic() + LIMIT_SECONDS
    waited = False
    while True:
        descriptor = try_acquire(path)
        if descriptor is not None:
            return descriptor, waited
        waited = True
        if time.monotonic() >= end:
            raise StorageError(
                Reason.WRITE_FAILED,
                f"{path} has been locked for more than {LIMIT_SECONDS:g} s by another process on this or another host; "
                "find it with lslocks or fuser, and end it",
            )
        guard.wait(_POLL_SECONDS)


def try_acquire(path: str) -> int | None:
    """As `acquire`, but None at once if another process has it, or keeps replacing the file."""
    for _ in range(_TRIES):
        descriptor, ours = _open(path)
        try:
            taken = _take(descriptor)
            # the previous holder may have renamed or removed the file that was just locked
            if taken and locks.same_file(descriptor, path):
                if ours:
                    return descriptor
                logger.warning("%s was not made by this product: it is replaced", path)
                writing.remove(path)
        except OSError as error:
            os.close(descriptor)
            # stale handle: on a network file system another host has just removed it
            if error.errno == errno.ESTALE:
                return None
            raise storage_error(error, path, "lock") from error
        os.close(descriptor)
        if not taken:
            break
    return None


def _take(descriptor: int) -> bool:
    """As `locks.take`; True where the file system cannot lock this file."""
    try:
        return locks.take(descriptor)
    except OSError as error:
        # NFS locks only files open for writing, and a file of others is never opened for writing
        if error.errno != errno.EBADF:
            raise
        return True


@contextlib.contextmanager
def section(path: str, guard: Guard) -> Iterator[None]:
    """One process at a time is in here; `path` exists only meanwhile. An empty path locks nothing."""
    if not path:
        yield
        return
    descriptor, _ = acquire(path, guard)
    try:
        yield
    finally:
        # only its holder removes it, knowing that it is the current file: waiting processes then create a new one
        with contextlib.suppress(OSError):
            writing.remove(path)
        os.close(descriptor)


def _open(path: str) -> tuple[int, bool]:
    """Open the file; return whether this product made it. A file of others is opened for reading only."""
    try:
        for _ in range(_TRIES):
            with contextlib.suppress(FileExistsError):
                return reading.open_any(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), True
            with contextlib.suppress(FileNotFoundError):
                return _open_again(path)
        raise StorageError(Reason.WRITE_FAILED, f"other processes keep making and removing {path}; find and stop them")
    except OSError as error:
        raise storage_error(error, path, "open") from error


def _open_again(path: str) -> tuple[int, bool]:
    """As `_open` for an existing file. Raises OSError, StorageError if it is not a regular file."""
    # O_PATH: opening a file of others could block (a pipe) or follow a link
    found = reading.open_any(path, os.O_PATH)
    try:
        state = os.fstat(found)
        if not stat.S_ISREG(state.st_mode):
            raise StorageError(Reason.WRITE_FAILED, f"{path} is not a regular file; remove it")
        if not state.st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        ours = _is_ours(state, path)
        # the inspected file, even if the name now leads elsewhere
        again = reading.FLAGS & ~os.O_NOFOLLOW | (os.O_RDWR if ours else os.O_RDONLY)
        return os.open(f"/proc/self/fd/{found}", again), ours
    finally:
        os.close(found)


def _is_ours(state: os.stat_result, path: str) -> bool:
    """Whether a file with this state, at `path`, is as this product makes them: owner-only, with only this name."""
    if state.st_nlink != 1:
        return False
    seen = (state.st_uid, stat.S_IMODE(state.st_mode))
    return seen == (os.geteuid(), 0o600) or seen == _owner_and_mode_in(os.path.dirname(path))


def _owner_and_mode_in(directory: str) -> tuple[int, int]:
    """Owner and mode of a new file there: NFS may map the owner to nobody, SMB may have no modes. Raises OSError."""
    import tempfile

    descriptor, path = tempfile.mkstemp(suffix=".tmp", dir=directory)
    try:
        state = os.fstat(descriptor)
        return state.st_uid, stat.S_IMODE(state.st_mode)
    finally:
        os.close(descriptor)
        writing.remove(path)
