"""The HTTP source by itself: ranges of a version, encodings, addresses, headers across redirects."""

import concurrent.futures
import contextlib
import email.utils
import gzip
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.download.sourcing import drain, guard, make_source, read, read_error
from tests.unit.download.support import FAST, LOCAL, LOCAL_CIDRS, PATIENT, content, fetch, make_request, sha256
from tests.world.certificates import Certificate, bundle
from tests.world.http import HostileServer, Received, Respond, answer, tls_server
from tests.world.origin import Origin

from directdownload.download.errors import DownloadError, RequestError, SourceError
from directdownload.download.sources import Ask, connection
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

DATA = content(3_000_003)
SIZE = len(DATA)
ETAG = 'ETag: "one"\r\n'


@pytest.fixture
def url(origin: Origin, served: pathlib.Path) -> str:
    (served / "image").write_bytes(DATA)
    return origin.url("image")


def ranged(connection: socket.socket, request: Received, headers: str = ETAG, **other: Any) -> None:
    """What a good server answers to one range of DATA."""
    if "range" not in request.headers:
        answer(connection, DATA, headers=headers)
        return
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    body = DATA[int(first) : int(last) + 1 if last else None]
    told = f"Content-Range: bytes {first}-{int(first) + len(body) - 1}/{SIZE}\r\n"
    answer(connection, body, status="206 Partial", headers=headers + told, **other)


# what is asked for


@pytest.mark.parametrize(
    ("ask", "header"),
    [
        (Ask(), ""),
        (Ask(0, 1), "bytes=0-0"),
        (Ask(1000, 2_000_000), "bytes=1000-1999999"),
        (Ask(SIZE - 1), f"bytes={SIZE - 1}-"),
        (Ask(1000, SIZE), f"bytes=1000-{SIZE - 1}"),
        # behind the end: the server sends what there is
        (Ask(1000, SIZE + 10), f"bytes=1000-{SIZE + 9}"),
    ],
)
def test_a_range_is_exactly_what_was_asked_for(origin: Origin, url: str, ask: Ask, header: str) -> None:
    stream = make_source(url).open(ask, guard())
    assert (stream.offset_bytes, stream.size_bytes) == (ask.offset_bytes, SIZE)
    assert stream.ranges
    assert stream.validator.startswith('"')
    assert drain(stream) == DATA[ask.offset_bytes : ask.end_bytes]
    assert [entry.range for entry in origin.wait_for_requests(1)] == [header]


def test_ranges_are_asked_for_under_the_condition_that_the_version_is_the_same(origin: Origin, url: str) -> None:
    source = make_source(url)
    first = source.open(Ask(0, 1000), guard())
    drain(first)
    same = source.open(Ask(1000, 2000, first.validator, SIZE), guard())
    assert same.offset_bytes == 1000
    assert drain(same) == DATA[1000:2000]
    other = source.open(Ask(1000, 2000, '"another"', SIZE), guard())
    assert other.offset_bytes == 0
    assert drain(other) == DATA
    entries = origin.wait_for_requests(3)
    assert [entry.status for entry in entries] == [206, 206, 200]
    assert [entry.if_range for entry in entries] == ["", first.validator, '"another"']


def test_a_range_behind_the_end_begins_anew(origin: Origin, url: str) -> None:
    stream = make_source(url).open(Ask(SIZE + 5, SIZE + 10), guard())
    assert stream.offset_bytes == 0
    assert drain(stream) == DATA
    assert [entry.status for entry in origin.wait_for_requests(2)] == [416, 200]


def test_several_streams_of_one_source_at_once(origin: Origin, url: str) -> None:
    source, part = make_source(url), SIZE // 4
    asks = [Ask(0, part), Ask(part, 2 * part), Ask(2 * part, 3 * part), Ask(3 * part)]
    streams = [source.open(ask, guard()) for ask in asks]
    with concurrent.futures.ThreadPoolExecutor(len(streams)) as pool:
        assert b"".join(pool.map(drain, streams)) == DATA
    assert len(origin.wait_for_requests(4)) == 4


def test_streams_that_are_closed_early_give_their_slots_back_once(url: str) -> None:
    source, impatient = make_source(url), make_source(url, timeouts=FAST)
    for _ in range(20):
        stream = source.open(Ask(), guard())
        stream.readinto(memoryview(bytearray(10)))
        stream.close()
        stream.close()
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(contextlib.closing(source.open(Ask(), guard())))
        with pytest.raises(SourceError, match=r"timeouts\.connectionRequest"):
            impatient.open(Ask(), guard())
    assert read(url) == DATA


