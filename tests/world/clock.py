"""An event loop whose clock jumps to what comes next: minutes pass in milliseconds, and margins are exact.

For code that waits by asyncio alone and takes the loop's `time` as its clock; nothing in it may wait for threads,
files or sockets.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end on a loop that begins at second 0.

    Raises:
        RuntimeError: every task waits for something that cannot happen.
    """
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


class JumpingLoop(asyncio.SelectorEventLoop):
    """`seconds` may also be moved forward by a test, as when a machine sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.seconds


class _Selector(selectors.SelectSelector):
    """Finds nothing but what wakes the loop itself."""

    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("every task waits for something that cannot happen")
        if not found and timeout is not None and timeout > 0:
            self._loop.seconds += timeout
        return found
