"""Watches one pool of this host for as long as it is one: its storage facts, its journals and records.

`supervisor` runs a `PoolMonitor` per pool and is told of every outcome. A pool that hangs costs its own monitor some
time and nobody else anything.
"""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable

from directdownload.agent import copies, mountinfo, storage, worker
from directdownload.agent.retry import Complaint
from directdownload.agent.settings import Settings
from directdownload.resources.host import HostStorage
from directdownload.resources.naming import WORK_DIRECTORY

logger = logging.getLogger(__name__)

OnStorage = Callable[[HostStorage], None]
#: pool, what is wanted of its placements, names of the placements that have a record
OnCopies = Callable[[str, list[copies.Wanted], set[str]], None]


class PoolMonitor:
    """`run` ends only when cancelled, and ends its child process then."""

    def __init__(
        self, target: storage.Target, settings: Settings, *, on_storage: OnStorage, on_copies: OnCopies
    ) -> None:
        self.target = target
        self._settings = settings
        self._on_storage = on_storage
        self._on_copies = on_copies
        self._worker = worker.PoolWorker(target.path, timeout_seconds=settings.pool_timeout_seconds)
        self._book = copies.PoolBook(target, settings.node_name)
        self._complaint = Complaint(logger)

    async def run(self) -> None:
        facts_due = observe_due = 0.0
        usable = False
        try:
            while True:
                now = time.monotonic()
                if now >= facts_due:
                    usable = await self._facts()
                    facts_due = time.monotonic() + self._settings.facts_interval_seconds
                pause = facts_due - time.monotonic()
                if usable:
                    observe = now >= observe_due
                    usable = await self._copies(observe)
                    if observe:
                        observe_due = time.monotonic() + self._settings.observe_interval_seconds
                    busy = self._book.active(_now()) or self._book.unsettled(_now())
                    scan = self._settings.active_scan_seconds if busy else self._settings.idle_scan_seconds
                    # a pool that stopped answering is asked for its facts next
                    pause = min(pause, scan) if usable else 0
                    facts_due = facts_due if usable else 0
                await asyncio.sleep(max(0.01, pause))
        finally:
            await self._worker.close()

    async def _facts(self) -> bool:
        """Whether it is worth looking into the pool."""
        facts: storage.Facts | None
        try:
            facts = storage.Facts(**await self._worker.ask("facts"))
            self._complaint.clear(f"Pool {self.target.pool} answers again")
        except worker.NoAnswerError as error:
            facts = None
            self._complaint.say(logging.WARNING, f"Pool {self.target.pool} does not answer: {error}")
        outcome = storage.judge(self.target, self._settings.pool_roots, mountinfo.read(), facts)
        self._on_storage(outcome)
        return outcome.mounted is True and facts is not None and facts.directory

    async def _copies(self, observe: bool) -> bool:
        """False when the pool stopped answering."""
        try:
            scan = await self._worker.ask("scan", work_directory=WORK_DIRECTORY, suffixes=list(copies.SUFFIXES))
            self._book.take(scan["present"], scan["changed"])
            if (observe or self._book.unsettled(_now())) and (names := self._book.file_names()):
                answer = await self._worker.ask("files", names=names)
                self._book.look(answer["files"])
        except worker.NoAnswerError as error:
            self._complaint.say(logging.WARNING, f"Pool {self.target.pool} does not answer: {error}")
            return False
        self._on_copies(self.target.pool, self._book.wanted(_now()), self._book.placements())
        return True


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
