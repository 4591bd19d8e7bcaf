"""A source within a transfer: its state and its connections.

Called by the transfer, under its lock unless stated otherwise.
"""

import dataclasses
import enum
import threading
from collections.abc import Sequence
from typing import Any

from directdownload.download import sources
from directdownload.download.errors import DownloadError
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.schedule import Candidate, Claim


@dataclasses.dataclass(eq=False, slots=True)
class Supplier:
    """`candidate` is the schedule's view of it."""

    source: sources.Source
    candidate: Candidate
    #: the version that it serves, from an earlier attempt or from its first answer
    validator: str = ""
    #: of its last answer that was of use; None before that
    media_type: str | None = None
    failure: DownloadError | None = None
    #: the ranges that it wrote in this transfer
    delivered: Ranges = dataclasses.field(default_factory=Ranges)
    bad_pieces: int = 0
    #: of its connection that released a claim last; 0: unknown
    bytes_per_second: float = 0.0
    #: how many failures of its only connection are still tolerated
    patience: int = 0
    #: serves no ranges, or no validator shows that two are of the same version: usable only alone, from the beginning
    whole_only: bool = False

    def fail(self, error: DownloadError) -> None:
        self.failure = self.failure or error
        self.candidate.failed = True

    def limit_to(self, connections: int) -> None:
        """Use at most this many connections: more were refused or did not help."""
        self.candidate.limit = min(self.candidate.limit, connections)


class Busy(enum.Enum):
    """The activity of a connection: it waits for its source only while it receives."""

    OPENING = enum.auto()
    RECEIVING = enum.auto()
    #: or waiting for a buffer, the disk or the bandwidth limit
    WRITING = enum.auto()


class Connection:
    """A thread that fetches one claim after another from one supplier."""

    def __init__(self, supplier: Supplier, number: int) -> None:
        self.supplier = supplier
        self.released = threading.Event()
        #: released because another connection is faster
        self.replaced = False
        self.claim: Claim | None = None
        #: its own thread sets these two, not under the lock
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
    """The suppliers expected to deliver; none while a connection waits for the host itself, which may be slow."""
    if any(connection.busy is Busy.WRITING for connection in connections):
        return []
    return [connection.supplier for connection in connections if connection.busy is Busy.RECEIVING]


def blamed_for(start: int, end: int, suppliers: Sequence[Supplier]) -> list[Supplier]:
    """Note a bad piece; return the suppliers that are given up for it: for a second one, or where others are left."""
    guilty = [supplier for supplier in suppliers if supplier.delivered.overlaps(start, end)]
    for supplier in guilty:
        supplier.delivered.remove(start, end)
        supplier.bad_pieces += 1
    others = [supplier for supplier in suppliers if not supplier.candidate.failed and supplier not in guilty]
    return [supplier for supplier in guilty if supplier.bad_pieces > 1 or (others and len(guilty) == 1)]
