"""A Java program trusts an HTTPS server by what we put into its keystore, and no longer when we took it away."""

import datetime
import http.server
import ipaddress
import pathlib
import ssl
import threading
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.keystore import support, writing
from tests.world import origin

from directdownload.keystore import store
from directdownload.keystore.entries import Changes, StoreType
from directdownload.resources import pem


class Server:
    """HTTPS on 127.0.0.1 with a certificate that an authority of its own, `authority` (DER), has signed."""

    def __init__(self, directory: pathlib.Path) -> None:
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority = _builder("private CA", "private CA", authority_key).add_extension(
            x509.BasicConstraints(True, 0), True
        )
        alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = _builder("images", "private CA", key).add_extension(alternatives, False)
        self.authority = authority.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        chain = directory / "chain.pem"
        chain.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + leaf.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    subject_name, issuer_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (subject, issuer)
    )
    builder = x509.CertificateBuilder(issuer_name, subject_name, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def classes(jdk: support.Jdk, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The program, made by this JDK."""
    directory = tmp_path_factory.mktemp(f"client-{jdk.name}")
    # URL's constructor is deprecated since Java 20, its successor is not in Java 17
    support.command(jdk.bin / "javac", "-nowarn", "-d", directory, pathlib.Path(__file__).with_name("TlsClient.java"))
    return directory


def asks(jdk: support.Jdk, classes: pathlib.Path, path: pathlib.Path, store_type: StoreType, url: str) -> str:
    program = (jdk.bin / "java", "-cp", classes, "TlsClient")
    return support.command(*program, store_type, path, support.PASSWORD, url).strip()


@pytest.mark.parametrize("store_type", writing.TYPES)
def test_java_trusts_a_server_by_our_entry_and_no_longer_without_it(
    tmp_path: pathlib.Path, server: Server, jdk: support.Jdk, classes: pathlib.Path, store_type: StoreType
) -> None:
    path = writing.make(tmp_path, store_type)
    assert asks(jdk, classes, path, store_type, server.url) == "refused"
    store.update(str(path), support.PASSWORD, lambda _: Changes(put={"ca": server.authority}), create=None)
    assert asks(jdk, classes, path, store_type, server.url) == "204"
    store.update(str(path), support.PASSWORD, writing.remove("ca"), create=None)
    assert asks(jdk, classes, path, store_type, server.url) == "refused"


@pytest.mark.parametrize("store_type", writing.TYPES)
def test_java_trusts_by_a_store_that_we_made(
    tmp_path: pathlib.Path, jdk: support.Jdk, classes: pathlib.Path, store_type: StoreType
) -> None:
    """And by a certificate that its server has signed itself."""
    path = tmp_path / "cloud.jks"
    (tmp_path / "file").touch()
    with origin.Origin(tmp_path, tls=True) as nginx:
        certificate = pem.parse(nginx.certificate.read_text())
        put = {"images": certificate.der, "other": support.certificate("other")}
        store.update(str(path), support.PASSWORD, lambda _: Changes(put=put), create=store_type)
        assert asks(jdk, classes, path, store_type, nginx.url("file")) == "200"
        store.update(str(path), support.PASSWORD, writing.remove("images"), create=None)
        assert asks(jdk, classes, path, store_type, nginx.url("file")) == "refused"
