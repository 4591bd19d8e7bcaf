"""`zone list`, `host list`, `pool list`, `pool files`: the fleet, from the objects in the cluster.

`listing` derives the files in a pool from the API alone: placements, templates and the agents' reports. It is pure.
"""

import dataclasses
import datetime
import enum
import os.path
from collections.abc import Iterable, Mapping, Sequence

import click

from directdownload.cli import examples, objects, options, refusals
from directdownload.cli import exit_status as outcome
from directdownload.cli.command import cluster_command
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.planning import demands
from directdownload.planning import pools as pool_planning
from directdownload.resources.base import ConditionStatus, Status
from directdownload.resources.host import Host, HostStorage, UnplacedFile
from directdownload.resources.naming import WORK_DIRECTORY
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, TemplatePlacement
from directdownload.resources.zone import Zone


class State(enum.StrEnum):
    PLACED = "Placed"
    #: published, no placement names it, its Template exists: deploying the Template again finds the file
    RETAINED = "Retained"
    #: published, its Template is gone
    ORPHANED = "Orphaned"
    PARTIAL = "Partial"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """`file` is relative to the pool's path; `template` is `namespace/name`, or the uid if the Template is gone."""

    host: str
    file: str
    state: State
    size_bytes: int | None
    phase: Phase | None
    template: str
    #: of pods, on the hosts that see the file
    volumes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    entries: Sequence[Entry]
    #: whole sentences on why entries may be missing
    notes: Sequence[str]


@click.group()
def zone() -> None:
    """Zones: sets of hosts with their limits and source policy."""


@click.group()
def host() -> None:
    """Hosts: the KVM nodes of the zones."""


@click.group()
def pool() -> None:
    """Primary storage pools: directories on hosts where templates are put."""


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
            objects.ready_word(item.status),
            units.age(item.metadata.creation_timestamp, now),
        )

    columns = ("name", "enabled", "hosts", "up", "status", "age")
    empty = "No zones. Create one with `kubectl apply`; the chart's documentation has an example."
    objects.print_list(documents, kinds.ZONES, output, columns, row, empty)


@host.command(
    "list",
    epilog=examples.of(
        "directdownload host list",
        "directdownload host list --zone zone-1 -o name",
    ),
)
@options.in_zone_option
@output.output_option
@cluster_command
async def list_hosts(session: Session, in_zone: str | None, output: str) -> None:
    """List hosts, with their state, whether their keystore is in sync, volumes of pods, and free space by pool."""
    documents, _ = await session.api.list(kinds.HOSTS, field_selector=objects.zone_selector(in_zone))
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = Host.model_validate(document)
        free = [f"{storage.pool} {units.size(storage.available_bytes)}" for storage in item.status.storage]
        return (
            item.name,
            item.spec.zone,
            item.status.state or units.UNKNOWN,
            objects.ready_word(item.status),
            _keystore_word(item.status),
            str(sum(demand.volumes for demand in item.status.demands)),
            ", ".join(free) or units.UNKNOWN,
            item.status.architecture or units.UNKNOWN,
            item.status.agent_version or units.UNKNOWN,
            units.age(item.metadata.creation_timestamp, now),
        )

    columns = ("name", "zone", "state", "status", "keystore", "volumes", "free", "architecture", "agent", "age")
    empty = "No hosts. The controller creates one for each node that a zone's nodeSelector selects."
    objects.print_list(documents, kinds.HOSTS, output, columns, row, empty)


@pool.command(
    "list",
    epilog=examples.of(
        "directdownload pool list",
        "directdownload pool list --zone zone-1 -o json",
    ),
)
@options.in_zone_option
@output.output_option
@cluster_command
async def list_pools(session: Session, in_zone: str | None, output: str) -> None:
    """List primary storage pools, with their capacity and free space."""
    documents, _ = await session.api.list(kinds.STORAGE_POOLS, field_selector=objects.zone_selector(in_zone))
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
            objects.ready_word(item.status),
            units.age(item.metadata.creation_timestamp, now),
        )

    columns = ("name", "zone", "type", "path", "hosts", "capacity", "free", "status", "age")
    empty = "No storage pools. Create one with `kubectl apply`, naming a zone and a path."
    objects.print_list(documents, kinds.STORAGE_POOLS, output, columns, row, empty)


@pool.command(
    "files",
    epilog=examples.of(
        "directdownload pool files local",
        "directdownload pool files local --host kvm-1 -o json",
    ),
)
@click.argument("name", metavar="POOL", shell_complete=options.pool_names)
@click.option("--host", "on_host", metavar="HOST", shell_complete=options.host_names, help="Only files on this host.")
@output.output_option
@cluster_command
async def list_pool_files(session: Session, name: str, on_host: str | None, output: str) -> None:
    """List the files in POOL, with or without a placement.

    Placed: a placement names the file. Retained: no placement names it, but its Template exists; deploying the
    Template again finds it. Orphaned: its Template is gone, too. Partial: of a download that runs, waits or ended.
    """
    item = StoragePool.model_validate(await session.api.get(kinds.STORAGE_POOLS, name))
    hosts, _ = await session.api.list(kinds.HOSTS, field_selector=objects.zone_selector(item.spec.zone))
    if on_host is not None and on_host not in objects.names(hosts):
        alike = refusals.suggestion(on_host, objects.names(hosts))
        raise outcome.Failure(f"zone {item.spec.zone} of pool {name} has no host {on_host!r}{alike}")
    placements, _ = await session.api.list(kinds.TEMPLATE_PLACEMENTS, field_selector=f"spec.pool={name}")
    templates, _ = await session.api.list(kinds.TEMPLATES)
    found = listing(
        item,
        objects.readable(Host.model_validate, hosts),
        objects.readable(TemplatePlacement.model_validate, placements),
        objects.readable(Template.model_validate, templates),
        on_host,
    )
    _print_files(item, found, output)
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)


