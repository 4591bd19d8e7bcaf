"""`deploy`: the part of CloudStack's deployVirtualMachine that concerns the template: a copy on every selected host.

The deployment stays: a host that joins the zone later gets its copy without another command.
"""

from typing import Any

import click

from directdownload.cli import candidates, examples, inventory, output, units, waiting
from directdownload.cli.exit_status import TRANSIENT, USAGE, Failure
from directdownload.cli.session import Session, cluster_command
from directdownload.cluster import errors, kinds
from directdownload.cluster.client import Object


@click.command(
    epilog=examples.of(
        "directdownload deploy debian-13 --zone zone-1 --wait",
        "directdownload deploy debian-13 --zone zone-1 --host kvm-1 --host kvm-2 --pool local --name debian-13-pilot",
        "directdownload deploy debian-13 --zone zone-1 --deletion-policy Retain --wait --timeout 30m",
    )
)
@click.argument("template", shell_complete=candidates.templates)
@click.option(
    "--zone", required=True, metavar="ZONE", shell_complete=candidates.zones, help="The zone whose hosts get it."
)
@candidates.host_option
@candidates.pool_option
@click.option("--name", metavar="NAME", help="Name of the deployment.  [default: TEMPLATE-ZONE]")
@click.option(
    "--deletion-policy",
    type=click.Choice(["Delete", "Retain"]),
    default="Delete",
    show_default=True,
    help="Whether the files are deleted when no deployment wants them.",
)
@click.option("--wait", is_flag=True, help="Show progress until the deployment is Ready or Stalled.")
@waiting.timeout_option
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
    if timeout_seconds and not wait:
        raise Failure("--timeout requires --wait", USAGE)
    await session.api.get(kinds.TEMPLATES, template, namespace=session.namespace)
    await inventory.expect_zone(session, zone)
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
    for note in await inventory.notes_on(session, zone, hosts, pools):
        click.echo(f"Note: {note}.", err=True)
    if wait:
        return await waiting.wait_for_one(session, name, timeout_seconds, output)
    if output != "table":
        await waiting.print_deployment(session, name, output)
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
