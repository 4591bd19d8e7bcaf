"""Continuing: after kill -9, after a cut connection, and only ever with bytes of the same version."""

import json
import os
import pathlib
import signal
import socket

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
    start_job,
)
from tests.world.http import HostileServer, RangeServer, Received, answer
from tests.world.waiting import closely

from directdownload.download.sources import metalink
from directdownload.download.transfer.journal import Journal, read_journal
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason

DATA = content(6_000_000)
HALF = len(DATA) // 2
JOURNAL = ".directdownload/uid-1.kvm-1.journal"
PART = ".directdownload/uid-1.kvm-1.part"


def half_way(pool: pathlib.Path) -> Journal | None:
    journal = read_journal(str(pool / JOURNAL))
    return journal if journal and journal.bytes_on_disk >= HALF else None


def interrupt_at_half(document: dict[str, object], pool: pathlib.Path, number: signal.Signals) -> Journal:
    with start_job(document) as process:
        closely("it is half way", lambda: half_way(pool))
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        if number is signal.SIGTERM:
            result = JobResult.model_validate_json(output.splitlines()[-1])
            assert (process.returncode, result.reason) == (1, Reason.INTERRUPTED)
        else:
            assert process.returncode == -signal.SIGKILL
    journal = half_way(pool)
    assert journal is not None
    return journal


def stalling() -> RangeServer:
    """Each of its connections sends a little more than half of DATA, and waits: the job is met on its way."""
    return RangeServer(DATA, stall_after=HALF + 1_000_000)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_continues_where_its_journal_says(pool: pathlib.Path, number: signal.Signals) -> None:
    with stalling() as origin:
        document = job_document(pool, url=origin.url(), checksum=sha256(DATA))
        journal = interrupt_at_half(document, pool, number)
        assert journal.size_bytes == len(DATA)
        assert leftovers(pool) == {JOURNAL, PART}
        sent_before = origin.sent_bytes
        status, result = run_job(document)
        assert (status, result.reason) == (0, Reason.DOWNLOADED)
        assert result.resumed_from == journal.bytes_on_disk
        assert origin.sent_bytes - sent_before == len(DATA) - journal.bytes_on_disk
    _, second = origin.received
    assert second.headers["range"] == f"bytes={journal.bytes_on_disk}-"
    # the checksum says in the end whether it was the same version
    assert "if-range" not in second.headers
    assert (pool / "uid-1").read_bytes() == DATA


def test_what_a_sigterm_finds_is_kept_to_the_byte(pool: pathlib.Path) -> None:
    with stalling() as origin:
        document = job_document(pool, url=origin.url())
        document["limits"] = {"progressIntervalSeconds": 3600}
        with start_job(document) as process:
            closely(
                "its first half is there",
                lambda: (pool / PART).exists() and (pool / PART).read_bytes()[:HALF] == DATA[:HALF],
            )
            process.terminate()
            process.communicate(timeout=120)
    journal = read_journal(str(pool / JOURNAL))
    assert journal is not None
    kept = journal.bytes_on_disk
    assert HALF <= kept < len(DATA)
    assert (pool / PART).read_bytes() == DATA[:kept] + bytes(len(DATA) - kept)


def versions(first: str, second: str) -> HostileServer:
    """Sends half of DATA with the headers `first`, then everything with `second`, with ranges if they are asked for."""

    def respond(connection: socket.socket, request: Received, number: int) -> None:
        if number == 0:
            answer(connection, DATA[:HALF], headers=first, length=len(DATA))
            return
        condition = request.headers.get("if-range")
        if request.range and (condition is None or condition in second):
            start, high = request.range
            last = len(DATA) - 1 if high is None else high
            content_range = f"Content-Range: bytes {start}-{last}/{len(DATA)}\r\n"
            answer(connection, DATA[start : last + 1], status="206 Partial", headers=second + content_range)
        else:
            answer(connection, DATA, headers=second)

    return HostileServer(respond)


ETAG_1, ETAG_2, WEAK = 'ETag: "one"\r\n', 'ETag: "two"\r\n', 'ETag: W/"one"\r\n'
DATE = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n"


