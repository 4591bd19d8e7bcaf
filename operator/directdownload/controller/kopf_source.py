"""All of kopf: the kinds that people write, and Hosts, watched by it; our own complete lists at start, soon after, and
every ten minutes.

kopf does not report objects that vanished while its watch was cut off, nor when its first list is complete: the lists
fill both gaps. Handlers only put the object into its store; `watches.py` decides what follows.
"""

import asyncio
import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf

from directdownload.backoff import spread
from directdownload.cluster import client, errors, kinds, objects
from directdownload.cluster.reflector import Reflector
from directdownload.controller.context import Context
from directdownload.resources.base import GROUP

logger = logging.getLogger(__name__)

WATCHED = (
    kinds.ZONES,
    kinds.STORAGE_POOLS,
    kinds.TEMPLATES,
    kinds.TEMPLATE_DEPLOYMENTS,
    kinds.CERTIFICATES,
    kinds.HOSTS,
)
RELIST_SECONDS = 600.0
#: With hundreds of certificates each, five hundred Hosts take more memory while they are read than all that is kept.
PAGE_SIZE = 100
#: After the first list: neither that one nor kopf's own first list, some tenths of a second later, reports objects that
#: vanish in between.
_EARLY_SECONDS = (5.0, 30.0)
_RETRY_SECONDS = 5.0
#: kopf gives its remaining tasks five seconds before it cancels them.
_END_SECONDS = 8.0


class Source:
    """kopf in this process; it can start only once. `started` is called when it has replaced the signal handlers."""

    def __init__(self, context: Context, started: Callable[[], None]) -> None:
        self._context = context
        self._started = started
        self._ends = asyncio.Event()
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Watches until kopf begins to end, by itself; if cancelled, kopf goes on until `finish`."""
        # kopf cancels what started after it: not `ending`.
        self._running = asyncio.create_task(self._watch())
        ending = asyncio.create_task(self._ends.wait())
        try:
            await asyncio.wait((self._running, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()

    def stop(self) -> None:
        """Asks it to end."""
        self._stop.set()

    async def finish(self) -> None:
        """After `stop`: waits for its end, for a bounded time.

        Raises the error that kopf could not handle, or TimeoutError. A watcher of kopf's that sends a request while
        another one fails mistakes its own end for a pause and starts again, and kopf waits for it without end (kopf
        1.45: `stream` in `clients/api.py`, `run_tasks` in `reactor/running.py`).
        """
        if self._running is None:
            return
        await asyncio.wait((self._running,), timeout=_END_SECONDS)
        if not self._running.done():
            raise TimeoutError(f"kopf has not ended within {_END_SECONDS:.0f} s")
        self._running.result()

    async def _watch(self) -> None:
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry(self._context, self._ends),
            settings=settings(),
            clusterwide=True,
            standalone=True,
            stop_flag=self._stop,
            # Without one kopf asks for the user's name, and a container's uid has none.
            identity=self._context.settings.pod_name,  # type: ignore[arg-type] # kopf exports no name for its str
        )
        self._started()
        await kopf.run_tasks(tasks, ignored=others)


def registry(context: Context, ends: asyncio.Event) -> kopf.OperatorRegistry:
    """A kopf registry with one event handler per kind and our own login; `ends` is set when kopf starts to end."""
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(_login)

    async def ended(**_: Any) -> None:
        ends.set()

    kopf.on.cleanup(id="ending", registry=found)(ended)
    for resource in WATCHED:
        kopf.on.event(resource.group, resource.version, resource.plural, registry=found)(_handler(resource, context))
    return found


def settings() -> kopf.OperatorSettings:
    """Every kopf setting that we rely on, in one place."""
    found = kopf.OperatorSettings()
    found.persistence.finalizer = f"{GROUP}/kopf"
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    found.persistence.diffbase_storage = _NoDiffBase()
    found.posting.enabled = False
    # One line per event of every object would drown the important ones; failures are warnings and stay.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    # Its default is all objects of a kind in one answer. Its streamed first list needs a feature of the API server that
    # some versions have switched off.
    found.watching.chunk_size = PAGE_SIZE
    # Each object has a worker, which keeps the last event for so long after it: those of a whole fleet at once.
    found.queueing.idle_timeout = 0.1
    found.watching.server_timeout = 300
    found.watching.client_timeout = 330
    # After a 410: one that lasts would otherwise mean ten lists a second of each kind.
    found.watching.reconnect_backoff = 1.0
    found.networking.request_timeout = 60
    found.networking.error_backoffs = _Backoffs()
    # kopf would hang here before it reports its end: no other process can lead meanwhile.
    found.process.ultimate_exiting_timeout = 30.0
    return found


class _NoDiffBase(kopf.DiffBaseStorage):
    """No handler here asks what has changed in an object; kopf would copy every one of them to compare it."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None: ...


class _Backoffs:
    """Pauses without end: kopf, and the process with it, would exit when they are used up."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3, 5, 8), itertools.repeat(10))


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    found = kopf.login_with_service_account(**kwargs)
    if found is None:
        return kopf.login_with_kubeconfig(**kwargs)
    # kopf would ask the cluster's DNS; the kubelet gives every pod the address, which is there earlier and always.
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return dataclasses.replace(found, server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")


def _handler(resource: kinds.Resource, context: Context) -> Callable[..., Any]:
    async def observed(event: Mapping[str, Any], **_: Any) -> None:
        document = event["object"]
        if event["type"] == "DELETED":
            key, version = objects.key_of(document["metadata"]), int(document["metadata"]["resourceVersion"])
            context.store(resource).forget(key, version)
        else:
            context.observe(resource, dict(document))

    observed.__name__ = f"{resource.plural}_observed"
    return observed


class Lists:
    """Complete lists of the watched kinds; `last_monotonic` is when the last round ended."""

    def __init__(self, api: client.Api, context: Context) -> None:
        self._reflectors = {
            each: Reflector(api, each, context.projections[each], context.store(each), page_size=PAGE_SIZE)
            for each in WATCHED
        }
        self.synced = asyncio.Event()
        self.last_monotonic = time.monotonic()

    async def run(self) -> None:
        for pause in itertools.chain(_EARLY_SECONDS, itertools.repeat(RELIST_SECONDS)):
            for resource, reflector in self._reflectors.items():
                await _list_at_last(resource, reflector)
            self.last_monotonic = time.monotonic()
            self.synced.set()
            await asyncio.sleep(spread(pause, 0.9, 1.1))


async def _list_at_last(resource: kinds.Resource, reflector: Reflector[Any]) -> None:
    while True:
        try:
            await reflector.list_once()
            return
        except errors.ApiError as error:
            asked = error.retry_after_seconds if isinstance(error, errors.TooManyRequests) else 0.0
            pause = max(_RETRY_SECONDS, asked)
            logger.warning("Listing %s: %s; trying again in %.0f s", resource.plural, error, pause)
            await asyncio.sleep(pause)
