"""A mount namespace of its own for one test, so that no mount of a test reaches the machine or outlives it.

The test's body runs in a thread that has left the namespace of the process; the namespace goes with the thread. What
the body calls must read `/proc/thread-self/mountinfo`, which is arranged here for the product's `mountinfo`.
"""

import asyncio
import ctypes
import functools
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from directdownload.hostfiles import mountinfo

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


def alone(test: Callable[..., Any]) -> Callable[..., None]:
    """Runs a test, also an asynchronous one, with mounts of its own."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        failed: list[BaseException] = []

        def body() -> None:
            try:
                leave()
                outcome = test(**arguments)
                if inspect.iscoroutine(outcome):
                    asyncio.run(outcome)
            except BaseException as error:
                failed.append(error)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mountinfo, "MOUNTINFO", "/proc/thread-self/mountinfo")
            thread = threading.Thread(target=body)
            thread.start()
            thread.join()
        if failed:
            raise failed[0]

    return run


def leave() -> None:
    """This thread has from now on mounts of its own. Raises OSError."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", "", _MS_REC | _MS_PRIVATE)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")
