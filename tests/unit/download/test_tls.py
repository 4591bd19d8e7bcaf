"""Which servers are trusted over TLS, by a scripted server with certificates of every kind."""

import pathlib
import socket

import pytest
from tests.unit.download.sourcing import read, read_error
from tests.unit.download.support import FAST, content
from tests.world.certificates import Certificate, bundle
from tests.world.http import HostileServer, Received, answer, tls_server
from tests.world.waiting import closely

from directdownload.download.errors import DownloadError
from directdownload.resources.reasons import Reason

DATA = content(300_000)


def respond(connection: socket.socket, _request: Received, _number: int) -> None:
    answer(connection, DATA)


def refusal(
    tmp_path: pathlib.Path, presented: Certificate, trusted: list[Certificate], host: str = "127.0.0.1"
) -> DownloadError:
    with tls_server(presented, tmp_path, respond) as server:
        error = read_error(server.secure_url(host), trust_bundle=bundle(tmp_path, trusted))
    assert error.reason is Reason.TLS_VERIFICATION_FAILED
    assert not error.permanent
    return error


def accepted(
    tmp_path: pathlib.Path, presented: Certificate, trusted: list[Certificate], host: str = "127.0.0.1"
) -> HostileServer:
    with tls_server(presented, tmp_path, respond) as server:
        assert read(server.secure_url(host), trust_bundle=bundle(tmp_path, trusted)) == DATA
    return server


def test_an_authority_of_the_bundle_is_trusted_for_the_hosts_it_names(tmp_path: pathlib.Path) -> None:
    authority = Certificate(authority=True)
    accepted(tmp_path, Certificate("127.0.0.1", issuer=authority), [authority])
    accepted(tmp_path, Certificate("localhost", issuer=authority), [authority], "localhost")


