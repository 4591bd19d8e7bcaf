"""A Seed records the pieces of what it fetches, and no record costs a download."""

import gzip
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from tests.unit.download.peers.support import (
    DATA,
    LOG,
    MIB,
    RECORD,
    Swarm,
    lists,
    read_log,
)
from tests.unit.download.support import content, job_document, leftovers, run_job, sha256, start_job
from tests.world import checkout
from tests.world.http import HostileServer, Received
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.peer import piecelog
from directdownload.resources.reasons import Reason


def served_by(origin: Origin, served: pathlib.Path, data: bytes = DATA) -> str:
    (served / "image").write_bytes(data)
    return origin.url("image")


def complete(pool: pathlib.Path) -> bool:
    told = read_log(pool)
    return told.complete and lists(told)


def test_a_seed_records_what_its_file_holds(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    swarm = Swarm()
    document = swarm.document(pool, "Seed", url=served_by(origin, served))
    status, result = run_job(document)
    assert (status, result.reason) == (0, Reason.DOWNLOADED)
    assert (result.content, result.origin_bytes, result.peer_bytes) == (swarm.content, len(DATA), 0)
    assert leftovers(pool) == {"uid-1", RECORD, LOG}
    told = read_log(pool)
    assert (told.header, told.size_bytes) == (swarm.header, len(DATA))
    assert told.warrants == [document["peers"]["warrant"]]
    assert complete(pool)
    assert all(entry.proof is None for entry in told.entries.values())


@pytest.mark.parametrize("connections", [1, 4])
def test_pieces_are_recorded_while_the_file_comes(served: pathlib.Path, pool: pathlib.Path, connections: int) -> None:
    (served / "image").write_bytes(DATA)
    with Origin(served, rate=MIB) as origin:
        document = Swarm().document(pool, "Seed", url=origin.url("image"))
        document["limits"] = {"progressIntervalSeconds": 3600, "connections": connections}
        with start_job(document) as process:
            closely("the first piece is recorded", lambda: (pool / LOG).exists() and read_log(pool).entries)
            assert not (pool / "uid-1").exists()
            process.communicate(timeout=120)
    assert complete(pool)


def test_a_file_of_unknown_size_is_recorded_at_its_end(pool: pathlib.Path) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + DATA)

    with HostileServer(respond) as server:
        status, result = run_job(Swarm().document(pool, "Seed", url=server.url("image")))
    assert (status, bool(result.content)) == (0, True)
    assert complete(pool)


def test_a_killed_seed_goes_on_with_its_log(served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image").write_bytes(DATA)
    with Origin(served, rate=MIB) as origin:
        document = Swarm().document(pool, "Seed", url=origin.url("image"))
        with start_job(document) as process:
            closely("two pieces are recorded", lambda: (pool / LOG).exists() and len(read_log(pool).entries) >= 2)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=120)
        inode = (pool / LOG).stat().st_ino
        with (pool / LOG).open("ab") as log:
            log.write(b'{"piece":0,"dig')
        status, result = run_job(document)
    assert (status, bool(result.resumed_from)) == (0, True)
    assert result.origin_bytes == len(DATA) - result.resumed_from
    assert (pool / LOG).stat().st_ino == inode
    assert complete(pool)


