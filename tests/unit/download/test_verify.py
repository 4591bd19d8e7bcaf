"""The check of a published file: what it finds, what it leaves in the record, and what it costs others."""

import ctypes
import errno
import mmap
import os
import pathlib
import signal
import socket
import tempfile
import threading
from typing import Any

import pytest
from tests.unit.download.support import content, job_document, leftovers, run_job, sha256, start_job
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.download import engine, job
from directdownload.download.store import publish
from directdownload.download.store.record import Record, read_record
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

DATA = content(2_500_000)
RECORD = ".directdownload/uid-1.record"


def run(document: dict[str, Any]) -> JobResult:
    return job.run_job(JobDocument.model_validate(document), threading.Event())


def record_of(pool: pathlib.Path) -> Record:
    record = read_record(str(pool / RECORD))
    assert record is not None
    return record


@pytest.fixture
def fetched(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> JobResult:
    """The result of a fetch into the pool."""
    (served / "image").write_bytes(DATA)
    result = run(job_document(pool, url=origin.url("image")))
    assert result.reason is Reason.DOWNLOADED
    return result


@pytest.fixture
def published(pool: pathlib.Path, fetched: JobResult) -> pathlib.Path:
    """A pool into which the image has been fetched."""
    return pool


def flip_a_byte(path: pathlib.Path) -> None:
    """Nothing but the content tells."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(len(DATA) // 2)
        file.write(bytes([DATA[len(DATA) // 2] ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_by_what_this_host_has_sealed(published: pathlib.Path) -> None:
    result = run(job_document(published, "verify"))
    assert (result.reason, result.digest, result.size_bytes) == (Reason.VERIFIED, sha256(DATA), len(DATA))


def test_every_result_names_the_record_that_stands(published: pathlib.Path, fetched: JobResult, origin: Origin) -> None:
    assert fetched.revision == record_of(published).revision != ""
    assert record_of(published).host == "kvm-1"
    again = run(job_document(published, url=origin.url("image"), host="kvm-2"))
    assert (again.reason, again.revision) == (Reason.ALREADY_PRESENT, fetched.revision)
    # not now: nobody has read the file
    assert again.verified_time == record_of(published).verified_time
    verified = run(job_document(published, "verify", host="kvm-2"))
    assert verified.revision == record_of(published).revision != fetched.revision
    assert record_of(published).host == "kvm-2"
    (published / RECORD).unlink()
    others = {"checksum": sha256(DATA), "host": "kvm-3", "sealDirectory": ""}
    found = run(job_document(published, url=origin.url("image"), **others))
    assert (found.reason, found.published_digest) == (Reason.ALREADY_PRESENT, sha256(DATA))
    assert found.revision == record_of(published).revision != verified.revision
    assert record_of(published).digest == sha256(DATA)


def test_another_placement_gets_a_record_of_its_own(
    published: pathlib.Path, fetched: JobResult, origin: Origin
) -> None:
    result = run(job_document(published, url=origin.url("image"), placementUid="another", host="kvm-2"))
    record = record_of(published)
    assert (result.reason, result.revision) == (Reason.ALREADY_PRESENT, record.revision)
    assert (record.placement_uid, record.host) == ("another", "kvm-2")
    assert record.revision != fetched.revision


def test_the_record_of_a_touched_file_is_renewed(published: pathlib.Path) -> None:
    os.utime(published / "uid-1", (1, 1))
    assert run(job_document(published, "verify")).reason is Reason.VERIFIED
    assert record_of(published).matches((published / "uid-1").stat())


@pytest.mark.parametrize("field", ["checksum", "expectedDigest", None])
def test_one_changed_byte_is_noticed_and_repaired(
    published: pathlib.Path, fetched: JobResult, origin: Origin, field: str | None
) -> None:
    flip_a_byte(published / "uid-1")
    told = {field: sha256(DATA)} if field else {}
    result = run(job_document(published, "verify", **told))
    assert result.reason is Reason.ALTERED
    assert sha256(DATA) in result.message
    assert engine.exit_status(result) == 1
    assert record_of(published).digest == sha256(DATA)
    assert record_of(published).revision == fetched.revision, "it is the same publishing, whatever became of it"
    assert run(job_document(published, "verify", **told)).reason is Reason.ALTERED
    # size, mtime and inode are as recorded: only the check knows better
    repaired = run(job_document(published, url=origin.url("image"), **told))
    assert repaired.reason is Reason.DOWNLOADED
    assert (published / "uid-1").read_bytes() == DATA


def test_a_file_that_was_put_right_by_hand_is_believed_again(published: pathlib.Path) -> None:
    flip_a_byte(published / "uid-1")
    assert run(job_document(published, "verify")).reason is Reason.ALTERED
    (published / "uid-1").write_bytes(DATA)
    result = run(job_document(published, "verify", publishedDigest=sha256(DATA)))
    assert (result.reason, result.published_digest) == (Reason.VERIFIED, sha256(DATA))
    assert record_of(published).matches((published / "uid-1").stat())


def test_a_record_in_the_pool_vouches_for_nothing(published: pathlib.Path) -> None:
    result = run(job_document(published, "verify", sealDirectory=""))
    assert result.reason is Reason.ALTERED
    assert "no checksum or record says what it should hold" in result.message


def test_a_record_is_believed_if_it_is_the_one_that_the_controller_was_told_of(
    published: pathlib.Path, fetched: JobResult
) -> None:
    """A copy of 0.1.0, of which no digest is known."""
    told = {"sealDirectory": "", "publishedRevision": fetched.revision}
    assert run(job_document(published, "verify", **told)).reason is Reason.VERIFIED
    forged = record_of(published).model_copy(update={"digest": sha256(b"x")})
    forged.write(str(published / RECORD))
    assert run(job_document(published, "verify", **told)).reason is Reason.ALTERED


def test_a_touched_file_is_hashed_although_its_times_were_set_back(published: pathlib.Path, origin: Origin) -> None:
    """Size, modification time and inode are as they were; nobody can set the time of the change back."""
    flip_a_byte(published / "uid-1")
    result = run(job_document(published, url=origin.url("image"), checksum=sha256(DATA)))
    assert (result.reason, (published / "uid-1").read_bytes() == DATA) == (Reason.DOWNLOADED, True)


def test_a_seal_that_others_could_have_written_is_none(published: pathlib.Path) -> None:
    seals = published.parent / "seals"
    seals.chmod(0o777)
    assert run(job_document(published, "verify")).reason is Reason.ALTERED
    seals.chmod(0o700)
    assert run(job_document(published, "verify")).reason is Reason.ALTERED, "the first one has dropped it"


def test_a_lost_file(published: pathlib.Path) -> None:
    (published / "uid-1").unlink()
    result = run(job_document(published, "verify"))
    assert (result.reason, engine.exit_status(result)) == (Reason.MISSING, 1)


@pytest.mark.parametrize("verb", ["fetch", "verify", "remove"])
@pytest.mark.parametrize("what", ["directory", "symbolic link", "special file", "socket"])
def test_what_we_did_not_make_is_neither_followed_nor_touched(
    published: pathlib.Path,
    origin: Origin,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    verb: str,
) -> None:
    path, precious = published / "uid-1", tmp_path / "precious"
    path.unlink()
    precious.write_bytes(DATA)
    with socket.socket(socket.AF_UNIX) as unix:
        if what == "directory":
            path.mkdir()
            (path / "precious").touch()
        elif what == "symbolic link":
            path.symlink_to(precious)
        elif what == "special file":
            os.mkfifo(path)
        else:
            monkeypatch.chdir(published)
            unix.bind("uid-1")
    before = path.lstat()
    result = run(job_document(published, verb, url=origin.url("image"), checksum=sha256(DATA)))
    reasons = {"fetch": Reason.WRITE_FAILED, "verify": Reason.ALTERED, "remove": Reason.REMOVED}
    assert result.reason is reasons[verb]
    if verb != "remove":
        assert ("special file" if what == "socket" else what) in result.message
        assert leftovers(published) >= {RECORD}
    else:
        assert RECORD not in leftovers(published)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert precious.read_bytes() == DATA
    assert what != "directory" or (path / "precious").exists()


#: Reading fails with `{number}` behind the first block.
BAD_BLOCK = """
import os
preadv = os.preadv
def failing(descriptor, buffers, offset):
    if offset:
        raise OSError({number}, os.strerror({number}))
    return preadv(descriptor, buffers, offset)
os.preadv = failing
"""


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA])
def test_what_cannot_be_read_is_repaired(published: pathlib.Path, origin: Origin, number: int) -> None:
    before = (published / "uid-1").stat().st_ino
    code = BAD_BLOCK.format(number=number)
    status, result = run_job(job_document(published, "verify"), code=code)
    assert (status, result.reason) == (1, Reason.ALTERED)
    assert f"cannot be read: {os.strerror(number)}" in result.message
    document = job_document(published, url=origin.url("image"), checksum=sha256(DATA))
    assert run_job(document, code=code)[1].reason is Reason.DOWNLOADED
    assert (published / "uid-1").stat().st_ino != before
    assert run(job_document(published, "verify")).reason is Reason.VERIFIED


def test_a_file_server_that_does_not_answer_says_nothing_about_the_file(published: pathlib.Path) -> None:
    status, result = run_job(job_document(published, "verify"), code=BAD_BLOCK.format(number=errno.ETIMEDOUT))
    assert (status, result.reason) == (1, Reason.WRITE_FAILED)
    assert record_of(published).matches((published / "uid-1").stat())


def test_it_is_idle(published: pathlib.Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "from directdownload.download.store import publish\n"
        "hash_open = publish.hash_open\n"
        "def report(*arguments):\n"
        "    subprocess.run(['ionice', '-p', str(os.getpid())], stdout=sys.stderr)\n"
        "    return hash_open(*arguments)\n"
        "publish.hash_open = report"
    )
    with start_job(job_document(published, "verify"), code=code) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    # beside what the job logs
    assert "idle" in errors.splitlines()


def cached_pages(path: pathlib.Path) -> int:
    """How many pages of a file are in the page cache (mincore(2))."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.byref(ctypes.c_char.from_buffer(mapped))
        assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(len(mapped)), pages) == 0
        del start
        return sum(page & 1 for page in pages)


