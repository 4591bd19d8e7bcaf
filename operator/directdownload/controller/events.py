"""Kubernetes Events: reports for people, beside the object that they are about (`kubectl describe`).

Reconcilers call `Recorder.tell`, which only takes note; `Recorder.run` posts in the background. Nothing depends on an
Event (architecture, rule 1): they repeat conditions, and are dropped when they cannot be posted. Promises:

- if the same happens again to an object within `SERIES_PAUSE`, the count of one Event rises, as in client-go's
  `tools/events`;
- one object costs at most `BURST` writes at once and one more each `REFILL`, as with client-go's spam filter;
- memory is bounded, whatever the API server does: `SERIES_LIMIT` objects are remembered, `QUEUE_LIMIT` Events wait;
- a note holds no credentials: the engine leaves them out of its messages, and anything that still looks like one is
  masked here.

The rules for the fields are those of `ValidateEventCreate` in Kubernetes' `pkg/apis/core/validation/events.go`.
"""

import asyncio
import collections
import contextlib
import dataclasses
import datetime
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from directdownload.cluster import client, errors, kinds
from directdownload.controller import metrics
from directdownload.observe import logs
from directdownload.resources.base import GROUP
from directdownload.resources.reasons import Reason
from directdownload.tokenbucket import TokenBucket

logger = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]

CONTROLLER = f"{GROUP}/controller"
#: Where Events of cluster-scoped objects are: the API server accepts `default` and `kube-system` only.
CLUSTER_NAMESPACE = "default"
SERIES_PAUSE = datetime.timedelta(minutes=6)
BURST = 25
REFILL = datetime.timedelta(minutes=5)
SERIES_LIMIT = 4096
QUEUE_LIMIT = 1000
NOTE_LIMIT_BYTES = 1024
_INSTANCE_LIMIT = 128
_NAME_LIMIT = 253
#: An API server that is away for a minute loses nothing that fits into the queue.
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
_LONGEST_RETRY_AFTER_SECONDS = 30.0
_TRANSIENT = (errors.Unreachable, errors.TooManyRequests)


class Regarded(Protocol):
    """Any object in one of the world's stores."""

    @property
    def key(self) -> str: ...
    @property
    def uid(self) -> str: ...


class SeriesKey(NamedTuple):
    """The fields by which two occurrences are the same."""

    uid: str
    event_type: EventType
    reason: Reason
    action: str


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One Event: an occurrence and its repetitions. The note is the first one's, as an Event's note never changes."""

    resource: kinds.Resource
    #: of the object: `namespace/name` or `name`
    key: str
    uid: str
    event_type: EventType
    reason: Reason
    action: str
    note: str
    first: datetime.datetime
    last: datetime.datetime
    count: int = 1


def continued(earlier: Series | None, new: Series) -> Series:
    """The Event that reports `new`: `earlier` with one more repetition, or `new` itself."""
    if earlier is None or new.first - earlier.last > SERIES_PAUSE:
        return new
    # Later than before even if the clock was set back: kubectl sorts by this time.
    return dataclasses.replace(earlier, last=max(earlier.last, new.last), count=earlier.count + 1)


def spend(bucket: TokenBucket | None, now: datetime.datetime) -> tuple[TokenBucket, bool]:
    """Takes one token of an object's Events. False: there was none."""
    moment = now.timestamp()
    if bucket is None:
        bucket = TokenBucket.full(REFILL.total_seconds(), BURST, moment)
    taken, lacking_seconds = bucket.take(moment)
    return (bucket, False) if lacking_seconds else (taken, True)


def note(message: str) -> str:
    """`message` on one line, without anything that looks like a credential, in at most `NOTE_LIMIT_BYTES`.

    Messages come from jobs, which have read foreign bytes.
    """
    text = "".join(character if character.isprintable() else " " for character in logs.mask(message))
    encoded = text.encode()
    if len(encoded) <= NOTE_LIMIT_BYTES:
        return text
    mark = "…"
    return encoded[: NOTE_LIMIT_BYTES - len(mark.encode())].decode(errors="ignore") + mark


def namespace_of(series: Series) -> str:
    return series.key.rpartition("/")[0] or CLUSTER_NAMESPACE


def name_of(series: Series) -> str:
    """Follows from the Event itself (architecture, rule 9), so that a create whose answer was lost can be repeated."""
    what = (series.uid, series.event_type, series.reason, series.action, series.first.isoformat())
    digest = hashlib.sha256("/".join(what).encode()).hexdigest()[:16]
    name = series.key.rpartition("/")[2][: _NAME_LIMIT - len(digest) - 1].rstrip("-.")
    return f"{name}.{digest}"


def document(series: Series, instance: str) -> dict[str, Any]:
    """The Event; `instance` is the reporting pod."""
    namespace, _, name = series.key.rpartition("/")
    regarding = {
        "apiVersion": series.resource.api_version,
        "kind": series.resource.kind,
        "name": name,
        "uid": series.uid,
        **({"namespace": namespace} if namespace else {}),
    }
    return {
        "apiVersion": kinds.EVENTS.api_version,
        "kind": kinds.EVENTS.kind,
        "metadata": {"name": name_of(series), "namespace": namespace_of(series)},
        "eventTime": _micro_time(series.first),
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:_INSTANCE_LIMIT],
        "action": series.action,
        "reason": str(series.reason),
        "regarding": regarding,
        "note": series.note,
        "type": series.event_type,
        **(repetitions(series) if series.count > 1 else {}),
    }


