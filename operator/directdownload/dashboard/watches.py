"""The one watch of each kind, however many pages are open, and what becomes of it: an edge of the room.

Hosts, Zones and the counts of rollouts come first, and make the first view; the copies, ten times as many, after them.
"""

import asyncio
import contextlib
import datetime
import gc
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from directdownload.cluster import client, errors, kinds
from directdownload.cluster.kinds import Resource
from directdownload.cluster.reflector import Reflector
from directdownload.dashboard import copies
from directdownload.dashboard.feeds import Feed, State
from directdownload.dashboard.picture import Picture, project_host
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.zone import Zone

#: Between two questions whether the API server is there.
HEARTBEAT_SECONDS = 3.0
_HEARTBEAT_TIMEOUT_SECONDS = 4.0
#: The copies do not wait longer for the first view.
_FIRST_VIEW_SECONDS = 20.0
_RETRY_SECONDS = 2.0
#: Between two looks whether a list is complete.
_LOOK_SECONDS = 0.5
#: One page is read at once, and hosts have hundreds of proofs.
_PAGE_SIZE = 250
#: kind → what is kept of an object of it
PROJECTIONS: Mapping[Resource, Callable[[dict[str, Any]], Any]] = {
    kinds.ZONES: Zone.model_validate,
    kinds.HOSTS: project_host,
    kinds.STORAGE_POOLS: StoragePool.model_validate,
    kinds.TEMPLATES: Template.model_validate,
    kinds.TEMPLATE_DEPLOYMENTS: TemplateDeployment.model_validate,
    kinds.TEMPLATE_PLACEMENTS: copies.project,
    kinds.CERTIFICATES: DirectDownloadCertificate.model_validate,
}
#: Kinds with `spec.zone` as a field that the API server selects by.
_OF_ZONE = frozenset({kinds.HOSTS, kinds.STORAGE_POOLS, kinds.TEMPLATE_PLACEMENTS, kinds.CERTIFICATES})


class Watches:
    """Fills `picture`. `namespace`: the only one that is watched; None: all, else `own` if that is all that the user
    may read. Runs until cancelled."""

    def __init__(self, api: client.Api, picture: Picture, namespace: str | None, own: str) -> None:
        self._api = api
        self._picture = picture
        self._namespace = namespace
        self._own = own
        self._settled = asyncio.Event()
        for resource, store in picture.stores.items():
            feed = picture.feeds[resource]
            store.subscribe(_receiver(feed))

    async def first_view(self, seconds: float) -> None:
        """Waits for it, but no longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), seconds)

    async def run(self) -> None:
        # What the first lists bring stays: looking for garbage in it would hold the event loop.
        gc.disable()
        # A page says how a watch fares; the terminal need not.
        logging.getLogger("directdownload").addHandler(logging.NullHandler())
        async with asyncio.TaskGroup() as group:
            for resource in kinds.OURS:
                group.create_task(self._follow(resource))
            group.create_task(self._settle())
            group.create_task(self._heartbeat())

    async def _settle(self) -> None:
        """Tells when the first view is there, and freezes all that has come in once the copies are there as well."""
        first = [feed for resource, feed in self._picture.feeds.items() if resource != kinds.TEMPLATE_PLACEMENTS]
        while not all(feed.settled for feed in first):  # noqa: ASYNC110 - seven kinds, a few times
            await asyncio.sleep(0.02)
        self._settled.set()
        while not self._picture.feeds[kinds.TEMPLATE_PLACEMENTS].settled:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        gc.freeze()
        gc.enable()

    async def _follow(self, resource: Resource) -> None:
        feed = self._picture.feeds[resource]
        if resource == kinds.TEMPLATE_PLACEMENTS:
            await self.first_view(_FIRST_VIEW_SECONDS)
        if resource.namespaced:
            feed.namespace = await self._scope(feed)
        in_zone = self._picture.zone if resource in _OF_ZONE else None
        reflector = Reflector(
            self._api,
            resource,
            PROJECTIONS[resource],
            self._picture.stores[resource],
            namespace=feed.namespace,
            field_selector=f"spec.zone={in_zone}" if in_zone else None,
            page_size=_PAGE_SIZE,
            on_attempt=lambda error: self._attempted(feed, error),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(reflector.run())
            listed = None
            while True:
                await reflector.synced.wait()
                # A later list says the same: also the first one after a time in which it was forbidden.
                if reflector.last_relist_monotonic != listed:
                    listed = reflector.last_relist_monotonic
                    feed.completed(_now())
                    self._picture.touch()
                await asyncio.sleep(_LOOK_SECONDS)

    async def _scope(self, feed: Feed) -> str | None:
        """The namespace to watch a kind in; None: all of them."""
        if self._namespace is not None:
            return self._namespace
        while True:
            try:
                await self._api.request("GET", feed.resource, query={"limit": "1"}, verb="list")
            except errors.Forbidden:
                feed.narrowed = True
                return self._own
            except errors.ApiError as error:
                self._attempted(feed, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return None

    def _attempted(self, feed: Feed, error: errors.ApiError | None) -> None:
        before = feed.state
        if error is None:
            feed.begin(time.monotonic())
        else:
            feed.fail(error)
        if feed.state is not before:
            if feed.state is State.FORBIDDEN:
                self._picture.clear(feed.resource)
            self._picture.touch()

    async def _heartbeat(self) -> None:
        """Nothing comes over a watch while nothing changes: whether it is open is asked aside."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            lost: errors.ApiError | None = None
            try:
                await self._api.request(
                    "GET",
                    kinds.ZONES,
                    query={"limit": "1"},
                    verb="list",
                    timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS,
                    urgent=True,
                )
            except errors.Unreachable as error:
                lost = error
            except errors.ApiError:
                # it has answered
                pass
            self._heard(lost)

    def _heard(self, lost: errors.ApiError | None) -> None:
        for feed in self._picture.all_feeds:
            before = feed.state
            if lost is not None:
                feed.doubt()
            else:
                feed.answered(_now(), time.monotonic())
            if feed.state is not before:
                self._picture.touch()


def _receiver(feed: Feed) -> Callable[[str, object, object], None]:
    def receive(_key: str, _old: object, new: object) -> None:
        # What goes because it is forbidden has not come from the API server.
        if new is not None or feed.state is not State.FORBIDDEN:
            feed.receive(_now())

    return receive


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
