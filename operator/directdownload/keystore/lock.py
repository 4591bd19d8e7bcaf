"""One writer of the product at a time per keystore: agent and command line wait for each other. Used by `store`.

keytool and the CloudStack agent do not know the lock; `exchange` handles their writes.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from directdownload.keystore import errors, files

_POLL_SECONDS = 0.02


@contextlib.contextmanager
def held(path: str, timeout_seconds: float) -> Iterator[None]:
    """Holds the lock during the block. The kernel releases it when the process ends.

    Creates a missing lock file and keeps it, because its removal would admit two writers. Raises WriteError if another
    process holds the lock for longer than `timeout_seconds`, or the file cannot be created.
    """
    descriptor = _open(path)
    try:
        end = time.monotonic() + timeout_seconds
        while not _locked(descriptor, path):
            if time.monotonic() >= end:
                raise errors.WriteError(
                    f"{path} was locked by another process for more than {timeout_seconds:g} s; "
                    "find that process (fuser), or try again"
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise files.write_error(error, path, "create the lock file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise errors.WriteError(f"{path} is not a regular file; remove it")
    return descriptor


def _locked(descriptor: int, path: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise files.write_error(error, path, "lock") from error
    return True
