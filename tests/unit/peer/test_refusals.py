"""What gets no byte from a server: every certificate, grant and request that is not in order."""

import datetime
import logging
import pathlib
import ssl
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.peer.conftest import Pair
from tests.world import waiting
from tests.world.certificates import Certificate, common_name
from tests.world.peerclient import Answer, Wire, state
from tests.world.peers import Fleet, PeerHost, SharedFile

from directdownload.peer import heads, protocol, statements
from directdownload.peer.protocol import ProtocolError
from directdownload.peer.statements import Grant, Issuer
from directdownload.resources import peers

DAY = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def whole(pair: Pair) -> None:
    """Each refusal is of a piece that is there."""
    pair.seed.write(pair.file, range(pair.file.pieces))


def context(pair: Pair, certificate: Certificate | None, directory: pathlib.Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=pair.fleet.authority.pem.decode())
    if certificate is not None:
        both = directory / "both.pem"
        both.write_bytes(certificate.pem + certificate.key_pem)
        made.load_cert_chain(both)
    return made


def shut_out(pair: Pair, how: ssl.SSLContext) -> bool:
    """Whether the server ends a connection before it answers anything."""
    try:
        with Wire(pair.seed, pair.reader, how) as wire:
            wire.piece(pair.file, 0, pair.grant)
    except (OSError, ConnectionError):
        # with TLS 1.3 a client learns it at its first read
        return True
    return False


def test_a_client_without_a_certificate_gets_nothing(pair: Pair, tmp_path: pathlib.Path) -> None:
    assert shut_out(pair, context(pair, None, tmp_path))
    assert not shut_out(pair, pair.reader.client_context())


@pytest.mark.parametrize("wrong", ["another authority", "expired", "of a server", "self-signed"])
def test_a_certificate_that_is_not_in_order_gets_nothing(pair: Pair, tmp_path: pathlib.Path, wrong: str) -> None:
    name = pair.reader.name
    now = datetime.datetime.now(datetime.UTC)
    certificate = {
        "another authority": lambda: Fleet(tmp_path, name="other").certificate(name, "client"),
        "expired": lambda: pair.fleet.certificate(name, "client", ends=now - DAY / 24),
        "of a server": lambda: pair.fleet.certificate(name, "server"),
        "self-signed": lambda: Certificate(peers.spiffe("peers.test", name), strict=True, subject=common_name(name)),
    }[wrong]()
    assert shut_out(pair, context(pair, certificate, tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("spiffe://other.test/host/kvm-2.example.org",),
        ("spiffe://peers.test/host/",),
        ("spiffe://peers.test/host/a/b",),
        ("spiffe://peers.test/host/kvm-2.example.org\n",),
        ("spiffe://peers.test/controller/kvm-2.example.org",),
        ("spiffe://peers.test/host/kvm-2.example.org", "spiffe://peers.test/host/kvm-3"),
        ("kvm-2.example.org",),
    ],
)
def test_a_certificate_that_names_no_host_is_refused(
    pair: Pair, tmp_path: pathlib.Path, names: tuple[str, ...]
) -> None:
    certificate = Certificate(*names, issuer=pair.fleet.authority, strict=True, subject=common_name("any"))
    with Wire(pair.seed, pair.reader, context(pair, certificate, tmp_path)) as wire:
        assert wire.piece(pair.file, 0, pair.grant).status == 401
        assert wire.ends()


def test_tls_1_2_is_not_spoken(pair: Pair) -> None:
    old = pair.reader.client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shut_out(pair, old)


def test_a_session_is_not_resumed(pair: Pair) -> None:
    """A ticket would stand for the certificate."""
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.piece(pair.file, 0, pair.grant).status == 200
        session = wire.socket.session
        assert session is not None
        assert not session.has_ticket


def test_a_certificate_that_expires_ends_what_it_began(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.2)
    with Wire(pair.seed, pair.reader) as wire, state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        assert wire.piece(pair.file, 1, pair.grant).status == 200
        pair.seed.clock = lambda: time.time() + 2 * DAY.total_seconds()
        refused = wire.piece(pair.file, 2, pair.fleet.grant(pair.file, pair.reader, seconds=9 * DAY.total_seconds()))
        assert refused.status == 401
        assert "date" in refused.fields
        assert wire.ends()
        list(stream.lines())


