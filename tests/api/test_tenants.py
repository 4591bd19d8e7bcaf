"""Real users with `edit` in namespaces of their own: what one was refused decides nothing about what others have."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from tests.world import kube
from tests.world.kube import Kube, Object
from tests.world.simulation import Simulation
from tests.world.steps import ask, counted, edit, empty, hosts_of_a_zone, settle, states, until_state
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import base

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)
DEPLOYMENTS, TEMPLATES = kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATES
READY = ("Ready", "Downloaded")
ALLOWED: dict[str, Any] = {"allowedNamespaces": {"matchLabels": {"team": "guest"}}}
NOBODY = {"allowedNamespaces": {"matchLabels": {"team": "nobody"}}}


class Tenant:
    """A person with the chart's role for `edit` in one namespace, and nowhere else."""

    def __init__(self, world: Simulation, name: str) -> None:
        self._world = world
        self.user = f"{world.prefix}-{name}"
        self.namespace = world.create_namespace(name, team=name)
        plane = world.control_plane
        plane.kubectl("apply", "-f", "-", input=kube.rendered("people", world.namespace), check=True)
        binding = ("create", "rolebinding", "edit", "--clusterrole=people-direct-download-operator-edit")
        plane.kubectl(*binding, f"--user={self.user}", "-n", self.namespace, check=True)
        self._kubeconfig = plane.kubeconfig(self.user, ())

    @contextlib.contextmanager
    def kube(self) -> Iterator[Kube]:
        with Kube(self._kubeconfig) as connection:
            yield connection

    def deploy(self, name: str, template: str, **spec: object) -> None:
        reference = {"name": template, "namespace": self._world.namespace}
        body = kube.resource(
            DEPLOYMENTS, name, {"templateRef": reference, "zone": self._world.zone, **spec}, self.namespace
        )
        with self.kube() as connection:
            connection.create(DEPLOYMENTS, body, self.namespace).object()

    def delete(self, name: str) -> None:
        with self.kube() as connection:
            connection.delete(DEPLOYMENTS, name, self.namespace).object()
        until(f"{name} to go", lambda: self.status(name) is None)

    def status(self, name: str) -> Object | None:
        with self.kube() as connection:
            answer = connection.get(DEPLOYMENTS, name, self.namespace)
        found: Object | None = None if answer.code == 404 else answer.object().get("status", {})
        return found

    def refused(self, name: str, reason: str = "TemplateNotAllowed") -> Object:
        def told() -> Object | None:
            status = self.status(name) or {}
            reasons = [c["reason"] for c in status.get("conditions", ()) if c["type"] == "Ready"]
            return status if reasons == [reason] else None

        return until(f"{name} to be refused", told)


@pytest.mark.parametrize(("owner", "theirs"), list(itertools.product(["Delete", "Retain"], repeat=2)))
def test_a_refused_deployment_decides_nothing(world: Simulation, owner: str, theirs: str) -> None:
    """Neither keeps it the files of an owner who deletes, nor removes it those of one who retains them."""
    (host,) = hosts_of_a_zone(world, 1)
    tenant = Tenant(world, "guest")
    world.start_controller()
    world.create_template()
    world.deploy(deletionPolicy=owner)
    until_state(world, host, *READY)
    tenant.deploy("greedy", "debian", deletionPolicy=theirs)
    status = tenant.refused("greedy")
    assert not {"placements", "bytes", "failures", "granted", "observedSelection"} & status.keys()
    with world.kube() as connection:
        connection.delete(DEPLOYMENTS, "everywhere", world.namespace).object()
    until("the placement to go", lambda: not world.placements())
    assert empty(world, host) is (owner == "Delete")
    tenant.delete("greedy")
    settle(world)
    assert empty(world, host) is (owner == "Delete")
    assert counted(world)[host, "remove"] == (1 if owner == "Delete" else 0)


def test_a_refused_deployment_that_is_deleted_takes_nothing_along(world: Simulation) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    tenant = Tenant(world, "guest")
    world.start_controller()
    world.create_template()
    world.deploy()
    until_state(world, host, *READY)
    tenant.deploy("greedy", "debian")
    tenant.refused("greedy")
    tenant.delete("greedy")
    settle(world)
    assert states(world) == {host: READY}


