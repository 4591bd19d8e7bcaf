"""`deploy` and `status`: deployments, and how far they are; with `--wait` and `--watch` live, until they are over.

`deploy` is the part of CloudStack's deployVirtualMachine that concerns the template: a copy on every selected host. The
deployment stays: a host that joins the zone later gets its copy without another command.
"""

import datetime
from collections.abc import Sequence
from typing import Any

import click

from directdownload.cli import examples, objects, options, rollout
from directdownload.cli.command import cluster_command
from directdownload.cli.exit_status import TRANSIENT, USAGE, Failure
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cli.watch import deployments
from directdownload.cluster import errors, kinds
from directdownload.cluster.client import Object
from directdownload.planning.conditions import listed
from directdownload.resources.templatedeployment import TemplateDeployment


@click.command(
    epilog=examples.of(
        "directdownload deploy debian-13 --zone zone-1 --wait",
        "directdownload deploy debian-13 --zone zone-1 --host kvm-1 --host kvm-2 --pool local --name debian-13-pilot",
        "directdownload deploy debian-13 --zone zone-1 --deletion-policy Retain --wait --timeout 30m",
    )
)
@click.argument("template", shell_complete=options.template_names)
@click.option(
    "--zone", required=True, metavar="ZONE", shell_complete=options.zone_names, help="The zone whose hosts get it."
)
@options.host_option
@options.pool_option
@click.option("--name", metavar="NAME", help="Name of the deployment.  [default: TEMPLATE-ZONE]")
@click.option(
    "--deletion-policy",
    type=click.Choice(["Delete", "Retain"]),
    default="Delete",
    show_default=True,
    help="Whether the files are deleted when no deployment wants them.",
)
@click.option("--wait", is_flag=True, help="Show progress until the deployment is Ready or Stalled.")
@options.timeout_option
@output.output_option
@cluster_command
async def deploy(
    session: Session,
    template: str,
    zone: str,
    hosts: tuple[str, ...],
    pools: tuple[str, ...],
    name: str | None,
    deletion_policy: str,
    wait: bool,
    timeout_seconds: float,
    output: str,
) -> int | None:
    """Put TEMPLATE onto hosts of a zone, and keep it there."""
    options.check_timeout(timeout_seconds, wait)
    await session.api.get(kinds.TEMPLATES, template, namespace=session.namespace)
    await objects.expect_zone(session, zone)
    spec: dict[str, Any] = {"templateRef": {"name": template}, "zone": zone, "deletionPolicy": deletion_policy}
    if hosts:
        spec["hosts"] = sorted(set(hosts))
    if pools:
        spec["pools"] = sorted(set(pools))
    name = name or f"{template}-{zone}"
    created = await _create(session, name, spec)
    whereto = units.count(len(set(hosts)), "host") if hosts else "every host"
    click.echo(
        f"Deployment {name} created: {template} goes to {whereto} of {zone}."
        if created
        else f"Deployment {name} already exists with the same spec.",
        err=output != "table",
    )
    for note in await objects.notes_on(session, zone, hosts, pools):
        click.echo(f"Note: {note}.", err=True)
    if wait:
        return await deployments.wait_for_one(session, name, timeout_seconds, output)
    if output != "table":
        await deployments.print_deployment(session, name, output)
    click.echo(f"Follow it with: directdownload status {name} --watch", err=True)
    return None


async def _create(session: Session, name: str, spec: dict[str, Any]) -> bool:
    """Creates the deployment; False if it already exists with this spec.

    Never changes an existing one, because fewer hosts would remove files. Raises Failure if its spec differs."""
    body = {
        "apiVersion": kinds.TEMPLATE_DEPLOYMENTS.api_version,
        "kind": kinds.TEMPLATE_DEPLOYMENTS.kind,
        "metadata": {"name": name, "namespace": session.namespace},
        "spec": spec,
    }
    try:
        await session.api.create(kinds.TEMPLATE_DEPLOYMENTS, body)
    except errors.AlreadyExists:
        existing = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
        differences = _differences(existing["spec"], spec)
        if differences:
            raise Failure(
                f"deployment {name!r} already exists in namespace {session.namespace!r} with another spec: "
                + "; ".join(differences)
                + f"\nChange it with `kubectl edit dddeploy {name}`, or choose another --name."
            ) from None
        if "deletionTimestamp" in existing["metadata"]:
            raise Failure(f"deployment {name!r} is being deleted; try again when it is gone", TRANSIENT) from None
        return False
    return True


