"""`certificate upload|list|revoke|provision`: CloudStack's four TemplateDirectDownloadCertificate APIs.

A certificate belongs to a zone: every host of the zone, also one that joins later, puts it into its Java keystore and
proves that it is there. A command names a host only to revoke a certificate there, or to restore it.
"""

import datetime
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import click

from directdownload.cli import certificate_changes as changes
from directdownload.cli import certificate_state, examples, objects, options
from directdownload.cli.command import cluster_command
from directdownload.cli.session import Session
from directdownload.cli.view import output, units
from directdownload.cli.watch import certificates
from directdownload.cluster import kinds
from directdownload.cluster.client import Object
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host


@click.group()
def certificate() -> None:
    """Certificates that hosts trust when they download templates over HTTPS."""


def _name_option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option that takes a name. It refuses an empty value: an empty shell variable must not mean "all"."""

    def not_empty(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value == "":
            raise click.BadParameter("expected a name, found nothing")
        return value

    return click.option(*names, callback=not_empty, **settings)


_name = _name_option(
    "--name",
    "alias",
    required=True,
    metavar="ALIAS",
    shell_complete=options.certificate_aliases,
    help="Alias in the keystores, in any case.",
)
_zone = _name_option(
    "--zone",
    required=True,
    metavar="ZONE",
    shell_complete=options.zone_names,
    help="The zone whose hosts trust the certificate.",
)
_wait = click.option(
    "--wait", is_flag=True, help="Wait until every Up host has proved it, and print a table of the hosts."
)


def _followed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands that hosts execute."""
    for option in (output.output_option, options.timeout_option, _wait):
        command = option(command)
    return command


@certificate.command(
    epilog=examples.of(
        "directdownload certificate upload --name my-ca --zone zone-1 --file ca.pem --wait",
        "directdownload certificate upload --name my-ca --zone zone-1 --file ca.pem --host kvm-1",
    )
)
@_name
@_zone
@click.option(
    "--file",
    "path",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="One certificate, in PEM.",
)
@_name_option(
    "--host",
    metavar="HOST",
    shell_complete=options.host_names,
    help="Restore the certificate on this host, where it was revoked.",
)
@_followed
@cluster_command
async def upload(
    session: Session,
    alias: str,
    zone: str,
    path: pathlib.Path,
    host: str | None,
    wait: bool,
    timeout_seconds: float,
    output: str,
) -> int | None:
    """Put a certificate into the keystore of every host of a zone.

    An existing certificate of this alias is replaced; the old one stays trusted for a while. A revoked certificate is
    restored. The command checks the file before it sends anything.
    """
    options.check_timeout(timeout_seconds, wait)
    found = changes.read(path, datetime.datetime.now(datetime.UTC))
    known_zone = await objects.expect_zone(session, zone)
    new = None
    if host is None:
        new = {"zone": zone, "alias": alias.lower(), "certificate": found.pem}
    else:
        await objects.expect_host(session, host, zone)
    written = await changes.write(session, zone, alias, changes.upload(found, host), new)
    if host is None:
        text = changes.uploaded_text(written.before, written.after)
    else:
        text = changes.host_text(written.before or written.after, host)
    if known_zone is not None and not known_zone.spec.enabled:
        click.echo(f"Note: zone {zone} is disabled: its hosts take the certificate once the zone is enabled.", err=True)
    return await _end(session, text, written.after, host, wait, timeout_seconds, output)


@certificate.command(
    "list",
    epilog=examples.of(
        "directdownload certificate list",
        "directdownload certificate list --zone zone-1 --hosts -o json",
    ),
)
@options.in_zone_option
@click.option("--hosts", "by_host", is_flag=True, help="Show the status of each certificate on every host.")
@output.output_option
@cluster_command
async def list_certificates(session: Session, in_zone: str | None, by_host: bool, output: str) -> None:
    """List certificates, and how many hosts have them."""
    documents, _ = await session.api.list(kinds.CERTIFICATES, field_selector=objects.zone_selector(in_zone))
    documents.sort(key=_place)
    if by_host:
        hosts, _ = await session.api.list(kinds.HOSTS, field_selector=objects.zone_selector(in_zone))
        _print_by_host(
            objects.readable(DirectDownloadCertificate.model_validate, documents),
            objects.readable(Host.model_validate, hosts),
            output,
        )
    else:
        _print(documents, output)


