"""Waits until hosts have proved a change of a certificate, and prints the result: for `certificate … --wait`."""

import asyncio
import time

import click

from directdownload.cli import following, output, progress, proofs, reading, units
from directdownload.cli.exit_status import DONE, INTERRUPTED, PERMANENT, TRANSIENT, Failure
from directdownload.cli.inventory import zone_selector
from directdownload.cli.proofs import Proofs, Verdict
from directdownload.cli.session import Session
from directdownload.cluster import errors, kinds
from directdownload.cluster.client import Object
from directdownload.cluster.reflector import Reflector, Store
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host

#: A failure may be from an attempt before this change, so it counts only once it has lasted this long.
FAILURE_STAYS_SECONDS = 5.0


async def visible_hosts(session: Session, zone: str | None) -> list[Host] | None:
    """Hosts of `zone` (None: all); None if the user may not list hosts."""
    try:
        documents, _ = await session.api.list(kinds.HOSTS, field_selector=zone_selector(zone))
    except errors.Forbidden:
        return None
    return reading.readable(Host.model_validate, documents)


async def report(session: Session, certificate: DirectDownloadCertificate, only_host: str | None, how: str) -> None:
    """Prints the current state without waiting; as a table, only the command that follows it."""
    if how == "table":
        click.echo(f"Follow it with: {_command(certificate)}", err=True)
    else:
        hosts = await visible_hosts(session, certificate.spec.zone)
        _print(proofs.snapshot(certificate, hosts, only_host), how)


async def wait(
    session: Session, certificate: DirectDownloadCertificate, only_host: str | None, timeout_seconds: float, how: str
) -> int:
    """Follows `certificate` to its end, prints a row per host, and returns the exit status.

    All Up hosts proved it 0; out of time, hosts failed, or none is Up 1; Stalled 3; Ctrl-C 130. With `only_host` that
    host counts.
    """
    began = time.monotonic()
    try:
        with progress.reporter(aside=True) as reporter:
            state = await _follow(session, certificate, only_host, reporter, timeout_seconds)
    except asyncio.CancelledError:
        click.echo(f"\nNo longer watching. The hosts go on; see them with: {_command(certificate)}", err=True)
        return INTERRUPTED
    _print(state, how)
    status, text = _ending(state, units.span(time.monotonic() - began))
    click.echo(text, err=True)
    if state.skipped:
        click.echo(f"{units.count(state.skipped, 'host')} skipped: not Up; they follow when they return.", err=True)
    return status


async def _follow(
    session: Session,
    first: DirectDownloadCertificate,
    only_host: str | None,
    reporter: progress.Reporter,
    timeout_seconds: float,
) -> Proofs:
    visible = await visible_hosts(session, first.spec.zone) is not None
    certificates: Store[DirectDownloadCertificate] = Store()
    certificates.observe(first)
    hosts: Store[Host] = Store()
    changed = asyncio.Event()
    reflectors: list[Reflector[DirectDownloadCertificate] | Reflector[Host]] = [
        Reflector(
            session.api,
            kinds.CERTIFICATES,
            DirectDownloadCertificate.model_validate,
            certificates,
            field_selector=f"metadata.name={first.name}",
            on_change=lambda *_: changed.set(),
        )
    ]
    if visible:
        reflectors.append(
            Reflector(
                session.api,
                kinds.HOSTS,
                Host.model_validate,
                hosts,
                field_selector=zone_selector(first.spec.zone),
                on_change=lambda *_: changed.set(),
            )
        )
    failing_since = None

    def look() -> Proofs:
        certificate = certificates.get(first.key)
        if certificate is None or certificate.uid != first.uid:
            raise Failure(f"certificate {first.name!r} was deleted meanwhile")
        return proofs.snapshot(certificate, hosts if visible else None, only_host)

    def draw() -> bool:
        nonlocal failing_since
        state = look()
        reporter.update(proofs.board(state))
        if state.verdict is not Verdict.FAILED:
            failing_since = None
            return state.verdict is not Verdict.RUNNING
        failing_since = failing_since or time.monotonic()
        return time.monotonic() - failing_since >= FAILURE_STAYS_SECONDS

    async with following.running(reflectors, reporter, timeout_seconds) as failed:
        await following.until(draw, changed, failed, timeout_seconds)
    return look()


def _ending(state: Proofs, span: str) -> tuple[int, str]:
    """The exit status, and the sentence that explains it."""
    name = state.certificate.spec.keystore_alias
    why = state.reason + (f": {state.message}" if state.message else "")
    if state.verdict is Verdict.STALLED:
        return PERMANENT, f"Error: {name} has stalled: {why}"
    so_far = f"{state.proved} of {units.count(state.total, 'host')} proved it"
    if state.verdict is Verdict.PROVED:
        return DONE, f"{name}: {so_far}, after {span}."
    if state.verdict is Verdict.NOBODY:
        zone = state.certificate.spec.zone
        return TRANSIENT, f"Error: {name}: no host of zone {zone} is Up. Each host follows when it is Up."
    if state.verdict is Verdict.FAILED:
        return TRANSIENT, f"Error: {name}: {so_far}, {state.failed} failed. Their agents keep trying."
    return TRANSIENT, (
        f"Error: {name} is not done after {span}: {so_far}, {state.failed} failed, {state.pending} pending"
        + (f" ({why})" if why else "")
        + ". The hosts go on."
    )


def _print(state: Proofs, how: str) -> None:
    certificate = state.certificate
    if how == "name":
        output.print_documents([{"metadata": {"name": certificate.name}}], kinds.CERTIFICATES, how)
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
        "fingerprintSHA256": proofs.fingerprint(certificate),
        "hosts": {
            "proved": state.proved,
            "failed": state.failed,
            "pending": state.pending,
            "skipped": state.skipped,
        },
        "items": [document(proof) for proof in state.hosts or ()],
    }


def document(proof: proofs.Proof) -> Object:
    """As an entry of CloudStack's `hostsmap`."""
    return {"hostName": proof.host, "status": proof.state.value, "details": proof.details}


def _command(certificate: DirectDownloadCertificate) -> str:
    return f"directdownload certificate list --zone {certificate.spec.zone} --hosts"
