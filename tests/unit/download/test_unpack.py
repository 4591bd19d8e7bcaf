"""Archives of templates: unpacked while they come, published as what they hold, checked as they were served."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pathlib
import signal
import threading
import zipfile

import pytest
from backports import zstd
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
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.download.store.record import read_record
from directdownload.download.transfer import unpack
from directdownload.download.transfer.journal import read_journal
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
#: half of it is zeros, as in an image
IMAGE = content(3 * MIB) + bytes(4 * MIB) + content(MIB + 5, seed=2)


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("any/../name.img", data)
    return file.getvalue()


ARCHIVES = {
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: zstd.compress(data, 1),
    "zip": zipped,
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_what_the_archive_holds_is_published(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, kind: str
) -> None:
    archive = ARCHIVES[kind](IMAGE)
    # the name says nothing: the content decides
    (served / "image.qcow2").write_bytes(archive)
    request = make_request(pool, origin.url("image.qcow2"), checksum=sha256(archive), image_format="RAW")
    result = fetch(request)
    assert (pool / "uid-1").read_bytes() == IMAGE
    assert (result.reason, result.size_bytes, result.served_bytes) == (Reason.DOWNLOADED, len(IMAGE), len(archive))
    assert (result.digest, result.format) == (sha256(archive), "RAW"), "the digest is of the bytes as served"
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}
    record = read_record(str(pool / ".directdownload/uid-1.record"))
    assert record is not None
    assert (record.digest, record.served_digest) == (sha256(IMAGE), sha256(archive))


def test_zeros_of_the_image_take_no_space(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.gz").write_bytes(gzip.compress(IMAGE, 1))
    assert fetch(make_request(pool, origin.url("image.gz"), image_format="RAW")).done
    assert (pool / "uid-1").stat().st_blocks * 512 <= len(IMAGE) - 3 * MIB


def test_a_published_image_is_found_again_and_verified_without_its_archive(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    archive = gzip.compress(IMAGE, 1)
    (served / "image.gz").write_bytes(archive)
    document = job_document(pool, url=origin.url("image.gz"), checksum=sha256(archive))
    assert run_job(document)[1].reason is Reason.DOWNLOADED
    again = run_job(document)[1]
    assert (again.reason, again.digest, again.served_bytes) == (Reason.ALREADY_PRESENT, sha256(archive), len(archive))
    verify = job_document(pool, "verify", checksum=sha256(archive), expectedDigest=sha256(archive))
    os.utime(pool / "uid-1", (1, 1))
    result = run_job(verify)[1]
    assert (result.reason, result.digest) == (Reason.VERIFIED, sha256(archive))
    with (pool / "uid-1").open("r+b") as file:
        file.write(b"altered")
    assert run_job(verify)[1].reason is Reason.ALTERED
    assert run_job(document)[1].reason is Reason.DOWNLOADED
    assert (pool / "uid-1").read_bytes() == IMAGE
    assert len(origin.wait_for_requests(2)) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_continues_the_archive(served: pathlib.Path, pool: pathlib.Path, number: signal.Signals) -> None:
    archive = gzip.compress(IMAGE, 1)
    (served / "image.gz").write_bytes(archive)
    journal = str(pool / ".directdownload/uid-1.kvm-1.journal")
    with Origin(served, rate=2 * MIB) as slow:
        document = job_document(pool, url=slow.url("image.gz"), checksum=sha256(archive))
        with start_job(document) as process:
            closely(
                "half of the archive is there",
                lambda: (kept := read_journal(journal)) and kept.bytes_on_disk > len(archive) // 2,
            )
            process.send_signal(number)
            process.communicate(timeout=120)
        kept = read_journal(journal)
        assert kept is not None
        result = run_job(document)[1]
        assert (result.reason, result.resumed_from) == (Reason.DOWNLOADED, kept.bytes_on_disk)
    assert (pool / "uid-1").read_bytes() == IMAGE
    assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}


@pytest.mark.parametrize("checksum", [True, False])
def test_data_behind_an_archive_are_mentioned(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, checksum: bool
) -> None:
    archive = gzip.compress(IMAGE, 1) + b"signed by somebody"
    (served / "image.gz").write_bytes(archive)
    expected = sha256(archive) if checksum else ""
    result = run_job(job_document(pool, url=origin.url("image.gz"), checksum=expected))[1]
    assert (pool / "uid-1").read_bytes() == IMAGE
    assert "; 18 bytes behind the end of the gz archive are ignored; " in result.message
    assert result.message.endswith("no multiple of 512, as that of a disk is: is it complete?")


@pytest.mark.parametrize(
    ("kind", "algorithm"), [*((kind, "sha256") for kind in ARCHIVES), ("gz", "md5"), ("zip", "sha512")]
)
def test_a_checksum_of_the_unpacked_file_is_told(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, kind: str, algorithm: str
) -> None:
    archive = ARCHIVES[kind](IMAGE)
    (served / "image").write_bytes(archive)
    unpacked, packed = (hashlib.new(algorithm, data).hexdigest() for data in (IMAGE, archive))
    request = make_request(pool, origin.url("image"), checksum=f"{algorithm}:{unpacked}", image_format="RAW")
    error = fetch_error(request)
    assert (error.reason, error.permanent) == (Reason.CHECKSUM_MISMATCH, True)
    assert f"is of the unpacked file: give the one of the file as served, {algorithm}:{packed}" in error.message
    assert leftovers(pool) == set(), "never published"


def test_a_job_tells_it_too(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(gzip.compress(IMAGE, 1))
    status, result = run_job(job_document(pool, url=origin.url("image"), checksum=sha256(IMAGE)))
    assert (status, result.reason) == (3, Reason.CHECKSUM_MISMATCH)
    assert "is of the unpacked file" in result.message


@pytest.mark.parametrize(
    ("served_bytes", "wanted"),
    [
        # more than the largest image allowed
        (gzip.compress(bytes(20 * MIB), 1), bytes(20 * MIB)),
        (gzip.compress(IMAGE, 1)[:-1], IMAGE),
        (gzip.compress(IMAGE + b"x", 1), IMAGE),
        (IMAGE + b"x", IMAGE),
    ],
    ids=["too large", "cut", "other", "no archive"],
)
def test_a_checksum_that_fits_nothing_is_only_a_mismatch(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, served_bytes: bytes, wanted: bytes
) -> None:
    (served / "image").write_bytes(served_bytes)
    limits = Limits(max_virtual_size_bytes=MIB, progress_interval_seconds=0.05)
    request = make_request(pool, origin.url("image"), checksum=sha256(wanted), image_format="RAW", limits=limits)
    error = fetch_error(request)
    # the unpacking may have met the limit before
    assert error.reason in (Reason.CHECKSUM_MISMATCH, Reason.TOO_LARGE)
    assert "unpacked file" not in error.message
    assert leftovers(pool) == set()


def test_advice_about_a_checksum_is_not_waited_for_without_end(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unpacking stands still until it is given up."""
    monkeypatch.setattr(unpack.Unpack, "_put", lambda self, *_: self._cancelled.wait())
    monkeypatch.setattr(unpack, "_ADVICE_SECONDS", 0.01)
    (served / "image").write_bytes(gzip.compress(IMAGE, 1))
    limits = Limits(deadline_seconds=30, progress_interval_seconds=0.05)
    request = make_request(pool, origin.url("image"), checksum=sha256(IMAGE), image_format="RAW", limits=limits)
    error = fetch_error(request)
    assert error.reason is Reason.CHECKSUM_MISMATCH
    assert "unpacked file" not in error.message
    assert leftovers(pool) == set()


