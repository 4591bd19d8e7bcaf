"""Waits for deployments with progress, and prints the result: for `deploy --wait` and `status --watch`."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from directdownload.cli import following, output, progress, rollout, units
from directdownload.cli.exit_status import DONE, INTERRUPTED, PERMANENT, TRANSIENT
from directdownload.cli.rollout import Rollout, Verdict
from directdownload.cli.session import Session
from directdownload.cluster import kinds
from directdownload.resources import quantities
from directdownload.resources.templateplacement import Phase


class DurationType(click.ParamType[float]):
    """Seconds, from `90s`, `10m` or `1h30m`; 0: no limit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return quantities.parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


timeout_option: Callable[[Any], Any] = click.option(
    "--timeout",
    "timeout_seconds",
    type=DurationType(),
    default=0,
    metavar="DURATION",
    help="Stop waiting after this long, for example 10m; the rollout goes on.  [default: no limit]",
)


async def wait_for_one(session: Session, name: str, timeout_seconds: float, how: str = "table") -> int:
    """Follows a deployment to its end and returns the exit status: Ready 0, out of time 1, Stalled 3, Ctrl-C 130.

    Unless `how` is table, progress goes to standard error, and the object as it is at the end to standard output.
    """
    began = time.monotonic()
    try:
        with progress.reporter(aside=how != "table") as reporter:
            state = await following.follow_one(session, name, reporter, timeout_seconds)
    except asyncio.CancelledError:
        return _interrupted(f"directdownload status {name} --watch")
    seconds = time.monotonic() - began
    if how != "table":
        await print_deployment(session, name, how)
    if state.verdict is Verdict.READY:
        copies = units.count(state.ready, "copy", "copies")
        click.echo(f"{name}: ready, {copies}, after {units.span(seconds)}.", err=how != "table")
        return DONE
    if state.verdict is Verdict.STALLED:
        click.echo(stalled_text(state), err=True)
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
    try:
        with progress.reporter(aside=how != "table") as reporter:
            states = await following.follow_all(session, namespace, reporter, timeout_seconds)
    except asyncio.CancelledError:
        return _interrupted("directdownload status --watch")
    if how != "table":
        documents, _ = await session.api.list(kinds.TEMPLATE_DEPLOYMENTS, namespace=namespace)
        output.print_documents(documents, kinds.TEMPLATE_DEPLOYMENTS, how)
    stalled = [state for state in states if state.verdict is Verdict.STALLED]
    for state in stalled:
        click.echo(stalled_text(state), err=True)
    if any(state.verdict is Verdict.RUNNING for state in states):
        click.echo("Error: not all deployments were ready in time. The rollouts go on.", err=True)
        return TRANSIENT
    return PERMANENT if stalled else DONE


async def print_deployment(session: Session, name: str, how: str) -> None:
    """Prints the current object in the output format `how`."""
    document = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
    output.print_one(document, kinds.TEMPLATE_DEPLOYMENTS, how)


def stalled_text(state: Rollout) -> str:
    """Why the deployment has stalled, with a table of failures."""
    name = state.deployment.name
    lines = [f"Error: {name} has stalled: {state.reason}" + (f": {state.message}" if state.message else "")]
    table = failure_table(state)
    if table:
        lines += ["", table, ""]
        lines.append(
            "Other copies continue. Remove the cause, then request a retry: "
            f"kubectl annotate dddeploy {name} -n {state.deployment.metadata.namespace} --overwrite "
            'directdownload.dev/requested-at="$(date +%s)"'
            "\nThe controller serves one request a minute; a copy that waits for its next attempt serves it then."
        )
    return "\n".join(lines)


def failure_table(state: Rollout) -> str:
    """Failures of the deployment's status, which holds ten at most, and of the placements that the user sees.

    A placement has the cause; the status has what tenants may read of it.
    """
    rows: dict[tuple[str, str], tuple[str, str]] = {
        (failure.host, failure.pool): (failure.reason.value, failure.message) for failure in state.failures
    }
    for placement in state.placements:
        if rollout.phase_of(placement) is Phase.FAILED:
            key = (placement.spec.host, placement.spec.pool)
            rows[key] = (rollout.reason_of(placement), rollout.message_of(placement))
    return _table(sorted((*key, *value) for key, value in rows.items())) if rows else ""


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return output.table(("host", "pool", "reason", "message"), rows)


def _interrupted(command: str) -> int:
    click.echo(f"\nNo longer watching. The rollout goes on; see it again with: {command}", err=True)
    return INTERRUPTED
