"""The process that meets foreign bytes: what it can still do, and what its words can do to the one that listens.

As root, as a job runs; without rights there is nothing to give up.
"""

import ctypes
import email.utils
import errno
import json
import os
import pathlib
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from tests.unit.download.support import LOCAL_CIDRS, content, job_document, leftovers, make_request, run_job, sha256
from tests.unit.download.test_unpack import ARCHIVES
from tests.world.http import HostileServer, Received, answer, redirect
from tests.world.origin import Origin

from directdownload.download import engine
from directdownload.download.errors import DownloadError, SourceError, StorageError
from directdownload.download.gathered import Gathered
from directdownload.download.guard import Guard
from directdownload.download.sandbox import confinement, sandbox
from directdownload.download.sandbox.sandbox import _Link
from directdownload.resources.jobs import JobResult, Limits
from directdownload.resources.reasons import Reason

DATA = content(300_000)
#: For a job: its confined process can load no module any more.
_LOADS_NOTHING = """
import sys
from directdownload.download.sandbox import confinement
class Refusing:
    @staticmethod
    def find_spec(name, *_):
        raise OSError(f"loads {name}")
confine = confinement.confine
def confine_and_load_nothing(readable):
    confine(readable)
    sys.meta_path.insert(0, Refusing)
confinement.confine = confine_and_load_nothing
"""
METALINK = "<metalink xmlns='urn:ietf:params:xml:ns:metalink'><file name='image'><url>{}</url></file></metalink>"


def confined(task: Callable[[], Any], *descriptors: int, seconds: float = 20) -> Any:
    """What `task` returns in a process that has given up its rights."""

    def run(_link: _Link, _stop: threading.Event) -> Any:
        return task()

    return sandbox.run(run, lambda told: told, Guard.start(threading.Event(), seconds), descriptors=descriptors)


