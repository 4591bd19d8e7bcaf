"""Ends the process when its event loop stands still, as nothing outside can probe it.

The process has no network for a probe, and a probe through kubelet's socket would need a second program. The timer is a
thread of the C library's that needs nothing of Python: it writes all stacks to standard error and exits.
"""

import asyncio
import faulthandler

#: So often within the limit the timer starts anew.
_TURNS = 6


async def run(seconds: float) -> None:
    """Until cancelled: the process ends if this coroutine does not get its turn for `seconds`."""
    try:
        while True:
            faulthandler.dump_traceback_later(seconds, exit=True)
            await asyncio.sleep(seconds / _TURNS)
    finally:
        faulthandler.cancel_dump_traceback_later()
