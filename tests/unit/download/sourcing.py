"""Reading from one source, without the rest of the engine; certificates and a scripted server for TLS."""

import contextlib
import datetime
import ipaddress
import pathlib
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.download.support import LOCAL, PATIENT, HostileServer, Received, Respond

from directdownload.download import sources
from directdownload.download.errors import DownloadError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, Source, SourceOptions, Stream


def guard(deadline_seconds: float = 0) -> Guard:
    return Guard.start(threading.Event(), deadline_seconds)


def make_source(url: str, **options: Any) -> Source:
    """A source that may connect to this machine."""
    return sources.create(url, SourceOptions(**{"timeouts": PATIENT, "policy": LOCAL, **options}))


def drain(stream: Stream, buffer_bytes: int = 65_536) -> bytes:
    """Everything that a stream has; it is closed then."""
    data, buffer = b"", memoryview(bytearray(buffer_bytes))
    with contextlib.closing(stream):
        while count := stream.readinto(buffer):
            data += buffer[:count]
    return data


def read(url: str, ask: Ask = Ask(), **options: Any) -> bytes:  # noqa: B008 - it is frozen
    return drain(make_source(url, **options).open(ask, guard()))


def read_error(url: str, ask: Ask = Ask(), **options: Any) -> DownloadError:  # noqa: B008 - it is frozen
    try:
        data = read(url, ask, **options)
    except DownloadError as error:
        return error
    raise AssertionError(f"expected a failure, got {len(data)} bytes")


class Certificate:
    """A key and its certificate, signed by `issuer` or by itself; `names` are host names and addresses."""

    def __init__(
        self,
        *names: str,
        issuer: "Certificate | None" = None,
        authority: bool | None = None,
        days: tuple[int, int] = (-1, 1),
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {names} {id(self)}")])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), False)
        if authority is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
        signed = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())
        self.pem = signed.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def save(self, path: pathlib.Path) -> str:
        """The certificate alone, as a trust bundle has it."""
        path.write_bytes(self.pem)
        return str(path)

    def server_context(self, directory: pathlib.Path) -> ssl.SSLContext:
        both = directory / f"{id(self)}.pem"
        both.write_bytes(self.pem + self.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        return context


def tls_server(certificate: Certificate, directory: pathlib.Path, respond: Respond) -> HostileServer:
    """As HostileServer, behind TLS; a client that does not trust it never gets to `respond`."""
    context = certificate.server_context(directory)

    def serve(connection: socket.socket, _request: Received, number: int) -> None:
        with contextlib.suppress(ssl.SSLError, ValueError), context.wrap_socket(connection, server_side=True) as secure:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := secure.recv(65_536)):
                    return
                head += more
            respond(secure, Received(head.decode("latin-1").split(" ")[1], {}), number)
            secure.unwrap()

    return HostileServer(serve, reads_request=False)


def secure_url(server: HostileServer, host: str = "127.0.0.1") -> str:
    return f"https://{host}:{server.port}/file"


def bundle(directory: pathlib.Path, certificates: Sequence[Certificate]) -> str:
    path = directory / "bundle.pem"
    path.write_bytes(b"".join(certificate.pem for certificate in certificates))
    return str(path)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
