"""The body of an HTTP/1.1 response, in the three framings of RFC 9112, section 6.

Called by the HTTP source. http.client's own readers loop until a whole buffer is full and follow endless trailers;
these return the bytes that have arrived, and are bounded. They raise SourceError(Truncated) when a body ends early.
"""

import io
import re
from typing import Protocol

from directdownload.download.errors import SourceError
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason

_CHUNK_LINE_LIMIT_BYTES = 256
_TRAILER_LINES_LIMIT = 64
_TRAILER_LINE_LIMIT_BYTES = 8192
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class Body(Protocol):
    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` and return the number of bytes; 0 at the end of the body."""


class LengthBody:
    """A body of exactly `length_bytes`."""

    def __init__(self, url: Url, reader: io.BufferedReader, length_bytes: int) -> None:
        self._url, self._reader, self._left, self._length = url, reader, length_bytes, length_bytes

    def readinto(self, buffer: memoryview) -> int:
        if not self._left:
            return 0
        count = self._reader.readinto1(buffer[: min(len(buffer), self._left)])
        if not count:
            raise SourceError(
                Reason.TRUNCATED,
                f"{self._url}: the server announced {self._length} bytes but ended after {self._length - self._left}",
            )
        self._left -= count
        return count


class ChunkedBody:
    """A body in chunks, each with its size; the last one has size 0."""

    def __init__(self, url: Url, reader: io.BufferedReader) -> None:
        self._url, self._reader = url, reader
        self._left = 0
        self._begun = self._ended = False

    def readinto(self, buffer: memoryview) -> int:
        if not self._left and not self._ended:
            self._next_chunk()
        if self._ended:
            return 0
        count = self._reader.readinto1(buffer[: min(len(buffer), self._left)])
        if not count:
            raise self._truncated()
        self._left -= count
        return count

    def _next_chunk(self) -> None:
        if self._begun and self._line(2) not in (b"\r\n", b"\n"):
            raise self._malformed()
        self._begun = True
        match = _CHUNK_SIZE.fullmatch(self._line(_CHUNK_LINE_LIMIT_BYTES))
        if match is None:
            raise self._malformed()
        self._left = int(match[1], 16)
        if self._left:
            return
        for _ in range(_TRAILER_LINES_LIMIT):
            if self._line(_TRAILER_LINE_LIMIT_BYTES) in (b"\r\n", b"\n"):
                self._ended = True
                return
        raise self._malformed()

    def _line(self, limit_bytes: int) -> bytes:
        line = self._reader.readline(limit_bytes)
        if not line:
            raise self._truncated()
        return line

    def _truncated(self) -> SourceError:
        return SourceError(Reason.TRUNCATED, f"{self._url}: the server closed the connection before the last chunk")

    def _malformed(self) -> SourceError:
        return SourceError(Reason.TRUNCATED, f"{self._url}: the server sent malformed chunks")


class UntilCloseBody:
    """All bytes until the server closes the connection: a cut looks like the end."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def readinto(self, buffer: memoryview) -> int:
        return self._reader.readinto1(buffer)


class PeekedBody:
    """A body whose first bytes are known before they are read: `head`, fewer than asked for only if it ends there."""

    def __init__(self, content: Body, head_bytes: int) -> None:
        self._content = content
        buffer, filled = memoryview(bytearray(head_bytes)), 0
        while filled < head_bytes and (count := content.readinto(buffer[filled:])):
            filled += count
        self.head = bytes(buffer[:filled])
        self._left = self.head

    def readinto(self, buffer: memoryview) -> int:
        if not self._left:
            return self._content.readinto(buffer)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
