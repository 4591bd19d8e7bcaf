"""Objects of the cluster as models, where one that this version cannot read must not cost the sight of all others.

Used by every command that looks at several objects. One that the user has named and that cannot be read is an error,
which `session` makes.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from directdownload.cli import refusals
from directdownload.cluster.reflector import problem_of

T = TypeVar("T")
Object = dict[str, Any]


def readable(project: Callable[[Object], T], documents: Iterable[Object]) -> list[T]:
    """Those that `project` (a model's `model_validate`) can read; the others are named on standard error."""
    found = []
    for document in documents:
        try:
            found.append(project(document))
        # Whatever it is: what others have written must not end a command that is about something else.
        except Exception as error:
            warn(document, error)
    return found


def warn(document: Object, error: Exception) -> None:
    """Says of one object that it is there, and why nothing more is known of it."""
    metadata = document["metadata"]
    name = "/".join(filter(None, (document.get("kind"), metadata.get("namespace"), metadata["name"])))
    click.echo(f"Warning: {name} cannot be read: {problem_of(error)}. {refusals.VERSION_HINT}", err=True)
