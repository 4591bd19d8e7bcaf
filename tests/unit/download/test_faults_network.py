"""Connections that are cut anywhere, drip, lie about lengths or serve other bytes: alone, several, and with mirrors."""

import pathlib
import socket
import threading

import pytest
from tests.unit.download.support import PATIENT, content, fetch, fetch_error, leftovers, make_request, sha256
from tests.unit.download.test_connections import hurry, limits
from tests.world.http import CutServer, HostileServer, RangeServer, Received, answer, reset

from directdownload.download import engine
from directdownload.download.transfer.journal import read_journal
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Timeouts

MIB = 1024 * 1024
DATA = content(10 * MIB + 4321)
JOURNAL = ".directdownload/uid-1.kvm-1.journal"
HEAD = f'HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\nETag: "one"\r\nAccept-Ranges: bytes\r\n\r\n'.encode()
#: in the head, between head and body, in each tenth of the body, before the last byte
CUTS = [0, 1, len(HEAD) // 2, len(HEAD) - 1, len(HEAD)]
CUTS += [len(HEAD) + len(DATA) * tenth // 10 + 1 for tenth in range(10)] + [len(HEAD) + len(DATA) - 1]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("connections", [1, 4])
def test_a_reset_at_any_byte_is_told_and_continued(pool: pathlib.Path, cut: int, connections: int) -> None:
    """With several connections the others may have begun by then: they do all of it."""
    with CutServer(DATA, cut) as server:
        request = make_request(pool, server.url(), limits=limits(connections))
        first = engine.outcome(lambda: fetch(request), str)
        if connections == 1 or cut < len(HEAD) or not first.done:
            expected = Reason.SOURCE_UNREACHABLE if cut < len(HEAD) else Reason.TRUNCATED
            assert (first.reason, first.permanent) == (expected, False)
            assert "uid-1" not in leftovers(pool)
            kept = read_journal(str(pool / JOURNAL))
            resumed = kept.bytes_on_disk if kept is not None else 0
            asked = len(server.received)
            assert fetch(request).resumed_from == resumed <= max(0, cut - len(HEAD))
            if resumed:
                assert server.received[asked].headers["range"].startswith(f"bytes={resumed}-")
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("connections", [0, 4])
def test_a_server_that_resets_each_connection_is_left_for_the_mirror(
    pool: pathlib.Path, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)

    class Cutting(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            head, first, _ = self.head(request)
            connection.sendall(head + DATA[first : first + MIB])
            reset(connection)

    with Cutting(DATA) as cutting, RangeServer(DATA, rate=8 * MIB) as mirror:
        request = make_request(
            pool, cutting.url(), mirrors=(mirror.url(),), checksum=sha256(DATA), limits=limits(connections)
        )
        assert fetch(request).digest == sha256(DATA)
        assert len(cutting.received) <= 12, "it is not asked for ever"
    assert (pool / "uid-1").read_bytes() == DATA


def test_an_only_source_that_resets_each_connection_comes_to_an_end_and_each_attempt_goes_on(
    pool: pathlib.Path,
) -> None:
    with CutServer(DATA, len(HEAD) + MIB, times=1000) as server:
        request = make_request(pool, server.url(), limits=limits(4))
        assert fetch_error(request).reason is Reason.TRUNCATED
        assert len(server.received) <= 12
        kept = read_journal(str(pool / JOURNAL))
        assert kept is not None
        server.times = 0
        assert fetch(request).resumed_from == kept.bytes_on_disk > 0
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_corrupt_first_mirror_of_which_a_part_is_there(pool: pathlib.Path) -> None:
    bad = DATA[:MIB] + b"corrupt" + DATA[MIB + 7 :]
    with RangeServer(bad, stall_after=3 * MIB) as corrupt:
        first = make_request(
            pool, corrupt.url(), checksum=sha256(DATA), timeouts=Timeouts(connect_seconds=1, socket_seconds=0.3)
        )
        assert fetch_error(first).reason is Reason.SOCKET_TIMEOUT
        assert read_journal(str(pool / JOURNAL)) is not None
        with RangeServer(DATA) as good:
            request = make_request(
                pool, corrupt.url(), mirrors=(good.url(),), checksum=sha256(DATA), timeouts=first.timeouts
            )
            result = fetch(request)
            assert (result.source, result.resumed_from) == (good.url(), 0)
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("connections", [0, 4])
@pytest.mark.parametrize("more", [1, -1])
def test_a_wrong_length_is_noticed(pool: pathlib.Path, connections: int, more: int) -> None:
    """Too long: truncated. Too short: another file, and a digest says so."""
    data = DATA[:100_000]

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, data, length=len(data) + more, headers="Accept-Ranges: bytes\r\n")

    with HostileServer(respond) as server:
        request = make_request(pool, server.url(), checksum=sha256(data), limits=limits(connections))
        error = fetch_error(request)
    assert error.reason is (Reason.TRUNCATED if more > 0 else Reason.CHECKSUM_MISMATCH)
    assert "uid-1" not in leftovers(pool)


@pytest.mark.parametrize("connections", [0, 3])
def test_a_slow_drip_ends_with_the_deadline(pool: pathlib.Path, connections: int) -> None:
    with RangeServer(DATA, rate=100_000) as server:
        request = make_request(
            pool,
            server.url(),
            limits=Limits(progress_interval_seconds=0.05, deadline_seconds=1.2, connections=connections),
            timeouts=PATIENT,
        )
        # it would drip for a minute and a half
        error = fetch_error(request)
        assert (error.reason, error.permanent) == (Reason.DEADLINE_EXCEEDED, False)
        kept = read_journal(str(pool / JOURNAL))
        assert kept is not None
        assert kept.bytes_on_disk > 0, "what dripped is kept"


def test_a_drip_at_the_end_is_left_to_the_faster_source(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never stands still, and what it holds is less than is worth a connection: it would take a minute."""
    hurry(monkeypatch)
    data = DATA[: 4 * MIB]
    with RangeServer(data, rate=40_000) as dripping, RangeServer(data, rate=8 * MIB) as fast:
        request = make_request(
            pool,
            dripping.url(),
            mirrors=(fast.url(),),
            checksum=sha256(data),
            limits=Limits(progress_interval_seconds=0.05, connections=1, deadline_seconds=15),
        )
        assert fetch(request).done
    assert (pool / "uid-1").read_bytes() == data


class OneAtATime(RangeServer):
    """As a server with one thread: a second connection is accepted, and waits in silence for the end of the first."""

    def __init__(self, data: bytes, rate: int) -> None:
        self._one = threading.Lock()
        super().__init__(data, rate=rate)

    def serve(self, connection: socket.socket, request: Received, number: int) -> None:
        with self._one:
            super().serve(connection, request, number)


@pytest.mark.parametrize("connections", [2, 4])
def test_a_server_that_serves_one_at_a_time_is_not_given_up(
    pool: pathlib.Path, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in silence is taken over by the connection that is served, to the same source."""
    hurry(monkeypatch)
    with OneAtATime(DATA, rate=4 * MIB) as server:
        assert fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(connections))).done
    assert (pool / "uid-1").read_bytes() == DATA


def test_without_version_and_digest_there_is_one_connection(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would tell if the file changed between two of them."""
    hurry(monkeypatch)

    class Nameless(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number:
                self.data = DATA[::-1]
            super().serve(connection, request, number)

    with Nameless(DATA, rate=8 * MIB, etag="nameless") as server:
        assert fetch(make_request(pool, server.url(), limits=limits(4))).digest == sha256(DATA)
        assert len(server.received) == 1


def test_a_part_that_lacks_its_beginning_is_only_continued_with_the_same_version(pool: pathlib.Path) -> None:
    """Where the beginning is missing, what is asked for is the whole file: no range, and so no condition."""
    other = content(len(DATA), seed=9)

    class Slow(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number == 0:
                # so much that others begin, and then nothing
                connection.sendall(HEAD)
                self.ended.wait(0.8)
                reset(connection)
                return
            if number > 2:
                reset(connection)
                return
            super().serve(connection, request, number)

    with Slow(DATA, rate=MIB, stall_after=MIB) as server:
        request = make_request(
            pool, server.url(), limits=limits(3), timeouts=Timeouts(connect_seconds=1, socket_seconds=1)
        )
        fetch_error(request)
        port = server.port
    kept = read_journal(str(pool / JOURNAL))
    assert kept is not None
    assert kept.ranges
    assert kept.ranges[0][0] > 0
    with RangeServer(other, etag='"two"') as changed:
        # the same source, at another port
        text = (pool / JOURNAL).read_text()
        digest = make_request(pool, changed.url()).source(changed.url(), first=True).url.digest
        old = make_request(pool, f"http://127.0.0.1:{port}/file").source(f"http://127.0.0.1:{port}/file", first=True)
        (pool / JOURNAL).write_text(text.replace(old.url.digest, digest))
        result = fetch(make_request(pool, changed.url()))
    assert (result.digest, result.resumed_from) == (sha256(other), 0)
    assert (pool / "uid-1").read_bytes() == other


@pytest.mark.parametrize("connections", [0, 4])
@pytest.mark.parametrize("checksum", ["", sha256(b"")])
def test_a_file_without_a_byte(pool: pathlib.Path, connections: int, checksum: str) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"")) as server:
        result = fetch(make_request(pool, server.url(), checksum=checksum, limits=limits(connections)))
    assert (result.size_bytes, result.digest) == (0, sha256(b""))
    assert (pool / "uid-1").read_bytes() == b""


def test_many_sources_that_fail_hold_no_memory(pool: pathlib.Path) -> None:
    """Without a digest each is tried by itself; what each has used goes before the next."""

    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        answer(connection, DATA, length=len(DATA) + 1)

    with HostileServer(respond) as server:
        mirrors = tuple(server.url(f"mirror-{number}") for number in range(20))
        before = resident_bytes()
        assert fetch_error(make_request(pool, server.url(), mirrors=mirrors)).reason is Reason.TRUNCATED
        assert len(server.received) == 21
        assert resident_bytes() - before < 100 * MIB


def resident_bytes() -> int:
    fields = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
