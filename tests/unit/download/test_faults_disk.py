"""Disks that are full, dying or tampered with: the right reason, nothing under the final name, and the next attempt."""

import errno
import gzip
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.download.support import content, fetch, fetch_error, leftovers, make_request, sha256
from tests.world.faulty_fs import Fault, FaultyFileSystem
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.download.request import FetchRequest
from directdownload.download.store import sync
from directdownload.download.transfer.journal import Journal, read_journal
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
DATA = content(6 * MIB + 4321)
HALF = len(DATA) // 2
WORK = ".directdownload"
JOURNAL, PART, OUT = (f"{WORK}/uid-1.kvm-1.{suffix}" for suffix in ("journal", "part", "out"))

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.W_OK) or shutil.which("umount") is None, reason="FUSE cannot be used here"
)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[FaultyFileSystem]:
    directory = tmp_path / "disk"
    directory.mkdir()
    with FaultyFileSystem(directory) as mounted:
        yield mounted


def served_as(served: pathlib.Path, data: bytes) -> str:
    (served / "image").write_bytes(data)
    return "image"


def limits(connections: int = 0) -> Limits:
    return Limits(progress_interval_seconds=0.05, connections=connections)


#: what fails when, with which reason; whether what was received is kept for the next attempt
WRITES = [
    (Fault("write", errno.ENOSPC, ".part", skip=20), Reason.INSUFFICIENT_SPACE),
    (Fault("write", errno.EDQUOT, ".part", skip=3), Reason.INSUFFICIENT_SPACE),
    (Fault("write", errno.ENOSPC, ".part"), Reason.INSUFFICIENT_SPACE),
    (Fault("write", errno.EIO, ".part", skip=20), Reason.WRITE_FAILED),
    (Fault("write", errno.EROFS, ".part", skip=20), Reason.WRITE_FAILED),
    (Fault("fallocate", errno.ENOSPC, ".part"), Reason.INSUFFICIENT_SPACE),
    (Fault("fallocate", errno.EIO, ".part"), Reason.WRITE_FAILED),
    (Fault("truncate", errno.EIO, ".part"), Reason.WRITE_FAILED),
    (Fault("fsync", errno.EIO, ".part"), Reason.WRITE_FAILED),
    (Fault("fsync", errno.ENOSPC, ".part"), Reason.INSUFFICIENT_SPACE),
    (Fault("fsync", errno.EIO, ".record.tmp"), Reason.WRITE_FAILED),
    (Fault("write", errno.ENOSPC, ".record.tmp"), Reason.INSUFFICIENT_SPACE),
    (Fault("write", errno.ENOSPC, ".journal.tmp"), Reason.INSUFFICIENT_SPACE),
    (Fault("create", errno.EIO, ".journal.tmp"), Reason.WRITE_FAILED),
    (Fault("rename", errno.EIO, ".journal"), Reason.WRITE_FAILED),
    (Fault("rename", errno.EIO, "/uid-1"), Reason.WRITE_FAILED),
    (Fault("rename", errno.ENOSPC, "/uid-1"), Reason.INSUFFICIENT_SPACE),
]


@needs_fuse
@pytest.mark.parametrize("connections", [0, 4])
@pytest.mark.parametrize(("fault", "reason"), WRITES, ids=lambda value: str(getattr(value, "operation", value)))
def test_a_disk_that_fails_gives_no_file_and_the_next_attempt_completes(
    origin: Origin,
    served: pathlib.Path,
    disk: FaultyFileSystem,
    fault: Fault,
    reason: Reason,
    connections: int,
) -> None:
    url = origin.url(served_as(served, DATA))
    request = make_request(disk.path, url, checksum=sha256(DATA), limits=limits(connections))
    disk.fail(fault)
    error = fetch_error(request)
    assert (error.reason, error.permanent) == (reason, False)
    assert os.strerror(fault.number) in error.message
    assert not (disk.backing / "uid-1").exists()
    if reason is Reason.INSUFFICIENT_SPACE:
        assert not leftovers(disk.backing) & {PART, JOURNAL, OUT}, "a full disk gets back what there is"
    disk.fail()
    assert fetch(request).done
    assert (disk.backing / "uid-1").read_bytes() == DATA
    # what was removed while it was open goes a moment after it is closed
    closely("it is published", lambda: leftovers(disk.backing) == {"uid-1", f"{WORK}/uid-1.record"})


