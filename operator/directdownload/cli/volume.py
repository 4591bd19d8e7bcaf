"""`volume list`: the templates that pods on hosts use as volumes, and what those that wait wait for.

From the Hosts alone: the agents' demands and the controller's answers.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence

import click

from directdownload.cli import examples, objects, options
from directdownload.cli.command import cluster_command
from directdownload.cli.exit_status import TRANSIENT
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.resources.host import Demand, Host, Served, ServedState

#: Hosts that a refusal names.
_NAMED = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """The volumes on one host of one Template, for pods of one namespace. `answer`: None before the first."""

    host: str
    demand: Demand
    answer: Served | None

    @property
    def state(self) -> str:
        """Unused: it has no volume, and the copy is kept for a while."""
        if not self.demand.volumes:
            return "Unused"
        return (self.answer.state if self.answer is not None else ServedState.WAITING).value

    def document(self) -> Object:
        answer = self.answer.model_dump(mode="json", by_alias=True, exclude_unset=True) if self.answer else None
        demand = self.demand.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {"host": self.host, "state": self.state, "demand": demand, "served": answer}


@click.group()
def volume() -> None:
    """Volumes: templates that pods use on the host where they are scheduled."""


@volume.command(
    "list",
    epilog=examples.of(
        "directdownload volume list",
        "directdownload volume list --zone zone-1 -o json",
    ),
)
@options.in_zone_option
@click.option("--expect-none", is_flag=True, help="Exit with status 1 if any pod has a volume, or waits for one.")
@output.output_option
@cluster_command
async def list_volumes(session: Session, in_zone: str | None, expect_none: bool, output: str) -> int | None:
    """List the templates that pods use as volumes, by host, and what those that wait wait for."""
    documents, _ = await session.api.list(kinds.HOSTS, field_selector=objects.zone_selector(in_zone))
    found = entries(objects.readable(Host.model_validate, documents))
    if expect_none:
        return _refuse(found)
    _print(found, output)
    return None


def entries(hosts: Iterable[Host]) -> list[Entry]:
    """All demands on `hosts`, with their answers."""
    found = []
    for host in sorted(hosts, key=lambda host: host.name):
        answers = {(answer.key, answer.since): answer for answer in host.status.served}
        found += [Entry(host.name, each, answers.get((each.key, each.since))) for each in host.status.demands]
    return found


def _refuse(found: Sequence[Entry]) -> int | None:
    used = [entry for entry in found if entry.demand.volumes]
    if not used:
        return None
    hosts = list(dict.fromkeys(entry.host for entry in used))
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    number = sum(entry.demand.volumes for entry in used)
    click.echo(
        f"{units.count(number, 'volume')} of pods on {', '.join(hosts[:_NAMED])}{more}: delete these pods first. "
        "Without the plugin nothing unmounts a volume, and its pod stays Terminating. To list them: "
        "directdownload volume list",
        err=True,
    )
    return TRANSIENT


def _print(found: Sequence[Entry], how: str) -> None:
    if how in ("json", "yaml"):
        output.print_document({"items": [entry.document() for entry in found]}, how)
    elif how == "name":
        for entry in found:
            click.echo(f"{entry.host}:{entry.demand.namespace}/{entry.demand.template}")
    elif found:
        now = datetime.datetime.now(datetime.UTC)
        columns = ("host", "namespace", "template", "volumes", "state", "reason", "age", "message")
        click.echo(output.table(columns, [_row(entry, now) for entry in found]))
    else:
        click.echo("No volumes. A pod asks for one with the CSI driver directdownload.dev.", err=True)


def _row(entry: Entry, now: datetime.datetime) -> Sequence[str]:
    demand, answer = entry.demand, entry.answer
    return (
        entry.host,
        demand.namespace,
        demand.template,
        str(demand.volumes),
        entry.state,
        answer.reason.value if answer is not None and answer.reason is not None else units.UNKNOWN,
        units.age(demand.last_used_time or demand.since, now),
        (answer.message if answer is not None else None) or "",
    )
