"""Who uses a template: headers of every kind and none, and what QEMU itself writes and locks."""

import contextlib
import fcntl
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.download.images.support import qemu_img
from tests.unit.download.support import content, job_document, leftovers
from tests.world import checkout
from tests.world.waiting import closely

from directdownload.download import engine, job
from directdownload.download.errors import DownloadError, StoppedError
from directdownload.download.guard import Guard
from directdownload.download.store import inuse
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

UID = "7d9e5f0a-1111-4222-8333-0123456789ab"
RECORD = f".directdownload/{UID}.record"
SIZE = 1 << 20


def remove(pool: pathlib.Path, **fields: Any) -> JobResult:
    document = job_document(pool, "remove", templateUid=UID, fileName=UID, **fields)
    return job.run_job(JobDocument.model_validate(document), threading.Event())


@contextlib.contextmanager
def opened_by_qemu(image: pathlib.Path, *options: str) -> Iterator[None]:
    """QEMU has the image open, as for a virtual machine, until the block ends."""
    # paths of sockets are short
    with tempfile.TemporaryDirectory() as directory:
        written = pathlib.Path(directory, "pid")
        command = ["qemu-nbd", "--persistent", f"--socket={directory}/socket", f"--pid-file={written}", *options]
        with subprocess.Popen([*command, image], stderr=subprocess.PIPE) as process:
            try:
                closely(
                    "the lock is held",
                    lambda: process.poll() is not None or (written.exists() and written.read_text().strip()),
                )
                assert process.poll() is None, process.stderr and process.stderr.read()
                yield
            finally:
                process.terminate()


@pytest.fixture
def template(pool: pathlib.Path) -> pathlib.Path:
    """A published image, with its record and what an ended download left."""
    work = pool / ".directdownload"
    work.mkdir()
    for name in (f"{UID}.record", f"{UID}.kvm-1.part", f"{UID}.kvm-1.journal"):
        (work / name).write_bytes(b"x")
    qemu_img("create", "-f", "qcow2", pool / UID, str(SIZE))
    return pool / UID


def assert_kept(pool: pathlib.Path, result: JobResult, *mentioned: str) -> None:
    assert result.reason is Reason.IN_USE
    assert engine.exit_status(result) == 1
    assert all(text in result.message for text in (str(pool / UID), *mentioned)), result.message
    work = {RECORD, f".directdownload/{UID}.kvm-1.part", f".directdownload/{UID}.kvm-1.journal"}
    assert leftovers(pool) >= {UID, *work}


def assert_removed(pool: pathlib.Path, *others: str) -> None:
    assert remove(pool).reason is Reason.REMOVED
    assert leftovers(pool) == set(others)


@pytest.mark.parametrize("options", [(), ("--read-only",)])
@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_the_disk_of_a_virtual_machine_is_kept(
    pool: pathlib.Path, template: pathlib.Path, image_format: str, options: tuple[str, ...]
) -> None:
    if image_format == "raw":
        template.write_bytes(content(SIZE))
    with opened_by_qemu(template, f"--format={image_format}", *options):
        assert_kept(pool, remove(pool), "locked")
    assert_removed(pool)


def test_the_backing_file_of_a_running_virtual_machine_is_kept(
    pool: pathlib.Path, template: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    overlay = tmp_path / "elsewhere.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", template, "-F", "qcow2", overlay)
    with opened_by_qemu(overlay, "--format=qcow2"):
        assert_kept(pool, remove(pool), "locked")
    assert_removed(pool)


def test_the_message_says_all_that_is_known(pool: pathlib.Path, template: pathlib.Path) -> None:
    overlay = pool / "vm.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", template, "-F", "qcow2", overlay)
    with opened_by_qemu(overlay, "--format=qcow2"):
        assert_kept(pool, remove(pool), "locked", f"the backing file of {overlay}")
    assert_kept(pool, remove(pool), f"is in use: it is the backing file of {overlay}")


def test_a_mention_is_overridden_by_an_administrator_and_a_lock_is_not(
    pool: pathlib.Path, template: pathlib.Path
) -> None:
    """The header of an overlay in the first bytes of a guest's own RAW disk, as that guest has written it."""
    overlay, disk = pool / "vm.qcow2", pool / "guest.raw"
    qemu_img("create", "-f", "qcow2", "-b", template, "-F", "qcow2", overlay)
    disk.write_bytes(overlay.read_bytes()[:4096] + bytes(SIZE))
    overlay.unlink()
    command = "kubectl annotate templateplacement debian-13-0123456789 directdownload.dev/remove-mentioned=true"
    assert_kept(pool, remove(pool), f"the backing file of {disk}", command)
    with opened_by_qemu(template, "--format=qcow2"):
        result = remove(pool, removeMentioned=True)
        assert_kept(pool, result, "locked")
        assert "annotate" not in result.message
    assert remove(pool, removeMentioned=True).reason is Reason.REMOVED
    assert leftovers(pool) == {"guest.raw"}


