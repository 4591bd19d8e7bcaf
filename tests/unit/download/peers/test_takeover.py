"""A Seed takes what other hosts have before it reads its source, and loses nothing by that."""

import pathlib
from typing import Any

import pytest
from tests.unit.download.peers.parents import Authority, Parent
from tests.unit.download.peers.support import DATA, LOG, MIB, RECORD, Swarm, lists, read_log
from tests.unit.download.peers.test_peer import authority as authority
from tests.unit.download.peers.test_peer import corrupt, fetch, forged
from tests.unit.download.support import content, leftovers, run_job, start_job
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.resources.reasons import Reason


def document(
    pool: pathlib.Path, swarm: Swarm, authority: Authority, parent: Parent, origin: Origin, served: pathlib.Path
) -> dict[str, Any]:
    (served / "image").write_bytes(DATA)
    told = swarm.document(pool, "Seed", url=origin.url("image"))
    told["peers"] |= {"parents": [parent.told()], "port": parent.port, "directory": authority.client("kvm-1")}
    return told


def seeded(pool: pathlib.Path, told: dict[str, Any]) -> bool:
    """Whether the file is there, and recorded as a Seed records."""
    log = read_log(pool)
    assert (pool / "uid-1").read_bytes() == DATA
    assert lists(log)
    assert leftovers(pool) == {"uid-1", RECORD, LOG}
    return told["peers"]["warrant"] in log.warrants and all(entry.proof is None for entry in log.entries.values())


def test_a_seed_reads_from_its_source_only_what_nobody_has(
    pool: pathlib.Path, authority: Authority, origin: Origin, served: pathlib.Path
) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.has = {0, 2}
        told = document(pool, swarm, authority, parent, origin, served)
        status, result = run_job(told)
        assert (status, result.reason) == (0, Reason.DOWNLOADED), result
        assert sorted(parent.asked) == [0, 2]
    assert (result.peer_bytes, result.origin_bytes, result.resumed_from) == (2 * MIB, len(DATA) - 2 * MIB, 0)
    assert result.content == swarm.content
    assert seeded(pool, told)


def test_a_seed_opens_no_source_for_what_others_have_whole(
    pool: pathlib.Path, authority: Authority, origin: Origin, served: pathlib.Path
) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        told = document(pool, swarm, authority, parent, origin, served) | {"url": "http://127.0.0.1:9/none"}
        result = fetch(told)
    assert (result.peer_bytes, result.origin_bytes) == (len(DATA), 0)
    assert seeded(pool, told)


def test_a_seed_whose_file_is_of_another_size_than_hosts_say_reads_all_of_it(
    pool: pathlib.Path, authority: Authority, origin: Origin, served: pathlib.Path
) -> None:
    """It asks its source for the first piece alone, and learns from the answer that nothing of the others counts."""
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent:
        parent.size, parent.has = len(DATA) + MIB, {1, 2}
        told = document(pool, swarm, authority, parent, origin, served)
        result = fetch(told)
        assert sorted(parent.asked) == [1, 2]
    assert result.reason is Reason.DOWNLOADED
    assert seeded(pool, told)


@pytest.mark.parametrize("kind", ["corrupt", "forged", "wrong", "huge", "gone", "no certificate", "broken"])
def test_nothing_that_a_seed_meets_at_other_hosts_costs_its_download(
    pool: pathlib.Path,
    authority: Authority,
    origin: Origin,
    served: pathlib.Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swarm = Swarm()
    data = content(len(DATA), seed=9) if kind == "wrong" else DATA
    with Parent(authority, swarm, "kvm-2", data=data) as parent:
        if kind in ("corrupt", "forged"):
            {"corrupt": corrupt, "forged": forged}[kind](parent)
        if kind == "huge":
            parent.size = 32768 * MIB
        told = document(pool, swarm, authority, parent, origin, served)
        if kind == "gone":
            parent.close()
        if kind == "no certificate":
            told["peers"]["directory"] = "/nonexistent"
        if kind == "broken":
            from directdownload.download.peers.swarm import Swarm as Parents

            monkeypatch.setattr(Parents, "next", lambda *_: 1 / 0)
        result = fetch(told)
    assert result.reason is Reason.DOWNLOADED
    assert kind == "huge" or result.origin_bytes == len(DATA)
    assert seeded(pool, told)


def test_a_killed_seed_keeps_what_came_from_its_source(
    pool: pathlib.Path, authority: Authority, served: pathlib.Path
) -> None:
    swarm = Swarm()
    with Parent(authority, swarm, "kvm-2") as parent, Origin(served, rate=MIB) as origin:
        parent.has = set()
        told = document(pool, swarm, authority, parent, origin, served)
        with start_job(told) as process:
            closely("two pieces are recorded", lambda: (pool / LOG).exists() and len(read_log(pool).entries) >= 2)
            process.kill()
            process.communicate(timeout=120)
        parent.has = {0, 1, 2, 3}
        status, result = run_job(told)
        assert parent.asked == []
    assert (status, result.peer_bytes) == (0, 0)
    assert result.resumed_from >= MIB
    assert seeded(pool, told)