@pytest.mark.parametrize("buffer_bytes", [1, 100, 70_000, 5_000_000])
def test_buffers_of_any_size(served: pathlib.Path, tmp_path: pathlib.Path, buffer_bytes: int) -> None:
    data = DATA[: min(SIZE, buffer_bytes * 3000 + 1)]
    (served / "image").write_bytes(data)
    for tls in (False, True):
        with Origin(served, tls=tls) as origin:
            source = make_source(origin.url("image"), trust_bundle=str(origin.certificate))
            assert drain(source.open(Ask(), guard()), buffer_bytes) == data


# servers that bungle ranges


@pytest.mark.parametrize(
    "told",
    [
        "",
        "Content-Range: bytes 0-999/3000003\r\n",
        "Content-Range: bytes 1000-1998/3000003\r\n",
        "Content-Range: bytes 1000-2000/3000003\r\n",
        "Content-Range: bytes 1000-3000002/3000003\r\n",
        "Content-Range: bytes 1000-1999/3000004\r\n",
        "Content-Range: bytes 1000-1999/*\r\n",
        "Content-Range: bytes 1999-1000/3000003\r\n",
        "Content-Range: bytes */3000003\r\n",
        "Content-Range: items 1000-1999/3000003\r\n",
        "Content-Range: bytes 1000-1999/99999999999999999999999\r\n",
        'ETag: "two"\r\nContent-Range: bytes 1000-1999/3000003\r\n',
        "Content-Type: multipart/byteranges; boundary=x\r\n",
    ],
)
def test_a_206_that_is_not_what_was_asked_for_is_not_used(told: str) -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        if "range" in request.headers:
            answer(connection, DATA[1000:2000], status="206 Partial", headers=told)
        else:
            answer(connection, DATA)

    with HostileServer(respond) as server:
        stream = make_source(server.url()).open(Ask(1000, 2000, '"one"', SIZE), guard())
        assert stream.offset_bytes == 0
        assert drain(stream) == DATA
        assert ["range" in request.headers for request in server.received] == [True, False]


def test_a_206_whose_length_is_another_than_its_range_is_not_used() -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        if "range" in request.headers:
            ranged(connection, request, length=999)
        else:
            answer(connection, DATA)

    with HostileServer(respond) as server:
        stream = make_source(server.url()).open(Ask(1000, 2000), guard())
        assert (stream.offset_bytes, stream.size_bytes) == (0, SIZE)
        assert drain(stream) == DATA


@pytest.mark.parametrize("end", [1500, 2500, SIZE])
def test_a_206_that_ends_elsewhere_is_not_used(end: int) -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        if "range" in request.headers:
            told = f"Content-Range: bytes 1000-{end - 1}/{SIZE}\r\n"
            answer(connection, DATA[1000:end], status="206 Partial", headers=told)
        else:
            answer(connection, DATA)

    with HostileServer(respond) as server:
        stream = make_source(server.url()).open(Ask(1000, 2000), guard())
        assert (stream.offset_bytes, stream.size_bytes) == (0, SIZE)
        assert drain(stream) == DATA


def test_a_206_without_length_ends_with_its_range() -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        told = f"Content-Range: bytes 1000-1999/{SIZE}\r\n"
        connection.sendall(f"HTTP/1.1 206 Partial\r\n{ETAG}{told}\r\n".encode() + DATA[1000:3000])

    with HostileServer(respond) as server:
        assert read(server.url(), Ask(1000, 2000)) == DATA[1000:2000]


def test_a_range_that_is_cut_is_truncated() -> None:
    with HostileServer(lambda c, r, n: c.sendall(head_of_range() + DATA[1000:1500])) as server:
        assert read_error(server.url(), Ask(1000, 2000)).reason is Reason.TRUNCATED


def head_of_range() -> bytes:
    return f"HTTP/1.1 206 Partial\r\nContent-Length: 1000\r\nContent-Range: bytes 1000-1999/{SIZE}\r\n\r\n".encode()


def test_a_server_without_ranges_sends_everything() -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as server:
        stream = make_source(server.url()).open(Ask(1000, 2000, '"one"', SIZE), guard())
        assert (stream.offset_bytes, stream.size_bytes, stream.validator) == (0, SIZE, "")
        assert not stream.ranges
        assert drain(stream) == DATA
        assert len(server.received) == 1


