"""Objects of the cluster: reads them as models, prints lists of them, and finds those that the user names.

An object that this version cannot read must not hide the others. One that the user has named is an error, which
`command` reports.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from directdownload.cli import exit_status as outcome
from directdownload.cli import refusals
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cluster import errors, kinds
from directdownload.cluster.reflector import problem_of
from directdownload.resources import naming
from directdownload.resources.base import GROUP, Status
from directdownload.resources.host import Host
from directdownload.resources.templateplacement import TemplatePlacement
from directdownload.resources.zone import Zone

T = TypeVar("T")
Object = dict[str, Any]
Row = Callable[[Object], Sequence[str]]
#: Names that the zone does not have: more are counted.
_NOTES = 5


def readable(project: Callable[[Object], T], documents: Iterable[Object]) -> list[T]:
    """The objects that `project` (a model's `model_validate`) can read. Names the others on standard error."""
    found = []
    for document in documents:
        try:
            found.append(project(document))
        # Any error: an object that others wrote must not end a command about something else.
        except Exception as error:
            _warn(document, error)
    return found


def _warn(document: Object, error: Exception) -> None:
    """Warns that an object exists but cannot be read, and why."""
    metadata = document["metadata"]
    name = "/".join(filter(None, (document.get("kind"), metadata.get("namespace"), metadata["name"])))
    click.echo(f"Warning: {name} cannot be read: {problem_of(error)}. {refusals.VERSION_HINT}", err=True)


def print_list(
    documents: Sequence[Object],
    resource: kinds.Resource,
    how: str,
    columns: Sequence[str],
    row: Row,
    empty: str,
) -> None:
    """Prints `documents` sorted as they are; `empty` (to stderr) says that there are none, and what to do."""
    if how != "table":
        print_documents(documents, resource, how)
    elif documents:
        click.echo(output.table(columns, [_row(document, columns, row) for document in documents]))
    else:
        click.echo(empty, err=True)


def _row(document: Object, columns: Sequence[str], row: Row) -> Sequence[str]:
    """Cells of one object. An object that this version cannot read is shown by its name and `Unreadable`."""
    try:
        return row(document)
    # Any error: one object that others wrote must not hide all the others.
    except Exception as error:
        _warn(document, error)
        metadata = document["metadata"]
        known = {"namespace": metadata.get("namespace", ""), "name": metadata["name"], "status": "Unreadable"}
        return [known.get(column, "-") for column in columns]


def print_documents(documents: Sequence[Object], resource: kinds.Resource, how: str) -> None:
    """A `List`, as `kubectl get -o json` prints it, or one name a line."""
    if how == "name":
        for document in documents:
            click.echo(f"{resource.kind.lower()}.{resource.group}/{document['metadata']['name']}")
    else:
        output.print_document(
            {"apiVersion": "v1", "kind": "List", "items": [output.shown(item) for item in documents]}, how
        )


def print_one(document: Object, resource: kinds.Resource, how: str) -> None:
    """One object, as `kubectl get NAME -o …` prints it."""
    if how == "name":
        print_documents([document], resource, how)
    else:
        output.print_document(document, how)


def ready_word(status: Status) -> str:
    """The reason of the condition Ready: one word, whether True or False."""
    condition = status.condition("Ready")
    return condition.reason.value if condition is not None else units.UNKNOWN


def names(documents: Iterable[Object]) -> list[str]:
    return [document["metadata"]["name"] for document in documents]


async def visible(
    session: Session, resource: kinds.Resource, *, label_selector: str | None = None, field_selector: str | None = None
) -> list[Object] | None:
    """The objects, of all namespaces; None if the user may not list them."""
    try:
        documents, _ = await session.api.list(resource, label_selector=label_selector, field_selector=field_selector)
    except errors.Forbidden:
        return None
    return documents


def zone_selector(in_zone: str | None) -> str | None:
    return f"spec.zone={in_zone}" if in_zone else None


def placement_selector(template_namespace: str, template_name: str) -> str:
    """Selects by the controller's labels. Long names are cut to prefix and hash, so compare the full key as well."""
    return (
        f"{GROUP}/template={naming.label_value(template_name)},"
        f"{GROUP}/template-namespace={naming.label_value(template_namespace)}"
    )


async def placements_of(
    session: Session, template_namespace: str, template_name: str
) -> list[TemplatePlacement] | None:
    """The placements of a template; None if the user may not list them: they are for administrators of hosts."""
    selector = placement_selector(template_namespace, template_name)
    documents = await visible(session, kinds.TEMPLATE_PLACEMENTS, label_selector=selector)
    if documents is None:
        return None
    found = readable(TemplatePlacement.model_validate, documents)
    key = f"{template_namespace}/{template_name}"
    return [placement for placement in found if placement.spec.template_ref.key == key]


async def hosts_of(session: Session, zone: str | None = None) -> list[Host] | None:
    """The hosts of `zone` (None: all); None if the user may not list hosts."""
    documents = await visible(session, kinds.HOSTS, field_selector=zone_selector(zone))
    return None if documents is None else readable(Host.model_validate, documents)


async def visible_zone(session: Session, name: str) -> Zone | None:
    """The zone `name`; None if there is none, or the user may not get zones."""
    try:
        return Zone.model_validate(await session.api.get(kinds.ZONES, name))
    except (errors.Forbidden, errors.NotFound):
        return None


async def expect_zone(session: Session, name: str) -> Zone | None:
    """The zone `name`; None if the user may not get zones (conditions report a missing zone later).

    Raises Failure for a zone that does not exist, so that a typing error is reported at once."""
    try:
        return Zone.model_validate(await session.api.get(kinds.ZONES, name))
    except errors.Forbidden:
        return None
    except errors.NotFound:
        documents, _ = await session.api.list(kinds.ZONES)
        alike = refusals.suggestion(name, names(documents))
        known = ", ".join(names(documents)) or "none yet"
        raise outcome.Failure(f"there is no zone {name!r}{alike}; zones of this cluster: {known}") from None


async def expect_host(session: Session, name: str, zone: str | None = None) -> Host:
    """The host `name`. Raises Failure if it is not in `zone`; errors.NotFound if it does not exist."""
    item = Host.model_validate(await session.api.get(kinds.HOSTS, name))
    if zone not in (None, item.spec.zone):
        raise outcome.Failure(f"host {name!r} is in zone {item.spec.zone}, not in {zone}")
    return item


async def elsewhere(
    session: Session, resource: kinds.Resource, named: Iterable[str], documents: Sequence[Object] | None
) -> list[Object]:
    """The first hosts or pools of `named` that exist in another zone; `documents` are those of the zone, if known."""
    found = []
    # the API takes an empty name for a list of all
    for name in filter(None, () if documents is None else _missing(named, documents)[:_NOTES]):
        with contextlib.suppress(errors.NotFound, errors.Forbidden):
            found.append(await session.api.get(resource, name))
    return found


def missing_notes(
    what: str, named: Iterable[str], zone: str, documents: Sequence[Object], others: Iterable[Object]
) -> list[str]:
    """Notes on named hosts or pools that the zone does not have. That is allowed, but usually a mistake.

    `documents`: those of the zone; `others`: those that exist in another one.
    """
    missing, zones = _missing(named, documents), {item["metadata"]["name"]: item["spec"]["zone"] for item in others}
    notes = [
        f"{what} {name!r} is in zone {zones[name]}, not in {zone}: the deployment is not Ready while it names it"
        if name in zones
        else f"zone {zone} has no {what} {name!r}{refusals.suggestion(name, names(documents))}: it gets its copies "
        "once it exists, and the deployment is not Ready before"
        for name in missing[:_NOTES]
    ]
    more = len(missing) - len(notes)
    return notes + ([f"zone {zone} does not have {more} more of the named {what}s"] if more else [])


def _missing(named: Iterable[str], documents: Iterable[Object]) -> list[str]:
    present = frozenset(names(documents))
    return [name for name in dict.fromkeys(named) if name not in present]


async def notes_on(session: Session, zone: str, hosts: Sequence[str], pools: Sequence[str]) -> list[str]:
    """The notes for all named hosts and pools; none for kinds that the user may not list."""
    notes: list[str] = []
    for what, resource, named in (("host", kinds.HOSTS, hosts), ("pool", kinds.STORAGE_POOLS, pools)):
        documents = await visible(session, resource, field_selector=zone_selector(zone)) if named else None
        if documents is not None:
            others = await elsewhere(session, resource, named, documents)
            notes += missing_notes(what, named, zone, documents, others)
    return notes
