"""Tables, JSON and YAML: the `--output` of every command that lists something.

Tables look like kubectl's: aligned columns, no lines, the same on a terminal and in a pipe, however narrow.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
import rich.cells
import yaml

Object = dict[str, Any]

FORMATS = ("table", "json", "yaml", "name")
_GAP = "   "

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


def print_document(document: Object, output: str) -> None:
    """Prints `document` as `json` or `yaml`."""
    document = shown(document)
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def shown(document: Object) -> Object:
    """The object without managedFields, as kubectl shows it."""
    metadata = {key: value for key, value in document.get("metadata", {}).items() if key != "managedFields"}
    return {**document, "metadata": metadata} if "metadata" in document else document


def _one_line(text: str) -> str:
    return " ".join(text.split())
