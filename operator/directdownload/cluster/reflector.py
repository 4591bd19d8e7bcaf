"""Keeps a projected copy of one kind of object in memory, up to date, for as long as the process runs.

The controller runs one `Reflector` each for placements, hosts, jobs, pods and nodes, reads their `Store`s, and gets
every change. List and watch are paged, projected page by page and bounded, so that 50,000 objects cost what their
projections cost; an object that is unchanged since it was last seen is not projected again. Promises:

- the next list reports an object as deleted that vanished while no watch ran;
- a store never goes back: neither a late event nor a late write-through replaces something newer;
- an API server that is away costs nothing but age: the store stays, `last_relist_monotonic` says how old it may be;
- an object that cannot be read exists in `Store.unreadable`. No projection, whatever others wrote, ends a reflector.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import pydantic

from directdownload import escaping, slices
from directdownload.backoff import Backoff, spread
from directdownload.cluster import client, errors, objects
from directdownload.cluster.kinds import Resource
from directdownload.observe import logs

logger = logging.getLogger(__name__)

WATCH_SECONDS = 300
TOMBSTONE_SECONDS = 300
_BACKOFF = Backoff(0.5, 30, (0.5, 1.0))
#: Of an object that cannot be read: how many of its errors are named, and their characters at most.
_PROBLEMS, _PROBLEM_LENGTH = 3, 512
#: A watch that ends sooner and brought nothing counts as a failure: something in between cuts it off.
_SHORT_WATCH_SECONDS = 1


class Projected(Protocol):
    """The attributes that a store needs of an object: see `objects.key_of` for `key`."""

    @property
    def key(self) -> str: ...
    @property
    def resource_version(self) -> int: ...
    @property
    def uid(self) -> str: ...


T = TypeVar("T", bound=Projected)
#: key, the object before (None: new), the object now (None: deleted). A changed uid means another object of that name.
OnChange = Callable[[str, T | None, T | None], None]
#: None: a list or a watch begins; else the error that has ended it. What it brings in between says that it works.
OnAttempt = Callable[[errors.ApiError | None], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """An existing object that this version cannot read: another version wrote it, or somebody has spoilt it.

    `document` is what the API serves, without `managedFields`; nothing in it is checked except `metadata`.
    """

    key: str
    uid: str
    resource_version: int
    problem: str
    document: Mapping[str, Any]


class Store(Generic[T]):
    """Objects by key. Not for threads. Every subscriber gets each change at once, in order."""

    def __init__(self) -> None:
        self._objects: dict[str, T] = {}
        #: resourceVersion and time of each deletion, in the order of time
        self._tombstones: dict[str, tuple[int, float]] = {}
        #: keys without a report since `rewind`
        self._outdated: set[str] = set()
        self._subscribers: list[OnChange[T]] = []
        self._unreadable: Store[Unreadable] | None = None

    @property
    def unreadable(self) -> "Store[Unreadable]":
        """The objects that cannot be read; none of them is among the others."""
        if self._unreadable is None:
            self._unreadable = Store()
        return self._unreadable

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def get(self, key: str) -> T | None:
        return self._objects.get(key)

    @property
    def by_key(self) -> Mapping[str, T]:
        return self._objects

    def current(self, key: str, resource_version: int) -> bool:
        """Whether the store holds this version, or a newer one: then the document brings nothing new."""
        held = self._objects.get(key)
        if held is not None and held.resource_version >= resource_version and key not in self._outdated:
            return True
        return self._unreadable is not None and self._unreadable.current(key, resource_version)

    def subscribe(self, on_change: OnChange[T]) -> None:
        self._subscribers.append(on_change)

    def take(self, resource: Resource, project: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> None:
        """Takes `document`, as the API serves it, through `project`; as `Unreadable` if that fails. What it has already
        is not projected again."""
        metadata = document["metadata"]
        if self.current(objects.key_of(metadata), int(metadata["resourceVersion"])):
            return
        try:
            item = project(document)
        # Whatever it is: what others write must not end its readers.
        except Exception as error:
            self._take_unreadable(resource, document, error)
        else:
            if self.observe(item) and self._unreadable is not None and item.key in self._unreadable:
                self._unreadable.forget(item.key, item.resource_version)

    def _take_unreadable(self, resource: Resource, document: dict[str, Any], error: Exception) -> None:
        metadata = {name: value for name, value in document["metadata"].items() if name != "managedFields"}
        key, version = objects.key_of(metadata), int(metadata["resourceVersion"])
        held = self._objects.get(key)
        buried, _ = self._tombstones.get(key, (0, 0.0))
        if (buried if held is None or key in self._outdated else held.resource_version) >= version:
            return
        problem = problem_of(error)
        if self.unreadable.observe(
            Unreadable(key, metadata["uid"], version, problem, {**document, "metadata": metadata})
        ):
            text = (
                "%s %s cannot be read by this version and is left alone: %s. Upgrade to the version that wrote it, "
                "or correct the object"
            )
            logger.error(text, resource.kind, key, problem, extra=logs.about(resource.kind, key))
        if held is not None:
            self._drop(key, version)

    def observe(self, item: T) -> bool:
        """Takes `item`, which may be the result of one's own write, unless it is not newer. True if taken."""
        old = self._objects.get(item.key)
        buried, _ = self._tombstones.get(item.key, (0, 0.0))
        known = buried if old is None or item.key in self._outdated else old.resource_version
        if known >= item.resource_version:
            return False
        self._tombstones.pop(item.key, None)
        self._outdated.discard(item.key)
        self._objects[item.key] = item
        self._tell(item.key, old, item)
        return True

    def forget(self, key: str, resource_version: int) -> bool:
        """Drops the object that was deleted at `resource_version`, unless it is newer than that. True if dropped."""
        unread = self._unreadable is not None and key in self._unreadable
        dropped = unread and self.unreadable.forget(key, resource_version)
        return self._drop(key, resource_version) or dropped

    def _drop(self, key: str, resource_version: int) -> bool:
        old = self._objects.get(key)
        if old is not None and old.resource_version > resource_version and key not in self._outdated:
            return False
        now = time.monotonic()
        self._expire_tombstones(now)
        # removed first, so that it moves to the end of the order
        self._tombstones.pop(key, None)
        self._tombstones[key] = (resource_version, now)
        self._outdated.discard(key)
        if old is None:
            return False
        del self._objects[key]
        self._tell(key, old, None)
        return True

    def rewind(self) -> None:
        """The cluster's history went back (etcd restored from a backup): the next reports are newer than all held."""
        self._tombstones.clear()
        self._outdated = set(self._objects)
        if self._unreadable is not None:
            self._unreadable.rewind()

    async def forget_all_but(self, keys: Container[str], resource_version: int) -> None:
        """After a complete list of `keys`: an object not on it is gone, unless it is newer than the list."""
        gone = [item.key for item in self if item.key not in keys]
        if self._unreadable is not None:
            gone += [item.key for item in self._unreadable if item.key not in keys]
        worked = slices.Slices()
        for key in gone:
            self.forget(key, resource_version)
            await worked.give_way()

    def _expire_tombstones(self, now: float) -> None:
        while self._tombstones:
            key, (_, buried) = next(iter(self._tombstones.items()))
            if now - buried < TOMBSTONE_SECONDS:
                return
            del self._tombstones[key]

    def _tell(self, key: str, old: T | None, new: T | None) -> None:
        for subscriber in self._subscribers:
            subscriber(key, old, new)


