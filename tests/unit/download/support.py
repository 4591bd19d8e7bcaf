"""What the tests of the engine share: requests and job processes."""

import contextlib
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Self

from tests.world import checkout

from directdownload.download import engine
from directdownload.download.errors import DownloadError
from directdownload.download.request import FetchRequest
from directdownload.download.store.place import Place
from directdownload.download.transfer.schedule import Board, Claim
from directdownload.resources.jobs import JobResult, Limits
from directdownload.resources.zone import SourcePolicy, Timeouts

FAST = Timeouts(connect_seconds=1, socket_seconds=0.6, connection_request_seconds=1)
PATIENT = Timeouts(connect_seconds=10, socket_seconds=10, connection_request_seconds=10)
#: the servers of the tests are on this machine
LOCAL_CIDRS = ("127.0.0.0/8", "::1/128")
LOCAL = SourcePolicy(allowed_cidrs=LOCAL_CIDRS)
#: One connection, so that requests can be counted: a download that has received nothing after a second, as on a busy
#: machine, would open a further one.
LIMITS = Limits(progress_interval_seconds=0.05, connections=1)


def content(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make_request(pool: pathlib.Path, url: str, **fields: Any) -> FetchRequest:
    """A fetch into a pool as host `kvm-1`, template `uid-1`."""
    pool.mkdir(exist_ok=True)
    place = Place.in_pool(str(pool), "uid-1", "uid-1", "kvm-1", seals=str(pool.parent / "seals"))
    defaults: dict[str, Any] = {
        "timeouts": PATIENT,
        "limits": LIMITS,
        "policy": LOCAL,
    }
    return FetchRequest(url=url, place=place, **{**defaults, **fields})


def fetch(request: FetchRequest, stop: threading.Event | None = None) -> JobResult:
    return engine.fetch(request, stop=stop or threading.Event())


def fetch_error(request: FetchRequest, stop: threading.Event | None = None) -> DownloadError:
    try:
        result = fetch(request, stop)
    except DownloadError as error:
        return error
    raise AssertionError(f"expected a failure, got {result}")


def leftovers(pool: pathlib.Path) -> set[str]:
    """Names of all files in a pool, below its root."""
    return {str(path.relative_to(pool)) for path in pool.rglob("*") if not path.is_dir()}


def job_document(pool: pathlib.Path, verb: str = "fetch", /, **fields: Any) -> dict[str, Any]:
    pool.mkdir(exist_ok=True)
    document = {
        "verb": verb,
        "placement": "debian-13-0123456789",
        "placementUid": "placement-uid",
        "templateUid": "uid-1",
        "host": "kvm-1",
        "pool": {"name": "local", "path": str(pool), "reserve": "0"},
        "fileName": "uid-1",
        "url": "http://127.0.0.1:9/none",
        "format": "RAW",
        "sealDirectory": str(pool.parent / "seals"),
        "limits": LIMITS.model_dump(exclude_unset=True),
        "policy": {"allowedCIDRs": LOCAL_CIDRS},
    }
    return {**document, **fields}


def start_job(document: dict[str, Any], *prefix: str, code: str = "") -> subprocess.Popen[str]:
    """A real job process; `code` runs in it before the job."""
    verb = document["verb"]
    program = f"{code}\nimport sys\nfrom directdownload.download import job\nsys.exit(job.main({verb!r}))"
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        env=checkout.environment(DIRECTDOWNLOAD_JOB=json.dumps(document)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def start_stopping_job(document: dict[str, Any], code: str) -> Iterator[subprocess.Popen[str]]:
    """A job process whose `code` stops it (SIGSTOP) somewhere; it is killed at the end of the block."""
    with start_job(document, code=code) as process:
        try:
            yield process
        finally:
            process.kill()


def stopped(process: subprocess.Popen[str]) -> bool:
    state = pathlib.Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
    return state.rpartition(")")[2].split()[0] == "T"


def waits_for_locks(marker: pathlib.Path, limit_seconds: float) -> str:
    """Code for a job: it waits up to `limit_seconds` for a lock, and creates `marker` when the wait begins."""
    return f"""
import pathlib
from directdownload.download import lock
from directdownload.download.guard import Guard
lock._POLL_SECONDS = 0.01
lock.LIMIT_SECONDS = {limit_seconds}
wait = Guard.wait
def waiting(self, seconds):
    pathlib.Path({str(marker)!r}).touch()
    wait(self, seconds)
Guard.wait = waiting
"""


def run_job(document: dict[str, Any], *prefix: str, code: str = "") -> tuple[int, JobResult]:
    """Exit status and result of a job process that ends by itself."""
    with start_job(document, *prefix, code=code) as process:
        output, errors = process.communicate(timeout=120)
    assert output, errors
    return process.returncode, JobResult.model_validate_json(output.splitlines()[-1])


_NURSERY = """
import json, os, sys, traceback
from directdownload.download import job
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ["DIRECTDOWNLOAD_JOB"] = json.dumps(order["document"])
        status = 1
        try:
            exec(order["code"], {})
            status = job.main(order["document"]["verb"])
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs jobs one after the other, each in a process of its own that has imported the engine already.

    For tests of many jobs: the import takes longer than a small job. Use as a context manager.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._log = directory / "job.log"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            env=checkout.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def run(self, document: dict[str, Any], code: str = "") -> tuple[int, str]:
        """The exit status of a job, below 0 the signal that killed it, and its output; `code` runs before it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"document": document, "code": code, "log": str(self._log)}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), self._log.read_text()


def deliver(board: Board, claim: Claim, now: float, count: int) -> None:
    """So many bytes of the claim are received, and are on disk."""
    start = claim.position
    board.advance(start, start + board.receive(claim, now, count))
