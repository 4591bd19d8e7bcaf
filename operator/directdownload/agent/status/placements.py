"""Writes the agent's fields of placements' status, with as few writes as possible, and knows which placements exist.

A `Publisher` is fed by `pools` through `supervisor`. Promises: each apply carries all fields of a placement's status
that the agent owns; no write is repeated; progress is written at most once per interval of its journal; placements that
are gone, or belong to another host, are not written; failures are tried again with backoff and logged once; a copy is
published only when `told` has it on disk, but a lost or changed copy at once.

On a shared pool every host sees every record. The agent of the host that wrote a record publishes it. Other agents
publish only a lost or changed file, and only after reading that the placement now belongs to their host.

`Owners` caches which placements that files on disk name exist in the cluster. `pools` names the placements to check;
`Publisher` adds the answers of its writes. An agent watches no placements, so a deletion that keeps the file (`Retain`)
is detected here. At most one placement is read per interval: thousands of hosts then send about a hundred requests per
second at most. Placements that leftovers name are read sooner, once.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from directdownload.agent import metrics, retry
from directdownload.agent.copies import Key, Owner, Wanted
from directdownload.agent.status.told import Outcome, Told
from directdownload.backoff import spread
from directdownload.cluster import client, errors, kinds
from directdownload.observe import logs
from directdownload.resources.base import AGENT
from directdownload.resources.templateplacement import Progress

logger = logging.getLogger(__name__)

#: A placement is read again after this many intervals.
_AGAIN_INTERVALS = 10
#: Placements that are needed but were never read: this many per interval.
_URGENT_PER_INTERVAL = 30


@dataclasses.dataclass(slots=True)
class _Known:
    asked_monotonic: float
    owner: Owner | None = None
    urgent: bool = False


class Owners:
    """Which placements exist. `owner` and `gone` answer from the cache; `run` refreshes it until cancelled."""

    def __init__(self, api: client.Api, told: Told, *, interval_seconds: float) -> None:
        self._api = api
        self._told = told
        self._interval_seconds = interval_seconds
        self._entries: dict[Key, _Known] = {}
        self._wanted: dict[str, set[Key]] = {}
        self._complaint = retry.Complaint(logger)

    def owner(self, key: Key) -> Owner | None:
        """The owner; None: not known."""
        entry = self._entries.get(key)
        return entry.owner if entry is not None else None

    def gone(self, key: Key) -> bool:
        """Whether the placement is known to be gone."""
        owner = self.owner(key)
        return not owner.exists if owner is not None else self._told.gone(key)

    def note(self, key: Key, owner: Owner) -> None:
        """Takes an answer of the API server."""
        self._entries[key] = _Known(time.monotonic(), owner)
        self._told.note_gone(key, not owner.exists)

    def want(self, pool: str, *, copies: Iterable[Key], leftovers: Iterable[Key]) -> None:
        """Sets the placements that files of `pool` name. Those of `leftovers` are read soon, if unknown."""
        needed, wanted = set(leftovers), set(copies)
        self._wanted[pool] = wanted | needed
        self._drop()
        now = time.monotonic()
        for key in wanted | needed:
            entry = self._entries.get(key)
            if entry is None:
                # agents start together, and should not send their requests together
                entry = self._entries[key] = _Known(now - spread(self._again_seconds, 0, 1))
            entry.urgent = key in needed and entry.owner is None

    def forget(self, pool: str) -> None:
        """Drops the placements of `pool`, which no longer belongs to this host."""
        self._wanted.pop(pool, None)
        self._drop()

    async def run(self) -> None:
        while True:
            urgent = [key for key, entry in self._entries.items() if entry.urgent]
            for key in urgent[:1] or self._oldest():
                await self._ask(key)
            pause = self._interval_seconds / _URGENT_PER_INTERVAL if len(urgent) > 1 else self._interval_seconds
            await asyncio.sleep(pause)

    @property
    def _again_seconds(self) -> float:
        return self._interval_seconds * _AGAIN_INTERVALS

    def _oldest(self) -> list[Key]:
        """The placement that was read longest ago, if it is due."""
        due = time.monotonic() - self._again_seconds
        key = min(self._entries, key=lambda key: self._entries[key].asked_monotonic, default=None)
        return [key] if key is not None and self._entries[key].asked_monotonic <= due else []

    async def _ask(self, key: Key) -> None:
        """Only the name counts: it is derived, so a recreated placement is for the same copy."""
        try:
            placement = await _read(self._api, key[0])
        except errors.NotFound:
            self.note(key, Owner(exists=False))
        except errors.ApiError as error:
            about = logs.about("TemplatePlacement", key[0])
            self._complaint.say(logging.WARNING, f"Cannot read placement {key[0]}: {error}", about)
            self._entries[key] = _Known(time.monotonic(), self.owner(key))
        else:
            self._complaint.clear("Read placements again")
            self.note(key, owner_of(placement))

    def _drop(self) -> None:
        wanted = set().union(*self._wanted.values())
        self._entries = {key: entry for key, entry in self._entries.items() if key in wanted}


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
    complaint: retry.Complaint = dataclasses.field(default_factory=lambda: retry.Complaint(logger))


class Publisher:
    """`want` sets the wanted status of a pool's placements; `run` writes it until cancelled."""

    def __init__(
        self, api: client.Api, host: str, told: Told, owners: Owners, *, foreign_interval_seconds: float
    ) -> None:
        self._api = api
        self._host = host
        #: another host's placement may move to this host: one with a pending write is read again after this time
        self._foreign_interval_seconds = foreign_interval_seconds
        self._told = told
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
        self._told.keep(pool, recorded)
        self._wake.set()

    def forget(self, pool: str) -> None:
        """Drops the placements of `pool`, which no longer belongs to this host."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry.wanted.pool != pool}

    def progress(self, template_uid: str) -> Progress | None:
        """The progress of this host's running download of a Template; None: there is none."""
        found = (entry.wanted.progress for entry in self._entries.values() if entry.wanted.template_uid == template_uid)
        return next(found, None) if template_uid else None

    async def run(self) -> None:
        while True:
            self._wake.clear()
            now = time.monotonic()
            waiting = [entry for entry in self._entries.values() if self._pending(entry)]
            due_now = [(entry, entry.wanted) for entry in waiting if entry.due_monotonic <= now]
            for _, wanted in due_now:
                if wanted.settled:
                    self._told.intend(wanted)
            # Save before publishing: the loss of a published copy must be reported whatever happens to this process.
            await self._told.save()
            # settled copies first: others wait for them
            for entry, wanted in sorted(due_now, key=lambda each: not each[1].settled):
                # changed meanwhile, so not saved yet: `want` has set the wake-up for it
                if entry.wanted is not wanted:
                    continue
                if wanted.settled and not wanted.wrong and not self._told.durable(wanted):
                    entry.due_monotonic = self._told.retry_monotonic
                else:
                    await self._tell(entry)
            saved = await self._told.save()
            metrics.LEDGER_SAVED.labels(host=self._host).set(saved)
            dues = [entry.due_monotonic for entry in self._entries.values() if self._pending(entry)]
            due = min(dues if saved else [*dues, self._told.retry_monotonic], default=None)
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
            match self._told.outcome(wanted):
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
                self._told.note(wanted, Outcome.PUBLISHED)

    async def _ours(self, wanted: Wanted) -> bool:
        """Whether the placement belongs to this host, by reading it."""
        placement = await _read(self._api, wanted.placement)
        self._owners.note(wanted.key, owner_of(placement))
        ours: bool = placement["spec"]["host"] == self._host and placement["metadata"]["uid"] == wanted.uid
        return ours

    def _gone(self, wanted: Wanted) -> None:
        about = logs.about("TemplatePlacement", wanted.placement)
        logger.info("Placement %s (uid %s) is gone: nothing to write", wanted.placement, wanted.uid, extra=about)
        self._owners.note(wanted.key, Owner(exists=False))
        if wanted.settled:
            self._told.note(wanted, Outcome.GONE)

    def _leave(self, entry: _Entry, wanted: Wanted) -> None:
        """Leaves the placement to the host that it belongs to."""
        if not entry.foreign:
            about = logs.about("TemplatePlacement", wanted.placement)
            logger.info("Placement %s (uid %s) belongs to another host", wanted.placement, wanted.uid, extra=about)
        entry.told, entry.foreign = None, True
        if wanted.settled:
            self._told.note(wanted, Outcome.FOREIGN)
        if wanted.settled and not wanted.wrong:
            entry.closed = True
        else:
            # after the loss of a shared pool, not every host may read every placement every minute
            others = sum(each.foreign for each in self._entries.values())
            entry.due_monotonic = time.monotonic() + max(self._foreign_interval_seconds, others)


def owner_of(placement: client.Object) -> Owner:
    """`placement` as the API serves it."""
    return Owner(exists=True, host=placement["spec"]["host"], phase=placement.get("status", {}).get("phase", ""))


async def _read(api: client.Api, name: str) -> client.Object:
    """Reads the status subresource, which is all that the agent may read; the answer is the whole object."""
    return await api.request("GET", kinds.TEMPLATE_PLACEMENTS, name, subresource="status", verb="get")
