"""Connections and uploads are bounded, whatever clients do, and none of them stops the others."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from tests.unit.peer.conftest import Pair
from tests.world import waiting
from tests.world.peerclient import SECONDS, Wire, state
from tests.world.peers import MIB, PeerHost, SharedFile

from directdownload.peer import clients, session, uploads
from directdownload.peer.clients import Client, Connections
from directdownload.peer.uploads import FullError, Uploads


@pytest.fixture(autouse=True)
def whole(pair: Pair) -> None:
    pair.seed.write(pair.file, range(pair.file.pieces))


def stranger(host: PeerHost) -> socket.socket:
    return socket.create_connection((host.address, host.port), timeout=SECONDS)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side closes, sooner or later."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionError:
        pass
    return True


def strangers(host: PeerHost) -> int:
    assert host.server is not None
    return host.server.connections.strangers


def known(host: PeerHost) -> int:
    assert host.server is not None
    return host.server.connections.clients


def test_of_too_many_strangers_the_oldest_goes_and_a_client_comes_in(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # none goes because its time is over
    monkeypatch.setattr(clients, "STRANGER_SECONDS", 10 * SECONDS)
    with contextlib.ExitStack() as stack:
        flood = [stack.enter_context(stranger(pair.seed)) for _ in range(clients.STRANGERS_LIMIT)]
        waiting.closely("the strangers to be counted", lambda: strangers(pair.seed) == clients.STRANGERS_LIMIT)
        with Wire(pair.seed, pair.reader) as wire:
            assert is_closed(flood[0])
            assert wire.piece(pair.file, 0, pair.grant).status == 200


def test_clients_are_served_in_a_flood_of_strangers(pair: Pair) -> None:
    stop = threading.Event()

    def flood() -> None:
        opened: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(OSError):
                opened.append(stranger(pair.seed))
            if len(opened) > 100:
                opened.pop(0).close()
            time.sleep(0.001)
        for each in opened:
            each.close()

    with Wire(pair.seed, pair.reader) as wire:
        assert wire.piece(pair.file, 0, pair.grant).status == 200
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            waiting.until("the flood", lambda: strangers(pair.seed) == clients.STRANGERS_LIMIT)
            for index in range(1, pair.file.pieces):
                assert wire.piece(pair.file, index, pair.grant).status == 200
                assert strangers(pair.seed) <= clients.STRANGERS_LIMIT
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("said", [b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_stranger_has_a_short_time(pair: Pair, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(clients, "STRANGER_SECONDS", 0.2)
    with stranger(pair.seed) as connection:
        connection.sendall(said)
        assert is_closed(connection)
    waiting.until("it to be forgotten", lambda: strangers(pair.seed) == 0)


def test_a_head_that_comes_byte_by_byte_ends(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HEAD_SECONDS", 0.5)
    end = time.monotonic() + SECONDS
    with Wire(pair.seed, pair.reader) as wire, contextlib.suppress(ConnectionError, ssl.SSLError):
        while time.monotonic() < end:
            wire.send(b"G")
            time.sleep(0.05)
    waiting.until("it to be forgotten", lambda: known(pair.seed) == 0)
    assert time.monotonic() < end


def test_a_connection_that_rests_ends(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_SECONDS", 0.2)
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.piece(pair.file, 0, pair.grant).status == 200
        assert wire.ends()


def test_a_host_has_eight_connections(pair: Pair) -> None:
    other = pair.fleet.host("kvm-3")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(pair.seed, pair.reader)) for _ in range(clients.CLIENTS_PER_HOST)]
        for wire in wires:
            assert wire.get("/", pair.grant).status == 404
        with pytest.raises((ConnectionError, ssl.SSLError)), Wire(pair.seed, pair.reader) as ninth:
            ninth.get("/", pair.grant)
        with Wire(pair.seed, other) as wire:
            assert wire.get("/", pair.grant).status == 404
        wires[0].socket.close()
        waiting.until("room", lambda: known(pair.seed) < clients.CLIENTS_PER_HOST)
        with Wire(pair.seed, pair.reader) as wire:
            assert wire.get("/", pair.grant).status == 404


def test_all_clients_together_are_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENTS_LIMIT", 1)
    with Wire(pair.seed, pair.reader) as wire:
        assert wire.get("/", pair.grant).status == 404
        with pytest.raises((ConnectionError, ssl.SSLError)), Wire(pair.seed, pair.fleet.host("kvm-3")) as other:
            other.get("/", pair.grant)


@contextlib.contextmanager
def slow_readers(pair: Pair, file: SharedFile, hosts: list[PeerHost]) -> Iterator[list[Wire]]:
    """Each has begun an upload that it does not read."""
    with contextlib.ExitStack() as stack:
        wires = []
        for index, host in enumerate(hosts):
            wire = stack.enter_context(Wire(pair.seed, host, window_bytes=2**16))
            wire.ask(f"/v1/{file.content}/pieces/{index}", pair.fleet.grant(file, host))
            assert wire.head()[0] == 200
            wires.append(wire)
        yield wires


@pytest.fixture(params=[8, 1], ids=["no buffer of a socket takes a piece", "a buffer takes a piece"])
def large(pair: Pair, request: pytest.FixtureRequest) -> SharedFile:
    """Whatever the kernel takes at once, an upload runs until its client has read the piece."""
    file = SharedFile.of(5 * request.param * MIB, piece_bytes=request.param * MIB)
    pair.seed.begin(file, warrant=pair.fleet.warrant(file, pair.seed))
    pair.seed.write(file, range(file.pieces))
    return file


def test_a_content_has_three_uploads_and_others_have_theirs(pair: Pair, large: SharedFile) -> None:
    hosts = [pair.fleet.host(f"kvm-1{number}") for number in range(uploads.PER_CONTENT)]
    with slow_readers(pair, large, hosts), Wire(pair.seed, pair.reader) as wire:
        refused = wire.piece(large, 4, pair.fleet.grant(large, pair.reader))
        assert refused.status == 503
        assert 0 < float(refused.fields["piece-retry-after"]) <= 10
        assert wire.piece(pair.file, 0, pair.grant).status == 200
    grant = pair.fleet.grant(large, pair.reader)
    with Wire(pair.seed, pair.reader) as wire:
        waiting.until("room", lambda: wire.piece(large, 4, grant).status == 200)


def test_a_host_has_two_uploads_of_a_content(pair: Pair, large: SharedFile) -> None:
    with slow_readers(pair, large, [pair.reader] * uploads.PER_HOST), Wire(pair.seed, pair.reader) as wire:
        assert wire.piece(large, 4, pair.fleet.grant(large, pair.reader)).status == 503
        other = pair.fleet.host("kvm-3")
        with Wire(pair.seed, other) as third:
            assert third.piece(large, 4, pair.fleet.grant(large, other)).status == 200


def test_a_piece_that_is_not_read_is_given_up(pair: Pair, large: SharedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(uploads, "LEAST_BYTES_PER_SECOND", 2**40)
    monkeypatch.setattr(uploads, "_MEDIANS", 0)
    with slow_readers(pair, large, [pair.reader]) as (wire,):
        waiting.until("the server to close", lambda: known(pair.seed) == 0)
        # what the kernel has taken comes, and no more
        with pytest.raises(ConnectionError):
            wire.read(large.piece_bytes + 1)


def test_a_state_that_is_not_read_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr("directdownload.peer.protocol.HEARTBEAT_SECONDS", 0.0)
    with state(pair.seed, pair.reader, pair.file, pair.grant):
        waiting.until("the server to close", lambda: known(pair.seed) == 0)


def test_a_state_whose_client_goes_takes_no_place_for_long(pair: Pair) -> None:
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream:
        stream.line()
        assert known(pair.seed) == 1
    waiting.until("its place to be free", lambda: known(pair.seed) == 0)


class _Connection:
    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_connections_are_counted_as_they_come_and_go() -> None:
    connections = Connections()
    made = [_Connection() for _ in range(clients.STRANGERS_LIMIT + 1)]
    assert all(connections.come(each) for each in made[:-1])
    assert not connections.come(made[-1])
    assert [each.dropped for each in made] == [True] + [False] * clients.STRANGERS_LIMIT
    # it was dropped in the moment that it shook hands
    assert not connections.known(made[0], "kvm-1")
    for each in made[1 : clients.CLIENTS_PER_HOST + 1]:
        assert connections.known(each, "kvm-1")
    assert not connections.known(made[20], "kvm-1")
    assert connections.known(made[20], "kvm-2")
    for each in made:
        connections.leave(each)
        connections.leave(each)
    assert (connections.strangers, connections.clients) == (0, 0)
    assert connections.come(made[0])
    assert connections.known(made[0], "kvm-1")


def test_a_host_is_that_of_the_one_name_in_its_certificate() -> None:
    told = {"subjectAltName": (("URI", "spiffe://peers.test/host/kvm-1"),), "notAfter": "Nov 30 00:00:00 2026 GMT"}
    assert Client.of(told, "peers.test") == Client("kvm-1", 1795996800.0)
    assert Client.of(told, "peers.tes") is None
    assert Client.of({**told, "notAfter": "soon"}, "peers.test") is None
    assert Client.of({}, "peers.test") is None
    assert Client.of(None, "peers.test") is None


def test_an_upload_takes_eight_times_the_median_ten_seconds_or_a_second_for_each_mib() -> None:
    """The first piece of 64 MiB takes 16 s where three share 100 Mbit/s."""
    running = Uploads()
    assert running.limit("a", MIB) == 10
    for seconds in (2.0, 2.0, 30.0):
        running.took("a", seconds)
    assert running.limit("a", MIB) == 16
    assert running.limit("b", MIB) == 10
    assert running.limit("b", 64 * MIB) == 64


def test_all_uploads_together_are_bounded() -> None:
    running = Uploads()
    with contextlib.ExitStack() as stack:
        for number in range(uploads.UPLOADS_LIMIT):
            stack.enter_context(running.one(f"content-{number}", "kvm-1"))
        with pytest.raises(FullError), running.one("another", "kvm-1"):
            pass
    assert running.running == 0
    with running.one("another", "kvm-1"):
        assert running.running == 1


def test_a_server_may_be_ended_twice(pair: Pair) -> None:
    """As by two signals: the second one comes when `serve` may have returned."""
    server = pair.seed.server
    assert server is not None
    server.close()
    waiting.until("it to end", lambda: server.port == 0)
    for _ in range(2):
        server.close()
