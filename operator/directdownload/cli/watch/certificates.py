"""Waits until hosts have proved a change of a certificate, and prints the result: for `certificate … --wait`."""

import time

import click

from directdownload.cli import certificate_state, objects
from directdownload.cli.certificate_state import Proof, Proofs, ProofState
from directdownload.cli.exit_status import DONE, PERMANENT, TRANSIENT
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cli.watch import follow
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host

#: A failure may be from an attempt before this change, so it counts only once it has lasted this long.
FAILURE_STAYS_SECONDS = 5.0


async def report(session: Session, certificate: DirectDownloadCertificate, only_host: str | None, how: str) -> None:
    """Prints the current state without waiting; as a table, only the command that follows it."""
    if how == "table":
        click.echo(f"Follow it with: {_command(certificate)}", err=True)
    else:
        hosts = await objects.hosts_of(session, certificate.spec.zone)
        _print(certificate_state.snapshot(certificate, hosts, only_host), how)


async def wait(
    session: Session, certificate: DirectDownloadCertificate, only_host: str | None, timeout_seconds: float, how: str
) -> int:
    """Follows `certificate` to its end, prints a row per host, and returns the exit status.

    All Up hosts proved it 0; out of time, hosts failed, or none is Up 1; Stalled 3; Ctrl-C 130. With `only_host` that
    host counts. Raises Failure if the certificate is deleted meanwhile.
    """
    began = time.monotonic()
    with follow.interruptible(f"The hosts go on; see them with: {_command(certificate)}"):
        state = await _follow(session, certificate, only_host, timeout_seconds)
    _print(state, how)
    status, text = _ending(state, units.span(time.monotonic() - began))
    click.echo(text, err=True)
    if state.skipped:
        click.echo(f"{units.count(state.skipped, 'host')} skipped: not Up; they follow when they return.", err=True)
    return status


async def _follow(
    session: Session, first: DirectDownloadCertificate, only_host: str | None, timeout_seconds: float
) -> Proofs:
    visible = await objects.hosts_of(session, first.spec.zone) is not None
    following = follow.Follow(session, timeout_seconds)
    certificates = following.store(
        kinds.CERTIFICATES, DirectDownloadCertificate, field_selector=f"metadata.name={first.name}"
    )
    certificates.observe(first)
    hosts = None
    if visible:
        hosts = following.store(kinds.HOSTS, Host, field_selector=objects.zone_selector(first.spec.zone))
    failing_since = None

    def over(state: Proofs) -> bool:
        nonlocal failing_since
        if state.end is not ProofState.FAILED:
            failing_since = None
            return state.end is not ProofState.RUNNING
        failing_since = failing_since or time.monotonic()
        return time.monotonic() - failing_since >= FAILURE_STAYS_SECONDS

    return await following.until(
        over,
        lambda: certificate_state.snapshot(follow.still(certificates, first, "certificate"), hosts, only_host),
        certificate_state.screen,
        aside=True,
    )


def _ending(state: Proofs, span: str) -> tuple[int, str]:
    """The exit status, and the sentence that explains it."""
    name = state.certificate.spec.keystore_alias
    why = state.reason + (f": {state.message}" if state.message else "")
    if state.end is ProofState.STALLED:
        return PERMANENT, f"Error: {name} has stalled: {why}"
    so_far = f"{state.proved} of {units.count(state.total, 'host')} proved it"
    if state.end is ProofState.PROVED:
        return DONE, f"{name}: {so_far}, after {span}."
    if state.end is ProofState.NOBODY:
        zone = state.certificate.spec.zone
        return TRANSIENT, f"Error: {name}: no host of zone {zone} is Up. Each host follows when it is Up."
    if state.end is ProofState.FAILED:
        return TRANSIENT, f"Error: {name}: {so_far}, {state.failed} failed. Their agents keep trying."
    return TRANSIENT, (
        f"Error: {name} is not done after {span}: {so_far}, {state.failed} failed, {state.pending} pending"
        + (f" ({why})" if why else "")
        + ". The hosts go on."
    )


def _print(state: Proofs, how: str) -> None:
    certificate = state.certificate
    if how == "name":
        objects.print_documents([{"metadata": {"name": certificate.name}}], kinds.CERTIFICATES, how)
    elif how != "table":
        output.print_document(_document(state), how)
    elif state.hosts:
        rows = [(proof.host, proof.state.value, proof.details) for proof in state.hosts]
        click.echo(output.table(("host", "status", "details"), rows))
    elif state.hosts is None and state.failures:
        failures = [(failure.host, failure.reason.value, failure.message) for failure in state.failures]
        click.echo(output.table(("host", "reason", "message"), failures))


def _document(state: Proofs) -> Object:
    certificate = state.certificate
    return {
        "name": certificate.name,
        "alias": certificate.spec.keystore_alias,
        "zone": certificate.spec.zone,
        "fingerprintSHA256": certificate_state.fingerprint(certificate),
        "hosts": {
            "proved": state.proved,
            "failed": state.failed,
            "pending": state.pending,
            "skipped": state.skipped,
        },
        "items": [document(proof) for proof in state.hosts or ()],
    }


def document(proof: Proof) -> Object:
    """As an entry of CloudStack's `hostsmap`."""
    return {"hostName": proof.host, "status": proof.state.value, "details": proof.details}


def _command(certificate: DirectDownloadCertificate) -> str:
    return f"directdownload certificate list --zone {certificate.spec.zone} --hosts"
