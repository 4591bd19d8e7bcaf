"""The NFS source against a real nfs-ganesha, over both versions of the protocol."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.download.support import FAST, PATIENT, content, make_request, sha256
from tests.world import checkout, ganesha
from tests.world.ganesha import Ganesha
from tests.world.relay import Relay

from directdownload.download import engine, sources
from directdownload.download.errors import DownloadError, RequestError, SourceError, StoppedError
from directdownload.download.gathering import Progress
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, SourceOptions, Stream, libnfs, nfs
from directdownload.download.sources.urls import Url
from directdownload.download.transfer import pace
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy, Timeouts

MIB = 1024 * 1024
IMAGE = content(40 * MIB + 12345)
CIDRS = ("198.18.0.0/15", "fd00::/8", "127.0.0.0/8")
#: as `directdownload fetch` has it
POLICY = SourcePolicy(allowed_cidrs=CIDRS, nfs_exports=None, nfs_user=None)
needs_ganesha = pytest.mark.skipif(not ganesha.available(), reason="an NFS server of one's own needs root")

#: reads argv[1] in a process of its own and prints what came of it
READER = """
import hashlib, json, sys, threading
from directdownload.download import sources
from directdownload.download.errors import DownloadError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, SourceOptions
from directdownload.resources.jobs import SourcePolicy, Timeouts

def peak():
    lines = open("/proc/self/status", encoding="ascii").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

buffer, digest, received, before = memoryview(bytearray(1024 * 1024)), hashlib.sha256(), 0, peak()
try:
    policy = SourcePolicy(allowed_cidrs=("198.18.0.0/15",), nfs_exports=None, nfs_user=None)
    source = sources.create(sys.argv[1], SourceOptions(Timeouts(), policy))
    stream = source.open(Ask(), Guard.start(threading.Event()))
    while count := stream.readinto(buffer):
        digest.update(buffer[:count])
        received += count
    stream.close()
    print(json.dumps({"digest": digest.hexdigest(), "received": received, "peak": peak() - before}))
