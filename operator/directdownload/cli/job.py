"""`directdownload job fetch|verify|remove|probe`: what the download pods run. The document is in the environment."""

import sys

import click


@click.group()
def job() -> None:
    """Run one download job; used by the controller's pods. Reads the document in DIRECTDOWNLOAD_JOB."""


def _run(verb: str) -> None:
    from directdownload.download import job as jobs

    sys.exit(jobs.main(verb))


@job.command()
def fetch() -> None:
    """Fetch a template into a pool."""
    _run("fetch")


@job.command()
def verify() -> None:
    """Hash a published template again."""
    _run("verify")


@job.command()
def remove() -> None:
    """Remove a template from a pool."""
    _run("remove")


@job.command()
def probe() -> None:
    """Ask what a template's source has."""
    _run("probe")
