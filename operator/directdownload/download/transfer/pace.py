"""Whether the sources deliver too little: a trickling server would hold a slot of its zone until the deadline.

Called by the transfer, under its lock, several times a second. Pure: no clock, no threads, no I/O. The average covers
only the time spent waiting for the sources: a slow disk, the bandwidth limit or a suspended process does not count.
"""

import collections

from directdownload.download.errors import SourceError
from directdownload.download.guard import PART_IS_KEPT
from directdownload.download.settings import Setting
from directdownload.download.sources.urls import Url
from directdownload.download.terms import Limits
from directdownload.resources.reasons import Reason

#: The window of the average.
WINDOW_SECONDS = 120.0
_MARKS = 24
#: looks come far more often; a longer gap counts as this much, as the process itself was suspended
_LOOK_SECONDS = 1.0


class Pace:
    """The minimum rate of a transfer, all its connections together.

    With a bandwidth limit it is at most half of the limit, so that a transfer at its limit is never too slow.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        minimum, bandwidth = limits.minimum_bytes_per_second, limits.bandwidth_bytes_per_second
        #: bytes per second; 0: none
        self.minimum = min(minimum, bandwidth // 2) if bandwidth else minimum
        self.window_seconds = WINDOW_SECONDS
        self._looked = now
        self._waited = 0.0
        #: samples of seconds waited and bytes received; the average begins at the first one
        self._marks: collections.deque[tuple[float, int]] = collections.deque()

    def begin_anew(self) -> None:
        """Start a new window for the sources that deliver from now on."""
        self._marks.clear()

    def look(self, now: float, received_bytes: int, *, waiting: bool) -> float | None:
        """Bytes per second of the last window if they are fewer than the minimum, else None.

        `received_bytes` never decreases. `waiting`: the transfer waits only for sources.
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
        """The failure of one of the sources that the transfer waited for."""
        return SourceError(
            Reason.SOURCE_TOO_SLOW,
            f"{url}: received {bytes_per_second:.0f} bytes per second on average over {self.window_seconds:g} s, "
            f"expected at least {self.minimum} ({Setting.MINIMUM_RATE}); {PART_IS_KEPT}",
        )
