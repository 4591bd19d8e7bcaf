"""Waiting for what must come.

A test asserts that something comes, and in which order; how long it takes depends on the machine and on what else runs
there. So the deadline is generous: it ends a test that waits for what never comes, and measures nothing.
"""

import asyncio
import inspect
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 120
_POLL_SECONDS = 0.05
_CLOSE_SECONDS = 0.01
#: Most looks are a request to an API server that has other work: what has not come for long is looked for less often.
_SLOWER = 0.1
_MOST_SECONDS = 0.2


def until(
    what: str,
    condition: Callable[[], T | None],
    seconds: float = DEADLINE_SECONDS,
    poll_seconds: float | None = None,
) -> T:
    """Polls until `condition` returns something true, and returns that; without `poll_seconds` ever less often.

    A condition that raises KeyError reads a field that nobody has written yet: it does not hold yet.

    Raises:
        AssertionError: it did not hold within `seconds`; names `what`.
    """
    begin = time.monotonic()
    end = begin + seconds
    while True:
        missing: KeyError | None = None
        try:
            if found := condition():
                return found
        except KeyError as error:
            missing = error
        if time.monotonic() >= end:
            raise _late(what, seconds, missing) from missing
        time.sleep(_pause(begin, poll_seconds))


def closely(what: str, condition: Callable[[], T | None]) -> T:
    """`until` for what a test must meet in the moment that it comes."""
    return until(what, condition, poll_seconds=_CLOSE_SECONDS)


def until_started(process: subprocess.Popen[Any], condition: Callable[[], object], words: Callable[[], str]) -> None:
    """Waits until a server of the test's own is as `condition` has it.

    Raises:
        RuntimeError: the process has ended, or the deadline is over; with `words`, its own as a rule.
    """
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(words())
        time.sleep(_CLOSE_SECONDS)


async def until_async(
    what: str,
    condition: Callable[[], Any],
    seconds: float = DEADLINE_SECONDS,
    poll_seconds: float | None = None,
) -> Any:
    """`until` that lets the event loop run; `condition` may also return an awaitable."""
    begin = time.monotonic()
    end = begin + seconds
    while True:
        missing: KeyError | None = None
        try:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
        except KeyError as error:
            missing = error
        if time.monotonic() >= end:
            raise AssertionError(f"{_late(what, seconds, missing)}; meanwhile:\n{_doing()}") from missing
        await asyncio.sleep(_pause(begin, poll_seconds))


def _pause(begin: float, poll_seconds: float | None) -> float:
    if poll_seconds is not None:
        return poll_seconds
    return min(max(_POLL_SECONDS, _SLOWER * (time.monotonic() - begin)), _MOST_SECONDS)


def _doing() -> str:
    """Where each task of the loop and each thread stands: what comes late once in a hundred runs has to say why."""
    lines = [f"task {task.get_name()}: {' '.join(_places(task))}" for task in asyncio.all_tasks()]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame, limit=5))
        lines.append(f"thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(lines)


def _places(task: asyncio.Task[Any]) -> Iterator[str]:
    """From the outermost coroutine of `task` to the innermost."""
    found: Any = task.get_coro()
    while inspect.iscoroutine(found) and found.cr_frame is not None:
        yield f"{found.cr_frame.f_code.co_filename}:{found.cr_frame.f_lineno}"
        found = found.cr_await


def _late(what: str, seconds: float, missing: KeyError | None) -> AssertionError:
    return AssertionError(f"not within {seconds:g} s: {what}" + (f" (no field {missing})" if missing else ""))
