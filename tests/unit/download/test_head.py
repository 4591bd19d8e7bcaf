"""The head of an answer is all there, or the answer is not used."""

import io
import pathlib

import pytest
from tests.unit.download.support import content, fetch, fetch_error, leftovers, make_request
from tests.world.http import HostileServer

from directdownload.download.errors import SourceError
from directdownload.download.sources import head
from directdownload.resources.reasons import Reason

URL = "http://images.example.org/image"
DATA = content(300_000)


def read(text: bytes) -> head.Head:
    return head.read(io.BufferedReader(io.BytesIO(text)), URL)


def headers(*lines: bytes) -> list[tuple[str, str]]:
    return list(read(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])).headers.items)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"A: b", ("A", "b")),
        (b"A:b", ("A", "b")),
        (b"A: \t b c \t", ("A", "b c")),
        (b"A:", ("A", "")),
        (b"X!#$%&'*+-.^_`|~1: v", ("X!#$%&'*+-.^_`|~1", "v")),
        (b"A: caf\xe9", ("A", "caf\xe9")),
        (b"A: b\r\n c\r\n\td", ("A", "b c d")),
        (b"A: b: c", ("A", "b: c")),
    ],
)
def test_headers_as_the_rfc_has_them(line: bytes, expected: tuple[str, str]) -> None:
    assert headers(line, b"B: 1") == [expected, ("B", "1")]


@pytest.mark.parametrize(
    "line",
    [
        b"X-Powered-By PHP",
        b"X-Powered-By : PHP",
        b" X: y",
        b": y",
        b"HTTP/1.1 200 OK",
        b"X\x00: y",
        b"X: y\x00",
        b"X: y\rZ",
        b"X\xe9: y",
        b"<html>",
    ],
)
def test_a_line_that_is_no_header_ends_the_answer_and_is_shown(pool: pathlib.Path, line: bytes) -> None:
    answered = b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 300000\r\n\r\n" + DATA[:100_000]
    with HostileServer(lambda connection, _request, _number: connection.sendall(answered)) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.reason is Reason.SOURCE_UNAVAILABLE
    assert "expected a header (Name: value), found" in error.message
    shown = "".join(character if character.isprintable() else "?" for character in line.decode("latin-1"))
    assert shown.split("?")[0] in error.message
    assert leftovers(pool) == set()


def test_chunks_are_never_taken_for_the_file(pool: pathlib.Path) -> None:
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (DATA[:99_999], DATA[99_999:]))
    answered = b"HTTP/1.1 200 OK\r\nX-Powered-By PHP\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
    with HostileServer(lambda connection, _request, _number: connection.sendall(answered)) as server:
        assert fetch_error(make_request(pool, server.url())).reason is Reason.SOURCE_UNAVAILABLE


def test_many_headers_are_fine_within_the_bound(pool: pathlib.Path) -> None:
    many = b"".join(b"X-%d: y\r\n" % number for number in range(2_000))
    answered = b"HTTP/1.1 200 OK\r\n" + many + b"Content-Length: 300000\r\n\r\n" + DATA
    with HostileServer(lambda connection, _request, _number: connection.sendall(answered)) as server:
        assert fetch(make_request(pool, server.url())).size_bytes == len(DATA)


@pytest.mark.parametrize("more", [0, 1])
def test_the_bound_is_of_the_whole_head(more: int) -> None:
    first = b"HTTP/1.1 200 OK\r\n"
    long = b"X: " + b"y" * (head.LIMIT_BYTES - len(first) - len(b"X: \r\n\r\n") + more) + b"\r\n\r\n"
    if not more:
        assert len(read(first + long).headers.get("X")) > 65_000
        return
    with pytest.raises(SourceError, match="at most 65536 bytes") as caught:
        read(first + long)
    assert caught.value.reason is Reason.SOURCE_REFUSED


def test_interim_answers_are_left_out_and_the_end_of_http_is_not() -> None:
    assert (
        read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n").status
        == 204
    )
    assert read(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").status == 101


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b"])
def test_a_head_that_is_cut_is_unreachable(text: bytes) -> None:
    with pytest.raises(SourceError, match="closed the connection") as caught:
        read(text)
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
