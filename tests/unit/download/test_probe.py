"""Asking what a source has: by the rules of a download, and without fetching more than the head of the image."""

import gzip
import json
import pathlib
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
from tests.unit.download.support import FAST, content, fetch_error, job_document, make_request, run_job
from tests.world import checkout
from tests.world.http import HostileServer, Received, answer
from tests.world.origin import Origin, free_port

from directdownload.download import probe
from directdownload.download.errors import DownloadError
from directdownload.download.guard import Guard
from directdownload.resources.jobs import JobResult, Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

MIB = 1024 * 1024
DATA = content(20 * MIB)
#: what is read, and what lies in the buffers of two sockets
HEAD_LIMIT_BYTES = 256 * 1024


def ask(pool: pathlib.Path, url: str, **fields: Any) -> JobResult:
    return probe.probe(make_request(pool, url, **fields), Guard.start(threading.Event()))


def ask_error(pool: pathlib.Path, url: str, **fields: Any) -> DownloadError:
    try:
        result = ask(pool, url, **fields)
    except DownloadError as error:
        return error
    raise AssertionError(f"expected a failure, got {result}")


def qcow2(path: pathlib.Path, size: str = "7G") -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), size], check=True)


def backed(path: pathlib.Path) -> None:
    base = path.with_name("base")
    base.write_bytes(bytes(MIB))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path)], check=True)


def probe_document(url: str, **fields: Any) -> dict[str, Any]:
    return {
        "verb": "probe",
        "templateUid": "uid-1",
        "host": "kvm-1",
        "url": url,
        "format": "RAW",
        "policy": {"allowedCIDRs": ["127.0.0.0/8"]},
        **fields,
    }


