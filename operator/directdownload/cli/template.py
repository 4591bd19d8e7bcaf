"""`template register|list|describe|delete`: CloudStack's registerTemplate (directdownload=true) and its companions.

A registered template is available at once; hosts download it only when it is deployed.
"""

import datetime
from collections.abc import Sequence
from typing import Any

import click

from directdownload.cli import examples, objects, options, rollout
from directdownload.cli.command import cluster_command
from directdownload.cli.exit_status import TRANSIENT, Failure
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.resources.template import Template

_FORMATS = ("QCOW2", "RAW", "ISO", "VMDK", "VHD", "VHDX", "OVA", "TAR")
_ARCHITECTURES = ("x86_64", "aarch64", "s390x", "ppc64le", "riscv64")


@click.group()
def template() -> None:
    """Templates: images that can be put onto hosts, by URL and checksum."""


@template.command(
    epilog=examples.of(
        (
            "directdownload template register debian-13 --url https://images.example.org/debian-13.qcow2 "
            "--format QCOW2 "
            "--checksum sha256:c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"
        ),
        (
            "directdownload template register debian-13 --url https://images.example.org/debian-13.qcow2 "
            "--format QCOW2 --mirror nfs://nas.example.org/images/debian-13.qcow2"
        ),
        (
            "directdownload template register installer --url https://images.example.org/netinst.meta4 "
            "--format ISO --zone zone-1"
        ),
    )
)
@click.argument("name")
@click.option("--url", required=True, help="URL of the image: http, https or nfs.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="A further URL of the same bytes. Repeatable.")
@click.option(
    "--checksum",
    metavar="C",
    help="Checksum of the file as served: sha256:<hex>, {SHA-256}<hex>, or 32 hex digits (MD5).",
)
@click.option(
    "--format",
    "image_format",
    required=True,
    metavar="FORMAT",
    shell_complete=options.words(*_FORMATS),
    help="QCOW2, RAW, ISO, VMDK, VHD, VHDX, OVA or TAR.",
)
@click.option(
    "--zone",
    "zones",
    multiple=True,
    metavar="ZONE",
    shell_complete=options.zone_names,
    help="Only for this zone. Repeatable; default: all.",
)
@click.option(
    "--type",
    "kind",
    default="USER",
    show_default=True,
    metavar="TYPE",
    shell_complete=options.words("USER", "ROUTING"),
    help="USER or ROUTING.",
)
@click.option(
    "--connections",
    type=click.IntRange(0, 8),
    help="Most connections of one download to each URL; default: as the zone says.",
)
@click.option("--display-text", metavar="TEXT", help="Description of the template.")
@click.option(
    "--architecture",
    metavar="ARCH",
    shell_complete=options.words(*_ARCHITECTURES),
    help="x86_64 (the default), aarch64, s390x, ppc64le or riscv64.",
)
@output.output_option
@cluster_command
async def register(
    session: Session,
    name: str,
    url: str,
    mirrors: tuple[str, ...],
    checksum: str | None,
    image_format: str,
    zones: tuple[str, ...],
    kind: str,
    connections: int | None,
    display_text: str | None,
    architecture: str | None,
    output: str,
) -> None:
    """Register the template NAME. The API server checks every value."""
    spec: dict[str, Any] = {
        "displayText": display_text,
        "url": url,
        "mirrors": list(mirrors) or None,
        "checksum": checksum,
        "format": image_format.upper(),
        "type": kind.upper(),
        "connectionsPerSource": connections,
        "zones": list(zones) or None,
        "architecture": architecture,
    }
    body = {
        "apiVersion": kinds.TEMPLATES.api_version,
        "kind": kinds.TEMPLATES.kind,
        "metadata": {"name": name, "namespace": session.namespace},
        "spec": {field: value for field, value in spec.items() if value is not None},
    }
    created = await session.api.create(kinds.TEMPLATES, body)
    if output == "table":
        click.echo(f"Template {name} registered in namespace {session.namespace}.")
    else:
        objects.print_one(created, kinds.TEMPLATES, output)
    if checksum is None:
        click.echo("It has no checksum: the bytes are accepted as served.", err=True)
    click.echo(f"Deploy it with: directdownload deploy {name} --zone ZONE --wait", err=True)


@template.command(
    "list",
    epilog=examples.of(
        "directdownload template list",
        "directdownload template list --all-namespaces -o json",
    ),
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Templates of every namespace.")
@output.output_option
@cluster_command
async def list_templates(session: Session, all_namespaces: bool, output: str) -> None:
    """List templates."""
    namespace = None if all_namespaces else session.namespace
    documents, _ = await session.api.list(kinds.TEMPLATES, namespace=namespace)
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = Template.model_validate(document)
        copies = item.status.placements
        return (
            *((item.metadata.namespace,) if all_namespaces else ()),
            item.name,
            item.spec.format,
            item.spec.type,
            units.size(item.status.size_bytes),
            f"{copies.ready}/{copies.total or 0}" if copies else units.UNKNOWN,
            objects.ready_word(item.status),
            units.age(item.metadata.creation_timestamp, now),
            item.spec.url,
        )

    columns = ("name", "format", "type", "size", "copies", "status", "age", "url")
    where = f" in namespace {namespace}" if namespace else ""
    empty = f"No templates{where}. Register one with `directdownload template register`."
    head = ("namespace", *columns) if all_namespaces else columns
    objects.print_list(documents, kinds.TEMPLATES, output, head, row, empty)


@template.command(
    epilog=examples.of(
        "directdownload template describe debian-13",
        "directdownload template describe debian-13 -n images -o yaml",
    )
)
@click.argument("name", shell_complete=options.template_names)
@output.output_option
@cluster_command
async def describe(session: Session, name: str, output: str) -> None:
    """Show everything about the template NAME, and where its copies are."""
    document = await session.api.get(kinds.TEMPLATES, name, namespace=session.namespace)
    if output != "table":
        objects.print_one(document, kinds.TEMPLATES, output)
        return
    item = Template.model_validate(document)
    click.echo("\n".join(_description(item)))
    copies = await objects.placements_of(session, item.metadata.namespace, item.name)
    if copies:
        click.echo("\nCopies:")
        click.echo(rollout.table(copies, datetime.datetime.now(datetime.UTC)))


@template.command(
    epilog=examples.of(
        "directdownload template delete debian-13",
        "directdownload template delete debian-13 --yes",
    )
)
@click.argument("name", shell_complete=options.template_names)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@cluster_command
async def delete(session: Session, name: str, yes: bool) -> None:
    """Delete the template NAME, and its copies from every host."""
    document = await session.api.get(kinds.TEMPLATES, name, namespace=session.namespace)
    item = Template.model_validate(document)
    copies = (item.status.placements.total or 0) if item.status.placements else 0
    if not yes:
        what = f"and its {units.count(copies, 'copy', 'copies')} on hosts" if copies else "(no host has a copy)"
        if not click.confirm(f"Delete template {name} in namespace {session.namespace} {what}?", err=True):
            raise Failure("nothing was deleted", TRANSIENT)
    # With the uid, because another template may have been registered under this name while the user was asked.
    await session.api.delete(kinds.TEMPLATES, name, namespace=session.namespace, uid=item.uid)
    # The object stays, with deletionTimestamp, until its copies are gone.
    click.echo(f"Template {name} is being deleted." if copies else f"Template {name} deleted.")


def _description(item: Template) -> list[str]:
    spec, status = item.spec, item.status
    facts: list[tuple[str, str | None]] = [
        ("Name", item.name),
        ("Namespace", item.metadata.namespace),
        ("Display text", spec.display_text),
        ("URL", spec.url),
        *(("Mirror", mirror) for mirror in spec.mirrors),
        ("Checksum", spec.checksum or "none: the bytes are accepted as served"),
        ("Format", spec.format),
        ("Architecture", spec.architecture),
        ("Type", spec.type),
        ("Zones", ", ".join(spec.zones) or "all"),
        ("Size", units.size(status.size_bytes) if status.size_bytes is not None else None),
        ("Digest", status.digest),
    ]
    if status.placements is not None:
        counts = status.placements
        facts.append(
            (
                "Copies",
                f"{counts.total or 0}: {counts.ready} ready, {counts.downloading} downloading, "
                f"{counts.pending} pending, {counts.failed} failed",
            )
        )
    if status.bytes_from is not None:
        origin, others = units.size(status.bytes_from.origin), units.size(status.bytes_from.peers)
        facts.append(("Received", f"{origin} from the source, {others} from other hosts"))
    lines = [f"{name + ':':<14}{' '.join(value.split())}" for name, value in facts if value]
    if status.conditions:
        lines += ["", "Conditions:"]
        rows = [(c.type, c.status.value, c.reason.value, c.message) for c in status.conditions]
        lines.append(output.table(("type", "status", "reason", "message"), rows))
    return lines