def test_the_page_cache_is_left_to_others(origin: Origin, served: pathlib.Path) -> None:
    """On a disk: what lies in a tmpfs is in the page cache and nowhere else."""
    (served / "image").write_bytes(DATA)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        pool = pathlib.Path(directory)
        assert run(job_document(pool, url=origin.url("image"))).reason is Reason.DOWNLOADED
        image = pool / "uid-1"
        descriptor = os.open(image, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(descriptor, 4096, 0) == DATA[:4096]
        os.close(descriptor)
        before = cached_pages(image)
        assert run(job_document(pool, "verify")).reason is Reason.VERIFIED
        assert 0 < cached_pages(image) == before < len(DATA) // mmap.PAGESIZE


def test_a_file_system_that_knows_only_the_page_cache(published: pathlib.Path) -> None:
    code = (
        "import errno, os\n"
        "open_, direct = os.open, os.O_DIRECT\n"
        "def opening(path, flags, *arguments, **options):\n"
        "    if flags & direct:\n"
        "        raise OSError(errno.EINVAL, 'Invalid argument')\n"
        "    return open_(path, flags, *arguments, **options)\n"
        "os.open = opening"
    )
    status, result = run_job(job_document(published, "verify"), code=code)
    assert (status, result.reason, result.digest) == (0, Reason.VERIFIED, sha256(DATA))


@pytest.fixture
def endless(pool: pathlib.Path) -> pathlib.Path:
    """A pool with a published file that takes minutes to read."""
    with (pool / "uid-1").open("wb") as file:
        file.truncate(1 << 40)
    return pool


def test_a_sigterm_ends_it_without_a_word_about_the_file(endless: pathlib.Path) -> None:
    with start_job(job_document(endless, "verify", checksum=sha256(b""))) as process:
        closely("the file is open", lambda: "uid-1" in str(open_files(process.pid)))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    result = JobResult.model_validate_json(output)
    assert (process.returncode, result.reason) == (1, Reason.INTERRUPTED)
    assert result.message == "stopped on request; the next check starts from zero"
    assert leftovers(endless) == {"uid-1"}


def open_files(pid: int) -> list[str]:
    found = []
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return found


def test_the_deadline_ends_it_too(endless: pathlib.Path) -> None:
    limits = {"deadlineSeconds": 0.3}
    result = run(job_document(endless, "verify", checksum=sha256(b""), limits=limits))
    assert result.reason is Reason.DEADLINE_EXCEEDED
    assert "the next check starts from zero" in result.message


def test_a_file_that_is_replaced_meanwhile_is_read_again(
    published: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_open, before = publish.hash_open, record_of(published)

    def replaced_meanwhile(*arguments: Any) -> Any:
        answer = hash_open(*arguments)
        (published / "new").write_bytes(b"new")
        (published / "new").rename(published / "uid-1")
        return answer

    monkeypatch.setattr(publish, "hash_open", replaced_meanwhile)
    result = run(job_document(published, "verify"))
    assert (result.reason, engine.exit_status(result)) == (Reason.WRITE_FAILED, 1)
    assert "replaced" in result.message
    assert record_of(published) == before