def repetitions(series: Series) -> dict[str, Any]:
    """The part of the Event that changes when it happens again; the API server refuses a count below 2."""
    return {"series": {"count": series.count, "lastObservedTime": _micro_time(series.last)}}


def _micro_time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Backlog:
    """The Events that wait to be posted, and the memory of those before them. Without I/O and clock."""

    def __init__(self) -> None:
        #: the latest state of each, the one that was touched longest ago first
        self._series: collections.OrderedDict[SeriesKey, Series] = collections.OrderedDict()
        self._buckets: collections.OrderedDict[tuple[str, EventType], TokenBucket] = collections.OrderedDict()
        self._waiting: collections.OrderedDict[SeriesKey, Series] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, new: Series) -> metrics.EventDropCause | None:
        """Takes `new`, at the time `new.first`; or says why it is not posted. Then the next repetition counts it."""
        key = SeriesKey(new.uid, new.event_type, new.reason, new.action)
        series = continued(self._series.get(key), new)
        _remember(self._series, key, series)
        if key in self._waiting:
            # One write reports both.
            self._waiting[key] = series
            return None
        owner = (new.uid, new.event_type)
        bucket, allowed = spend(self._buckets.get(owner), new.first)
        _remember(self._buckets, owner, bucket)
        if not allowed:
            return "Throttled"
        if len(self._waiting) >= QUEUE_LIMIT:
            return "QueueFull"
        self._waiting[key] = series
        return None

    def pop(self) -> Series:
        """The one that waits longest; KeyError if there is none."""
        return self._waiting.popitem(last=False)[1]


def _remember(entries: collections.OrderedDict[Any, Any], key: Any, value: Any) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > SERIES_LIMIT:
        entries.popitem(last=False)


class Recorder:
    """Reports on behalf of one controller pod, `instance`."""

    def __init__(self, api: client.Api, instance: str, *, pauses_seconds: Sequence[float] = PAUSES_SECONDS) -> None:
        self._api = api
        self._instance = instance
        self._pauses_seconds = pauses_seconds
        self._backlog = Backlog()
        self._wakeup = asyncio.Event()
        #: nothing waits, and nothing is being posted
        self._told = asyncio.Event()
        self._told.set()
        self._complained = False

    def tell(
        self,
        resource: kinds.Resource,
        item: Regarded,
        event_type: EventType,
        reason: Reason,
        message: str,
        action: str = "Reconcile",
    ) -> None:
        """Takes note of what happened to `item`, an object of kind `resource`, at once and without failing.

        `action` is the work on it that led to this: `Fetch`, `Verify`, `Remove`, …
        """
        now = datetime.datetime.now(datetime.UTC)
        new = Series(resource, item.key, item.uid, event_type, reason, action, note(message), now, now)
        cause = self._backlog.add(new)
        if cause is None:
            self._told.clear()
            self._wakeup.set()
        elif cause == "Throttled":
            metrics.event_dropped(cause)
        else:
            self._drop(cause, f"{len(self._backlog)} wait already")

    async def run(self) -> None:
        """Posts until cancelled, one at a time: reconcilers have priority at the API server."""
        while True:
            while not self._backlog:
                self._told.set()
                self._wakeup.clear()
                await self._wakeup.wait()
            series = self._backlog.pop()
            try:
                await self._persist(series)
                self._complained = False
            except _TRANSIENT as error:
                self._drop("Unreachable", str(error))
            except errors.ApiError as error:
                self._drop("Refused", str(error))
            except Exception:
                # A bug here must not end the controller, which needs no Events.
                about = logs.about(series.resource.kind, series.key)
                logger.exception("Event %s: unexpected error", name_of(series), extra=about)

    async def finish(self, seconds: float) -> None:
        """Waits, at most `seconds`, until all are posted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()

    async def _persist(self, series: Series) -> None:
        for pause in self._pauses_seconds:
            try:
                return await self._post(series)
            except _TRANSIENT as error:
                asked = error.retry_after_seconds if isinstance(error, errors.TooManyRequests) else 0.0
                await asyncio.sleep(max(pause, min(asked, _LONGEST_RETRY_AFTER_SECONDS)))
        return await self._post(series)

    async def _post(self, series: Series) -> None:
        namespace = namespace_of(series)
        if series.count > 1:
            try:
                await self._api.merge_patch(kinds.EVENTS, name_of(series), repetitions(series), namespace=namespace)
            except errors.NotFound:
                # It has expired, or was never posted: it is created (again) with its count.
                pass
            else:
                return
        # It exists: the answer to an earlier try was lost.
        with contextlib.suppress(errors.AlreadyExists):
            await self._api.create(kinds.EVENTS, document(series, self._instance), namespace=namespace)

    def _drop(self, cause: metrics.EventDropCause, detail: str) -> None:
        """Counted each time, logged once until one is posted again."""
        metrics.event_dropped(cause)
        if not self._complained:
            self._complained = True
            logger.warning("Events are being dropped (%s): %s", cause, detail)
