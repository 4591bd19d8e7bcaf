"""The controller's process: health, election, then watching and working for as long as it leads.

If the Lease is lost the process ends: the next leader decides about the writes that are still open. A signal ends it in
order: running reconciles finish, the Lease is released, then all else stops. So does another installation that turns
out to lead; then the process starts again in its own place, and waits.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import prometheus_client

from directdownload.cluster import client, kinds, lease, objects
from directdownload.cluster.reflector import Reflector, Unreadable
from directdownload.controller import (
    demand_watches,
    events,
    garbage,
    installations,
    jobs,
    kopf_source,
    memory,
    metrics,
    peer_identity,
    watches,
)
from directdownload.controller.context import Context
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.reconcile import certificates, hosts, placements, pools, probes, templates, zones
from directdownload.controller.settings import Settings
from directdownload.controller.swarms import Swarms
from directdownload.controller.world import MANAGED_BY_LABEL, PRODUCT, World
from directdownload.observe import health, logs, scraping
from directdownload.planning import observed
from directdownload.resources import base
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

WORKERS = 16
#: Lists are taken every ten minutes; a process whose last one is older than this is deaf.
DEAF_SECONDS = 1800.0
EXIT_LEASE_LOST = 1
EXIT_FAILED = 1
#: How long a signal waits for running reconciles. Cutting one off is like a kill: the next leader repairs it.
DRAIN_SECONDS = 1.0

RECONCILERS: dict[str, Callable[[Context, str], Awaitable[None]]] = {
    "host": hosts.reconcile,
    "zone": zones.reconcile,
    "pool": pools.reconcile,
    "template": templates.reconcile,
    "placement": placements.reconcile,
    "probe": probes.reconcile,
    "certificate": certificates.reconcile,
}


class Controller:
    """One leading controller: the reflectors, the lists, kopf and the workers."""

    def __init__(
        self, api: client.Api, settings: Settings, stop: asyncio.Event, election: lease.LeaderElection
    ) -> None:
        self._election = election
        self._finishing = False
        world = World(settings.pool_roots, memory.limit_bytes())
        queue = WorkQueue(self._reconcile)
        template = jobs.load_template(settings.job_template)
        recorder = events.Recorder(api, settings.pod_name)
        self._registrar = (
            peer_identity.Registrar(
                api,
                world,
                queue,
                recorder,
                namespace=settings.namespace,
                secret=settings.peers_secret,
                port=settings.peers_port,
            )
            if settings.peers_port is not None
            else None
        )
        watches.Watches(world, queue)
        swarms = Swarms(world, queue, self._registrar) if self._registrar is not None else None
        self._context = Context(api, world, queue, settings, template, recorder, self._registrar, swarms)
        self._metrics = metrics.Collector(world, queue, peers=swarms is not None)
        demand_watches.DemandWatches(world, queue)
        for resource in kinds.OURS:
            self._context.store(resource).unreadable.subscribe(functools.partial(_tell_unreadable, recorder, resource))
        namespace = settings.namespace
        self._lists = kopf_source.Lists(api, self._context)
        # kopf replaces our handlers, and a signal has to wait for reconciles first.
        self._kopf = kopf_source.Source(self._context, functools.partial(_heed_signals, stop))
        self._recording: asyncio.Task[None] | None = None
        # Namespaces and nodes first: later decisions depend on them.
        self._reflectors: tuple[Reflector[Any], ...] = (
            Reflector(api, kinds.NAMESPACES, observed.project_namespace, world.namespaces),
            Reflector(api, kinds.NODES, objects.project_node, world.nodes),
            Reflector(api, kinds.PODS, objects.project_pod, world.pods, namespace=namespace),
            Reflector(
                api,
                kinds.JOBS,
                objects.project_job,
                world.jobs,
                namespace=namespace,
                label_selector=f"{MANAGED_BY_LABEL}={PRODUCT}",
            ),
            # Only their existence: the object that a certificate refers to is read when it is needed.
            Reflector(api, kinds.SECRETS, observed.project_revision, world.secret_revisions, namespace=namespace),
            Reflector(
                api, kinds.CONFIG_MAPS, observed.project_revision, world.config_map_revisions, namespace=namespace
            ),
            Reflector(api, kinds.TEMPLATE_PLACEMENTS, world.views.placement, world.placements),
        )

    async def _reconcile(self, key: Key) -> None:
        with metrics.reconciling(key.kind):
            await RECONCILERS[key.kind](self._context, key.name)

    def leads(self) -> bool:
        """Whether it holds the Lease and takes up work."""
        return self._election.is_leader and not self._finishing

    def deaf(self) -> str | None:
        """Why the process should be restarted: a kind has not been listed for too long. None: no reason."""
        oldest = min(self._lists.last_monotonic, *(r.last_relist_monotonic for r in self._reflectors))
        age = time.monotonic() - oldest
        return f"the last complete list is {age:.0f} s old" if age > DEAF_SECONDS else None

    async def run(self) -> None:
        """Until cancelled, or until kopf ends on an error that it cannot handle: `farewell` then raises it."""
        self._recording = asyncio.create_task(self._context.recorder.run())
        # Garbage collection is off during the initial lists: it would stop the event loop for longer each time. The
        # objects that they load are then frozen.
        gc.disable()
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(reflector.run()) for reflector in self._reflectors]
            background.append(group.create_task(self._lists.run()))
            for synced in (*(reflector.synced for reflector in self._reflectors), self._lists.synced):
                await synced.wait()
            gc.freeze()
            gc.enable()
            garbage.Survivors().watch()
            logger.info("Synced: %d placements", len(self._context.world.placements))
            if self._registrar is not None:
                background.append(group.create_task(self._registrar.run()))
                # Without it downloads would read the origin.
                await self._registrar.settled.wait()
            background.append(group.create_task(self._context.queue.run(WORKERS)))
            self._tell_leadership("became leader", "Lead")
            with self._metrics.registered(self.leads):
                # After the workers: kopf cancels what started after it.
                await self._kopf.run()
            for task in background:
                task.cancel()

    async def finish(self) -> None:
        """Starts nothing new; returns when the running reconciles have ended, or after `DRAIN_SECONDS`."""
        self._finishing = True
        await self._context.queue.finish(DRAIN_SECONDS)

    async def farewell(self) -> None:
        """Once the Lease is released: posts the queued Events, and waits for kopf, which only reads; each for a bounded
        time. Raises what `kopf_source.Source.finish` raises."""
        self._kopf.stop()
        if self._recording is not None:
            self._tell_leadership("stopped leading", "StepDown")
            await self._context.recorder.finish(DRAIN_SECONDS)
            self._recording.cancel()
        await self._kopf.finish()

    def _tell_leadership(self, what: str, action: str) -> None:
        """An Event of the Lease, as client-go's leader election posts it. Each `action` is counted apart."""
        message = f"{self._context.settings.pod_name} {what}"
        recorder, reason = self._context.recorder, Reason.LEADER_ELECTION
        recorder.tell(kinds.LEASES, self._election, "Normal", reason, message, action)


