"""A source within a transfer: what is known of it, and its connections.

Called by the transfer, under its lock, save where it says otherwise.
"""

import dataclasses
import enum
import threading
from collections.abc import Sequence
from typing import Any

from directdownload.download import sources
from directdownload.download.errors import DownloadError
from directdownload.download.ranges import Ranges
from directdownload.download.schedule import Candidate, Claim


@dataclasses.dataclass(eq=False, slots=True)
class Supplier:
    """`candidate` is what the schedule sees of it."""

    source: sources.Source
    candidate: Candidate
    #: names the version that it serves, from an earlier attempt or from its first answer
    validator: str = ""
    #: of its last answer that was of use; None before that
    media_type: str | None = None
    failure: DownloadError | None = None
    #: what it wrote in this transfer
    delivered: Ranges = dataclasses.field(default_factory=Ranges)
    bad_pieces: int = 0
    #: of its connection that let go of some work last; 0: not known
    bytes_per_second: float = 0.0
    #: how many failures of its only connection are forgiven
    patience: int = 0
    #: serves no ranges, or nothing tells whether two are of the same version: of use only alone and from the beginning
    whole_only: bool = False

    def fail(self, error: DownloadError) -> None:
        self.failure = self.failure or error
        self.candidate.failed = True

    def limit_to(self, connections: int) -> None:
        """It refused, or did not profit from, more connections than this."""
        self.candidate.limit = min(self.candidate.limit, connections)


class Busy(enum.Enum):
    """What a connection does: only while it receives is its source waited for."""

    OPENING = enum.auto()
    RECEIVING = enum.auto()
    #: or waiting until it may: for a buffer, for the disk, for the bandwidth limit
    WRITING = enum.auto()


class Connection:
    """A thread that fetches claims from one supplier, one after the other."""

    def __init__(self, supplier: Supplier, number: int) -> None:
        self.supplier = supplier
        self.released = threading.Event()
        #: released because another one does its work faster
        self.replaced = False
        self.claim: Claim | None = None
        #: these two are set by its own thread, not under the lock
        self.busy = Busy.OPENING
        self.received_bytes = 0
        self.bytes_per_second = supplier.bytes_per_second
        self._name = f"connection-{number}"
        self._thread: threading.Thread | None = None

    def start(self, work: Any) -> None:
        self._thread = threading.Thread(target=work, args=(self,), name=self._name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Not under the lock."""
        if self._thread is not None:
            self._thread.join()


def sources_waited_for(connections: Sequence[Connection]) -> list[Supplier]:
    """Those that are to deliver; none while a connection waits for anything of ours, which may be what is slow."""
    if any(connection.busy is Busy.WRITING for connection in connections):
        return []
    return [connection.supplier for connection in connections if connection.busy is Busy.RECEIVING]