@pytest.mark.parametrize(
    ("first", "second", "checksum", "asked", "resumed"),
    [
        (ETAG_1, ETAG_1, "", '"one"', True),
        (ETAG_1, ETAG_2, "", '"one"', False),
        (DATE, DATE, "", "Wed, 21 Oct 2015 07:28:00 GMT", True),
        (WEAK + DATE, WEAK + DATE, "", "Wed, 21 Oct 2015 07:28:00 GMT", True),
        # a version that nothing names is only continued where a checksum will show
        (WEAK, WEAK, "", None, False),
        ("", "", "", None, False),
        ("", "", sha256(DATA), None, True),
    ],
)
def test_validators(
    pool: pathlib.Path, first: str, second: str, checksum: str, asked: str | None, resumed: bool
) -> None:
    with versions(first, second) as server:
        request = make_request(pool, server.url(), checksum=checksum)
        assert fetch_error(request).reason is Reason.TRUNCATED
        result = fetch(request)
        assert server.received[1].headers.get("if-range") == asked
        assert len(server.received) == 2
    assert result.resumed_from == (HALF if resumed else 0)
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize(
    "content_range",
    [
        f"Content-Range: bytes 0-{len(DATA) - 1}/{len(DATA)}\r\n",
        f"Content-Range: bytes {HALF}-{len(DATA) - 2}/{len(DATA)}\r\n",
        f"Content-Range: bytes {HALF}-{len(DATA)}/{len(DATA) + 1}\r\n",
        f"Content-Range: bytes {HALF}-{len(DATA) - 1}/*\r\n",
        "Content-Range: pages 1-2/3\r\n",
        "",
        f'ETag: "two"\r\nContent-Range: bytes {HALF}-{len(DATA) - 1}/{len(DATA)}\r\n',
    ],
)
def test_a_server_that_bungles_ranges_is_asked_for_everything(pool: pathlib.Path, content_range: str) -> None:
    def respond(connection: socket.socket, request: Received, number: int) -> None:
        if number == 0:
            answer(connection, DATA[:HALF], headers=ETAG_1, length=len(DATA))
        elif "range" in request.headers:
            answer(connection, DATA[HALF:], status="206 Partial", headers=content_range)
        else:
            answer(connection, DATA, headers=ETAG_1)

    with HostileServer(respond) as server:
        request = make_request(pool, server.url())
        fetch_error(request)
        assert fetch(request).resumed_from == 0
        assert len(server.received) == 3
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_file_that_became_shorter_is_fetched_anew(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, request: Received, number: int) -> None:
        if number == 0:
            answer(connection, DATA[:HALF], headers=ETAG_1, length=len(DATA))
        elif "range" in request.headers:
            answer(connection, b"", status="416 Range Not Satisfiable", headers="Content-Range: bytes */1000\r\n")
        else:
            answer(connection, DATA[:1000], headers=ETAG_2)

    with HostileServer(respond) as server:
        request = make_request(pool, server.url())
        fetch_error(request)
        assert fetch(request).size_bytes == 1000
    assert (pool / "uid-1").read_bytes() == DATA[:1000]


def test_a_range_from_elsewhere_is_not_taken(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, request: Received, number: int) -> None:
        if number == 0:
            answer(connection, DATA[:HALF], headers=ETAG_1, length=len(DATA))
        elif "range" in request.headers:
            headers = f"{ETAG_1}Content-Range: bytes {HALF - 1000}-{len(DATA) - 1}/{len(DATA)}\r\n"
            answer(connection, DATA[HALF - 1000 :], status="206 Partial", headers=headers)
        else:
            answer(connection, DATA, headers=ETAG_1)

    with HostileServer(respond) as server:
        request = make_request(pool, server.url())
        fetch_error(request)
        assert fetch(request).digest == sha256(DATA)
        assert len(server.received) == 3


def test_a_source_that_refuses_for_good_leaves_no_part(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, number: int) -> None:
        if number == 0:
            answer(connection, DATA[:HALF], headers=ETAG_1, length=len(DATA))
        else:
            answer(connection, b"", status="404 Not Found")

    with HostileServer(respond) as server:
        request = make_request(pool, server.url())
        assert fetch_error(request).reason is Reason.TRUNCATED
        assert leftovers(pool) == {JOURNAL, PART}
        assert fetch_error(request).reason is Reason.SOURCE_REFUSED
    assert leftovers(pool) == set()


def damage_part(pool: pathlib.Path) -> None:
    with (pool / PART).open("r+b") as part:
        part.write(b"damaged")