def test_a_pool_that_cannot_be_looked_through_is_overridden_too(
    pool: pathlib.Path, template: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inuse, "ENTRY_LIMIT", 1)
    (pool / "another").touch()
    result = remove(pool)
    assert (result.reason, "remove-mentioned=true" in result.message) == (Reason.WRITE_FAILED, True)
    assert remove(pool, removeMentioned=True).reason is Reason.REMOVED


def test_a_disk_opened_while_the_pool_is_looked_through_is_kept(
    pool: pathlib.Path, template: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = contextlib.ExitStack()
    overlays = inuse.overlays

    def start_meanwhile(*arguments: Any) -> list[str]:
        started.enter_context(opened_by_qemu(template, "--format=qcow2"))
        return overlays(*arguments)

    monkeypatch.setattr(inuse, "overlays", start_meanwhile)
    with started:
        assert_kept(pool, remove(pool), "locked")


def test_the_first_byte_counts_which_the_lock_daemon_of_libvirt_takes(
    pool: pathlib.Path, template: pathlib.Path
) -> None:
    with template.open("r+b") as file:
        lock = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        assert_kept(pool, remove(pool), "locked")


#: Name of the overlay in the pool, its format, and its backing file's name; {pool} is the pool's directory.
OVERLAYS = [
    ("vm.qcow2", "qcow2", "{pool}/" + UID),
    ("vm.qcow2", "qcow2", UID),
    ("vm.qcow2", "qcow2", "file:{pool}/" + UID),
    ("deep/er/vm.qcow2", "qcow2", "../../" + UID),
    ("vm", "qcow2", 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "{pool}/' + UID + '"}}'),
    ("vm.qed", "qed", "{pool}/" + UID),
    ("vm.qcow2", "qcow2", "{pool}/a-link"),
    ("deep/vm.qcow2", "qcow2", "../a-link"),
    ("vm.qcow2", "qcow2", "file:{pool}/a-link"),
]


@pytest.mark.parametrize(("name", "image_format", "backing"), OVERLAYS)
def test_the_backing_file_of_an_image_in_the_pool_is_kept(
    pool: pathlib.Path, template: pathlib.Path, name: str, image_format: str, backing: str
) -> None:
    (pool / "a-link").symlink_to(UID)
    overlay = pool / name
    overlay.parent.mkdir(parents=True, exist_ok=True)
    text = backing.replace("{pool}", str(pool))
    qemu_img("create", "-f", image_format, "-b", text, "-F", "qcow2", overlay)
    assert_kept(pool, remove(pool), f"the backing file of {overlay}")
    overlay.unlink()
    assert_removed(pool, "a-link")


def test_others_of_the_pool_are_no_obstacle(pool: pathlib.Path, template: pathlib.Path) -> None:
    qemu_img("create", "-f", "qcow2", pool / "other-template", "1M")
    qemu_img("create", "-f", "qcow2", "-b", pool / "other-template", "-F", "qcow2", pool / "vm.qcow2")
    (pool / "raw").write_text(f"nothing but a mention of {pool / UID}")
    (pool / "empty").touch()
    os.mkfifo(pool / "fifo")
    (pool / "dangling").symlink_to("nowhere")
    (pool / "loop").symlink_to(pool)
    with opened_by_qemu(pool / "vm.qcow2", "--format=qcow2"):
        assert_removed(pool, "other-template", "vm.qcow2", "raw", "empty", "fifo", "dangling")
    assert (pool / "loop").is_symlink()


