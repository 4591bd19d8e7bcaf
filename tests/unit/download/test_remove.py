"""What a removal takes with it, and what it leaves. Who may still use the file: test_inuse.py."""

import fcntl
import pathlib
import signal
import threading
from typing import Any

import pytest
from tests.unit.download.support import (
    content,
    job_document,
    leftovers,
    run_job,
    sha256,
    start_job,
    start_stopping_job,
    stopped,
    waits_for_locks,
)
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.download import engine, job, lock
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

DATA = content(300_000)
RECORD = ".directdownload/uid-1.record"
OWN = (
    *("uid-1.kvm-1.part", "uid-1.kvm-1.journal", "uid-1.kvm-1.journal.tmp", "uid-1.kvm-1.out"),
    *("uid-1.kvm-1.pieces", "uid-1.kvm-1.pieces.tmp"),
)
OF_ALL = ("uid-1.record", "uid-1.record.tmp", "uid-1.lock")
OF_OTHERS = ("uid-1.kvm-2.part", "uid-1.kvm-2.journal", "uid-1.host-3.example.org.part", "uid-1.host-3.example.org.out")
#: They begin as ours do, and are not.
FOREIGN = (
    "uid-1",
    "uid-10.kvm-1.part",
    "uid-1.part",
    "uid-1.kvm-1.part.bak",
    "uid-1.kvm-1.record",
    "uid-1.-.part",
    "uid-1.KVM.part",
    "uid-1.kvm-1.partial",
    "uid-1.record.bak",
    "x.uid-1.kvm-1.part",
    "uid-2.record",
    "uid-2.kvm-1.part",
)


def run(document: dict[str, Any]) -> JobResult:
    return job.run_job(JobDocument.model_validate(document), threading.Event())


