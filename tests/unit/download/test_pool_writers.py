"""Whoever may write a pool: what they put there decides nothing, and nothing of theirs is written to."""

import contextlib
import datetime
import errno
import gzip
import os
import pathlib
import subprocess
import threading
from typing import Any

import pytest
from tests.unit.download.support import content, job_document, run_job, sha256
from tests.world.origin import Origin

from directdownload.download import job, lock
from directdownload.download.guard import Guard
from directdownload.download.sources.urls import Url
from directdownload.download.store import publish
from directdownload.download.store.record import Record
from directdownload.download.transfer.journal import Journal, JournalSource
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

DATA = content(2_500_000)
RECORD = ".directdownload/uid-1.record"


def run(document: dict[str, Any]) -> JobResult:
    return job.run_job(JobDocument.model_validate(document), threading.Event())


@pytest.fixture
def published(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> pathlib.Path:
    """A pool into which the image has been fetched."""
    (served / "image").write_bytes(DATA)
    assert run(job_document(pool, url=origin.url("image"))).reason is Reason.DOWNLOADED
    return pool


@pytest.mark.parametrize("fields", [{}, {"served_digest": "sha256:" + "0" * 64}])
@pytest.mark.parametrize("told", ["checksum", "expectedDigest", "publishedDigest"])
def test_a_forged_record_makes_no_file_a_good_one(
    published: pathlib.Path, origin: Origin, told: str, fields: dict[str, str]
) -> None:
    """Whoever may write the pool puts another file there, with a record of it."""
    image = published / "uid-1"
    image.write_bytes(b"evil" * (len(DATA) // 4))
    served = {"served_digest": sha256(DATA), "checksum": sha256(DATA)} if fields else {}
    forged = Record.of(image.stat(), path=str(image), digest=sha256(image.read_bytes()), checksum=sha256(DATA))
    forged.model_copy(update={"placement_uid": "placement-uid", **served}).write(str(published / RECORD))
    for seals in ("", str(published.parent / "seals")):
        document = {told: sha256(DATA), "sealDirectory": seals}
        assert run(job_document(published, "verify", **document)).reason is Reason.ALTERED
    if told != "publishedDigest":
        result = run(job_document(published, url=origin.url("image"), **{told: sha256(DATA)}))
        assert (result.reason, image.read_bytes() == DATA) == (Reason.DOWNLOADED, True)


def test_without_anything_to_compare_with_a_forged_record_decides_nothing(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    (served / "image").write_bytes(DATA)
    image = pool / "uid-1"
    image.write_bytes(b"evil")
    (pool / ".directdownload").mkdir()
    Record.of(image.stat(), path=str(image), digest=sha256(b"evil"), checksum="").write(str(pool / RECORD))
    result = run(job_document(pool, url=origin.url("image")))
    assert (result.reason, result.digest, image.read_bytes() == DATA) == (Reason.DOWNLOADED, sha256(DATA), True)


def test_an_image_that_was_put_there_is_inspected_whatever_its_digest(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    """A qcow2 with a backing file, and a record that says it was inspected: the digest is the attacker's own."""
    image = pool / "uid-1"
    backed = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(image), "1M"]
    subprocess.run(backed, check=True)
    digest = sha256(image.read_bytes())
    (pool / ".directdownload").mkdir()
    known = Record.of(image.stat(), path=str(image), digest=digest, checksum=digest)
    known.model_copy(update={"format": "QCOW2", "placement_uid": "placement-uid"}).write(str(pool / RECORD))
    result = run(job_document(pool, url=origin.url("image"), format="QCOW2", expectedDigest=digest))
    assert result.reason is Reason.UNSAFE_IMAGE


@pytest.mark.parametrize("name", ["uid-1.kvm-1.part", "uid-1.lock", "uid-1.kvm-1.out"])
@pytest.mark.parametrize(("uid", "mode", "links"), [(0, 0o600, 2), (0, 0o640, 1), (4711, 0o600, 1)])
def test_what_others_have_put_there_is_not_written_to(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path, name: str, uid: int, mode: int, links: int
) -> None:
    """A second name of a file outside of the pool, or a file of theirs, under a name that a job opens for writing."""
    archive = gzip.compress(DATA, 1)
    (served / "image").write_bytes(archive)
    pool = tmp_path / "pool"
    (pool / ".directdownload").mkdir(parents=True)
    put, precious = pool / ".directdownload" / name, tmp_path / "precious"
    put.write_bytes(b"precious")
    put.chmod(mode)
    os.chown(put, uid, uid)
    if links > 1:
        os.link(put, precious)
    with put.open("rb") as theirs:
        status, result = run_job(job_document(pool, url=origin.url("image"), checksum=sha256(archive)))
        assert (status, result.reason) == (0, Reason.DOWNLOADED), result
        assert (pool / "uid-1").read_bytes() == DATA
        state = os.fstat(theirs.fileno())
        assert theirs.read() == b"precious"
        assert (state.st_uid, state.st_mode & 0o7777, state.st_nlink) == (uid, mode, links - 1)
        assert state.st_ino != (pool / "uid-1").stat().st_ino


def test_our_part_is_ours_also_where_the_file_system_gives_it_to_another(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NFS server that makes root nobody: what we made is compared with what we make."""
    path, guard = tmp_path / "part", Guard.start(threading.Event(), 5)
    descriptor, _ = lock.acquire(str(path), guard)
    os.write(descriptor, b"received")
    os.close(descriptor)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    again, _ = lock.acquire(str(path), guard)
    assert os.read(again, 100) == b"received"
    os.close(again)
    assert [entry.name for entry in tmp_path.iterdir()] == ["part"]


def test_a_part_that_got_another_name_is_not_published(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served / "image").write_bytes(DATA)
    look = publish.regular_file

    def linked(path: str) -> os.stat_result | None:
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            os.link(pool / ".directdownload" / "uid-1.kvm-1.part", pool / "mine")
        return look(path)

    monkeypatch.setattr(publish, "regular_file", linked)
    result = run(job_document(pool, url=origin.url("image")))
    assert (result.reason, "hard link" in result.message) == (Reason.WRITE_FAILED, True)
    assert not (pool / "uid-1").exists()


def test_a_forged_journal_publishes_nothing_that_was_not_fetched(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    """A file of root's, with bytes of somebody else, under the part's name; a journal that says it is complete."""
    (served / "image").write_bytes(DATA)
    work = pool / ".directdownload"
    work.mkdir()
    part = work / "uid-1.kvm-1.part"
    part.write_bytes(b"evil" * 1000)
    part.chmod(0o600)
    url = origin.url("image")
    kept = Journal(
        source=url,
        sources=(JournalSource(digest=Url.parse(url).digest, validator='"x"'),),
        size_bytes=4000,
        ranges=((0, 4000),),
        started_time=datetime.datetime.now(datetime.UTC),
        updated_time=datetime.datetime.now(datetime.UTC),
    )
    kept.write(str(work / "uid-1.kvm-1.journal"))
    result = run(job_document(pool, url=url))
    assert (result.reason, result.resumed_from, (pool / "uid-1").read_bytes() == DATA) == (Reason.DOWNLOADED, 0, True)


def test_nothing_is_sealed_that_others_may_write(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    owned = {"name": "local", "path": str(pool), "reserve": "0", "file": {"uid": 4711, "gid": 0, "mode": "0644"}}
    assert run(job_document(pool, url=origin.url("image"), pool=owned)).reason is Reason.DOWNLOADED
    assert not list((pool.parent / "seals").glob("*.seal"))


def test_until_the_lock_is_held_a_file_is_nobodys_but_ours(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it is given to could write to it while the lock is waited for."""
    (served / "image").write_bytes(DATA)
    owned = {"name": "local", "path": str(pool), "reserve": "0", "file": {"uid": 4711, "gid": 0, "mode": "0664"}}
    section, seen = lock.section, []

    def looked_at(path: str, guard: Guard) -> Any:
        part = pool / ".directdownload" / "uid-1.kvm-1.part"
        seen.append((part.stat().st_uid, part.stat().st_mode & 0o777))
        return section(path, guard)

    monkeypatch.setattr(lock, "section", looked_at)
    assert run(job_document(pool, url=origin.url("image"), pool=owned)).reason is Reason.DOWNLOADED
    assert seen == [(0, 0o600)]
    assert ((pool / "uid-1").stat().st_uid, (pool / "uid-1").stat().st_mode & 0o777) == (4711, 0o664)


def test_what_another_host_published_and_cannot_be_read_is_replaced(
    published: pathlib.Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read to spare a good copy the exchange: its disk must not cost the one that was fetched."""

    def damaged(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(publish, "hash_open", damaged)
    before = (published / "uid-1").stat().st_ino
    result = run(job_document(published, url=origin.url("image"), host="kvm-2", sealDirectory=""))
    assert (result.reason, (published / "uid-1").read_bytes() == DATA) == (Reason.DOWNLOADED, True)
    assert (published / "uid-1").stat().st_ino != before


def test_a_removal_takes_the_seals_too(published: pathlib.Path, origin: Origin) -> None:
    assert list((published.parent / "seals").iterdir())
    assert run(job_document(published, "remove", url=origin.url("image"))).reason is Reason.REMOVED
    assert not list((published.parent / "seals").iterdir())