@pytest.mark.parametrize("length", [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked", "Connection: close"])
def test_an_unasked_range_of_the_whole_file_is_the_file(length: str) -> None:
    head = f"HTTP/1.1 206 Partial\r\n{ETAG}{length}\r\nContent-Range: bytes 0-{SIZE - 1}/{SIZE}\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE, DATA) if "chunked" in length else DATA
    with HostileServer(lambda c, r, n: c.sendall(head.encode() + body)) as server:
        stream = make_source(server.url()).open(Ask(), guard())
        assert (stream.offset_bytes, stream.size_bytes, stream.ranges) == (0, SIZE, True)
        assert drain(stream) == DATA


@pytest.mark.parametrize(
    "told", [f"1-{SIZE - 1}/{SIZE}", f"0-{SIZE - 2}/{SIZE}", f"0-{SIZE - 1}/*", f"0-{SIZE - 1}/{SIZE - 1}", "none"]
)
def test_an_unasked_range_of_a_part_is_refused(told: str) -> None:
    headers = f"Content-Range: bytes {told}\r\n"
    with HostileServer(lambda c, r, n: answer(c, DATA, status="206 Partial", headers=headers)) as server:
        error = read_error(server.url())
    assert error.reason is Reason.SOURCE_UNAVAILABLE
    assert "206 Partial Content" in error.message


@pytest.mark.parametrize("ask", [Ask(), Ask(1000, 2000)])
def test_an_answer_that_a_proxy_has_changed_is_the_file(ask: Ask) -> None:
    """203, as 200."""
    with HostileServer(lambda c, r, n: answer(c, DATA, status="203 Non-Authoritative")) as server:
        assert read(server.url(), ask) == DATA


@pytest.mark.parametrize("status", ["206 Partial", "416 Range"])
def test_a_server_that_sends_ranges_nobody_asked_for_is_refused(status: str) -> None:
    told = f"Content-Range: bytes 0-999/{SIZE}\r\n"
    with HostileServer(lambda c, r, n: answer(c, DATA[:1000], status=status, headers=told)) as server:
        assert not isinstance(read_error(server.url()), RequestError)
        assert len(server.received) == 1


def test_a_weak_etag_names_no_version() -> None:
    modified = email.utils.formatdate(1_000_000_000, usegmt=True)
    headers = f'ETag: W/"one"\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\nContent-Type: a/b; c=d\r\n'
    with HostileServer(lambda c, r, n: answer(c, DATA, headers=headers)) as server:
        stream = make_source(server.url()).open(Ask(), guard())
        assert (stream.validator, stream.ranges, stream.media_type) == (modified, True, "a/b")
        stream.close()


@pytest.mark.parametrize("interim", ["103 Early Hints\r\nLink: </x>", "100 Continue", "102 Processing\r\nA: b\r\nC: d"])
def test_interim_answers_are_passed_over(interim: str) -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        connection.sendall(f"HTTP/1.1 {interim}\r\n\r\n".encode() * 3)
        ranged(connection, request)

    with HostileServer(respond) as server:
        assert read(server.url(), Ask(1000, 2000)) == DATA[1000:2000]


@pytest.mark.parametrize("interim", ["103 Early Hints", "100 Continue"])
def test_interim_answers_without_end_are_cut_off(interim: str) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        while not server.ended.is_set():
            connection.sendall(f"HTTP/1.1 {interim}\r\n\r\n".encode() * 1000)

    with HostileServer(respond) as server:
        error = read_error(server.url())
    assert error.reason is Reason.SOURCE_REFUSED
    assert "at most 65536 bytes" in error.message


@pytest.mark.parametrize("status", ["101 Switching", "199 What"])
def test_an_interim_answer_alone_is_none(status: str) -> None:
    with HostileServer(lambda c, r, n: c.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())) as server:
        assert read_error(server.url()).reason in (Reason.SOURCE_UNAVAILABLE, Reason.SOURCE_UNREACHABLE)


# encodings


@pytest.mark.parametrize("told", [*("", "identity", "None", "BINARY", "utf-8", "UTF-8, none,identity", "aws-chunked")])
def test_bytes_as_they_are(told: str) -> None:
    headers = f"Content-Encoding: {told}\r\n"
    with HostileServer(lambda c, r, n: answer(c, DATA, headers=headers)) as server:
        assert read(server.url()) == DATA
        assert server.received[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("size", [0, 1, 20, 33, 34, 100])
def test_a_short_object_that_s3_labels_is_taken_as_it_is(size: int) -> None:
    headers = "Content-Encoding: aws-chunked\r\n"
    with HostileServer(lambda c, r, n: answer(c, DATA[:size], headers=headers)) as server:
        for buffer_bytes in (1, 7, 65_536):
            assert drain(make_source(server.url()).open(Ask(), guard()), buffer_bytes) == DATA[:size]


def test_a_range_of_an_object_that_s3_labels_is_taken() -> None:
    """Bytes in the middle may be any; those at the start have no framing."""
    body = b"5;chunk-signature=" + DATA

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        headers = f"{ETAG}Content-Encoding: aws-chunked\r\nContent-Range: bytes 1000-1999/{SIZE}\r\n"
        answer(connection, body[:1000], status="206 Partial", headers=headers)

    with HostileServer(respond) as server:
        assert read(server.url(), Ask(1000, 2000)) == body[:1000]


@pytest.mark.parametrize("name", ["a.qcow2", "a.qcow2.gz"])
@pytest.mark.parametrize("frame", [b"10000;chunk-signature=ad80c730\r\n", b"3E8\r\n", b"0;chunk-signature=b6c6ea8a"])
def test_the_framing_of_an_upload_to_s3_is_refused(name: str, frame: bytes) -> None:
    headers = f"Content-Encoding: aws-chunked{', gzip' if name.endswith('.gz') else ''}\r\n"
    with HostileServer(lambda c, r, n: answer(c, frame + DATA, headers=headers)) as server:
        error = read_error(server.url(name))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "aws-chunked" in error.message


@pytest.mark.parametrize(
    "encoding",
    ["gzip", "x-gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip", "utf-16", "a b", "aws-chunked, br"],
)
@pytest.mark.parametrize("ask", [Ask(), Ask(1000)])
def test_an_encoding_that_is_forced_upon_us_is_refused(encoding: str, ask: Ask) -> None:
    told = f"Content-Encoding: {encoding}\r\n"
    with HostileServer(lambda c, r, n: ranged(c, r, headers=told)) as server:
        error = read_error(server.url("image.qcow2"), ask)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "compression" in error.message


def test_a_server_that_compresses_on_the_fly_is_refused(served: pathlib.Path) -> None:
    """Whatever a client accepts: gzip_static of a real nginx."""
    (served / "image.qcow2").write_bytes(DATA)
    (served / "image.qcow2.gz").write_bytes(gzip.compress(b"another image"))
    with Origin(served, extra="location / { gzip_static always; }") as origin:
        error = read_error(origin.url("image.qcow2"))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "gzip" in error.message


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("a.qcow2.gz", "gzip"), ("a.QCOW2.GZ", "x-gzip"), ("a.tgz?x=y", "gzip"), ("a.bz2", "x-bzip2"), ("a.zst", "zstd")],
)
def test_an_archive_that_is_labelled_with_its_own_encoding_is_taken_as_it_is(name: str, encoding: str) -> None:
    packed = gzip.compress(DATA[:10_000])
    headers = f"Content-Encoding: {encoding}\r\n"
    with HostileServer(lambda c, r, n: answer(c, packed, headers=headers)) as server:
        assert sha256(read(server.url(name))) == sha256(packed)


