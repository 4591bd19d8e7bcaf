"""What every source of bytes offers to the engine: open at an offset, then read.

Implemented by one module per protocol; `sources.create` chooses. A mirror or a peer is one more source of the same
bytes. Sources raise SourceError, RequestError or StoppedError, and nothing else.
"""

import dataclasses
from typing import Protocol

from directdownload.download.guard import Guard
from directdownload.download.urls import Url
from directdownload.resources.jobs import Policy, Timeouts


@dataclasses.dataclass(frozen=True, slots=True)
class Resume:
    """Where an earlier attempt got to, and how the source named the version that it read.

    `validator` is what the stream of that attempt said, perhaps empty; `size_bytes` None when it was not known.
    """

    offset_bytes: int
    validator: str = ""
    size_bytes: int | None = None


class Stream(Protocol):
    """An open source. `offset_bytes` is where its bytes begin: as asked for, or 0 if the source begins anew."""

    offset_bytes: int
    #: of the whole file, not of what is left; None if the source does not tell
    size_bytes: int | None
    #: names this version of the file, empty if the source has no strong name for it
    validator: str

    def readinto(self, buffer: memoryview) -> int:
        """Bytes put into `buffer`, at least one; 0 at the end of a complete file."""

    def close(self) -> None: ...


class Source(Protocol):
    url: Url

    def open(self, resume: Resume | None) -> Stream:
        """Connect and ask for the file, from `resume` on if the source still has that version."""


@dataclasses.dataclass(frozen=True, slots=True)
class SourceOptions:
    """What every source obeys. `headers` go to the origin of this source only."""

    guard: Guard
    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    policy: Policy = dataclasses.field(default_factory=Policy)
    trust_bundle: str = ""
    headers: tuple[tuple[str, str], ...] = ()
