"""Completion of names of the cluster's objects, with a short time limit and no error messages.

Options and arguments that name an object get these as `shell_complete`. Imports heavy modules only when called.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import click

#: The tab key waits no longer than this.
_PATIENCE_SECONDS = 2.0
#: More candidates are no help to a reader.
_LIMIT = 500

Candidates = Callable[[click.Context, click.Parameter, str], list[str]]


def _named(kind: str, *, of_zone: bool = False, namespaced: bool = False, alias: bool = False) -> Candidates:
    """Names of the objects of `kinds.<kind>`; `of_zone`: of the zone named earlier on the command line, if any."""

    def candidates(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        import asyncio

        zone = ctx.params.get("zone") or ctx.params.get("in_zone") if of_zone else None
        selector = f"spec.zone={zone}" if zone else None
        # On any error the shell offers nothing; the command itself reports the error.
        with contextlib.suppress(Exception):
            documents = asyncio.run(_documents(ctx, kind, selector, namespaced))
            found = {d["spec"]["alias"].lower() if alias else d["metadata"]["name"] for d in documents}
            return sorted(name for name in found if name.startswith(incomplete))
        return []

    return candidates


async def _documents(ctx: click.Context, kind: str, selector: str | None, namespaced: bool) -> list[dict[str, Any]]:
    import asyncio

    from directdownload.cli import session
    from directdownload.cluster import kinds

    async with asyncio.timeout(_PATIENCE_SECONDS):
        kubeconfig, context, namespace = (_option(ctx, name) for name in ("kubeconfig", "context", "namespace"))
        async with session.open_session(kubeconfig, context, namespace) as opened:
            where = opened.namespace if namespaced and not ctx.params.get("all_namespaces") else None
            pages = opened.api.pages(getattr(kinds, kind), namespace=where, field_selector=selector, page_size=_LIMIT)
            async with contextlib.aclosing(pages):
                async for page, _ in pages:
                    return page
    return []


def _option(ctx: click.Context, name: str) -> str | None:
    """The option of the command, or of the program before it."""
    root = ctx.find_root().params
    return ctx.params.get(name) or root.get(name) or root.get(f"kube_{name}")


def of(*words: str) -> Candidates:
    """Candidates from fixed words, in any case."""
    return lambda _ctx, _param, incomplete: [word for word in words if word.lower().startswith(incomplete.lower())]


zones = _named("ZONES")
hosts = _named("HOSTS", of_zone=True)
pools = _named("STORAGE_POOLS", of_zone=True)
templates = _named("TEMPLATES", namespaced=True)
deployments = _named("TEMPLATE_DEPLOYMENTS", namespaced=True)
namespaces = _named("NAMESPACES")
certificates = _named("CERTIFICATES", of_zone=True, alias=True)

#: Options that `deploy` and `plan` share.
host_option: Callable[[Any], Any] = click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    shell_complete=hosts,
    help="Deploy to this host only. Repeatable; default: all.",
)
pool_option: Callable[[Any], Any] = click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="POOL",
    shell_complete=pools,
    help="Deploy to this pool only. Repeatable; default: all.",
)
