"""The work queue: each key is reconciled by one worker at a time, however often it is added meanwhile.

Failures are retried with exponential backoff per key; nothing is ever dropped, and no failure stops a worker. A change
ends a backoff early, as it may be what was missing; but not the time that the API server asked us to wait.

Most reconciles find nothing to do and wait for nothing. Fifty thousand of them in a row would keep the event loop from
all else, above all from renewing the Lease: so workers give way after a slice (`slices`), which they share.
"""

import asyncio
import collections
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from directdownload import slices
from directdownload.backoff import Backoff, spread
from directdownload.cluster import errors
from directdownload.observe import logs

logger = logging.getLogger(__name__)

#: The kind of the object that a key names, for log lines.
OBJECTS = {
    "host": "Host",
    "zone": "Zone",
    "pool": "StoragePool",
    "template": "Template",
    "placement": "TemplatePlacement",
    "probe": "Template",
    "certificate": "DirectDownloadCertificate",
}
#: So many keys are added without a pause.
_AT_ONCE = 500
_BACKOFF = Backoff(0.2, 60, (0.8, 1.2))


class Key(NamedTuple):
    """An item of the queue: a kind of work and the key of its object in the store."""

    kind: str
    name: str


class WorkQueue:
    """Keys wait in the order in which they were added; a key that waits already is not added twice."""

    def __init__(self, reconcile: Callable[[Key], Awaitable[None]]) -> None:
        self._reconcile = reconcile
        self._waiting: collections.OrderedDict[Key, None] = collections.OrderedDict()
        #: keys that are still to be added
        self._arriving: collections.deque[Iterator[Key]] = collections.deque()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        #: keys whose timer no change may shorten
        self._held: set[Key] = set()
        self._failures: collections.Counter[Key] = collections.Counter()
        self._wakeup = asyncio.Event()
        #: of all workers, also within a reconcile that takes long
        self.slices = slices.SharedSlices()
        self._closed = False
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def depths(self) -> collections.Counter[str]:
        """How many keys wait or are being reconciled, by kind; those that wait for a timer do not count."""
        return collections.Counter(key.kind for keys in (self._waiting, self._running) for key in keys)

    def add(self, key: Key) -> None:
        """Reconcile `key` as soon as a worker is free; an earlier timer of it is no longer needed."""
        if key in self._held:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._wakeup.set()

    def add_all(self, keys: Iterable[Key]) -> None:
        """As `add` for each of them. Workers add those beyond the first ones, in slices: there may be all copies."""
        found = iter(keys)
        if self._take(found):
            self._arriving.append(found)
            self._wakeup.set()

    def _take(self, keys: Iterator[Key]) -> bool:
        """Adds some of them; whether there may be more."""
        taken = 0
        for key in itertools.islice(keys, _AT_ONCE):
            self.add(key)
            taken += 1
        return taken == _AT_ONCE

    def add_later(self, key: Key, seconds: float) -> None:
        """Reconcile `key` after `seconds`, or earlier if an earlier timer is already set."""
        if key in self._held:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, 0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def _hold(self, key: Key, seconds: float) -> None:
        """Reconcile `key` after `seconds` and not before, whatever happens meanwhile."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self.add_later(key, seconds)
        self._held.add(key)

    def _due(self, key: Key) -> None:
        self._held.discard(key)
        self.add(key)

    async def run(self, workers: int) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def finish(self, seconds: float) -> None:
        """Starts nothing more, and waits for running reconciles: at most `seconds`; the rest are to be cancelled."""
        self._closed = True
        self._idle.clear()
        if self._running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

    async def _work(self) -> None:
        while True:
            await self.slices.give_way()
            if self._closed or not (self._waiting or self._arriving):
                self._wakeup.clear()
                await self._wakeup.wait()
                continue
            if self._arriving:
                if not self._take(self._arriving[0]):
                    self._arriving.popleft()
                continue
            key, _ = self._waiting.popitem(last=False)
            self._running.add(key)
            try:
                with logs.concerning(OBJECTS.get(key.kind, key.kind), key.name):
                    await self._attempt(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
                if not self._running:
                    self._idle.set()

    async def _attempt(self, key: Key) -> None:
        try:
            await self._reconcile(key)
            self._failures.pop(key, None)
        except errors.ApiError as error:
            pause = self._pause_seconds(key)
            if isinstance(error, errors.TooManyRequests):
                # Never earlier; a little later, so that clients that were sent away together do not return together.
                pause = max(pause, spread(error.retry_after_seconds, 1.0, 1.2))
                self._hold(key, pause)
            else:
                self.add_later(key, pause)
            logger.warning("%s %s: %s; trying again in %.1f s", key.kind, key.name, error, pause)
        except Exception:
            # A bug in one reconcile must not stop the others; it is logged each time, and retried ever slower.
            pause = self._pause_seconds(key)
            logger.exception("%s %s: unexpected error; trying again in %.1f s", key.kind, key.name, pause)
            self.add_later(key, pause)

    def _pause_seconds(self, key: Key) -> float:
        self._failures[key] += 1
        return _BACKOFF.pause_seconds(self._failures[key])
