"""Lists of objects as tables, JSON, YAML or names: the `--output` of every command that lists something.

Tables look like kubectl's: aligned columns, no lines, the same on a terminal and in a pipe, however narrow.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import rich.cells
import yaml

if TYPE_CHECKING:
    # For the annotation only: lists without a cluster must not load the client.
    from directdownload.cluster.kinds import Resource

Object = dict[str, Any]

FORMATS = ("table", "json", "yaml", "name")
_GAP = "   "

Row = Callable[[Object], Sequence[str]]

output_option: Callable[[Any], Any] = click.option(
    "-o", "--output", "output", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows below headings, each column as wide as its widest cell; nothing is cut off or wrapped."""
    lines = [[column.upper() for column in columns], *[[_one_line(cell) for cell in row] for row in rows]]
    widths = [max(rich.cells.cell_len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        _GAP.join(
            cell + " " * (width - rich.cells.cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def print_list(
    documents: Sequence[Object],
    resource: "Resource",
    output: str,
    columns: Sequence[str],
    row: Row,
    empty: str,
) -> None:
    """Prints `documents` sorted as they are; `empty` (to stderr) says that there are none, and what to do."""
    if output != "table":
        print_documents(documents, resource, output)
    elif documents:
        click.echo(table(columns, [_row(document, columns, row) for document in documents]))
    else:
        click.echo(empty, err=True)


def _row(document: Object, columns: Sequence[str], row: Row) -> Sequence[str]:
    """Cells of one object. An object that this version cannot read is shown by its name and `Unreadable`."""
    try:
        return row(document)
    # Any error: one object that others wrote must not hide all the others.
    except Exception as error:
        # Imported here, because lists without a cluster must not load the client.
        from directdownload.cli import reading

        reading.warn(document, error)
        metadata = document["metadata"]
        known = {"namespace": metadata.get("namespace", ""), "name": metadata["name"], "status": "Unreadable"}
        return [known.get(column, "-") for column in columns]


def print_documents(documents: Sequence[Object], resource: "Resource", output: str) -> None:
    """A `List`, as `kubectl get -o json` prints it, or one name a line."""
    if output == "name":
        for document in documents:
            click.echo(f"{resource.kind.lower()}.{resource.group}/{document['metadata']['name']}")
    else:
        print_document({"apiVersion": "v1", "kind": "List", "items": [_shown(item) for item in documents]}, output)


def print_one(document: Object, resource: "Resource", output: str) -> None:
    """One object, as `kubectl get NAME -o …` prints it."""
    if output == "name":
        print_documents([document], resource, output)
    else:
        print_document(document, output)


def print_document(document: Object, output: str) -> None:
    """Prints `document` as `json` or `yaml`."""
    shown = _shown(document)
    if output == "json":
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


def _shown(document: Object) -> Object:
    """The object without managedFields, as kubectl shows it."""
    metadata = {key: value for key, value in document.get("metadata", {}).items() if key != "managedFields"}
    return {**document, "metadata": metadata} if "metadata" in document else document


def _one_line(text: str) -> str:
    return " ".join(text.split())
