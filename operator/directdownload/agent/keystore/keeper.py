"""Keeps the host's keystore in sync with the cluster while the agent runs: decides when `sync` is due.

Fed by `supervisor`, which gets every new report. A sync is due when the wishes, the keystore, the password file or the
trust bundle change, after `syncInterval`, when a previous certificate ends, and after a failure with backoff. One sync
runs at a time, in a thread.

Files are checked once a second instead of watched by inotify: a keystore is replaced by renames, it and its directory
may not exist yet, it may be a link, or be on a mount that comes later. Each case would need its own watch; three calls
of stat(2) cover them all.
"""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from directdownload.agent import cluster_view as views
from directdownload.agent import metrics, retry
from directdownload.agent.keystore import report, sync
from directdownload.agent.keystore.bundle import Bundle
from directdownload.agent.keystore.sync import KeystoreSync, Synced, Wishes
from directdownload.agent.settings import Settings
from directdownload.backoff import spread
from directdownload.cluster import client, kinds, reflector
from directdownload.keystore import errors, store
from directdownload.observe import logs
from directdownload.planning.keystores import Published
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)


class ZoneWatch:
    """Watches one Zone and its certificates while `run` runs; the other members return the current state.

    `supervisor` makes a new one when the host changes its zone. The selectors exclude certificates of other zones: the
    API server sends each write of a certificate to all agents that watch it, and these may be thousands.
    """

    def __init__(self, api: client.Api, zone: str, on_change: Callable[[], None]) -> None:
        self.zone = zone
        self._on_change = on_change
        self._zones = reflector.Store[views.ZoneView]()
        self._certificates = reflector.Store[views.CertificateView]()
        self._reflectors = (
            reflector.Reflector(
                api,
                kinds.ZONES,
                views.project_zone,
                self._zones,
                field_selector=f"metadata.name={zone}",
                on_change=self._changed,
            ),
            reflector.Reflector(
                api,
                kinds.CERTIFICATES,
                views.project_certificate,
                self._certificates,
                field_selector=f"spec.zone={zone}",
                on_change=self._changed,
            ),
        )
        self._certificates.unreadable.subscribe(self._changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in self._reflectors:
                group.create_task(each.run())
            for each in self._reflectors:
                await each.synced.wait()
            self._on_change()

    @property
    def synced(self) -> bool:
        """Whether both lists are complete: a missing object does not exist."""
        return all(each.synced.is_set() for each in self._reflectors)

    @property
    def last_relist_monotonic(self) -> float:
        return min(each.last_relist_monotonic for each in self._reflectors)

    def found(self) -> views.ZoneView | None:
        return self._zones.get(self.zone)

    def published(self) -> tuple[Published, ...]:
        """The published certificates, sorted by name."""
        known = sorted(self._certificates, key=lambda each: each.key)
        return tuple(each.published for each in known if each.published is not None)

    def unread(self) -> frozenset[str]:
        """Names of certificates that exist but cannot be read."""
        return frozenset(each.key for each in self._certificates.unreadable)

    def _changed(self, _key: str, _old: object, _new: object) -> None:
        self._on_change()


class KeystoreKeeper:
    """`want` sets the wishes (None: not known, so nothing changes); `run` syncs the keystore until cancelled."""

    def __init__(self, settings: Settings, *, on_report: Callable[[], None]) -> None:
        self._poll_seconds = settings.keystore_poll_seconds
        self._sync = KeystoreSync(settings.keystore_roots, settings.state_directory)
        self._on_report = on_report
        self._wanted: Wishes | None = None
        #: the wishes of the last sync
        self._tried: Wishes | None = None
        self._synced: Synced | None = None
        #: before the last sync, or later if the content is the same
        self._stamps: tuple[object, object] | None = None
        self._bundle = Bundle(settings.state_directory)
        #: after the last sync; only syncs write the bundle
        self._bundle_stamp: object = None
        self._due_monotonic = 0.0
        #: in a row
        self._failures = 0
        self._complaint = retry.Complaint(logger)
        self._wake = asyncio.Event()
        self._told = report.NOTHING
        #: None: no sync has ended yet
        self.report: report.KeystoreReport | None = None

    def remember(self, status: Mapping[str, Any]) -> None:
        """Takes the Host's status of an earlier agent. Called before the first `want`, and for a recreated Host."""
        self._told = report.told(status)
        self._synced = self.report = None

    def want(self, wishes: Wishes | None) -> None:
        if wishes != self._wanted:
            self._wanted = wishes
            self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            wishes = self._wanted
            if wishes is not None and await self._due(wishes):
                await self._converge(wishes)
            elif not self._wake.is_set():
                try:
                    async with asyncio.timeout(self._poll_seconds):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _due(self, wishes: Wishes) -> bool:
        synced, now = self._synced, datetime.datetime.now(datetime.UTC)
        if synced is None or wishes != self._tried or time.monotonic() >= self._due_monotonic:
            return True
        if synced.until is not None and now >= synced.until:
            return True
        return await asyncio.to_thread(self._changed, wishes, synced)

    def _changed(self, wishes: Wishes, synced: Synced) -> bool:
        """Whether the files have changed since the last sync."""
        if wishes.keystore is None:
            return False
        if self._bundle.stamp() != self._bundle_stamp:
            return True
        stamps = sync.stamps(wishes.keystore)
        if stamps == self._stamps:
            return False
        known, self._stamps = self._stamps, stamps
        if known is None or known[1] != stamps[1] or synced.store is None:
            return True
        try:
            return store.sha256(wishes.keystore.path) != synced.store.sha256
        except errors.UnreadableError:
            return True

    async def _converge(self, wishes: Wishes) -> None:
        self._tried = wishes
        with metrics.KEYSTORE_SYNC_SECONDS.time():
            self._synced = synced = await asyncio.to_thread(self._once, wishes)
        for drift in synced.drift:
            metrics.KEYSTORE_DRIFT.labels(host=wishes.host, kind=drift.kind).inc()
        self._log(wishes, synced)
        if synced.error is not None:
            self._failures += 1
            seconds = retry.pause_seconds(self._failures, synced.error)
        else:
            self._failures = 0
            interval = wishes.sync_interval_seconds or float("inf")
            seconds = max(self._poll_seconds, spread(interval, 0.9, 1.1))
        self._due_monotonic = time.monotonic() + seconds
        now = datetime.datetime.now(datetime.UTC)
        self._told = report.made(synced, wishes.generation, self._told, now)
        if self._told is not self.report:
            self.report = self._told
            self._on_report()

    def _log(self, wishes: Wishes, synced: Synced) -> None:
        """Logs what fails, once until it fails otherwise: the keystore as a whole, else each certificate."""
        whole = str(synced.error) if synced.error is not None else synced.message
        reason = synced.error.reason if synced.error is not None else synced.reason
        if reason is not Reason.KEYSTORE_SYNCED:
            self._complaint.say(logging.WARNING, f"Host {wishes.host}: {reason}: {whole}", {"reason": str(reason)})
            return
        self._complaint.clear("The keystore is in sync again")
        before = {each.name: each for each in self._told.certificates if each.state == "Failed"}
        for each in synced.proofs:
            known = before.get(each.name)
            if each.state != "Failed" or (known is not None and known.reason == each.reason):
                continue
            text = "DirectDownloadCertificate %s on Host %s: %s: %s"
            about = logs.about("DirectDownloadCertificate", each.name, host=wishes.host, reason=str(each.reason))
            logger.warning(text, each.name, wishes.host, each.reason, each.message, extra=about)

    def _once(self, wishes: Wishes) -> Synced:
        if wishes.keystore is not None:
            # before the store is read, so that a later write counts as a change
            self._stamps = sync.stamps(wishes.keystore)
        try:
            return self._sync.sync(wishes, datetime.datetime.now(datetime.UTC))
        finally:
            self._bundle_stamp = self._bundle.stamp()