def test_an_unknown_authority(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1", issuer=Certificate(authority=True))
    assert "unable to get local issuer" in refusal(tmp_path, leaf, []).message
    assert "unable to get local issuer" in refusal(tmp_path, leaf, [Certificate(authority=True)]).message


@pytest.mark.parametrize(("named", "host"), [("other.example.org", "127.0.0.1"), ("127.0.0.1", "localhost")])
def test_a_wrong_name(tmp_path: pathlib.Path, named: str, host: str) -> None:
    authority = Certificate(authority=True)
    leaf = Certificate(named, issuer=authority)
    assert host in refusal(tmp_path, leaf, [authority], host).message
    # a certificate beside it in the bundle gives it no other name
    assert host in refusal(tmp_path, leaf, [authority, Certificate(named)], host).message


@pytest.mark.parametrize("days", [(-3, -1), (1, 3)])
@pytest.mark.parametrize("named", ["127.0.0.1", "other.example.org"])
def test_an_expired_certificate_and_one_of_the_future(
    tmp_path: pathlib.Path, days: tuple[int, int], named: str
) -> None:
    authority = Certificate(authority=True)
    signed = Certificate(named, issuer=authority, days=days)
    alone = Certificate(named, days=days)
    expected = "expired" if days[1] < 0 else "not yet valid"
    if named == "127.0.0.1":
        assert expected in refusal(tmp_path, signed, [authority]).message
        assert expected in refusal(tmp_path, alone, [alone]).message
    # uploaded, but no longer good: neither as itself nor by its authority
    refusal(tmp_path, signed, [authority, signed])
    refusal(tmp_path, signed, [signed])
    refusal(tmp_path, alone, [alone])


def test_a_self_signed_leaf_is_its_own_anchor(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1")
    refusal(tmp_path, leaf, [])
    accepted(tmp_path, leaf, [leaf])


def test_a_leaf_that_may_sign_nothing_is_an_anchor_for_itself(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1", issuer=Certificate(authority=True), authority=False)
    refusal(tmp_path, leaf, [])
    accepted(tmp_path, leaf, [leaf])


def test_a_leaf_of_the_bundle_vouches_for_nobody_else(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1", authority=False)
    refusal(tmp_path, Certificate("127.0.0.1", issuer=leaf), [leaf])


@pytest.mark.parametrize("self_signed", [True, False])
@pytest.mark.parametrize("names", [("other.example.org",), ()])
def test_exactly_an_uploaded_leaf_is_accepted_whatever_its_name(
    tmp_path: pathlib.Path, self_signed: bool, names: tuple[str, ...]
) -> None:
    leaf = Certificate(*names, issuer=None if self_signed else Certificate(authority=True), authority=False)
    for host in ("127.0.0.1", "localhost"):
        accepted(tmp_path, leaf, [Certificate("unrelated"), leaf], host)


def test_a_server_that_changes_its_certificate_between_the_handshakes_is_refused(tmp_path: pathlib.Path) -> None:
    authority = Certificate(authority=True)
    uploaded, other = (Certificate("other.example.org", issuer=authority) for _ in range(2))
    contexts = [uploaded.server_context(tmp_path), other.server_context(tmp_path)]

    def serve(connection: socket.socket, _request: Received, number: int) -> None:
        with contexts[number].wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)

    with HostileServer(serve, reads_request=False) as server:
        error = read_error(server.secure_url(), trust_bundle=bundle(tmp_path, [authority, uploaded]))
    assert error.reason is Reason.TLS_VERIFICATION_FAILED
    assert "127.0.0.1" in error.message
    assert len(server.received) == 2


def test_a_bundle_is_read_again_when_it_changes(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1")
    path = tmp_path / "bundle.pem"
    with tls_server(leaf, tmp_path, respond) as server:
        for trusted in ([], [Certificate("a")], [leaf], []):
            # as the agent does it: another file under the same name
            new = tmp_path / "new.pem"
            new.write_bytes(b"".join(certificate.pem for certificate in trusted))
            new.replace(path)
            if leaf in trusted:
                assert read(server.secure_url(), trust_bundle=str(path)) == DATA
            else:
                assert read_error(server.secure_url(), trust_bundle=str(path)).reason is Reason.TLS_VERIFICATION_FAILED


@pytest.mark.parametrize(
    "content",
    [
        b"not a certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n" + b"A" * 70_000 + b"\n-----END CERTIFICATE-----\n",
        b"\0" * (17 * 1024 * 1024),
    ],
)
def test_bundles_that_are_none(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "bundle.pem"
    path.write_bytes(content)
    with tls_server(Certificate("127.0.0.1"), tmp_path, respond) as server:
        error = read_error(server.secure_url(), trust_bundle=str(path))
    assert error.reason is Reason.TLS_VERIFICATION_FAILED
    assert str(path) in error.message


def test_text_between_the_certificates_of_a_bundle_is_skipped(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1")
    path = tmp_path / "bundle.pem"
    path.write_bytes("Zürich\n".encode() + leaf.pem + b"# end\n")
    with tls_server(leaf, tmp_path, respond) as server:
        assert read(server.secure_url(), trust_bundle=str(path)) == DATA


@pytest.mark.parametrize("after", [b"", b"\x16\x03\x03\x40\x00"])
def test_a_handshake_that_stalls_is_a_connect_timeout(after: bytes) -> None:
    def stall(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(after)
        server.ended.wait(10)

    with HostileServer(stall, reads_request=False) as server:
        error = read_error(server.secure_url(), timeouts=FAST)
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert "handshake" in error.message


def test_a_body_without_length_needs_a_proper_end_of_tls(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1")
    trusted = bundle(tmp_path, [leaf])
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with tls_server(leaf, tmp_path, lambda c, r, n: c.sendall(head + DATA)) as server:
        assert read(server.secure_url(), trust_bundle=trusted) == DATA

    def cut(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(head + DATA)
        connection.shutdown(socket.SHUT_RDWR)

    with tls_server(leaf, tmp_path, cut) as server:
        assert read_error(server.secure_url(), trust_bundle=trusted).reason is Reason.TRUNCATED


def test_damaged_records_are_told(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1")

    def damage(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        # past the TLS layer: application data that nobody encrypted
        raw = socket.socket(fileno=connection.detach())
        raw.sendall(b"\x17\x03\x03\x00\x40" + b"x" * 64)
        closely("the client has what it needs", server.ended.is_set)
        raw.close()

    with tls_server(leaf, tmp_path, damage) as server:
        error = read_error(server.secure_url(), trust_bundle=bundle(tmp_path, [leaf]))
        server.ended.set()
    assert error.reason is Reason.TLS_VERIFICATION_FAILED
    assert "damaged" in error.message