def shared(pool: pathlib.Path) -> dict[str, Any]:
    return {"name": "shared", "path": str(pool), "shared": True}


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a shared pool is mounted is asked in test_shared_pool.py."""
    monkeypatch.setattr(job, "_check_mounted", lambda pool: None)


@pytest.fixture
def work(pool: pathlib.Path) -> pathlib.Path:
    """The work directory, with everything in it that may be there; the file is published."""
    directory = pool / ".directdownload"
    directory.mkdir()
    for name in (*OWN, *OF_ALL, *OF_OTHERS, *FOREIGN):
        (directory / name).write_bytes(b"x")
    (directory / "uid-1.kvm-9.part").mkdir()
    (directory / "uid-1.kvm-8.part").symlink_to("uid-2.record")
    for name in ("uid-1", "uid-1.iso", "uid-1.qcow2", "uid-10"):
        (pool / name).write_bytes(DATA)
    return directory


def names(directory: pathlib.Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


LINKS = {"uid-1.kvm-9.part", "uid-1.kvm-8.part"}


def test_what_is_ours_goes_and_nothing_else(pool: pathlib.Path, work: pathlib.Path) -> None:
    result = run(job_document(pool, "remove"))
    assert (result.reason, result.message) == (Reason.REMOVED, "removed")
    assert names(pool) == {".directdownload", "uid-1.iso", "uid-1.qcow2", "uid-10"}
    assert names(work) == {*FOREIGN, *OF_OTHERS, *LINKS}


@pytest.mark.usefixtures("mounted")
def test_on_a_shared_pool_what_other_hosts_left_goes_too(pool: pathlib.Path, work: pathlib.Path) -> None:
    assert run(job_document(pool, "remove", pool=shared(pool))).reason is Reason.REMOVED
    assert names(pool) == {".directdownload", "uid-1.iso", "uid-1.qcow2", "uid-10"}
    assert names(work) == {*FOREIGN, *LINKS}


@pytest.mark.usefixtures("mounted")
def test_what_another_host_downloads_right_now_stays(pool: pathlib.Path, work: pathlib.Path) -> None:
    with (work / "uid-1.kvm-2.part").open("r+b") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        result = run(job_document(pool, "remove", pool=shared(pool)))
    assert (result.reason, result.message) == (
        Reason.REMOVED,
        "removed; a download still runs on kvm-2 and keeps its part",
    )
    assert names(work) == {*FOREIGN, *LINKS, "uid-1.kvm-2.part", "uid-1.kvm-2.journal"}
    assert not (pool / "uid-1").exists()


def test_leftovers_go_without_a_file(pool: pathlib.Path, work: pathlib.Path) -> None:
    (pool / "uid-1").unlink()
    result = run(job_document(pool, "remove"))
    assert (result.reason, "there was no file" in result.message) == (Reason.REMOVED, True)
    assert not names(work) & {*OWN, *OF_ALL}


@pytest.mark.parametrize("name", ["uid-1.lock", "uid-1.kvm-1.out", "uid-1.record"])
def test_one_leftover_is_enough(pool: pathlib.Path, name: str) -> None:
    (pool / ".directdownload").mkdir()
    (pool / ".directdownload" / name).touch()
    assert run(job_document(pool, "remove")).reason is Reason.REMOVED
    assert leftovers(pool) == set()


def test_of_what_is_not_there(pool: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(job_document(pool, "remove")).reason is Reason.REMOVED
    assert names(pool) == set()
    missing = {"name": "local", "path": str(tmp_path / "none")}
    assert run(job_document(pool, "remove", pool=missing)).reason is Reason.REMOVED
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_looked_at_is_not_taken_for_removed(pool: pathlib.Path) -> None:
    (pool / ".directdownload").mkdir()
    (pool / RECORD).touch()
    result = run(job_document(pool, "remove", fileName="x" * 300))
    assert (result.reason, engine.exit_status(result)) == (Reason.WRITE_FAILED, 1)
    assert leftovers(pool) == {RECORD}


def test_no_part_of_ours_is_no_obstacle(pool: pathlib.Path, work: pathlib.Path) -> None:
    (work / "uid-1.kvm-1.part").unlink()
    (work / "uid-1.kvm-1.part").mkdir()
    assert run(job_document(pool, "remove")).reason is Reason.REMOVED
    assert (work / "uid-1.kvm-1.part").is_dir()


def test_a_download_of_this_host_that_is_about_to_end_is_waited_for(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Its journal would come back otherwise, and its file."""
    (served / "image").write_bytes(DATA)
    document = job_document(pool, url=origin.url("image"), checksum=sha256(DATA))
    code = "import os, signal\nos.fchmod = lambda *arguments: os.kill(os.getpid(), signal.SIGSTOP)"
    marker = tmp_path / "waits"
    removal = job_document(pool, "remove")
    with start_stopping_job(document, code) as download:
        closely("the download has stopped", lambda: stopped(download))
        status, result = run_job(removal, code=waits_for_locks(tmp_path / "waits-briefly", 0.1))
        assert (status, result.reason) == (1, Reason.WRITE_FAILED)
        assert "uid-1.kvm-1.part has been locked" in result.message
        assert ".directdownload/uid-1.kvm-1.journal" in leftovers(pool)
        with start_job(removal, code=waits_for_locks(marker, 30)) as process:
            closely("the removal waits for the lock", marker.exists)
            download.send_signal(signal.SIGCONT)
            assert JobResult.model_validate_json(download.communicate(timeout=120)[0]).reason is Reason.DOWNLOADED
            assert JobResult.model_validate_json(process.communicate(timeout=120)[0]).message == "removed"
    assert leftovers(pool) == set()


def test_the_limit_of_waiting_is_longer_than_a_pod_takes_to_end() -> None:
    assert lock.LIMIT_SECONDS > 30


def test_what_was_removed_under_a_download_is_not_published(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    """By a host that does not see the other one's lock."""
    (served / "image").write_bytes(DATA)
    code = (
        "import os\nfrom directdownload.download.store import publish\nlook = publish.regular_file\ndef lose(path):\n"
        f"    if os.path.exists(part := {str(pool / '.directdownload/uid-1.kvm-1.part')!r}):\n        os.unlink(part)\n"
        "    return look(path)\npublish.regular_file = lose"
    )
    status, result = run_job(job_document(pool, url=origin.url("image")), code=code)
    assert (status, result.reason) == (1, Reason.WRITE_FAILED)
    assert "another process removed" in result.message
    assert not {"uid-1", ".directdownload/uid-1.record", ".directdownload/uid-1.lock"} & leftovers(pool)
