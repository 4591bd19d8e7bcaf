"""What a further connection meets never costs the download: as servers, balancers and redirectors answer it."""

import itertools
import os
import pathlib
import socket
import threading
from collections.abc import Callable

import pytest
from tests.unit.download.support import (
    content,
    fetch,
    fetch_error,
    leftovers,
    make_request,
    sha256,
)
from tests.unit.download.test_connections import MIB, hurry, limits
from tests.world.http import HostileServer, RangeServer, Received, answer
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.download.transfer import schedule
from directdownload.download.transfer.ranges import Ranges
from directdownload.resources.reasons import Reason

DATA = content(24 * MIB + 321)
PAGE = b"<html>too many connections</html>"
Serve = Callable[[socket.socket, Received, int], None]


class Balancer(RangeServer):
    """Backends of the same bytes that name them differently: each request goes to the next one."""

    def __init__(
        self, *, rate: int, etags: tuple[str, ...], cut: int | None = None, until_further: bool = False
    ) -> None:
        """`until_further`: `rate` holds until a further connection has come."""
        self._until_further = until_further
        self._etags = etags
        self._cut = cut
        super().__init__(DATA, rate=rate)

    def serve(self, connection: socket.socket, request: Received, number: int) -> None:
        etag = self._etags[number % len(self._etags)]
        if number and self._until_further:
            self.rate = 0
        first, last = 0, len(DATA) - 1
        status = "200 OK"
        if "range" in request.headers and request.headers.get("if-range", etag) == etag:
            low, _, high = request.headers["range"].removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high or last), last)
            status = f"206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len(DATA)}"
        body = DATA[first : last + 1]
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n\r\n"
        connection.sendall(head.encode())
        for position in range(0, len(body[: self._cut]), 65536):
            connection.sendall(body[: self._cut][position : position + 65536])
            self.ended.wait(65536 / self.rate if self.rate else 0)


class Choosy(RangeServer):
    """Serves one connection at a time; `refuse` answers the others.

    Slowly until it has refused one: however busy the machine is, a further connection is tried before the end.
    """

    def __init__(self, refuse: Serve, *, rate: int = 4 * MIB) -> None:
        self._refuse = refuse
        self.refused = 0
        super().__init__(DATA, rate=rate)

    def serve(self, connection: socket.socket, request: Received, number: int) -> None:
        if self.open_now:
            self.refused += 1
            self.rate = 0
            self._refuse(connection, request, number)
            return
        super().serve(connection, request, number)


def status(text: str, *lines: str) -> Serve:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status=text, headers="".join(f"{line}\r\n" for line in lines))

    return respond


def page(connection: socket.socket, _request: Received, _number: int) -> None:
    answer(connection, PAGE, headers="Content-Type: text/html\r\n")


def page_as_range(connection: socket.socket, request: Received, _number: int) -> None:
    """A range of something of the same size, and of another type."""
    low, _, high = request.headers["range"].removeprefix("bytes=").partition("-")
    first, last = int(low), int(high or len(DATA) - 1)
    headers = f'Content-Range: bytes {first}-{last}/{len(DATA)}\r\nContent-Type: text/html\r\nETag: "one"\r\n'
    answer(connection, b"x" * (last - first + 1), status="206 Partial Content", headers=headers)


def shorter(connection: socket.socket, request: Received, _number: int) -> None:
    first = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
    headers = f"Content-Range: bytes {first}-{len(DATA) - 9}/{len(DATA) - 8}\r\n"
    answer(connection, b"x" * (len(DATA) - 8 - first), status="206 Partial Content", headers=headers)


def another_version(connection: socket.socket, request: Received, number: int) -> None:
    answer(connection, DATA[::-1], headers='ETag: "two"\r\nAccept-Ranges: bytes\r\n')


