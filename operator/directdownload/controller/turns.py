"""Turns of requests that nothing depends on: few at a time, a little apart, none after a refusal."""

import time

AT_ONCE = 4
APART_SECONDS = 0.05


class Turns:
    """One for each kind of such requests. Nobody waits: there is a turn now, or there is none."""

    def __init__(self) -> None:
        self._running = 0
        self._next_monotonic = 0.0

    def begin(self) -> bool:
        """Whether a request may be sent now; then `end` must follow."""
        now = time.monotonic()
        if self._running >= AT_ONCE or now < self._next_monotonic:
            return False
        self._running += 1
        self._next_monotonic = now + APART_SECONDS
        return True

    def end(self) -> None:
        self._running -= 1

    def hold(self, seconds: float) -> None:
        """None for so long."""
        self._next_monotonic = max(self._next_monotonic, time.monotonic() + seconds)
