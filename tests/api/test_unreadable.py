"""A rollback, or a spoilt object: what this version cannot read holds what it may be about, on a real API server."""

import collections.abc
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.cluster import harness
from tests.world import kube
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.steps import counted, delete, deployed, edit, empty, hosts_of_a_zone, kill, settle, states, unchecked
from tests.world.waiting import until

from directdownload.cluster import kinds

DEPLOYMENTS, PLACEMENTS = kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATE_PLACEMENTS
READY = ("Ready", "Downloaded")
TOMORROW = "OfTomorrow"
#: Neither host nor reason: nothing that any version has written, and nothing that our definitions admit.
SPOILT: Object = {"failures": [{"pool": "local", "message": "half"}]}


def spoil(world: Simulation, kind: kinds.Resource, name: str, status: Object) -> None:
    """Writes into the status what only another version, or somebody with its rights, would."""
    with world.kube() as connection:
        where = world.namespace if kind.namespaced else None
        connection.patch(kind, name, {"status": status}, where, subresource="status").object()


def events(world: Simulation, name: str, reason: str) -> list[Object]:
    return [
        each
        for each in unchecked(world, kinds.EVENTS)
        if each["regarding"].get("name") == name and each["reason"] == reason
    ]


def copies(world: Simulation) -> dict[str, Object]:
    """The placements by host, whatever their statuses say."""
    found = unchecked(world, PLACEMENTS)
    return {each["spec"]["host"]: each for each in found if each["spec"]["zone"] == world.zone}


def phases(world: Simulation) -> dict[str, str]:
    return {host: copy["status"].get("phase", "") for host, copy in copies(world).items()}


def restart(world: Simulation) -> None:
    kill(world, world.controllers[-1])
    world.start_controller()


def test_an_unreadable_deployment_holds_its_files_through_a_restart(world: Simulation) -> None:
    hosts = deployed(world, 2)
    kill(world, world.controllers[-1])
    spoil(world, DEPLOYMENTS, "everywhere", SPOILT)
    world.start_controller()
    until("the report", lambda: events(world, "everywhere", "Unreadable"))
    settle(world)
    assert states(world) == dict.fromkeys(hosts, READY)
    # Not even the deletion of its Template goes on over what nobody can read.
    delete(world, kinds.TEMPLATES, "debian")
    settle(world)
    restart(world)
    settle(world)
    assert states(world) == dict.fromkeys(hosts, READY)
    assert counted(world) == {(host, "fetch"): 1 for host in hosts}
    # Corrected, it is done.
    spoil(world, DEPLOYMENTS, "everywhere", {"failures": None})
    until("the placements to go", lambda: not world.placements())
    until("the template to go", lambda: world.gone(kinds.TEMPLATES, "debian"))
    assert all(empty(world, host) for host in hosts)


def test_an_unreadable_deployment_that_is_deleted_waits_for_who_can_read_it(world: Simulation) -> None:
    """Its policy may be Retain; nobody here can tell."""
    hosts = deployed(world, 1)
    spoil(world, DEPLOYMENTS, "everywhere", SPOILT)
    until("the report", lambda: events(world, "everywhere", "Unreadable"))
    delete(world, DEPLOYMENTS, "everywhere")
    restart(world)
    settle(world)
    assert states(world) == dict.fromkeys(hosts, READY)
    spoil(world, DEPLOYMENTS, "everywhere", {"failures": None})
    until("the placements to go", lambda: not world.placements())
    until("the deployment to go", lambda: world.gone(DEPLOYMENTS, "everywhere"))
    assert empty(world, hosts[0])


def test_what_others_order_meanwhile_is_done_once_all_can_be_read(world: Simulation) -> None:
    """One deployment is deleted and one narrowed while a third, which nobody can read, may want what they give up."""
    first, second = hosts_of_a_zone(world, 2)
    world.start_controller()
    world.create_template()
    for name, hosts in (("deleted", [first]), ("narrowed", []), ("unread", [])):
        world.deploy(name, hosts=hosts)
        world.converged(1 if hosts else 2, name)
    spoil(world, DEPLOYMENTS, "unread", SPOILT)
    until("the report", lambda: events(world, "unread", "Unreadable"))
    delete(world, DEPLOYMENTS, "deleted")
    edit(world, DEPLOYMENTS, "narrowed", {"hosts": [second]})
    settle(world)
    restart(world)
    settle(world)
    assert states(world) == {first: READY, second: READY}
    edit(world, DEPLOYMENTS, "unread", {"hosts": [second]})
    spoil(world, DEPLOYMENTS, "unread", {"failures": None})
    until("what nobody wants any more to go", lambda: list(states(world)) == [second])
    until("the deployment to go", lambda: world.gone(DEPLOYMENTS, "deleted"))
    assert empty(world, first)


