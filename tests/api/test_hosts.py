"""Hosts join, move, rest, vanish and return: what becomes of their copies, and that nothing is deleted unasked."""

import pathlib

import pytest
from tests.cluster import harness
from tests.world import weather
from tests.world.simulation import POOL_PATH, Simulation, succeed
from tests.world.steps import (
    counted,
    delete,
    deployed,
    edit,
    file_of,
    hang,
    hosts_of_a_zone,
    phase_and_reason,
    settle,
    state,
    states,
    until_state,
)
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import Verb


def until_host(world: Simulation, host: str, host_state: str, reason: str) -> None:
    def reached() -> bool:
        status = world.get(kinds.HOSTS, host).get("status", {})
        return (status.get("state"), world.ready_reason(kinds.HOSTS, host)) == (host_state, reason)

    until(f"Host {host} {host_state} for {reason}", reached)


def test_a_host_that_joins_late_gets_its_copy_and_no_other_host_does_anything(world: Simulation) -> None:
    early = deployed(world, 2)
    late = world.add_host("kvm-9")
    world.converged(3)
    settle(world)
    assert counted(world) == {(host, "fetch"): 1 for host in (*early, late)}
    assert file_of(world.placement(late)) in world.disk(late).files


def test_a_host_relabelled_out_of_its_zone_is_down_and_keeps_placement_and_file(world: Simulation) -> None:
    left, stayed = deployed(world, 2)
    before = world.placement(left)
    world.relabel(left, simulated_zone=None)
    until_host(world, left, "Down", "NodeNotFound")
    settle(world)
    assert world.placement(left)["metadata"]["uid"] == before["metadata"]["uid"]
    assert world.placement(left)["status"]["phase"] == "Ready"
    assert file_of(before) in world.disk(left).files
    world.relabel(left, simulated_zone=world.zone)
    until_host(world, left, "Up", "Up")
    settle(world)
    assert counted(world) == {(left, "fetch"): 1, (stayed, "fetch"): 1}


def test_a_host_that_moves_to_another_zone_keeps_its_files_and_serves_the_wishes_there(world: Simulation) -> None:
    moved, stayed = deployed(world, 2)
    name = file_of(world.placement(moved))
    other = world.add_zone("other")
    there = world.create_pool("there", zone=other, path=f"{POOL_PATH}/there")
    world.create_template("centos")
    world.deploy("there", "centos", zone=other)
    world.relabel(moved, simulated_zone=other)
    world.converged(1, "there")
    world.converged(1)
    wanted = {(moved, there), (stayed, world.pool)}
    until("the rest to go", lambda: {(p["spec"]["host"], p["spec"]["pool"]) for p in world.placements()} == wanted)
    settle(world)
    assert name in world.disk(moved).files
    assert counted(world) == {(moved, "fetch"): 2, (stayed, "fetch"): 1}


def test_a_cordoned_host_finishes_what_runs_and_starts_nothing_until_it_is_uncordoned(world: Simulation) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy()
    until("the download", lambda: counted(world) == {(host, "fetch"): 1})
    world.cordon(host)
    until_host(world, host, "Maintenance", "Maintenance")
    world.create_template("later")
    world.deploy("later", "later")
    until("the second copy", lambda: len(world.placements()) == 2)
    settle(world)
    world.behaviour = succeed
    world.converged(1)
    settle(world)
    found = sorted(map(phase_and_reason, world.placements()))
    assert found == [("Pending", "Maintenance"), ("Ready", "Downloaded")]
    assert counted(world) == {(host, "fetch"): 1}
    world.cordon(host, False)
    world.converged(1, "later")


@pytest.mark.parametrize("loss", ["network", "power"])
def test_a_node_lost_in_mid_download_holds_no_slot_and_goes_on_when_it_is_back(world: Simulation, loss: str) -> None:
    hosts = hosts_of_a_zone(world, 2, maxParallel=1)
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy()
    until("a download", lambda: world.started)
    lost = world.started[0][0]
    (other,) = set(hosts) - {lost}
    until_state(world, other, "Pending", "WaitingForSlot")
    (world.unplug if loss == "network" else world.power_off)(lost)
    until_state(world, lost, "Downloading", "HostDown")
    until("the other host's turn", lambda: counted(world)[other, "fetch"] == 1)
    world.behaviour = lambda document: succeed(document) if document.host == other else None
    until_state(world, other, "Ready", "Downloaded")
    settle(world)
    assert state(world, lost) == ("Downloading", "HostDown")
    world.behaviour = succeed
    world.restore(lost)
    world.converged(2)
    # What ran on needs no second attempt; what died with its host does.
    assert counted(world) == {(other, "fetch"): 1, (lost, "fetch"): 1 if loss == "network" else 2}


