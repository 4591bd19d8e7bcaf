"""What the parsers of image headers read from: a file on disk, or the first bytes of one that is far away.

Promised to the parsers: offsets and lengths from a header may be used as they are. A read is bounded, so is the sum of
all reads of one image, and bytes that are not there are never made up.
"""

import os
from typing import Protocol

from directdownload.download.errors import SourceError, storage_error
from directdownload.resources.reasons import Reason

#: More than every header that is accepted needs; one image can make us read no more than this.
MAX_READ_BYTES = 4 * 1024 * 1024


class NotInHeadError(Exception):
    """What was asked for lies behind the first bytes of a file that is far away."""


class Reader(Protocol):
    """`size_bytes` is None, or a lie, only where `complete` is false."""

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def complete(self) -> bool:
        """The whole file can be read, so that what its end says can and must be checked."""

    def peek(self, offset: int, count: int) -> bytes:
        """`count` bytes, fewer (or none) where the file ends; NotInHeadError."""


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
    """The first bytes of a file of which the rest is not here; `size_bytes` of the whole is what its server says."""

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
    """Exactly `count` bytes; FormatMismatch if the file has no `what` there."""
    data = image.peek(offset, count)
    if len(data) != count:
        raise malformed(image_format, f"{what} at byte {offset} is not in the file: it is truncated or damaged")
    return data


def check_inside(image: Reader, offset: int, count: int, image_format: str, what: str) -> None:
    """FormatMismatch unless the file has these bytes; what is far away is believed."""
    if image.complete and image.size_bytes is not None and not 0 <= offset <= image.size_bytes - count:
        raise malformed(image_format, f"{what} at byte {offset} is not in the file: it is truncated or damaged")


def unsafe(message: str) -> SourceError:
    """The image names other files, or may: a virtual machine must not be given it."""
    return SourceError(Reason.UNSAFE_IMAGE, message)


def mismatch(message: str) -> SourceError:
    """The image is not of the format that it should be."""
    return SourceError(Reason.FORMAT_MISMATCH, message)


def malformed(image_format: str, problem: str) -> SourceError:
    """The image has the mark of the format, and is no good one."""
    return mismatch(f"the image is not a valid {image_format}: {problem}")
