"""Several connections, to one source or to many: who fetches what, and that the bytes come together."""

import pathlib
import socket
import threading
from typing import Any

import pytest
from tests.unit.download.support import FAST, content, fetch, fetch_error, leftovers, make_request, sha256
from tests.world import waiting
from tests.world.http import HostileServer, RangeServer, Received
from tests.world.origin import Origin

from directdownload.download.sources import http
from directdownload.download.transfer import schedule
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Timeouts

MIB = 1024 * 1024
DATA = content(40 * MIB + 12_345)


def limits(connections: int = 0) -> Limits:
    return Limits(progress_interval_seconds=0.05, connections=connections)


def test_a_fast_source_is_asked_once(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has sent all before a further connection would be tried, however slow the machine is."""
    monkeypatch.setattr(schedule.Ramp, "_STEP_SECONDS", waiting.DEADLINE_SECONDS)
    with RangeServer(DATA) as server:
        assert fetch(make_request(pool, server.url(), checksum=sha256(DATA))).done
        assert [request.headers.get("range") for request in server.received] == [None]


@pytest.mark.parametrize("connections", [2, 4, 8])
def test_a_fixed_number_of_connections_to_one_source(
    pool: pathlib.Path, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = most_open(monkeypatch)
    # No claim may end before the last connection has its head: that is sent when the bodies of the others begin.
    with RangeServer(DATA, gathers=connections, rate=8 * MIB) as server:
        result = fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(connections)))
        assert most == [connections]
        assert server.sent_bytes < len(DATA) * 1.5, "hardly anything is sent twice"
    assert result.digest == sha256(DATA)
    assert (pool / "uid-1").read_bytes() == DATA
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}


def test_several_connections_without_anything_to_compare_with_need_the_same_version(pool: pathlib.Path) -> None:
    with RangeServer(DATA, rate=8 * MIB) as server:
        assert fetch(make_request(pool, server.url(), limits=limits(4))).digest == sha256(DATA)
        later = [request.headers for request in server.received if "range" in request.headers]
        assert later
        assert {headers.get("if-range") for headers in later} == {'"one"'}


def test_a_source_without_ranges_gets_one_connection(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA)

    with HostileServer(respond) as server:
        assert fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(4))).done
        assert len(server.received) == 1


def test_a_server_that_takes_no_second_connection_is_asked_no_more(pool: pathlib.Path) -> None:
    class Jealous(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if self.open_now:
                connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                return
            super().serve(connection, request, number)

    with Jealous(DATA, rate=16 * MIB) as server:
        assert fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(4))).done
        assert len(server.received) <= 8
    assert (pool / "uid-1").read_bytes() == DATA


def test_mirrors_share_the_work_where_a_digest_tells(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    with RangeServer(DATA, rate=8 * MIB) as one, RangeServer(DATA, rate=8 * MIB, etag='"two"') as two:
        request = make_request(pool, one.url(), mirrors=(two.url(),), checksum=sha256(DATA))
        assert fetch(request).done
        assert two.sent_bytes > len(DATA) // 5
        assert one.sent_bytes > len(DATA) // 5
    assert (pool / "uid-1").read_bytes() == DATA


def test_without_a_digest_the_bytes_of_two_sources_never_mix(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    with RangeServer(DATA, rate=16 * MIB) as one, RangeServer(DATA[::-1], etag='"two"') as two:
        assert fetch(make_request(pool, one.url(), mirrors=(two.url(),))).digest == sha256(DATA)
        assert not two.received


def test_a_source_that_dies_is_replaced_and_what_it_sent_is_kept(pool: pathlib.Path) -> None:
    half = len(DATA) // 2

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:half])

    with HostileServer(respond) as dying, RangeServer(DATA) as mirror:
        result = fetch(make_request(pool, dying.url(), mirrors=(mirror.url(),), checksum=sha256(DATA)))
        assert result.done
        assert mirror.sent_bytes <= len(DATA) - half
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_source_that_stands_still_is_replaced_while_the_transfer_goes_on(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    never = Timeouts(connect_seconds=10, socket_seconds=3600)
    with RangeServer(DATA, stall_after=3 * MIB) as stalled, RangeServer(DATA) as mirror:
        # one connection to each
        known: dict[str, Any] = {"checksum": sha256(DATA), "limits": limits(1), "timeouts": never}
        assert fetch(make_request(pool, stalled.url(), mirrors=(mirror.url(),), **known)).done
        assert stalled.sent_bytes == 3 * MIB
    assert (pool / "uid-1").read_bytes() == DATA


def test_one_slow_source_does_not_hold_the_rest(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    with RangeServer(DATA, rate=256 * 1024) as slow, RangeServer(DATA, rate=20 * MIB) as fast:
        assert fetch(make_request(pool, slow.url(), mirrors=(fast.url(),), checksum=sha256(DATA))).done
        assert slow.sent_bytes < 6 * MIB
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_mirror_that_serves_other_bytes_is_found_out(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of the mixture is wrong: then each alone, from zero."""
    hurry(monkeypatch)
    # All of them: which of the two brings which piece is a matter of time.
    spoiled = content(len(DATA), seed=9)
    with RangeServer(spoiled, rate=20 * MIB) as bad, RangeServer(DATA, rate=20 * MIB) as good:
        result = fetch(make_request(pool, bad.url(), mirrors=(good.url(),), checksum=sha256(DATA)))
        assert result.done
        assert result.source == good.url()
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_mirror_of_another_size_is_left_alone(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    with RangeServer(DATA, rate=16 * MIB) as one, RangeServer(DATA[:-1], etag='"two"') as two:
        assert fetch(make_request(pool, one.url(), mirrors=(two.url(),), checksum=sha256(DATA))).done
        assert len(two.received) <= 2, "for a range, then perhaps for the whole; never again"
    assert (pool / "uid-1").read_bytes() == DATA


def test_all_sources_fail(pool: pathlib.Path) -> None:
    with RangeServer(DATA, stall_after=MIB) as one, RangeServer(DATA, stall_after=2 * MIB) as two:
        request = make_request(pool, one.url(), mirrors=(two.url(),), checksum=sha256(DATA), timeouts=FAST)
        assert fetch_error(request).reason is Reason.SOCKET_TIMEOUT
    with Origin(pool.parent) as origin:
        (pool.parent / "image").write_bytes(DATA)
        result = fetch(make_request(pool, origin.url("image"), checksum=sha256(DATA)))
    assert result.resumed_from >= MIB


def most_open(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number: how many streams of our side were open at once."""
    most, now, lock = [0], [0], threading.Lock()
    opening, closing = http.HTTPSource.open, http.HTTPStream.close

    def count(change: int) -> None:
        with lock:
            now[0] += change
            most[0] = max(most[0], now[0])

    def opened(*arguments: Any) -> http.HTTPStream:
        stream = opening(*arguments)
        count(1)
        return stream

    def closed(stream: http.HTTPStream) -> None:
        count(-1)
        closing(stream)

    monkeypatch.setattr(http.HTTPSource, "open", opened)
    monkeypatch.setattr(http.HTTPStream, "close", closed)
    return most


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures and decides within tenths of a second, so that a test need not move gigabytes."""
    monkeypatch.setattr(schedule, "_RATE_SECONDS", 0.3)
    monkeypatch.setattr(schedule, "_CLAIM_SECONDS", 0.5)
    monkeypatch.setattr(schedule, "_CLAIM_BYTES", 2 * MIB)
    monkeypatch.setattr(schedule, "_DIVIDE_SECONDS", 0.1)
    monkeypatch.setattr(schedule.Ramp, "_STEP_SECONDS", 0.3)
    monkeypatch.setattr(schedule.Ramp, "_WORTH_SECONDS", 0.5)