def _print_files(item: StoragePool, found: Listing, how: str) -> None:
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
                str(entry.volumes),
            )
            for entry in found.entries
        ]
        click.echo(output.table(("host", "file", "state", "size", "phase", "template", "volumes"), rows))
    else:
        click.echo(f"No files are known in {item.spec.path}.", err=True)


def _documents(found: Listing) -> list[Object]:
    return [
        {
            "host": entry.host,
            "file": entry.file,
            "state": entry.state.value,
            "sizeBytes": entry.size_bytes,
            "phase": entry.phase.value if entry.phase else None,
            "template": entry.template,
            "volumes": entry.volumes,
        }
        for entry in found.entries
    ]


def _keystore_word(status: Status) -> str:
    """`synced`, or the reason why it is not."""
    condition = status.condition("KeystoreSynced")
    if condition is None:
        return units.UNKNOWN
    return "synced" if condition.status is ConditionStatus.TRUE else condition.reason.value


def listing(
    pool: StoragePool,
    hosts: Iterable[Host],
    placements: Iterable[TemplatePlacement],
    templates: Iterable[Template],
    only_host: str | None = None,
) -> Listing:
    """The files on all hosts that have `pool`, or on `only_host`. A file in a shared pool is listed once."""
    names = {template.metadata.uid: f"{template.metadata.namespace}/{template.name}" for template in templates}
    members = sorted(pool_planning.hosts_of(pool, hosts), key=lambda host: host.name)
    entries = {
        (entry.host, entry.file): entry
        for placement in placements
        if (entry := _of_placement(placement, members, pool)) is not None and only_host in (None, entry.host)
    }
    placed = {file for _, file in entries} if pool.spec.shared else set()
    notes = []
    for host in members:
        if only_host not in (None, host.name):
            continue
        facts = pool_planning.facts(pool, host)
        notes += _notes(pool, host, facts)
        for file in facts.unplaced if facts is not None else ():
            if file.name not in placed and (host.name, file.name) not in entries:
                entries[host.name, file.name] = _of_unplaced(host, file, names)
        if pool.spec.shared:
            placed |= {file for _, file in entries}
    return Listing(sorted(entries.values(), key=lambda entry: (entry.host, entry.file)), notes)


def _of_placement(placement: TemplatePlacement, members: Iterable[Host], pool: StoragePool) -> Entry | None:
    """The placement's file, with the volumes on those of `members` that see it; None if no file is known."""
    spec, status = placement.spec, placement.status
    template = spec.template_ref.key
    users = (host for host in members if pool.spec.shared or host.name == spec.host)
    volumes = sum(demands.volumes_of(host, template, spec.template_ref.uid) for host in users)
    if status.file is not None and (status.observed is None or status.observed.present is not False):
        size_bytes = status.file.size_bytes
        return Entry(spec.host, os.path.basename(spec.path), State.PLACED, size_bytes, status.phase, template, volumes)
    if status.progress is not None and status.progress.bytes_downloaded and status.phase is not Phase.READY:
        part = f"{WORK_DIRECTORY}/{spec.template_ref.uid}.{spec.host}.part"
        size_bytes = status.progress.bytes_downloaded
        return Entry(spec.host, part, State.PARTIAL, size_bytes, status.phase, template, volumes)
    return None


def _of_unplaced(host: Host, file: UnplacedFile, names: Mapping[str, str]) -> Entry:
    uid = os.path.basename(file.name).partition(".")[0]
    published = State.RETAINED if uid in names else State.ORPHANED
    state = State.PARTIAL if file.state == "Partial" else published
    return Entry(host.name, file.name, state, file.size_bytes, None, names.get(uid, uid))


def _notes(pool: StoragePool, host: Host, facts: HostStorage | None) -> list[str]:
    if facts is not None and facts.reason is not None and facts.unplaced_bytes is None:
        return [f"{host.name}: the pool is not usable ({facts.reason}); its files are not known."]
    if facts is None or facts.unplaced_bytes is None:
        return [f"{host.name}: its agent has not reported its files yet; only placed files are listed."]
    rest = facts.unplaced_bytes - sum(file.size_bytes or 0 for file in facts.unplaced)
    if rest > 0:
        return [
            f"{host.name}: only the {len(facts.unplaced)} largest files without a placement are listed; "
            f"the others take {units.size(rest)}."
        ]
    return []
