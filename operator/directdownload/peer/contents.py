"""The copies that are in use. Thread-safe.

Called by `session` and `watches`. A copy is held only while somebody asks for it, so that a removed file takes no room
on the disk for longer.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable

from directdownload.peer.asking import Ask
from directdownload.peer.copies import Copy, GoneError
from directdownload.peer.credentials import Credentials
from directdownload.peer.table import Opened

#: After this time the opener is asked again whether these are still the files.
CONFIRM_SECONDS = 5.0
_IDLE_SECONDS = 10.0
_COPIES_LIMIT = 256


@dataclasses.dataclass(slots=True)
class _Held:
    copy: Copy
    confirmed_monotonic: float
    used_monotonic: float


class Contents:
    """`ask` is the opener; `clock` gives seconds since 1970."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.time) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        # the one used last at the end
        self._held: collections.OrderedDict[str, _Held] = collections.OrderedDict()
        self._credentials: Credentials | None = None
        #: why the opener did not answer last time; empty if it did
        self.problem = ""

    def use(self, credentials: Credentials) -> None:
        """From now on. Copies are found anew if they mean something else to these."""
        with self._lock:
            before, self._credentials = self._credentials, credentials
            if before is not None and not credentials.vouches_as(before):
                self._held.clear()

    def find(self, content: str) -> Copy | None:
        """The copy, with all that its log says now; None if there is none."""
        now = time.monotonic()
        with self._lock:
            held = self._held.get(content)
            if held is not None:
                held.used_monotonic = now
                self._held.move_to_end(content)
        if held is None or now - held.confirmed_monotonic > CONFIRM_SECONDS:
            held = self._confirmed(content, held)
            if held is None:
                return None
        try:
            while held.copy.look():
                pass
        except GoneError:
            self.forget(content, held.copy)
            return None
        return held.copy

    def forget(self, content: str, copy: Copy) -> None:
        """It is gone."""
        with self._lock:
            held = self._held.get(content)
            if held is not None and held.copy is copy:
                del self._held[content]

    def tidy(self) -> None:
        """Let go of what nobody uses; to be called about every second."""
        least = time.monotonic() - _IDLE_SECONDS
        with self._lock:
            idle = [content for content, held in self._held.items() if held.used_monotonic < least]
            let_go = [self._held.pop(content) for content in idle]
        # here their descriptors are closed, outside the lock
        let_go.clear()

    def _confirmed(self, content: str, held: _Held | None) -> _Held | None:
        try:
            opened = self._ask(content)
        except OSError as error:
            self.problem = f"the opener does not answer: {error.strerror or error}"
            # it may be starting again: what is open stays good
            return held
        self.problem = ""
        if opened is None:
            if held is not None:
                self.forget(content, held.copy)
            return None
        try:
            return self._hold(content, opened)
        except OSError:
            # it went in this moment
            return None

    def _hold(self, content: str, opened: Opened) -> _Held | None:
        """Raises OSError."""
        now = time.monotonic()
        with self._lock:
            credentials, held = self._credentials, self._held.get(content)
            if credentials is None:
                opened.close()
                return None
            copy = Copy(content, opened, credentials, self._clock)
            if held is not None and held.copy.continues(copy):
                held.confirmed_monotonic = now
                return held
            held = self._held[content] = _Held(copy, now, now)
            surplus = self._held.popitem(last=False) if len(self._held) > _COPIES_LIMIT else None
        del surplus
        return held
