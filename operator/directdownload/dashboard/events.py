"""The Events of hosts whose pages are open: read when a page asks, not watched, as a cluster has many of them. An
edge of the room."""

import dataclasses
import time

from directdownload.cluster import client, errors, kinds
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import hosts
from directdownload.dashboard.views.hosts import Events

#: Events are asked for again after this.
_FRESH_SECONDS = 5.0
#: Hosts of which Events are remembered, and Events of one host.
_MOST_HOSTS, _MOST_EVENTS = 100, 500
#: Where Events of cluster-scoped objects are.
_NAMESPACE = "default"


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    events: Events
    asked_monotonic: float


class HostEvents:
    """Touches `picture` when something has changed."""

    def __init__(self, api: client.Api, picture: Picture) -> None:
        self._api = api
        self._picture = picture
        self._known: dict[str, _Known] = {}

    def known(self, host: str) -> Events:
        found = self._known.get(host)
        return found.events if found is not None else Events()

    async def refresh(self, host: str) -> None:
        """Asks for them, unless that was done a moment ago. Raises nothing."""
        item, held = self._picture.hosts.get(host), self._known.get(host)
        if item is None or (held is not None and time.monotonic() - held.asked_monotonic < _FRESH_SECONDS):
            return
        # noted first: a page that is shown meanwhile does not ask as well
        asked = time.monotonic()
        self._known[host] = _Known(self.known(host), asked)
        events = await self._read(item.uid, held)
        self._known.pop(host, None)
        self._known[host] = _Known(events, asked)
        while len(self._known) > _MOST_HOSTS:
            del self._known[next(iter(self._known))]
        if held is None or held.events != events:
            self._picture.touch()

    async def _read(self, uid: str, held: _Known | None) -> Events:
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(_MOST_EVENTS)}
        try:
            found = await self._api.request(
                "GET", kinds.CORE_EVENTS, namespace=_NAMESPACE, query=query, verb="list", timeout_seconds=2
            )
        except errors.Forbidden:
            return Events(refusal="You may not list events (403): none of them is shown.", pending=False)
        except errors.ApiError:
            return held.events if held is not None else Events()
        return hosts.events_of(found.get("items") or ())
