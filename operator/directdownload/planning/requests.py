"""When a request (the annotation `directdownload.dev/requested-at`) is served: once per object and interval.

Anybody who may write an object may give the annotation a new value each second, and a request on a deployment,
Template, pool, host or Zone is a write to each of its copies. So it is served at once if the last one is `INTERVAL`
old; a later value waits until then, and only the newest counts. A request lifts a stall and asks for a verification;
it ends no pause after a failure.
"""

import dataclasses
import datetime
from typing import Any, Protocol

from directdownload.resources.base import ObjectMeta, Status

#: Nobody asks faster than they can see the outcome. 5,000 copies that are asked once a minute are 83 writes a second:
#: a rollout to as many hosts costs that for two minutes.
INTERVAL = datetime.timedelta(seconds=60)


class Requested(Protocol):
    """Any of our objects that are kept whole."""

    @property
    def metadata(self) -> ObjectMeta: ...
    @property
    def status(self) -> Status: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """The requests in a status: the value that was served last, and its time."""

    request: str | None
    time: datetime.datetime | None

    def fields(self) -> dict[str, Any]:
        """The same as arguments of a status."""
        return {"last_handled_request": self.request, "last_handled_request_time": self.time}


def due(requested: str, before: Served, now: datetime.datetime) -> datetime.datetime | None:
    """When the request `requested` may be served, `now` if at once; None: there is none, or it was served."""
    if not requested or requested == before.request:
        return None
    # A time in the future was written by another clock: it delays nobody.
    return now if before.time is None or before.time > now else before.time + INTERVAL


def due_of(item: Requested, now: datetime.datetime) -> datetime.datetime | None:
    """`due` for the request on `item`."""
    return due(item.metadata.requested_at, _before(item), now)


def is_due(when: datetime.datetime | None, now: datetime.datetime) -> bool:
    """Whether a request is to be served now."""
    return when is not None and when <= now


def later(when: datetime.datetime | None, now: datetime.datetime) -> datetime.datetime | None:
    """When to look again for a request that is not due yet."""
    return when if when is not None and when > now else None


def served(item: Requested, now: datetime.datetime) -> Served:
    """The status fields of `item` once its request was handed on, if it is due."""
    before, when = _before(item), due_of(item, now)
    if when is None:
        return Served(item.metadata.requested_at or None, before.time)
    return Served(item.metadata.requested_at, now) if when <= now else before


def _before(item: Requested) -> Served:
    return Served(item.status.last_handled_request, item.status.last_handled_request_time)