def _tell_unreadable(
    recorder: events.Recorder, resource: kinds.Resource, _: str, old: Unreadable | None, new: Unreadable | None
) -> None:
    if new is not None and (old is None or old.problem != new.problem):
        message = f"this version of the operator cannot read it and leaves it alone: {new.problem}"
        recorder.tell(resource, new, "Warning", Reason.UNREADABLE, message)


def _heed_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def run(settings: Settings) -> int | None:
    """The exit status: 0 after a signal; None: to start again. If the Lease is lost or the work fails, the process
    exits here with 1."""
    stop = asyncio.Event()
    _heed_signals(stop)
    controller: Controller | None = None
    election: lease.LeaderElection | None = None

    def ready() -> str | None:
        # A standby is ready as well: it waits for its turn. But it must be able to take it, or an upgrade would end the
        # old leader for one that cannot lead.
        candidate = election is not None and election.is_candidate
        return None if candidate else "the Lease could not be read yet"

    checks = {"healthz": lambda: controller.deaf() if controller is not None else None, "readyz": ready}
    async with contextlib.AsyncExitStack() as stack:
        registry = prometheus_client.REGISTRY if settings.metrics_port is None else None
        await stack.enter_async_context(health.HealthServer(settings.health_port, checks=checks, registry=registry))
        api = await client.Api.connect(on_request=health.count_request)
        stack.push_async_callback(api.close)
        await stack.enter_async_context(scraping.serving(api, settings.metrics_port, settings.metrics_certificate))
        others = installations.Installations(api, settings.namespace, settings.lease_name)
        looking = asyncio.create_task(others.run())
        stack.callback(looking.cancel)
        identity = lease.new_identity(settings.pod_name)
        election = lease.LeaderElection(api, settings.namespace, settings.lease_name, identity, installations.LABELS)
        holding = await _turn(stop, election, others)
        if holding is None:
            return 0
        election.start_watchdog(lambda: os._exit(EXIT_LEASE_LOST))
        # A process that was stopped for a while continues where it was: its next write must not be sent.
        api.before_write = functools.partial(_must_lead, election)
        controller = Controller(api, settings, stop, election)
        leading = asyncio.create_task(controller.run())
        stopped = asyncio.create_task(stop.wait())
        outdone = asyncio.create_task(others.outdone())
        await _first(holding, leading, stopped, outdone)
        if not leading.done():
            logger.info("%s: finishing running reconciles", "Asked to end" if stop.is_set() else "Giving way")
            await _first(holding, asyncio.create_task(controller.finish()))
            leading.cancel()
            await _first(holding, leading)
        holding.cancel()
        await asyncio.wait((holding,))
        # No wait for kopf's end before another leads. From here on only Events are written.
        api.before_write = None
        await election.release()
        try:
            if not leading.cancelled():
                leading.result()
            await controller.farewell()
        except TimeoutError as error:
            logger.warning("Exiting anyway: %s", error)
            if outdone.done() and not stop.is_set():
                _begin_anew()
            # The end of the loop would wait for all tasks that kopf has left running.
            os._exit(0 if stop.is_set() else EXIT_FAILED)
        except Exception:
            logger.exception("The controller has failed: exiting")
            os._exit(EXIT_FAILED)
        return None if outdone.done() and not stop.is_set() else 0


