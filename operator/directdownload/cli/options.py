"""Options that several commands have, and completion of the names of the cluster's objects.

Options and arguments that name an object get a function of this module as `shell_complete`. It has a short time limit,
shows no error messages, and imports heavy modules only when called.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import click

from directdownload.cli.exit_status import USAGE, Failure
from directdownload.resources import quantities

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
    return ctx.params.get(name) or ctx.find_root().params.get(name)


def words(*known: str) -> Candidates:
    """Candidates from fixed words, in any case."""
    return lambda _ctx, _param, incomplete: [word for word in known if word.lower().startswith(incomplete.lower())]


zone_names = _named("ZONES")
host_names = _named("HOSTS", of_zone=True)
pool_names = _named("STORAGE_POOLS", of_zone=True)
template_names = _named("TEMPLATES", namespaced=True)
deployment_names = _named("TEMPLATE_DEPLOYMENTS", namespaced=True)
namespace_names = _named("NAMESPACES")
certificate_aliases = _named("CERTIFICATES", of_zone=True, alias=True)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the program that say which cluster; they are accepted after the command, too."""
    for option in (
        click.option(
            "-n",
            "--namespace",
            metavar="NAME",
            shell_complete=namespace_names,
            help="Use this namespace instead of the context's.",
        ),
        click.option("--context", metavar="NAME", help="The kubeconfig's context to use."),
        click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Use this file instead of $KUBECONFIG or ~/.kube/config.",
        ),
    ):
        command = option(command)
    return command


host_option: Callable[[Any], Any] = click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    shell_complete=host_names,
    help="Deploy to this host only. Repeatable; default: all.",
)
pool_option: Callable[[Any], Any] = click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="POOL",
    shell_complete=pool_names,
    help="Deploy to this pool only. Repeatable; default: all.",
)
in_zone_option = click.option(
    "--zone", "in_zone", metavar="ZONE", shell_complete=zone_names, help="Only those of this zone."
)


class DurationType(click.ParamType[float]):
    """Seconds, from `90s`, `10m` or `1h30m`; 0: no limit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return quantities.parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


timeout_option: Callable[[Any], Any] = click.option(
    "--timeout",
    "timeout_seconds",
    type=DurationType(),
    default=0,
    metavar="DURATION",
    help="Stop waiting after this long, for example 10m; the rollout goes on.  [default: no limit]",
)


def check_timeout(timeout_seconds: float, waits: bool, option: str = "--wait") -> None:
    """Raises Failure for a --timeout without the option that waits."""
    if timeout_seconds and not waits:
        raise Failure(f"--timeout requires {option}", USAGE)
