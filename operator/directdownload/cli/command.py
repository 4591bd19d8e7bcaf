"""Between a command and the cluster: the command's options, one session, one event loop, errors made readable.

A command that talks to a cluster is an `async def` with `@cluster_command` between it and `@click.command`: it gets a
`Session` first, and its options after that. The options of the program (`--kubeconfig`, `--context`, `-n`) are accepted
after the command too, as kubectl does.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

import click
import pydantic

from directdownload.cli import exit_status as outcome
from directdownload.cli import options, refusals, session
from directdownload.cli.session import Session
from directdownload.cluster import errors, kinds

P = ParamSpec("P")


def cluster_command(body: Callable[Concatenate[Session, P], Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Makes `body` a command that gets a Session first. `body` returns its exit status; None is 0."""

    @options.connection_options
    @functools.wraps(body)
    def command(*args: Any, **kwargs: Any) -> None:
        ctx = click.get_current_context()
        before_command: dict[str, str | None] = ctx.obj or {}
        kubeconfig, context, namespace = (
            kwargs.pop(option) or before_command.get(option) for option in ("kubeconfig", "context", "namespace")
        )

        async def with_session() -> int | None:
            async with session.open_session(kubeconfig, context, namespace) as opened:
                try:
                    return await body(opened, *args, **kwargs)
                except errors.NotFound as error:
                    raise refusals.failure(error, await _names(opened, error)) from error

        try:
            status = asyncio.run(with_session())
        except errors.ApiError as error:
            raise refusals.failure(error) from error
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise outcome.Failure(
                f"cannot read a {error.title} of this cluster: {field}: {first['msg']}. {refusals.VERSION_HINT}"
            ) from error
        ctx.exit(status or outcome.DONE)

    return command


async def _names(opened: Session, error: errors.NotFound) -> list[str] | None:
    """The names of existing objects of the kind that was not found; None if the user may not list them."""
    wanted = refusals.missing(error)
    resource = next((kind for kind in kinds.OURS if wanted is not None and kind.plural == wanted[0]), None)
    if wanted is None or resource is None:
        return None
    try:
        documents, _ = await opened.api.list(resource, namespace=wanted[1] or None)
    except errors.ApiError:
        return None
    return [document["metadata"]["name"] for document in documents]
