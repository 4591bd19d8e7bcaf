"""Between a command and the cluster: which cluster and namespace, one `Api`, one event loop, errors made readable.

A command that talks to a cluster is an `async def` with `@cluster_command` between it and `@click.command`: it gets a
`Session` first, and its options after that. The options of the program (`--kubeconfig`, `--context`, `-n`) are accepted
after the command too, as kubectl does.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import click
import pydantic

import directdownload
from directdownload.cli import exit_status as outcome
from directdownload.cli import options, refusals
from directdownload.cluster import client, errors, kinds

P = ParamSpec("P")
_REQUEST_TIMEOUT_SECONDS = 30
_BUSY_RETRIES = 5
_LONGEST_PAUSE_SECONDS = 5.0


class _PatientApi(client.Api):
    """Retries requests that the API server answers with 429, as kubectl does: it has not begun them."""

    async def request(self, *args: Any, **kwargs: Any) -> client.Object:
        for _ in range(_BUSY_RETRIES):
            try:
                return await super().request(*args, **kwargs)
            except errors.TooManyRequests as error:
                await asyncio.sleep(min(error.retry_after_seconds, _LONGEST_PAUSE_SECONDS))
        return await super().request(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Session:
    """One connection to one cluster; `namespace` is the one that the user means."""

    api: client.Api
    namespace: str


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
            async with open_session(kubeconfig, context, namespace) as session:
                try:
                    return await body(session, *args, **kwargs)
                except errors.NotFound as error:
                    raise refusals.failure(error, await _names(session, error)) from error

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


async def _names(session: Session, error: errors.NotFound) -> list[str] | None:
    """The names of existing objects of the kind that was not found; None if the user may not list them."""
    wanted = refusals.missing(error)
    resource = next((kind for kind in kinds.OURS if wanted is not None and kind.plural == wanted[0]), None)
    if wanted is None or resource is None:
        return None
    try:
        documents, _ = await session.api.list(resource, namespace=wanted[1] or None)
    except errors.ApiError:
        return None
    return [document["metadata"]["name"] for document in documents]


@contextlib.asynccontextmanager
async def open_session(kubeconfig: str | None, context: str | None, namespace: str | None) -> AsyncIterator[Session]:
    """A session that ends with the block. Raises errors.ApiError; ConfigurationError without usable credentials."""
    api = await _PatientApi.connect(
        kubeconfig=kubeconfig,
        context=context,
        request_timeout_seconds=_REQUEST_TIMEOUT_SECONDS,
        user_agent=f"directdownload/{directdownload.__version__}",
    )
    try:
        yield Session(api, namespace or api.namespace)
    finally:
        await api.close()
