"""Whether the sources deliver too little: a server that trickles would hold a slot of its zone until the deadline.

Called by the transfer, under its lock, several times a second. Pure: no clock, no threads, no I/O. The average is over
time in which nothing but the sources was waited for: a slow disk, a limit of our own or a process that stood still
make no source slow.
"""

import collections

from directdownload.download.errors import SourceError
from directdownload.download.guard import PART_IS_KEPT
from directdownload.download.urls import Url
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

#: What the average is over.
WINDOW_SECONDS = 120.0
_MARKS = 24
#: looks come far more often; what is longer counts as this, as the process itself stood still
_LOOK_SECONDS = 1.0


class Pace:
    """The least rate of a transfer, all its connections together.

    With a bandwidth limit it is at most half of that, so that a transfer that keeps to its limit is never too slow.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        minimum, bandwidth = limits.minimum_bytes_per_second, limits.bandwidth_bytes_per_second
        #: bytes per second; 0: none
        self.minimum = min(minimum, bandwidth // 2) if bandwidth else minimum
        self.window_seconds = WINDOW_SECONDS
        self._looked = now
        self._waited = 0.0
        #: seconds waited and bytes received until then; the first one is where the average begins
        self._marks: collections.deque[tuple[float, int]] = collections.deque()

    def begin_anew(self) -> None:
        """Whoever delivers from now on has a whole window."""
        self._marks.clear()

    def look(self, now: float, received_bytes: int, *, waiting: bool) -> float | None:
        """Bytes per second of the last window if they are fewer than the minimum, else None.

        `received_bytes` never falls. `waiting`: sources are waited for, and nothing else.
        """
        seconds, self._looked = min(now - self._looked, _LOOK_SECONDS), now
        if not self.minimum or not waiting:
            return None
        self._waited += seconds
        marks = self._marks
        if not marks or self._waited - marks[-1][0] >= self.window_seconds / _MARKS:
            marks.append((self._waited, received_bytes))
        while len(marks) > 1 and self._waited - marks[1][0] >= self.window_seconds:
            marks.popleft()
        waited = self._waited - marks[0][0]
        if waited < self.window_seconds:
            return None
        rate = (received_bytes - marks[0][1]) / waited
        return rate if rate < self.minimum else None

    def failure(self, url: Url, bytes_per_second: float) -> SourceError:
        """What is said of one of the sources that were waited for."""
        return SourceError(
            Reason.SOURCE_TOO_SLOW,
            f"{url}: received {bytes_per_second:.0f} bytes per second on average over {self.window_seconds:g} s, "
            f"expected at least {self.minimum} (downloads.minimumRate of the Zone, --minimum-rate of directdownload "
            "fetch); "
            f"{PART_IS_KEPT}",
        )
