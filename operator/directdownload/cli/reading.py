"""Reads objects of the cluster as models. An object that this version cannot read must not hide the others.

Used by every command that reads several objects. An unreadable object that the user has named is an error; `session`
reports it.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from directdownload.cli import refusals
from directdownload.cluster.reflector import problem_of

T = TypeVar("T")
Object = dict[str, Any]


def readable(project: Callable[[Object], T], documents: Iterable[Object]) -> list[T]:
    """The objects that `project` (a model's `model_validate`) can read. Names the others on standard error."""
    found = []
    for document in documents:
        try:
            found.append(project(document))
        # Any error: an object that others wrote must not end a command about something else.
        except Exception as error:
            warn(document, error)
    return found


def warn(document: Object, error: Exception) -> None:
    """Warns that an object exists but cannot be read, and why."""
    metadata = document["metadata"]
    name = "/".join(filter(None, (document.get("kind"), metadata.get("namespace"), metadata["name"])))
    click.echo(f"Warning: {name} cannot be read: {problem_of(error)}. {refusals.VERSION_HINT}", err=True)
