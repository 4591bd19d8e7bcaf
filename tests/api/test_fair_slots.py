"""Slots are shared fairly: a namespace whose servers never end a download keeps no other one waiting."""

import itertools

from tests.world.kube import Object
from tests.world.simulation import Simulation, fail, succeed
from tests.world.steps import History, counted, hosts_of_a_zone, settle
from tests.world.waiting import until

from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

HOSTS = 20
TRICKLE = "http://trickle.example.org/a.qcow2"


def hang_or_succeed(document: JobDocument) -> JobResult | None:
    return None if document.url == TRICKLE else succeed(document)


def everywhere(world: Simulation, namespace: str, **template: str) -> str:
    """A namespace with one template on all hosts; its full name is returned."""
    full = world.create_namespace(namespace)
    world.create_template(namespace=full, **template)
    world.deploy(namespace=full)
    return full


def on_one_host(world: Simulation, namespace: str, host: str) -> str:
    full = world.create_namespace(namespace)
    world.create_template(namespace=full)
    world.deploy(namespace=full, hosts=[host])
    return full


def of(world: Simulation, namespace: str) -> list[Object]:
    """The copies of a namespace's templates."""
    return [item for item in world.placements() if item["spec"]["templateRef"]["namespace"] == namespace]


def in_phase(world: Simulation, namespace: str, phase: str) -> list[Object]:
    return [item for item in of(world, namespace) if item.get("status", {}).get("phase") == phase]


def test_a_namespace_whose_downloads_hang_leaves_slots_by_default(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, HOSTS)
    world.behaviour = hang_or_succeed
    world.start_controller()
    greedy = everywhere(world, "greedy", url=TRICKLE)
    until("its share of downloads", lambda: len(in_phase(world, greedy, "Downloading")) == 16)
    until("the others to wait", lambda: len(in_phase(world, greedy, "Pending")) == HOSTS - 16)
    said = [item["status"]["conditions"][0]["message"] for item in in_phase(world, greedy, "Pending")]
    assert all("trickle.example.org" in text or f"namespace/{world.zone}/{greedy}" in text for text in said), said
    modest = on_one_host(world, "modest", hosts[0])
    until("the copy of the other", lambda: len(in_phase(world, modest, "Ready")) == 1)
    assert len(in_phase(world, greedy, "Downloading")) == 16


def test_the_next_free_slot_goes_to_whoever_has_none(world: Simulation) -> None:
    """Nothing limits a namespace here: it has taken all slots, and most of it waits."""
    hosts = hosts_of_a_zone(world, HOSTS, maxParallel=4, maxParallelPerNamespace=0, maxParallelPerSource=0)
    ended: set[str] = set()

    def behaviour(document: JobDocument) -> JobResult | None:
        slow = document.url == TRICKLE
        return fail(Reason.SOURCE_TOO_SLOW) if slow and document.placement in ended else hang_or_succeed(document)

    world.behaviour = behaviour
    world.start_controller()
    greedy = everywhere(world, "greedy", url=TRICKLE)
    until("all slots to be taken", lambda: len(in_phase(world, greedy, "Downloading")) == 4)
    until("the others to wait", lambda: len(in_phase(world, greedy, "Pending")) == HOSTS - 4)
    free = sorted(set(hosts) - {item["spec"]["host"] for item in in_phase(world, greedy, "Downloading")})
    # It comes last by its name, and has no more space than the others.
    modest = on_one_host(world, "modest", free[-1])
    until("the other to wait", lambda: len(in_phase(world, modest, "Pending")) == 1)
    settle(world)
    assert len(world.started) == 4
    ended.add(in_phase(world, greedy, "Downloading")[0]["metadata"]["name"])
    until("the copy of the other", lambda: len(in_phase(world, modest, "Ready")) == 1)
    assert world.started[4] == (free[-1], "fetch", 1), "none of those that had waited longer"


def test_a_source_that_was_too_slow_is_tried_again_and_stalls_nothing(world: Simulation) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    attempts = itertools.count(1)
    world.behaviour = lambda document: fail(Reason.SOURCE_TOO_SLOW) if next(attempts) <= 2 else succeed(document)
    with History(world) as history:
        world.start_controller()
        world.create_template()
        world.deploy()
        world.converged(1)
        failed = [
            version
            for version in history.versions(host)
            if version["status"]["conditions"][0]["reason"] == "SourceTooSlow"
        ]
    assert counted(world) == {(host, "fetch"): 3}
    assert {version["status"]["phase"] for version in failed} == {"Pending"}
    conditions = [{c["type"]: c["status"] for c in version["status"]["conditions"]} for version in failed]
    assert all((each["Stalled"], each["Reconciling"]) == ("False", "True") for each in conditions)
    assert all("nextAttemptTime" in version["status"] for version in failed)
    assert sorted({version["status"]["recentFailures"] for version in failed}) == [1, 2]
