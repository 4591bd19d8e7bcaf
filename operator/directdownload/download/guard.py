"""When to stop: the stop event of the process and the deadline of the attempt, checked in one place.

Every wait and loop of the engine checks its Guard at least every TICK_SECONDS.
"""

import dataclasses
import threading
import time

from directdownload.download.errors import ReleasedError, StoppedError
from directdownload.resources.reasons import Reason

#: The longest wait between two checks of a Guard.
TICK_SECONDS = 0.25
PART_IS_KEPT = "the received bytes are kept for the next attempt"


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """`deadline` is on the monotonic clock; None means no deadline."""

    stop: threading.Event
    deadline: float | None = None
    deadline_seconds: float = 0
    #: for messages: the consequence of stopping
    consequence: str = PART_IS_KEPT
    #: set when one connection, not the whole download, must end
    released: threading.Event | None = None

    @classmethod
    def start(cls, stop: threading.Event, deadline_seconds: float = 0, consequence: str = PART_IS_KEPT) -> "Guard":
        """A guard whose deadline starts now; 0 seconds means none."""
        deadline = time.monotonic() + deadline_seconds if deadline_seconds > 0 else None
        return cls(stop, deadline, deadline_seconds, consequence)

    def for_connection(self, released: threading.Event) -> "Guard":
        """The same, for a connection that can end by itself."""
        return dataclasses.replace(self, released=released)

    def for_stop(self, stop: threading.Event) -> "Guard":
        """The same with another stop event."""
        return dataclasses.replace(self, stop=stop)

    def check(self) -> None:
        """Raise StoppedError on a stop or a passed deadline, ReleasedError if only this connection must end."""
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
        """Sleep; raises as `check` does as soon as it would."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            self.stop.wait(min(left, TICK_SECONDS))
            self.check()