def test_nothing_that_a_refused_deployment_says_reaches_the_copies_of_others(world: Simulation) -> None:
    """Not its requests, which verify and try again, nor its pause, nor its limit, nor its status."""
    (host,) = hosts_of_a_zone(world, 1)
    tenant = Tenant(world, "guest")
    world.start_controller()
    world.create_template()
    tenant.deploy("greedy", "debian", rollout={"paused": True, "maxParallel": 1})
    tenant.refused("greedy")
    world.deploy()
    until_state(world, host, *READY)
    request = ask(world, DEPLOYMENTS, "greedy", tenant.namespace)
    until("the request", lambda: (tenant.status("greedy") or {}).get("lastHandledRequest") == request)
    settle(world)
    (placement,) = world.placements()
    assert base.REQUESTED_AT not in placement["metadata"].get("annotations", {})
    assert counted(world) == {(host, "fetch"): 1}
    granted = {"selection": "x", "templateUID": placement["spec"]["templateRef"]["uid"], "time": "2030-01-01T00:00:00Z"}
    with tenant.kube() as connection:
        answer = connection.patch(
            DEPLOYMENTS, "greedy", {"status": {"granted": granted}}, tenant.namespace, subresource="status"
        )
        assert answer.code == 403
        connection.patch(DEPLOYMENTS, "greedy", {"status": {"granted": granted}}, tenant.namespace).object()
    settle(world)
    assert "granted" not in (tenant.status("greedy") or {})


@pytest.mark.parametrize("theirs", ["Delete", "Retain"])
@pytest.mark.parametrize("order", ["owner first", "tenant first"])
def test_one_that_was_permitted_holds_what_it_was_given_and_removes_nothing(
    world: Simulation, order: str, theirs: str
) -> None:
    first, second = hosts_of_a_zone(world, 2)
    tenant = Tenant(world, "guest")
    world.start_controller()
    world.create_template(**ALLOWED)
    world.deploy(hosts=[first])
    tenant.deploy("theirs", "debian", deletionPolicy=theirs)
    until_state(world, first, *READY)
    until_state(world, second, *READY)
    until("the right", lambda: "granted" in (tenant.status("theirs") or {}))
    edit(world, TEMPLATES, "debian", NOBODY)
    assert tenant.refused("theirs")["placements"]["ready"] == 2
    if order == "owner first":
        with world.kube() as connection:
            connection.delete(DEPLOYMENTS, "everywhere", world.namespace).object()
        settle(world)
        assert states(world) == {first: READY, second: READY}
        tenant.delete("theirs")
        until("the placements to go", lambda: not world.placements())
        settle(world)
        assert not empty(world, first)
    else:
        tenant.delete("theirs")
        until("its own placement to go", lambda: list(states(world)) == [first])
        settle(world)
        assert states(world) == {first: READY}
        with world.kube() as connection:
            connection.delete(DEPLOYMENTS, "everywhere", world.namespace).object()
        until("the placements to go", lambda: not world.placements())
        until("the owner's file to go", lambda: empty(world, first))
    # What nobody may remove stays, and is no longer anybody's.
    assert not empty(world, second)
    assert (second, "remove") not in counted(world)


def test_a_zone_that_takes_a_namespace_no_longer(world: Simulation) -> None:
    """The same for what an administrator of the zone refuses."""
    (host,) = hosts_of_a_zone(world, 1)
    tenant = Tenant(world, "guest")
    world.start_controller()
    world.create_template(**ALLOWED)
    tenant.deploy("theirs", "debian")
    until_state(world, host, *READY)
    edit(world, kinds.ZONES, world.zone, {"templateNamespaces": {"matchLabels": {"team": "nobody"}}})
    tenant.refused("theirs", "NamespaceNotAllowed")
    settle(world)
    assert states(world) == {host: READY}
    tenant.delete("theirs")
    until("the placement to go", lambda: not world.placements())
    settle(world)
    assert not empty(world, host)
    assert counted(world) == {(host, "fetch"): 1}
