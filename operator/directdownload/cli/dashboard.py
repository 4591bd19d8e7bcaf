"""`dashboard`: pages about the fleet for a browser on this machine, with the rights of the user's kubeconfig."""

import os
import sys

import click

from directdownload.cli import examples, options
from directdownload.cli import exit_status as outcome
from directdownload.cli.command import cluster_command
from directdownload.cli.session import Session


@click.command(
    epilog=examples.of(
        "directdownload dashboard",
        "directdownload dashboard --zone zone-1 --port 8080 --no-browser",
        "directdownload dashboard -n team-a",
    ),
)
@options.in_zone_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1.  [default: one that is free]"
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@cluster_command
async def dashboard(session: Session, in_zone: str | None, port: int, no_browser: bool) -> int:
    """Show the fleet in a browser: hosts, rollouts, failures, certificates, storage; live, and read-only.

    The pages are served on 127.0.0.1 until Ctrl-C, and show what you may read. With --namespace they show templates and
    rollouts of that namespace only.
    """
    try:
        from directdownload.dashboard import main
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        raise outcome.Failure(
            "the dashboard needs Jinja2: pip install 'direct-download-operator[dashboard]'", outcome.USAGE
        ) from None
    ctx = click.get_current_context()
    given = ctx.params.get("namespace") or (ctx.find_root().obj or {}).get("namespace")
    try:
        await main.serve(
            session.api, zone=in_zone, namespace=given, port=port, browser=not no_browser and _has_screen(), tell=_tell
        )
    except OSError as error:
        raise outcome.Failure(
            f"port {port} of 127.0.0.1 cannot be used: {error.strerror}", outcome.TRANSIENT
        ) from error
    return outcome.DONE


def _has_screen() -> bool:
    """Without one a browser of the terminal would be opened, over what the command prints."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _tell(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()
