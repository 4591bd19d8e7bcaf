"""Servers that lie, stall, drip, loop and cut off: every failure has its reason, and nothing hangs."""

import email.utils
import pathlib
import re
import socket
import threading
import time

import pytest
from tests.unit.download.support import (
    FAST,
    LOCAL_CIDRS,
    content,
    fetch,
    fetch_error,
    leftovers,
    make_request,
    sha256,
)
from tests.world.http import HostileServer, Received, answer, redirect, reset
from tests.world.waiting import closely

from directdownload.download.sources import http
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy, Timeouts

DATA = content(300_000)
#: as long as Linux tries to connect
KERNEL_GIVES_UP_SECONDS = 120


def test_a_body_that_is_shorter_than_promised_is_truncated(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA, length=len(DATA) + 1)) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.reason is Reason.TRUNCATED
    assert not error.permanent
    assert "uid-1" not in leftovers(pool)


def test_a_body_that_is_longer_than_promised_is_read_to_the_promise(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA, length=1000)) as server:
        assert fetch(make_request(pool, server.url())).size_bytes == 1000
    assert (pool / "uid-1").read_bytes() == DATA[:1000]


def test_a_body_without_length_ends_with_the_connection(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + DATA)) as server:
        assert fetch(make_request(pool, server.url())).digest == sha256(DATA)


def chunked(data: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    chunks = (data[at : at + 70_000] for at in range(0, len(data), 70_000))
    body = b"".join(b"%x;name=value\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"000;x\r\n\r\n"])
def test_chunks_are_put_together(pool: pathlib.Path, end: bytes) -> None:
    with HostileServer(lambda c, r, n: c.sendall(chunked(DATA, end))) as server:
        assert fetch(make_request(pool, server.url())).digest == sha256(DATA)


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"0\r\n",
        b"-5\r\nhello",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"1" * 5000,
        b"0\r\n" + b"A: b\r\n" * 1000,
        b"fffffffffffffff\r\nhello",
    ],
)
def test_malformed_or_cut_chunks_are_truncated(pool: pathlib.Path, end: bytes) -> None:
    with HostileServer(lambda c, r, n: c.sendall(chunked(DATA, end))) as server:
        assert fetch_error(make_request(pool, server.url())).reason is Reason.TRUNCATED


def test_a_body_of_unknown_size_stops_at_the_largest_size_allowed(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: c.sendall(chunked(DATA * 20))) as server:
        error = fetch_error(make_request(pool, server.url(), limits=Limits(max_size_bytes=100_000)))
    assert error.reason is Reason.TOO_LARGE
    assert leftovers(pool) == set()