def test_a_job_that_is_stopped_waits_for_no_advice(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def put(self: unpack.Unpack, *_: object) -> None:
        if self._complete.wait():
            stop.set()

    monkeypatch.setattr(unpack.Unpack, "_put", put)
    (served / "image").write_bytes(gzip.compress(IMAGE, 1))
    request = make_request(pool, origin.url("image"), checksum=sha256(IMAGE), image_format="RAW")
    assert fetch_error(request, stop).reason is Reason.INTERRUPTED


@pytest.mark.parametrize("checksum", [True, False])
def test_an_archive_that_is_cut_off_is_told(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, checksum: bool
) -> None:
    archive = gzip.compress(IMAGE, 1)[:-1000]
    (served / "image.gz").write_bytes(archive)
    request = make_request(
        pool, origin.url("image.gz"), image_format="RAW", checksum=sha256(archive) if checksum else ""
    )
    error = fetch_error(request)
    assert (error.reason, error.permanent) == (Reason.DECOMPRESSION_FAILED, True)
    assert leftovers(pool) == set()


def test_a_damaged_archive_is_a_bad_download_first(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    """With a checksum the source is to blame, and the next one is asked."""
    archive = gzip.compress(IMAGE, 1)
    (served / "bad.gz").write_bytes(archive[:100_000] + bytes(100_000) + archive[200_000:])
    (served / "image.gz").write_bytes(archive)
    request = make_request(
        pool,
        origin.url("bad.gz"),
        mirrors=(origin.url("image.gz"),),
        image_format="RAW",
        checksum=sha256(archive),
    )
    assert fetch(request).done
    assert (pool / "uid-1").read_bytes() == IMAGE


def test_a_bomb_ends_at_the_largest_image_allowed(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.gz").write_bytes(gzip.compress(bytes(200 * MIB), 1))
    limits = Limits(max_virtual_size_bytes=MIB, progress_interval_seconds=0.05)
    error = fetch_error(make_request(pool, origin.url("image.gz"), image_format="RAW", limits=limits))
    assert error.reason is Reason.TOO_LARGE
    assert "downloads.maxVirtualSize" in error.message
    assert leftovers(pool) == set()


def test_an_archive_within_an_archive_is_no_image(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.gz.gz").write_bytes(gzip.compress(gzip.compress(IMAGE, 1), 1))
    error = fetch_error(make_request(pool, origin.url("image.gz.gz"), image_format="RAW"))
    assert error.reason is Reason.FORMAT_MISMATCH
    assert leftovers(pool) == set()


def test_an_iso_is_never_unpacked(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.iso").write_bytes(gzip.compress(IMAGE, 1))
    assert fetch_error(make_request(pool, origin.url("image.iso"), image_format="ISO")).reason is Reason.FORMAT_MISMATCH


def test_without_a_format_the_archive_is_kept_as_it_is(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    archive = gzip.compress(IMAGE, 1)
    (served / "image.gz").write_bytes(archive)
    assert fetch(make_request(pool, origin.url("image.gz"))).done
    assert (pool / "uid-1").read_bytes() == archive


@pytest.mark.parametrize("size", [1, 5, 6])
def test_files_shorter_than_any_mark(origin: Origin, served: pathlib.Path, pool: pathlib.Path, size: int) -> None:
    (served / "image").write_bytes(b"\1" * size)
    assert fetch(make_request(pool, origin.url("image"), image_format="RAW")).size_bytes == size
