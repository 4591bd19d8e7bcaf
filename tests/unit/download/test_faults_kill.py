"""SIGKILL at random moments, and a clock that jumps: whatever a job leaves, the next one makes a whole file of it."""

import contextlib
import email.utils
import gzip
import hashlib
import os
import pathlib
import random
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.download.support import (
    Nursery,
    content,
    fetch,
    job_document,
    leftovers,
    make_request,
    run_job,
    sha256,
    start_job,
)
from tests.world.http import HostileServer, Received, answer
from tests.world.origin import Origin
from tests.world.soak import EACH_ROUND, seed_of
from tests.world.waiting import closely

from directdownload.download.store import seal
from directdownload.download.transfer.journal import Journal, read_journal
from directdownload.resources.reasons import Reason

pytestmark = pytest.mark.long

MIB = 1024 * 1024
IMAGE = content(5 * MIB) + bytes(MIB) + content(2 * MIB + 777, seed=2)
PIECE = 256 * 1024
#: of each connection, in bytes per second
RATE = 4 * MIB
KILLS_PER_KIND = 10
#: after the part was opened
MOMENTS_SECONDS = 0.2
LIMITS = {"limits": {"progressIntervalSeconds": 0.02}}
JOURNAL = ".directdownload/uid-1.kvm-1.journal"
PART = ".directdownload/uid-1.kvm-1.part"


Kind = Callable[[Origin, Origin, pathlib.Path], dict[str, Any]]
SERVED = {"image": IMAGE, "gz": gzip.compress(IMAGE, 1)}


def metalink(*urls: str) -> str:
    """With the hashes of pieces only, so that nothing else tells what is wrong."""
    parts = [IMAGE[start : start + PIECE] for start in range(0, len(IMAGE), PIECE)]
    hashes = "".join(f"<hash>{hashlib.sha256(part).hexdigest()}</hash>" for part in parts)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="image">'
        f'<size>{len(IMAGE)}</size><pieces length="{PIECE}" type="sha-256">{hashes}</pieces>'
        + "".join(f"<url>{url}</url>" for url in urls)
        + "</file></metalink>"
    )


def archive_of(name: str) -> Kind:
    def document(one: Origin, _two: Origin, _served: pathlib.Path) -> dict[str, Any]:
        return {"url": one.url(name), "checksum": sha256(SERVED[name])}

    return document


def several_connections(one: Origin, _two: Origin, _served: pathlib.Path) -> dict[str, Any]:
    """Nothing to compare with: only the version of the server tells what may be continued."""
    return {"url": one.url("image"), "limits": {"progressIntervalSeconds": 0.02, "connections": 4}}


def mirrors(one: Origin, two: Origin, _served: pathlib.Path) -> dict[str, Any]:
    return {
        "url": one.url("image"),
        "mirrors": [two.url("image")],
        "checksum": sha256(IMAGE),
        "limits": {"progressIntervalSeconds": 0.02, "connections": 2},
    }


def pieces(one: Origin, two: Origin, served: pathlib.Path) -> dict[str, Any]:
    (served / "image.meta4").write_text(metalink(one.url("image"), two.url("image")))
    return {"url": one.url("image.meta4"), "limits": {"progressIntervalSeconds": 0.02, "connections": 2}}


KINDS: dict[str, Kind] = {
    "one connection": lambda one, _two, _served: {"url": one.url("image"), "checksum": sha256(IMAGE)},
    "several connections": several_connections,
    "mirrors": mirrors,
    "pieces": pieces,
    "gz": archive_of("gz"),
}


@pytest.mark.soak
@pytest.mark.parametrize("number", EACH_ROUND)
@pytest.mark.parametrize("name", KINDS)
def test_jobs_that_are_killed_at_any_moment_come_to_a_whole_file(
    served: pathlib.Path, tmp_path: pathlib.Path, name: str, number: int
) -> None:
    chance = random.Random(seed_of(number))
    for each, data in SERVED.items():
        (served / each).write_bytes(data)
    pool = tmp_path / "pool"
    as_served = SERVED.get(name, IMAGE)
    kills, kept_bytes, published = 0, 0, False
    with Origin(served, rate=RATE) as one, Origin(served, rate=RATE) as two:
        document = job_document(pool, **{**LIMITS, **KINDS[name](one, two, served)})
        while kills < KILLS_PER_KIND:
            kills += kill_at(chance.uniform(0, MOMENTS_SECONDS), document, pool)
            if (pool / PART).exists() and stat.S_IMODE((pool / PART).stat().st_mode) != 0o600:
                # killed while publishing: others may have opened it since, so the next one begins with a new part
                published, kept_bytes = True, 0
            journal = check_leftovers(pool, as_served, replaced=published)
            if (pool / "uid-1").exists():
                run_job(document)
                assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}
                (pool / "uid-1").unlink()
                kept_bytes = 0
            elif journal is not None:
                assert journal.bytes_on_disk >= kept_bytes, "it began anew"
                kept_bytes = journal.bytes_on_disk
            elif kept_bytes > len(as_served) - MIB:
                # all was there: killed while publishing, after the journal had gone
                kept_bytes = 0
        status, result = run_job(document)
        assert (status, result.reason, result.resumed_from) == (0, Reason.DOWNLOADED, kept_bytes), result
        assert (pool / "uid-1").read_bytes() == IMAGE
        assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}