def test_pieces_that_are_not_on_disk_any_more_are_lost(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    """Another version is at the source: whoever follows the log learns that the bytes go."""
    swarm = Swarm()
    log = pool / LOG
    log.parent.mkdir(mode=0o700)
    lines = [piecelog.header_line(swarm.header), piecelog.size_line(len(DATA))]
    lines += [piecelog.piece_line(index, bytes(32)) for index in range(4)]
    log.write_bytes(b"".join(lines))
    log.chmod(0o600)
    inode = log.stat().st_ino
    assert run_job(swarm.document(pool, "Seed", url=served_by(origin, served)))[0] == 0
    assert log.stat().st_ino == inode
    assert complete(pool)
    told = log.read_bytes()
    for index in range(4):
        assert piecelog.lost_line(index) in told


def foreign(swarm: Swarm) -> bytes:
    return piecelog.header_line(Swarm(content(1000)).header) + piecelog.size_line(1000)


def other_pieces(swarm: Swarm) -> bytes:
    return piecelog.header_line(Swarm(piece_bytes=2 * MIB).header) + piecelog.size_line(len(DATA))


@pytest.mark.parametrize("make", [foreign, other_pieces, lambda _swarm: b"x" * 1000], ids=["content", "size", "none"])
def test_a_log_of_something_else_is_replaced(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, make: Any
) -> None:
    swarm = Swarm()
    (pool / LOG).parent.mkdir(mode=0o700)
    (pool / LOG).write_bytes(make(swarm))
    (pool / LOG).chmod(0o600)
    inode = (pool / LOG).stat().st_ino
    _, result = run_job(swarm.document(pool, "Seed", url=served_by(origin, served)))
    assert result.content == swarm.content
    assert (pool / LOG).stat().st_ino != inode
    assert complete(pool)


def test_a_log_that_leads_elsewhere_is_not_followed(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(piecelog.header_line(Swarm().header))
    (pool / LOG).parent.mkdir(mode=0o700)
    for make in (os.symlink, os.link):
        make(precious, pool / LOG)
        run_job(Swarm().document(pool, "Seed", url=served_by(origin, served)))
        assert precious.read_bytes() == piecelog.header_line(Swarm().header)
        assert complete(pool)
        (pool / LOG).unlink()
        (pool / "uid-1").unlink()


@pytest.mark.parametrize("where", ["open", "write"])
def test_a_log_that_cannot_be_written_costs_no_download(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, where: str
) -> None:
    code = ""
    if where == "open":
        (pool / LOG).mkdir(parents=True)
    else:
        code = (
            "from directdownload.peer import piecelog\n"
            "def broken(*_):\n    raise OSError(28, 'No space left on device')\n"
            "piecelog.PieceLog.feed = broken\n"
        )
    status, result = run_job(Swarm().document(pool, "Seed", url=served_by(origin, served)), code=code)
    assert (status, result.reason, result.content) == (0, Reason.DOWNLOADED, "")
    assert (pool / "uid-1").read_bytes() == DATA


def test_a_document_that_does_not_fit_together_costs_no_download(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    document = Swarm().document(pool, "Seed", url=served_by(origin, served))
    document["peers"]["content"] = "0" * 64
    status, result = run_job(document)
    assert (status, result.reason, result.content) == (0, Reason.DOWNLOADED, "")
    assert not (pool / LOG).exists()


def test_the_log_of_an_archive_goes_once_it_is_unpacked(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    archive = gzip.compress(DATA, 1)
    swarm = Swarm(archive)
    status, result = run_job(swarm.document(pool, "Seed", url=served_by(origin, served, archive)))
    assert (status, result.content) == (0, "")
    assert (pool / "uid-1").read_bytes() == DATA
    assert leftovers(pool) == {"uid-1", RECORD}


def test_a_failure_for_good_takes_the_log_with_it(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    document = Swarm().document(pool, "Seed", url=served_by(origin, served, content(len(DATA), seed=2)))
    status, result = run_job(document)
    assert (status, result.reason) == (3, Reason.CHECKSUM_MISMATCH)
    assert leftovers(pool) == set()


def test_the_copy_that_is_present_says_whether_it_is_recorded(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    swarm = Swarm()
    document = swarm.document(pool, "Seed", url=served_by(origin, served))
    run_job(document)
    assert [run_job(document)[1].content for _ in range(2)] == [swarm.content] * 2
    (pool / LOG).write_bytes((pool / LOG).read_bytes().replace(piecelog.size_line(len(DATA)), b""))
    result = run_job(document)[1]
    assert (result.reason, result.content) == (Reason.ALREADY_PRESENT, "")


def test_a_removal_takes_the_log(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    swarm = Swarm()
    run_job(swarm.document(pool, "Seed", url=served_by(origin, served)))
    assert run_job(job_document(pool, "remove"))[1].reason is Reason.REMOVED
    assert leftovers(pool) == set()


def test_a_verification_records_a_copy_of_before(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    run_job(job_document(pool, url=served_by(origin, served), checksum=sha256(DATA)))
    assert leftovers(pool) == {"uid-1", RECORD}
    swarm = Swarm()
    document = swarm.document(pool, "Seed", "verify")
    status, result = run_job(document)
    assert (status, result.reason, result.content) == (0, Reason.VERIFIED, swarm.content)
    assert complete(pool)
    assert read_log(pool).warrants == [document["peers"]["warrant"]]
    inode = (pool / LOG).stat().st_ino
    assert run_job(document)[1].content == swarm.content
    assert (pool / LOG).stat().st_ino == inode
    document["peers"] = swarm.peers("Seed", warrant=swarm.warrant(epoch=2000))
    assert run_job(document)[1].content == swarm.content
    assert read_log(pool).warrants == [document["peers"]["warrant"]]


def test_a_verification_records_no_altered_copy(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    run_job(job_document(pool, url=served_by(origin, served), checksum=sha256(DATA)))
    (pool / "uid-1").write_bytes(DATA[:-1] + b"x")
    result = run_job(Swarm().document(pool, "Seed", "verify"))[1]
    assert (result.reason, result.content) == (Reason.ALTERED, "")
    assert not (pool / LOG).exists()


_LOADED = """
import sys
from directdownload.download import job
status = job.main("fetch")
print(*(name for name in sys.modules if name.startswith(("directdownload.peer", "directdownload.download.peers"))))
"""


def test_a_job_that_shares_nothing_loads_and_opens_nothing_of_it(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    document = job_document(pool, url=served_by(origin, served), checksum=sha256(DATA))
    environment = checkout.environment(DIRECTDOWNLOAD_JOB=json.dumps(document))
    command = [sys.executable, "-c", _LOADED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    result, loaded = done.stdout.splitlines()[-2:]
    assert '"reason":"Downloaded"' in result
    assert "origin_bytes" not in result
    assert loaded == ""
    assert leftovers(pool) == {"uid-1", RECORD}
    document = Swarm().document(pool, "Seed", url=origin.url("image"))
    environment = checkout.environment(DIRECTDOWNLOAD_JOB=json.dumps(document))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    assert "directdownload.download.peers.shared" in done.stdout, "the test sees what is loaded"
