"""Reads files of a host that others write as well: bounded, without following links, never blocking.

Used by the modules of this package. `unreadable` and `write_error` make errors with the cause and advice.
"""

import dataclasses
import errno
import os
import stat

from directdownload.keystore import errors
from directdownload.keystore.entries import SIZE_LIMIT_BYTES

_DIRECTORY_ADVICE = "let this process write to its directory, which must not be mounted read-only"
_ADVICE = {
    errno.EROFS: _DIRECTORY_ADVICE,
    errno.EACCES: _DIRECTORY_ADVICE,
    errno.EPERM: (
        "check that neither file nor directory is immutable (lsattr), and that this process may give files away"
    ),
    errno.ENOSPC: "free space on its file system",
    errno.EDQUOT: "raise the quota of its owner",
    errno.ENOENT: "create its directory",
    errno.EIO: "check the kernel's log: the disk may be failing",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes, and its status before they were read."""

    data: bytes
    status: os.stat_result


def real(path: str) -> str:
    """The path without symbolic links. Raises UnreadableError if `path` has a NUL character."""
    try:
        return os.path.realpath(path)
    except ValueError as error:
        raise unreadable(error, path) from error


def read(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> Content | None:
    """The file; None if it does not exist. Raises UnreadableError unless it is a regular file within the limit."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise unreadable(error, path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise errors.UnreadableError(f"{path} cannot be read: expected a regular file, found another kind; move it")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            data = bytearray()
            while len(data) <= limit_bytes and (block := file.read(limit_bytes + 1 - len(data))):
                data += block
    except OSError as error:
        raise unreadable(error, path) from error
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise errors.UnreadableError(f"{path} cannot be read: expected at most {limit_bytes} bytes, found more")
    return Content(bytes(data), status)


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """A value that changes with every write: device, inode, size, mtime_ns and ctime_ns."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sync_directory(path: str) -> None:
    """Makes renames and removals in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unreadable(error: OSError | ValueError, path: str) -> errors.UnreadableError:
    """The error for `path`. Python raises ValueError for a path with a NUL character."""
    if isinstance(error, ValueError):
        return errors.UnreadableError(f"{path!r} cannot be read: expected a path without NUL characters")
    return errors.UnreadableError(f"{path} cannot be read: {_text(error)}")


def write_error(error: OSError, path: str, doing: str) -> errors.WriteError:
    """The error for a failed write. `doing` completes "cannot", such as "write the new version"."""
    advice = _ADVICE.get(error.errno or 0, "check the kernel's log and the file system")
    return errors.WriteError(f"{path}: cannot {doing}: {_text(error)}; {advice}")


def _text(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
