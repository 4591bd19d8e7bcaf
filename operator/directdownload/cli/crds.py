"""`crds print|apply|delete`: the CustomResourceDefinitions of this version.

The chart runs `apply` before it installs or upgrades anything else. `print` is for tools that apply manifests. `delete`
completes an uninstallation.
"""

from collections.abc import Callable
from typing import Any

import click

from directdownload.cli import examples, options
from directdownload.cli import exit_status as outcome
from directdownload.cli.command import cluster_command
from directdownload.cli.session import Session
from directdownload.cli.view import units
from directdownload.cluster import kinds


def _timeout(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--timeout",
        "seconds",
        type=options.DurationType(),
        default=default,
        show_default=True,
        metavar="DURATION",
        help="How long to wait for the API server.",
    )


_OURS = (
    *(kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATES, kinds.TEMPLATE_PLACEMENTS, kinds.CERTIFICATES),
    *(kinds.STORAGE_POOLS, kinds.HOSTS, kinds.ZONES),
)
_CONTROLLERS = "app.kubernetes.io/name=direct-download-operator,app.kubernetes.io/component=controller"


@click.group()
def crds() -> None:
    """The CustomResourceDefinitions of this version."""


@crds.command(
    "print",
    epilog=examples.of(
        "directdownload crds print > crds.yaml",
    ),
)
def print_definitions() -> None:
    """Print the definitions as YAML, for tools that apply manifests."""
    from directdownload.resources import crd

    for kind in crd.KINDS:
        click.echo("---")
        click.echo(crd.render(kind), nl=False)


@crds.command(
    epilog=examples.of(
        "directdownload crds apply",
        "directdownload crds apply --timeout 2m",
    )
)
@_timeout("60s")
@cluster_command
async def apply(session: Session, seconds: float) -> None:
    """Install or upgrade the definitions; those of a newer version stay unchanged."""
    from directdownload.cluster import definitions
    from directdownload.resources import crd

    try:
        await definitions.upgrade(session.api, [crd.definition(kind) for kind in crd.KINDS], seconds, click.echo)
    except definitions.Refused as error:
        raise outcome.Failure(str(error)) from error
    except TimeoutError as error:
        raise outcome.Failure(str(error), outcome.TRANSIENT) from error


@crds.command(
    epilog=examples.of(
        "directdownload crds delete",
        "directdownload crds delete --yes",
    )
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@_timeout("5m")
@cluster_command
async def delete(session: Session, yes: bool, seconds: float) -> None:
    """Delete all objects and the definitions, after the chart was uninstalled. Files on hosts stay."""
    from directdownload.cluster import definitions

    controllers, _ = await session.api.list(kinds.PODS, label_selector=_CONTROLLERS)
    if controllers:
        metadata = controllers[0]["metadata"]
        release = metadata.get("labels", {}).get("app.kubernetes.io/instance", "RELEASE")
        raise outcome.Failure(
            f"the controller {metadata['name']} runs in namespace {metadata['namespace']}: it would remove "
            "every copy from every host. Uninstall it first: "
            f"helm uninstall {release} -n {metadata['namespace']} --wait"
        )
    if not yes:
        counts = [(await _count(session, kind), kind) for kind in _OURS]
        objects = ", ".join(units.count(number, kind.kind) for number, kind in counts if number)
        what = f"{objects or 'no objects'}, and their definitions; files on hosts stay"
        if not click.confirm(f"Delete {what}. Continue?", err=True):
            raise outcome.Failure("nothing was deleted", outcome.TRANSIENT)
    try:
        await definitions.delete(session.api, _OURS, seconds, click.echo)
    except TimeoutError as error:
        raise outcome.Failure(str(error), outcome.TRANSIENT) from error


async def _count(session: Session, kind: kinds.Resource) -> int:
    from directdownload.cluster import errors

    try:
        return len((await session.api.list(kind))[0])
    except errors.NotFound:
        return 0
