"""Runs what may block for ever in threads of its own: opening a file on a file system that hangs.

A thread that hangs cannot be ended. So the caller waits a bounded time and goes on; a bounded number of threads waits
for each pool, so that a hung pool neither keeps others from working nor fills the process; and threads keep the process
from ending no longer than anything else. A descriptor that comes too late is closed.
"""

import asyncio
import collections
import contextlib
import os
import threading
from collections.abc import Callable

MOST_PER_POOL = 4


class BusyError(Exception):
    """As many threads as may be wait for this pool already."""


class Threads:
    """Of one event loop."""

    def __init__(self) -> None:
        self._running: collections.Counter[str] = collections.Counter()

    async def descriptor(self, pool: str, opening: Callable[[], int], seconds: float) -> int:
        """What `opening` returns. Raises what it raises, BusyError, and TimeoutError after `seconds`."""
        if self._running[pool] >= MOST_PER_POOL:
            raise BusyError(pool)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def work() -> None:
            found, failed = -1, None
            try:
                found = opening()
            except Exception as error:
                failed = error
            try:
                loop.call_soon_threadsafe(finish, found, failed)
            except RuntimeError:
                # the loop has ended
                _close(found)

        def finish(found: int, failed: Exception | None) -> None:
            self._running[pool] -= 1
            if failed is not None:
                future.set_exception(failed)
            else:
                future.set_result(found)

        self._running[pool] += 1
        threading.Thread(target=work, name=f"opens a file of {pool}", daemon=True).start()
        taken = False
        try:
            await asyncio.wait((future,), timeout=seconds)
            if not future.done():
                raise TimeoutError
            taken = True
            return future.result()
        finally:
            if not taken:
                future.add_done_callback(_discard)


def _discard(future: asyncio.Future[int]) -> None:
    if not future.cancelled() and future.exception() is None:
        _close(future.result())


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
