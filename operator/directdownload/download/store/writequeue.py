"""Writing behind the connections: blocks wait in a queue, and threads write several of them at once.

Called by the transfer: a connection receives while earlier blocks go to the disk. Whoever waits for room waits for a
buffer, so the buffers bound the queue.
"""

import collections
import dataclasses
import threading
from collections.abc import Callable

from directdownload.download.guard import TICK_SECONDS, Guard

#: Blocks on their way to the disk: it has the next one when one returns. More gained nothing (docs/performance.md).
_WRITERS = 2


@dataclasses.dataclass(eq=False, slots=True)
class _Block:
    data: memoryview
    position: int
    report: Callable[[bool], None]
    ended: bool = False
    written: bool = False


class WriteQueue:
    """Calls `write(data, position)` for each block, and reports each in the order in which they were put.

    The first failure is kept for `check`; nothing is written after it. Always `close` it.
    """

    def __init__(self, write: Callable[[memoryview, int], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._added, self._reported = threading.Condition(self._lock), threading.Condition(self._lock)
        self._waiting: collections.deque[_Block] = collections.deque()
        #: not yet reported, in their order
        self._open: collections.deque[_Block] = collections.deque()
        self._closed = False
        self._failure: Exception | None = None
        self._threads: list[threading.Thread] = []

    def put(self, data: memoryview, position: int, report: Callable[[bool], None]) -> None:
        """Write `data` soon. Then, in a thread of the queue, `report` gets whether it is written."""
        block = _Block(data, position, report)
        with self._lock:
            self._waiting.append(block)
            self._open.append(block)
            if len(self._threads) < min(_WRITERS, len(self._open)):
                thread = threading.Thread(target=self._run, name=f"write-{len(self._threads) + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._added.notify()

    def check(self) -> None:
        """Raise the failure of a block."""
        if self._failure is not None:
            raise self._failure

    def drain(self, guard: Guard) -> None:
        """Wait until all blocks are reported. Raises what `check` does."""
        with self._lock:
            while self._open:
                guard.check()
                self._reported.wait(TICK_SECONDS)
        self.check()

    def close(self) -> None:
        """End the threads when all blocks are reported. Idempotent; raises nothing."""
        with self._lock:
            self._closed = True
            self._added.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (block := self._next()) is not None:
            try:
                self._take(block)
            except Exception as error:  # `check` raises it again
                self._failure = self._failure or error

    def _take(self, block: _Block) -> None:
        try:
            if self._failure is None:
                self._write(block.data, block.position)
                block.written = True
        except Exception as error:
            self._failure = self._failure or error
        with self._lock:
            block.ended = True
            while self._open and self._open[0].ended:
                first = self._open.popleft()
                first.report(first.written)
            self._reported.notify_all()

    def _next(self) -> _Block | None:
        with self._lock:
            while not self._waiting and not self._closed:
                self._added.wait()
            return self._waiting.popleft() if self._waiting else None
