"""Options that `controller` and `agent` share, and their end by SIGTERM during start."""

import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import click

from directdownload.observe import logs

Decorator = Callable[[Any], Any]

pool_root: Decorator = click.option(
    "--pool-root",
    "pool_roots",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Host directory with pools, mounted at the same path. Repeatable.",
)
log_format: Decorator = click.option(
    "--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True, help="Format of the logs."
)
log_level: Decorator = click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="Lowest level that is logged.",
)


def health_port(default: int) -> Decorator:
    return click.option(
        "--health-port",
        type=click.IntRange(0, 65535),
        default=default,
        show_default=True,
        help="Port of /healthz, /readyz and /metrics; 0: any free port.",
    )


metrics_port: Decorator = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port of /metrics instead, over TLS, for tokens that may get it; 0: any free port.",
)
metrics_certificate: Decorator = click.option(
    "--metrics-certificate",
    type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path),
    metavar="DIRECTORY",
    help="Directory with tls.crt and tls.key for --metrics-port.  [default: a self-signed certificate]",
)


def leave_when_asked() -> None:
    """SIGTERM ends the process at once, until the loaded program sets its own handler.

    The kernel ignores signals without a handler for a container's first process: a pod that is deleted while it starts
    would stay for its whole grace period.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