def kill_at(seconds: float, document: dict[str, Any], pool: pathlib.Path) -> bool:
    """Whether a job was killed, so long after it had begun; False if it ended before."""
    part = pool / PART
    before = part.stat().st_ctime_ns if part.exists() else 0
    with start_job(document) as process:
        closely(
            "the job has begun",
            lambda: (
                process.poll() is not None
                or (pool / "uid-1").exists()
                or (part.exists() and part.stat().st_ctime_ns != before)
            ),
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        output, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), (output, errors)
        return process.returncode != 0


def check_leftovers(pool: pathlib.Path, as_served: bytes, *, replaced: bool) -> Journal | None:
    """Under the final name is nothing, or everything; what the journal says is on disk, is.

    `replaced`: the part may be a new one, which is empty; then the journal is of the one before, which nobody believes.
    """
    if (pool / "uid-1").exists():
        assert (pool / "uid-1").read_bytes() == IMAGE
        return None
    journal = read_journal(str(pool / JOURNAL))
    if journal is not None:
        on_disk = (pool / PART).read_bytes()
        if replaced and not on_disk:
            return None
        for start, end in journal.ranges:
            assert on_disk[start:end] == as_served[start:end], f"{start} to {end} is not what the source has"
    return journal


#: of the calls that publishing makes, the one of this number is the last thing that the process does
DIES_WHILE_PUBLISHING = """
import os, signal
from directdownload.download.store import publish
begun, count = [], [0]
def dies(name):
    real = getattr(os, name)
    def called(*arguments, **options):
        count[0] += bool(begun)
        if begun and count[0] == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, called)
for name in ("open", "write", "ftruncate", "fchmod", "fchown", "fsync", "rename", "unlink", "close", "sendfile"):
    dies(name)
real_publish = publish.publish
def publishes(*arguments, **options):
    begun.append(True)
    return real_publish(*arguments, **options)
publish.publish = publishes
"""


def test_a_job_that_is_killed_at_any_step_of_publishing_leaves_all_or_nothing(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    data = IMAGE[:300_000]
    archive = gzip.compress(data, 1)
    (served / "archive").write_bytes(archive)
    published = []
    with Nursery(tmp_path) as nursery:
        for number in range(1, 100):
            pool = tmp_path / f"pool-{number}"
            document = job_document(pool, url=origin.url("archive"), checksum=sha256(archive))
            status, output = nursery.run(document, DIES_WHILE_PUBLISHING.replace("{number}", str(number)))
            published.append((pool / "uid-1").exists())
            assert not published[-1] or (pool / "uid-1").read_bytes() == data
            if status == 0:
                break
            assert status == -signal.SIGKILL, output
            again = make_request(pool, origin.url("archive"), checksum=sha256(archive), image_format="RAW")
            # until this host has sealed it, nobody knows what an unpacked file should hold
            sealed = os.path.exists(seal.path_of(str(tmp_path / "seals"), str(pool / "uid-1")))
            assert fetch(again).reason is (Reason.ALREADY_PRESENT if sealed else Reason.DOWNLOADED), number
            assert (pool / "uid-1").read_bytes() == data
            assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}
    assert published == sorted(published), "not there, then there"
    assert published.count(False) > 5
    assert published.count(True) > 3


JUMPING_CLOCK = """
import time
real, count = time.time, [0]
def jumping():
    count[0] += 1
    return real() + 86400 * (-1) ** count[0]
time.time = jumping
"""


def test_a_clock_that_jumps_by_days_changes_nothing(served: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (served / "image").write_bytes(IMAGE)
    with Origin(served, rate=8 * MIB) as origin:
        document = job_document(
            tmp_path / "pool",
            url=origin.url("image"),
            checksum=sha256(IMAGE),
            limits={"progressIntervalSeconds": 0.02, "deadlineSeconds": 30, "bandwidthBytesPerSecond": 16 * MIB},
            timeouts={"connectSeconds": 2, "socketSeconds": 2, "connectionRequestSeconds": 2},
        )
        status, result = run_job(document, code=JUMPING_CLOCK)
    assert (status, result.reason) == (0, Reason.DOWNLOADED), result
    assert result.seconds is not None
    assert 0 < result.seconds < 30
    assert (tmp_path / "pool/uid-1").read_bytes() == IMAGE


def test_a_deadline_is_kept_when_the_clock_jumps(served: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (served / "image").write_bytes(IMAGE)
    with Origin(served, rate=MIB) as origin:
        document = job_document(
            tmp_path / "pool",
            url=origin.url("image"),
            limits={"progressIntervalSeconds": 0.02, "deadlineSeconds": 1},
        )
        status, result = run_job(document, code=JUMPING_CLOCK)
    assert (status, result.reason) == (1, Reason.DEADLINE_EXCEEDED), result


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_date_to_retry_after_is_within_a_day_whatever_the_clock_says(tmp_path: pathlib.Path, hours: int) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        date = email.utils.formatdate(time.time() + 600, usegmt=True)
        answer(connection, b"", status="503 Busy", headers=f"Retry-After: {date}\r\n")

    code = f"import time\nreal = time.time\ntime.time = lambda: real() + {hours * 3600}"
    with HostileServer(respond) as server:
        status, result = run_job(job_document(tmp_path / "pool", url=server.url()), code=code)
    assert (status, result.reason) == (1, Reason.SOURCE_UNAVAILABLE)
    assert result.retry_after_seconds is not None
    assert 0 <= result.retry_after_seconds <= 86_400
