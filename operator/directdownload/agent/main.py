"""The agent's process: `directdownload agent` calls `main` with its settings.

Health and metrics are served from start to end. Everything else begins when no other agent uses the state directory.
SIGTERM and SIGINT end it cleanly: there is nothing to save, because all state is on disk or in the cluster.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import prometheus_client

import directdownload
from directdownload.agent import metrics, statelock
from directdownload.agent.settings import Settings
from directdownload.agent.supervisor import Supervisor
from directdownload.cluster import client, errors
from directdownload.observe import health, logs, scraping
from directdownload.resources import base

logger = logging.getLogger(__name__)


def main(settings: Settings) -> int:
    """Runs the agent until a signal ends it; returns the exit status of the process."""
    logs.configure(settings.log_format, settings.log_level)
    with logs.concerning("Host", settings.node_name, host=settings.node_name):
        base.build()
        return asyncio.run(run(settings))


async def run(settings: Settings) -> int:
    """Returns 0 after SIGTERM or SIGINT; 1 without usable credentials."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    supervisor: Supervisor | None = None
    lock = statelock.StateLock(settings)
    checks = {
        "healthz": lambda: supervisor.alive() if supervisor else None,
        "readyz": lambda: supervisor.ready() if supervisor else lock.problem or "starting",
    }
    metrics.begin(settings.node_name)
    registry = prometheus_client.REGISTRY if settings.metrics_port is None else None
    try:
        async with health.HealthServer(settings.health_port, checks=checks, registry=registry) as server:
            logger.info(
                "Agent %s of host %s: pool roots %s, keystore roots %s, health on port %d",
                directdownload.__version__,
                settings.node_name,
                ", ".join(settings.pool_roots) or "none",
                ", ".join(settings.keystore_roots) or "none",
                server.port,
            )
            try:
                api = await client.Api.connect(kubeconfig=settings.kubeconfig, on_request=health.count_request)
            except errors.ConfigurationError as error:
                logger.error("%s", error)
                return 1
            try:
                async with scraping.serving(api, settings.metrics_port, settings.metrics_certificate):
                    if await _until(stop, lock.acquire()):
                        supervisor = Supervisor(settings, api)
                        await _until(stop, supervisor.run())
            finally:
                await api.close()
    finally:
        lock.release()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    logger.info("Agent ends")
    return 0


async def _until(stop: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Runs `coroutine` until `stop`; returns whether it ended before. Raises its exception."""
    work, stopped = asyncio.ensure_future(coroutine), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
        return work.done()
    finally:
        for task in (work, stopped):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
