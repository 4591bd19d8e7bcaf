"""When to give up: the stop event of the process and the deadline of the attempt, checked in one place.

Whatever in the engine waits or loops asks its Guard at least every TICK_SECONDS.
"""

import dataclasses
import threading
import time

from directdownload.download.errors import ReleasedError, StoppedError
from directdownload.resources.reasons import Reason

#: The longest that anything waits before it looks at its Guard again.
TICK_SECONDS = 0.25
PART_IS_KEPT = "the received bytes are kept for the next attempt"


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """`deadline` is on the monotonic clock; None means no deadline."""

    stop: threading.Event
    deadline: float | None = None
    deadline_seconds: float = 0
    #: for people: what giving up means
    consequence: str = PART_IS_KEPT
    #: set when one connection, not the whole download, is to end
    released: threading.Event | None = None

    @classmethod
    def start(cls, stop: threading.Event, deadline_seconds: float = 0, consequence: str = PART_IS_KEPT) -> "Guard":
        """A guard whose deadline begins now; 0 seconds means none."""
        deadline = time.monotonic() + deadline_seconds if deadline_seconds > 0 else None
        return cls(stop, deadline, deadline_seconds, consequence)

    def for_connection(self, released: threading.Event) -> "Guard":
        """The same, for a part of the work that can be ended by itself."""
        return dataclasses.replace(self, released=released)

    def for_stop(self, stop: threading.Event) -> "Guard":
        """The same, but told to stop by another event."""
        return dataclasses.replace(self, stop=stop)

    def check(self) -> None:
        """Raise StoppedError if the time has come, ReleasedError if only this connection is to end."""
        if self.stop.is_set():
            raise StoppedError(Reason.INTERRUPTED, f"stopped on request; {self.consequence}")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise StoppedError(
                Reason.DEADLINE_EXCEEDED,
                f"not finished within the deadline of {self.deadline_seconds:g} s; {self.consequence}",
            )
        if self.released is not None and self.released.is_set():
            raise ReleasedError(Reason.INTERRUPTED, "this connection is not needed any more")

    def wait(self, seconds: float) -> None:
        """Sleep, ending early with StoppedError if the time has come."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            self.stop.wait(min(left, TICK_SECONDS))
            self.check()
