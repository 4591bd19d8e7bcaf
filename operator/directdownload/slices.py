"""Long work in the event loop, in short slices: others get their turn in between, above all the renewal of the Lease.

What is read before a slice may have changed after it.
"""

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

SECONDS = 0.005

T = TypeVar("T")


class Slices:
    """Begins with the work, or with a part of it that has waited for something."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def give_way(self) -> None:
        """Called between two pieces of the work: returns at once until the slice is used up."""
        if time.monotonic() - self._began > SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()


class SharedSlices:
    """One slice for several workers: once they have used it up together, all give way."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ending = False

    async def give_way(self) -> None:
        """As `Slices.give_way`. In one turn of the event loop, all workers together exceed the slice once."""
        while time.monotonic() - self._began > SECONDS:
            if not self._ending:
                self._ending = True
                asyncio.get_running_loop().call_soon(self._begin)
            await asyncio.sleep(0)

    def _begin(self) -> None:
        self._began, self._ending = time.monotonic(), False


async def run(steps: Generator[None, None, T], worked: SharedSlices) -> T:
    """The result of `steps`, which are short. Nothing else happens between the last one and the return."""
    while True:
        await worked.give_way()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
