"""Watches one Zone and its certificates, which together with the Host determine the host's keystore.

`supervisor` runs it, and makes a new one when the host changes its zone. The selectors exclude certificates of other
zones: the API server sends each write of a certificate to all agents that watch it, and these may be thousands.
"""

import asyncio
from collections.abc import Callable

from directdownload.agent import cluster_view as views
from directdownload.cluster import client, kinds, reflector
from directdownload.planning.keystores import Published


class ZoneWatch:
    """Watches while `run` runs; the other members return the current state."""

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
