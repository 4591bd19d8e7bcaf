"""Other installations of the product in this cluster: looks for their Leases, so that one installation leads.

`main` runs it from start to end, asks `clear` before it stands for election, `verdict` before it starts to work, and
`outdone` while it works. `planning/installations` decides who leads. A look finds Leases with our label in any
namespace, and those of our own name, as version 0.1.0 put no label on its Lease.

An installation that is alone costs one look a minute and never waits. A look that fails is no reason not to lead:
without the right to list Leases nothing is known of others, and that is logged; while the API server is away, earlier
knowledge stays, and watching starts again.
"""

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Iterable
from typing import Any

from directdownload import escaping
from directdownload.cluster import client, errors, kinds
from directdownload.controller.world import MANAGED_BY_LABEL, PRODUCT
from directdownload.planning import installations as planning

logger = logging.getLogger(__name__)

#: The label on a controller's Lease.
LABELS = {MANAGED_BY_LABEL: PRODUCT}
#: Seconds between looks: while no other exists, while another exists, and while it is unclear whether that one lives.
ALONE_SECONDS, WATCHING_SECONDS, FINDING_OUT_SECONDS = 60.0, 10.0, 2.0
_TIMEOUT_SECONDS = 5.0
#: Anybody who may write Leases in some namespace may write many.
_LIMIT = 500
_WORD_LIMIT = 253


class Installations:
    """`run` looks until cancelled; `leader` leads instead of us, as far as is known."""

    def __init__(self, api: client.Api, namespace: str, lease_name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = lease_name
        self._others: planning.Sightings = {}
        self._last: float | None = None
        self._verdict = planning.Verdict(None, sure=True)
        self._begun = self._done = 0
        self._looked = asyncio.Condition()
        self._wake = asyncio.Event()
        self._said = ""
        self._complaint = ""

    @property
    def leader(self) -> planning.Record | None:
        return self._verdict.leader

    async def clear(self) -> None:
        """Waits, as long as it takes, until no other installation leads, as far as was seen last."""
        await self._done_look(1)
        while self.leader is not None or not self._verdict.sure:
            await self._next_look()

    async def verdict(self) -> planning.Record | None:
        """The installation that leads instead of us, by a look from now on; waits until that is sure."""
        await self._next_look(at_once=True)
        while self.leader is None and not self._verdict.sure:
            await self._next_look()
        return self.leader

    async def outdone(self) -> None:
        """Returns when another installation leads."""
        while self.leader is None:
            await self._next_look()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            self._begun += 1
            try:
                await self._look()
            except Exception:
                # Every wait for a look must end: not to lead at all is worse than not to know of others.
                logger.exception("Cannot see whether another installation leads in this cluster: unexpected error")
            async with self._looked:
                self._done = self._begun
                self._looked.notify_all()
            pause = WATCHING_SECONDS if self._others else ALONE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self._verdict.sure else FINDING_OUT_SECONDS):
                    await self._wake.wait()

    async def _next_look(self, *, at_once: bool = False) -> None:
        """Returns after the next look; a running one may have started before the event that the caller waits for."""
        if at_once:
            self._wake.set()
        await self._done_look(self._begun + 1)

    async def _done_look(self, number: int) -> None:
        async with self._looked:
            await self._looked.wait_for(lambda: self._done >= number)

    async def _look(self) -> None:
        try:
            found = await self._found()
            own = await self._own() if found else None
        except errors.ApiError as error:
            self._failed(error)
            return
        now = _now()
        self._others = planning.look(self._others, found, now, self._last)
        self._last = now
        self._verdict = planning.judge(own, self._others, now)
        if self._complaint:
            logger.info("Leases of all namespaces can be listed again")
            self._complaint = ""
        self._say()

    def _failed(self, error: errors.ApiError) -> None:
        self._last = None
        if isinstance(error, errors.Forbidden):
            # Earlier knowledge no longer counts: the others may have gone long ago.
            self._others, self._verdict = {}, planning.Verdict(None, sure=True)
        if error.reason != self._complaint:
            then = "continuing as if none did" if self._verdict.sure and self.leader is None else "still waiting"
            logger.warning("Cannot see whether another installation leads in this cluster, %s: %s", then, error)
        self._complaint = error.reason

    def _say(self) -> None:
        """Logs once for each installation that leads."""
        leader = self.leader
        said = f"{leader.key} {leader.holder}" if leader is not None else ""
        if leader is not None and said != self._said:
            logger.warning(
                "Not leading: another installation of the product leads in this cluster. Its Lease %s is older, and %s "
                "renews it. This one waits; uninstall one of the two",
                escaping.escaped(leader.key, _WORD_LIMIT),
                escaping.escaped(leader.holder or "nobody any more", _WORD_LIMIT),
            )
        elif self._said and leader is None and self._verdict.sure:
            logger.info("No other installation leads in this cluster any more")
        if leader is not None or self._verdict.sure:
            self._said = said

    async def _found(self) -> list[planning.Record]:
        """The Leases of other installations."""
        selectors = (
            {"fieldSelector": f"metadata.name={self._name}"},
            {"labelSelector": ",".join(f"{label}={value}" for label, value in LABELS.items())},
        )
        found: dict[str, planning.Record] = {}
        for selector in selectors:
            query = {**selector, "limit": str(_LIMIT)}
            answer = await self._request(None, None, query)
            found |= {record.key: record for record in _records(answer.get("items") or ())}
        found.pop(f"{self._namespace}/{self._name}", None)
        return list(found.values())

    async def _own(self) -> planning.Record | None:
        try:
            return next(iter(_records([await self._request(self._name, self._namespace, None)])))
        except errors.NotFound:
            return None

    async def _request(self, name: str | None, namespace: str | None, query: dict[str, str] | None) -> client.Object:
        # Urgent: the requests of the work must not delay the answer to whether it may continue.
        return await self._api.request(
            "GET",
            kinds.LEASES,
            name,
            namespace=namespace,
            query=query,
            verb="get" if name else "list",
            timeout_seconds=_TIMEOUT_SECONDS,
            urgent=True,
        )


def _records(leases: Iterable[dict[str, Any]]) -> list[planning.Record]:
    found = []
    for lease in leases:
        metadata, spec = lease["metadata"], lease.get("spec") or {}
        found.append(
            planning.Record(
                metadata["namespace"],
                metadata["name"],
                metadata["uid"],
                datetime.datetime.fromisoformat(metadata["creationTimestamp"]),
                spec.get("holderIdentity") or "",
                spec.get("renewTime") or "",
                spec.get("leaseTransitions") or 0,
            )
        )
    return found


def _now() -> float:
    """Goes on while the machine sleeps: earlier sightings are old then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