@pytest.mark.parametrize("value", ["-1", "ten", "10\r\nContent-Length: 11", "10, 11", "10,", "1_0"])
def test_lengths_that_are_none_are_refused(pool: pathlib.Path, value: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n".encode()
    with HostileServer(lambda c, r, n: c.sendall(head + DATA)) as server:
        assert fetch_error(make_request(pool, server.url())).reason is Reason.SOURCE_UNAVAILABLE


@pytest.mark.parametrize("value", ["{0}, {0}", "{0}\r\nContent-Length: {0}", "{0}\r\nContent-Length: 0{0},{0}"])
def test_a_length_that_is_repeated_counts_once(pool: pathlib.Path, value: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {value.format(len(DATA))}\r\n\r\n".encode()
    with HostileServer(lambda c, r, n: c.sendall(head + DATA + b"more")) as server:
        assert fetch(make_request(pool, server.url())).digest == sha256(DATA)


def test_several_lengths_are_told(pool: pathlib.Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 11, 10\r\nContent-Length: 11\r\n\r\n"
    with HostileServer(lambda c, r, n: c.sendall(head + DATA)) as server:
        message = fetch_error(make_request(pool, server.url())).message
    assert message.endswith("the server names several lengths: 10, 11; expected one")


@pytest.mark.parametrize("after", [0, 100_000])
def test_silence_is_a_socket_timeout(pool: pathlib.Path, after: int) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        if after:
            answer(connection, DATA[:after], length=len(DATA))
        # for as long as the client asks: nothing but its own timeout ends this
        server.ended.wait()

    with HostileServer(respond) as server:
        error = fetch_error(make_request(pool, server.url(), timeouts=FAST))
    assert error.reason is Reason.SOCKET_TIMEOUT
    assert "0.6 s" in error.message


def test_a_slow_drip_is_no_silence_but_ends_with_the_deadline(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", length=len(DATA))
        while not server.ended.wait(0.05):
            connection.sendall(b"x")

    with HostileServer(respond) as server:
        limits = Limits(deadline_seconds=1.2, progress_interval_seconds=0.1)
        error = fetch_error(make_request(pool, server.url(), timeouts=FAST, limits=limits))
    assert error.reason is Reason.DEADLINE_EXCEEDED


def test_a_head_that_drips_for_ever_is_cut_off(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_HEAD_SECONDS", 0.5)

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not server.ended.wait(0.05):
            connection.sendall(b"x")

    with HostileServer(respond) as server:
        error = fetch_error(make_request(pool, server.url(), timeouts=FAST))
    assert error.reason is Reason.SOURCE_UNAVAILABLE
    assert "do not end" in error.message


@pytest.mark.parametrize(
    ("flood", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, Reason.SOURCE_REFUSED),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, Reason.SOURCE_REFUSED),
        (b"A" * 1_000_000, Reason.SOURCE_REFUSED),
    ],
)
def test_endless_heads_are_cut_off_for_good(pool: pathlib.Path, flood: bytes, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: c.sendall(flood)) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.reason is reason
    assert error.permanent


@pytest.mark.parametrize(
    ("garbage", "words", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP", Reason.SOURCE_UNREACHABLE),
        (b"\x16\x03\x01" * 100, "use an https URL", Reason.SOURCE_UNREACHABLE),
        (b"HTTP/1.1 abc OK\r\n\r\n", "not HTTP", Reason.SOURCE_UNAVAILABLE),
        # may have been cut
        (b"HTT", "not HTTP", Reason.SOURCE_UNAVAILABLE),
        (b"HTTP/1.1 2", "not HTTP", Reason.SOURCE_UNAVAILABLE),
    ],
)
def test_what_is_not_http_is_told(pool: pathlib.Path, garbage: bytes, words: str, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: c.sendall(garbage)) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.reason is reason
    assert words in error.message


@pytest.mark.parametrize("polite", [True, False])
def test_a_connection_that_ends_without_an_answer(pool: pathlib.Path, polite: bool) -> None:
    with HostileServer(lambda c, r, n: None if polite else reset(c)) as server:
        assert fetch_error(make_request(pool, server.url())).reason is Reason.SOURCE_UNREACHABLE


def test_a_reset_in_the_body_is_truncated(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, DATA[:50_000], length=len(DATA))
        closely("a journal", lambda: (pool / ".directdownload/uid-1.kvm-1.journal").exists())
        reset(connection)

    with HostileServer(respond) as server:
        assert fetch_error(make_request(pool, server.url())).reason is Reason.TRUNCATED


def test_a_server_that_accepts_nobody_is_a_connect_timeout(pool: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        started = time.monotonic()
        error = fetch_error(make_request(pool, f"http://127.0.0.1:{listener.getsockname()[1]}/x", timeouts=FAST))
        assert time.monotonic() - started < KERNEL_GIVES_UP_SECONDS
        for filler in fillers:
            filler.close()
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert "timeouts.connect" in error.message


def test_a_tls_handshake_that_never_ends_is_a_connect_timeout(pool: pathlib.Path) -> None:
    def respond(_connection: socket.socket, _request: Received, _number: int) -> None:
        server.ended.wait()

    with HostileServer(respond, reads_request=False) as server:
        error = fetch_error(make_request(pool, server.url().replace("http:", "https:"), timeouts=FAST))
    assert error.reason is Reason.CONNECT_TIMEOUT


def test_plain_http_where_tls_is_expected(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: c.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"), reads_request=False) as server:
        error = fetch_error(make_request(pool, server.url().replace("http:", "https:"), timeouts=FAST))
    assert error.reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.SOURCE_REFUSED),
        (401, Reason.SOURCE_REFUSED),
        (403, Reason.SOURCE_REFUSED),
        (404, Reason.SOURCE_REFUSED),
        (410, Reason.SOURCE_REFUSED),
        (408, Reason.SOURCE_UNAVAILABLE),
        (425, Reason.SOURCE_UNAVAILABLE),
        (429, Reason.SOURCE_UNAVAILABLE),
        (500, Reason.SOURCE_UNAVAILABLE),
        (503, Reason.SOURCE_UNAVAILABLE),
        (204, Reason.SOURCE_UNAVAILABLE),
        (205, Reason.SOURCE_UNAVAILABLE),
        (206, Reason.SOURCE_UNAVAILABLE),
        (304, Reason.SOURCE_UNAVAILABLE),
    ],
)
def test_status_codes(pool: pathlib.Path, status: int, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"", status=f"{status} Status")) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.reason is reason
    assert str(status) in error.message


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("17", 17, 17),
        ("999999999", 86_400, 86_400),
        (600, 500, 600),
        (-600, 0, 0),
    ],
)
def test_retry_after_is_passed_on(pool: pathlib.Path, value: str | int, low: float, high: float) -> None:
    if isinstance(value, int):
        value = email.utils.formatdate(time.time() + value, usegmt=True)

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status="503 Busy", headers=f"Retry-After: {value}\r\n")

    with HostileServer(respond) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.retry_after_seconds is not None
    assert low <= error.retry_after_seconds <= high
    if not high:
        assert error.message.endswith("503 Service Unavailable")
        return
    said = re.search(r"503 Service Unavailable and asks for (\d+) s of pause$", error.message)
    assert said is not None
    assert low <= int(said[1]) <= high