def problem_of(error: Exception) -> str:
    """The problem without the value, which may be a secret, and long."""
    if isinstance(error, pydantic.ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)
        text = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:_PROBLEMS])
    elif isinstance(error, KeyError):
        text = f"{error.args[0]!r} is missing" if error.args else "something is missing"
    else:
        text = type(error).__name__
    return escaping.escaped(text, _PROBLEM_LENGTH)


class Reflector(Generic[T]):
    """Fills `store` from one list and watch. `on_change` (which must not raise) gets write-throughs as well, and
    `on_attempt` (likewise) hears how it goes."""

    def __init__(
        self,
        api: client.Api,
        resource: Resource,
        project: Callable[[dict[str, Any]], T],
        store: Store[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = client.PAGE_SIZE,
        relist_seconds: float = 600,
        on_change: OnChange[T] | None = None,
        on_attempt: OnAttempt | None = None,
    ) -> None:
        self._api = api
        self._resource = resource
        self._project = project
        self._store = store
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._page_size = page_size
        self._relist_seconds = relist_seconds
        self._on_attempt = on_attempt or _ignore
        self._version = 0
        self._failures = 0
        if on_change is not None:
            store.subscribe(on_change)
        #: set once the first list is complete
        self.synced = asyncio.Event()
        #: when a list was last completed; the start of the process counts as one
        self.last_relist_monotonic = time.monotonic()

    async def run(self) -> None:
        """Runs until cancelled. Otherwise only a bug (`on_change` that raises) ends it."""
        relist_due = 0.0
        while True:
            try:
                self._on_attempt(None)
                if time.monotonic() >= relist_due:
                    await self.list_once()
                    relist_due = self.last_relist_monotonic + spread(self._relist_seconds, 0.9, 1.1)
                await self._watch(relist_due)
            except errors.Gone as error:
                logger.info("Watch of %s is too old, listing again: %s", self._resource.plural, error)
                relist_due = 0.0
                if self._failures:
                    await self._pause(error)
                else:
                    # at once the first time; then with pauses: a server that keeps answering so is not hammered
                    self._failures = 1
            except errors.ApiError as error:
                await self._pause(error)

    async def list_once(self) -> None:
        """One complete list, for those who watch by other means. Raises `errors.ApiError`."""
        seen: set[str] = set()
        version = 0
        pages = self._api.pages(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            page_size=self._page_size,
        )
        async with contextlib.aclosing(pages):
            async for page, text in pages:
                version = int(text)
                if version < self._version:
                    # Lists are consistent reads: only a restored etcd answers with less than was known before.
                    logger.warning(
                        "The resourceVersion of %s went back from %d to %d",
                        self._resource.plural,
                        self._version,
                        version,
                    )
                    self._store.rewind()
                    self._version = version
                worked = slices.Slices()
                for document in page:
                    seen.add(objects.key_of(document["metadata"]))
                    self._store.take(self._resource, self._project, document)
                    await worked.give_way()
        await self._store.forget_all_but(seen, version)
        self._version = version
        self.last_relist_monotonic = time.monotonic()
        self.synced.set()

    async def _watch(self, until_monotonic: float) -> None:
        began = time.monotonic()
        # Spread, so that watches that a restart of the API server cut off together do not end together for ever.
        seconds = min(spread(WATCH_SECONDS, 0.8, 1.0), until_monotonic - began)
        events = self._api.watch(
            self._resource,
            resource_version=str(self._version),
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=max(1.0, seconds),
        )
        progress, worked = False, slices.Slices()
        async with contextlib.aclosing(events):
            async for kind, document in events:
                progress = True
                self._failures = 0
                self._take(kind, document)
                # Thousands of changes at once come without a pause between them.
                await worked.give_way()
        if not progress and time.monotonic() - began < _SHORT_WATCH_SECONDS:
            raise errors.Unreachable(0, "WatchCutOff", f"WATCH {self._resource.plural}: ended at once")
        self._failures = 0

    def _take(self, kind: str, document: Mapping[str, Any]) -> None:
        version = int(document["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            if kind == "DELETED":
                self._store.forget(objects.key_of(document["metadata"]), version)
            else:
                self._store.take(self._resource, self._project, dict(document))
        self._version = version

    async def _pause(self, error: errors.ApiError) -> None:
        self._failures += 1
        self._on_attempt(error)
        seconds = _BACKOFF.pause_seconds(self._failures)
        if isinstance(error, errors.TooManyRequests):
            seconds = max(seconds, error.retry_after_seconds)
        # A refusal (RBAC, a missing CRD) needs someone to act; an API server that is away does not.
        level = logging.WARNING if isinstance(error, errors.Unreachable | errors.TooManyRequests) else logging.ERROR
        logger.log(level, "Cannot watch %s, trying again in %.1f s: %s", self._resource.plural, seconds, error)
        await asyncio.sleep(seconds)


def _ignore(error: errors.ApiError | None) -> None:
    """The default of `on_attempt`."""
