"""A file under its final name is complete and verified, whatever the moment at which the job dies."""

import pathlib

import pytest
from tests.unit.download.support import Nursery, content, job_document, leftovers, sha256
from tests.world.origin import Origin

from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason

pytestmark = pytest.mark.long

DATA = content(200_000)
OLD = content(150_000, seed=2)

#: Kills the process just before the n-th of the system calls that change the pool.
DIE = """
import os, signal
calls = 0
def dying(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
for name in ("mkdir", "ftruncate", "fchmod", "fchown", "fsync", "fdatasync", "rename", "unlink", "pwrite"):
    setattr(os, name, dying(getattr(os, name)))
"""


@pytest.mark.parametrize("old", [None, OLD])
def test_dying_at_any_step_leaves_nothing_or_everything(
    origin: Origin, served: pathlib.Path, tmp_path: pathlib.Path, old: bytes | None
) -> None:
    (served / "image").write_bytes(DATA)
    seen = set()
    with Nursery(tmp_path) as nursery:
        for step in range(1, 100):
            pool = tmp_path / f"pool-{step}"
            document = job_document(pool, url=origin.url("image"), checksum=sha256(DATA))
            if old is not None:
                (pool / "uid-1").write_bytes(old)
            status, output = nursery.run(document, DIE.format(step=step))
            found = (pool / "uid-1").read_bytes() if (pool / "uid-1").exists() else None
            seen.add(found)
            assert found in (old, DATA), f"step {step}"
            if status == 0:
                break
            # the one that dies is the job itself, or the process that fetches for it
            assert status in (-9, 1), output
            if step % 4 == 0 or found == DATA:
                # the next attempt ends what this one began
                status, output = nursery.run(document)
                assert status == 0, output
                expected = Reason.ALREADY_PRESENT if found == DATA else Reason.DOWNLOADED
                assert JobResult.model_validate_json(output.splitlines()[-1]).reason is expected
                assert leftovers(pool) == {"uid-1", ".directdownload/uid-1.record"}
                assert (pool / "uid-1").read_bytes() == DATA
        else:
            raise AssertionError("the job never got to its end")
    assert step > 10
    assert seen == {old, DATA}