except DownloadError as error:
    print(json.dumps({"reason": error.reason, "message": error.message}))
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What the servers of this module serve; tests add files of their own."""
    directory = tmp_path_factory.mktemp("export")
    directory.chmod(0o755)
    (directory / "image.qcow2").write_bytes(IMAGE)
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "deep" / "er" / "small").write_bytes(b"small")
    (directory / "empty").touch()
    return directory


@pytest.fixture(scope="module", params=[3, 4], ids=["v3", "v4"])
def server(request: pytest.FixtureRequest, export: pathlib.Path) -> Iterator[Ganesha]:
    """Speaks one version only."""
    with Ganesha(export, versions=(request.param,)) as running:
        yield running


@pytest.fixture
def private(tmp_path: pathlib.Path, server: Ganesha) -> Iterator[Ganesha]:
    """A server for one test, as `server`, that serves `image.qcow2`."""
    directory = tmp_path / "private"
    directory.mkdir(mode=0o755)
    (directory / "image.qcow2").write_bytes(IMAGE)
    with Ganesha(directory, versions=server.versions) as running:
        yield running


def open_stream(
    url: str, ask: Ask | None = None, timeouts: Timeouts = PATIENT, stop: threading.Event | None = None
) -> Stream:
    source = sources.create(url, SourceOptions(timeouts=timeouts, policy=POLICY))
    return source.open(ask or Ask(), Guard.start(stop or threading.Event()))


def read_all(stream: Stream, block_bytes: int = MIB) -> bytes:
    received, buffer = bytearray(), memoryview(bytearray(block_bytes))
    try:
        while count := stream.readinto(buffer):
            received += buffer[:count]
    finally:
        stream.close()
    return bytes(received)


def read_until_failure(
    stream: Stream, received: bytearray, act_at_bytes: int = -1, act: Callable[[], object] = bool
) -> SourceError:
    """Read, and do `act` once that much is received; the error with which reading ends."""
    buffer = memoryview(bytearray(MIB))
    try:
        while count := stream.readinto(buffer):
            received += buffer[:count]
            if len(received) == act_at_bytes:
                act()
    except SourceError as error:
        return error
    finally:
        stream.close()
    raise AssertionError(f"expected a failure, got {len(received)} bytes")


def open_error(url: str, timeouts: Timeouts = PATIENT) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        open_stream(url, timeouts=timeouts).close()
    return caught.value


def read_in_process(url: str, *prefix: str) -> dict[str, Any]:
    completed = subprocess.run(
        [*prefix, sys.executable, "-c", READER, url],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    result: dict[str, Any] = json.loads(completed.stdout)
    return result


@needs_ganesha
def test_a_file_is_read_in_blocks_of_any_size(server: Ganesha) -> None:
    for block_bytes in (MIB, 3 * MIB, 777_777):
        stream = open_stream(server.url("image.qcow2"))
        assert (stream.offset_bytes, stream.size_bytes, stream.ranges) == (0, len(IMAGE), True)
        assert read_all(stream, block_bytes) == IMAGE
    assert read_all(open_stream(server.url("deep/er/small"))) == b"small"
    assert read_all(open_stream(server.url("empty"))) == b""


@needs_ganesha
def test_a_server_is_reached_by_ipv6(server: Ganesha) -> None:
    assert read_all(open_stream(server.url("deep/er/small", server.host6))) == b"small"


@needs_ganesha
@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (5 * MIB + 1, None), (MIB, 9 * MIB + 7), (len(IMAGE) - 1, None), (len(IMAGE), None)]
)
def test_ranges_and_the_rest_of_a_file(server: Ganesha, start: int, end: int | None) -> None:
    url = server.url("image.qcow2")
    first = open_stream(url)
    first.close()
    stream = open_stream(url, Ask(start, end, first.validator, first.size_bytes))
    assert (stream.offset_bytes, stream.validator) == (start, first.validator)
    assert read_all(stream) == IMAGE[start:end]


@needs_ganesha
def test_another_version_of_the_file_begins_anew(server: Ganesha, export: pathlib.Path) -> None:
    (export / "changing").write_bytes(b"first version")
    url = server.url("changing")
    first = open_stream(url)
    first.close()
    for ask in (Ask(3, 5, "other", 13), Ask(3, None, first.validator, 12), Ask(14)):
        stream = open_stream(url, ask)
        assert stream.offset_bytes == 0
        assert read_all(stream) == b"first version"
    replacement = export / "replacement"
    replacement.write_bytes(b"other version")
    before = (export / "changing").stat()
    os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
    replacement.rename(export / "changing")
    stream = open_stream(url, Ask(3, None, first.validator, first.size_bytes))
    assert stream.offset_bytes == 0
    assert read_all(stream) == b"other version"


@needs_ganesha
def test_streams_at_once_do_not_disturb_each_other(server: Ganesha) -> None:
    # opened within the same second, by one process
    url, part = server.url("image.qcow2"), 10 * MIB
    starts = range(0, len(IMAGE), part)
    streams = [open_stream(url, Ask(start, start + part)) for start in starts]
    found: dict[int, bytes] = {}

    def read(start: int, stream: Stream) -> None:
        found[start] = read_all(stream)

    threads = [threading.Thread(target=read, args=pair) for pair in zip(starts, streams, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(found[start] for start in starts) == IMAGE


@needs_ganesha
def test_links_are_followed_within_the_export_only(server: Ganesha, export: pathlib.Path) -> None:
    outside = export.parent / "outside"
    outside.write_bytes(b"not exported")
    for name, target in (("inside-link", "deep/er/small"), ("up-link", "../outside"), ("absolute-link", str(outside))):
        if not (export / name).is_symlink():
            (export / name).symlink_to(target)
    assert read_all(open_stream(server.url("inside-link"))) == b"small"
    assert open_error(server.url("up-link")).reason is Reason.SOURCE_REFUSED
    assert open_error(server.url("absolute-link")).reason is Reason.SOURCE_REFUSED


@needs_ganesha
def test_what_the_server_does_not_give_is_refused_for_good(server: Ganesha, export: pathlib.Path) -> None:
    (export / "secret").write_bytes(b"for root")
    (export / "secret").chmod(0o600)
    missing_export = server.url("image.qcow2").replace(server.pseudo, "/not/exported")
    cases = {
        server.url("none"): "no such file",
        server.url("deep/none/none"): "no such file",
        server.url("deep"): "not a regular file",
        server.url("secret"): "denied",
        missing_export: "",
    }
    for url, expected in cases.items():
        error = open_error(url)
        assert isinstance(error, SourceError)
        assert (error.reason, expected in error.message) == (Reason.SOURCE_REFUSED, True), error.message
        assert error.permanent


@needs_ganesha
def test_version_3_finds_what_version_4_shows_elsewhere(export: pathlib.Path) -> None:
    with Ganesha(export, pseudo="/elsewhere") as server:
        assert read_all(open_stream(server.url("deep/er/small"))) == b"small"
        other = server.url("deep/er/small").replace("/elsewhere", str(export))
        assert read_all(open_stream(other)) == b"small"


@needs_ganesha
def test_exports_that_demand_a_low_port(export: pathlib.Path, server: Ganesha) -> None:
    expected = hashlib.sha256(b"small").hexdigest()
    without = ("setpriv", "--bounding-set=-net_bind_service")
    with Ganesha(export, versions=server.versions, privileged_port=True) as demanding:
        url = demanding.url("deep/er/small")
        assert read_in_process(url)["digest"] == expected
        refused = read_in_process(url, *without)
        assert refused["reason"] == Reason.SOURCE_REFUSED
        assert "net.ipv4.ip_unprivileged_port_start=0" in refused["message"]
        # as in a pod that has the sysctl: no user, no capability
        subprocess.run([*demanding.enter, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0"], check=True)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")
        assert read_in_process(url, *demanding.enter, *nobody)["digest"] == expected
    url = server.url("deep/er/small")
    assert read_in_process(url, *without)["digest"] == expected


@needs_ganesha
def test_a_server_that_restarts_in_mid_read_is_resumed(private: Ganesha) -> None:
    url = private.url("image.qcow2")
    stream = open_stream(url)
    received = bytearray()
    error = read_until_failure(stream, received, 4 * MIB, private.kill)
    assert error.reason is Reason.TRUNCATED
    assert 4 * MIB <= len(received) < len(IMAGE)
    assert open_error(url).reason is Reason.SOURCE_UNREACHABLE
    private.start()
    rest = open_stream(url, Ask(len(received), None, stream.validator, stream.size_bytes))
    assert rest.offset_bytes == len(received)
    assert bytes(received) + read_all(rest) == IMAGE


@needs_ganesha
def test_a_fetch_that_the_server_broke_is_resumed_by_the_next(private: Ganesha, tmp_path: pathlib.Path) -> None:
    request = make_request(
        tmp_path / "pool",
        private.url("image.qcow2"),
        checksum=sha256(IMAGE),
        policy=POLICY,
        limits=Limits(bandwidth_bytes_per_second=20 * MIB, progress_interval_seconds=0.05),
    )
    killed = threading.Event()

    def kill_in_the_middle(progress: Progress) -> None:
        if progress.bytes_received > 8 * MIB and not killed.is_set():
            killed.set()
            private.kill()

    with pytest.raises(SourceError) as caught:
        engine.fetch(request, stop=threading.Event(), progress=kill_in_the_middle)
    assert not caught.value.permanent
    private.start()
    result = engine.fetch(request, stop=threading.Event())
    assert result.reason is Reason.DOWNLOADED
    assert 0 < result.resumed_from < len(IMAGE)
    assert pathlib.Path(result.path).read_bytes() == IMAGE


@needs_ganesha
@pytest.mark.parametrize("cut_bytes", [700_001, 3 * MIB])
def test_connections_that_break_again_and_again_still_get_on(export: pathlib.Path, cut_bytes: int) -> None:
    received = bytearray()
    with Ganesha(export, versions=(4,)) as server, Relay(server.host, server.port, cut_bytes) as relay:
        url = f"nfs://127.0.0.1:{relay.port}{server.pseudo}/image.qcow2"
        ask = Ask()
        while len(received) < 8 * MIB:
            stream = open_stream(url, ask)
            assert stream.offset_bytes == len(received)
            ask = Ask(0, None, stream.validator, stream.size_bytes)
            error = read_until_failure(stream, received)
            assert error.reason is Reason.TRUNCATED
            ask = dataclasses.replace(ask, offset_bytes=len(received))
    assert bytes(received) == IMAGE[: len(received)]


@needs_ganesha
def test_a_server_that_trickles_is_given_up_and_what_came_is_kept(
    export: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "WINDOW_SECONDS", 1.0)
    limits = Limits(minimum_bytes_per_second=64 * 1024, connections=1, progress_interval_seconds=0.05)
    known: dict[str, Any] = {"checksum": sha256(IMAGE), "policy": POLICY, "limits": limits}
    with Ganesha(export, versions=(4,)) as server:
        with Relay(server.host, server.port, 8 * MIB, trickles=True) as relay:
            url = f"nfs://127.0.0.1:{relay.port}{server.pseudo}/image.qcow2"
            with pytest.raises(SourceError) as caught:
                engine.fetch(make_request(tmp_path / "pool", url, **known), stop=threading.Event())
        assert (caught.value.reason, url in caught.value.message) == (Reason.SOURCE_TOO_SLOW, True)
        again = make_request(tmp_path / "pool", server.url("image.qcow2"), **known)
        result = engine.fetch(again, stop=threading.Event())
    assert 4 * MIB < result.resumed_from < len(IMAGE)
    assert pathlib.Path(result.path).read_bytes() == IMAGE


@needs_ganesha
def test_a_server_that_stalls_is_given_up(private: Ganesha) -> None:
    url = private.url("image.qcow2")
    stream = open_stream(url, timeouts=FAST)
    private.suspend()
    with pytest.raises(SourceError) as caught:
        read_all(stream)
    assert caught.value.reason is Reason.SOCKET_TIMEOUT
    assert open_error(url, FAST).reason is Reason.CONNECT_TIMEOUT


@needs_ganesha
def test_told_to_stop_while_the_server_is_silent(private: Ganesha) -> None:
    url, patient = private.url("image.qcow2"), Timeouts(connect_seconds=600, socket_seconds=600)
    stop = threading.Event()
    stream = open_stream(url, timeouts=patient, stop=stop)
    private.suspend()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(StoppedError) as caught:
        read_all(stream)
    assert caught.value.reason is Reason.INTERRUPTED
    timer.join()
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(StoppedError):
        open_stream(url, timeouts=patient, stop=stop)
    timer.join()


@needs_ganesha
@pytest.mark.parametrize("change", ["overwrite", "shorten"])
def test_a_file_that_changes_in_mid_read_is_not_delivered(private: Ganesha, change: str) -> None:
    url, path = private.url("image.qcow2"), private.directory / "image.qcow2"
    stream = open_stream(url)
    received = bytearray()

    def act() -> None:
        with path.open("r+b") as file:
            file.truncate(30 * MIB) if change == "shorten" else file.write(b"changed")

    assert read_until_failure(stream, received, MIB, act).reason is Reason.SOURCE_CHANGED
    assert len(received) < len(IMAGE)
    again = open_stream(url, Ask(len(received), None, stream.validator, stream.size_bytes))
    assert again.offset_bytes == 0
    assert read_all(again) == path.read_bytes()


@needs_ganesha
def test_memory_is_bounded_whatever_the_size(server: Ganesha, export: pathlib.Path) -> None:
    with (export / "large").open("wb") as file:
        file.truncate(200 * MIB)
    result = read_in_process(server.url("large"))
    assert result["received"] == 200 * MIB
    assert result["peak"] < 40 * MIB


def test_a_port_that_nobody_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = open_error(f"nfs://127.0.0.1:{port}/export/file")
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "Connection refused" in error.message


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = open_error(f"nfs://127.0.0.1:{listener.getsockname()[1]}/export/file", FAST)
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert "timeouts.connect" in error.message


def test_a_server_of_another_protocol() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        error = open_error(f"nfs://127.0.0.1:{listener.getsockname()[1]}/export/file", FAST)
        thread.join()
    assert error.reason in (Reason.SOURCE_UNREACHABLE, Reason.NFS_ERROR)


def test_a_lost_connection_is_no_end_of_the_file() -> None:
    lost = SourceError(Reason.TRUNCATED, "the connection broke")
    session: Any = types.SimpleNamespace(attributes=libnfs.Attributes(size=MIB), lost=lost)
    stream = nfs.NFSStream(session, Ask())
    with pytest.raises(SourceError) as caught:
        stream.readinto(memoryview(bytearray(10)))
    assert caught.value is lost


def test_more_bytes_than_asked_for_are_not_taken() -> None:
    taken: list[int] = []
    call = libnfs.Call(lambda count, _: taken.append(count), limit=10)
    call.finish(11, 1)
    assert (call.done, call.status < 0, taken) == (True, True, [])
    call.finish(10, 1)
    assert (call.status, taken) == (10, [10])


def test_without_the_library_nfs_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libnfs, "_SONAMES", (("libnfs.so.none", 5),))
    libnfs._load.cache_clear()
    try:
        error = open_error("nfs://127.0.0.1/export/file")
    finally:
        libnfs._load.cache_clear()
    assert error.reason is Reason.UNSUPPORTED_PROTOCOL
    assert "libnfs14" in error.message


def test_addresses_that_the_policy_denies_are_not_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"nfs://localhost:{listener.getsockname()[1]}/export/file"
        source = sources.create(url, SourceOptions(PATIENT, SourcePolicy(nfs_exports=None)))
        with pytest.raises(RequestError) as caught:
            source.open(Ask(), Guard.start(threading.Event()))
        assert caught.value.reason is Reason.URL_NOT_ALLOWED
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("nfs://host/export/file", "/export/file"),
        ("nfs://host:2050/export/images/debian%2013.qcow2", "/export/images/debian 13.qcow2"),
        ("nfs://host//export///file", "/export/file"),
        ("nfs://host/file", "/file"),
        ("nfs://host/export/100%25/a%3fb%23c", "/export/100%/a?b#c"),
        ("nfs://host/export/%252e%252e/file", "/export/%2e%2e/file"),
        ("nfs://host/export/caf%C3%A9", "/export/café"),
        ("nfs://host/export/..hidden/fi..le", "/export/..hidden/fi..le"),
        ("nfs://host/export/image (1).raw".replace(" ", "%20"), "/export/image (1).raw"),
    ],
)
def test_paths_that_are_allowed(url: str, path: str) -> None:
    assert "/" + "/".join(Url.parse(url).nfs_names) == path


@pytest.mark.parametrize(
    "url",
    [
        "nfs://host",
        "nfs://host/",
        "nfs://host/export/",
        "nfs://host/export/../etc/passwd",
        "nfs://host/export/%2e%2E/etc/passwd",
        "nfs://host/export/./file",
        "nfs://host/..",
        "nfs://host/export%2Ffile",
        "nfs://host/export/a%2fb",
        "nfs://host/export/file?version=3",
        "nfs://host/export/file?",
        "nfs://host/export/file#part",
        "nfs://host/export/a;reboot",
        "nfs://host/export/$(reboot)",
        "nfs://host/export/%24%28reboot%29",
        "nfs://host/export/`reboot`",
        "nfs://host/export/%60reboot%60",
        "nfs://host/export/a|b",
        "nfs://host/export/a%7Cb",
        "nfs://host/export/a%5Cb",
        "nfs://host/export/a%00b",
        "nfs://host/export/a%0Ab",
        "nfs://host/export/a%7Fb",
        "nfs://host/export/a%C2%85b",
        "nfs://host/export/a%FFb",
        "nfs://host/export/a%zzb",
        "nfs://host/export/a%",
        "nfs://-oProxyCommand/export/file",
        "nfs://user@host/export/file",
        "nfs://host/" + "a" * 256,
        "nfs://host/" + "a/" * 40 + "b",
        "nfs://host/" + "/".join(["a" * 200] * 6),
    ],
)
def test_paths_that_are_refused(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        sources.create(url, SourceOptions(PATIENT, POLICY))
    assert caught.value.reason is Reason.INVALID_URL