def test_an_archive_keeps_its_name_behind_a_redirect() -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        if request.target == "/a.gz":
            answer(connection, b"", status="302 Found", headers="Location: /blob\r\n")
        else:
            answer(connection, b"packed", headers="Content-Encoding: gzip\r\n")

    with HostileServer(respond) as server:
        assert read(server.url("a.gz")) == b"packed"


@pytest.mark.parametrize(
    ("name", "encoding"), [("a.gz", "br"), ("a.xz", "gzip"), ("a.gz", "gzip, gzip"), ("gz", "gzip")]
)
def test_a_label_that_is_not_the_archives_own_is_an_encoding(name: str, encoding: str) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"x", headers=f"Content-Encoding: {encoding}\r\n")) as server:
        assert read_error(server.url(name)).reason is Reason.SOURCE_REFUSED


# addresses


def names(monkeypatch: pytest.MonkeyPatch, table: dict[str, list[str]]) -> list[str]:
    """Names resolve as in `table`, all others as ever; returns the list of what was asked."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def fake(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [found for target in table.get(host, [host]) for found in resolve(target, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return asked


@contextlib.contextmanager
def watched(respond: Respond | None = None) -> Iterator[HostileServer]:
    with HostileServer(respond or (lambda c, r, n: answer(c, DATA))) as server:
        yield server


def denied(error: DownloadError, *words: str) -> None:
    assert isinstance(error, RequestError)
    assert error.reason is Reason.URL_NOT_ALLOWED
    assert all(word in error.message for word in (*words, "sourcePolicy.allowedCIDRs"))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_of_a_denied_address_is_never_connected_to(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    names(monkeypatch, {"images.example.org": ["127.0.0.1"]})
    with watched() as server:
        error = read_error(f"{scheme}://images.example.org:{server.port}/a", policy=SourcePolicy())
    denied(error, "images.example.org", "127.0.0.1 (loopback address)")
    assert server.received == []


def test_the_localhost_of_the_hosts_file_is_denied() -> None:
    with watched() as server:
        denied(read_error(f"http://localhost:{server.port}/a", policy=SourcePolicy()), "localhost")
    assert server.received == []


@pytest.mark.parametrize("spelling", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_spellings_of_a_denied_address(spelling: str) -> None:
    with watched() as server:
        with pytest.raises(RequestError) as caught:
            make_source(f"http://{spelling}:{server.port}/a", policy=SourcePolicy())
        denied(caught.value, "loopback")
        allowed = read(f"http://{spelling}:{server.port}/a", policy=LOCAL)
    assert allowed == DATA
    assert len(server.received) == 1


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://2852039166/latest", "//[fe80::1]/a"])
def test_a_redirect_to_a_denied_address_is_not_followed(target: str) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status="302 Found", headers=f"Location: {target}\r\n")

    with watched(respond) as server:
        denied(read_error(server.url()), "link-local")
    assert len(server.received) == 1


def test_a_redirect_to_a_name_of_a_denied_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"metadata.example.org": ["169.254.169.254"]})

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status="302 Found", headers="Location: http://metadata.example.org/latest\r\n")

    with watched(respond) as server:
        error = read_error(server.url())
    denied(error, "metadata.example.org", "169.254.169.254")
    assert error.message.startswith(f"{server.url()} redirects to http://metadata.example.org/latest: host ")


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has another address when asked again (DNS rebinding) gains nothing: it is asked once."""
    asked = names(monkeypatch, {"images.example.org": ["127.0.0.1"]})
    with watched() as server:
        assert read(f"http://images.example.org:{server.port}/a") == DATA
    assert asked == ["images.example.org"]


