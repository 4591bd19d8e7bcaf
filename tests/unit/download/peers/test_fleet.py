"""Seed, Peers and the servers of their hosts together: real jobs, real servers, one read of the origin."""

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.download.support import job_document, run_job
from tests.world.origin import Origin
from tests.world.peers import MIB, Fleet, PeerHost, SharedFile
from tests.world.waiting import closely

from directdownload.download import engine, job
from directdownload.peer.piecelog import PieceLog
from directdownload.resources.jobs import JobDocument, JobResult, PeerRole
from directdownload.resources.reasons import Reason


def document(fleet: Fleet, file: SharedFile, host: PeerHost, verb: str = "fetch", **fields: Any) -> dict[str, Any]:
    peers = fleet.job_peers(file, host, **fields)
    return job_document(
        host.pool,
        verb,
        templateUid=file.template_uid,
        host=host.name,
        fileName=file.template_uid,
        checksum=file.checksum,
        peers=peers.model_dump(mode="json", by_alias=True),
        sealDirectory=str(host.directory / "seals"),
    )


class Running:
    """A job in a thread of this process."""

    def __init__(self, told: dict[str, Any]) -> None:
        request = dataclasses.replace(job._request(JobDocument.model_validate(told)), confined=False)
        self._results: list[JobResult] = []
        self._thread = threading.Thread(
            target=lambda: self._results.append(engine.outcome(lambda: engine.fetch(request, stop=self.stop), str))
        )
        self.stop = threading.Event()
        self._thread.start()

    def result(self) -> JobResult:
        self._thread.join()
        return self._results[0]


def log_of(file: SharedFile, host: PeerHost) -> PieceLog:
    told = PieceLog()
    with contextlib.suppress(FileNotFoundError):
        told.feed(host.log_path(file).read_bytes())
    return told


def has_whole(file: SharedFile, hosts: Sequence[PeerHost]) -> bool:
    return all(
        (host.pool / file.template_uid).read_bytes() == file.data and log_of(file, host).complete for host in hosts
    )


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_fleet_reads_the_origin_once(fleet: Fleet, served: pathlib.Path) -> None:
    """The others read pieces while the Seed still reads, and from each other."""
    file = SharedFile.of(6 * MIB - 7)
    (served / "image").write_bytes(file.data)
    seed, *readers = hosts = [fleet.host(f"kvm-{number}") for number in range(1, 4)]
    with contextlib.ExitStack() as serving, Origin(served, rate=2 * MIB) as origin:
        for host in hosts:
            serving.enter_context(host.serving())
        peers = [
            Running(document(fleet, file, host, parents=[each for each in hosts if each is not host]))
            for host in readers
        ]
        warrant = fleet.warrant(file, seed)
        told = document(fleet, file, seed, role=PeerRole.SEED, warrant=warrant) | {"url": origin.url("image")}
        first = Running(told)
        closely("a Peer has a piece before the Seed has the file", lambda: log_of(file, readers[0]).entries)
        assert not (seed.pool / file.template_uid).exists()
        results = [each.result() for each in (first, *peers)]
        assert [result.reason for result in results] == [Reason.DOWNLOADED] * 3, results
        assert [result.content for result in results] == [file.content] * 3
        assert [result.origin_bytes for result in results] == [len(file.data), 0, 0]
        assert [result.peer_bytes for result in results] == [0, len(file.data), len(file.data)]
        assert has_whole(file, hosts)
        assert len(origin.wait_for_requests(1)) == 1


def test_a_later_host_reads_from_published_copies(fleet: Fleet) -> None:
    """Also from one that was there before peers, once it is verified."""
    file = SharedFile.of(3 * MIB - 7)
    old, peer, late = (fleet.host(f"kvm-{number}") for number in range(1, 4))
    (old.pool / file.template_uid).write_bytes(file.data)
    warrant = fleet.warrant(file, old)
    status, result = run_job(document(fleet, file, old, "verify", role=PeerRole.SEED, warrant=warrant))
    assert (status, result.reason, result.content) == (0, Reason.VERIFIED, file.content)
    with peer.serving():
        with old.serving():
            status, result = run_job(document(fleet, file, peer, parents=[old]))
            assert (status, result.content) == (0, file.content), result
        status, result = run_job(document(fleet, file, late, parents=[old, peer]))
    assert (status, result.source) == (0, "1 other host"), result
    assert has_whole(file, [peer, late])


def test_a_stopped_peer_serves_what_it_has(fleet: Fleet) -> None:
    file = SharedFile.of(4 * MIB)
    seed, peer, late = (fleet.host(f"kvm-{number}") for number in range(1, 4))
    seed.begin(file, warrant=fleet.warrant(file, seed))
    seed.write(file, [0, 2])
    with peer.serving():
        with seed.serving():
            running = Running(document(fleet, file, peer, parents=[seed]))
            closely("it has two pieces", lambda: log_of(file, peer).entries.keys() == {0, 2})
            running.stop.set()
            assert running.result().reason is Reason.INTERRUPTED
        other = Running(document(fleet, file, late, parents=[peer]))
        closely("they are passed on", lambda: log_of(file, late).entries.keys() == {0, 2})
        other.stop.set()
        assert other.result().reason is Reason.INTERRUPTED