@pytest.mark.parametrize("value", ["soon", "-1", "1e9", "1" * 500])
def test_a_retry_after_that_is_none_is_ignored(pool: pathlib.Path, value: str) -> None:
    headers = f"Retry-After: {value}\r\n"
    with HostileServer(lambda c, r, n: answer(c, b"", status="503 Busy", headers=headers)) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.retry_after_seconds is None
    assert error.message.endswith("503 Service Unavailable")


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_redirects_are_followed(pool: pathlib.Path, status: str) -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        if request.target == "/file":
            redirect(connection, "../other/target?x=1#part", status)
        else:
            answer(connection, DATA)

    with HostileServer(respond) as server:
        result = fetch(make_request(pool, server.url()))
        assert [request.target for request in server.received] == ["/file", "/other/target?x=1"]
    assert result.digest == sha256(DATA)
    assert result.source == server.url()


@pytest.mark.parametrize(
    ("to", "target"),
    [
        (b" /a b/caf\xc3\xa9.img?x=\xc3\xa9 y\t", "/a%20b/caf%C3%A9.img?x=%C3%A9%20y"),
        (b"\\a\\..\\b\tc", "/bc"),
        (b"http:/a", "/a"),
        (b"a|b", "/a%7Cb"),
    ],
)
def test_redirects_are_read_as_browsers_do(pool: pathlib.Path, to: bytes, target: str) -> None:
    def respond(connection: socket.socket, request: Received, number: int) -> None:
        if number:
            answer(connection, DATA)
        else:
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation:" + to + b"\r\n\r\n")

    with HostileServer(respond) as server:
        assert fetch(make_request(pool, server.url())).digest == sha256(DATA)
        assert [request.target for request in server.received] == ["/file", target]


def test_redirect_loops_end(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: redirect(c, "/file")) as server:
        error = fetch_error(
            make_request(pool, server.url(), policy=SourcePolicy(max_redirects=3, allowed_cidrs=LOCAL_CIDRS))
        )
        assert len(server.received) == 4
    assert error.reason is Reason.TOO_MANY_REDIRECTS


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://example.org/x", Reason.UNSUPPORTED_PROTOCOL),
        ("file:///etc/passwd", Reason.INVALID_URL),
        ("http://user:secret@example.org/", Reason.INVALID_URL),
        ("http://not-allowed.example.org/", Reason.URL_NOT_ALLOWED),
        ("nfs://127.0.0.1/x", Reason.UNSUPPORTED_PROTOCOL),
        ("nfs://127.0.0.1/export/x", Reason.UNSUPPORTED_PROTOCOL),
        ("http://[::1", Reason.INVALID_URL),
    ],
)
def test_redirects_are_checked(pool: pathlib.Path, location: str, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: redirect(c, location)) as server:
        exports = ("127.0.0.1:/export",)
        policy = SourcePolicy(allowed_hosts=("127.0.0.1",), allowed_cidrs=LOCAL_CIDRS, nfs_exports=exports)
        error = fetch_error(make_request(pool, server.url(), policy=policy))
        assert len(server.received) == 1
    assert error.reason is reason
    assert error.message.startswith(f"{server.url()} redirects to ")
    assert "secret" not in error.message.lower()
    assert "for example" not in error.message


def test_a_redirect_to_nowhere(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"", status="302 Found")) as server:
        assert fetch_error(make_request(pool, server.url())).reason is Reason.SOURCE_UNAVAILABLE


def test_headers_stay_within_the_origin(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as other:

        def respond(connection: socket.socket, request: Received, _number: int) -> None:
            redirect(connection, "/second" if request.target == "/file" else other.url("third"))

        with HostileServer(respond) as server:
            fetch(make_request(pool, server.url(), headers=(("X-Token", "secret"),)))
            assert [request.headers.get("x-token") for request in server.received] == ["secret", "secret"]
        assert [request.headers.get("x-token") for request in other.received] == [None]
        assert "authorization" not in other.received[0].headers
        assert other.received[0].headers["accept-encoding"] == "identity"


def test_stopping_waits_for_no_byte(pool: pathlib.Path) -> None:
    stop = threading.Event()

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, DATA[:100_000], length=len(DATA))
        closely("a journal", lambda: (pool / ".directdownload/uid-1.kvm-1.journal").exists())
        stop.set()
        server.ended.wait()

    # nothing else would end it in time
    timeouts = Timeouts(connect_seconds=10, socket_seconds=3600)
    with HostileServer(respond) as server:
        error = fetch_error(make_request(pool, server.url(), timeouts=timeouts), stop)
    assert error.reason is Reason.INTERRUPTED
