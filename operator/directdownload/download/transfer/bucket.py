"""The bandwidth limit of a download, shared by all its connections."""

import threading
import time

from directdownload.download.guard import Guard
from directdownload.download.transfer.schedule import BLOCK_BYTES


class TokenBucket:
    """At most `bytes_per_second` on average, with bursts of a tenth of a second; 0 means no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._ready_at = time.monotonic()
        #: the most that one read may take
        self.block_bytes = BLOCK_BYTES if not bytes_per_second else max(1, min(BLOCK_BYTES, bytes_per_second // 10))

    def take(self, count: int, guard: Guard) -> None:
        """Account for `count` received bytes: wait until the next may come."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._ready_at = max(self._ready_at, now - 0.1) + count / self._rate
            pause = self._ready_at - now
        if pause > 0:
            guard.wait(pause)
