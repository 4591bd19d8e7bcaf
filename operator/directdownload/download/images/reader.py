"""The readers for the parsers of image headers: of a file on disk, or of the first bytes of a remote file.

Promises to the parsers: offsets and lengths from a header may be used unchecked. A read is bounded, so is the sum of
all reads of one image, and missing bytes are never made up.
"""

import os
from typing import Protocol

from directdownload.download.errors import SourceError, storage_error
from directdownload.resources.reasons import Reason

#: More than any accepted header needs; the limit of all reads of one image.
MAX_READ_BYTES = 4 * 1024 * 1024


class NotInHeadError(Exception):
    """The requested bytes lie after the first bytes of a remote file."""


class Reader(Protocol):
    """`size_bytes` may be None or wrong only where `complete` is false."""

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def complete(self) -> bool:
        """Whether the whole file can be read, so that its end can and must be checked."""

    def peek(self, offset: int, count: int) -> bytes:
        """`count` bytes, fewer (or none) where the file ends. Raises NotInHeadError."""


class FileReader:
    """An open file of a known size."""

    complete = True

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self.size_bytes: int | None = size_bytes
        self._end = size_bytes
        self._left = MAX_READ_BYTES

    def peek(self, offset: int, count: int) -> bytes:
        count = min(count, self._end - offset)
        if count <= 0 or offset < 0:
            return b""
        if count > self._left:
            raise unsafe(f"the header of the image is larger than {MAX_READ_BYTES} bytes: it cannot be checked")
        self._left -= count
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise storage_error(error, "the downloaded file", "inspect") from error


class HeadReader:
    """The first bytes of a remote file; its server reports the `size_bytes` of the whole."""

    complete = False

    def __init__(self, head: bytes, size_bytes: int | None) -> None:
        self._head = head
        self.size_bytes = size_bytes

    def peek(self, offset: int, count: int) -> bytes:
        if self.size_bytes is not None:
            count = min(count, self.size_bytes - offset)
        if count <= 0 or offset < 0:
            return b""
        if offset + count > len(self._head):
            raise NotInHeadError
        return self._head[offset : offset + count]


def read(image: Reader, offset: int, count: int, image_format: str, what: str) -> bytes:
    """Exactly `count` bytes; raises FormatMismatch if the file has no `what` there."""
    data = image.peek(offset, count)
    if len(data) != count:
        raise malformed(image_format, f"{what} at byte {offset} is not in the file: it is truncated or damaged")
    return data


def check_inside(image: Reader, offset: int, count: int, image_format: str, what: str) -> None:
    """Raise FormatMismatch unless the file has these bytes; the size of a remote file is not checked."""
    if image.complete and image.size_bytes is not None and not 0 <= offset <= image.size_bytes - count:
        raise malformed(image_format, f"{what} at byte {offset} is not in the file: it is truncated or damaged")


def unsafe(message: str) -> SourceError:
    """The error for an image that names other files, or may: no virtual machine may get it."""
    return SourceError(Reason.UNSAFE_IMAGE, message)


def mismatch(message: str) -> SourceError:
    """The error for an image of another format than expected."""
    return SourceError(Reason.FORMAT_MISMATCH, message)


def malformed(image_format: str, problem: str) -> SourceError:
    """The error for an invalid image that has the mark of the format."""
    return mismatch(f"the image is not a valid {image_format}: {problem}")