async def _turn(
    stop: asyncio.Event, election: lease.LeaderElection, others: installations.Installations
) -> asyncio.Task[None] | None:
    """Waits until this process is to lead; returns the task that holds the Lease. None if `stop` was set before."""
    while True:
        if not await _until(stop, _stand(election, others)):
            return None
        # Of two that started together each has a Lease only now, and each can see which is older.
        holding = asyncio.create_task(election.hold())
        verdict = asyncio.create_task(others.verdict())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((holding, verdict, stopped), return_when=asyncio.FIRST_COMPLETED)
        alone = verdict.done() and verdict.result() is None
        if alone and not holding.done() and not stop.is_set():
            stopped.cancel()
            return holding
        for task in (holding, verdict, stopped):
            task.cancel()
        await asyncio.wait((holding, verdict, stopped))
        await election.release()
        if stop.is_set():
            return None


async def _stand(election: lease.LeaderElection, others: installations.Installations) -> None:
    await election.look()
    await others.clear()
    await election.acquire()


def _begin_anew() -> None:
    """Replaces this process by the same program: kopf, among others, can start only once in a process."""
    logger.info("Restarting to wait for the other installation")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what runs already


async def _first(holding: asyncio.Task[None], *others: asyncio.Task[Any]) -> None:
    """Waits for the first of them. If it is `holding`, the Lease is lost, and the process exits here."""
    await asyncio.wait((holding, *others), return_when=asyncio.FIRST_COMPLETED)
    if holding.done():
        logger.error("The Lease is lost: exiting at once")
        os._exit(EXIT_LEASE_LOST)


def _must_lead(election: lease.LeaderElection) -> None:
    if not election.is_leader:
        logger.error("The Lease has expired: exiting without another write")
        os._exit(EXIT_LEASE_LOST)


async def _until(stop: asyncio.Event, waiting: Awaitable[None]) -> bool:
    """Waits for `waiting`, or gives up when `stop` is set. True if it ended by itself."""
    task, stopped = asyncio.ensure_future(waiting), asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    for pending in (task, stopped):
        if not pending.done():
            pending.cancel()
    await asyncio.wait((task, stopped))
    if not task.cancelled():
        task.result()
        return True
    return False


def main(settings: Settings) -> int:
    logs.configure(settings.log_format, settings.log_level)
    base.build()
    status = asyncio.run(run(settings))
    if status is None:
        _begin_anew()
    return status or 0
