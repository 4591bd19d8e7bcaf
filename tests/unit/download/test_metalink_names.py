"""Metalinks whose name does not tell: `/image?meta4`, `/metalink?path=…`."""

import pathlib
import re
import socket
import threading

import pytest
from tests.unit.download.support import (
    content,
    fetch,
    fetch_error,
    job_document,
    leftovers,
    make_request,
    run_job,
    sha256,
)
from tests.world.http import HostileServer, RangeServer, Received, answer, reset, wait_until_read

from directdownload.download import probe
from directdownload.download.guard import Guard
from directdownload.download.transfer.journal import read_journal
from directdownload.resources.reasons import Reason

DATA = content(5 * 1024 * 1024 + 512)
PATHS = ("image?meta4", "metalink?path=pub/image", "metalink")
#: media types, with nothing but the content to tell in the last ones
TYPES = ("application/metalink4+xml; charset=UTF-8", "application/metalink+xml", "text/plain", "")
JOURNAL = ".directdownload/uid-1.kvm-1.journal"


class Mirrors(RangeServer):
    """Serves the image below /mirror/, the metalink anywhere else. The first connections to the image are cut."""

    def __init__(self, media_type: str = TYPES[0], *, digest: str = sha256(DATA), cuts: int = 0) -> None:
        self.media_type = media_type
        self.cuts = cuts
        super().__init__(DATA)
        self.document = (
            '<?xml version="1.0"?>\n<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="image">'
            f'<size>{len(DATA)}</size><hash type="sha-256">{digest.partition(":")[2]}</hash>'
            f"<url>{self.url('mirror/image')}</url></file></metalink>"
        ).encode()

    def serve(self, connection: socket.socket, request: Received, number: int) -> None:
        if not request.target.startswith("/mirror/"):
            kind = f"Content-Type: {self.media_type}\r\n" if self.media_type else ""
            answer(connection, self.document, headers=kind)
        elif self.cuts:
            self.cuts -= 1
            connection.sendall(self.head(Received("", {}))[0] + DATA[: len(DATA) // 2])
            wait_until_read(connection)
            reset(connection)
        else:
            super().serve(connection, request, number)

    def asked(self) -> list[str]:
        """The kinds of files that were asked for."""
        return ["image" if each.target.startswith("/mirror/") else "metalink" for each in self.received]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize("fields", [{}, {"image_format": "RAW"}, {"checksum": sha256(DATA)}], ids=lambda f: "".join(f))
def test_a_metalink_is_followed_whatever_its_name(
    pool: pathlib.Path, path: str, media_type: str, fields: dict[str, str]
) -> None:
    with Mirrors(media_type) as server:
        result = fetch(make_request(pool, server.url(path), **fields))
        assert server.asked() == ["metalink", "metalink", "image"]
        assert (result.reason, result.source) == (Reason.DOWNLOADED, server.url("mirror/image"))
    assert (pool / "uid-1").read_bytes() == DATA
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}


def test_a_job_follows_it_too(pool: pathlib.Path) -> None:
    with Mirrors() as server:
        document = job_document(pool, url=server.url("image?meta4"), checksum=sha256(DATA))
        assert run_job(document)[1].reason is Reason.DOWNLOADED
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize("checksum", ["", sha256(DATA)], ids=["", "checksum"])
def test_a_cut_download_from_its_mirrors_is_resumed(pool: pathlib.Path, media_type: str, checksum: str) -> None:
    with Mirrors(media_type, cuts=1) as server:
        request = make_request(pool, server.url("image?meta4"), checksum=checksum, image_format="RAW")
        error = fetch_error(request)
        assert (error.reason, error.permanent) == (Reason.TRUNCATED, False)
        kept = read_journal(str(pool / JOURNAL))
        assert kept is not None
        assert kept.bytes_on_disk > 0
        assert fetch(request).resumed_from == kept.bytes_on_disk
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("media_type", TYPES)
def test_its_digest_is_expected(pool: pathlib.Path, media_type: str) -> None:
    with Mirrors(media_type, digest=sha256(b"another")) as server:
        error = fetch_error(make_request(pool, server.url("image?meta4")))
        assert error.reason is Reason.CHECKSUM_MISMATCH
        assert error.message.endswith(f"(from the metalink {server.url('image')})")
    assert leftovers(pool) == set()


def test_a_failure_behind_it_names_it_without_its_query(pool: pathlib.Path) -> None:
    with Mirrors() as server:
        error = fetch_error(make_request(pool, server.url("metalink?token=secret"), image_format="ISO"))
        assert error.reason is Reason.FORMAT_MISMATCH
        assert f"(from the metalink {server.url('metalink')})" in error.message
        assert "secret" not in error.message


def test_the_metalink_itself_is_published_if_the_checksum_is_its_own(pool: pathlib.Path) -> None:
    with Mirrors("application/xml") as server:
        assert fetch(make_request(pool, server.url("list"), checksum=sha256(server.document))).done
        assert (pool / "uid-1").read_bytes() == server.document


@pytest.mark.parametrize("media_type", TYPES)
def test_a_metalink_within_a_metalink_is_not_followed(pool: pathlib.Path, media_type: str) -> None:
    with Mirrors(media_type) as server:
        server.document = (
            server.document.replace(b"/mirror/image", b"/other").replace(b"<size>", b"<x>").replace(b"</size>", b"</x>")
        )
        server.document = re.sub(rb"<hash.*</hash>", b"", server.document)
        error = fetch_error(make_request(pool, server.url("image?meta4"), image_format="RAW"))
        assert (error.reason, error.permanent) == (Reason.METALINK_INVALID, True)
        assert "not followed from within a metalink" in error.message
        assert len(server.received) <= 4
    assert leftovers(pool) == set()


@pytest.mark.parametrize("media_type", TYPES)
def test_the_next_url_behind_one_that_is_a_metalink_is_used(pool: pathlib.Path, media_type: str) -> None:
    with Mirrors(media_type) as server:
        second = f"<url>{server.url('other')}</url><url>".encode()
        server.document = re.sub(rb"<hash.*</hash>|<size>.*</size>", b"", server.document.replace(b"<url>", second))
        result = fetch(make_request(pool, server.url("image?meta4"), image_format="RAW"))
        assert result.source == server.url("mirror/image")
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("media_type", TYPES)
def test_a_mirror_that_is_one_is_passed_over_although_a_digest_is_known(pool: pathlib.Path, media_type: str) -> None:
    with Mirrors(media_type) as server:
        second = f"<url>{server.url('other')}</url><url>".encode()
        server.document = re.sub(rb"<size>.*</size>", b"", server.document.replace(b"<url>", second))
        result = fetch(make_request(pool, server.url("image?meta4"), image_format="RAW"))
        assert result.source == server.url("mirror/image")
        assert (pool / "uid-1").read_bytes() == DATA
        server.document = server.document.replace(b"/mirror/image", b"/third")
        error = fetch_error(make_request(pool.parent / "second", server.url("image?meta4"), image_format="RAW"))
        assert error.reason is Reason.METALINK_INVALID


def test_a_mirror_that_is_one_is_followed_as_well(pool: pathlib.Path) -> None:
    refusing = HostileServer(lambda connection, _request, _number: answer(connection, b"", status="404 Not Found"))
    with Mirrors() as server, refusing:
        request = make_request(pool, refusing.url(), mirrors=(server.url("image?meta4"),), checksum=sha256(DATA))
        assert fetch(request).source == server.url("mirror/image")


@pytest.mark.parametrize("body", [b"<html>it works</html>", b"", b" " * 100_000])
def test_what_is_none_although_its_server_says_so_is_invalid(pool: pathlib.Path, body: bytes) -> None:
    with Mirrors() as server:
        server.document = body
        error = fetch_error(make_request(pool, server.url("image?meta4")))
    assert (error.reason, error.permanent) == (Reason.METALINK_INVALID, True)
    assert leftovers(pool) == set()


def test_one_without_end_is_given_up(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/metalink4+xml\r\n\r\n")
        while not server.ended.is_set():
            connection.sendall(b" " * 65_536)

    with HostileServer(respond) as server:
        error = fetch_error(make_request(pool, server.url()))
    assert error.reason is Reason.METALINK_INVALID
    assert "bytes; is it an image?" in error.message


@pytest.mark.parametrize("media_type", TYPES)
def test_a_probe_follows_it(pool: pathlib.Path, media_type: str) -> None:
    with Mirrors(media_type) as server:
        request = make_request(pool, server.url("image?meta4"), image_format="RAW")
        result = probe.probe(request, Guard.start(threading.Event()))
        assert (result.source, result.size_bytes, result.format) == (server.url("mirror/image"), len(DATA), "RAW")
