"""Locks in the moments between two system calls; how hosts use them: test_shared_pool.py."""

import errno
import fcntl
import os
import pathlib
import threading
from collections.abc import Callable

import pytest

from directdownload.download import lock
from directdownload.download.errors import StorageError
from directdownload.download.guard import Guard
from directdownload.resources.reasons import Reason


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