REFUSALS = {
    **{f"{code}": status(f"{code} No") for code in (400, 401, 403, 404, 410, 416, 429, 500, 503)},
    "a redirect that is denied": status("302 Found", "Location: http://10.0.0.1/image"),
    "a redirect to another protocol": status("302 Found", "Location: ftp://images.example.org/image"),
    "a page with 200": page,
    "a page as the range": page_as_range,
    "another size": shorter,
    "another version": another_version,
    "a head that is not HTTP": lambda connection, _request, _number: connection.sendall(
        b"HTTP/1.1 200 OK\r\nbad\r\n\r\n"
    ),
    "nothing": lambda _connection, _request, _number: None,
}


@pytest.mark.parametrize("digest", [True, False], ids=["with a checksum", "without"])
@pytest.mark.parametrize("connections", [0, 4], ids=["automatic", "four"])
@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_what_a_further_connection_meets_costs_nothing(
    pool: pathlib.Path, refuse: Serve, connections: int, digest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    checksum = sha256(DATA) if digest else ""
    with Choosy(refuse) as server:
        result = fetch(make_request(pool, server.url(), checksum=checksum, limits=limits(connections)))
        assert server.refused, "the further connection was tried"
        assert [request.headers.get("range") for request in server.received].count(None) >= 1
    assert result.digest == sha256(DATA)
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_page_as_the_rest_of_a_file_is_not_believed(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only connection that is left goes on after a break. Without a checksum nothing else would notice it."""
    hurry(monkeypatch)

    class Breaking(Choosy):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number == 0:
                head, _, _ = self.head(request)
                connection.sendall(head + DATA[: 8 * MIB])
                closely("a further connection", lambda: self.refused)
            elif number == 1:
                self.refused += 1
                answer(connection, b"", status="403 Forbidden")
            elif number == 2:
                page_as_range(connection, request, number)
            else:
                RangeServer.serve(self, connection, request, number)

    with Breaking(page_as_range, rate=0) as server:
        result = fetch(make_request(pool, server.url(), limits=limits(2)))
        assert server.refused
    assert result.digest == sha256(DATA)
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("connections", [0, 4], ids=["automatic", "four"])
def test_a_server_that_is_slow_to_begin_and_refuses_further_connections(
    pool: pathlib.Path, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that waits for its first byte goes on, however long the others have been refused."""
    hurry(monkeypatch)

    class Late(Choosy):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number:
                self.refused += 1
                answer(connection, b"", status="403 Forbidden")
                return
            head, first, last = self.head(request)
            self.ended.wait(0.5)
            connection.sendall(head)
            self.ended.wait(1)
            connection.sendall(self.data[first : last + 1])

    with Late(REFUSALS["403"]) as server:
        result = fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(connections)))
        assert server.refused
    assert result.digest == sha256(DATA)


def test_a_link_for_one_use_is_used_once(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connection goes on with what was given to the one that was refused."""
    hurry(monkeypatch)

    class Once(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number:
                answer(connection, b"", status="403 Forbidden")
                self.rate = 0
                return
            super().serve(connection, request, number)

    for connections in (0, 4):
        with Once(DATA, rate=4 * MIB) as server:
            request = make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(connections))
            assert fetch(request).done
            assert len(server.received) > 1
        (pool / "uid-1").unlink()
        (pool / ".directdownload/uid-1.record").unlink()


@pytest.mark.parametrize("patience", [1.5, 20.0], ids=["refused", "kept waiting"])
def test_a_link_for_one_use_whose_further_connections_hang(
    pool: pathlib.Path, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first connection comes to where a further one was to begin, long before the server answers that one."""
    hurry(monkeypatch)
    first_is_done = threading.Event()

    class Slow(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number:
                first_is_done.wait(patience)
                answer(connection, b"", status="403 Forbidden")
                return
            super().serve(connection, request, number)
            first_is_done.set()

    with Slow(DATA, rate=8 * MIB) as server:
        assert fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(4))).done
        assert len(server.received) > 1
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("connections", [0, 1, 4])
def test_backends_with_etags_of_their_own_are_one_source_under_a_checksum(
    pool: pathlib.Path, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    with Balancer(rate=12 * MIB, etags=('"one"', '"two"', '"three"'), until_further=True) as server:
        result = fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(connections)))
        ranges = [request for request in server.received if "range" in request.headers]
        assert bool(ranges) == (connections != 1)
        assert not any("if-range" in request.headers for request in ranges)
    assert result.done
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_cut_download_goes_on_at_the_next_backend_under_a_checksum(pool: pathlib.Path) -> None:
    with Balancer(rate=0, etags=('"one"', '"two"'), cut=7 * MIB) as server:
        request = make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(1))
        reasons = [fetch_error(request).reason for _ in range(3)]
        result = fetch(request)
    assert reasons == [Reason.TRUNCATED] * 3
    assert result.resumed_from >= 3 * 6 * MIB


