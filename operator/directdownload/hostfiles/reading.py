"""Reads files as if they were hostile: bounded, without following a link, never blocking.

Used by all that reads a pool, a keystore or a state directory. It imports little, as the agent's child process per pool
must stay small.
"""

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from directdownload.resources.jobs import Document

D = TypeVar("D", bound="Document")

#: Added to every access. Without O_NONBLOCK, opening a pipe would wait for its other end.
FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SMALL_BYTES = 64 * 1024


class NotRegularError(OSError):
    """It is a directory, a device, a pipe or a socket."""


class TooLargeError(OSError):
    """It has more bytes than are read."""


class Content(NamedTuple):
    """A file's bytes, and its status before they were read."""

    data: bytes
    status: os.stat_result


def open_any(path: str, access: int = os.O_RDONLY, *, dir_fd: int | None = None) -> int:
    """Open a file of any kind but a link; one that `access` creates has mode 0600. Raises OSError."""
    return os.open(path, access | FLAGS, 0o600, dir_fd=dir_fd)


def open_regular(path: str, access: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
    """Open a regular file; return its descriptor and status. Raises OSError, also NotRegularError."""
    descriptor = open_any(path, access)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularError(0, "it is not a regular file")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status


def read(path: str, limit_bytes: int) -> Content:
    """A regular file within the limit. Raises OSError, also NotRegularError and TooLargeError."""
    descriptor, status = open_regular(path)
    try:
        data = bytearray()
        while len(data) <= limit_bytes and (block := os.read(descriptor, limit_bytes + 1 - len(data))):
            data += block
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise TooLargeError(errno.EFBIG, os.strerror(errno.EFBIG))
    return Content(bytes(data), status)


def read_small(path: str) -> bytes | None:
    """The content of a regular file of at most 64 KiB; None if there is no such file."""
    try:
        return read(path, _SMALL_BYTES).data
    except OSError:
        return None


def read_document(path: str, model: type[D]) -> D | None:
    """The document at `path`; None if there is none that `model` accepts. Its values are untrusted."""
    return parse_document(read_small(path), model)


def parse_document(data: bytes | None, model: type[D]) -> D | None:
    """`data` as a document; None if `model` does not accept it."""
    if data is None:
        return None
    try:
        return model.model_validate_json(data)
    except ValueError:
        # pydantic.ValidationError
        return None


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """A value that changes with every write: device, inode, size, mtime_ns and ctime_ns."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