@needs_fuse
def test_what_was_synced_before_the_disk_failed_is_not_fetched_again(
    served: pathlib.Path, disk: FaultyFileSystem
) -> None:
    with Origin(served, rate=8 * MIB) as origin:
        request = make_request(disk.path, origin.url(served_as(served, DATA)), checksum=sha256(DATA))
        failures: list[Any] = []
        thread = threading.Thread(target=lambda: failures.append(fetch_error(request)))
        thread.start()
        closely(
            "two MiB are on disk",
            lambda: (kept := read_journal(str(disk.backing / JOURNAL))) and kept.bytes_on_disk > 2 * MIB,
        )
        disk.fail(Fault("write", errno.EIO, ".part"))
        thread.join()
        assert failures[0].reason is Reason.WRITE_FAILED
        kept = read_journal(str(disk.backing / JOURNAL))
        assert kept is not None
        disk.fail()
        assert fetch(request).resumed_from == kept.bytes_on_disk > 2 * MIB
    assert (disk.backing / "uid-1").read_bytes() == DATA


@needs_fuse
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("write", errno.ENOSPC, ".out", skip=8), Reason.INSUFFICIENT_SPACE),
        (Fault("write", errno.EIO, ".out", skip=8), Reason.WRITE_FAILED),
        (Fault("create", errno.EACCES, ".out"), Reason.WRITE_FAILED),
        (Fault("fsync", errno.EIO, ".out"), Reason.WRITE_FAILED),
        (Fault("read", errno.EIO, ".part"), Reason.WRITE_FAILED),
        (Fault("rename", errno.EIO, "/uid-1"), Reason.WRITE_FAILED),
    ],
    ids=lambda value: str(getattr(value, "operation", value)),
)
def test_a_disk_that_fails_while_it_takes_what_an_archive_holds(
    origin: Origin, served: pathlib.Path, disk: FaultyFileSystem, fault: Fault, reason: Reason
) -> None:
    archive = gzip.compress(DATA, 1)
    request = make_request(
        disk.path, origin.url(served_as(served, archive)), checksum=sha256(archive), image_format="RAW"
    )
    disk.fail(fault)
    error = fetch_error(request)
    assert (error.reason, error.permanent) == (reason, False)
    assert not (disk.backing / "uid-1").exists()
    disk.fail()
    assert fetch(request).done
    assert (disk.backing / "uid-1").read_bytes() == DATA
    # what was removed while it was open goes a moment after it is closed
    closely("it is published", lambda: leftovers(disk.backing) == {"uid-1", f"{WORK}/uid-1.record"})


@needs_fuse
def test_a_part_that_cannot_be_read_back_is_told(served: pathlib.Path, origin: Origin, disk: FaultyFileSystem) -> None:
    url = origin.url(served_as(served, DATA))
    request = make_request(disk.path, url, checksum=sha256(DATA))
    left_behind(disk.path, request)
    disk.fail(Fault("read", errno.EIO, ".part"))
    error = fetch_error(request)
    assert error.reason is Reason.WRITE_FAILED
    assert "read back" in error.message
    disk.fail()
    assert fetch(request).resumed_from >= HALF


