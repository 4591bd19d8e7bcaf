"""`directdownload keystore`: trusted certificates of a Java keystore, without a cluster; replaces keytool.

Uses the agent's library: one writer at a time, all other entries stay, and a write is never partial. Private keys are
listed, and never changed.
"""

import datetime
import functools
import os
import re
import shlex
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from directdownload.cli import examples
from directdownload.cli.exit_status import PERMANENT, TRANSIENT, Failure
from directdownload.cli.view.output import output_option, print_document, table

if TYPE_CHECKING:
    from directdownload.keystore.entries import Changes, Entry
    from directdownload.keystore.store import Result, Snapshot
    from directdownload.resources.pem import Certificate

#: The rule of the CRD for `alias` of a DirectDownloadCertificate.
_ALIAS = re.compile(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?")
_ALIAS_LIMIT = 128
_EXPIRY_WARNING = datetime.timedelta(days=30)
_FILE = click.Path(dir_okay=False)


@click.group()
@click.pass_context
def keystore(ctx: click.Context) -> None:
    """Trusted certificates of a Java keystore (JKS or PKCS12), with no cluster."""
    # Libraries warn about odd certificates and old algorithms, which others chose: the user can do nothing about them.
    ctx.with_resource(warnings.catch_warnings(action="ignore"))


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the common options. The function gets `path` and `password`; its KeystoreErrors become Failures."""

    @click.option("--keystore", "path", required=True, type=_FILE, metavar="FILE", help="The keystore.")
    @click.option(
        "--password-file", type=_FILE, metavar="FILE", help="File that holds the keystore's password and nothing else."
    )
    @click.option(
        "--agent-properties",
        type=_FILE,
        metavar="FILE",
        help="CloudStack's agent.properties, for its keystore.passphrase; instead of --password-file.",
    )
    @functools.wraps(function)
    def command(path: str, password_file: str | None, agent_properties: str | None, **options: Any) -> None:
        from directdownload.keystore import errors, passwords

        if (password_file is None) == (agent_properties is None):
            raise click.UsageError("Expected one of '--password-file' and '--agent-properties'.")
        try:
            if password_file is not None:
                password = passwords.from_file(password_file)
            else:
                password = passwords.from_agent_properties(str(agent_properties))
            function(os.path.abspath(path), password, **options)
        except errors.WriteError as error:
            raise Failure(str(error), TRANSIENT) from error
        except errors.KeystoreError as error:
            raise Failure(str(error), PERMANENT) from error

    return command


_alias = functools.partial(
    click.option, "--alias", metavar="ALIAS", callback=lambda _c, _p, text: text and text.lower()
)
_file = functools.partial(click.option, "--file", "certificate", metavar="CERT", callback=lambda _c, _p, f: _parse(f))


def _parse(path: str | None) -> "Certificate | None":
    """The only certificate in a file. Raises BadParameter if it cannot be read, and Failure if it is no certificate."""
    if path is None:
        return None
    from directdownload.resources import pem

    try:
        with open(path, "rb") as file:
            return pem.read(file.read(pem.TEXT_LIMIT + 1))
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {(error.strerror or '').lower()}") from error
    except pem.CertificateError as error:
        raise Failure(f"{path}: {error}") from None


@keystore.command(
    "list",
    epilog=examples.of(
        "directdownload keystore list --keystore cloud.jks --password-file password",
        (
            "directdownload keystore list --keystore /etc/cloudstack/agent/cloud.jks "
            "--agent-properties /etc/cloudstack/agent/agent.properties -o json"
        ),
    ),
)
@output_option
@_command
def list_entries(path: str, password: str, output: str) -> None:
    """List all entries: trusted certificates, private keys and secret keys."""
    from directdownload.keystore import store

    snapshot = store.read(path, password)
    if output in ("table", "name"):
        for line in _unreadable(snapshot):
            click.echo(line, err=True)
    documents = [_document(snapshot.entries[alias]) for alias in sorted(snapshot.entries)]
    if output in ("json", "yaml"):
        print_document({"keystore": path, "type": snapshot.type, "sha256": snapshot.sha256, "items": documents}, output)
    elif output == "name":
        for document in documents:
            click.echo(document["alias"])
    elif documents:
        names = {"alias": "alias", "kind": "kind", "expires": "notAfter", "subject": "subject"}
        names["sha256 fingerprint"] = "fingerprintSHA256"
        rows = [[document[field] or "-" for field in names.values()] for document in documents]
        click.echo(table(list(names), rows))
    else:
        click.echo(f"{path} has no entries.", err=True)


@keystore.command(
    "import",
    epilog=examples.of(
        "directdownload keystore import --keystore cloud.jks --password-file password --alias my-ca --file ca.pem",
        (
            "directdownload keystore import --keystore new.p12 --password-file password --alias my-ca "
            "--file ca.pem --type PKCS12"
        ),
    ),
)
@_alias(required=True, help="Alias of the entry; lower-cased, as Java does. CloudStack's own aliases are refused.")
@_file(required=True, type=_FILE, help="One certificate, PEM however it was pasted, or DER.")
@click.option(
    "--type",
    "create",
    type=click.Choice(("JKS", "PKCS12")),
    default="JKS",
    show_default=True,
    help="Type of a new keystore; an existing one keeps its type.",
)
@click.option("--replace", is_flag=True, help="Replace another trusted certificate of this alias.")
@_command
def import_certificate(
    path: str, password: str, alias: str, certificate: "Certificate", create: str, replace: bool
) -> None:
    """Trust a certificate: put it under ALIAS. A missing keystore is created."""
    from directdownload.keystore.entries import Changes, EntryKind
    from directdownload.resources.certificate import PREVIOUS_SUFFIX

    if len(alias) > _ALIAS_LIMIT or not _ALIAS.fullmatch(alias):
        raise click.UsageError(
            "Invalid value for '--alias': expected letters, digits, '-', '.' and '_', for example my-ca."
        )
    if alias.endswith(PREVIOUS_SUFFIX):
        raise click.UsageError(
            f"Invalid value for '--alias': {alias} is reserved for previous certificates; choose another alias."
        )
    _refuse_cloudstack(alias)
    if certificate.not_after <= datetime.datetime.now(datetime.UTC):
        raise Failure(f"the certificate expired on {_date(certificate.not_after)}; get a new one")

    def decide(entries: "Mapping[str, Entry]") -> "Changes":
        found = entries.get(alias)
        if found is None or found.trusts(certificate.der):
            return Changes(put={alias: certificate.der})
        if found.kind is not EntryKind.TRUSTED_CERTIFICATE:
            raise Failure(f"{path} has a {found.kind} named {alias}, which is never replaced; choose another alias")
        if not replace:
            raise Failure(f"{path} has another certificate named {alias}; choose another alias, or use --replace")
        return Changes(put={alias: certificate.der})

    result = _update(path, password, decide, create)
    click.echo(f"{alias} {'is now' if result.written else 'was already'} trusted in {path}.")


@keystore.command(
    "remove",
    epilog=examples.of(
        "directdownload keystore remove --keystore cloud.jks --password-file password --alias my-ca",
    ),
)
@_alias(required=True, help="Alias of a trusted certificate.")
@_command
def remove(path: str, password: str, alias: str) -> None:
    """Stop trusting a certificate: remove ALIAS. Succeeds, too, if there is no such entry."""
    from directdownload.keystore.entries import Changes, EntryKind

    _refuse_cloudstack(alias)

    def decide(entries: "Mapping[str, Entry]") -> "Changes":
        found = entries.get(alias)
        if found is not None and found.kind is not EntryKind.TRUSTED_CERTIFICATE:
            raise Failure(f"{path}: {alias} is a {found.kind}; only trusted certificates are removed")
        return Changes(remove=[alias])

    result = _update(path, password, decide, None)
    if result.snapshot is None:
        raise Failure(f"{path} does not exist; check the path")
    click.echo(f"{alias} {'was removed from' if result.written else 'is not in'} {path}.")


@keystore.command(
    "verify",
    epilog=examples.of(
        "directdownload keystore verify --keystore cloud.jks --password-file password",
        "directdownload keystore verify --keystore cloud.jks --password-file password --alias my-ca --file ca.pem",
    ),
)
@_alias(help="Check that this entry holds exactly the certificate of --file.")
@_file(type=_FILE, help="The certificate that --alias must hold.")
@_command
def verify(path: str, password: str, alias: str | None, certificate: "Certificate | None") -> None:
    """Read the whole keystore, and report its entries and what expires."""
    from directdownload.keystore import store

    if (alias is None) != (certificate is None):
        raise click.UsageError("Expected both '--alias' and '--file', or neither.")
    snapshot = store.read(path, password)
    _tell(path, snapshot)
    unreadable = _unreadable(snapshot)
    for line in unreadable:
        click.echo(line)
    if alias is not None and certificate is not None:
        _compare(path, alias, snapshot.entries.get(alias), certificate)
    if unreadable:
        raise Failure(f"{path}: Java cannot read {len(unreadable)} of its entries, and then opens none")


def _compare(path: str, alias: str, found: "Entry | None", certificate: "Certificate") -> None:
    if found is None:
        raise Failure(f"{path} has no entry {alias}; import it")
    if not found.trusts(certificate.der):
        raise Failure(
            f"{path}: {alias} is not that certificate: expected {certificate.fingerprint_sha256}, "
            f"found a {found.kind} with {found.fingerprint_sha256 or 'no certificate'}"
        )
    click.echo(f"{alias} holds exactly that certificate.")


def _tell(path: str, snapshot: "Snapshot") -> None:
    kinds = [entry.kind.value for entry in snapshot.entries.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "no entries"
    click.echo(f"{path}: {snapshot.type}, {counts}, SHA-256 {snapshot.sha256}")
    now = datetime.datetime.now(datetime.UTC)
    for alias in sorted(snapshot.entries):
        not_after = _field(_certificate(snapshot.entries[alias]), "not_after")
        if not_after is not None and not_after - now <= _EXPIRY_WARNING:
            click.echo(f"{alias} {'expired' if not_after <= now else 'expires'} on {_date(not_after)}.")


def _unreadable(snapshot: "Snapshot") -> list[str]:
    """A line for each entry that makes Java and keytool refuse the whole store."""
    from directdownload.keystore.entries import EntryKind
    from directdownload.resources.certificate import of_cloudstack

    lines = []
    for alias, entry in sorted(snapshot.entries.items()):
        certificate = _certificate(entry)
        if certificate is None or certificate.unreadable is None:
            continue
        advice = f"remove it: directdownload keystore remove --alias {shlex.quote(alias)} …"
        if entry.kind is not EntryKind.TRUSTED_CERTIFICATE or of_cloudstack(alias):
            advice = "restore the store from a backup"
        lines.append(
            f"Java cannot read {alias}: {certificate.unreadable}; Java then opens no entry of the store; {advice}"
        )
    return lines


def _update(path: str, password: str, decide: "Callable[[Mapping[str, Entry]], Changes]", create: Any) -> "Result":
    from directdownload.keystore import store

    return store.update(path, password, decide, create=create)


def _refuse_cloudstack(alias: str) -> None:
    from directdownload.resources.certificate import of_cloudstack

    if of_cloudstack(alias):
        raise click.UsageError(
            f"Invalid value for '--alias': {alias} is CloudStack's own (cloud, cloudca…), and is never changed."
        )


def _document(entry: "Entry") -> dict[str, Any]:
    """The entry as `--output json` prints it; unknown values are null."""
    certificate = _certificate(entry)
    document = {
        "alias": entry.alias,
        "kind": entry.kind.value,
        "created": entry.created.isoformat() if entry.created is not None else None,
        "fingerprintSHA256": entry.fingerprint_sha256,
    }
    fields = {"subject": "subject", "issuer": "issuer", "notBefore": "not_before", "notAfter": "not_after"}
    for name, attribute in fields.items():
        value = _field(certificate, attribute)
        document[name] = _date(value) if isinstance(value, datetime.datetime) else value
    document["unreadable"] = certificate.unreadable if certificate is not None else None
    return document


def _certificate(entry: "Entry") -> "Certificate | None":
    from directdownload.resources import pem

    return pem.Certificate(entry.certificate) if entry.certificate is not None else None


def _field(certificate: "Certificate | None", attribute: str) -> Any:
    """The attribute; None without a certificate, or if cryptography cannot read it."""
    try:
        return getattr(certificate, attribute, None)
    except ValueError:
        return None


def _date(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