def refusal(action: Callable[[], Any]) -> str:
    """The name of the error number with which the kernel refuses; empty if it does not."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def capabilities() -> dict[str, int]:
    with open("/proc/thread-self/status", encoding="ascii") as status:
        return {line[:6]: int(line.split()[1], 16) for line in status if line.startswith("Cap")}


def test_it_is_nobody_and_can_become_nobody_else() -> None:
    def task() -> Any:
        again = [refusal(lambda: os.setuid(0)), refusal(lambda: os.setresgid(0, 0, 0))]
        return [os.getresuid(), os.getresgid(), os.getgroups(), again]

    nobody = [confinement.NOBODY] * 3
    assert confined(task) == [nobody, nobody, [], ["EPERM", "EPERM"]]


def test_of_capabilities_it_keeps_only_that_for_low_ports() -> None:
    def task() -> Any:
        # Landlock hides /proc: the kernel is asked
        header, data = struct.pack("=II", 0x20080522, 0), ctypes.create_string_buffer(24)
        assert ctypes.CDLL(None).capget(header, data) == 0
        return list(struct.unpack("=IIIIII", data.raw))

    assert capabilities()["CapPrm"] & 1 << 10, "the tests run as root"
    assert confined(task) == [1 << 10, 1 << 10, 0, 0, 0, 0]


def test_it_opens_nothing_of_the_host(tmp_path: pathlib.Path) -> None:
    """Not even what everybody may read or write."""
    world = tmp_path / "world"
    world.mkdir()
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o777)
    (world / "readable").write_text("x")
    world.chmod(0o777)
    attempts: dict[str, Callable[[], Any]] = {
        "read": lambda: os.open(world / "readable", os.O_RDONLY),
        "write": lambda: os.open(world / "new", os.O_CREAT | os.O_WRONLY),
        "list": lambda: os.listdir(world),
        "remove": lambda: os.unlink(world / "readable"),
        "rename": lambda: os.rename(world / "readable", world / "other"),
        "link": lambda: os.link(world / "readable", world / "other"),
        "directory": lambda: os.mkdir(world / "directory"),
        "temporary": lambda: os.open("/tmp", os.O_TMPFILE | os.O_RDWR),
        "shadow": lambda: os.open("/etc/shadow", os.O_RDONLY),
        "configuration": lambda: os.open("/etc/hosts", os.O_RDWR),
        "parent": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR),
        "environment": lambda: os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY),
        "signal": lambda: os.kill(os.getppid(), signal.SIGTERM),
    }
    found = confined(lambda: {name: refusal(attempt) for name, attempt in attempts.items()})
    assert {name: bool(refused) for name, refused in found.items()} == dict.fromkeys(attempts, True), found
    assert [entry.name for entry in world.iterdir()] == ["readable"]


def test_a_kernel_without_landlock_leaves_it_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    precious = tmp_path / "precious"
    precious.touch(mode=0o600)
    monkeypatch.setattr(confinement, "_RULESET_VERSION", 1 << 20)
    assert confined(lambda: [os.getuid(), refusal(lambda: os.open(precious, os.O_RDWR))]) == [
        confinement.NOBODY,
        "EACCES",
    ]


def test_it_has_the_descriptors_that_it_was_given_and_no_others(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "a").open("wb") as given, (tmp_path / "b").open("wb") as kept:
        os.set_inheritable(kept.fileno(), True)

        def task() -> Any:
            return [os.write(given.fileno(), b"x"), refusal(lambda: os.write(kept.fileno(), b"x"))]

        assert confined(task, given.fileno()) == [1, "EBADF"]
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"x", b"")


def test_without_the_right_to_become_nobody_nothing_is_fetched(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    (served / "image").write_bytes(DATA)
    document = job_document(pool, url=origin.url("image"))
    status, result = run_job(document, "capsh", "--drop=cap_setuid", "--", "-c", '"$0" "$@"')
    assert (status, result.reason) == (1, Reason.WRITE_FAILED)
    assert "expected the capabilities SETUID and SETGID" in result.message
    assert origin.requests() == []


@pytest.mark.parametrize(
    ("how", "told"),
    [(lambda: os._exit(7), "exit status 7"), (lambda: os.abort(), "signal 6 (Aborted)")],
    ids=["exit", "crash"],
)
def test_one_that_dies_is_a_failure_that_may_pass(how: Callable[[], Any], told: str) -> None:
    with pytest.raises(SourceError) as caught:
        confined(how)
    assert (caught.value.reason, told in caught.value.message) == (Reason.INTERRUPTED, True), caught.value


def said(*messages: bytes) -> StorageError:
    """What comes of a child that says just this."""

    def task(link: _Link, _stop: threading.Event) -> Any:
        for message in messages:
            os.write(link._says, message)
        time.sleep(60)

    with pytest.raises(StorageError) as caught:
        sandbox.run(task, lambda told: told, Guard.start(threading.Event(), 20))
    return caught.value


def framed(message: Any) -> bytes:
    text = json.dumps(message).encode()
    return struct.pack(">I", len(text)) + text


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff\xff" + b"x" * 100,
        b"\0\0\0\2{}",
        b"\0\0\0\3not",
        framed(["open", "/etc/shadow"]),
        framed([]),
        framed(["failed"]),
        framed(["failed", ["Nonsense"]]),
        framed(["failed", "abc"]),
        framed(["failed", ["Downloaded", "there", None]]),
        framed(["failed", ["AlreadyPresent", "there", None]]),
        framed(["failed", ["Verified", "there", None]]),
        framed([["unhashable"]]),
        framed("done"),
        struct.pack(">I", 200_000) + b"[" * 200_000,
    ],
)
def test_what_makes_no_sense_ends_the_talk(message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_REAP_SECONDS", 0.1)
    error = said(message)
    assert error.reason in (Reason.WRITE_FAILED, Reason.UNKNOWN)


def test_one_that_asks_and_does_not_listen_ends_the_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_REAP_SECONDS", 0.1)
    monkeypatch.setattr(sandbox, "_ANSWER_SECONDS", 0.2)

    def task(link: _Link, _stop: threading.Event) -> Any:
        # the answers are never read: the thread that would reads something else
        os.dup(link._link.fileno())
        os.dup2(os.open("/dev/null", os.O_RDONLY), link._link.fileno())
        while True:
            os.write(link._says, framed(["forget"]) * 1000)

    with pytest.raises(StorageError):
        sandbox.run(task, lambda told: told, Guard.start(threading.Event(), 20), answers={"forget": lambda: None})


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        *((name, Reason.DOWNLOADED) for name in ("plain", *ARCHIVES, "image.meta4")),
        ("busy", Reason.SOURCE_UNAVAILABLE),
        ("http://stra\N{LATIN SMALL LETTER SHARP S}e.invalid/", Reason.SOURCE_UNREACHABLE),
        ("https://127.0.0.1:1/", Reason.SOURCE_UNREACHABLE),
        ("nfs://127.0.0.1:1/export/image", Reason.SOURCE_UNREACHABLE),
    ],
)
def test_it_loads_nothing_after_its_confinement(pool: pathlib.Path, asked: str, reason: Reason) -> None:
    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        name = request.target.removeprefix("/")
        if name == "image.meta4":
            answer(connection, METALINK.format(server.url("plain")).encode())
        elif name == "busy":
            date = email.utils.formatdate(time.time() + 600, usegmt=True)
            answer(connection, b"", status="503 Busy", headers=f"Retry-After: {date}\r\n")
        elif name == "away":
            redirect(connection, asked)
        else:
            answer(connection, ARCHIVES[name](DATA) if name in ARCHIVES else DATA)

    with HostileServer(respond) as server:
        url = asked if ":" in asked else server.url(asked)
        url = server.url("away") if url.startswith("https:") else url
        policy = {"allowedCIDRs": LOCAL_CIDRS, "nfsExports": ["127.0.0.1:1:/export"]}
        _, result = run_job(job_document(pool, url=url, policy=policy), code=_LOADS_NOTHING)
    assert result.reason is reason, result.message
    assert reason is not Reason.DOWNLOADED or (pool / "uid-1").read_bytes() == DATA


def test_what_it_says_of_the_file_is_compared_with_the_file(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served / "image").write_bytes(DATA)
    request = make_request(pool, origin.url("image"), confined=True)
    honest = sandbox.gather

    def lies(field: str, value: Any) -> JobResult:
        monkeypatch.setattr(sandbox, "gather", lambda *given: honest(*given).model_copy(update={field: value}))
        return engine.outcome(lambda: engine.fetch(request, stop=threading.Event()), str)

    for field, value in (("size_bytes", 5), ("unpacked", True)):
        result = lies(field, value)
        assert (result.reason, "differs from the report" in result.message) == (Reason.WRITE_FAILED, True)
    request = make_request(pool, origin.url("image"), confined=True, checksum=sha256(DATA))
    result = lies("digests", (sha256(b"other"),))
    assert (result.reason, sha256(DATA) in result.message) == (Reason.WRITE_FAILED, True)
    assert not (pool / "uid-1").exists()
    # what it had in its hands is not used again
    assert leftovers(pool) == set()


WORD = {
    **{"unpacked": False, "sizeBytes": 5, "servedBytes": 5, "virtualSizeBytes": 5, "resumedFrom": 0, "format": "RAW"},
    **{"digest": sha256(b"a"), "digests": [sha256(b"a"), "md5:" + "0" * 32], "sources": "x", "source": "x"},
}


@pytest.mark.parametrize(
    "told",
    [
        {"digests": [sha256(b"b")]},
        {"digests": [sha256(b"a"), sha256(b"b")]},
        {"digests": ["md5:" + "0" * 32]},
        {"digest": "md5:" + "0" * 32},
        {"sizeBytes": 6},
        {"format": "é" * 1000},
        {"source": "x" * 5000},
        {"resumedFrom": 10**30},
        {"virtualSizeBytes": -1},
    ],
)
def test_what_it_says_must_fit_together(told: dict[str, Any]) -> None:
    assert Gathered.model_validate(WORD).served_digest == sha256(b"a")
    with pytest.raises(pydantic.ValidationError):
        Gathered.model_validate(WORD | told)


@pytest.mark.parametrize(
    ("limits", "image_format", "met"),
    [
        ({}, "", True),
        ({"max_size_bytes": 5, "max_virtual_size_bytes": 5}, "RAW", True),
        ({"max_size_bytes": 4}, "RAW", False),
        ({"max_virtual_size_bytes": 4}, "RAW", False),
        ({}, "QCOW2", False),
    ],
)
def test_the_limits_hold_whatever_it_says(limits: dict[str, int], image_format: str, met: bool) -> None:
    assert Gathered.model_validate(WORD).meets(image_format, Limits(**limits)) is met


def test_it_leaves_no_process_behind_and_reaches_no_other_on_the_host(tmp_path: pathlib.Path) -> None:
    """What it could hand its open files to: they would be written to after they got their names."""
    address = tmp_path / "socket"
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)

    def unshare() -> None:
        # a user namespace, in which it would be root
        if libc.unshare(0x10000000) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(address))

    def thread() -> None:
        threading.Thread(target=lambda: None).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        address.chmod(0o777)
        listener.listen()
        attempts: dict[str, Callable[[], Any]] = {
            **{"fork": os.fork, "connect": connect, "user namespace": unshare},
            "program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - that is the question
            "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
            **{"thread": thread, "resolve": lambda: socket.getaddrinfo("localhost", 80) and None},
        }
        found = confined(lambda: {name: refusal(attempt) for name, attempt in attempts.items()})
    refused = dict.fromkeys(("fork", "connect", "user namespace", "program", "spawn"), "EPERM")
    assert found == {**refused, "thread": "", "resolve": ""}


def test_it_is_told_to_stop_and_the_deadline_holds_without_it() -> None:
    stop = threading.Event()

    def heard(_link: _Link, told: threading.Event) -> Any:
        return told.wait(20)

    threading.Timer(0.2, stop.set).start()
    assert sandbox.run(heard, lambda told: told, Guard.start(stop)) is True


def test_one_that_does_not_listen_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_END_SECONDS", 0.2)
    monkeypatch.setattr(sandbox, "_REAP_SECONDS", 0.2)
    with pytest.raises(DownloadError) as caught:
        confined(lambda: time.sleep(60), seconds=0.2)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


def test_it_ends_with_its_parent(tmp_path: pathlib.Path) -> None:
    ours, theirs = socket.socketpair()
    parent = os.fork()
    if parent == 0:
        ours.close()

        def task() -> None:
            os.write(theirs.fileno(), b"%d\n" % os.getpid())
            time.sleep(60)

        confined(task, theirs.fileno(), seconds=60)
    theirs.close()
    ours.settimeout(20)
    child = int(ours.recv(20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert ours.recv(20) == b"", f"process {child} has ended, and its end of the pair with it"
    ours.close()


@pytest.mark.parametrize("told", [["x" * 5000, 1], ["RAW", -1], ["RAW", 2**70], ["RAW", "1"], ["RAW"], None])
def test_what_it_says_of_an_image_that_was_found_is_one_of_ours(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_serve", lambda *_: told)
    with pytest.raises(StorageError):
        sandbox.inspect(0, 0, "RAW", 0, Guard.start(threading.Event(), 20))