def test_a_sync_that_fails_while_the_last_bytes_are_hashed_is_not_lost(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it once: the sync before publishing would be told nothing."""
    syncing: list[sync.Sync] = []
    begin = sync.Sync.begin

    def note(self: sync.Sync) -> None:
        syncing.append(self)
        begin(self)

    monkeypatch.setattr(sync.Sync, "begin", note)

    def fail_at_the_end(_descriptor: int) -> None:
        closely("it has ended", lambda: syncing[0]._ended.is_set())
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fdatasync", fail_at_the_end)
    request = make_request(pool, origin.url(served_as(served, DATA)), limits=Limits(progress_interval_seconds=0.001))
    assert fetch_error(request).reason is Reason.WRITE_FAILED
    assert not (pool / "uid-1").exists()


def left_behind(pool: pathlib.Path, request: FetchRequest) -> dict[str, Any]:
    """Part and journal of an attempt that got half of DATA."""
    (pool / WORK).mkdir(exist_ok=True)
    (pool / PART).write_bytes(DATA[:HALF])
    (pool / PART).chmod(0o600)
    journal = {
        "version": 2,
        "source": "http://127.0.0.1/image",
        "sources": [{"digest": request.source(request.url, first=True).url.digest}],
        "sizeBytes": len(DATA),
        "ranges": [[0, HALF]],
        "bytesOnDisk": HALF,
        "startedTime": "2026-01-01T00:00:00Z",
        "updatedTime": "2026-01-01T00:00:00Z",
    }
    assert Journal.model_validate_json(json.dumps(journal))
    (pool / JOURNAL).write_text(json.dumps(journal))
    return journal


def make_longer(pool: pathlib.Path) -> None:
    with (pool / PART).open("ab") as part:
        part.write(b"x" * (2 * len(DATA)))


def truncate_journal(pool: pathlib.Path) -> None:
    os.truncate(pool / JOURNAL, 100)


def replace(path: str, make: Callable[[pathlib.Path], object]) -> Callable[[pathlib.Path], None]:
    def tamper(pool: pathlib.Path) -> None:
        (pool / path).unlink(missing_ok=True)
        make(pool / path)

    return tamper


OTHER = pathlib.Path("/etc/hostname")


@pytest.mark.parametrize(
    ("tamper", "resumed"),
    [
        (lambda pool: None, HALF),
        (make_longer, HALF),
        (lambda pool: os.truncate(pool / PART, HALF - 1), 0),
        (lambda pool: os.truncate(pool / PART, 0), 0),
        (lambda pool: (pool / PART).unlink(), 0),
        (truncate_journal, 0),
        (lambda pool: os.truncate(pool / JOURNAL, 0), 0),
        (lambda pool: (pool / JOURNAL).write_bytes(os.urandom(500)), 0),
        (lambda pool: (pool / JOURNAL).unlink(), 0),
        (replace(JOURNAL, lambda path: path.symlink_to(OTHER)), 0),
        (replace(JOURNAL, os.mkfifo), 0),
        (lambda pool: (pool / OUT).write_bytes(b"of a crash"), HALF),
        (lambda pool: (pool / f"{JOURNAL}.tmp").write_bytes(b"of a crash"), HALF),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_what_a_crash_or_a_stranger_left_is_used_only_where_it_fits(
    origin: Origin,
    served: pathlib.Path,
    pool: pathlib.Path,
    tamper: Callable[[pathlib.Path], None],
    resumed: int,
    archive: bool,
) -> None:
    request = make_request(
        pool, origin.url(served_as(served, DATA)), checksum=sha256(DATA), image_format="RAW" if archive else ""
    )
    left_behind(pool, request)
    tamper(pool)
    assert fetch(request).resumed_from == resumed
    assert (pool / "uid-1").read_bytes() == DATA
    assert leftovers(pool) - {f"{JOURNAL}.tmp"} == {"uid-1", f"{WORK}/uid-1.record"}


@pytest.mark.parametrize(
    ("changes", "checksum", "resumed"),
    [
        # of another file: without a digest it must be of this source, and of a version that has a name
        ({"sources": [{"digest": "0" * 64, "validator": '"x"'}]}, False, 0),
        ({"sources": []}, False, 0),
        ({}, False, 0),
        ({"sizeBytes": len(DATA) * 2}, True, 0),
        ({"sizeBytes": HALF}, True, 0),
        ({"sizeBytes": None}, True, HALF),
        ({"sizeBytes": None, "ranges": [[10, HALF]]}, True, 0),
        ({"ranges": [[10, HALF]]}, True, HALF - 10),
        ({"ranges": [[10, 20], [30, 31], [100, HALF]]}, True, 10 + 1 + HALF - 100),
        # what a header cannot hold
        ({"sources": [{"digest": "SOURCE", "validator": "\u20ac"}]}, False, 0),
        ({"sources": [{"digest": "SOURCE", "validator": "a\r\nX-Token: injected"}]}, True, 0),
        ({"placement": "another", "placementUid": "another"}, True, HALF),
    ],
)
def test_a_journal_of_something_else(
    origin: Origin,
    served: pathlib.Path,
    pool: pathlib.Path,
    changes: dict[str, Any],
    checksum: bool,
    resumed: int,
) -> None:
    url = origin.url(served_as(served, DATA))
    request = make_request(pool, url, checksum=sha256(DATA) if checksum else "")
    left_behind(pool, request)
    digest = request.source(url, first=True).url.digest
    changed = {**json.loads((pool / JOURNAL).read_text()), **changes}
    (pool / JOURNAL).write_text(json.dumps(changed).replace("SOURCE", digest))
    result = fetch(request)
    assert {asked.token for asked in origin.wait_for_requests(1)} == {""}
    assert (result.resumed_from, result.size_bytes, result.digest) == (resumed, len(DATA), sha256(DATA))
    assert (pool / "uid-1").read_bytes() == DATA


@pytest.mark.parametrize("path", [PART, OUT])
def test_what_lies_in_the_way_is_never_followed(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, tmp_path: pathlib.Path, path: str
) -> None:
    """A link does no harm to what it points to; a directory is told."""
    archive = gzip.compress(DATA, 1)
    request = make_request(pool, origin.url(served_as(served, archive)), checksum=sha256(archive), image_format="RAW")
    precious = tmp_path / "precious"
    precious.write_bytes(b"of somebody else")
    (pool / WORK).mkdir()
    (pool / path).symlink_to(precious)
    if path == PART:
        assert fetch_error(request).reason is Reason.WRITE_FAILED
        (pool / path).unlink()
    else:
        assert fetch(request).done
        (pool / "uid-1").unlink()
    assert precious.read_bytes() == b"of somebody else"
    (pool / path).mkdir()
    assert fetch_error(request).reason is Reason.WRITE_FAILED
    assert not (pool / "uid-1").exists()
    (pool / path).rmdir()
    assert fetch(request).done
    assert (pool / "uid-1").read_bytes() == DATA
