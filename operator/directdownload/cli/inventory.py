"""`zone list`, `host list`, `pool list`: what the fleet consists of, as its administrators' resources tell."""

import datetime
from collections.abc import Sequence

import click

from directdownload.cli import output, units
from directdownload.cli.session import Session, cluster_command
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.resources.base import Status
from directdownload.resources.host import Host
from directdownload.resources.storagepool import StoragePool
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


_in_zone = click.option("--zone", "in_zone", metavar="ZONE", help="Only those of this zone.")


@zone.command("list")
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


@host.command("list")
@_in_zone
@output.output_option
@cluster_command
async def list_hosts(session: Session, in_zone: str | None, output: str) -> None:
    """List hosts, with their state and free space by pool."""
    documents, _ = await session.api.list(kinds.HOSTS, field_selector=_zone_selector(in_zone))
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = Host.model_validate(document)
        free = [f"{storage.pool} {units.size(storage.available_bytes)}" for storage in item.status.storage]
        return (
            item.name,
            item.spec.zone,
            item.status.state or units.UNKNOWN,
            ready_word(item.status),
            ", ".join(free) or units.UNKNOWN,
            item.status.agent_version or units.UNKNOWN,
            units.age(item.metadata.creation_timestamp, now),
        )

    _print(documents, kinds.HOSTS, output, ("name", "zone", "state", "status", "free", "agent", "age"), row)


@pool.command("list")
@_in_zone
@output.output_option
@cluster_command
async def list_pools(session: Session, in_zone: str | None, output: str) -> None:
    """List primary storage pools, with what they can hold."""
    documents, _ = await session.api.list(kinds.STORAGE_POOLS, field_selector=_zone_selector(in_zone))
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


def ready_word(status: Status) -> str:
    """The reason of the condition Ready, which is one word for both outcomes."""
    condition = status.condition("Ready")
    return condition.reason.value if condition is not None else units.UNKNOWN


def _zone_selector(in_zone: str | None) -> str | None:
    return f"spec.zone={in_zone}" if in_zone else None


def _print(
    documents: Sequence[Object],
    resource: kinds.Resource,
    how: str,
    columns: Sequence[str],
    row: output.Row,
) -> None:
    empty = {
        kinds.ZONES.plural: "No zones. Make one with `kubectl apply`; the chart's documentation has an example.",
        kinds.HOSTS.plural: "No hosts. The controller makes one for each node that a zone's nodeSelector selects.",
        kinds.STORAGE_POOLS.plural: "No storage pools. Make one with `kubectl apply`, naming a zone and a path.",
    }
    output.print_list(documents, resource, how, columns, row, empty[resource.plural])
