"""Files that open late or never: the caller goes on, and nothing stays open."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
from tests.world import waiting

from directdownload.csi import threads


class Hanging:
    """Opens a file as soon as the test lets it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.opened: list[int] = []

    def __call__(self) -> int:
        assert self.go.wait(waiting.DEADLINE_SECONDS)
        self.opened.append(os.open("/", os.O_PATH))
        return self.opened[-1]

    def all_closed(self) -> bool:
        return bool(self.opened) and not any(os.path.exists(f"/proc/self/fd/{each}") for each in self.opened)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    found = Hanging()
    yield found
    found.go.set()


async def test_a_file_that_opens_too_late_is_closed(hanging: Hanging) -> None:
    with pytest.raises(TimeoutError):
        await threads.Threads().descriptor("/pool", hanging, 0.01)
    hanging.go.set()
    await waiting.until_async("closed", hanging.all_closed)


async def test_a_file_for_which_nobody_waits_any_more_is_closed(hanging: Hanging) -> None:
    task = asyncio.create_task(threads.Threads().descriptor("/pool", hanging, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hanging.go.set()
    await waiting.until_async("closed", hanging.all_closed)


def test_a_file_that_opens_after_the_loop_has_ended_is_closed(hanging: Hanging) -> None:
    async def late() -> None:
        with pytest.raises(TimeoutError):
            await threads.Threads().descriptor("/pool", hanging, 0.01)

    asyncio.run(late())
    hanging.go.set()
    waiting.until("closed", hanging.all_closed)


async def test_a_bounded_number_waits_for_one_pool_and_others_are_free(hanging: Hanging) -> None:
    running = threads.Threads()
    for _ in range(threads.MOST_PER_POOL):
        with pytest.raises(TimeoutError):
            await running.descriptor("/pool", hanging, 0.01)
    with pytest.raises(threads.BusyError):
        await running.descriptor("/pool", hanging, 60)
    os.close(await running.descriptor("/other", lambda: os.open("/", os.O_PATH), 60))
    hanging.go.set()
    await waiting.until_async("all are closed", lambda: len(hanging.opened) == threads.MOST_PER_POOL)
    await waiting.until_async("all are closed", hanging.all_closed)
    os.close(await running.descriptor("/pool", lambda: os.open("/", os.O_PATH), 60))


async def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(FileNotFoundError):
        await threads.Threads().descriptor("/pool", lambda: os.open("/nonexistent", os.O_PATH), 60)
