"""Room on the pool: asked for before a byte is written, and watched where the size is unknown.

The job runs in a mount namespace of its own with a tmpfs as its pool, so these tests need root.
"""

import errno
import pathlib
import re
from typing import Any

import pytest
from tests.unit.download.support import job_document, start_job
from tests.world.http import HostileServer
from tests.world.origin import Origin

from directdownload.download.errors import storage_error
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason

SIZE = 80_000
DATA = b"0123456789" * (SIZE // 10)
#: Mounts $1 as tmpfs with the options $0, runs the rest, then lists what is in the pool.
SCRIPT = """
options=$0 pool=$1 before=$2; shift 2
mount -t tmpfs -o "$options" none "$pool"
eval "$before"
"$@"; status=$?
find "$pool" -type f -printf 'left %P\\n' >&2
exit $status
"""


def run_on_tmpfs(
    pool: pathlib.Path, options: str, document: dict[str, Any], before: str = ":"
) -> tuple[int, JobResult, set[str]]:
    prefix = ("unshare", "-m", "sh", "-c", SCRIPT, options, str(pool), before)
    with start_job(document, *prefix) as process:
        output, errors = process.communicate(timeout=120)
    assert output, errors
    left = set(re.findall(r"^left (.*)$", errors, re.MULTILINE))
    return process.returncode, JobResult.model_validate_json(output.splitlines()[-1]), left


def document_for(pool: pathlib.Path, url: str, reserve: str = "0") -> dict[str, Any]:
    return job_document(pool, url=url, pool={"name": "local", "path": str(pool), "reserve": reserve})


@pytest.mark.parametrize(
    ("options", "reserve", "fits"),
    [
        ("size=52k", "0", False),
        ("size=112k", "0", True),
        ("size=112k", "50%", False),
        ("size=1m", "50%", True),
        ("size=1m", "1000Ki", False),
    ],
)
def test_a_file_of_known_size(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, options: str, reserve: str, fits: bool
) -> None:
    (served / "image").write_bytes(DATA)
    status, result, left = run_on_tmpfs(pool, options, document_for(pool, origin.url("image"), reserve))
    if fits:
        assert (status, result.reason) == (0, Reason.DOWNLOADED)
        assert left == {"uid-1", ".directdownload/uid-1.record"}
    else:
        assert (status, result.reason) == (1, Reason.INSUFFICIENT_SPACE)
        assert f"{SIZE} bytes are needed" in result.message
        assert ("lower reserve of the StoragePool" in result.message) == (reserve != "0")
        assert left == set()


@pytest.mark.parametrize(
    ("options", "reserve", "fits"),
    [("size=1m", "10%", True), ("size=1m", "50%", False), ("size=52k", "0", False)],
)
def test_a_file_of_unknown_size_goes_on_and_stops_cleanly(
    pool: pathlib.Path, options: str, reserve: str, fits: bool
) -> None:
    with HostileServer(lambda c, r, n: c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + DATA * 8)) as server:
        status, result, left = run_on_tmpfs(pool, options, document_for(pool, server.url(), reserve))
    if fits:
        assert result.size_bytes == 8 * SIZE
    else:
        assert (status, result.reason) == (1, Reason.INSUFFICIENT_SPACE)
        assert left == set()


def test_no_inodes(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    _, result, left = run_on_tmpfs(pool, "size=1m,nr_inodes=5", document_for(pool, origin.url("image")))
    assert result.reason is Reason.INSUFFICIENT_SPACE
    assert "inodes" in result.message
    assert left == set()


def test_a_read_only_pool(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    document = document_for(pool, origin.url("image"))
    status, result, _ = run_on_tmpfs(pool, "size=1m", document, before='mount -o remount,ro "$pool"')
    assert (status, result.reason) == (1, Reason.WRITE_FAILED)
    assert "Read-only" in result.message


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.INSUFFICIENT_SPACE),
        (errno.EDQUOT, Reason.INSUFFICIENT_SPACE),
        (errno.EROFS, Reason.WRITE_FAILED),
        (errno.EACCES, Reason.WRITE_FAILED),
        (errno.EIO, Reason.WRITE_FAILED),
    ],
)
def test_what_the_disk_says(number: int, reason: Reason) -> None:
    error = storage_error(OSError(number, "x"), "/pool/file", "write")
    assert error.reason is reason
    assert "cannot write /pool/file" in error.message
