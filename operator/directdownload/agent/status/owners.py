"""Which placements that files on disk name exist in the cluster: requested rarely, and cached.

`pools` names the placements to check; `publisher` adds the answers of its writes. An agent watches no placements, so a
deletion that keeps the file (`Retain`) is detected here. At most one placement is read per interval: thousands of hosts
then send about a hundred requests per second at most. Placements that leftovers name are read sooner, once.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable

from directdownload.agent.pools.copies import Key
from directdownload.agent.pools.leftovers import Owner
from directdownload.agent.retry import Complaint
from directdownload.agent.status.ledger import Ledger
from directdownload.backoff import spread
from directdownload.cluster import client, errors, kinds
from directdownload.observe import logs

logger = logging.getLogger(__name__)

#: A placement is read again after this many intervals.
_AGAIN_INTERVALS = 10
#: Placements that are needed but were never read: this many per interval.
_URGENT_PER_INTERVAL = 30


@dataclasses.dataclass(slots=True)
class _Entry:
    asked_monotonic: float
    owner: Owner | None = None
    urgent: bool = False


class Owners:
    """`owner` and `gone` answer from the cache; `run` refreshes it until cancelled."""

    def __init__(self, api: client.Api, ledger: Ledger, *, interval_seconds: float) -> None:
        self._api = api
        self._ledger = ledger
        self._interval_seconds = interval_seconds
        self._entries: dict[Key, _Entry] = {}
        self._wanted: dict[str, set[Key]] = {}
        self._complaint = Complaint(logger)

    def owner(self, key: Key) -> Owner | None:
        """The owner; None: not known."""
        entry = self._entries.get(key)
        return entry.owner if entry is not None else None

    def gone(self, key: Key) -> bool:
        """Whether the placement is known to be gone."""
        owner = self.owner(key)
        return not owner.exists if owner is not None else self._ledger.gone(key)

    def note(self, key: Key, owner: Owner) -> None:
        """Takes an answer of the API server."""
        self._entries[key] = _Entry(time.monotonic(), owner)
        self._ledger.note_gone(key, not owner.exists)

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
                entry = self._entries[key] = _Entry(now - spread(self._again_seconds, 0, 1))
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
        """Reads the status subresource, which is all that the agent may read; the answer is the whole object.

        Only the name counts: it is derived, so a recreated placement is for the same copy.
        """
        try:
            placement = await self._api.request(
                "GET", kinds.TEMPLATE_PLACEMENTS, key[0], subresource="status", verb="get"
            )
        except errors.NotFound:
            self.note(key, Owner(exists=False))
        except errors.ApiError as error:
            about = logs.about("TemplatePlacement", key[0])
            self._complaint.say(logging.WARNING, f"Cannot read placement {key[0]}: {error}", about)
            self._entries[key] = _Entry(time.monotonic(), self.owner(key))
        else:
            self._complaint.clear("Read placements again")
            self.note(key, owner_of(placement))

    def _drop(self) -> None:
        wanted = set().union(*self._wanted.values())
        self._entries = {key: entry for key, entry in self._entries.items() if key in wanted}


def owner_of(placement: client.Object) -> Owner:
    """`placement` as the API serves it."""
    return Owner(exists=True, host=placement["spec"]["host"], phase=placement.get("status", {}).get("phase", ""))
