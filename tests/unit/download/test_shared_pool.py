"""A pool that several hosts share: nothing is done where it is not mounted, and two hosts at once spoil nothing.

The pool is a tmpfs in a mount namespace of the job's own, so the tests of mounts need root.
"""

import pathlib
import signal
import subprocess
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

from directdownload.download.store.record import read_record
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason

DATA = content(200_000)
RECORD = ".directdownload/uid-1.record"
VERBS = {"fetch": Reason.DOWNLOADED, "verify": Reason.MISSING, "remove": Reason.REMOVED}
#: Runs $0, then the rest in the same mount namespace.
IN_NAMESPACE = ("unshare", "-m", "sh", "-c", 'eval "$0"; "$@"')


def document_for(verb: str, root: pathlib.Path, path: pathlib.Path, url: str, **fields: Any) -> dict[str, Any]:
    pool = {"name": "shared", "path": str(path), "shared": True, "roots": [str(root)], "reserve": "0", **fields}
    return job_document(root, verb, url=url, pool=pool, sealDirectory="")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("before", "path", "roots", "mounted"),
    [
        ("mount -t tmpfs x root/pool", "root/pool", ["root"], True),
        ("mount -t tmpfs x root/pool", "root/pool", [], True),
        ("mount -t tmpfs x root/pool", "root/pool", ["root/", "other"], True),
        ("mount -t tmpfs x root/pool", "root/link", ["root"], True),
        (":", "root/pool", ["root"], False),
        (":", "root/pool", [], False),
        (":", "root/absent", ["root"], False),
        ("mount --bind root root", "root", ["root"], False),
        ("mount -t tmpfs x root/pool", "root/pool", ["other"], False),
        ("mount -t tmpfs x root && mkdir root/pool", "root/pool", ["root"], False),
        ("mount -t tmpfs x root/pool && mkdir root/pool/a", "root/pool/a", ["root"], False),
        ("mount -t tmpfs x root/pool", "root/pool", ["root", "root/pool"], False),
    ],
)
def test_a_shared_pool_is_used_only_where_it_is_mounted(
    origin: Origin,
    served: pathlib.Path,
    tmp_path: pathlib.Path,
    verb: str,
    before: str,
    path: str,
    roots: list[str],
    mounted: bool,
) -> None:
    (served / "image").write_bytes(DATA)
    root = tmp_path / "root"
    (root / "pool").mkdir(parents=True)
    (root / "link").symlink_to("pool")
    for name in ("root", "root/pool"):
        (tmp_path / name / "uid-1").write_bytes(b"the host's own")
    kept = leftovers(tmp_path)
    full = [str(tmp_path / name) + ("/" if name.endswith("/") else "") for name in roots]
    document = document_for(verb, root, tmp_path / path, origin.url("image"), roots=full)
    status, result = run_job(document, *IN_NAMESPACE, f"cd {tmp_path} && {before}")
    if mounted:
        assert result.reason is VERBS[verb]
    else:
        assert (status, result.reason) == (1, Reason.NOT_MOUNTED)
        assert f"{tmp_path / path} is not a mount point" in result.message
    assert leftovers(tmp_path) == kept, "what lies below the mount point is the host's own disk"
    assert (root / "pool/uid-1").read_bytes() == b"the host's own"


def test_a_local_pool_needs_no_mount(origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    document = document_for("fetch", tmp_path, tmp_path / "pool", origin.url("image"), shared=False)
    (tmp_path / "pool").mkdir()
    assert run_job(document)[1].reason is Reason.DOWNLOADED


#: Stops the process just before the n-th system call of publishing.
PAUSE = """
import os, signal
calls = 0
def pausing(name):
    function = getattr(os, name)
    def call(*arguments, **options):
        global calls
        if calls or name == "fchmod":
            calls += 1
            if calls == {step}:
                os.kill(os.getpid(), signal.SIGSTOP)
        return function(*arguments, **options)
    setattr(os, name, call)
for name in ("fchmod", "rename", "unlink"):
    pausing(name)
"""


def result_of(process: subprocess.Popen[str]) -> JobResult:
    return JobResult.model_validate_json(process.communicate(timeout=120)[0])


@pytest.mark.parametrize(
    ("step", "before"),
    list(
        enumerate(
            [
                "owner and mode",
                "temporary record",
                "record",
                "final name",
                "end of lock",
                "end of journal",
                "end of output",
                "end",
            ],
            1,
        )
    ),
)
def test_two_hosts_that_publish_at_once(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, tmp_path: pathlib.Path, step: int, before: str
) -> None:
    """One is stopped at a step of publishing, while the other one does what it can."""
    (served / "image").write_bytes(DATA)
    marker = tmp_path / "waits"
    first = job_document(pool, url=origin.url("image"), host="kvm-1", sealDirectory="")
    code = PAUSE.format(step=step) + waits_for_locks(tmp_path / "none", 60)
    with start_stopping_job(first, code) as one:
        closely("one has stopped", lambda: one.poll() is not None or stopped(one))
        assert (one.poll() is not None) == (before == "end"), "the list of steps is not that of publishing any more"
        with start_job({**first, "host": "kvm-2"}, code=waits_for_locks(marker, 60)) as two:
            closely("the other waits", lambda: two.poll() is not None or marker.exists())
            one.send_signal(signal.SIGCONT)
            results = [result_of(one), result_of(two)]
    # what the other one has published it reads, and leaves there
    assert [result.reason for result in results] == [Reason.DOWNLOADED, Reason.ALREADY_PRESENT]
    assert marker.exists() == (before in ("owner and mode", "temporary record", "record", "final name", "end of lock"))
    assert (pool / "uid-1").read_bytes() == DATA
    record = read_record(str(pool / RECORD))
    assert record is not None
    assert record.matches((pool / "uid-1").stat())
    assert {result.revision for result in results} == {record.revision}
    assert leftovers(pool) == {"uid-1", RECORD}


def test_a_host_that_hangs_while_it_publishes_costs_the_other_one_an_attempt(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (served / "image").write_bytes(DATA)
    pool = tmp_path / "pool"
    first = job_document(pool, url=origin.url("image"), checksum=sha256(DATA), host="kvm-1")
    second = {**first, "host": "kvm-2"}
    code = (
        "import os, signal\nfrom directdownload.download.store import publish\n"
        "publish.write_record = lambda *arguments: os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with start_stopping_job(first, code) as one:
        closely("one has stopped", lambda: stopped(one))
        status, result = run_job(second, code=waits_for_locks(tmp_path / "waits", 0.1))
        assert (status, result.reason) == (1, Reason.WRITE_FAILED)
        assert "uid-1.lock has been locked" in result.message
        parts = {f".directdownload/uid-1.{host}.part" for host in ("kvm-1", "kvm-2")}
        assert parts <= leftovers(pool), "each has a part of its own"
    status, result = run_job(second)
    assert (status, result.reason) == (0, Reason.DOWNLOADED)
    assert not (pool / ".directdownload/uid-1.lock").exists()
    assert (pool / "uid-1").read_bytes() == DATA
