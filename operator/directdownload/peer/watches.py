"""Who waits for changes of a content, and the one thread per such content that looks for them.

Called by `session` for each state stream. While nobody listens there is no thread: idle costs nothing.
"""

import contextlib
import logging
import os
import threading
import time
from types import TracebackType
from typing import Self

from directdownload.peer import protocol
from directdownload.peer.contents import Contents
from directdownload.peer.copies import Copy, GoneError

logger = logging.getLogger(__name__)

#: A content that is not here is looked for so often, and one that is here is found again.
ABSENT_SECONDS, _FIND_SECONDS = 0.5, 1.0
#: The opener takes less.
_LOOK_SECONDS = 10.0


class Watches:
    """Of one server. Thread-safe."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}

    def listen(self, content: str) -> "Listener":
        """As a context; it wakes when something changes. Raises RuntimeError if there can be no further thread."""
        with self._lock:
            watch = self._watches.get(content)
            if watch is None:
                watch = _Watch(content, self._contents, self)
                watch.start()
                self._watches[content] = watch
            listener = Listener(self, watch)
            watch.listeners.add(listener)
            return listener

    def leave(self, listener: "Listener") -> None:
        with self._lock:
            watch = listener.watch
            watch.listeners.discard(listener)
            if not watch.listeners:
                watch.stopping.set()
                self._drop(watch)

    def wake(self, watch: "_Watch", *, over: bool = False) -> None:
        """All of its listeners; `over`: the content is gone, and later ones begin anew."""
        with self._lock:
            if over:
                self._drop(watch)
            for listener in watch.listeners:
                listener.over = listener.over or over
                listener.wake()

    def _drop(self, watch: "_Watch") -> None:
        if self._watches.get(watch.content) is watch:
            del self._watches[watch.content]


class Listener:
    """`descriptor` is readable when there is something to look at. `over`: the content has gone."""

    def __init__(self, watches: Watches, watch: "_Watch") -> None:
        self._watches = watches
        self.watch = watch
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.over = False

    @property
    def copy(self) -> Copy | None:
        """None while the content is not here. The first look is waited for."""
        self.watch.looked.wait(_LOOK_SECONDS)
        return self.watch.copy

    def wake(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def looks(self) -> None:
        """What it was woken for is looked at now."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # from here on nobody wakes it
        self._watches.leave(self)
        os.close(self.descriptor)


class _Watch(threading.Thread):
    def __init__(self, content: str, contents: Contents, watches: Watches) -> None:
        super().__init__(name=f"watches {content[:8]}", daemon=True)
        self.content = content
        self.listeners = set[Listener]()
        self.copy: Copy | None = None
        self.looked = threading.Event()
        self.stopping = threading.Event()
        self._contents = contents
        self._watches = watches

    def run(self) -> None:
        try:
            self._run()
        except GoneError:
            pass
        except Exception:
            logger.exception("The watch of a content failed")
        self._watches.wake(self, over=True)

    def _run(self) -> None:
        """Until nobody listens. Raises GoneError."""
        while not self.stopping.is_set():
            self.copy = self._contents.find(self.content)
            self.looked.set()
            if self.copy is not None:
                break
            self.stopping.wait(ABSENT_SECONDS)
        copy, sequence, due = self.copy, -1, time.monotonic() + _FIND_SECONDS
        while copy is not None and not self.stopping.is_set():
            if time.monotonic() > due:
                if self._contents.find(self.content) is not copy:
                    raise GoneError
                due = time.monotonic() + _FIND_SECONDS
            more = copy.look()
            if copy.sequence != sequence:
                sequence = copy.sequence
                self._watches.wake(self)
            if not more:
                self.stopping.wait(protocol.GATHER_SECONDS)
