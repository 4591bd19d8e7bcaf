"""`zone list`, `host list`, `pool list`, `pool files`: the fleet, from the objects in the cluster."""

import contextlib
import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence

import click

from directdownload.cli import candidates, examples, output, poolfiles, reading, refusals, units
from directdownload.cli import exit_status as outcome
from directdownload.cli.session import Session, cluster_command
from directdownload.cluster import errors, kinds
from directdownload.cluster.client import Object
from directdownload.resources.base import ConditionStatus, Status
from directdownload.resources.host import Host
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import TemplatePlacement
from directdownload.resources.zone import Zone


@click.group()
def zone() -> None:
    """Zones: sets of hosts with their limits and source policy."""


@click.group()
def host() -> None:
    """Hosts: the KVM nodes of the zones."""


@click.group()
def pool() -> None:
    """Primary storage pools: directories on hosts where templates are put."""


#: Names that the zone does not have: more are counted.
_NOTES = 5

in_zone_option = click.option(
    "--zone", "in_zone", metavar="ZONE", shell_complete=candidates.zones, help="Only those of this zone."
)


@zone.command(
    "list",
    epilog=examples.of(
        "directdownload zone list",
        "directdownload zone list -o yaml",
    ),
)
@output.output_option
@cluster_command
async def list_zones(session: Session, output: str) -> None:
    """List zones."""
    documents, _ = await session.api.list(kinds.ZONES)
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = Zone.model_validate(document)
        hosts = item.status.hosts
        return (
            item.name,
            "yes" if item.spec.enabled else "no",
            str(hosts.total) if hosts else units.UNKNOWN,
            str(hosts.up) if hosts else units.UNKNOWN,
            ready_word(item.status),
            units.age(item.metadata.creation_timestamp, now),
        )

    _print(documents, kinds.ZONES, output, ("name", "enabled", "hosts", "up", "status", "age"), row)


@host.command(
    "list",
    epilog=examples.of(
        "directdownload host list",
        "directdownload host list --zone zone-1 -o name",
    ),
)
@in_zone_option
@output.output_option
@cluster_command
async def list_hosts(session: Session, in_zone: str | None, output: str) -> None:
    """List hosts, with their state, whether their keystore is in sync, and free space by pool."""
    documents, _ = await session.api.list(kinds.HOSTS, field_selector=zone_selector(in_zone))
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = Host.model_validate(document)
        free = [f"{storage.pool} {units.size(storage.available_bytes)}" for storage in item.status.storage]
        return (
            item.name,
            item.spec.zone,
            item.status.state or units.UNKNOWN,
            ready_word(item.status),
            _keystore_word(item.status),
            ", ".join(free) or units.UNKNOWN,
            item.status.architecture or units.UNKNOWN,
            item.status.agent_version or units.UNKNOWN,
            units.age(item.metadata.creation_timestamp, now),
        )

    columns = ("name", "zone", "state", "status", "keystore", "free", "architecture", "agent", "age")
    _print(documents, kinds.HOSTS, output, columns, row)


@pool.command(
    "list",
    epilog=examples.of(
        "directdownload pool list",
        "directdownload pool list --zone zone-1 -o json",
    ),
)
@in_zone_option
@output.output_option
@cluster_command
async def list_pools(session: Session, in_zone: str | None, output: str) -> None:
    """List primary storage pools, with their capacity and free space."""
    documents, _ = await session.api.list(kinds.STORAGE_POOLS, field_selector=zone_selector(in_zone))
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = StoragePool.model_validate(document)
        hosts = item.status.hosts
        return (
            item.name,
            item.spec.zone,
            item.spec.type,
            item.spec.path,
            f"{hosts.ready}/{hosts.total}" if hosts else units.UNKNOWN,
            units.size(item.status.capacity_bytes),
            units.size(item.status.available_bytes),
            ready_word(item.status),
            units.age(item.metadata.creation_timestamp, now),
        )

    columns = ("name", "zone", "type", "path", "hosts", "capacity", "free", "status", "age")
    _print(documents, kinds.STORAGE_POOLS, output, columns, row)


@pool.command(
    "files",
    epilog=examples.of(
        "directdownload pool files local",
        "directdownload pool files local --host kvm-1 -o json",
    ),
)
@click.argument("name", metavar="POOL", shell_complete=candidates.pools)
@click.option("--host", "on_host", metavar="HOST", shell_complete=candidates.hosts, help="Only files on this host.")
@output.output_option
@cluster_command
async def list_pool_files(session: Session, name: str, on_host: str | None, output: str) -> None:
    """List the files in POOL, with or without a placement.

    Placed: a placement names the file. Retained: no placement names it, but its Template exists; deploying the
    Template again finds it. Orphaned: its Template is gone, too. Partial: of a download that runs, waits or ended.
    """
    item = StoragePool.model_validate(await session.api.get(kinds.STORAGE_POOLS, name))
    hosts, _ = await session.api.list(kinds.HOSTS, field_selector=zone_selector(item.spec.zone))
    if on_host is not None and on_host not in [document["metadata"]["name"] for document in hosts]:
        alike = refusals.suggestion(on_host, [document["metadata"]["name"] for document in hosts])
        raise outcome.Failure(f"zone {item.spec.zone} of pool {name} has no host {on_host!r}{alike}")
    placements, _ = await session.api.list(kinds.TEMPLATE_PLACEMENTS, field_selector=f"spec.pool={name}")
    templates, _ = await session.api.list(kinds.TEMPLATES)
    found = poolfiles.listing(
        item,
        reading.readable(Host.model_validate, hosts),
        reading.readable(TemplatePlacement.model_validate, placements),
        reading.readable(Template.model_validate, templates),
        on_host,
    )
    _print_files(item, found, output)
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)