def _differences(existing: Object, wanted: Object) -> list[str]:
    def normal(spec: Object) -> Object:
        return {
            "templateRef": spec["templateRef"]["name"],
            "zone": spec["zone"],
            "hosts": sorted(spec.get("hosts") or []),
            "pools": sorted(spec.get("pools") or []),
            "hostSelector": spec.get("hostSelector") or {},
            "deletionPolicy": spec["deletionPolicy"],
        }

    old, new = normal(existing), normal(wanted)
    return [f"{field} is {_text(old[field])}, not {_text(new[field])}" for field in new if old[field] != new[field]]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "all"
    return str(value) if value else "empty"


@click.command(
    epilog=examples.of(
        "directdownload status",
        "directdownload status debian-13-zone-1",
        "directdownload status debian-13-zone-1 --watch --timeout 30m",
        "directdownload status --all-namespaces -o json",
    )
)
@click.argument("deployment", required=False, shell_complete=options.deployment_names)
@click.option("-w", "--watch", is_flag=True, help="Show progress until each deployment is Ready or Stalled.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Deployments of every namespace.")
@options.timeout_option
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
    options.check_timeout(timeout_seconds, watch, "--watch")
    namespace = None if all_namespaces else session.namespace
    if deployment is None:
        if watch:
            return await deployments.wait_for_all(session, namespace, timeout_seconds, output)
        await _list(session, namespace, output)
    elif watch:
        return await deployments.wait_for_one(session, deployment, timeout_seconds, output)
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
    objects.print_list(documents, kinds.TEMPLATE_DEPLOYMENTS, how, head, row, empty)


async def _show(session: Session, name: str, how: str) -> None:
    document = await session.api.get(kinds.TEMPLATE_DEPLOYMENTS, name, namespace=session.namespace)
    if how != "table":
        objects.print_one(document, kinds.TEMPLATE_DEPLOYMENTS, how)
        return
    item = TemplateDeployment.model_validate(document)
    reference = item.spec.template_ref
    copies = await objects.placements_of(session, reference.namespace or item.metadata.namespace, reference.name)
    state = rollout.snapshot(item, copies or (), await deployments.host_labels(session, item))
    volumes = await _volumes(session, item, f"{reference.namespace or item.metadata.namespace}/{reference.name}")
    click.echo("\n".join([*_summary(state), *volumes]))
    if state.placements:
        click.echo("\n" + rollout.table(state.placements, datetime.datetime.now(datetime.UTC)))
    failures = rollout.failure_table(state)
    if failures:
        click.echo("\nFailures:\n" + failures)


async def _volumes(session: Session, deployment: TemplateDeployment, template_key: str) -> list[str]:
    """A line on the volumes of pods that use the template in the zone; none if there are none, or it is not known."""
    # Imported here, because lists, progress and --help need none of the planning.
    from directdownload.planning import demands

    zone = await objects.visible_zone(session, deployment.spec.zone)
    if zone is None or not zone.spec.on_demand.enabled:
        # Hosts are large: they are asked for only where there may be volumes.
        return []
    hosts = await objects.hosts_of(session, zone.name) or []
    found = {h.name: sum(d.volumes for d in h.status.demands if demands.key_of(d) == template_key) for h in hosts}
    used = [number for number in found.values() if number]
    if not used:
        return []
    return [f"{'Volumes:':<12}{sum(used)} of pods on {units.count(len(used), 'host')} use the template or wait for it"]


def _summary(state: rollout.Rollout) -> list[str]:
    # Imported here, because lists, progress and --help need none of the planning.
    from directdownload.planning import waits

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
