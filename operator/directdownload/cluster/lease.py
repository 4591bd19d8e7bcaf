"""Leader election on a `coordination.k8s.io` Lease: at most one of several processes leads at any moment.

Used by the controller: `acquire`, then work while `hold` runs, and exit the process as soon as it returns. Own code,
because the client library's election reads the wall clock, survives a stalled API server as a second leader, and can
neither create the Lease nor release it. Promises, with the defaults in brackets:

- Only durations measured by one's own clock count, never the times written in the Lease; the clock goes on while the
  machine sleeps.
- A leader that has not renewed for `renew_deadline_seconds` [8], counted from before the request was sent, no longer
  leads, whatever its requests or its event loop do. No other takes over until the record has stood still for
  `lease_seconds` [15].
- A released Lease is taken within a fraction of a second, one that stands still as soon as its time is over: standbys
  follow the Lease by a watch. The watch only wakes them; they also poll every `retry_seconds` [2] in case it fails.
- A failed renewal is tried again four times as often: an API server that is away for less than 5 s, whenever it
  goes, costs no leadership.
- Every write names the resourceVersion that it replaces, so of two takers one fails.
- The watchdog is a thread: it also fires when the event loop is stuck.
"""

import asyncio
import contextlib
import copy
import dataclasses
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from directdownload.backoff import spread
from directdownload.cluster import client, errors, kinds

logger = logging.getLogger(__name__)

#: A failed renewal is tried this many times as often: the remaining time is for tries, not for pauses.
_HURRY = 4


def new_identity(pod_name: str) -> str:
    """`<pod name>_<uuid>`: a restarted container is another candidate than the one before."""
    return f"{pod_name}_{uuid.uuid4()}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """The others' view of the holder; as long as it stands still, its holder has not renewed."""

    holder: str
    renewed: str
    transitions: int

    @classmethod
    def of(cls, lease: dict[str, Any]) -> "_Record":
        spec = lease.get("spec") or {}
        return cls(spec.get("holderIdentity") or "", spec.get("renewTime") or "", spec.get("leaseTransitions") or 0)