def _print_files(item: StoragePool, found: poolfiles.Listing, how: str) -> None:
    if how in ("json", "yaml"):
        output.print_document({"pool": item.name, "path": item.spec.path, "items": _documents(found)}, how)
    elif how == "name":
        for entry in found.entries:
            click.echo(f"{entry.host}:{item.spec.path}/{entry.file}")
    elif found.entries:
        rows = [
            (
                entry.host,
                entry.file,
                entry.state.value,
                units.size(entry.size_bytes),
                entry.phase.value if entry.phase else units.UNKNOWN,
                entry.template,
            )
            for entry in found.entries
        ]
        click.echo(output.table(("host", "file", "state", "size", "phase", "template"), rows))
    else:
        click.echo(f"No files are known in {item.spec.path}.", err=True)


def _documents(found: poolfiles.Listing) -> list[Object]:
    return [
        {
            "host": entry.host,
            "file": entry.file,
            "state": entry.state.value,
            "sizeBytes": entry.size_bytes,
            "phase": entry.phase.value if entry.phase else None,
            "template": entry.template,
        }
        for entry in found.entries
    ]


def ready_word(status: Status) -> str:
    """The reason of the condition Ready: one word, whether True or False."""
    condition = status.condition("Ready")
    return condition.reason.value if condition is not None else units.UNKNOWN


async def expect_zone(session: Session, name: str) -> Zone | None:
    """The zone `name`; None if the user may not get zones (conditions report a missing zone later).

    Raises Failure for a zone that does not exist, so that a typing error is reported at once."""
    try:
        return Zone.model_validate(await session.api.get(kinds.ZONES, name))
    except errors.Forbidden:
        return None
    except errors.NotFound:
        documents, _ = await session.api.list(kinds.ZONES)
        names = [document["metadata"]["name"] for document in documents]
        alike = refusals.suggestion(name, names)
        told = ", ".join(names) or "none yet"
        raise outcome.Failure(f"there is no zone {name!r}{alike}; zones of this cluster: {told}") from None


async def expect_host(session: Session, name: str, zone: str | None = None) -> Host:
    """The host `name`. Raises Failure if it is not in `zone`; errors.NotFound if it does not exist."""
    item = Host.model_validate(await session.api.get(kinds.HOSTS, name))
    if zone not in (None, item.spec.zone):
        raise outcome.Failure(f"host {name!r} is in zone {item.spec.zone}, not in {zone}")
    return item


async def elsewhere(
    session: Session, resource: kinds.Resource, named: Iterable[str], known: Collection[str]
) -> list[Object]:
    """The first hosts or pools of `named` that are not `known` in the zone, as far as they exist in another one."""
    found = []
    # the API takes an empty name for a list of all
    for name in filter(None, _missing(named, known)[:_NOTES]):
        with contextlib.suppress(errors.NotFound, errors.Forbidden):
            found.append(await session.api.get(resource, name))
    return found


def missing_notes(
    what: str, named: Iterable[str], known: Collection[str], zone: str, others: Mapping[str, str]
) -> list[str]:
    """Notes on named hosts or pools that the zone does not have. That is allowed, but usually a mistake.

    `others`: the zones of those that exist in another one.
    """
    missing = _missing(named, known)
    notes = [
        f"{what} {name!r} is in zone {others[name]}, not in {zone}: the deployment is not Ready while it names it"
        if name in others
        else f"zone {zone} has no {what} {name!r}{refusals.suggestion(name, known)}: it gets its copies once it "
        "exists, and the deployment is not Ready before"
        for name in missing[:_NOTES]
    ]
    more = len(missing) - len(notes)
    return notes + ([f"zone {zone} does not have {more} more of the named {what}s"] if more else [])


def _missing(named: Iterable[str], known: Collection[str]) -> list[str]:
    present = frozenset(known)
    return [name for name in dict.fromkeys(named) if name not in present]


async def notes_on(session: Session, zone: str, hosts: Sequence[str], pools: Sequence[str]) -> list[str]:
    """The notes for all named hosts and pools; none for kinds that the user may not list."""
    notes: list[str] = []
    for what, resource, named in (("host", kinds.HOSTS, hosts), ("pool", kinds.STORAGE_POOLS, pools)):
        if named:
            with contextlib.suppress(errors.Forbidden):
                documents, _ = await session.api.list(resource, field_selector=zone_selector(zone))
                known = [item["metadata"]["name"] for item in documents]
                others = zones_of(await elsewhere(session, resource, named, known))
                notes += missing_notes(what, named, known, zone, others)
    return notes


def zones_of(documents: Iterable[Object]) -> Mapping[str, str]:
    """The zone of each host or pool, by its name."""
    return {item["metadata"]["name"]: item["spec"]["zone"] for item in documents}


def _keystore_word(status: Status) -> str:
    """`synced`, or the reason why it is not."""
    condition = status.condition("KeystoreSynced")
    if condition is None:
        return units.UNKNOWN
    return "synced" if condition.status is ConditionStatus.TRUE else condition.reason.value


def zone_selector(in_zone: str | None) -> str | None:
    return f"spec.zone={in_zone}" if in_zone else None


def _print(
    documents: Sequence[Object],
    resource: kinds.Resource,
    how: str,
    columns: Sequence[str],
    row: output.Row,
) -> None:
    empty = {
        kinds.ZONES.plural: "No zones. Create one with `kubectl apply`; the chart's documentation has an example.",
        kinds.HOSTS.plural: "No hosts. The controller creates one for each node that a zone's nodeSelector selects.",
        kinds.STORAGE_POOLS.plural: "No storage pools. Create one with `kubectl apply`, naming a zone and a path.",
    }
    output.print_list(documents, resource, how, columns, row, empty[resource.plural])
