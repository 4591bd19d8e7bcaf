"""The bandwidth limit of a download, shared by all its connections."""

import threading
import time

from directdownload.download.guard import Guard
from directdownload.download.transfer.schedule import BLOCK_BYTES
from directdownload.tokenbucket import TokenBucket

_BURST_SECONDS = 0.1


class Bandwidth:
    """At most `bytes_per_second` on average, with bursts of a tenth of a second; 0 means no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        #: the most that one read may take
        self.block_bytes = BLOCK_BYTES
        self._lock = threading.Lock()
        self._bucket: TokenBucket | None = None
        if bytes_per_second:
            burst = bytes_per_second * _BURST_SECONDS
            self.block_bytes = max(1, min(BLOCK_BYTES, int(burst)))
            self._bucket = TokenBucket(1 / bytes_per_second, burst, 0, time.monotonic())

    def take(self, count: int, guard: Guard) -> None:
        """Account for `count` received bytes: wait until the next may come."""
        pause_seconds = self.charge(count)
        if pause_seconds > 0:
            guard.wait(pause_seconds)

    def charge(self, count: int) -> float:
        """Account for `count` received bytes; return the seconds until the next may come."""
        with self._lock:
            if self._bucket is None:
                return 0.0
            self._bucket, pause_seconds = self._bucket.take(time.monotonic(), count)
            return pause_seconds
