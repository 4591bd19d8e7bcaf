"""Certificates, keys and settings are taken anew while the server runs, and half-written ones never."""

import pathlib
import ssl
import threading
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.peer.conftest import Pair
from tests.world import waiting
from tests.world.certificates import Certificate
from tests.world.peerclient import Wire, state
from tests.world.peers import DOMAIN, Fleet

from directdownload.peer import credentials, table
from directdownload.peer.config import Config, ConfigError
from directdownload.peer.credentials import Credentials, CredentialsError, Loader
from directdownload.peer.server import Server
from directdownload.peer.statements import Issuer
from directdownload.resources import peers


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_REFRESH_SECONDS", 0.0)


def shown(pair: Pair, authority: Certificate) -> bytes | None:
    """The server's certificate; None if `authority` has not signed it, or it does not believe the reader's."""
    try:
        with Wire(pair.seed, pair.reader, pair.reader.client_context(authority=authority.pem)) as wire:
            wire.get("/")
            return wire.socket.getpeercert(binary_form=True)
    except (ssl.SSLError, ConnectionError):
        return None


def test_a_new_certificate_is_shown_without_a_restart_and_streams_go_on(pair: Pair) -> None:
    authority = pair.fleet.authority
    before = shown(pair, authority)
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        pair.seed.issue()
        waiting.until("the new certificate", lambda: shown(pair, authority) not in (None, before))
        pair.seed.write(pair.file, [1])
        assert stream.line() == {"add": [1]}


def test_a_new_authority_takes_the_place_of_the_old_one(pair: Pair) -> None:
    old, new = pair.fleet.authority, Certificate("new", authority=True, strict=True)
    # both are believed for a while
    both = old.pem + new.pem
    (pair.seed.server_directory / peers.AUTHORITIES).write_bytes(both)
    pair.fleet.authority = new
    pair.reader.issue()
    waiting.until("the new client", lambda: shown(pair, old))
    pair.seed.issue()
    waiting.until("the new authority", lambda: shown(pair, new))
    assert shown(pair, old) is None


def test_a_certificate_without_its_key_is_not_taken(pair: Pair) -> None:
    authority = pair.fleet.authority
    before = shown(pair, authority)
    other = pair.fleet.certificate(pair.seed.name, "server")
    (pair.seed.server_directory / peers.CERTIFICATE).write_bytes(other.pem)
    assert shown(pair, authority) == before
    (pair.seed.server_directory / peers.KEY).write_bytes(other.key_pem)
    waiting.until("the pair", lambda: shown(pair, authority) == other.der)


def test_a_new_key_of_the_controller_counts_and_the_old_one_no_more(pair: Pair) -> None:
    pair.seed.write(pair.file, range(4))
    old_grant = pair.grant
    old = Wire(pair.seed, pair.reader)
    assert old.piece(pair.file, 0, old_grant).status == 200
    pair.fleet.issuer = Issuer(Ed25519PrivateKey.generate())
    pair.seed.configure()

    def asked(grant: str) -> int:
        with Wire(pair.seed, pair.reader) as wire:
            return wire.piece(pair.file, 1, grant).status

    grant = pair.fleet.grant(pair.file, pair.reader)
    # the grant is good, but no warrant of the new key is in the log
    waiting.until("the new key", lambda: asked(grant) == 404)
    assert asked(old_grant) == 401
    # a connection on which it was good before
    with old:
        assert old.piece(pair.file, 1, old_grant).status == 401


def test_another_port_is_listened_at(pair: Pair) -> None:
    assert pair.seed.server is not None
    pair.seed.port += 1
    pair.seed.configure()
    waiting.until("the port", lambda: pair.seed.server is not None and pair.seed.server.port == pair.seed.port)
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.get("/", pair.grant).status == 404


def test_a_server_waits_for_its_files(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path)
    host, reader = fleet.host("kvm-1"), fleet.host("kvm-2")
    config = host.server_directory / peers.CONFIG
    text = config.read_bytes()
    config.unlink()
    server = Server(str(host.server_directory), _nothing, addresses=(host.address,))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        waiting.until("a problem", lambda: "config.json" in server.problem)
        assert server.port == 0
        config.write_bytes(text)
        waiting.until("it to listen", lambda: server.port)
        with Wire(host, reader) as wire:
            assert wire.get("/").status == 404
        assert server.problem == ""
        assert not server.stuck
    finally:
        server.close()
        thread.join()


def test_a_port_that_is_taken_is_a_problem_until_it_is_free(pair: Pair) -> None:
    server = Server(str(pair.seed.server_directory), _nothing, addresses=(pair.seed.address,))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        waiting.until("a problem", lambda: f"port {pair.seed.port} cannot be had" in server.problem)
        assert server.port == 0
    finally:
        server.close()
        thread.join()


def _nothing(content: str) -> table.Opened | None:
    return None


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt", "signing.key", "config.json"])
@pytest.mark.parametrize(
    "data", [None, b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_missing_or_broken_is_named(tmp_path: pathlib.Path, name: str, data: bytes | None) -> None:
    host = Fleet(tmp_path).host("kvm-1")
    path = host.server_directory / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(CredentialsError, match=name):
        Credentials.load(str(host.server_directory))
    loader = Loader(str(host.server_directory))
    assert not loader.refresh()
    assert name in loader.problem
    host.issue()
    host.configure()
    assert loader.refresh()
    assert loader.problem == ""
    path.write_bytes(data or b"")
    assert not loader.refresh()
    assert loader.credentials is not None


def test_a_signing_key_of_another_kind_is_not_taken(tmp_path: pathlib.Path) -> None:
    host = Fleet(tmp_path).host("kvm-1")
    (host.server_directory / peers.SIGNING_KEY).write_bytes(Certificate("any").key_pem)
    with pytest.raises(CredentialsError, match="expected an Ed25519 key"):
        Credentials.load(str(host.server_directory))


_CONFIG = Config("kvm-1", "zone-1", DOMAIN, (b"k" * 32,), ("/pool",), 1234)


def test_a_config_is_read_as_it_was_written() -> None:
    assert Config.parse(_CONFIG.encoded()) == _CONFIG


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: b"[]",
        lambda text: b"[" * 10**5,
        lambda text: text.replace(b'"version": 1', b'"version": 2'),
        lambda text: text.replace(b"1234", b"65536"),
        lambda text: text.replace(b"1234", b"true"),
        lambda text: text.replace(b"1234", b'"1234"'),
        lambda text: text.replace(b'"kvm-1"', b'""'),
        lambda text: text.replace(b'"kvm-1"', b'"../x"'),
        lambda text: text.replace(b'"zone-1"', b"null"),
        lambda text: text.replace(b'"/pool"', b'"pool"'),
        lambda text: text.replace(b'"/pool"', b'"/pool/../etc"'),
        lambda text: text.replace(b'"/pool"', b"7"),
        lambda text: text.replace(b'"/pool"', b", ".join([b'"/pool"'] * 300)),
        lambda text: text.replace(b'"a2tr', b'"*'),
    ],
)
def test_a_config_that_is_none_is_refused(change: Callable[[bytes], bytes]) -> None:
    text = change(_CONFIG.encoded())
    assert text != _CONFIG.encoded()
    with pytest.raises(ConfigError):
        Config.parse(text)


def test_a_config_that_is_too_large_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b" " * 2**20 + _CONFIG.encoded())
    with pytest.raises(ConfigError):
        Config.read(str(path))
