"""Swarms of a controller: one Seed at a time, whatever happens, and every copy gets there."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.controller.swarm_world import SIZE_BYTES, SwarmWorld, as_it_should
from tests.unit.planning import build
from tests.world.soak import SOAKING

from directdownload.cluster import kinds
from directdownload.controller import world
from directdownload.peer.statements import Issuer, Verifier
from directdownload.resources.jobs import JobDocument, JobResult, PeerRole, Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase, Role

ISSUER = Issuer(Ed25519PrivateKey.generate())
WORLDS = 60 if SOAKING else 12


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda hosts=8, issuer=ISSUER, **more: SwarmWorld(monkeypatch, issuer, hosts, **more)


async def test_one_copy_reads_the_source_and_all_others_read_it(made: Any) -> None:
    found = made(30)
    await found.run()
    assert found.ready() == 30
    assert found.origin_bytes == SIZE_BYTES
    roles = [each.role for each in found.started]
    assert (roles.count(PeerRole.SEED), roles.count(PeerRole.PEER)) == (1, 29)
    told = {p.peers.role for p in found.world.placements}
    assert told == {Role.SEED, Role.PEER}
    files = [p.file for p in found.world.placements]
    assert sum(f.bytes_from.origin for f in files) == SIZE_BYTES
    assert sum(f.bytes_from.peers for f in files) == 29 * SIZE_BYTES
    assert len({f.content for f in files}) == 1


async def test_the_others_wait_until_the_pod_of_the_seed_runs_and_it_costs_no_attempt(made: Any) -> None:
    found = made(6)
    await found.settle()
    (job,) = found.jobs()
    assert world.role_of(job) is PeerRole.SEED
    waiting = [p for p in found.world.placements if p.reason is Reason.WAITING_FOR_SEED]
    assert (len(waiting), {p.attempts for p in waiting}) == (5, {0})
    found.advance(job)
    await found.settle()
    assert len(found.jobs()) == 6
    assert {p.attempts for p in found.world.placements} == {1}


async def test_a_zone_limits_the_seed_and_not_the_peers(made: Any) -> None:
    downloads = {"maxParallel": 1, "maxParallelPerSource": 1, "maxParallelPerNamespace": 1}
    found = made(12, zone={"downloads": downloads})
    await found.settle()
    (job,) = found.jobs()
    found.advance(job)
    await found.settle()
    assert len(found.jobs()) == 12


async def test_peers_have_a_limit_of_their_own(made: Any) -> None:
    found = made(12, zone={"peers": {"maxParallel": 3}})
    await found.settle()
    found.advance(found.jobs()[0])
    await found.settle()
    assert len(found.jobs()) == 1 + 3
    await found.run()
    assert found.ready() == 12


async def test_two_templates_with_one_checksum_share_nothing(made: Any) -> None:
    found = made(6, templates=2)
    contents: dict[str, set[str]] = {}

    def noting(each: SwarmWorld, document: JobDocument) -> JobResult:
        assert document.peers is not None
        contents.setdefault(document.template_uid, set()).add(document.peers.content)
        return as_it_should(each, document)

    found.behaviour = noting
    await found.run()
    assert found.ready() == 12
    assert found.origin_bytes == 2 * SIZE_BYTES
    one, other = contents.values()
    assert (len(one), len(other), one & other) == (1, 1, set())


@pytest.mark.parametrize(
    ("more", "hosts"),
    [
        ({"issuer": None}, 4),
        ({"template": {"checksum": "sha1:" + "ab" * 20}}, 4),
        ({"template": {"url": "https://images.example.org/debian.qcow2.xz"}}, 4),
    ],
)
async def test_where_nothing_can_be_shared_every_copy_reads_the_source(made: Any, more: Any, hosts: int) -> None:
    found = made(hosts, **more)
    await found.run()
    assert found.ready() == hosts
    assert {each.role for each in found.started} == {None}
    assert {p.peers.role for p in found.world.placements} == {Role.ORIGIN}


def unpacking(found: SwarmWorld, document: JobDocument) -> JobResult:
    """Of a host that got an archive, or says so."""
    result = as_it_should(found, document)
    return result.model_copy(update={"content": "", "served_bytes": 7})


async def test_one_host_that_tells_of_an_archive_tells_it_of_itself_alone(made: Any) -> None:
    found = made(12)
    liar: list[str] = []

    def first_lies(each: SwarmWorld, document: JobDocument) -> JobResult:
        liar[:] = liar or [document.host]
        return unpacking(each, document) if document.host == liar[0] else as_it_should(each, document)

    found.behaviour = first_lies
    await found.run()
    assert found.ready() == 12
    assert found.origin_bytes == 2 * SIZE_BYTES
    roles = [each.role for each in found.started]
    assert (roles.count(PeerRole.SEED), roles.count(None)) == (2, 0)


async def test_what_turns_out_to_be_an_archive_is_read_by_every_copy_for_itself(made: Any) -> None:
    found = made(12)
    found.behaviour = unpacking
    await found.run()
    assert found.ready() == 12
    roles = [each.role for each in found.started]
    assert (roles.count(PeerRole.SEED), roles.count(None)) == (2, 10)


async def test_a_copy_of_before_peers_is_verified_first_and_then_read(made: Any) -> None:
    found = made(5)
    await old_copy(found)
    await found.run()
    assert found.ready() == 5
    assert found.origin_bytes == 0
    first, *others = found.started
    assert (first.host, first.verb, first.role) == ("kvm-0", Verb.VERIFY, PeerRole.SEED)
    assert {each.role for each in others} == {PeerRole.PEER}


async def old_copy(found: SwarmWorld) -> None:
    """The copy on kvm-0 is Ready since before hosts read from each other."""
    (document,) = (d for d in found.api.objects(kinds.TEMPLATE_PLACEMENTS) if d["spec"]["host"] == "kvm-0")
    status = build.placement_document(phase="Ready", status=build.file_status())["status"]
    found.api.put(kinds.TEMPLATE_PLACEMENTS, {**document, "status": status})
    found.restart()


@pytest.mark.parametrize("reason", [Reason.VERIFIED, Reason.INTERRUPTED, Reason.ALTERED])
async def test_if_an_old_copy_cannot_be_recorded_somebody_becomes_seed(made: Any, reason: Reason) -> None:
    found = made(5)
    await old_copy(found)

    def barren(each: SwarmWorld, document: JobDocument) -> JobResult:
        return JobResult(reason=reason) if document.verb is Verb.VERIFY else as_it_should(each, document)

    found.behaviour = barren
    await found.run()
    assert found.ready() == 5
    assert found.origin_bytes == SIZE_BYTES


def closed(found: SwarmWorld, document: JobDocument) -> JobResult:
    """No host reaches another one."""
    if document.peers is not None and document.peers.role is PeerRole.PEER:
        return JobResult(reason=Reason.PEERS_UNAVAILABLE)
    return as_it_should(found, document)


async def test_with_the_port_closed_everywhere_all_read_the_source_within_its_limits(made: Any) -> None:
    found = made(20, zone={"downloads": {"maxParallel": 3}})
    found.behaviour = closed
    most = 0
    for _ in range(200):
        await found.run(1)
        reading = [job for job in found.jobs() if world.role_of(job) is not PeerRole.PEER]
        most = max(most, len(reading))
    assert (found.ready(), most) == (20, 3)
    tries = [each.host for each in found.started if each.role is PeerRole.PEER]
    assert max(map(tries.count, tries)) == 3
    assert {p.peers.unavailable for p in found.world.placements} == {None}


async def test_a_seed_that_fails_once_is_the_next_one_and_then_another_host_is(made: Any) -> None:
    found = made(6)
    failed: list[str] = []

    def failing(each: SwarmWorld, document: JobDocument) -> JobResult:
        if len(failed) < 5:
            failed.append(document.host)
            return JobResult(reason=Reason.SOURCE_UNAVAILABLE)
        return as_it_should(each, document)

    found.behaviour = failing
    while len(failed) < 5:
        await found.settle()
        if not found.jobs():
            found.pass_time()
        for job in found.jobs():
            # It ends before anybody has seen it run.
            found.advance(job)
            found.advance(job)
    assert failed[0] == failed[1] != failed[2] == failed[3] != failed[4]
    await found.run()
    assert found.ready() == 6


async def test_while_others_read_a_seed_that_begins_again_records_the_same_pieces(made: Any) -> None:
    """The size of the file has become known meanwhile, for which pieces would be smaller."""
    found = made(4)
    await found.settle()
    (seed,) = found.jobs()
    found.advance(seed)
    await found.settle()
    shared = {found.document_of(job).peers.piece_bytes for job in found.jobs()}
    assert (len(found.jobs()), shared) == (4, {16 << 20})
    found.learn_size()
    found.behaviour = lambda *_: JobResult(reason=Reason.INTERRUPTED)
    found.advance(seed)
    await found.settle()
    found.pass_time(60)
    await found.settle()
    (again,) = (job for job in found.jobs() if world.role_of(job) is PeerRole.SEED)
    assert again.uid != seed.uid
    assert found.document_of(again).peers.piece_bytes == 16 << 20


async def test_a_wrong_seed_is_followed_by_one_of_a_later_epoch(made: Any) -> None:
    """The first Seed serves a wrong file: all that read it ask for another, and one of them is it."""
    found = made(8)
    wrong = True

    def mismatching(each: SwarmWorld, document: JobDocument) -> JobResult:
        role = document.peers.role if document.peers is not None else None
        if wrong and role is PeerRole.PEER:
            return JobResult(reason=Reason.PEERS_DIFFER, message="other bytes", bad_host="kvm-1")
        return as_it_should(each, document)

    found.behaviour = mismatching
    await found.settle()
    (seed,) = found.jobs()
    found.advance(seed)
    await found.settle()
    for job in found.jobs():
        for _ in range(2):
            if job.uid != seed.uid:
                found.advance(job)
    await found.settle()
    assert sum(p.reason is Reason.PEERS_DIFFER and p.phase is Phase.PENDING for p in found.world.placements) == 7
    wrong = False
    found.advance(seed)
    await found.run()
    assert found.ready() == 8
    epochs = [each.epoch for each in found.started if each.role is PeerRole.SEED]
    assert len(epochs) == 2
    assert epochs[0] < epochs[1]
    assert found.origin_bytes == 2 * SIZE_BYTES
    assert {Reason.PEERS_DIFFER, Reason.CHECKSUM_MISMATCH} <= {reason for _, reason in found.recorder.told}


async def test_if_seeds_fail_for_good_the_others_find_out_for_themselves(made: Any) -> None:
    found = made(6)

    def mismatching(_: SwarmWorld, document: JobDocument) -> JobResult:
        peer = document.peers is not None and document.peers.role is PeerRole.PEER
        return JobResult(reason=Reason.PEERS_DIFFER if peer else Reason.CHECKSUM_MISMATCH)

    found.behaviour = mismatching
    for _ in range(200):
        await found.run(1)
    assert {p.phase for p in found.world.placements} == {Phase.FAILED}
    assert [each.role for each in found.started].count(PeerRole.SEED) == 2


async def test_the_document_says_what_the_controller_has_signed(made: Any) -> None:
    found = made(40)
    await found.settle()
    (seed,) = found.jobs()
    found.advance(seed)
    await found.settle()
    verifier, now = Verifier([ISSUER.public]), found.clock.timestamp()
    for job in found.jobs():
        document = found.document_of(job)
        shared = document.peers
        assert shared is not None
        grant = verifier.grant(shared.grant, now)
        assert (grant.content, grant.host, grant.zone) == (shared.content, document.host, "zone-1")
        assert grant.expiry == int(now) + 12 * 3600 + 3600
        hosts = [parent.host for parent in shared.parents]
        assert len(set(hosts)) == len(hosts) == 16
        assert document.host not in hosts
        assert all(len(parent.addresses) == 1 for parent in shared.parents)
        warranted = job.uid == seed.uid
        assert bool(shared.warrant) is warranted
        if warranted:
            warrant = verifier.warrant(shared.warrant, now)
            assert (warrant.content, warrant.epoch) == (shared.content, world.epoch_of(job))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(WORLDS))
async def test_whatever_happens_there_is_one_seed_at_most_and_every_copy_gets_there(made: Any, seed: int) -> None:
    """Seeds die, hosts go Down and come back, jobs fail, controllers come and go; then it clears up."""
    found = made(7, seed=seed, zone={"downloads": {"maxParallel": 1 + seed % 3}, "peers": {"maxParallel": seed % 4}})
    rng = found.random
    troubled = True

    def behaviour(each: SwarmWorld, document: JobDocument) -> JobResult:
        if troubled and rng.random() < 0.5:
            return JobResult(reason=rng.choice([Reason.SOURCE_UNAVAILABLE, Reason.INTERRUPTED, Reason.WRITE_FAILED]))
        if troubled and document.peers is not None and document.peers.role is PeerRole.PEER and rng.random() < 0.5:
            return JobResult(reason=rng.choice([Reason.PEERS_UNAVAILABLE, Reason.PEERS_DIFFER]))
        return as_it_should(each, document)

    found.behaviour = behaviour
    for _ in range(150):
        before = found.seeds()
        await found.settle()
        # A Seed on a host that was Down goes on once that is back: only then there may be two.
        for uid, number in found.seeds().items():
            assert number <= max(1, before.get(uid, 0))
        match rng.randrange(12):
            case 0:
                found.set_down(rng.choice(found.hosts), down=True)
            case 1 | 2:
                for host in sorted(found.down)[:1]:
                    found.set_down(host, down=False)
            case 3:
                found.restart()
            case 4 | 5:
                found.pass_time()
            case _:
                if alive := found.jobs():
                    found.advance(rng.choice(alive))
    troubled = False
    for host in tuple(found.down):
        found.set_down(host, down=False)
    await found.run(1500)
    failed = [p for p in found.world.placements if p.phase is Phase.FAILED]
    assert not failed
    assert found.ready() == 7, [(p.key, p.phase, p.reason, p.message) for p in found.world.placements]
