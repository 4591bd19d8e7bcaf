"""The interface of a source of bytes: open a range of the file, then read.

One module per protocol implements it; `sources.create` chooses. A mirror or a peer is one more source of the same
bytes. Sources raise SourceError, RequestError or StoppedError, and nothing else. A source may have several streams
open at once, each used by one thread.
"""

import dataclasses
import time
from typing import Protocol

from directdownload.download.guard import Guard
from directdownload.download.sources.proxy import Proxies
from directdownload.download.sources.urls import Url
from directdownload.download.terms import SourcePolicy, Timeouts


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """The range asked for: from `offset_bytes` up to, not including, `end_bytes`; None is the end of the file.

    `validator` and `size_bytes` are those of an earlier stream of this source; only that version of the file is
    accepted. Empty and None accept any version.
    """

    offset_bytes: int = 0
    end_bytes: int | None = None
    validator: str = ""
    size_bytes: int | None = None


class Stream(Protocol):
    """An open source.

    Its bytes begin at `offset_bytes`: the offset asked for, or 0 if the source now has another version or serves no
    ranges. The stream may continue after the end asked for.
    """

    offset_bytes: int
    #: of the whole file, not of the rest; None if the source does not report it
    size_bytes: int | None
    #: names this version of the file, empty if the source has no strong name for it
    validator: str
    #: whether a part of the file can be asked for
    ranges: bool
    #: the media type that the source reports; may be empty
    media_type: str

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` and return the number of bytes, at least one; 0 at the end of the range or of the file."""

    def close(self) -> None:
        """Close the connection. Idempotent."""


#: A slow server answers a look with what it has sent by then.
_HEAD_SECONDS = 30.0


def read_head(stream: Stream, count: int, guard: Guard) -> bytes:
    """The first `count` bytes; fewer if the file is shorter, or if they do not come within `_HEAD_SECONDS`."""
    buffer, filled = memoryview(bytearray(count)), 0
    end = time.monotonic() + _HEAD_SECONDS
    while filled < count and time.monotonic() < end:
        guard.check()
        received = stream.readinto(buffer[filled:])
        if not received:
            break
        filled += received
    return bytes(buffer[:filled])


class Source(Protocol):
    url: Url

    def open(self, ask: Ask, guard: Guard) -> Stream:
        """Connect and send the request. Every wait, here and in the stream, checks `guard` every TICK_SECONDS."""


@dataclasses.dataclass(frozen=True, slots=True)
class SourceOptions:
    """Settings of every source. `headers` go to the origin of this source only; `proxies` are for http and https.

    `named_by`: see `Url`.
    """

    timeouts: Timeouts
    policy: SourcePolicy
    trust_bundle: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    proxies: Proxies = dataclasses.field(default_factory=Proxies)
    named_by: str = ""