class LeaderElection:
    """One candidate. `acquire` → `hold` → `release`, and again; give it an `Api` whose server it may trust."""

    def __init__(
        self,
        api: client.Api,
        namespace: str,
        name: str,
        identity: str,
        labels: Mapping[str, str] = MappingProxyType({}),
        /,
        *,
        lease_seconds: float = 15,
        renew_deadline_seconds: float = 8,
        retry_seconds: float = 2,
        request_timeout_seconds: float = 3,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` counts the seconds of everything but the watchdog's waits."""
        if not retry_seconds + request_timeout_seconds < renew_deadline_seconds < lease_seconds:
            raise ValueError(
                f"Lease {namespace}/{name}: expected retry + request timeout < renew deadline < lease, got "
                f"{retry_seconds} + {request_timeout_seconds}, {renew_deadline_seconds}, {lease_seconds} seconds"
            )
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        #: of the Lease, set with each write that is made anyway
        self._labels = dict(labels)
        self._lease_seconds = lease_seconds
        self._deadline_seconds = renew_deadline_seconds
        self._retry_seconds = retry_seconds
        self._timeout_seconds = request_timeout_seconds
        self._now = clock or _now
        #: the Lease as last read or written
        self._lease: dict[str, Any] | None = None
        self._seen: _Record | None = None
        self._seen_since = 0.0
        self._leading = False
        #: the Lease was read at least once: a candidate that cannot do that is none
        self._has_looked = False
        #: someone released the Lease, or deleted it
        self._vacated = asyncio.Event()
        #: None: nothing to watch over. Read by the watchdog's thread.
        self._renewed_at: float | None = None
        self._changed = threading.Condition()

    @property
    def key(self) -> str:
        return f"{self._namespace}/{self._name}"

    @property
    def uid(self) -> str:
        """Of the Lease, once it was read or written."""
        return str(self._lease["metadata"]["uid"]) if self._lease is not None else ""

    @property
    def is_leader(self) -> bool:
        """False from the renew deadline on, even before `hold` could return."""
        return self._leading and self._remaining_seconds() > 0

    @property
    def is_candidate(self) -> bool:
        """True as soon as the Lease could be read: this process is able to take over."""
        return self._has_looked

    async def look(self) -> None:
        """Reads the Lease without trying to take it, for `is_candidate`; `acquire` reports a failure."""
        try:
            await self._read()
            self._has_looked = True
        except errors.ApiError as error:
            logger.debug("Lease %s/%s cannot be read yet: %s", self._namespace, self._name, error)

    async def acquire(self) -> None:
        """Waits, as long as it takes, until this candidate leads."""
        following = asyncio.create_task(self._follow())
        try:
            await self._acquire()
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _acquire(self) -> None:
        complaint = ""
        holder = ""
        while True:
            try:
                if await self._try_to_take():
                    logger.info("Leading as %s (Lease %s/%s)", self._identity, self._namespace, self._name)
                    return
                complaint = ""
                if self._seen is not None and self._seen.holder != holder:
                    holder = self._seen.holder
                    logger.info("Waiting for Lease %s/%s, which %s holds", self._namespace, self._name, holder)
            except errors.Conflict:
                # another candidate was faster, or the holder renewed
                complaint = ""
            except errors.ApiError as error:
                if error.reason != complaint:
                    logger.warning("Cannot take Lease %s/%s, trying again: %s", self._namespace, self._name, error)
                complaint = error.reason
            self._vacated.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._vacated.wait()

    def _pause_seconds(self) -> float:
        """Seconds until the next try, unless the watch wakes it earlier; it never passes the end of the Lease."""
        pause = spread(self._retry_seconds, 0.8, 1.2)
        left = self._vacant_in_seconds()
        return min(pause, left) if left > 0 else pause

    async def _follow(self) -> None:
        """Wakes `acquire` when the Lease is released, and notes each renewal when it is made."""
        while True:
            try:
                events = self._api.watch(
                    kinds.LEASES,
                    # without a resourceVersion: the present content comes first
                    resource_version="",
                    namespace=self._namespace,
                    field_selector=f"metadata.name={self._name}",
                )
                async with contextlib.aclosing(events):
                    async for kind, lease in events:
                        if kind == "DELETED" or (self._is_news(kind, lease) and not self._note(lease).holder):
                            self._vacated.set()
            except errors.ApiError as error:
                # The tries go on without it, and log their failures.
                logger.debug("Lease %s/%s is not watched: %s", self._namespace, self._name, error)
            await asyncio.sleep(self._retry_seconds)

    async def hold(self) -> None:
        """Renews; returns when leadership is lost. The caller then ends the process: the watchdog stays armed."""
        # Pauses count from the start of a try: slow answers would use up the deadline otherwise.
        began = self._now() if self._renewed_at is None else self._renewed_at
        interval = self._retry_seconds
        while (pause := max(0.0, began + interval - self._now())) < self._remaining_seconds():
            await asyncio.sleep(pause)
            began = self._now()
            interval = self._retry_seconds
            try:
                async with asyncio.timeout(self._remaining_seconds()):
                    if not await self._renew():
                        break
            except (errors.ApiError, TimeoutError) as error:
                logger.warning("Lease %s/%s not renewed: %s", self._namespace, self._name, error or "timed out")
                interval = self._retry_seconds / _HURRY
        else:
            # too little time for another try, but some is left: the work may use it up
            await asyncio.sleep(max(0.0, self._remaining_seconds()))
        self._leading = False
        logger.error("Leadership of %s lost (Lease %s/%s)", self._identity, self._namespace, self._name)

    async def release(self) -> None:
        """Releases the Lease if it is still ours, so that the next candidate need not wait; disarms the watchdog.

        Call it when the work has ended. An API server that is away is no error: the Lease then expires by itself.
        """
        self._leading = False
        try:
            for _ in range(2):
                # the second time: a renewal that we gave up waiting for was written after all
                if self._lease is None or _Record.of(self._lease).holder != self._identity:
                    break
                try:
                    await self._write(holder="", took_over=False)
                except errors.Conflict:
                    await self._read()
        except errors.ApiError as error:
            logger.warning("Lease %s/%s not released, it expires by itself: %s", self._namespace, self._name, error)
        finally:
            self._arm(None)

    def start_watchdog(self, on_late: Callable[[], None]) -> None:
        """Calls `on_late` once, from a thread, when renewing is late by more than the renew deadline.

        In production `on_late` ends the process. It fires a little after the deadline (a quarter of the time that is
        left until others may take over), so that a `hold` that can still return does so first.
        """
        threading.Thread(target=self._watch_over, args=(on_late,), name="lease-watchdog", daemon=True).start()

    def _watch_over(self, on_late: Callable[[], None]) -> None:
        limit_seconds = self._deadline_seconds + (self._lease_seconds - self._deadline_seconds) / 4
        with self._changed:
            while True:
                if self._renewed_at is None:
                    self._changed.wait()
                    continue
                left_seconds = self._renewed_at + limit_seconds - self._now()
                if left_seconds <= 0:
                    break
                # Not one long wait: a sleeping machine stops the clock that waits are measured by.
                self._changed.wait(min(left_seconds, self._retry_seconds))
        on_late()

    def _arm(self, renewed_at: float | None) -> None:
        with self._changed:
            self._renewed_at = renewed_at
            self._changed.notify_all()

    def _remaining_seconds(self) -> float:
        return -math.inf if self._renewed_at is None else self._renewed_at + self._deadline_seconds - self._now()

    async def _try_to_take(self) -> bool:
        await self._read()
        self._has_looked = True
        if self._lease is not None:
            record = self._note(self._lease)
            if record.holder not in ("", self._identity) and self._vacant_in_seconds() > 0:
                return False
        return await self._renew(took_over=True)

    def _is_news(self, kind: str, lease: dict[str, Any]) -> bool:
        """A watch may lag behind a later read, and an older record would look like a renewal."""
        read = int(self._lease["metadata"]["resourceVersion"]) if self._lease is not None else 0
        return kind != "BOOKMARK" and int(lease["metadata"]["resourceVersion"]) > read

    def _note(self, lease: dict[str, Any]) -> _Record:
        """Records what `lease` says; a new record starts to stand still now."""
        record = _Record.of(lease)
        if record != self._seen:
            self._seen, self._seen_since = record, self._now()
        return record

    def _vacant_in_seconds(self) -> float:
        """Seconds that the record seen last must still stand before another may take the Lease."""
        spec_seconds = ((self._lease or {}).get("spec") or {}).get("leaseDurationSeconds") or 0
        # A holder that was started with a longer lease keeps it.
        return self._seen_since + max(self._lease_seconds, spec_seconds) - self._now()

    async def _renew(self, *, took_over: bool = False) -> bool:
        """True: the Lease is ours. False: another's. Raises ApiError: unknown."""
        began = self._now()
        try:
            await self._write(holder=self._identity, took_over=took_over)
        except errors.Conflict:
            if took_over:
                raise
            await self._read()
            if self._lease is not None and _Record.of(self._lease).holder != self._identity:
                return False
            # ours still: a renewal that we gave up waiting for was written after all, or someone changed a label
            began = self._now()
            await self._write(holder=self._identity, took_over=False)
        self._arm(began)
        self._leading = True
        return self.is_leader

    async def _read(self) -> None:
        try:
            self._lease = await self._api.request(
                "GET",
                kinds.LEASES,
                self._name,
                namespace=self._namespace,
                timeout_seconds=self._timeout_seconds,
                urgent=True,
            )
        except errors.NotFound:
            self._lease = None

    async def _write(self, *, holder: str, took_over: bool) -> None:
        """Creates the Lease, or replaces exactly the one last read."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease = copy.deepcopy(self._lease) or {
            "apiVersion": kinds.LEASES.api_version,
            "kind": kinds.LEASES.kind,
            "metadata": {"namespace": self._namespace, "name": self._name},
        }
        if self._labels:
            lease["metadata"]["labels"] = {**(lease["metadata"].get("labels") or {}), **self._labels}
        spec = lease.setdefault("spec", {})
        if took_over:
            transitions = spec.get("leaseTransitions") or 0
            spec.update(acquireTime=now, leaseTransitions=transitions + 1 if self._lease else 0)
        spec.update(holderIdentity=holder, renewTime=now, leaseDurationSeconds=max(1, math.ceil(self._lease_seconds)))
        create = self._lease is None
        try:
            self._lease = await self._api.request(
                "POST" if create else "PUT",
                kinds.LEASES,
                None if create else self._name,
                namespace=self._namespace,
                body=lease,
                verb="create" if create else "update",
                timeout_seconds=self._timeout_seconds,
                urgent=True,
            )
        except errors.NotFound:
            # deleted by hand: the next attempt creates it, unless another candidate does first
            self._lease = None
            raise


def _now() -> float:
    """Seconds of a clock that never goes back and, on Linux, does not stop while the machine sleeps."""
    with contextlib.suppress(AttributeError):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
