"""`controller`: the controller's process. Flags and environment become one settings object, read nowhere else."""

import pathlib

import click

from directdownload.cli import examples, pods


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
    "--pod-namespace", envvar="POD_NAMESPACE", required=True, help="Namespace of the Jobs.  [env: POD_NAMESPACE]"
)
@click.option(
    "--job-template",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    default="/etc/directdownload/job.yaml",
    show_default=True,
    help="Manifest of a download Job, which the controller completes.",
)
@pods.pool_root
@click.option(
    "--lease-name", default="direct-download-operator", show_default=True, help="Lease of the leader election."
)
@pods.health_port(8080)
@pods.metrics_port
@pods.metrics_certificate
@pods.log_format
@pods.log_level
@click.pass_context
def controller(
    ctx: click.Context,
    pod_name: str,
    pod_namespace: str,
    job_template: pathlib.Path,
    pool_roots: tuple[str, ...],
    lease_name: str,
    health_port: int,
    metrics_port: int | None,
    metrics_certificate: pathlib.Path | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run the controller; the chart does this."""
    pods.leave_when_asked()
    from directdownload.controller import main
    from directdownload.controller.settings import Settings

    settings = Settings(
        namespace=pod_namespace,
        pod_name=pod_name,
        job_template=job_template,
        pool_roots=pool_roots,
        lease_name=lease_name,
        health_port=health_port,
        metrics_port=metrics_port,
        metrics_certificate=metrics_certificate,
        log_format=log_format,
        log_level=log_level,
    )
    ctx.exit(main.main(settings))
