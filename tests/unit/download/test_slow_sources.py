"""Sources that trickle, over the network, with a window of a second in place of two minutes."""

import pathlib
import signal
import socket
import threading
import time
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.download.support import content, fetch, fetch_error, leftovers, make_request, sha256
from tests.unit.download.test_connections import hurry
from tests.world.http import HostileServer, RangeServer, Received, answer

from directdownload.cli.fetch import fetch as fetch_command
from directdownload.download.errors import SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources import http
from directdownload.download.transfer import assembly, pace
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
DATA = content(6 * MIB + 321)
WINDOW_SECONDS = 1.0
MINIMUM = 64 * 1024


@pytest.fixture(autouse=True)
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WINDOW_SECONDS", WINDOW_SECONDS)


def limits(minimum: int = MINIMUM, **fields: Any) -> Limits:
    return Limits(progress_interval_seconds=0.05, minimum_bytes_per_second=minimum, **fields)


class Trickle(RangeServer):
    """`first` bytes at once, then one now and then."""

    def __init__(self, data: bytes, first: int = 0, *, chunked: bool = False) -> None:
        self.first = first
        self.chunked = chunked
        super().__init__(data)

    def serve(self, connection: socket.socket, request: Received, number: int) -> None:
        if self.chunked:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self.ended.wait(0.1):
                connection.sendall(b"1\r\nx\r\n")
            return
        answer(connection, self.data[: self.first], length=len(self.data), headers=f"ETag: {self.etag}\r\n")
        position = self.first
        while not self.ended.wait(0.1):
            connection.sendall(self.data[position : position + 1])
            position += 1


def test_a_trickle_ends_the_attempt_and_the_next_one_goes_on_from_there(pool: pathlib.Path) -> None:
    first = 3 * MIB
    with Trickle(DATA, first) as slow:
        url = slow.url()
        began = time.monotonic()
        error = fetch_error(make_request(pool, url, limits=limits()))
        assert time.monotonic() - began >= WINDOW_SECONDS
    assert error.reason is Reason.SOURCE_TOO_SLOW
    assert not error.permanent
    for word in (url, f"{WINDOW_SECONDS:g} s", str(MINIMUM), "downloads.minimumRate"):
        assert word in error.message
    assert "uid-1" not in leftovers(pool)
    with RangeServer(DATA) as quick:
        result = fetch(make_request(pool, quick.url(), checksum=sha256(DATA), limits=limits()))
        assert quick.sent_bytes < len(DATA) - first + MIB
    assert result.resumed_from >= first
    assert (pool / "uid-1").read_bytes() == DATA


def test_without_a_minimum_a_trickle_goes_on(pool: pathlib.Path) -> None:
    with Trickle(DATA) as slow:
        request = make_request(pool, slow.url(), limits=limits(0, deadline_seconds=3 * WINDOW_SECONDS))
        assert fetch_error(request).reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize("checksum", ["", sha256(DATA)], ids=["one after the other", "together"])
@pytest.mark.parametrize("chunked", [False, True], ids=["size", "no size"])
def test_another_source_takes_the_place_of_one_that_trickles(pool: pathlib.Path, checksum: str, chunked: bool) -> None:
    with Trickle(DATA, chunked=chunked) as slow, RangeServer(DATA) as mirror:
        request = make_request(pool, slow.url(), mirrors=(mirror.url(),), checksum=checksum, limits=limits())
        assert fetch(request).source == mirror.url()
    assert (pool / "uid-1").read_bytes() == DATA


def test_one_that_trickles_ends_nothing_while_others_deliver(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    with Trickle(DATA) as slow, RangeServer(DATA, rate=2 * MIB) as mirror:
        request = make_request(pool, slow.url(), mirrors=(mirror.url(),), checksum=sha256(DATA), limits=limits())
        assert fetch(request).done
    assert (pool / "uid-1").read_bytes() == DATA


def test_all_connections_count_together(pool: pathlib.Path) -> None:
    """Each alone is below the minimum."""
    with RangeServer(DATA, rate=700_000) as server:
        request = make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(MIB, connections=4))
        assert fetch(request).done


