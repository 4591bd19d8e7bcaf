"""Keeps the agent informed of what is mounted: all of it every few seconds, and at once what is no longer needed.

An agent that starts anew learns so which volumes there are. Of a volume that was never mounted, only `Unpublish` says
that nobody needs it, so each is repeated until the agent has answered.
"""

import asyncio
import contextlib
import logging

from directdownload.csi import agentlink, mounts
from directdownload.csi.errors import CallError
from directdownload.hostfiles import mountinfo
from directdownload.resources import volumes

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 10.0
#: Volumes that the agent has not been told of; beyond, the oldest are forgotten.
_MOST_GONE = 10_000


class Reports:
    """`run` is the task; `gone` and `wanted` are called by whoever unpublishes and publishes."""

    def __init__(self, socket: str, pods: str, interval_seconds: float = volumes.MOUNTED_SECONDS) -> None:
        self._socket = socket
        self._pods = pods
        self._interval_seconds = interval_seconds
        self._gone: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._failing = False

    def gone(self, volume: str) -> None:
        """Nobody needs this volume any more."""
        self._gone[volume] = None
        if len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]
        self._wake.set()

    def wanted(self, volume: str) -> None:
        """A pod needs this volume."""
        self._gone.pop(volume, None)

    async def run(self) -> None:
        while True:
            self._wake.clear()
            await self._report()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._wake.wait()

    async def _report(self) -> None:
        try:
            for volume in tuple(self._gone):
                # it may be wanted again by now
                if volume in self._gone:
                    await agentlink.ask(self._socket, volumes.Unpublish(volume), _ANSWER_SECONDS)
                    self._gone.pop(volume, None)
            found = mounts.mounted(mountinfo.read(), self._pods)
            await agentlink.ask(self._socket, volumes.Mounted(found), _ANSWER_SECONDS)
        except CallError as error:
            # once, not every few seconds
            logger.log(logging.DEBUG if self._failing else logging.WARNING, "%s", error.message)
            self._failing = True
        else:
            if self._failing:
                logger.info("The agent of this host answers again")
            self._failing = False
