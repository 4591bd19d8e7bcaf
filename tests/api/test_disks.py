"""Simulated disks answer as the engine does: the same random jobs and accidents on both, step by step."""

import hashlib
import os
import pathlib
import random
import threading
from collections.abc import Iterator

import pytest
from tests.world.disks import SIZE_BYTES, Disk
from tests.world.disks import Origin as SimulatedOrigin
from tests.world.origin import Origin

from directdownload.download import job
from directdownload.download.store.record import read_record
from directdownload.resources.jobs import JobDocument, JobPool, Verb
from directdownload.resources.naming import WORK_DIRECTORY
from directdownload.resources.zone import SourcePolicy

CONTENT = bytes(SIZE_BYTES)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
NOWHERE = "http://127.0.0.1:9/nothing"
ACCIDENTS = ("delete", "truncate", "alter", "rot", "touch", "drop")


class SameOrigin(SimulatedOrigin):
    """Serves what the real one serves."""

    def digest(self, url: str) -> str:
        return DIGEST


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("origin")
    (directory / "image").write_bytes(CONTENT)
    with Origin(directory) as origin:
        yield origin.url("image")


@pytest.mark.parametrize("seed", range(12))
def test_a_simulated_disk_answers_as_the_engine_does(seed: int, url: str, tmp_path: pathlib.Path) -> None:
    rng, disk, simulated = random.Random(seed), Disk("simulated"), SameOrigin()
    file, record = tmp_path / "template", tmp_path / WORK_DIRECTORY / "template.record"
    revisions: dict[str, str] = {}
    for _ in range(25):
        if rng.random() < 0.45:
            accident = rng.choice(ACCIDENTS)
            happen(accident, file, record)
            happen_simulated(accident, disk)
            said = accident
        else:
            simulated.cut = rng.random() < 0.2
            document = some_document(rng, NOWHERE if simulated.cut else url, tmp_path)
            real = job.run_job(document, threading.Event())
            disk.begin(document)
            answer = disk.work(document, simulated, lambda *_: None)
            said = f"{document.verb} of {document.placement_uid}: {real.reason}"
            assert connected(answer.reason) == connected(real.reason), said
            # Other names for the same: equal where the engine's are equal, different where they differ.
            assert revisions.setdefault(real.revision, answer.revision) == answer.revision, said
        found, noted = disk.files.get("template"), disk.records.get("template")
        assert (found is not None) == file.exists(), said
        real_record = read_record(str(record))
        assert (noted is not None) == (real_record is not None), said
        if noted is not None and real_record is not None:
            assert noted.placement_uid == real_record.placement_uid, said
            assert noted.matches(found) == (file.exists() and real_record.matches(file.stat())), said
    assert len(set(revisions.values())) == len(revisions)


def some_document(rng: random.Random, url: str, pool: pathlib.Path) -> JobDocument:
    return JobDocument(
        verb=rng.choice([Verb.FETCH, Verb.FETCH, Verb.VERIFY, Verb.REMOVE]),
        placement="debian-0123456789",
        placement_uid=rng.choice(["one", "two"]),
        template_uid="template",
        host="kvm-1",
        pool=JobPool(name="local", path=str(pool), reserve="0"),
        file_name="template",
        url=url,
        expected_digest=rng.choice([DIGEST, ""]),
        checksum=rng.choice([DIGEST, "", ""]),
        format="RAW",
        policy=SourcePolicy(allowed_cidrs=("127.0.0.0/8",)),
        seal_directory=f"{pool}/seals",
    )


def connected(reason: str) -> str:
    """How exactly a connection fails is not simulated."""
    return "SourceUnreachable" if reason in ("ConnectTimeout", "SocketTimeout") else reason


def happen(accident: str, file: pathlib.Path, record: pathlib.Path) -> None:
    if accident == "drop":
        record.unlink(missing_ok=True)
    elif not file.exists():
        return
    elif accident == "delete":
        file.unlink()
    elif accident == "truncate":
        file.write_bytes(b"")
    elif accident == "touch":
        os.utime(file)
    else:
        before = file.stat()
        file.write_bytes(os.urandom(before.st_size if accident == "rot" else SIZE_BYTES))
        if accident == "rot":
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def happen_simulated(accident: str, disk: Disk) -> None:
    match accident:
        case "drop":
            disk.drop_record("template")
        case "delete":
            disk.delete("template")
        case "touch":
            disk.touch("template")
        case "truncate":
            disk.alter("template", size_bytes=0)
        case _:
            disk.alter("template", silently=accident == "rot")