def test_a_link_is_not_followed_out_of_the_pool(
    pool: pathlib.Path, template: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    qemu_img("create", "-f", "qcow2", "-b", template, "-F", "qcow2", outside / "vm.qcow2")
    (pool / "directory").symlink_to(outside)
    (pool / "image").symlink_to(outside / "vm.qcow2")
    assert_removed(pool, "image")
    assert (pool / "directory").is_symlink()


def test_the_message_names_three_images(pool: pathlib.Path, template: pathlib.Path) -> None:
    for number in range(5):
        qemu_img("create", "-f", "qcow2", "-b", template, "-F", "qcow2", pool / f"vm-{number}")
    named = [str(pool / f"vm-{number}") for number in range(3)]
    assert_kept(pool, remove(pool), f"{', '.join(named)} and 2 more")


def test_a_name_that_is_no_text_is_told_all_the_same(pool: pathlib.Path, template: pathlib.Path) -> None:
    overlay = os.fsencode(pool) + b"/vm-\xff"
    qemu_img("create", "-f", "qcow2", "-b", template, "-F", "qcow2", os.fsdecode(overlay))
    result = remove(pool)
    assert_kept(pool, result, "vm-\\xff")
    assert JobResult.model_validate_json(result.to_message()) == result


def test_what_cannot_be_looked_into_may_use_it(
    pool: pathlib.Path, template: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = pool.joinpath(*"abc")
    deep.mkdir(parents=True)
    before = leftovers(pool)
    with monkeypatch.context() as patched:
        patched.setattr(inuse, "DEPTH_LIMIT", 3)
        result = remove(pool)
    assert (result.reason, result.done, result.permanent) == (Reason.WRITE_FAILED, False, False)
    assert str(deep) in result.message
    with monkeypatch.context() as patched:
        patched.setattr(inuse, "ENTRY_LIMIT", 2)
        assert "more than 2 files" in remove(pool).message
    assert leftovers(pool) == before
    assert_removed(pool)


def test_an_unreadable_image_may_use_it(pool: pathlib.Path, template: pathlib.Path) -> None:
    """An image of another user with mode 0600, and a job that was not given DAC_OVERRIDE."""
    image, directory = pool / "vm", pool / "private"
    image.touch()
    directory.mkdir()
    for path in (image, directory):
        path.chmod(0)
        script = (
            "import sys, threading\nfrom directdownload.download import guard\n"
            "from directdownload.download.store import inuse\n"
            "print(inuse.mention(sys.argv[1], sys.argv[2], guard.Guard(threading.Event())))"
        )
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
        process = subprocess.run(
            [*command, sys.executable, "-c", script, template, pool],
            env=checkout.environment(),
            capture_output=True,
            text=True,
        )
        assert f"cannot look into {path}: Permission denied" in process.stderr
        path.chmod(0o700)


def test_looking_through_the_pool_ends_when_told(pool: pathlib.Path, template: pathlib.Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        inuse.overlays(str(template), str(pool), Guard(stop))


def qcow(backing: bytes, *, version: int = 3, offset: int = 512, length: int | None = None) -> bytes:
    header = struct.pack(">4sIQI", b"QFI\xfb", version, offset, len(backing) if length is None else length)
    return header.ljust(512, b"\0") + backing


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (qcow(b"base"), (512, 4)),
        (qcow(b"base", version=2), (512, 4)),
        (qcow(b"base", version=1), (512, 4)),
        (qcow(b"base", offset=0), None),
        (qcow(b"base", length=0), None),
        (qcow(b"base", length=5), None),
        (qcow(b"base", offset=2**63), None),
        (qcow(b"x" * 4097), None),
        (qcow(b"base")[:19], None),
        (b"QED\0" + bytes(12) + struct.pack("<Q", 1) + bytes(32) + struct.pack("<II", 64, 4) + b"base", (64, 4)),
        (b"QED\0" + bytes(12) + struct.pack("<Q", 2) + bytes(32) + struct.pack("<II", 64, 4) + b"base", None),
        (b"QED\0", None),
        (b"", None),
    ],
)
def test_where_a_header_says_that_the_name_stands(data: bytes, expected: tuple[int, int] | None) -> None:
    assert inuse.backing_location(data[:64], len(data)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/pool/" + UID, True),
        ("nbd+unix:///" + UID, True),
        ("/pool/" + UID[:-1], False),
        ('json:{"file": {"filename": "\\/pool\\/7\\u0064' + UID[2:] + '"}}', True),
        ("json:{", False),
        ("json:" + "[" * 5000, False),
        ("json:" + json.dumps({"file": {"filename": "/pool/other"}}), False),
        ("", False),
    ],
)
def test_which_names_mention_it(name: str, expected: bool) -> None:
    assert inuse.mentions(name, UID) is expected


def test_hostile_headers_do_no_harm(pool: pathlib.Path, template: pathlib.Path) -> None:
    """Random bytes, and headers with random bytes in them: an answer each time, and never more than one name read."""
    generator = random.Random(4)
    seeds = [qcow(os.fsencode(template)), qcow(b'json:{"a": "\\u00"}'), template.read_bytes()[:1024]]
    seeds += [qcow(b"/proc/self/mem"), qcow(b"../../\0\xff"), b"QED\0" + generator.randbytes(200)]
    image = pool / "vm"
    answers = set()
    for _ in range(3000):
        data = bytearray(generator.choice(seeds) if generator.random() < 0.9 else generator.randbytes(600))
        for _ in range(generator.randrange(6)):
            data[generator.randrange(min(len(data), 600))] = generator.choice((0, 1, 0xFF, generator.randrange(256)))
        image.write_bytes(data[: generator.randrange(len(data))] if generator.random() < 0.2 else data)
        location = inuse.backing_location(bytes(data[:64]), len(data))
        assert location is None or (location[1] <= 4096 and sum(location) <= len(data))
        try:
            answers.add(bool(inuse.overlays(str(template), str(pool), Guard(threading.Event()))))
        except DownloadError as error:
            raise AssertionError(data) from error
    assert answers == {True, False}