@certificate.command(
    epilog=examples.of(
        "directdownload certificate revoke --name my-ca --zone zone-1 --wait --timeout 2m",
        "directdownload certificate revoke --name my-ca --zone zone-1 --host kvm-1",
    )
)
@_name
@_zone
@_name_option("--host", metavar="HOST", shell_complete=options.host_names, help="Revoke it on this host only.")
@_followed
@cluster_command
async def revoke(
    session: Session, alias: str, zone: str, host: str | None, wait: bool, timeout_seconds: float, output: str
) -> int | None:
    """Remove a certificate from the keystores of a zone, or of one host.

    A host that is Down removes it when it returns. `certificate upload` and `certificate provision` restore it.
    """
    options.check_timeout(timeout_seconds, wait)
    if host is not None:
        await objects.expect_host(session, host, zone)
    written = await changes.write(session, zone, alias, changes.revoke(host))
    text = changes.revoked_text(written.before or written.after, host)
    return await _end(session, text, written.after, host, wait, timeout_seconds, output)


@certificate.command(
    epilog=examples.of(
        "directdownload certificate provision --name my-ca --host kvm-1 --wait",
    )
)
@_name
@_name_option(
    "--host",
    required=True,
    metavar="HOST",
    shell_complete=options.host_names,
    help="The host. Its zone determines the certificate.",
)
@_followed
@cluster_command
async def provision(
    session: Session, alias: str, host: str, wait: bool, timeout_seconds: float, output: str
) -> int | None:
    """Restore a certificate on a host where it was revoked."""
    options.check_timeout(timeout_seconds, wait)
    zone = (await objects.expect_host(session, host)).spec.zone
    written = await changes.write(session, zone, alias, changes.provision(host))
    text = changes.host_text(written.before or written.after, host)
    return await _end(session, text, written.after, host, wait, timeout_seconds, output)


async def _end(
    session: Session,
    text: str,
    item: DirectDownloadCertificate,
    host: str | None,
    wait: bool,
    timeout_seconds: float,
    how: str,
) -> int | None:
    """Prints the change, then its progress. With another output format, standard output holds only the list."""
    click.echo(text, err=how != "table")
    if wait:
        return await certificates.wait(session, item, host, timeout_seconds, how)
    await certificates.report(session, item, host, how)
    return None


def _place(document: Object) -> tuple[bool, str, str]:
    """Sort key of the list: zone and alias; unreadable objects come last."""
    spec = document.get("spec")
    zone, alias = (spec.get(field) if isinstance(spec, dict) else None for field in ("zone", "alias"))
    if isinstance(zone, str) and isinstance(alias, str):
        return False, zone, alias.lower()
    return True, "", ""


def _print(documents: Sequence[Object], how: str) -> None:
    now = datetime.datetime.now(datetime.UTC)

    def row(document: Object) -> Sequence[str]:
        item = DirectDownloadCertificate.model_validate(document)
        hosts = item.status.hosts
        return (
            item.spec.zone,
            item.spec.keystore_alias,
            item.name,
            f"{hosts.uploaded}/{hosts.desired}" if hosts else units.UNKNOWN,
            objects.ready_word(item.status),
            _expiry(item.status.not_after, now),
            item.status.fingerprint_sha256 or units.UNKNOWN,
        )

    columns = ("zone", "alias", "name", "hosts", "ready", "expires", "fingerprint")
    empty = "No certificates. Upload one with `directdownload certificate upload`."
    objects.print_list(documents, kinds.CERTIFICATES, how, columns, row, empty)


def _expiry(not_after: datetime.datetime | None, now: datetime.datetime) -> str:
    if not_after is None:
        return units.UNKNOWN
    left = f"in {units.age(now, not_after)}" if not_after > now else "expired"
    return f"{not_after:%Y-%m-%d} ({left})"


def _print_by_host(items: Sequence[DirectDownloadCertificate], hosts: Sequence[Host], how: str) -> None:
    found = [(item, proof) for item in items for proof in certificate_state.of_hosts(item, hosts)]
    if how in ("json", "yaml"):
        listed = [
            {
                "zone": item.spec.zone,
                "alias": item.spec.keystore_alias,
                "name": item.name,
                **certificates.document(proof),
            }
            for item, proof in found
        ]
        output.print_document({"items": listed}, how)
    elif how == "name":
        for item, proof in found:
            click.echo(f"{proof.host}:{item.spec.keystore_alias}")
    elif found:
        rows = [
            (item.spec.zone, item.spec.keystore_alias, proof.host, proof.state.value, proof.details)
            for item, proof in found
        ]
        click.echo(output.table(("zone", "alias", "host", "status", "details"), rows))
    else:
        click.echo("No certificates, or no hosts in their zones.", err=True)
