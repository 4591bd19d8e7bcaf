"""Writes the agent's fields of placements' status, with as few writes as possible.

Fed by `pools` through `supervisor`. Promises: each apply carries all fields of a placement's status that the agent
owns; no write is repeated; progress is written at most once per interval of its journal; placements that are gone, or
belong to another host, are not written; failures are tried again with backoff and logged once; a copy is published only
when `ledger` has it on disk, but a lost or changed copy at once.

On a shared pool every host sees every record. The agent of the host that wrote a record publishes it. Other agents
publish only a lost or changed file, and only after reading that the placement now belongs to their host.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

from directdownload.agent import metrics, retry
from directdownload.agent.pools.copies import Wanted
from directdownload.agent.pools.leftovers import Owner
from directdownload.agent.retry import Complaint
from directdownload.agent.status.ledger import Ledger, Outcome
from directdownload.agent.status.owners import Owners, owner_of
from directdownload.cluster import client, errors, kinds
from directdownload.observe import logs
from directdownload.resources.base import AGENT

logger = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class _Entry:
    wanted: Wanted
    #: the last known status of the placement
    told: dict[str, Any] | None = None
    due_monotonic: float = 0.0
    #: it belongs to another host, and needs no write as it is
    closed: bool = False
    #: it belonged to another host when it was read last
    foreign: bool = False
    #: in a row
    failures: int = 0
    complaint: Complaint = dataclasses.field(default_factory=lambda: Complaint(logger))


class Publisher:
    """`want` sets the wanted status of a pool's placements; `run` writes it until cancelled."""

    def __init__(
        self, api: client.Api, host: str, ledger: Ledger, owners: Owners, *, foreign_interval_seconds: float
    ) -> None:
        self._api = api
        self._host = host
        #: another host's placement may move to this host: one with a pending write is read again after this time
        self._foreign_interval_seconds = foreign_interval_seconds
        self._ledger = ledger
        self._owners = owners
        self._entries: dict[str, _Entry] = {}
        self._wake = asyncio.Event()

    def want(self, pool: str, wanted: list[Wanted], recorded: Mapping[str, str]) -> None:
        """Replaces the wanted status for `pool`; `recorded` are its placements that have, or had, a record."""
        names = {item.placement for item in wanted}
        for name in [n for n, entry in self._entries.items() if entry.wanted.pool == pool and n not in names]:
            # A record that waits for its file wants nothing for a moment; the published status still counts.
            if name not in recorded:
                del self._entries[name]
        for item in wanted:
            self._want(item)
        self._ledger.keep(pool, recorded)
        self._wake.set()

    def forget(self, pool: str) -> None:
        """Drops the placements of `pool`, which no longer belongs to this host."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry.wanted.pool != pool}

    async def run(self) -> None:
        while True:
            self._wake.clear()
            now = time.monotonic()
            waiting = [entry for entry in self._entries.values() if self._pending(entry)]
            due_now = [(entry, entry.wanted) for entry in waiting if entry.due_monotonic <= now]
            for _, wanted in due_now:
                if wanted.settled:
                    self._ledger.intend(wanted)
            # Save before publishing: the loss of a published copy must be reported whatever happens to this process.
            await self._ledger.save()
            # settled copies first: others wait for them
            for entry, wanted in sorted(due_now, key=lambda each: not each[1].settled):
                # changed meanwhile, so not saved yet: `want` has set the wake-up for it
                if entry.wanted is not wanted:
                    continue
                if wanted.settled and not wanted.wrong and not self._ledger.durable(wanted):
                    entry.due_monotonic = self._ledger.retry_monotonic
                else:
                    await self._tell(entry)
            saved = await self._ledger.save()
            metrics.LEDGER_SAVED.labels(host=self._host).set(saved)
            dues = [entry.due_monotonic for entry in self._entries.values() if self._pending(entry)]
            due = min(dues if saved else [*dues, self._ledger.retry_monotonic], default=None)
            try:
                async with asyncio.timeout(None if due is None else max(0.01, due - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _want(self, wanted: Wanted) -> None:
        entry = self._entries.get(wanted.placement)
        if entry is not None and self._owners.gone(entry.wanted.key):
            # a recreated placement has no published status
            entry.told = None
        if (entry is not None and entry.wanted is wanted) or (wanted.ended and (entry is None or entry.told is None)):
            return
        if entry is None or entry.wanted.uid != wanted.uid:
            entry = self._entries[wanted.placement] = _Entry(wanted)
        else:
            if wanted.settled and not entry.wanted.settled:
                # publish the end of a download at once
                entry.due_monotonic = 0.0
            if wanted.status != entry.wanted.status:
                # the placement of a shared pool may have moved to this host
                entry.closed = False
        entry.wanted = wanted
        if wanted.settled and entry.told is None and not entry.closed:
            match self._ledger.outcome(wanted):
                case Outcome.PUBLISHED:
                    entry.told = wanted.status
                case Outcome.FOREIGN:
                    entry.closed = not wanted.wrong

    def _pending(self, entry: _Entry) -> bool:
        wanted = entry.wanted
        if entry.closed or entry.told == wanted.status or self._owners.gone(wanted.key):
            return False
        others = wanted.shared and wanted.writer not in ("", self._host)
        return entry.told is not None or wanted.wrong or not others

    async def _tell(self, entry: _Entry) -> None:
        wanted, status = entry.wanted, entry.wanted.status
        body = {"metadata": {"name": wanted.placement, "uid": wanted.uid}, "status": status}
        unsure = wanted.shared and entry.told is None and (entry.foreign or wanted.writer != self._host)
        try:
            if unsure and not await self._ours(wanted):
                self._leave(entry, wanted)
                return
            answer = await self._api.apply(kinds.TEMPLATE_PLACEMENTS, body, manager=AGENT, subresource="status")
        except errors.NotFound:
            self._gone(wanted)
        except errors.ApiError as error:
            if isinstance(error, errors.Forbidden) and wanted.shared:
                # The admission policy refuses it: the placement has moved to another host.
                self._leave(entry, wanted)
                return
            entry.failures += 1
            entry.due_monotonic = time.monotonic() + retry.pause_seconds(entry.failures, error)
            text = f"Cannot write the status of placement {wanted.placement}: {error}"
            entry.complaint.say(logging.WARNING, text, logs.about("TemplatePlacement", wanted.placement))
        else:
            entry.told, entry.foreign = status, False
            entry.due_monotonic = time.monotonic() + wanted.interval_seconds
            entry.failures = 0
            about = logs.about("TemplatePlacement", wanted.placement)
            entry.complaint.clear(f"Wrote the status of placement {wanted.placement} again", about)
            self._owners.note(wanted.key, owner_of(answer))
            if wanted.settled:
                self._ledger.note(wanted, Outcome.PUBLISHED)

    async def _ours(self, wanted: Wanted) -> bool:
        """Whether the placement belongs to this host, by reading it.

        Reads the status subresource, which is all that the agent may read; the answer is the whole object.
        """
        placement = await self._api.request(
            "GET", kinds.TEMPLATE_PLACEMENTS, wanted.placement, subresource="status", verb="get"
        )
        self._owners.note(wanted.key, owner_of(placement))
        ours: bool = placement["spec"]["host"] == self._host and placement["metadata"]["uid"] == wanted.uid
        return ours

    def _gone(self, wanted: Wanted) -> None:
        about = logs.about("TemplatePlacement", wanted.placement)
        logger.info("Placement %s (uid %s) is gone: nothing to write", wanted.placement, wanted.uid, extra=about)
        self._owners.note(wanted.key, Owner(exists=False))
        if wanted.settled:
            self._ledger.note(wanted, Outcome.GONE)

    def _leave(self, entry: _Entry, wanted: Wanted) -> None:
        """Leaves the placement to the host that it belongs to."""
        if not entry.foreign:
            about = logs.about("TemplatePlacement", wanted.placement)
            logger.info("Placement %s (uid %s) belongs to another host", wanted.placement, wanted.uid, extra=about)
        entry.told, entry.foreign = None, True
        if wanted.settled:
            self._ledger.note(wanted, Outcome.FOREIGN)
        if wanted.settled and not wanted.wrong:
            entry.closed = True
        else:
            # after the loss of a shared pool, not every host may read every placement every minute
            others = sum(each.foreign for each in self._entries.values())
            entry.due_monotonic = time.monotonic() + max(self._foreign_interval_seconds, others)
