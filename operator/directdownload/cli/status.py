"""`status`: deployments and how far they are; with `--watch` live, until they are over."""

import datetime
from collections.abc import Sequence

import click

from directdownload.cli import candidates, examples, following, output, placements, rollout, units, waiting
from directdownload.cli.exit_status import USAGE, Failure
from directdownload.cli.session import Session, cluster_command
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.planning import waits
from directdownload.planning.conditions import listed
from directdownload.resources.templatedeployment import TemplateDeployment


@click.command(
    epilog=examples.of(
        "directdownload status",
        "directdownload status debian-13-zone-1",
        "directdownload status debian-13-zone-1 --watch --timeout 30m",
        "directdownload status --all-namespaces -o json",
    )
)
@click.argument("deployment", required=False, shell_complete=candidates.deployments)
@click.option("-w", "--watch", is_flag=True, help="Show progress until each deployment is Ready or Stalled.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Deployments of every namespace.")
@waiting.timeout_option
@output.output_option
@cluster_command
async def status(
    session: Session,
    deployment: str | None,
    watch: bool,
    all_namespaces: bool,
    timeout_seconds: float,
    output: str,
) -> int | None:
    """Show all deployments, or the copies of one DEPLOYMENT."""
    if deployment and all_namespaces:
        raise Failure("give either DEPLOYMENT or --all-namespaces, not both", USAGE)
    if timeout_seconds and not watch:
        raise Failure("--timeout requires --watch", USAGE)
    namespace = None if all_namespaces else session.namespace
    if deployment is None:
        if watch:
            return await waiting.wait_for_all(session, namespace, timeout_seconds, output)
        await _list(session, namespace, output)
    elif watch:
        return await waiting.wait_for_one(session, deployment, timeout_seconds, output)
    else:
        await _show(session, deployment, output)
    return None


async def _list(session: Session, namespace: str | None, how: str) -> None:
    documents, _ = await session.api.list(kinds.TEMPLATE_DEPLOYMENTS, namespace=namespace)
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        state = rollout.snapshot(TemplateDeployment.model_validate(document))
        spec, metadata = state.deployment.spec, state.deployment.metadata
        return (
            *(() if namespace else (metadata.namespace,)),
            metadata.name,
            spec.template_ref.name,
            spec.zone,
            f"{state.ready}/{state.desired}",
            str(state.downloading),
            str(state.pending),
            str(state.failed),
            units.percent(state.bytes_downloaded, state.bytes_total),
            state.reason or units.UNKNOWN,
            units.age(metadata.creation_timestamp, now),
        )

    columns = ("name", "template", "zone", "ready", "downloading", "pending", "failed", "percent", "status", "age")
    where = f" in namespace {namespace}" if namespace else ""
    empty = f"No deployments{where}. Create one with `directdownload deploy TEMPLATE --zone ZONE`."
    head = columns if namespace else ("namespace", *columns)
    output.print_list(documents, kinds.TEMPLATE_DEPLOYMENTS, how, head, row, empty)


async def _show(session: Session, name: str, how: str) -> None:
    document = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
    if how != "table":
        output.print_one(document, kinds.TEMPLATE_DEPLOYMENTS, how)
        return
    item = TemplateDeployment.model_validate(document)
    reference = item.spec.template_ref
    copies = await placements.of_template(session, reference.namespace or item.metadata.namespace, reference.name)
    state = rollout.snapshot(item, copies or (), await following.host_labels(session, item))
    click.echo("\n".join(_summary(state)))
    if state.placements:
        click.echo("\n" + placements.table(state.placements))
    failures = waiting.failure_table(state)
    if failures:
        click.echo("\nFailures:\n" + failures)


def _summary(state: rollout.Rollout) -> list[str]:
    spec = state.deployment.spec
    copies = (
        f"{state.desired}: {state.ready} ready, {state.downloading} downloading, "
        f"{state.pending} pending, {state.failed} failed"
    )
    counts = state.deployment.status.placements
    if counts is not None and counts.skipped:
        copies += f", {counts.skipped} skipped on hosts of another architecture"
    amount = units.size(state.bytes_downloaded)
    if state.bytes_total is not None:
        amount += f" of {units.size(state.bytes_total)} ({units.percent(state.bytes_downloaded, state.bytes_total)})"
    facts = (
        ("Deployment", state.deployment.key),
        ("Template", spec.template_ref.name),
        ("Zone", spec.zone),
        (
            "Hosts",
            listed(spec.hosts) or ("by label" if spec.host_selector.model_dump(exclude_defaults=True) else "all"),
        ),
        ("Pools", listed(spec.pools) or "all"),
        ("Status", state.reason + (f": {state.message}" if state.message else "") or units.UNKNOWN),
        ("Copies", copies),
        ("Downloaded", amount),
        *(("Waiting", f"{waits.words([entry])}: {entry.message}".rstrip(": ")) for entry in state.waiting),
    )
    return [f"{name + ':':<12}{value}" for name, value in facts]
