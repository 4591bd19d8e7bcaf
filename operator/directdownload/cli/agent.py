"""`agent`: the process on every host. Flags and environment become one settings object, read nowhere else."""

import pathlib

import click

from directdownload.cli import examples, pods


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
@pods.pool_root
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
@click.option("--kubeconfig", metavar="FILE", help="Use this file instead of the pod's service account.")
@pods.health_port(8081)
@pods.metrics_port
@pods.metrics_certificate
@pods.log_format
@pods.log_level
@click.pass_context
def agent(
    ctx: click.Context,
    node_name: str,
    pod_name: str,
    pod_namespace: str,
    pool_roots: tuple[str, ...],
    keystore_roots: tuple[str, ...],
    state_directory: str,
    kubeconfig: str | None,
    health_port: int,
    metrics_port: int | None,
    metrics_certificate: pathlib.Path | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run the agent of one host; the chart does this."""
    pods.leave_when_asked()
    from directdownload.agent import main
    from directdownload.agent.settings import Settings

    settings = Settings(
        node_name=node_name,
        pod_name=pod_name,
        pod_namespace=pod_namespace,
        pool_roots=pool_roots,
        keystore_roots=keystore_roots,
        state_directory=state_directory,
        kubeconfig=kubeconfig,
        health_port=health_port,
        metrics_port=metrics_port,
        metrics_certificate=metrics_certificate,
        log_format=log_format,
        log_level=log_level,
    )
    ctx.exit(main.main(settings))