def test_of_several_addresses_only_those_allowed_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"images.example.org": ["127.0.0.2", "127.0.0.1"]})
    connected: list[str] = []

    def watch(self: socket.socket, address: Any) -> int:
        connected.append(address[0])
        return connect(self, address)

    connect = socket.socket.connect_ex
    monkeypatch.setattr(socket.socket, "connect_ex", watch)
    with watched() as server:
        url = f"http://images.example.org:{server.port}/a"
        assert read(url, policy=SourcePolicy(allowed_cidrs=("127.0.0.1/32",))) == DATA
    assert connected == ["127.0.0.1"]


def test_a_dead_address_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"images.example.org": ["127.0.0.2", "::1", "127.0.0.1"]})
    with watched() as server:
        assert read(f"http://images.example.org:{server.port}/a") == DATA


def test_resolve_gives_what_may_be_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"images.example.org": ["127.0.0.1", "10.1.2.3", "fd00::1", "::1"]})
    url = Url.parse("nfs://images.example.org/export/a")
    found = connection.resolve(url, PATIENT, guard(), SourcePolicy())
    assert [(address[0], address[4][:2]) for address in found] == [
        (socket.AF_INET, ("10.1.2.3", 2049)),
        (socket.AF_INET6, ("fd00::1", 2049)),
    ]
    everything = connection.resolve(url, PATIENT, guard(), LOCAL)
    assert [address[4][0] for address in everything] == ["127.0.0.1", "10.1.2.3", "fd00::1", "::1"]
    names(monkeypatch, {"images.example.org": ["127.0.0.1"]})
    with pytest.raises(RequestError) as caught:
        connection.resolve(url, PATIENT, guard(), SourcePolicy())
    denied(caught.value, "127.0.0.1")


def test_a_resolver_that_knows_nothing_is_a_source_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"images.example.org": []})
    error = read_error("http://images.example.org/a")
    assert isinstance(error, SourceError)
    assert error.reason is Reason.SOURCE_UNREACHABLE


