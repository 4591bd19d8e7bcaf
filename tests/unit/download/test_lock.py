"""Locks in the moments between two system calls, and those of strangers; how hosts use them: test_shared_pool.py."""

import contextlib
import errno
import fcntl
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.unit.download.support import content, job_document, run_job, waits_for_locks
from tests.world.origin import Origin

from directdownload.download import lock
from directdownload.download.errors import StorageError
from directdownload.download.guard import Guard
from directdownload.resources.reasons import PERMANENT, Reason

DATA = content(300_000)


@contextlib.contextmanager
def held_by_a_stranger(path: pathlib.Path) -> Iterator[None]:
    """A process that is none of ours has it locked, and keeps it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch()
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print('locked', flush=True); input()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "locked\n"
            yield
        finally:
            stranger.kill()


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("fetch", "uid-1.kvm-1.part"),
        ("fetch", "uid-1.lock"),
        ("verify", "uid-1.lock"),
        ("remove", "uid-1.kvm-1.part"),
        ("remove", "uid-1.lock"),
    ],
)
def test_no_job_waits_long_for_a_strangers_lock(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path, verb: str, name: str
) -> None:
    """Its deadline is hours away, and its slot is needed."""
    pool = tmp_path / "pool"
    pool.mkdir()
    (served / "image").write_bytes(DATA)
    document = job_document(pool, url=origin.url("image"))
    if verb != "fetch":
        assert run_job(document)[0] == 0
    held = pool / ".directdownload" / name
    with held_by_a_stranger(held):
        code = waits_for_locks(tmp_path / "waits", 0.1)
        status, result = run_job(job_document(pool, verb, url=origin.url("image")), code=code)
    assert (status, result.reason) == (1, Reason.WRITE_FAILED), result
    assert result.reason not in PERMANENT
    assert f"{held} has been locked for more than 0.1 s" in result.message
    assert "lslocks" in result.message
    assert run_job(job_document(pool, verb, url=origin.url("image")))[0] == 0, "and the next attempt finds it free"


def before_the_first_flock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    flock, acted = fcntl.flock, threading.Event()

    def acting(descriptor: int, operation: int) -> None:
        if not acted.is_set():
            acted.set()
            act()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", acting)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_that_its_holder_has_removed_meanwhile_locks_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.touch()
    before_the_first_flock(monkeypatch, path.unlink)
    descriptor = lock.try_acquire(str(path))
    assert descriptor is not None
    assert os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(descriptor)


def test_a_file_that_another_host_has_removed_meanwhile_is_asked_for_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale() -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    before, path = open_descriptors(), tmp_path / "lock"
    before_the_first_flock(monkeypatch, stale)
    with lock.section(str(path), Guard(threading.Event())):
        assert path.exists()
    assert not path.exists()
    assert open_descriptors() == before


def test_a_file_system_without_locks_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported() -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = open_descriptors()
    before_the_first_flock(monkeypatch, unsupported)
    with pytest.raises(StorageError, match="No locks available") as caught:
        lock.try_acquire(str(tmp_path / "lock"))
    assert caught.value.reason is Reason.WRITE_FAILED
    assert open_descriptors() == before


def test_what_is_no_file_is_not_locked(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    before = open_descriptors()
    for name in ("link", "directory", "fifo"):
        with pytest.raises(StorageError, match=name):
            lock.try_acquire(str(tmp_path / name))
    assert open_descriptors() == before
    assert not (tmp_path / "elsewhere").exists()