def test_a_cut_download_begins_anew_at_another_backend_without_a_checksum(pool: pathlib.Path) -> None:
    with Balancer(rate=0, etags=('"one"', '"two"'), cut=7 * MIB) as server:
        fetch_error(make_request(pool, server.url(), limits=limits(1)))
    with Balancer(rate=0, etags=('"two"',)) as server:
        result = fetch(make_request(pool, server.url(), limits=limits(1)))
    assert result.resumed_from == 0
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_file_that_was_replaced_meanwhile_is_fetched_from_its_beginning(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a checksum versions may mix; where the mixture is wrong, one version alone is tried before it is said."""
    hurry(monkeypatch)
    old = DATA[::-1]

    class Replaced(Balancer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number:
                super().serve(connection, request, number)
                return
            head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(old)}\r\nETag: "old"\r\nAccept-Ranges: bytes\r\n\r\n'
            connection.sendall(head.encode())
            for position in range(0, len(old), 65536):
                connection.sendall(old[position : position + 65536])
                self.ended.wait(65536 / self.rate)

    with Replaced(rate=8 * MIB, etags=('"new"',)) as server:
        result = fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(2)))
    assert result.digest == sha256(DATA)
    assert (pool / "uid-1").read_bytes() == DATA


def test_without_a_checksum_a_file_that_was_replaced_is_fetched_to_its_end_by_the_connection_that_began(
    pool: pathlib.Path,
) -> None:
    with Balancer(rate=16 * MIB, etags=('"one"', '"two"')) as server:
        assert fetch(make_request(pool, server.url(), limits=limits(2))).digest == sha256(DATA)
        assert server.received[1].headers["if-range"] == '"one"'
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_source_that_keeps_changing_is_given_up(pool: pathlib.Path) -> None:
    """Each answer is cut, and the next one is of another version: without a checksum nothing of that fits together."""
    with Balancer(rate=16 * MIB, etags=tuple(f'"{number}"' for number in range(100)), cut=3 * MIB) as server:
        error = fetch_error(make_request(pool, server.url(), limits=limits(2)))
    assert error.reason in (Reason.SOURCE_CHANGED, Reason.TRUNCATED)
    assert not error.permanent
    assert "uid-1" not in leftovers(pool)


def test_without_a_checksum_a_file_that_was_replaced_before_the_last_connection_came_is_fetched_anew(
    pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further connection is refused, and the first is cut: the one after them gets another version."""
    hurry(monkeypatch)
    refused = threading.Event()
    old = DATA[::-1]

    def respond(connection: socket.socket, _request: Received, number: int) -> None:
        if number == 0:
            answer(connection, old[: 3 * MIB], headers='ETag: "one"\r\nAccept-Ranges: bytes\r\n', length=len(old))
            refused.wait(20)
        elif number == 1:
            refused.set()
        else:
            answer(connection, DATA, headers='ETag: "two"\r\nAccept-Ranges: bytes\r\n')

    with HostileServer(respond) as server:
        result = fetch(make_request(pool, server.url(), limits=limits(2)))
        assert server.received[2].headers["if-range"] == '"one"'
    assert result.digest == sha256(DATA)
    assert (pool / "uid-1").read_bytes() == DATA


def test_further_ranges_come_from_where_a_redirect_led(pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And from the first URL again once they do not."""
    hurry(monkeypatch)

    class Leaving(RangeServer):
        def serve(self, connection: socket.socket, request: Received, number: int) -> None:
            if number:
                answer(connection, b"", status="410 Gone")
                return
            super().serve(connection, request, number)

    class Redirecting(HostileServer):
        def __init__(self) -> None:
            super().__init__(lambda c, _, n: answer(c, b"", status="302 Found", headers=f"Location: {where(n)}\r\n"))

    with Leaving(DATA, rate=8 * MIB) as first, RangeServer(DATA, rate=8 * MIB) as second:

        def where(number: int) -> str:
            return (second if number else first).url()

        with Redirecting() as server:
            request = make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(3))
            assert fetch(request).done
            assert len(server.received) < len(first.received) + len(second.received)
            assert len(first.received) >= 2
            assert second.received
    assert (pool / "uid-1").read_bytes() == DATA


def test_real_servers_behind_one_balancer(pool: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """nginx takes its ETag from the time of the file, which differs from server to server."""
    one, two = tmp_path / "one", tmp_path / "two"
    for number, directory in enumerate((one, two)):
        directory.mkdir()
        (directory / "image").write_bytes(DATA)
        os.utime(directory / "image", (1_700_000_000 + number,) * 2)
    with Origin(one) as first, Origin(two) as second:
        numbers = itertools.count()

        def respond(connection: socket.socket, _request: Received, _number: int) -> None:
            origin = (first, second)[next(numbers) % 2]
            answer(connection, b"", status="302 Found", headers=f"Location: {origin.url('image')}\r\n")

        with HostileServer(respond) as server:
            request = make_request(pool, server.url(), checksum=sha256(DATA), limits=limits(4))
            assert fetch(request).done
    assert (pool / "uid-1").read_bytes() == DATA


def claims(board: schedule.Board, count: int) -> list[schedule.Claim]:
    """Of as many new connections, of which the first came alone."""
    taken = [board.take(float(number), 0, alone=not number) for number in range(count)]
    return [claim for claim in taken if claim is not None]


def test_what_was_cut_off_a_claim_goes_back_to_the_stream_that_reaches_it() -> None:
    board = schedule.Board(100 * MIB, Ranges())
    first, second = claims(board, 2)
    assert first.end == second.position
    board.give_back(second)
    assert first.end == 100 * MIB
    third = board.take(1.0, 0, alone=False)
    assert third is not None
    first.reach = first.end
    board.give_back(third)
    assert first.end == third.position, "its stream ends there"


def test_a_stream_goes_on_where_a_further_connection_has_received_nothing() -> None:
    board = schedule.Board(100 * MIB, Ranges())
    first, second, third = claims(board, 3)
    assert (first.end, second.end) == (second.start, third.start)
    board.receive(third, 2.0, 1)
    board.receive(first, 2.0, second.start - first.start)
    assert board.go_on(first)
    assert (first.end, second.overtaken) == (third.start, True)
    board.give_back(second)
    board.receive(first, 3.0, third.start - first.position)
    assert not board.go_on(first), "the third delivers"
    board.give_back(third)
    assert first.end == third.start, "its stream has ended"


def test_a_stream_that_was_asked_for_a_range_goes_on_nowhere_else() -> None:
    board = schedule.Board(100 * MIB, Ranges())
    _, _, third, fourth = claims(board, 4)
    board.receive(third, 2.0, fourth.start - third.start)
    assert third.reach == fourth.start
    assert not board.go_on(third)
    assert not fourth.overtaken