def test_an_address_of_ipv6_in_a_url(served: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    for tls in (False, True):
        with Origin(served, "::1", tls=tls) as origin:
            assert "[::1]" in origin.url("image")
            assert read(origin.url("image"), Ask(5, 10), trust_bundle=str(origin.certificate)) == DATA[5:10]
            assert [entry.host for entry in origin.wait_for_requests(1)] == [f"[::1]:{origin.port}"]


def test_a_certificate_for_an_address_of_ipv6_is_checked(tmp_path: pathlib.Path, served: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    authority = Certificate(authority=True)
    leaf = Certificate("::2", issuer=authority)
    with tls_server(leaf, tmp_path, lambda c, r, n: answer(c, DATA)) as server:
        error = read_error(f"https://[::ffff:127.0.0.1]:{server.port}/a", trust_bundle=bundle(tmp_path, [authority]))
    assert error.reason is Reason.TLS_VERIFICATION_FAILED
    assert "'::ffff:7f00:1'" in error.message


# headers


def test_headers_are_gone_for_good_once_the_origin_changed() -> None:
    """The second origin leads back to the first: what it asks for there is not ours to authorise."""

    def first(connection: socket.socket, request: Received, _number: int) -> None:
        if request.target == "/file":
            answer(connection, b"", status="302 Found", headers="Location: /same\r\n")
        elif request.target == "/same":
            answer(connection, b"", status="307 Temporary", headers=f"Location: {second.url('elsewhere')}\r\n")
        else:
            answer(connection, DATA)

    def back(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status="302 Found", headers=f"Location: {server.url('back')}\r\n")

    with HostileServer(back) as second, HostileServer(first) as server:
        headers = (("X-Token", "secret"), ("Authorization", "Bearer secret"))
        assert read(server.url(), headers=headers) == DATA
        tokens = [(request.target, request.headers.get("x-token", "")) for request in server.received]
        assert tokens == [("/file", "secret"), ("/same", "secret"), ("/back", "")]
        assert all("authorization" not in request.headers for request in (*second.received, server.received[2]))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_another_port_or_name_is_another_origin(host: str) -> None:
    with watched() as other:

        def respond(connection: socket.socket, _request: Received, _number: int) -> None:
            to = f"http://{host}:{other.port if host == '127.0.0.1' else server.port}/other"
            if _request.target == "/file":
                answer(connection, b"", status="302 Found", headers=f"Location: {to}\r\n")
            else:
                answer(connection, DATA)

        with HostileServer(respond) as server:
            assert read(server.url(), headers=(("X-Token", "secret"),)) == DATA
        final = other.received[0] if host == "127.0.0.1" else server.received[1]
    assert "x-token" not in final.headers


def test_redirect_loops_over_two_servers_end() -> None:
    def to(server: HostileServer) -> str:
        return f"Location: {server.url()}\r\n"

    with (
        HostileServer(lambda c, r, n: answer(c, b"", status="302 Found", headers=to(second))) as first,
        HostileServer(lambda c, r, n: answer(c, b"", status="302 Found", headers=to(first))) as second,
    ):
        error = read_error(first.url(), policy=SourcePolicy(max_redirects=5, allowed_cidrs=LOCAL_CIDRS))
        assert (len(first.received), len(second.received)) == (3, 3)
    assert error.reason is Reason.TOO_MANY_REDIRECTS
    assert error.permanent


@pytest.mark.parametrize("status", ["429 Many", "503 Busy"])
def test_a_busy_server_says_when_to_come_back(status: str) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"", status=status, headers="Retry-After: 17\r\n")) as server:
        error = read_error(server.url(), Ask(1000, 2000))
    assert (error.reason, error.retry_after_seconds) == (Reason.SOURCE_UNAVAILABLE, 17)
    assert not error.permanent


def test_the_deadline_ends_a_read_that_drips() -> None:
    def drip(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", length=SIZE)
        while not server.ended.wait(0.02):
            connection.sendall(b"x")

    with HostileServer(drip) as server:
        stream = make_source(server.url()).open(Ask(), guard(0.5))
        with pytest.raises(DownloadError) as caught:
            drain(stream)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize("value", ["Sat, 21 Nov 2026 10:00:00 GMT (caf\xe9)", "x" * 65, "yesterday"])
def test_a_date_that_no_request_could_repeat_names_no_version(pool: pathlib.Path, value: str) -> None:
    body = content(100_000)

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nLast-Modified: {value}\r\n\r\n"
        connection.sendall(head.encode("latin-1") + body)

    with HostileServer(respond) as server:
        result = fetch(make_request(pool, server.url()))
    assert result.digest == sha256(body)