def test_a_grant_that_expires_ends_the_streams_that_it_began(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.2)
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        pair.seed.clock = lambda: time.time() + 3600 + statements.LEEWAY_SECONDS + 60
        list(stream.lines())


def test_a_grant_that_expires_between_two_requests_is_refused(pair: Pair) -> None:
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.piece(pair.file, 0, pair.grant).status == 200
        pair.seed.clock = lambda: time.time() + 3600 + statements.LEEWAY_SECONDS + 60
        assert wire.piece(pair.file, 1, pair.grant).status == 401


def forged(grant: str) -> str:
    payload, _, signature = grant.partition(".")
    return f"{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


@pytest.mark.parametrize("wrong", ["none", "expired", "forged", "of another controller", "a warrant", "another scheme"])
def test_a_grant_that_is_not_valid_is_refused(pair: Pair, wrong: str) -> None:
    fleet, file, reader = pair.fleet, pair.file, pair.reader
    grants: dict[str, Callable[[], str]] = {
        "none": lambda: "",
        "expired": lambda: fleet.grant(file, reader, seconds=-statements.LEEWAY_SECONDS - 60),
        "forged": lambda: forged(pair.grant),
        "of another controller": lambda: Fleet(fleet.directory).grant(file, reader),
        "a warrant": lambda: pair.warrant,
        "another scheme": lambda: "",
    }
    grant = grants[wrong]()
    with Wire(pair.seed, reader) as wire:
        if wrong == "another scheme":
            wire.send(
                f"GET /v1/{file.content}/pieces/0 HTTP/1.1\r\nAuthorization: Bearer {pair.grant}\r\n\r\n".encode()
            )
            answer = wire.answer()
        else:
            answer = wire.piece(file, 0, grant)
        assert (answer.status, answer.body) == (401, b"")
        assert "date" in answer.fields
        assert wire.ends()


@pytest.mark.parametrize("of", ["another host", "another zone", "another content"])
def test_a_grant_of_another_is_refused(pair: Pair, of: str) -> None:
    fleet, file, reader = pair.fleet, pair.file, pair.reader
    grant = {
        "another host": lambda: fleet.grant(file, "kvm-3"),
        "another zone": lambda: fleet.grant(file, reader, zone="zone-2"),
        "another content": lambda: fleet.grant(SharedFile.of(1), reader),
    }[of]()
    with Wire(pair.seed, reader) as wire:
        for path in (f"/v1/{file.content}/pieces/0", f"/v1/{file.content}/state"):
            assert wire.get(path, grant).status == 403
        # the connection is that of a known host still
        assert wire.piece(file, 0, pair.grant).status == 200


def test_a_template_with_the_same_bytes_gives_nothing(pair: Pair) -> None:
    """Whoever knows a checksum may not read another tenant's image."""
    twin = SharedFile(pair.file.data, "7f3b9d52-3f8e-4c93-9d3e-000000000000")
    assert twin.checksum == pair.file.checksum
    with Wire(pair.seed, pair.reader) as wire:
        grant = pair.fleet.grant(twin, pair.reader)
        assert wire.piece(twin, 0, grant).status == 404
        assert wire.piece(pair.file, 0, grant).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/",
        "/v2/{id}/pieces/0",
        "/v1/{id}",
        "/v1/{id}/pieces/",
        "/v1/{id}/pieces/-1",
        "/v1/{id}/pieces/00",
        "/v1/{id}/pieces/4",
        "/v1/{id}/pieces/32767",
        "/v1/{id}/pieces/32768",
        "/v1/{id}/pieces/99999999999",
        "/v1/{id}/pieces/0?x",
        "/v1/{id}/pieces/0/../1",
        "/v1/{id}/state/",
        "/v1/../../etc/passwd",
        "//v1/{id}/state",
    ],
)
def test_what_is_not_there_is_not_found(pair: Pair, path: str) -> None:
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.get(path.format(id=pair.file.content), pair.grant).status == 404
        assert wire.piece(pair.file, 0, pair.grant).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: a\r\nauthorization: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % number for number in range(65)) + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 9000 + b"\r\n\r\n",
        b"x" * 30000,
        b"\xff" * 100 + b"\r\n\r\n",
    ],
)
def test_a_malformed_request_is_refused_and_ends_the_connection(pair: Pair, head: bytes) -> None:
    with Wire(pair.seed, pair.reader) as wire:
        wire.send(head)
        assert wire.answer().status == 400
        assert wire.ends()


