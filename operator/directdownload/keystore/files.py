"""Reads and locks the files of a keystore, with the errors of this package. Used by its modules."""

import contextlib
import os
import time
from collections.abc import Iterator

from directdownload.hostfiles import locks, reading
from directdownload.keystore import errors
from directdownload.keystore.entries import SIZE_LIMIT_BYTES

_POLL_SECONDS = 0.02


def real(path: str) -> str:
    """The path without symbolic links. Raises UnreadableError if `path` has a NUL character."""
    try:
        return os.path.realpath(path)
    except ValueError as error:
        raise errors.unreadable(error, path) from error


def read(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> reading.Content | None:
    """The file; None if it does not exist. Raises UnreadableError unless it is a regular file within the limit."""
    try:
        return reading.read(path, limit_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except reading.NotRegularError as error:
        raise errors.UnreadableError(
            f"{path} cannot be read: expected a regular file, found another kind; move it"
        ) from error
    except reading.TooLargeError as error:
        raise errors.UnreadableError(
            f"{path} cannot be read: expected at most {limit_bytes} bytes, found more"
        ) from error
    except (OSError, ValueError) as error:
        raise errors.unreadable(error, path) from error


@contextlib.contextmanager
def locked(path: str, timeout_seconds: float) -> Iterator[None]:
    """One writer of the product at a time: holds the lock during the block.

    keytool and the CloudStack agent do not know the lock; `exchange` handles their writes. Creates a missing lock file
    and keeps it, because its removal would admit two writers. Raises WriteError if another process holds the lock for
    longer than `timeout_seconds`, or the file cannot be created.
    """
    descriptor = _open_lock(path)
    try:
        end = time.monotonic() + timeout_seconds
        while not _take(descriptor, path):
            if time.monotonic() >= end:
                raise errors.WriteError(
                    f"{path} was locked by another process for more than {timeout_seconds:g} s; "
                    "find that process (fuser), or try again"
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: str) -> int:
    try:
        return locks.open_file(path)
    except reading.NotRegularError as error:
        raise errors.WriteError(f"{path} is not a regular file; remove it") from error
    except OSError as error:
        raise errors.write_error(error, path, "create the lock file") from error


def _take(descriptor: int, path: str) -> bool:
    try:
        return locks.take(descriptor)
    except OSError as error:
        raise errors.write_error(error, path, "lock") from error
