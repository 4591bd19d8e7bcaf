"""The processes of pods: `controller`, `agent`, `csi`, `peer`, `job`. The chart and the Jobs call them, no user does.

Flags and environment of a process become one settings object, read nowhere else.
"""

import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from directdownload.cli import examples
from directdownload.observe import logs
from directdownload.resources import peers

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


@click.command(
    epilog=examples.of(
        (
            "directdownload controller --pod-name ddo-0 --pod-namespace direct-download-system "
            "--job-template job.yaml --pool-root /var/lib/libvirt"
        ),
    )
)
@click.option("--pod-name", envvar="POD_NAME", required=True, help="Name of this pod.  [env: POD_NAME]")
@click.option(
    "--pod-namespace",
    "namespace",
    envvar="POD_NAMESPACE",
    required=True,
    help="Namespace of the Jobs.  [env: POD_NAMESPACE]",
)
@click.option(
    "--job-template",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    default="/etc/directdownload/job.yaml",
    show_default=True,
    help="Manifest of a download Job, which the controller completes.",
)
@pool_root
@click.option(
    "--lease-name", default="direct-download-operator", show_default=True, help="Lease of the leader election."
)
@click.option(
    "--peers-port",
    type=click.IntRange(1, 65535),
    help="Port at which hosts serve each other; absent: they do not.",
)
@click.option(
    "--peers-secret",
    default="direct-download-operator-peers",
    show_default=True,
    help="Secret with the authority of the peers; it is made if it is missing.",
)
@health_port(8080)
@metrics_port
@metrics_certificate
@log_format
@log_level
def controller(**flags: Any) -> None:
    """Run the controller; the chart does this."""
    leave_when_asked()
    from directdownload.controller import main
    from directdownload.controller.settings import Settings

    sys.exit(main.main(Settings(**flags)))


@click.command(
    epilog=examples.of(
        "directdownload agent --node-name kvm-1 --pool-root /var/lib/libvirt --keystore-root /etc/cloudstack",
    )
)
@click.option("--node-name", envvar="NODE_NAME", required=True, help="Name of this host.  [env: NODE_NAME]")
@click.option("--pod-name", envvar="POD_NAME", default="", help="Name of this pod, for logs.  [env: POD_NAME]")
@click.option(
    "--pod-namespace", envvar="POD_NAMESPACE", default="", help="Namespace of this pod.  [env: POD_NAMESPACE]"
)
@pool_root
@click.option(
    "--keystore-root",
    "keystore_roots",
    multiple=True,
    metavar="PATH",
    help="Host directory with keystore and password file, mounted at the same path. Repeatable.",
)
@click.option(
    "--state-directory",
    type=click.Path(file_okay=False),
    default="/var/lib/directdownload",
    show_default=True,
    help="Directory of the state that must survive a restart.",
)
@click.option(
    "--csi-socket",
    default="",
    metavar="PATH",
    help="Socket for the CSI plugin of this host; absent: no volumes.",
)
@click.option("--peers", is_flag=True, help="Keep keys and certificates, so that hosts can serve each other.")
@click.option("--kubeconfig", metavar="FILE", help="Use this file instead of the pod's service account.")
@health_port(8081)
@metrics_port
@metrics_certificate
@log_format
@log_level
def agent(**flags: Any) -> None:
    """Run the agent of one host; the chart does this."""
    leave_when_asked()
    from directdownload.agent import main
    from directdownload.agent.settings import Settings

    sys.exit(main.main(Settings(**flags)))


@click.command(epilog=examples.of("directdownload csi --node-name kvm-1 --pool-root /var/lib/libvirt"))
@click.option("--node-name", envvar="NODE_NAME", required=True, help="Name of this host.  [env: NODE_NAME]")
@click.option(
    "--kubelet-directory",
    type=click.Path(file_okay=False),
    default="/var/lib/kubelet",
    show_default=True,
    help="kubelet's --root-dir, mounted at the same path.",
)
@click.option(
    "--agent-socket",
    type=click.Path(dir_okay=False),
    default="/run/directdownload/agent.sock",
    show_default=True,
    help="Socket of this host's agent.",
)
@pool_root
@click.option(
    "--hold-seconds",
    type=click.FloatRange(0, 110),
    default=100,
    show_default=True,
    help="Longest time that a pod's mount waits within one call; kubelet allows 120.",
)
@log_format
@log_level
def csi(**flags: Any) -> None:
    """Run the CSI node plugin of one host; the chart does this."""
    leave_when_asked()
    from directdownload.csi import main
    from directdownload.csi.settings import Settings

    sys.exit(main.main(Settings(**flags)))


@click.group()
def peer() -> None:
    """Run a part of the peer server of one host; the chart does this."""


_peer_directory: Decorator = click.option(
    "--directory",
    type=click.Path(file_okay=False),
    default=peers.SERVER_DIRECTORY,
    show_default=True,
    help="Directory in which the agent keeps settings, certificates and keys.",
)


@peer.command(epilog=examples.of("directdownload peer opener --pool-root /var/lib/libvirt"))
@pool_root
@_peer_directory
@click.option(
    "--socket",
    type=click.Path(dir_okay=False),
    default=peers.OPENER_SOCKET,
    show_default=True,
    help="Socket for the server; root and the server's user can open it.",
)
@log_format
@log_level
def opener(**flags: Any) -> None:
    """Open files of pools for the server: the part with rights, and without a network."""
    leave_when_asked()
    from directdownload.peer import main
    from directdownload.peer.settings import OpenerSettings

    sys.exit(main.opener(OpenerSettings(**flags)))


@peer.command(epilog=examples.of("directdownload peer server --health-address 127.0.0.1"))
@_peer_directory
@click.option(
    "--opener-socket",
    type=click.Path(dir_okay=False),
    default=peers.OPENER_SOCKET,
    show_default=True,
    help="Socket of the opener.",
)
@click.option(
    "--health-address",
    default="",
    metavar="ADDRESS",
    help="Address of the health port.  [default: all IPv4 addresses]",
)
@health_port(8082)
@log_format
@log_level
def server(**flags: Any) -> None:
    """Serve copies to other hosts: the part with a network, and without rights."""
    leave_when_asked()
    from directdownload.peer import main
    from directdownload.peer.settings import ServerSettings

    sys.exit(main.server(ServerSettings(**flags)))


@click.group()
def job() -> None:
    """Run one download job; the controller's Jobs do this. The input is in DIRECTDOWNLOAD_JOB."""


for _verb, _summary in (
    ("fetch", "Fetch a template into a pool."),
    ("verify", "Hash a published template again."),
    ("remove", "Remove a template from a pool."),
    ("probe", "Ask a template's source what it has."),
):

    @job.command(_verb, help=_summary, epilog=examples.of(f"DIRECTDOWNLOAD_JOB='{{…}}' directdownload job {_verb}"))
    @click.pass_context
    def _run(ctx: click.Context) -> None:
        from directdownload.download import job as jobs

        sys.exit(jobs.main(str(ctx.info_name)))