def test_a_node_that_never_comes_back_is_forgotten_with_its_host_object(world: Simulation) -> None:
    """One copy is Ready there, another one is being fetched, a third waits for its removal."""
    lost, other = deployed(world, 2, maxParallel=1)
    kept = file_of(world.placement(lost))
    world.create_template("leaving")
    world.deploy("leaving", "leaving")
    world.converged(2, "leaving")
    (leaving,) = set(world.disk(lost).files) - {kept}
    world.disk(lost).in_use.add(leaving)
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "leaving")
    until("the removal to wait", lambda: ("Removing", "InUse") in map(phase_and_reason, world.placements()))
    world.behaviour = lambda document: None if document.host == lost else succeed(document)
    world.create_template("coming")
    world.deploy("coming", "coming", hosts=[lost])
    until("the download", lambda: counted(world)[lost, "fetch"] == 3)
    world.delete_node(lost)
    until_host(world, lost, "Down", "NodeNotFound")
    settle(world)
    assert len([p for p in world.placements() if p["spec"]["host"] == lost]) == 3
    removals = counted(world)[lost, "remove"]
    delete(world, kinds.HOSTS, lost)
    until("its placements to go", lambda: [p["spec"]["host"] for p in world.placements()] == [other])
    world.converged(1)
    until("its jobs to go", lambda: not world.jobs())
    assert {kept, leaving} <= set(world.disk(lost).files)
    assert counted(world)[lost, "remove"] == removals
    # Its slot is free, and nothing waits for it.
    world.create_template("later")
    world.deploy("later", "later")
    world.converged(1, "later")
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    until("the deployment to go", lambda: world.gone(kinds.TEMPLATE_DEPLOYMENTS, "everywhere"))


def test_a_host_object_deleted_by_mistake_is_made_again_and_nothing_is_forgotten(world: Simulation) -> None:
    host, other = deployed(world, 2)
    name = file_of(world.placement(host))
    world.create_template("leaving")
    world.deploy("leaving", "leaving", hosts=[host])
    world.converged(1, "leaving")
    (leaving,) = set(world.disk(host).files) - {name}
    world.disk(host).in_use.add(leaving)
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "leaving")
    until("the removal to wait", lambda: ("Removing", "InUse") in map(phase_and_reason, world.placements()))
    before = world.get(kinds.HOSTS, host)["metadata"]["uid"]
    fetches = counted(world)[host, "fetch"]
    delete(world, kinds.HOSTS, host)
    until("the Host", lambda: not world.gone(kinds.HOSTS, host))
    until_host(world, host, "Up", "Up")
    assert world.get(kinds.HOSTS, host)["metadata"]["uid"] != before
    world.converged(2)
    assert {name, leaving} <= set(world.disk(host).files)
    assert (counted(world)[host, "fetch"], counted(world)[other, "fetch"]) == (fetches, 1)
    world.disk(host).in_use.clear()
    until("the file to go", lambda: leaving not in world.disk(host).files)
    until("its placement to go", lambda: len(world.placements()) == 2)
    assert name in world.disk(host).files
    # A lost file is noticed by the agent under the new Host as well.
    world.disk(host).delete(name)
    until("the repair", lambda: counted(world)[host, "fetch"] == fetches + 1)


def test_an_agent_that_crashes_takes_no_host_down_and_delays_no_download(world: Simulation) -> None:
    host, _ = deployed(world, 2)
    world.set_agent(host, False)
    settle(world)
    world.create_template("meanwhile")
    world.deploy("meanwhile", "meanwhile")
    world.converged(2, "meanwhile")
    assert world.get(kinds.HOSTS, host)["status"]["state"] == "Up"
    name = file_of(world.placement(host))
    world.disk(host).delete(name)
    settle(world)
    fetches = counted(world)[host, "fetch"]
    world.set_agent(host, True)
    # What happened meanwhile is noticed.
    until("the repair", lambda: counted(world)[host, "fetch"] == fetches + 1)
    until("the file", lambda: name in world.disk(host).files)


