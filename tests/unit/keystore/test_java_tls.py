"""A Java program trusts an HTTPS server by what we put into its keystore, and no longer when we took it away."""

import pathlib
import socket
from collections.abc import Iterator

import pytest
from tests.unit.keystore import support, writing
from tests.world import jdks, origin
from tests.world.certificates import Certificate
from tests.world.http import HostileServer, Received, answer, tls_server

from directdownload.keystore import store
from directdownload.keystore.entries import Changes, StoreType
from directdownload.resources import pem

AUTHORITY = Certificate(authority=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    """HTTPS with a certificate that AUTHORITY has signed."""
    certificate = Certificate("127.0.0.1", issuer=AUTHORITY)

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status="204 No Content")

    with tls_server(certificate, tmp_path_factory.mktemp("server"), respond) as running:
        yield running


@pytest.fixture(scope="module")
def classes(jdk: support.Jdk, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The program, made by this JDK."""
    directory = tmp_path_factory.mktemp(f"client-{jdk.name}")
    # URL's constructor is deprecated since Java 20, its successor is not in Java 17
    support.command(jdk.bin / "javac", "-nowarn", "-d", directory, pathlib.Path(__file__).with_name("TlsClient.java"))
    return directory


def asks(jdk: support.Jdk, classes: pathlib.Path, path: pathlib.Path, store_type: StoreType, url: str) -> str:
    program = (jdk.bin / "java", *jdks.BRIEF, "-cp", classes, "TlsClient")
    return support.command(*program, store_type, path, support.PASSWORD, url).strip()


@pytest.mark.parametrize("store_type", writing.TYPES)
def test_java_trusts_a_server_by_our_entry_and_no_longer_without_it(
    tmp_path: pathlib.Path, server: HostileServer, jdk: support.Jdk, classes: pathlib.Path, store_type: StoreType
) -> None:
    path = writing.make(tmp_path, store_type)
    assert asks(jdk, classes, path, store_type, server.secure_url()) == "refused"
    store.update(str(path), support.PASSWORD, lambda _: Changes(put={"ca": AUTHORITY.der}), create=None)
    assert asks(jdk, classes, path, store_type, server.secure_url()) == "204"
    store.update(str(path), support.PASSWORD, writing.remove("ca"), create=None)
    assert asks(jdk, classes, path, store_type, server.secure_url()) == "refused"


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