def test_one_unreadable_object_of_each_kind_ends_nothing(world: Simulation) -> None:
    """Others are served as ever, and the controller is the same process to the end."""
    first, second = hosts_of_a_zone(world, 2)
    controller = world.start_controller()
    world.create_template()
    world.create_template("other")
    world.deploy(hosts=[first])
    world.converged(1)
    (placement,) = world.placements()
    spoil(world, PLACEMENTS, placement["metadata"]["name"], {"conditions": [{**_condition(), "observedGeneration": 1}]})
    spoil(world, PLACEMENTS, placement["metadata"]["name"], {"conditions": [{"type": "Ready", "status": "True"}]})
    spoil(world, kinds.HOSTS, first, {"certificates": [{}]})
    spoil(
        world, kinds.TEMPLATES, "debian", {"probe": {"attempts": 1}, "conditions": [{**_condition(), "message": "x"}]}
    )
    name = placement["metadata"]["name"]
    until("the reports", lambda: events(world, first, "Unreadable") and events(world, name, "Unreadable"))
    world.deploy("theirs", "other", hosts=[second])
    world.converged(1, "theirs")
    settle(world)
    assert controller.alive
    assert copies(world)[first]["metadata"]["uid"] == placement["metadata"]["uid"]
    assert counted(world)[first, "remove"] == 0


def _loosened(schema: Any) -> None:
    """Nothing in it is required any more, but what lists have as their keys."""
    if isinstance(schema, dict):
        if isinstance(schema.get("required"), list) and "x-kubernetes-list-map-keys" not in schema:
            schema["required"] = [name for name in schema["required"] if name in ("type", "pool")]
        for value in schema.values():
            _loosened(value)


def _redefined(running: harness.ControlPlane, change: Callable[[Any], None]) -> None:
    """Serves our kinds with the schemas of their statuses changed, as another version has them."""
    kube.install_definitions(running)
    with kube.Kube(running.kubeconfig()) as connection:
        for kind in kinds.OURS:
            name = f"{kind.plural}.{kind.group}"
            found = connection.get(kinds.DEFINITIONS, name).object()
            for version in found["spec"]["versions"]:
                status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
                change(status)
                status["properties"]["ofTomorrow"] = {"type": "string"}
            running.kubectl("replace", "-f", "-", input=yaml.safe_dump(found), check=True)
    kube.await_definitions(running)


@pytest.fixture
def loose() -> collections.abc.Iterator[harness.ControlPlane]:
    """A control plane whose definitions admit what this version cannot read: another version's do, ours do not."""
    with harness.ControlPlane() as running:
        _redefined(running, _loosened)
        yield running


@pytest.fixture
def world(loose: harness.ControlPlane) -> collections.abc.Iterator[Simulation]:
    with Simulation(loose, "loose", agents=True) as simulated:
        yield simulated


def _condition() -> Object:
    return {"type": "Ready", "status": "True", "reason": TOMORROW, "lastTransitionTime": "2026-01-01T00:00:00Z"}


@pytest.fixture
def newer() -> collections.abc.Iterator[harness.ControlPlane]:
    """A control plane with the definitions of a newer version: every list of words in a status is longer there."""

    def widened(schema: Any) -> None:
        if isinstance(schema, dict):
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], TOMORROW]
            for value in schema.values():
                widened(value)
        elif isinstance(schema, list):
            for value in schema:
                widened(value)

    with harness.ControlPlane() as running:
        _redefined(running, widened)
        yield running


def test_a_rollback_with_everything_in_flight_loses_nothing(newer: harness.ControlPlane) -> None:
    """Objects as a newer version leaves them: words, fields and phases that this one has never heard of."""
    with Simulation(newer, "rollback", agents=True) as world:
        hosts = hosts_of_a_zone(world, 4)
        world.start_controller()
        world.create_template()
        world.deploy()
        world.converged(4)
        kill(world, world.controllers[-1])
        named = {host: world.placement(host)["metadata"]["name"] for host in hosts}
        for host, phase in zip(hosts, (TOMORROW, "Ready", "Ready", TOMORROW), strict=True):
            status = {"phase": phase, "conditions": [_condition()], "ofTomorrow": "x"}
            spoil(world, PLACEMENTS, named[host], status)
        failure = {"host": hosts[0], "pool": world.pool, "reason": TOMORROW, "message": "new"}
        told = {"failures": [failure], "conditions": [_condition()], "ofTomorrow": "x"}
        spoil(world, DEPLOYMENTS, "everywhere", told)
        spoil(world, kinds.TEMPLATES, "debian", {"protocol": TOMORROW, "ofTomorrow": "x"})
        spoil(world, kinds.HOSTS, hosts[1], {"state": TOMORROW, "conditions": [_condition()]})
        spoil(world, kinds.ZONES, world.zone, {"conditions": [_condition()], "ofTomorrow": "x"})
        world.start_controller()
        settle(world)
        assert world.controllers[-1].alive
        assert phases(world) == dict(zip(hosts, (TOMORROW, "Ready", "Ready", TOMORROW), strict=True))
        # What it can read it goes on with; what it cannot it leaves alone, to the last.
        edit(world, DEPLOYMENTS, "everywhere", {"hosts": [hosts[2]]})
        until("what was narrowed away to go", lambda: hosts[1] not in phases(world))
        settle(world)
        assert set(phases(world)) == {hosts[0], hosts[2], hosts[3]}
        assert not empty(world, hosts[0])
        assert empty(world, hosts[1])
        spoil(world, PLACEMENTS, named[hosts[0]], {"phase": "Ready"})
        until("what can be read again to follow", lambda: hosts[0] not in phases(world))
        assert counted(world)[hosts[3], "remove"] == 0