@pytest.mark.parametrize("loss", ["network", "power"])
def test_a_down_host_holds_no_deletion_up_and_its_file_goes_when_it_is_back(world: Simulation, loss: str) -> None:
    down, up = deployed(world, 2)
    name = file_of(world.placement(down))
    (world.unplug if loss == "network" else world.power_off)(down)
    until_host(world, down, "Down", "NodeNotReady")
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    until("the deployment to go", lambda: world.gone(kinds.TEMPLATE_DEPLOYMENTS, "everywhere"))
    until("the other placement to go", lambda: states(world) == {down: ("Removing", "HostDown")})
    assert not world.disk(up).files
    delete(world, kinds.TEMPLATES, "debian")
    until("the template to go", lambda: world.gone(kinds.TEMPLATES, "debian"))
    settle(world)
    assert name in world.disk(down).files
    world.restore(down)
    until("the last placement to go", lambda: not world.placements())
    assert not world.disk(down).files
    assert not world.disk(down).records
    assert counted(world) == {(host, verb): 1 for host in (down, up) for verb in ("fetch", "remove")}


def test_a_node_deleted_and_joined_again_under_its_name_finds_its_copies(world: Simulation) -> None:
    """One copy was Ready; another one was on its way, and is tried again."""
    host, other = deployed(world, 2)
    before = world.placement(host)
    world.behaviour = lambda document: None if document.host == host else succeed(document)
    world.create_template("second")
    world.deploy("second", "second")
    until("its download", lambda: counted(world)[host, "fetch"] == 2)
    world.delete_node(host)
    until_host(world, host, "Down", "NodeNotFound")
    settle(world)
    assert world.placement(other)["status"]["phase"] == "Ready"
    world.behaviour = succeed
    world.add_host("kvm-1")
    until_host(world, host, "Up", "Up")
    world.converged(2)
    world.converged(2, "second")
    settle(world)
    assert before["metadata"]["uid"] in {p["metadata"]["uid"] for p in world.placements()}
    assert file_of(before) in world.disk(host).files
    # Another machine may be behind the name: what is Ready there is looked at.
    assert counted(world) == {(host, "fetch"): 3, (host, "verify"): 1, (other, "fetch"): 2}
    assert Verb.REMOVE not in {verb for _, verb, _ in world.started}


def test_a_machine_that_was_installed_anew_gets_its_copies_again(world: Simulation) -> None:
    """Neither its disk nor its agent remembers what lay there."""
    host, other = deployed(world, 2)
    world.delete_node(host)
    until_host(world, host, "Down", "NodeNotFound")
    world.disk(host).files.clear()
    world.disk(host).records.clear()
    world.add_host("kvm-1")
    until_host(world, host, "Up", "Up")
    until("its copy again", lambda: file_of(world.placement(host)) in world.disk(host).files)
    world.converged(2)
    settle(world)
    assert counted(world) == {(host, "fetch"): 2, (host, "verify"): 1, (other, "fetch"): 1}


def test_a_zone_that_is_deleted_removes_nothing_and_may_come_back(world: Simulation) -> None:
    host, other = deployed(world, 2)
    spec = world.get(kinds.ZONES, world.zone)["spec"]
    delete(world, kinds.ZONES, world.zone)
    until_host(world, host, "Down", "NodeNotFound")
    settle(world)
    assert [p["status"]["phase"] for p in world.placements()] == ["Ready", "Ready"]
    with world.kube() as kube:
        body = {"apiVersion": kinds.ZONES.api_version, "kind": "Zone", "metadata": {"name": world.zone}, "spec": spec}
        kube.create(kinds.ZONES, body).object()
    until_host(world, host, "Up", "Up")
    world.converged(2)
    edit(world, kinds.ZONES, world.zone, {"downloads": {"maxParallel": 3}})
    settle(world)
    assert counted(world) == {(host, "fetch"): 1, (other, "fetch"): 1}


def test_hosts_are_read_a_hundred_at_a_time(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path
) -> None:
    """By the controller's own list, which it starts with, and by kopf's, before it watches."""
    with world.kube() as kube:
        for number in range(101):
            name = f"{world.prefix}-{number:03}"
            body = {"apiVersion": kinds.HOSTS.api_version, "kind": "Host", "metadata": {"name": name}}
            kube.create(kinds.HOSTS, {**body, "spec": {"nodeName": name, "zone": "none"}}).object()
    with weather.Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy:

        def verbs() -> list[str]:
            return [call.verb for call in list(proxy.calls) if call.resource == "hosts" and not call.name]

        controller = world.start_controller(kubeconfig=proxy.kubeconfig)
        until("a watch of Hosts", lambda: "watch" in verbs())
        assert verbs()[: verbs().index("watch")].count("list") >= 4
        controller.kill()
