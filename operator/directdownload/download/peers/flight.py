"""A piece on its way from a parent: what the transfer knows of it. No thread, no socket."""

import contextlib
import threading
import time
from collections.abc import Iterator


class Flight:
    """Its own thread receives; the others look, under the lock of the transfer."""

    def __init__(self, host: str, index: int, start: int, end: int) -> None:
        self.host = host
        self.index = index
        self.start = start
        self.end = end
        self.released = threading.Event()
        #: released because it takes too long
        self.slow = False
        #: blocks that are on their way to the disk
        self.unwritten = 0
        #: it waits for the disk or the limit of the rate, and not for its parent
        self.held = False
        self._seconds = 0.0
        self._since: float | None = None

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        self.held = True
        try:
            yield
        finally:
            self.held = False

    @contextlib.contextmanager
    def receiving(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            began, self._since = self._since, None
            self._seconds += time.monotonic() - began

    def receiving_seconds(self, now: float) -> float:
        """How long it has waited for its parent so far."""
        since = self._since
        return self._seconds + (now - since if since is not None else 0.0)
