"""Files of a host that others write, too: read bounded, no link followed, never waited for.

Used by the modules of this package; they say with `unreadable` and `write_error` what failed, and what to do.
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
    """A file as it was read: all its bytes, and its status before them."""

    data: bytes
    status: os.stat_result


def real(path: str) -> str:
    """The path without symbolic links. Raises UnreadableError for what can be no path."""
    try:
        return os.path.realpath(path)
    except ValueError as error:
        raise unreadable(error, path) from error


def read(path: str, limit_bytes: int = SIZE_LIMIT_BYTES) -> Content | None:
    """None if there is no such file. Raises UnreadableError for anything but a regular file of at most the limit."""
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
    """Equal as long as nobody has written: device, inode, size, mtime_ns and ctime_ns."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unreadable(error: OSError | ValueError, path: str) -> errors.UnreadableError:
    """ValueError is what Python raises for a path that no call takes: one with a NUL character."""
    if isinstance(error, ValueError):
        return errors.UnreadableError(f"{path!r} cannot be read: expected a path without NUL characters")
    return errors.UnreadableError(f"{path} cannot be read: {_text(error)}")


def write_error(error: OSError, path: str, doing: str) -> errors.WriteError:
    """`doing` says what was tried, such as "write the new version"."""
    advice = _ADVICE.get(error.errno or 0, "check the kernel's log and the file system")
    return errors.WriteError(f"{path}: cannot {doing}: {_text(error)}; {advice}")


def _text(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
