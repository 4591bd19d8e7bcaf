"""Waits for deployments with progress, and prints the result: for `deploy --wait` and `status --watch`."""

import dataclasses
import datetime
import time
from collections.abc import Iterable, Mapping, Sequence

import click

from directdownload.cli import objects, rollout
from directdownload.cli.exit_status import DONE, PERMANENT, TRANSIENT
from directdownload.cli.rollout import End, Rollout
from directdownload.cli.session import Session
from directdownload.cli.view import units
from directdownload.cli.watch import follow, rate
from directdownload.cluster import kinds
from directdownload.resources.base import LabelSelector
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import TemplatePlacement


async def wait_for_one(session: Session, name: str, timeout_seconds: float, how: str = "table") -> int:
    """Follows a deployment to its end and returns the exit status: Ready 0, out of time 1, Stalled 3, Ctrl-C 130.

    Unless `how` is table, progress goes to standard error, and the object as it is at the end to standard output.
    Raises Failure if the deployment is deleted meanwhile.
    """
    began = time.monotonic()
    aside = how != "table"
    with follow.interruptible(f"The rollout goes on; see it again with: directdownload status {name} --watch"):
        state = await _follow_one(session, name, timeout_seconds, aside)
    seconds = time.monotonic() - began
    if aside:
        await print_deployment(session, name, how)
    if state.end is End.READY:
        copies = units.count(state.ready, "copy", "copies")
        click.echo(f"{name}: ready, {copies}, after {units.span(seconds)}.", err=aside)
        return DONE
    if state.end is End.STALLED:
        click.echo(rollout.stalled_text(state), err=True)
        return PERMANENT
    click.echo(
        f"Error: {name} is not ready after {units.span(seconds)}: {state.ready} of {state.desired} copies are ready"
        + (f" ({state.reason}: {state.message})" if state.message else f" ({state.reason})" if state.reason else "")
        + ". The rollout goes on.",
        err=True,
    )
    return TRANSIENT


async def wait_for_all(session: Session, namespace: str | None, timeout_seconds: float, how: str = "table") -> int:
    """Follows every deployment of `namespace` (None: all namespaces); same exit status as `wait_for_one`."""
    with follow.interruptible("The rollout goes on; see it again with: directdownload status --watch"):
        states = await _follow_all(session, namespace, timeout_seconds, aside=how != "table")
    if how != "table":
        documents, _ = await session.api.list(kinds.TEMPLATE_DEPLOYMENTS, namespace=namespace)
        objects.print_documents(documents, kinds.TEMPLATE_DEPLOYMENTS, how)
    stalled = [state for state in states if state.end is End.STALLED]
    for state in stalled:
        click.echo(rollout.stalled_text(state), err=True)
    if any(state.end is End.RUNNING for state in states):
        click.echo("Error: not all deployments were ready in time. The rollouts go on.", err=True)
        return TRANSIENT
    return PERMANENT if stalled else DONE


async def print_deployment(session: Session, name: str, how: str) -> None:
    """Prints the current object in the output format `how`."""
    document = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
    objects.print_one(document, kinds.TEMPLATE_DEPLOYMENTS, how)


async def host_labels(session: Session, deployment: TemplateDeployment) -> Mapping[str, Mapping[str, str]] | None:
    """Labels by host; None if the deployment has no hostSelector, or the user may not list hosts."""
    if deployment.spec.host_selector == LabelSelector():
        return None
    hosts = await objects.hosts_of(session)
    return None if hosts is None else {host.name: host.metadata.labels for host in hosts}


async def _follow_one(session: Session, name: str, timeout_seconds: float, aside: bool) -> Rollout:
    document = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
    first = TemplateDeployment.model_validate(document)
    template = (first.spec.template_ref.namespace or first.metadata.namespace, first.spec.template_ref.name)
    visible = await objects.placements_of(session, *template) is not None
    labels = await host_labels(session, first)
    following, meter = follow.Follow(session, timeout_seconds), rate.Meter()
    deployments = following.store(kinds.TEMPLATE_DEPLOYMENTS, TemplateDeployment, namespace=session.namespace)
    deployments.observe(first)
    copies: Iterable[TemplatePlacement] = ()
    if visible:
        selector = objects.placement_selector(*template)
        copies = following.store(kinds.TEMPLATE_PLACEMENTS, TemplatePlacement, label_selector=selector)
    return await following.until(
        lambda state: state.end is not End.RUNNING,
        lambda: _with_rate(rollout.snapshot(follow.still(deployments, first, "deployment"), copies, labels), meter),
        lambda state: rollout.screen(state, datetime.datetime.now(datetime.UTC)),
        aside=aside,
    )


async def _follow_all(
    session: Session, namespace: str | None, timeout_seconds: float, aside: bool
) -> Sequence[Rollout]:
    following, meter = follow.Follow(session, timeout_seconds), rate.Meter()
    deployments = following.store(kinds.TEMPLATE_DEPLOYMENTS, TemplateDeployment, namespace=namespace)

    def look() -> Sequence[Rollout]:
        found = sorted(deployments, key=lambda item: item.key)
        return [_with_rate(rollout.snapshot(deployment), meter) for deployment in found]

    return await following.until(
        lambda states: all(state.end is not End.RUNNING for state in states), look, rollout.screen_of_all, aside=aside
    )


def _with_rate(state: Rollout, meter: rate.Meter) -> Rollout:
    """Without visible placements, measures the rate: a deployment's status has none."""
    measured = meter.rate(state.deployment.uid, state.bytes_downloaded, time.monotonic())
    return state if state.bytes_per_second else dataclasses.replace(state, bytes_per_second=measured)