def test_what_a_server_says_about_a_file(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    result = ask(pool, origin.url("image"), image_format="RAW")
    assert (result.reason, result.done, result.size_bytes) == (Reason.SOURCE_REACHABLE, True, len(DATA))
    assert (result.ranges, result.media_type, result.source) == (
        True,
        "application/octet-stream",
        origin.url("image"),
    )
    assert result.etag.startswith('"')
    [request] = origin.wait_for_requests(1)
    assert (request.method, request.status, request.bytes_sent) == ("GET", 206, HEAD_LIMIT_BYTES)
    assert list(pool.iterdir()) == [], "nothing is written"


def test_the_virtual_size_of_a_remote_image_is_read_from_its_head(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    image = served / "image.qcow2"
    qcow2(image)
    with image.open("ab") as file:
        file.write(DATA)
    result = ask(pool, origin.url("image.qcow2"), image_format="QCOW2")
    assert (result.format, result.virtual_size_bytes) == ("QCOW2", 7 * 1024**3)
    assert result.size_bytes == image.stat().st_size
    assert [request.bytes_sent for request in origin.wait_for_requests(1)] == [HEAD_LIMIT_BYTES]


def test_an_archive_is_told_by_its_size_alone(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    qcow2(served / "image.qcow2")
    archive = gzip.compress((served / "image.qcow2").read_bytes() + DATA, 1)
    (served / "image.gz").write_bytes(archive)
    result = ask(pool, origin.url("image.gz"), image_format="QCOW2")
    assert (result.reason, result.size_bytes) == (Reason.SOURCE_REACHABLE, len(archive))
    assert result.virtual_size_bytes is None


def test_a_metalink_is_asked_for_its_sources(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    dead = f"http://127.0.0.1:{free_port()}/image"
    (served / "image.meta4").write_text(
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="image">'
        f'<url priority="1">{dead}</url><url priority="2">{origin.url("image")}</url></file></metalink>'
    )
    result = ask(pool, origin.url("image.meta4"), image_format="RAW")
    assert (result.source, result.size_bytes) == (origin.url("image"), len(DATA))
    assert "SourceUnreachable" in result.message, "what failed is told too"


@pytest.mark.parametrize("length", [True, False])
def test_a_server_without_ranges(pool: pathlib.Path, length: bool) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nETag: W/"weak"\r\nContent-Type: x/y; z=1\r\n')
        connection.sendall(f"Content-Length: {len(DATA)}\r\n\r\n".encode() if length else b"\r\n")
        connection.sendall(DATA)

    with HostileServer(respond) as server:
        result = ask(pool, server.url(), image_format="RAW")
        assert server.received[0].headers["range"] == f"bytes=0-{HEAD_LIMIT_BYTES - 1}"
    assert (result.size_bytes, result.ranges) == (len(DATA) if length else None, False)
    assert (result.etag, result.media_type) == ("", "x/y")


def test_a_file_that_is_shorter_than_a_head(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(b"tin\0")
    assert ask(pool, origin.url("image"), image_format="RAW").size_bytes == 4


@pytest.mark.parametrize(
    ("image_format", "make", "reason"),
    [
        ("QCOW2", lambda path: path.write_bytes(DATA[:MIB]), Reason.FORMAT_MISMATCH),
        ("RAW", qcow2, Reason.FORMAT_MISMATCH),
        ("QCOW2", backed, Reason.UNSAFE_IMAGE),
    ],
)
def test_an_image_that_would_be_refused_is_told_before_it_is_fetched(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, image_format: str, make: Any, reason: Reason
) -> None:
    make(served / "image")
    assert ask_error(pool, origin.url("image"), image_format=image_format).reason is reason
    assert fetch_error(make_request(pool, origin.url("image"), image_format=image_format)).reason is reason


def test_too_large_is_told(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    error = ask_error(pool, origin.url("image"), limits=Limits(max_size_bytes=MIB))
    assert error.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("status", "reason"), [("404 Not Found", Reason.SOURCE_REFUSED), ("503 Busy", Reason.SOURCE_UNAVAILABLE)]
)
def test_a_source_that_refuses(pool: pathlib.Path, status: str, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"", status=status)) as server:
        assert ask_error(pool, server.url()).reason is reason


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (SourcePolicy(), Reason.URL_NOT_ALLOWED),
        (SourcePolicy(allowed_cidrs=("127.0.0.0/8",), allowed_hosts=("example.org",)), Reason.URL_NOT_ALLOWED),
        (SourcePolicy(allowed_cidrs=("127.0.0.0/8",), protocols=("HTTPS",)), Reason.URL_NOT_ALLOWED),
        (SourcePolicy(allowed_cidrs=("127.0.0.0/8",), require_checksum=True), Reason.CHECKSUM_REQUIRED),
    ],
)
def test_the_policy_holds(pool: pathlib.Path, policy: SourcePolicy, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as server:
        assert ask_error(pool, server.url(), policy=policy).reason is reason
        assert server.received == []


def test_headers_go_to_the_origin_only(pool: pathlib.Path) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA[:1000])) as other:

        def respond(connection: socket.socket, _request: Received, _number: int) -> None:
            answer(connection, b"", status="302 Found", headers=f"Location: {other.url()}\r\n")

        with HostileServer(respond) as server:
            result = ask(pool, server.url(), mirrors=(other.url("mirror"),), headers=(("X-Token", "secret"),))
            assert [request.headers.get("x-token") for request in server.received] == ["secret"]
        assert [request.headers.get("x-token") for request in other.received] == [None]
    assert "secret" not in result.to_message()


def test_a_server_that_is_silent_does_not_hold_the_probe(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, DATA[:100], length=len(DATA))
        server.ended.wait(10)

    with HostileServer(respond) as server:
        assert ask_error(pool, server.url(), timeouts=FAST).reason is Reason.SOCKET_TIMEOUT


def test_a_probe_is_a_job_of_its_own_without_a_pool(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    qcow2(served / "image", "3G")
    headers = tmp_path / "headers"
    headers.mkdir()
    (headers / "X-Token").write_text("secret\n")
    document = probe_document(origin.url("image"), format="QCOW2", headersDirectory=str(headers))
    status, result = run_job(document)
    assert (status, result.reason, result.virtual_size_bytes) == (0, Reason.SOURCE_REACHABLE, 3 * 1024**3)
    assert [request.token for request in origin.wait_for_requests(1)] == ["secret"]
    assert "secret" not in result.to_message()


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"url": f"http://127.0.0.1:{free_port()}/none"}, 1, Reason.SOURCE_UNREACHABLE),
        ({"url": "ftp://127.0.0.1/none"}, 3, Reason.UNSUPPORTED_PROTOCOL),
        ({"policy": {}}, 3, Reason.URL_NOT_ALLOWED),
        ({"headersDirectory": "/nonexistent"}, 1, Reason.SECRET_NOT_FOUND),
    ],
)
def test_the_exit_status_of_a_probe(fields: dict[str, Any], status: int, reason: Reason) -> None:
    found, result = run_job(probe_document("http://127.0.0.1:9/none") | fields)
    assert (found, result.reason) == (status, reason), result.message


def test_a_probe_with_a_pool_is_no_document(pool: pathlib.Path) -> None:
    status, result = run_job(job_document(pool, "probe"))
    assert status == 2
    assert "a probe has none" in result.message


def test_the_command_line_probes_and_writes_nothing(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    qcow2(served / "image", "2G")
    empty = tmp_path / "empty"
    empty.mkdir()
    process = subprocess.run(
        [
            *(sys.executable, "-c", "from directdownload.cli.main import main; main()"),
            *("fetch", origin.url("image"), "--probe", "--json", "--format", "QCOW2", "--allow-cidr", "127.0.0.0/8"),
        ],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=empty,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert (result["reason"], result["virtualSizeBytes"]) == ("SourceReachable", 2 * 1024**3)
    assert list(empty.iterdir()) == []
