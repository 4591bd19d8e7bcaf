"""`directdownload job fetch|verify|remove|probe`: what the download pods run. The document is in the environment."""

import sys

import click

from directdownload.cli import examples


@click.group()
def job() -> None:
    """Run one download job; the controller's Jobs do this. The input is in DIRECTDOWNLOAD_JOB."""


def _run(verb: str) -> None:
    from directdownload.download import job as jobs

    sys.exit(jobs.main(verb))


@job.command(
    epilog=examples.of(
        "DIRECTDOWNLOAD_JOB='{…}' directdownload job fetch",
    )
)
def fetch() -> None:
    """Fetch a template into a pool."""
    _run("fetch")


@job.command(
    epilog=examples.of(
        "DIRECTDOWNLOAD_JOB='{…}' directdownload job verify",
    )
)
def verify() -> None:
    """Hash a published template again."""
    _run("verify")


@job.command(
    epilog=examples.of(
        "DIRECTDOWNLOAD_JOB='{…}' directdownload job remove",
    )
)
def remove() -> None:
    """Remove a template from a pool."""
    _run("remove")


@job.command(
    epilog=examples.of(
        "DIRECTDOWNLOAD_JOB='{…}' directdownload job probe",
    )
)
def probe() -> None:
    """Ask a template's source what it has."""
    _run("probe")
