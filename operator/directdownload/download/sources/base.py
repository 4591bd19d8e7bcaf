"""What every source of bytes offers to the engine: open a range of the file, then read.

Implemented by one module per protocol; `sources.create` chooses. A mirror or a peer is one more source of the same
bytes. Sources raise SourceError, RequestError or StoppedError, and nothing else. A source may have several streams
open at once, each used by one thread.
"""

import dataclasses
from typing import Protocol

from directdownload.download.guard import Guard
from directdownload.download.sources.proxy import Proxies
from directdownload.download.urls import Url
from directdownload.resources.jobs import Policy, Timeouts


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """Which bytes: from `offset_bytes` up to, not including, `end_bytes`; None is the end of the file.

    `validator` and `size_bytes` are what an earlier stream of this source told, if there was one: only that version of
    the file will do. Empty and None accept any.
    """

    offset_bytes: int = 0
    end_bytes: int | None = None
    validator: str = ""
    size_bytes: int | None = None


class Stream(Protocol):
    """An open source.

    `offset_bytes` is where its bytes begin: as asked for, or 0 if the source begins anew, because it has another
    version by now or does not serve ranges. It may go on behind the end that was asked for.
    """

    offset_bytes: int
    #: of the whole file, not of what is left; None if the source does not tell
    size_bytes: int | None
    #: names this version of the file, empty if the source has no strong name for it
    validator: str
    #: whether a part of the file can be asked for
    ranges: bool
    #: what the source says the file is, perhaps empty
    media_type: str

    def readinto(self, buffer: memoryview) -> int:
        """Bytes put into `buffer`, at least one; 0 at the end of what was asked for, or of a complete file."""

    def close(self) -> None:
        """Let the connection go; harmless when called again."""


class Source(Protocol):
    url: Url

    def open(self, ask: Ask, guard: Guard) -> Stream:
        """Connect and ask; whatever waits, here and in the stream, looks at `guard` every TICK_SECONDS."""


@dataclasses.dataclass(frozen=True, slots=True)
class SourceOptions:
    """What every source obeys. `headers` go to the origin of this source only; `proxies` are for http and https."""

    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    policy: Policy = dataclasses.field(default_factory=Policy)
    trust_bundle: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    proxies: Proxies = dataclasses.field(default_factory=Proxies)
