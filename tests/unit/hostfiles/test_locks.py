"""Each lock as version 0.1.0 takes it, or, of the agent, as the first version that has one: name, mode, kind."""

import asyncio
import concurrent.futures
import contextlib
import fcntl
import pathlib
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.world.waiting import until

from directdownload.agent import settings, statelock
from directdownload.download import lock
from directdownload.download.guard import Guard
from directdownload.download.store.place import Part, Place
from directdownload.keystore import exchange, files

EARLIER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another has it", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def part(directory: pathlib.Path) -> Iterator[None]:
    with Part.acquire(_place(directory), Guard.start(threading.Event())):
        yield


def under_the_final_name(directory: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    return lock.section(_place(directory).lock, Guard.start(threading.Event()))


def keystore(directory: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    return files.locked(exchange.Place(str(directory / "cloud.jks")).lock, 60)


@contextlib.contextmanager
def state_directory(directory: pathlib.Path) -> Iterator[None]:
    own = settings.Settings(node_name="kvm-1", pool_roots=(), state_directory=str(directory))
    held = statelock.StateLock(own, poll_seconds=0.01)
    asyncio.run(held.acquire())
    yield
    held.release()


def _place(directory: pathlib.Path) -> Place:
    place = Place.in_pool(str(directory), "debian-13.qcow2", "uid-1", "kvm-1")
    place.prepare()
    return place


Take = Callable[[pathlib.Path], contextlib.AbstractContextManager[None]]
LOCKS = pytest.mark.parametrize(
    ("take", "name"),
    [
        (part, ".directdownload/uid-1.kvm-1.part"),
        (under_the_final_name, ".directdownload/uid-1.lock"),
        (keystore, ".cloud.jks.directdownload.lock"),
        (state_directory, "agent.lock"),
    ],
)


@contextlib.contextmanager
def earlier(path: pathlib.Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of the earlier version, and what it says of the lock, which it keeps to the end of its input."""
    command = [sys.executable, "-c", EARLIER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().rstrip("\n")


@LOCKS
def test_each_lock_is_waited_for_while_an_earlier_version_has_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, take: Take, name: str
) -> None:
    flock, asked = fcntl.flock, []

    def counting(descriptor: int, operation: int) -> None:
        asked.append(operation)
        flock(descriptor, operation)

    def taken() -> int:
        with take(tmp_path):
            return len(asked)

    monkeypatch.setattr(fcntl, "flock", counting)
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.01)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(1) as threads, earlier(tmp_path / name) as (process, answer):
        assert answer == "held"
        waiting = threads.submit(taken)
        until("it has asked several times", lambda: len(asked) > 2)
        assert not waiting.done()
        process.communicate("")
        assert waiting.result(60) > 2


@LOCKS
def test_an_earlier_version_finds_each_lock_taken(tmp_path: pathlib.Path, take: Take, name: str) -> None:
    with take(tmp_path), earlier(tmp_path / name) as (_, answer):
        assert answer == "another has it"
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
