"""Follows deployments until they are over, and shows how far they are. Used by `deploy --wait` and `status --watch`.

`running` and `until` follow anything; `proving` uses them for certificates.
Level-triggered: every change redraws everything from the current state. The reflectors handle an API server that goes
away and comes back; the user sees their messages.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from directdownload.cli import boards, pace, placements, progress, reading, rollout
from directdownload.cli import exit_status as outcome
from directdownload.cli.session import Session
from directdownload.cluster import client, errors, kinds
from directdownload.cluster.reflector import Reflector, Store
from directdownload.resources.base import LabelSelector
from directdownload.resources.host import Host
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import TemplatePlacement

#: Countdowns (to the next attempt) are redrawn this often.
_TICK_SECONDS = 1.0
#: Bursts of changes become one redraw.
_PACE_SECONDS = 0.1

HostLabels = Mapping[str, Mapping[str, str]]
_Reflectors = Sequence[Reflector[Any]]


async def host_labels(session: Session, deployment: TemplateDeployment) -> HostLabels | None:
    """Labels by host; None if the deployment has no hostSelector, or the user may not list hosts."""
    if deployment.spec.host_selector == LabelSelector():
        return None
    try:
        documents, _ = await session.api.list(kinds.HOSTS)
    except errors.Forbidden:
        return None
    hosts = reading.readable(Host.model_validate, documents)
    return {host.name: host.metadata.labels for host in hosts}


async def follow_one(
    session: Session, name: str, reporter: progress.Reporter, timeout_seconds: float
) -> rollout.Rollout:
    """Returns the state when it is Ready or Stalled, or the last state after `timeout_seconds` (0: no limit).

    Raises `Failure` if the deployment is deleted meanwhile, and errors.ApiError, such as NotFound.
    """
    document = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
    first = TemplateDeployment.model_validate(document)
    template = (first.spec.template_ref.namespace or first.metadata.namespace, first.spec.template_ref.name)
    visible = await placements.of_template(session, *template) is not None
    labels = await host_labels(session, first)
    deployments: Store[TemplateDeployment] = Store()
    deployments.observe(first)
    copies: Store[TemplatePlacement] = Store()
    changed, meter = asyncio.Event(), pace.Meter()
    reflectors: list[Reflector[Any]] = [_deployments(session.api, session.namespace, deployments, changed)]
    if visible:
        reflectors.append(
            Reflector(
                session.api,
                kinds.TEMPLATE_PLACEMENTS,
                TemplatePlacement.model_validate,
                copies,
                label_selector=placements.selector(*template),
                on_change=lambda *_: changed.set(),
            )
        )

    def look() -> rollout.Rollout:
        deployment = deployments.get(first.key)
        if deployment is None or deployment.uid != first.uid:
            raise outcome.Failure(f"deployment {name!r} was deleted meanwhile")
        return _with_rate(rollout.snapshot(deployment, copies, labels), meter)

    def draw() -> bool:
        state = look()
        reporter.update(boards.of_placements(state, datetime.datetime.now(datetime.UTC)))
        return state.verdict is not rollout.Verdict.RUNNING

    async with running(reflectors, reporter, timeout_seconds) as failed:
        await until(draw, changed, failed, timeout_seconds)
    return look()


async def follow_all(
    session: Session, namespace: str | None, reporter: progress.Reporter, timeout_seconds: float
) -> Sequence[rollout.Rollout]:
    """Follows every deployment of `namespace` (None: all namespaces) until all are Ready or Stalled."""
    deployments: Store[TemplateDeployment] = Store()
    changed, meter = asyncio.Event(), pace.Meter()

    def look() -> list[rollout.Rollout]:
        found = sorted(deployments, key=lambda item: item.key)
        return [_with_rate(rollout.snapshot(deployment), meter) for deployment in found]

    def draw() -> bool:
        states = look()
        reporter.update(boards.of_deployments(states))
        return all(state.verdict is not rollout.Verdict.RUNNING for state in states)

    reflectors = [_deployments(session.api, namespace, deployments, changed)]
    async with running(reflectors, reporter, timeout_seconds) as failed:
        await until(draw, changed, failed, timeout_seconds)
    return look()


def _with_rate(state: rollout.Rollout, meter: pace.Meter) -> rollout.Rollout:
    """Without visible placements, measures the rate: a deployment's status has none."""
    rate = meter.rate(state.deployment.uid, state.bytes_downloaded, time.monotonic())
    return state if state.bytes_per_second else dataclasses.replace(state, bytes_per_second=rate)


def _deployments(
    api: client.Api, namespace: str | None, store: Store[TemplateDeployment], changed: asyncio.Event
) -> Reflector[TemplateDeployment]:
    return Reflector(
        api,
        kinds.TEMPLATE_DEPLOYMENTS,
        TemplateDeployment.model_validate,
        store,
        namespace=namespace,
        on_change=lambda *_: changed.set(),
    )


@contextlib.asynccontextmanager
async def running(
    reflectors: _Reflectors,
    reporter: progress.Reporter,
    timeout_seconds: float,
) -> AsyncIterator["asyncio.Task[None]"]:
    """Runs the reflectors and enters the block after their first complete lists. The task ends only if one fails."""
    handler = _Notes(reporter)
    logger = logging.getLogger("directdownload.cluster")
    logger.addHandler(handler)
    tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
    failed = asyncio.create_task(_first_failure(tasks))
    synced = asyncio.create_task(_all_synced(reflectors))
    try:
        await asyncio.wait({synced, failed}, timeout=timeout_seconds or None, return_when=asyncio.FIRST_COMPLETED)
        yield failed
    finally:
        for task in (synced, failed, *tasks):
            task.cancel()
        await asyncio.gather(synced, failed, *tasks, return_exceptions=True)
        logger.removeHandler(handler)


async def _all_synced(reflectors: _Reflectors) -> None:
    for reflector in reflectors:
        await reflector.synced.wait()


async def _first_failure(tasks: Sequence["asyncio.Task[None]"]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        await task


async def until(
    draw: Callable[[], bool], changed: asyncio.Event, failed: "asyncio.Task[None]", timeout_seconds: float
) -> None:
    """Calls `draw` at every change until it returns True or the time is up. Raises the exception of `failed`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds or None):
            while not failed.done():
                changed.clear()
                if draw():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_SECONDS):
                        await changed.wait()
                await asyncio.sleep(_PACE_SECONDS)
            await failed


class _Notes(logging.Handler):
    """Prints the reflectors' warnings between the progress."""

    def __init__(self, reporter: progress.Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.note(record.getMessage())