def test_a_damaged_part_costs_one_restart_from_zero(pool: pathlib.Path) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        request = make_request(pool, server.url(), checksum=sha256(DATA))
        fetch_error(request)
        damage_part(pool)
        result = fetch(request)
        assert [request.headers.get("range") for request in server.received] == [None, f"bytes={HALF}-", None]
    assert (result.reason, result.resumed_from) == (Reason.DOWNLOADED, 0)
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_wrong_checksum_fails_after_one_restart_and_leaves_nothing(pool: pathlib.Path) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        request = make_request(pool, server.url(), checksum=sha256(b"other"))
        fetch_error(request)
        assert fetch_error(request).reason is Reason.CHECKSUM_MISMATCH
        assert len(server.received) == 3
    assert leftovers(pool) == set()


def rewrite(pool: pathlib.Path, **changes: object) -> None:
    journal = json.loads((pool / JOURNAL).read_text())
    (pool / JOURNAL).write_text(json.dumps({**journal, **changes}))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"sources": [{"digest": "0" * 64, "validator": "x"}]},
        {"ranges": [[0, len(DATA) * 2]]},
        {"ranges": [[0, HALF], [10, HALF]]},
        {"ranges": [[10, 10]]},
        {"ranges": [[-10, 10]]},
        {"ranges": [[0, HALF]], "sizeBytes": HALF - 1},
        {"bytesOnDisk": -1},
        {"unknown": 1},
    ],
)
def test_a_journal_that_does_not_fit_is_discarded(pool: pathlib.Path, change: dict[str, object]) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        request = make_request(pool, server.url())
        fetch_error(request)
        rewrite(pool, **change)
        assert fetch(request).resumed_from == 0
        # bytes of other sources may have come from a metalink: one look whether the URL leads to one
        looked = [f"bytes=0-{metalink.HEAD_BYTES - 1}"] if "sources" in change else []
        assert [received.headers.get("range") for received in server.received] == [None, *looked, None]
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("garbage", [b"", b"{", b"\x00" * 1000, b"[" * 60_000, b"{}" + b" " * 100_000])
def test_a_corrupt_journal_is_discarded(pool: pathlib.Path, garbage: bytes) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        request = make_request(pool, server.url())
        fetch_error(request)
        (pool / JOURNAL).write_bytes(garbage)
        assert fetch(request).resumed_from == 0


def test_a_complete_part_needs_no_source(pool: pathlib.Path) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        request = make_request(pool, server.url(), checksum=sha256(DATA))
        fetch_error(request)
        (pool / PART).write_bytes(DATA)
        (pool / PART).chmod(0o600)
        rewrite(pool, ranges=[[0, len(DATA)]])
        result = fetch(request)
        assert len(server.received) == 1
    assert (result.reason, result.resumed_from) == (Reason.DOWNLOADED, len(DATA))
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_mirror_that_cannot_be_reached_costs_no_progress(pool: pathlib.Path) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        request = make_request(pool, server.url(), mirrors=("http://127.0.0.1:9/none",))
        assert fetch_error(request).reason is Reason.TRUNCATED
        assert fetch(request).resumed_from == HALF


def test_journals_hold_no_secrets_and_nothing_else_reads_as_one(pool: pathlib.Path) -> None:
    with versions(ETAG_1, ETAG_1) as server:
        fetch_error(make_request(pool, server.url("file?signature=secret"), placement="p", placement_uid="u"))
    assert b"secret" not in (pool / JOURNAL).read_bytes()
    os.symlink("/etc/hostname", pool / ".directdownload/link.journal")
    os.mkfifo(pool / ".directdownload/fifo.journal")
    (pool / ".directdownload/garbage.journal").write_bytes(os.urandom(100))
    names = {path.name for path in (pool / ".directdownload").glob("*.journal")}
    assert len(names) == 4
    found = {name: read_journal(str(pool / ".directdownload" / name)) for name in names}
    [(name, journal)] = [(name, journal) for name, journal in found.items() if journal is not None]
    assert name == pathlib.Path(JOURNAL).name
    assert (journal.placement, journal.placement_uid) == ("p", "u")
    assert (journal.bytes_on_disk, journal.size_bytes) == (HALF, len(DATA))
    assert journal.source == server.url()


def test_where_there_is_no_journal_none_is_read(tmp_path: pathlib.Path) -> None:
    assert read_journal(str(tmp_path / "none")) is None
