"""The change of the leader with real processes: none writes beside another, and a signal ends one in order."""

import pathlib
import signal
import time

from tests.cluster import harness
from tests.world import steps, weather
from tests.world.controllers import Controller
from tests.world.simulation import Simulation, succeed
from tests.world.waiting import until
from tests.world.weather import Call, Proxy

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult


def leads(controller: Controller) -> bool:
    return b"Leading as" in controller.log.read_bytes()


def waits(controller: Controller) -> bool:
    return b"Waiting for Lease" in controller.log.read_bytes()


def holder(world: Simulation) -> str:
    return str(world.get(kinds.LEASES, steps.LEASE)["spec"].get("holderIdentity"))


def hang(_: JobDocument) -> JobResult | None:
    return None


def three_hosts(world: Simulation) -> None:
    world.create_zone()
    for number in (1, 2, 3):
        world.add_host(f"kvm-{number}")


def test_a_signal_while_the_world_is_still_being_read_ends_the_leader_at_once(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path
) -> None:
    three_hosts(world)
    with (
        Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy,
        proxy.fault(weather.hang, lambda call: (call.verb, call.resource) == ("list", "hosts")) as listed,
    ):
        controller = world.start_controller(kubeconfig=proxy.kubeconfig)
        until("the list that never ends", lambda: listed)
        asked = time.monotonic()
        assert controller.stop() == 0
        assert time.monotonic() - asked < 10
        assert not holder(world)
        log = controller.log.read_text()
        assert "Traceback" not in log, log


def test_a_signal_lets_reconciles_end_before_the_lease_is_given_back(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path
) -> None:
    three_hosts(world)
    world.behaviour = hang

    def makes_job(call: Call) -> bool:
        return (call.verb, call.resource) == ("create", "jobs") and "-probe-" not in call.name

    with (
        Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy,
        proxy.fault(weather.slow(0.3), makes_job) as made,
    ):
        first = world.start_controller(kubeconfig=proxy.kubeconfig)
        until("a leader", lambda: leads(first))
        second = world.start_controller("second")
        until("the other one to wait", lambda: waits(second))
        world.create_template()
        world.deploy()
        until("jobs that are being made", lambda: made)
        assert first.stop() == 0
        writes = [call for call in proxy.calls if call.writes and call.resource != "events"]
        # Its last word is that it leads no more: what it had begun was answered before.
        assert (writes[-1].verb, writes[-1].resource) == ("update", "leases")
        until("the other one", lambda: leads(second), 3)
        world.behaviour = succeed
        world.converged(3)
        log = first.log.read_text()
        for noise in ("Traceback", "was destroyed", "never retrieved", " ERROR ", " WARNING "):
            assert noise not in log, log
    assert sorted(verb for _, verb, _ in world.started) == ["fetch"] * 3
    assert {p["status"]["attempts"] for p in world.placements()} == {1}
    created = [
        write["objectRef"]["name"]
        for user in ("controller", "second")
        for write in world.writes(user)
        if (write["verb"], write["objectRef"]["resource"]) == ("create", "jobs")
    ]
    assert len(created) == len(set(created)) == 3
    # Not cut off where it was: the answer came after the signal.
    by_first = {w["objectRef"]["name"] for w in world.writes("controller") if w["objectRef"]["resource"] == "jobs"}
    assert by_first & {call.name for call in made}


def test_a_leader_that_stood_still_writes_nothing_when_it_goes_on(world: Simulation) -> None:
    """As a virtual machine that was paused, or a process in a cgroup without CPU: it cannot notice anything."""
    three_hosts(world)
    world.behaviour = hang
    first = world.start_controller("first")
    until("a leader", lambda: leads(first))
    second = world.start_controller("second")
    until("the other one to wait", lambda: waits(second))
    world.create_template()
    world.deploy()
    until("jobs", lambda: len(world.started) == 3)
    first.process.send_signal(signal.SIGSTOP)
    # What it has to do when it goes on: the results of its jobs.
    world.behaviour = succeed
    until("another to lead", lambda: leads(second))
    world.converged(3)
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(timeout=120) == 1
    last = max(write["requestReceivedTimestamp"] for write in world.writes("first"))
    assert last < min(write["requestReceivedTimestamp"] for write in world.writes("second"))
    assert {p["status"]["attempts"] for p in world.placements()} == {1}


def test_each_change_of_the_leader_is_an_event_of_the_lease(world: Simulation) -> None:
    three_hosts(world)
    first = world.start_controller("first")
    until("a leader", lambda: b"Synced" in first.log.read_bytes())
    second = world.start_controller("second")
    until("the other one to wait", lambda: waits(second))
    assert first.stop() == 0

    def told() -> set[tuple[str, str, str]]:
        with world.kube() as kube:
            events = kube.request("GET", kinds.EVENTS.path(None, world.namespace)).object()["items"]
        uid = world.get(kinds.LEASES, steps.LEASE)["metadata"]["uid"]
        of_lease = [event for event in events if event["regarding"].get("uid") == uid]
        return {(event["type"], event["reason"], event["note"]) for event in of_lease}

    words = ("first became leader", "first stopped leading", "second became leader")
    until("the events", lambda: told() == {("Normal", "LeaderElection", note) for note in words})
