"""Syncing written bytes during a transfer, and reporting its progress.

Called by the transfer. Bytes are synced before a journal lists them: so the order is look, sync, write the journal.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from directdownload.download.errors import storage_error
from directdownload.download.guard import TICK_SECONDS
from directdownload.download.transfer.ranges import Ranges


class Sync:
    """Every interval: sync the part, then pass `keep` the ranges written before. More often, pass `report` their size.

    `written` returns the ranges that are written when it is called.
    """

    def __init__(
        self,
        descriptor: int,
        path: str,
        interval_seconds: float,
        written: Callable[[], Ranges],
        keep: Callable[[Ranges, int], None],
        report: Callable[[int, int], None],
    ) -> None:
        self._descriptor = descriptor
        self._path = path
        self._interval_seconds = interval_seconds
        self._written = written
        self._keep = keep
        self._report = report
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._saying = threading.Lock()
        self._rate = 0.0
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start, with a first report, for which the bytes do not wait. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Report nothing in this context, nor later the ranges seen before it, as the caller discards written bytes."""
        with self._saying:
            yield

    def check(self) -> None:
        """Raise a failure of the background thread."""
        if self._failure is not None:
            raise self._failure

    def end(self, *, sync: bool) -> None:
        """Stop; with `sync`, sync and report once more, else raise a failure."""
        self._ended.set()
        if self._thread is None:
            return
        self._thread.join()
        if sync and self._failure is None:
            self._step()
        if not sync:
            # the kernel reports a failed write only once, to either sync
            self.check()
        self._report(self._written().total_bytes, int(self._rate))

    def _run(self) -> None:
        try:
            self._say()
        except Exception as error:  # `check` raises it again
            self._failure = error

    def _say(self) -> None:
        self._step()
        synced_at = rated_at = time.monotonic()
        rated_bytes = self._written().total_bytes
        tick = min(TICK_SECONDS, self._interval_seconds) or TICK_SECONDS
        while not self._ended.wait(tick):
            now, written_bytes = time.monotonic(), self._written().total_bytes
            # a restart from zero is not a negative rate
            current = max(0, written_bytes - rated_bytes) / (now - rated_at)
            # smoothed over some seconds: one slow tick is not a stall
            self._rate = current if not self._rate else self._rate + (current - self._rate) * min(1.0, tick / 2)
            rated_at, rated_bytes = now, written_bytes
            self._report(written_bytes, int(self._rate))
            if now - synced_at >= self._interval_seconds:
                self._step()
                synced_at = time.monotonic()

    def _step(self) -> None:
        with self._saying:
            written = self._written()
            try:
                os.fdatasync(self._descriptor)
                self._keep(written, int(self._rate))
            except OSError as error:
                raise storage_error(error, self._path, "write") from error
