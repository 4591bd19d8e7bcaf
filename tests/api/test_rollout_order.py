"""Who downloads when: limits, order, pauses, and that one host in trouble never holds up the others."""

import datetime
import itertools

import pytest
from tests.world.disks import CAPACITY_BYTES, File, digest_of
from tests.world.simulation import Simulation, fail, succeed
from tests.world.steps import counted, hang, hosts_of_a_zone, phase_and_reason, settle, states, until_state
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason


@pytest.mark.parametrize("limit", [2, "40%"], ids=["number", "percent"])
def test_no_more_than_max_parallel_copies_are_on_their_way_at_once(world: Simulation, limit: int | str) -> None:
    hosts = hosts_of_a_zone(world, 5)
    world.behaviour = hang
    world.start_controller()
    until("the fleet", lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts", {}).get("up") == 5)
    world.create_template()
    world.deploy(rollout={"maxParallel": limit})
    until("three to wait", lambda: list(states(world).values()).count(("Pending", "WaitingForSlot")) == 3)
    settle(world)
    assert len(world.started) == 2
    world.behaviour = succeed
    world.converged(5)
    assert world.most_active == 2
    assert counted(world) == {(host, "fetch"): 1 for host in hosts}


def test_one_source_serves_no_more_than_its_limit_and_others_are_not_held_up(world: Simulation) -> None:
    hosts_of_a_zone(world, 2, maxParallelPerSource=1)
    world.behaviour = hang
    world.start_controller()
    for name, server in (("one", "slow"), ("two", "slow"), ("three", "quick")):
        world.create_template(name, url=f"http://{server}.example.org/{name}.qcow2")
        world.deploy(name, name)
    until("all to be known", lambda: len([p for p in world.placements() if phase_and_reason(p)[0]]) == 6)
    until("a download from each", lambda: len(world.kubelets.running()) == 2)
    settle(world)
    sources = sorted(run.document.url.split("/")[2] for run in world.kubelets.running())
    assert sources == ["quick.example.org", "slow.example.org"]
    at_once: list[int] = []

    def note(document: JobDocument) -> JobResult | None:
        running = [run.document.url.split("/")[2] for run in world.kubelets.running()]
        at_once.append(max(running.count(server) for server in running))
        return succeed(document)

    world.behaviour = note
    for name in ("one", "two", "three"):
        world.converged(2, name)
    assert set(at_once) == {1}


def test_hosts_with_more_space_come_first(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 5, maxParallel=1)
    space = dict(zip(hosts, (20, 80, 40, 60, 10), strict=True))
    for host, percent in space.items():
        size_bytes = CAPACITY_BYTES * (100 - percent) // 100
        world.disk(host).files["someone.qcow2"] = File(digest_of("someone"), size_bytes)
    world.start_controller()

    def told() -> bool:
        found = [world.get(kinds.HOSTS, host) for host in hosts if not world.gone(kinds.HOSTS, host)]
        return len([host for host in found if host.get("status", {}).get("storage")]) == 5

    until("the agents to tell their space", told)
    settle(world)
    world.create_template()
    world.deploy()
    world.converged(5)
    assert [host for host, _, _ in world.started] == sorted(hosts, key=lambda host: -space[host])


@pytest.mark.parametrize(
    "trouble", [Reason.SOURCE_UNREACHABLE, Reason.CHECKSUM_MISMATCH, Reason.INTERRUPTED], ids=lambda r: str(r)
)
def test_a_host_that_always_fails_holds_up_no_other(world: Simulation, trouble: Reason) -> None:
    bad, *good = hosts_of_a_zone(world, 4, maxParallel=1)
    # It comes first each time: it has the most space.
    for host in good:
        world.disk(host).files["someone.qcow2"] = File(digest_of("someone"), CAPACITY_BYTES // 2)
    world.behaviour = lambda document: fail(trouble) if document.host == bad else succeed(document)
    world.start_controller()
    world.create_template()
    world.deploy()
    for host in good:
        until_state(world, host, "Ready", "Downloaded")
    phase = "Failed" if trouble is Reason.CHECKSUM_MISMATCH else "Pending"
    until_state(world, bad, phase, trouble)
    assert {host: counted(world)[host, "fetch"] for host in good} == dict.fromkeys(good, 1)
    assert world.most_active == 1


def test_failures_are_sampled_and_counts_are_not(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 13)
    bad = set(hosts[:12])
    world.behaviour = lambda document: fail(Reason.SOURCE_REFUSED) if document.host in bad else succeed(document)
    world.start_controller()
    world.create_template()
    world.deploy()
    expected = {"desired": 13, "ready": 1, "failed": 12, "downloading": 0, "pending": 0}

    def counts() -> bool:
        found = world.deployment().get("status", {}).get("placements", {})
        return {name: found.get(name, 0) for name in expected} == expected

    until("the counts", counts)
    until("the reason", lambda: world.ready_reason(kinds.TEMPLATE_DEPLOYMENTS, "everywhere") == "PlacementsFailed")
    failures = world.deployment()["status"]["failures"]
    assert len(failures) == 10
    assert {failure["host"] for failure in failures} < bad
    assert {(f["pool"], f["reason"], f["message"]) for f in failures} == {
        (world.pool, "SourceRefused", "simulated SourceRefused")
    }
    settle(world)
    assert counted(world) == {(host, "fetch"): 1 for host in hosts}


def test_a_host_comes_back_to_a_busy_source_no_earlier_than_it_was_told(world: Simulation) -> None:
    """`Retry-After` is longer than the longest pause of the zone (3 s)."""
    told, other = hosts_of_a_zone(world, 2)
    attempts = itertools.count(1)
    started: list[datetime.datetime] = []

    def busy(document: JobDocument) -> JobResult | None:
        if document.host != told:
            return succeed(document)
        started.append(datetime.datetime.now(datetime.UTC))
        refused = JobResult(reason=Reason.SOURCE_UNAVAILABLE, message="simulated 503", retry_after_seconds=6)
        return refused if next(attempts) == 1 else succeed(document)

    world.behaviour = busy
    world.start_controller()
    world.create_template()
    world.deploy()
    waiting = until_state(world, told, "Pending", "SourceUnavailable")
    due = datetime.datetime.fromisoformat(waiting["status"]["nextAttemptTime"])
    assert (due - started[0]).total_seconds() >= 6
    until_state(world, other, "Ready", "Downloaded", seconds=5)
    world.converged(2)
    assert (started[1] - started[0]).total_seconds() >= 6
    assert counted(world) == {(told, "fetch"): 2, (other, "fetch"): 1}
