"""What cannot be read is there: it holds what it may be about, in the controller's world as in its plans."""

from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document

from directdownload.cluster import kinds
from directdownload.controller import surroundings
from directdownload.controller.context import projections
from directdownload.controller.queue import WorkQueue
from directdownload.controller.watches import Watches
from directdownload.controller.world import World
from directdownload.planning.hosts import plan_host
from directdownload.planning.observed import Agent, Node
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import PlacementPlan, Step
from directdownload.resources.template import Template

LABELS = {"rack": "1"}


def take(world: World, resource: kinds.Resource, document: Document) -> None:
    world.ours[resource].take(resource, projections(world.views)[resource], document)


def unread(name: str, spec: object, namespace: str = "", version: int = 5, **more: Any) -> Document:
    """An object whose status nobody can read."""
    where = {"namespace": namespace} if namespace else {}
    metadata = build.metadata(name, resourceVersion=str(version), **where)
    return {"metadata": metadata, "spec": spec, "status": {"conditions": [{"reason": 7}], **more}}


def with_copies(template: Template | None = None) -> World:
    world = World((build.ROOT,))
    world.templates.observe(template or build.template())
    world.zones.observe(build.zone())
    world.hosts.observe(build.host())
    world.pools.observe(build.pool())
    return world


REFERENCE: Document = {"templateRef": {"name": "debian-13"}, "zone": "zone-1"}


@pytest.mark.parametrize(
    ("namespace", "spec", "status", "held"),
    [
        ("default", REFERENCE, {}, True),
        ("default", {"templateRef": {"name": "other"}}, {}, False),
        # Nobody can tell which Template it means.
        ("default", {"ofTomorrow": "debian-13"}, {}, True),
        # One that was never planned may have been refused.
        ("tenant", {"templateRef": {"name": "debian-13", "namespace": "default"}}, {}, False),
        ("tenant", {"templateRef": {"name": "debian-13", "namespace": "default"}}, {"granted": {"a": 1}}, True),
    ],
)
def test_which_templates_an_unreadable_deployment_holds(
    namespace: str, spec: Document, status: Document, held: bool
) -> None:
    world = with_copies()
    take(world, kinds.TEMPLATE_DEPLOYMENTS, unread("x", spec, namespace, **status))
    (template,) = world.templates
    assert world.held(template) is held


def test_a_deployment_that_becomes_unreadable_is_not_gone_and_one_that_vanishes_is() -> None:
    world = with_copies()
    (template,) = world.templates
    take(world, kinds.TEMPLATE_DEPLOYMENTS, {**unread("x", REFERENCE, "default", version=4), "status": {}})
    assert not world.held(template)
    take(world, kinds.TEMPLATE_DEPLOYMENTS, unread("x", REFERENCE, "default"))
    assert world.held(template)
    assert len(world.deployments) == 0
    world.deployments.forget("default/x", 6)
    assert not world.held(template)


def test_no_job_removes_or_fetches_what_an_unreadable_deployment_may_want() -> None:
    world = with_copies()
    take(world, kinds.TEMPLATE_DEPLOYMENTS, unread("x", REFERENCE, "default"))
    removing, pending, ready = (build.placement(phase=phase) for phase in ("Removing", "Pending", "Ready"))
    around = surroundings.of(world, removing, NOW)
    assert plan_placement(removing, around, None, NOW) == PlacementPlan(None)
    assert plan_placement(pending, around, None, NOW).step is Step.NONE
    assert plan_placement(ready, around, None, NOW).step is Step.NONE
    world.deployments.forget("default/x", 6)
    around = surroundings.of(world, removing, NOW)
    assert plan_placement(removing, around, None, NOW).step is Step.REMOVE
    assert plan_placement(pending, around, None, NOW).step is Step.FETCH


@pytest.mark.parametrize(
    ("kind", "document"),
    [(kinds.HOSTS, unread("kvm-1", {"nodeName": "kvm-1"})), (kinds.ZONES, unread("zone-9", {"nodeSelector": 1}))],
    ids=["its Host", "a Zone that may select its node"],
)
def test_no_host_is_gone_for_good_while_it_may_be_there(kind: kinds.Resource, document: Document) -> None:
    world = with_copies()
    copy = build.placement(phase="Ready", host="kvm-1")
    world.hosts.forget("kvm-1", 4)
    assert surroundings.of(world, copy, NOW).departed
    take(world, kind, document)
    assert not surroundings.of(world, copy, NOW).departed


def test_a_host_stays_with_its_zone_while_that_cannot_be_read() -> None:
    """Otherwise it would move to another one that selects its node, and lose its certificates and copies there."""
    node = Node("kvm-1", LABELS, ready=True)
    other = build.zone("zone-2", spec={"nodeSelector": {"matchLabels": LABELS}})
    host = build.host(labels=LABELS)
    assert plan_host(host, node, [other], Agent(True), NOW).zone == "zone-2"
    plan = plan_host(host, node, [other], Agent(True), NOW, unreadable={"zone-1"})
    assert (plan.zone, plan.status.state) == ("zone-1", "Up")


async def test_what_becomes_unreadable_asks_for_a_look_at_what_it_holds() -> None:
    async def nothing(_: object) -> None: ...

    world = with_copies()
    queue = WorkQueue(nothing)
    Watches(world, queue)
    placement = build.placement(phase="Ready")
    take(world, kinds.TEMPLATE_DEPLOYMENTS, unread("x", REFERENCE, "default"))
    assert queue.depths()["template"] == 1
    document = {
        **unread(placement.key, build.placement_document()["spec"]),
        "status": {"attempts": 1, "startedTime": "soon"},
    }
    take(world, kinds.TEMPLATE_PLACEMENTS, document)
    assert list(world.unread_placements[build.TEMPLATE_UID])
