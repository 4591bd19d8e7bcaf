"""Locks between processes of one host and, where the file system passes flock on, between hosts.

Used by `place` (a part), and by all that change what lies under a final name (the place's lock file). A lock goes with
its process, however that ends.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from directdownload.download import files
from directdownload.download.errors import StorageError, storage_error
from directdownload.download.guard import Guard
from directdownload.resources.reasons import Reason

#: A job that is told to end has 30 s, and whoever works under a final name needs milliseconds. So whoever still has it
#: then is hung, no job of ours, or on a lost host that the file server has not given up yet. A job that waits has a
#: slot of its host and its zone, which others need.
LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.5


def acquire(path: str, guard: Guard) -> tuple[int, bool]:
    """Open or create the file and lock it: its descriptor, and whether someone else had it before.

    Waits as long as the guard lets it, and no longer than LIMIT_SECONDS; StorageError then, and if it cannot be opened.
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
                f"{path} is locked for more than {LIMIT_SECONDS:g} s by another process on this or another host; "
                "find it with lslocks or fuser, and end it",
            )
        guard.wait(_POLL_SECONDS)


def try_acquire(path: str) -> int | None:
    """As `acquire`, but None at once if someone else has it."""
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the holder before may have renamed or removed what was just locked
            if same_file(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            # stale: on a network file system another host has just removed it
            if error.errno in (errno.EWOULDBLOCK, errno.ESTALE):
                return None
            raise storage_error(error, path, "lock") from error
        os.close(descriptor)


@contextlib.contextmanager
def section(path: str, guard: Guard) -> Iterator[None]:
    """Only one at a time is in here; `path` exists only as long. An empty path locks nothing."""
    if not path:
        yield
        return
    descriptor, _ = acquire(path, guard)
    try:
        yield
    finally:
        # by its holder only, who has seen that it is the one that others wait for: they notice and make it anew
        with contextlib.suppress(OSError):
            files.remove(path)
        os.close(descriptor)


def same_file(descriptor: int, path: str) -> bool:
    """Whether `path` still is what was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise storage_error(error, path, "open") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(Reason.WRITE_FAILED, f"{path} is not a regular file; remove it")
    return descriptor
