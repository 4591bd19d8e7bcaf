"""How many placements a namespace gets in a zone, and what a zone's policy refuses: with a real API server."""

import collections
import json
from typing import Any

from tests.world.cli_world import directdownload
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.steps import delete, edit, hosts_of_a_zone, settle, states
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import base

DEPLOYMENTS = kinds.TEMPLATE_DEPLOYMENTS


def limited(world: Simulation, number: int, limit: int) -> list[str]:
    """A zone of `number` hosts that gives each namespace `limit` placements."""
    world.create_zone(placementsPerNamespace=limit)
    return [world.add_host(f"kvm-{each}") for each in range(number)]


def per_namespace(world: Simulation) -> dict[str, int]:
    labels = (placement["metadata"]["labels"] for placement in world.placements())
    return dict(collections.Counter(each[base.NAMESPACE_LABEL] for each in labels))


def ready(world: Simulation, name: str = "everywhere", namespace: str = "") -> Object:
    """The condition Ready of a deployment; empty before it is told."""
    conditions = world.get(DEPLOYMENTS, name, namespace).get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def until_told(world: Simulation, reason: str, words: str, name: str = "everywhere", namespace: str = "") -> None:
    def told() -> bool:
        found = ready(world, name, namespace)
        return found.get("reason") == reason and words in found["message"]

    until(f"{name} to say {reason}: {words}", told)


def plan(world: Simulation, template: str) -> dict[str, Any]:
    config = str(world.control_plane.kubeconfig())
    scope = ("--kubeconfig", config, "-n", world.namespace, "--zone", world.zone)
    done = directdownload("plan", *scope, template, "-o", "json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_namespace_gets_what_the_zone_allows_and_goes_on_when_that_is_raised(world: Simulation) -> None:
    limited(world, 5, 3)
    guest = world.create_namespace("guest")
    world.start_controller()
    for namespace in ("", guest):
        world.create_template(namespace=namespace)
        world.deploy(namespace=namespace)
    for namespace in (world.namespace, guest):
        words = (
            "3 of 5 copies are verified, 2 are not created: "
            f"namespace {namespace} has 3 placements in Zone {world.zone}"
        )
        until_told(world, "TooManyPlacements", words, namespace=namespace)
    settle(world)
    assert per_namespace(world) == {world.namespace: 3, guest: 3}
    world.create_template("other")
    planned = plan(world, "other")
    assert {(item["action"], item["reason"]) for item in planned["items"]} == {("Wait", "TooManyPlacements")}
    assert "has 3 placements" in planned["items"][0]["message"]
    edit(world, kinds.ZONES, world.zone, {"placementsPerNamespace": 4})
    until_told(world, "TooManyPlacements", "4 of 5 copies are verified, 1 are not created")
    assert [item["action"] for item in plan(world, "debian")["items"]].count("Present") == 4
    edit(world, kinds.ZONES, world.zone, {"placementsPerNamespace": 1})
    settle(world)
    assert per_namespace(world) == {world.namespace: 4, guest: 4}, "a limit that is lowered removes nothing"
    edit(world, kinds.ZONES, world.zone, {"placementsPerNamespace": 0})
    world.converged(5)


def test_what_goes_makes_room_for_what_waits(world: Simulation) -> None:
    limited(world, 3, 3)
    world.start_controller()
    for name in ("first", "second"):
        world.create_template(name, url=f"http://images.example.org/{name}.qcow2")
    world.deploy("first", "first", deletionPolicy="Delete")
    world.converged(3, "first")
    world.deploy("second", "second")
    until_told(world, "TooManyPlacements", "0 of 3 copies are verified, 3 are not created", "second")
    delete(world, DEPLOYMENTS, "first")
    world.converged(3, "second")
    assert per_namespace(world) == {world.namespace: 3}


def test_a_copy_counts_for_those_who_go_on_wanting_it(world: Simulation) -> None:
    limited(world, 2, 2)
    guest = world.create_namespace("guest")
    world.start_controller()
    world.create_template(allowedNamespaces={})
    world.deploy("ours")
    world.converged(2, "ours")
    reference = {"name": "debian", "namespace": world.namespace}
    world.deploy("theirs", namespace=guest, templateRef=reference)
    until_told(world, "Converged", "2 of 2", "theirs", guest)
    assert per_namespace(world) == {world.namespace: 2}
    delete(world, DEPLOYMENTS, "ours")
    until("the copies to count for the guest", lambda: per_namespace(world) == {guest: 2})
    world.create_template("other", url="http://images.example.org/other.qcow2")
    world.deploy("other", "other")
    world.converged(2, "other")


def test_what_the_policy_of_the_zone_refuses_gets_no_placements_until_it_is_allowed(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 2)
    edit(world, kinds.ZONES, world.zone, {"sourcePolicy": {"allowedHosts": ["elsewhere.example.org"]}})
    world.start_controller()
    world.create_template()
    world.deploy()
    refusal = "sourcePolicy.allowedHosts of the Zone allows elsewhere.example.org"
    until_told(world, "URLNotAllowed", refusal)
    settle(world)
    assert (world.placements(), world.started) == ([], [])
    edit(world, kinds.ZONES, world.zone, {"sourcePolicy": {"allowedHosts": ["images.example.org"]}})
    world.converged(2)
    edit(world, kinds.ZONES, world.zone, {"sourcePolicy": {"allowedHosts": ["elsewhere.example.org"]}})
    until_told(world, "URLNotAllowed", refusal)
    late = world.add_host("late")
    settle(world)
    assert {host: phase for host, (phase, _) in states(world).items()} == dict.fromkeys(hosts, "Ready")
    edit(world, kinds.ZONES, world.zone, {"sourcePolicy": {"allowedHosts": [], "requireChecksum": True}})
    until_told(world, "ChecksumRequired", "sourcePolicy.requireChecksum")
    edit(world, kinds.ZONES, world.zone, {"sourcePolicy": {"requireChecksum": False}})
    world.converged(3)
    assert late in states(world)
