"""Which of the placements that files on disk name exist in the cluster: asked rarely, and remembered.

`pools` says which ones matter, `publisher` what it learnt by the way. An agent watches no placements: a deletion that
leaves the file (`Retain`) is found out here. At most one is asked for per interval, so that a fleet of thousands of
hosts asks the API server some hundred times a second at most; what leftovers name is asked for sooner, once.
"""

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Iterable

from directdownload import logs
from directdownload.agent.copies import Key
from directdownload.agent.ledger import Ledger
from directdownload.agent.leftovers import Owner
from directdownload.agent.retry import Complaint
from directdownload.cluster import client, errors, kinds

logger = logging.getLogger(__name__)

#: One is asked for again after so many intervals.
_AGAIN_INTERVALS = 10
#: What was never asked for, and is needed: so many in an interval.
_URGENT_PER_INTERVAL = 30


@dataclasses.dataclass(slots=True)
class _Entry:
    asked_monotonic: float
    owner: Owner | None = None
    urgent: bool = False


class Owners:
    """`owner` and `gone` answer from memory; `run` keeps it fresh until cancelled."""

    def __init__(self, api: client.Api, ledger: Ledger, *, interval_seconds: float) -> None:
        self._api = api
        self._ledger = ledger
        self._interval_seconds = interval_seconds
        self._entries: dict[Key, _Entry] = {}
        self._wanted: dict[str, set[Key]] = {}
        self._complaint = Complaint(logger)

    def owner(self, key: Key) -> Owner | None:
        """None: not known."""
        entry = self._entries.get(key)
        return entry.owner if entry is not None else None

    def gone(self, key: Key) -> bool:
        """Whether there is no such placement any more, as far as is known."""
        owner = self.owner(key)
        return not owner.exists if owner is not None else self._ledger.gone(key)

    def note(self, key: Key, owner: Owner) -> None:
        """What the API server has just said."""
        self._entries[key] = _Entry(time.monotonic(), owner)
        self._ledger.note_gone(key, not owner.exists)

    def want(self, pool: str, *, copies: Iterable[Key], leftovers: Iterable[Key]) -> None:
        """All that files of `pool` name: whether those of copies are gone, what became of those of leftovers."""
        needed, wanted = set(leftovers), set(copies)
        self._wanted[pool] = wanted | needed
        self._drop()
        now = time.monotonic()
        for key in wanted | needed:
            entry = self._entries.get(key)
            if entry is None:
                # agents are started together, and should not ask together
                entry = self._entries[key] = _Entry(now - random.uniform(0, self._again_seconds))  # noqa: S311
            entry.urgent = key in needed and entry.owner is None

    def forget(self, pool: str) -> None:
        """The pool is not this host's any more."""
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
        """The one that was asked for longest ago, if it is time to."""
        due = time.monotonic() - self._again_seconds
        key = min(self._entries, key=lambda key: self._entries[key].asked_monotonic, default=None)
        return [key] if key is not None and self._entries[key].asked_monotonic <= due else []

    async def _ask(self, key: Key) -> None:
        """Through the subresource, which is all that the agent may read; the answer is the whole object.

        Only the name counts: it is derived, so a placement that was made again is of the same copy.
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
