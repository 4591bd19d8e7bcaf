"""The work queue, with the real event loop: once per key, one at a time, retried, delayed."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from directdownload.cluster import errors
from directdownload.controller import queue
from directdownload.controller.queue import Key, WorkQueue

A, B, C = (Key("placement", name) for name in "abc")
DEADLINE_SECONDS = 10.0


@contextlib.asynccontextmanager
async def working(found: WorkQueue, workers: int = 4) -> AsyncIterator[None]:
    """`found` at work for as long as the block lasts."""
    task = asyncio.create_task(found.run(workers))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for knows no event
        await asyncio.sleep(0.001)


class Recorder:
    """Notes the keys that it is given; then does what `then` says."""

    def __init__(self, then: Callable[[Key], Awaitable[None]] | None = None) -> None:
        self.done: list[Key] = []
        self.running: list[Key] = []
        self.most_at_once = 0
        self.overlaps = 0
        self._then = then

    async def __call__(self, key: Key) -> None:
        # Noted and not raised: the queue would take it for a failure and try again.
        self.overlaps += key in self.running
        self.running.append(key)
        self.most_at_once = max(self.most_at_once, len(self.running))
        try:
            if self._then is not None:
                await self._then(key)
        finally:
            self.running.remove(key)
            self.done.append(key)


async def test_keys_are_done_once_in_the_order_in_which_they_came() -> None:
    recorder = Recorder()
    work = WorkQueue(recorder)
    for key in (B, A, B, C, A):
        work.add(key)
    assert len(work) == 3
    async with working(work, workers=1):
        await until(lambda: len(recorder.done) == 3)
        assert recorder.done == [B, A, C]
        assert len(work) == 0
        work.add(A)
        await until(lambda: len(recorder.done) == 4)


async def test_a_key_is_never_done_twice_at_once_and_no_change_is_lost() -> None:
    gate = asyncio.Event()

    async def wait(_: Key) -> None:
        await gate.wait()

    recorder = Recorder(wait)
    work = WorkQueue(recorder)
    async with working(work):
        work.add(A)
        await until(lambda: recorder.running == [A])
        for _ in range(5):
            work.add(A)
        work.add(B)
        await until(lambda: recorder.running == [A, B])
        gate.set()
        await until(lambda: len(recorder.done) >= 3)
        assert sorted(recorder.done) == [A, A, B]
        assert recorder.overlaps == 0
        assert len(work) == 0


async def test_no_more_at_once_than_there_are_workers() -> None:
    gate = asyncio.Event()

    async def wait(_: Key) -> None:
        await gate.wait()

    recorder = Recorder(wait)
    work = WorkQueue(recorder)
    async with working(work, workers=3):
        for number in range(20):
            work.add(Key("host", str(number)))
        await until(lambda: len(recorder.running) == 3)
        assert len(work) == 20
        gate.set()
        await until(lambda: len(recorder.done) == 20)
    assert recorder.most_at_once == 3


ERRORS = [
    errors.Unreachable(503, "ServiceUnavailable", "away"),
    errors.Conflict(409, "Conflict", "changed meanwhile"),
    errors.Invalid(422, "Invalid", "refused"),
    ValueError("a bug"),
    ExceptionGroup("several", [ValueError("a bug")]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_failures_are_told_and_retried_until_they_pass(
    error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_BACKOFF", dataclasses.replace(queue._BACKOFF, first_seconds=0.001))
    left = 4

    async def fail(key: Key) -> None:
        nonlocal left
        if key == A and left:
            left -= 1
            raise error

    recorder = Recorder(fail)
    work = WorkQueue(recorder)
    with caplog.at_level(logging.WARNING):
        async with working(work, workers=1):
            work.add(A)
            work.add(B)
            await until(lambda: recorder.done.count(A) == 5)
            assert recorder.done[:2] == [A, B]
    assert len([record for record in caplog.records if "placement a" in record.getMessage()]) == 4


async def test_pauses_grow_up_to_a_bound_and_start_anew_after_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    work = WorkQueue(Recorder())
    pauses = [work._pause_seconds(A) for _ in range(40)]
    for number, pause in enumerate(pauses):
        middle = min(0.2 * 2**number, 60)
        assert 0.8 * middle <= pause <= 1.2 * middle
    monkeypatch.setattr(queue, "_BACKOFF", dataclasses.replace(queue._BACKOFF, first_seconds=0.001))
    failing = [True, True, True, False, True, False]
    seen: list[float] = []

    async def fail(_: Key) -> None:
        if failing.pop(0):
            raise ValueError("a bug")

    recorder = Recorder(fail)
    work = WorkQueue(recorder)
    remember = work._pause_seconds

    def noted(key: Key) -> float:
        seen.append(remember(key))
        return seen[-1]

    monkeypatch.setattr(work, "_pause_seconds", noted)
    async with working(work):
        work.add(A)
        await until(lambda: len(recorder.done) == 4)
        work.add(A)
        await until(lambda: not failing)
    for pause, power in zip(seen, (0, 1, 2, 0), strict=True):
        assert 0.8e-3 * 2**power <= pause <= 1.2e-3 * 2**power


async def test_a_change_cuts_a_backoff_short() -> None:
    recorder = Recorder(_fail_first(errors.Unreachable(503, "ServiceUnavailable", "away")))
    work = WorkQueue(recorder)
    async with working(work):
        work.add(A)
        await until(lambda: recorder.done == [A])
        began = asyncio.get_running_loop().time()
        work.add(A)
        await until(lambda: recorder.done == [A, A])
        assert asyncio.get_running_loop().time() - began < queue._BACKOFF.first_seconds / 2


async def test_nothing_cuts_short_the_time_for_which_the_api_server_asked_to_be_left_alone() -> None:
    seconds = 0.5
    loop = asyncio.get_running_loop()
    refused = 0.0

    async def refuse(key: Key) -> None:
        nonlocal refused
        if not recorder.done:
            refused = loop.time()
            # asked for before the refusal is known, and for a time that is too early
            work.add(key)
            work.add_later(key, 0.01)
            raise errors.TooManyRequests(429, "TooManyRequests", "not now", seconds)

    recorder = Recorder(refuse)
    work = WorkQueue(recorder)
    async with working(work):
        work.add(A)
        await until(lambda: recorder.done == [A])
        while loop.time() < refused + 0.8 * seconds:
            work.add(A)
            work.add_later(A, 0.0)
            await asyncio.sleep(0.01)
        assert recorder.done == [A]
        work.add(B)
        await until(lambda: B in recorder.done)
        await until(lambda: recorder.done.count(A) == 2)
        assert seconds <= loop.time() - refused
        # and no longer than that
        work.add(A)
        await until(lambda: recorder.done.count(A) == 3)


def _fail_first(error: Exception) -> Callable[[Key], Awaitable[None]]:
    left = [error]

    async def fail(_: Key) -> None:
        if left:
            raise left.pop()

    return fail


async def test_a_failure_of_one_key_does_not_hold_up_another() -> None:
    async def fail(key: Key) -> None:
        if key == A:
            raise ValueError("a bug")

    recorder = Recorder(fail)
    work = WorkQueue(recorder)
    async with working(work, workers=1):
        work.add(A)
        for number in range(50):
            work.add(Key("host", str(number)))
        await until(lambda: len(recorder.done) >= 51)


async def test_the_earliest_delay_wins() -> None:
    recorder = Recorder()
    work = WorkQueue(recorder)
    loop = asyncio.get_running_loop()
    async with working(work):
        for seconds in (3600, 0.02, 7200, 0.5):
            work.add_later(A, seconds)
        began = loop.time()
        assert len(work) == 0
        await until(lambda: recorder.done == [A])
        assert 0.01 < loop.time() - began < 0.45
        assert not work._timers


async def test_an_add_replaces_what_was_to_come_later() -> None:
    recorder = Recorder()
    work = WorkQueue(recorder)
    async with working(work):
        work.add_later(A, 0.01)
        work.add(A)
        await until(lambda: recorder.done == [A])
        work.add_later(B, 0.03)
        await until(lambda: B in recorder.done)
        assert recorder.done == [A, B]


@pytest.mark.parametrize("seconds", [0, -1, -1e9])
async def test_what_is_overdue_is_done_at_once(seconds: float) -> None:
    recorder = Recorder()
    work = WorkQueue(recorder)
    async with working(work):
        work.add_later(A, seconds)
        await until(lambda: recorder.done == [A])


async def test_a_delay_asked_for_while_the_key_runs_is_kept() -> None:
    work: WorkQueue

    async def ask(key: Key) -> None:
        if not recorder.done:
            work.add_later(key, 0.01)

    recorder = Recorder(ask)
    work = WorkQueue(recorder)
    async with working(work):
        work.add(A)
        await until(lambda: recorder.done == [A, A])


async def test_it_ends_when_cancelled_even_in_the_middle_of_work() -> None:
    async def hang(_: Key) -> None:
        await asyncio.Event().wait()

    recorder = Recorder(hang)
    work = WorkQueue(recorder)
    task = asyncio.create_task(work.run(2))
    work.add(A)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await until(lambda: recorder.running == [A])
        task.cancel()
        await asyncio.wait((task,))
    assert task.cancelled()


async def test_what_runs_is_finished_and_nothing_else_begins() -> None:
    gate = asyncio.Event()

    async def wait(_: Key) -> None:
        await gate.wait()

    recorder = Recorder(wait)
    work = WorkQueue(recorder)
    async with working(work, workers=2):
        for key in (A, B, C):
            work.add(key)
        gate.set()
        await until(lambda: len(recorder.done) == 3)
        gate.clear()
        recorder.done.clear()
        for key in (A, B, C):
            work.add(key)
        await until(lambda: recorder.running == [A, B])
        finishing = asyncio.create_task(work.finish(DEADLINE_SECONDS))
        work.add(A)
        await asyncio.sleep(0.01)
        assert not finishing.done()
        gate.set()
        await finishing
        assert sorted(recorder.done) == [A, B]
        await asyncio.sleep(0.05)
        assert sorted(recorder.done) == [A, B]


async def test_what_does_not_end_in_time_is_not_waited_for() -> None:
    async def wait(_: Key) -> None:
        await asyncio.Event().wait()

    recorder = Recorder(wait)
    work = WorkQueue(recorder)
    async with working(work):
        work.add(A)
        await until(lambda: recorder.running == [A])
        await work.finish(0.01)
        assert recorder.running == [A]


async def test_a_queue_without_work_is_finished_at_once() -> None:
    work = WorkQueue(Recorder())
    async with working(work):
        await work.finish(DEADLINE_SECONDS)


async def test_workers_that_wait_for_nothing_let_others_run() -> None:
    async def busy(_: Key) -> None:
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass

    recorder = Recorder(busy)
    found = WorkQueue(recorder)
    for number in range(200):
        found.add(Key("placement", str(number)))
    turns = 0
    async with working(found):
        while len(recorder.done) < 200:
            turns += 1
            await asyncio.sleep(0)
    # As the renewal of the Lease must.
    assert turns > 10