@given(
    st.binary(max_size=300) | st.from_regex(r"GET /v1/[0-9a-f]{2}.{0,20} HTTP/1\.1(\r\n[a-zA-Z-]{1,9}: ?.{0,9}){0,3}")
)
def test_any_head_is_taken_or_refused_in_one_way(drawn: bytes | str) -> None:
    head = drawn if isinstance(drawn, bytes) else drawn.encode("utf-8", "surrogatepass")
    try:
        request = heads.parse(head)
    except ProtocolError:
        return
    assert request.path.startswith("/")
    assert request.path.isprintable()
    assert request.path.isascii()


def test_a_long_field_takes_no_long_time() -> None:
    """Time that grows with the square of a head would be a way to stop the server."""
    hostile = b"GET / HTTP/1.1\r\nA:" + b" \t" * 4000 + b"\x01"
    began = time.process_time()
    with pytest.raises(ProtocolError):
        heads.parse(hostile)
    assert time.process_time() - began < 1


_TOKENS = ("GET ", "/v1/", "{id}", "/pieces/", "/state", "0", " HTTP/1.1", "\r\n", "\r\n\r\n", ": ", "Authorization")


def test_whatever_a_client_says_it_gets_one_of_a_few_answers(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A fuzzer with the real server: nothing but these answers, and no exception on the other side."""
    texts = st.lists(st.sampled_from((*_TOKENS, "DirectDownload {grant}")) | st.text(max_size=5), max_size=25)

    @given(texts.map("".join) | st.binary(max_size=400).map(lambda data: data.decode("latin-1")))
    def fuzz(text: str) -> None:
        said = text.replace("{id}", pair.file.content).replace("{grant}", pair.grant)
        with Wire(pair.seed, pair.reader) as wire:
            wire.send(said.encode("utf-8", "surrogatepass") + heads.END)
            answer = _first(wire)
            assert answer in (200, 400, 401, 403, 404, 503)

    with caplog.at_level(logging.ERROR):
        fuzz()
    assert not caplog.records
    waiting.until("the connections to end", lambda: _connections(pair.seed) == 0)


def _first(wire: Wire) -> int:
    status, _ = wire.head()
    return status


def _connections(host: PeerHost) -> int:
    assert host.server is not None
    return host.server.connections.clients + host.server.connections.strangers


def test_an_answer_says_nothing_of_what_was_asked(pair: Pair) -> None:
    with Wire(pair.seed, pair.reader) as wire:
        answer: Answer = wire.get("/<script>", pair.grant)
        assert answer.body == b""
        assert "script" not in str(answer.fields)


def test_a_grant_signed_in_the_context_of_another_statement_is_none(pair: Pair) -> None:
    """The issuer signs warrants with the same key: no warrant passes for a grant, whatever it says."""
    issuer: Issuer = pair.fleet.issuer
    told = Grant(pair.file.content, pair.fleet.zone, pair.reader.name, 2**33)
    token = issuer._token(b"directdownload peers 1 warrant\0", told.told())
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.piece(pair.file, 0, token).status == 401


def test_requests_may_follow_one_another_without_waiting(pair: Pair) -> None:
    with Wire(pair.seed, pair.reader) as wire:
        for index in range(3):
            wire.ask(f"/v1/{pair.file.content}/pieces/{index}", pair.grant)
        assert [wire.answer().body for _ in range(3)] == [pair.file.piece(index) for index in range(3)]


def test_a_client_that_says_close_is_closed(pair: Pair) -> None:
    authorization = f"{protocol.AUTHORIZATION}: {protocol.SCHEME} {pair.grant}"
    with Wire(pair.seed, pair.reader) as wire:
        path = f"/v1/{pair.file.content}/pieces/0"
        wire.send(f"GET {path} HTTP/1.1\r\n{authorization}\r\nConnection: Close\r\n\r\n".encode())
        assert wire.answer().status == 200
        assert wire.ends()