def test_where_all_trickle_the_attempt_ends(pool: pathlib.Path) -> None:
    with Trickle(DATA) as one, Trickle(DATA) as two:
        request = make_request(pool, one.url(), mirrors=(two.url(),), checksum=sha256(DATA), limits=limits())
        error = fetch_error(request)
    assert error.reason is Reason.SOURCE_TOO_SLOW
    assert "other sources: SourceTooSlow" in error.message


# --- never for our own doing


def test_a_slow_disk_makes_no_source_slow(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = assembly.Assembly.put

    def slowly(*arguments: Any) -> None:
        time.sleep(WINDOW_SECONDS)
        put(*arguments)

    monkeypatch.setattr(assembly.Assembly, "put", slowly)
    with RangeServer(DATA) as server:
        assert fetch(make_request(pool, server.url(), limits=limits(4 * MIB))).done


def test_hashing_that_lags_behind_makes_no_source_slow(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_buffer = assembly.Assembly.free_buffer

    def slowly(*arguments: Any) -> memoryview:
        time.sleep(WINDOW_SECONDS)
        return free_buffer(*arguments)

    monkeypatch.setattr(assembly.Assembly, "free_buffer", slowly)
    with RangeServer(DATA) as server:
        assert fetch(make_request(pool, server.url(), limits=limits(4 * MIB))).done


def test_a_connection_that_waits_for_hashing_makes_no_other_slow(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_buffer, held_seconds = assembly.Assembly.free_buffer, 3 * WINDOW_SECONDS

    def held(whole: assembly.Assembly, guard: Guard) -> memoryview:
        if threading.current_thread().name == "connection-2":
            guard.wait(held_seconds)
        return free_buffer(whole, guard)

    monkeypatch.setattr(assembly.Assembly, "free_buffer", held)
    # 64 KiB at once, and then nothing for a minute
    with RangeServer(DATA, rate=1000) as server:
        began = time.monotonic()
        request = make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(MIB, connections=2))
        assert fetch_error(request).reason is Reason.SOURCE_TOO_SLOW
        assert time.monotonic() - began >= held_seconds


def test_a_bandwidth_limit_below_the_minimum_makes_no_source_slow(pool: pathlib.Path) -> None:
    with RangeServer(DATA) as server:
        own = limits(100 * MIB, bandwidth_bytes_per_second=2 * MIB)
        began = time.monotonic()
        assert fetch(make_request(pool, server.url(), limits=own)).done
        assert time.monotonic() - began > 2 * WINDOW_SECONDS


def test_connecting_makes_no_source_slow(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = http.HTTPSource.open

    def slowly(*arguments: Any) -> http.HTTPStream:
        time.sleep(3 * WINDOW_SECONDS)
        return opening(*arguments)

    monkeypatch.setattr(http.HTTPSource, "open", slowly)
    with RangeServer(DATA) as server:
        assert fetch(make_request(pool, server.url(), limits=limits(4 * MIB))).done


def test_a_source_that_fails_says_so_and_not_that_it_was_slow(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA[:1000], length=len(DATA))) as server:
        error = fetch_error(make_request(pool, server.url(), limits=limits()))
    assert isinstance(error, SourceError)
    assert error.reason is Reason.TRUNCATED


def test_the_command_line_has_the_option(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the handlers of the tests' own process stay
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with Trickle(DATA) as slow:
        arguments = [slow.url(), "-o", str(pool / "out"), "--allow-cidr", "127.0.0.0/8", "--quiet", "--json"]
        ended = CliRunner().invoke(fetch_command, [*arguments, "--minimum-rate", "64Ki"])
    assert ended.exit_code == 1
    assert '"reason":"SourceTooSlow"' in ended.stdout
    assert "(--minimum-rate)" in ended.stdout
