"""Writes that reconcilers share: a status is written when it says something else, and only then."""

import dataclasses

import pytest
from tests.unit.controller import build as controller_build
from tests.unit.controller.scenes import Scene
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document, seconds

from directdownload.cluster import kinds
from directdownload.controller.queue import Key
from directdownload.planning import hosts, requests
from directdownload.planning.observed import Agent
from directdownload.planning.rollouts import plan_deployment
from directdownload.resources.base import REQUESTED_AT
from directdownload.resources.reasons import Reason

AGENTS = {
    "agentVersion": "1",
    "certificates": [{"name": "my-ca", "state": "Uploaded", "fingerprintSHA256": "AA"}],
    "keystore": {"type": "JKS", "entries": 1},
    "conditions": [build.condition("KeystoreSynced", "True", Reason.KEYSTORE_SYNCED)],
}


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_the_status_of_a_host_is_written_once_whatever_its_agent_says(scene: Scene) -> None:
    context = scene.context
    scene.put(kinds.HOSTS, build.host_document(status=AGENTS))
    labels = {"zone": "zone-1"}

    async def write() -> bool:
        host = context.world.hosts.get("kvm-1")
        assert host is not None
        plan = hosts.plan_host(host, build.node(labels=labels), [build.zone()], Agent(True), NOW)
        return await context.write_status(kinds.HOSTS, host, plan.status)

    assert await write()
    (call,) = scene.api.called("apply")
    assert call.body["status"].keys() <= {"state", "nodeUID", "conditions", "observedGeneration", "lastHandledRequest"}
    assert not await write()
    labels["kubernetes.io/arch"] = "arm64"
    assert await write()
    assert not await write()
    found = context.world.hosts.get("kvm-1")
    assert found is not None
    assert found.proofs["my-ca"].state == "Uploaded"


async def test_a_write_leaves_the_body_of_its_caller_as_it_is(scene: Scene) -> None:
    scene.put(kinds.HOSTS, build.host())
    body: Document = {"metadata": {"labels": {"rack": "a"}}, "status": {"conditions": []}}
    for _ in range(2):
        await scene.context.apply(kinds.HOSTS, scene.world.hosts.get("kvm-1"), body)
        assert body == {"metadata": {"labels": {"rack": "a"}}, "status": {"conditions": []}}


async def test_what_the_api_server_does_not_find_is_not_there(scene: Scene) -> None:
    """No watch need tell of it: it may have vanished between the first list and the beginning of the watch."""
    context, world = scene.context, scene.world
    world.zones.observe(build.zone())
    world.deployments.observe(deployment := build.deployment())
    await context.apply(kinds.ZONES, world.zones.get("zone-1"), {"status": {}}, subresource="status")
    assert not await context.set_finalizer(kinds.TEMPLATE_DEPLOYMENTS, deployment, present=True)
    assert (len(world.zones), len(world.deployments)) == (0, 0)
    world.deployments.observe(build.deployment(resourceVersion="20"))
    assert not await context.set_finalizer(kinds.TEMPLATE_DEPLOYMENTS, deployment, present=True)
    assert len(world.deployments) == 1, "made again since"


STALLED: Document = {"reason": Reason.SOURCE_REFUSED}
COPIES = 5000


async def test_a_new_value_each_second_is_one_request_to_each_copy_in_an_interval(scene: Scene) -> None:
    """Whatever the copies make of it: here each has served its request by the next second."""
    context, world, key = scene.context, scene.world, Key("template", "default/debian-13")
    world.deployments.observe(deployment := build.deployment())
    for number in range(COPIES):
        document = build.placement_document(phase="Failed", **STALLED)
        document["metadata"].update(name=f"copy-{number}", uid=f"uid-copy-{number}")
        scene.put(kinds.TEMPLATE_PLACEMENTS, document)
    patches: list[int] = []
    served: list[str | None] = []
    for second in range(125):
        now, asked = NOW + seconds(second), build.deployment(requested_at=f"request-{second}")
        deployment = asked.model_copy(update={"status": deployment.status})
        before = len(scene.api.calls)
        await context.retry_stalled(key, deployment, list(world.placements), now)
        patches.append(len(scene.api.calls) - before)
        status = plan_deployment(deployment, build.template(), build.fleet(), {}, now)
        if status.last_handled_request not in (None, *served):
            served.append(status.last_handled_request)
        deployment = deployment.model_copy(update={"status": status})
        for placement in list(world.placements) if patches[-1] else ():
            version = placement.resource_version + 1
            request = placement.requested_at
            world.placements.observe(
                dataclasses.replace(placement, last_handled_request=request, resource_version=version)
            )
    assert [(second, count) for second, count in enumerate(patches) if count] == [(0, 5000), (60, 5000), (120, 5000)]
    assert served == ["request-0", "request-60", "request-120"], "the newest counts, and none is lost"


async def test_a_request_that_waits_is_looked_at_again_by_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    context = scene.context
    looks: list[tuple[Key, float]] = []
    monkeypatch.setattr(context.queue, "add_later", lambda key, pause: looks.append((key, pause)))
    now = context.now()
    served = now.replace(microsecond=0) - seconds(30)
    status = {"lastHandledRequest": "1", "lastHandledRequestTime": build.stamp(served)}
    zone = build.zone(requested_at="2", status=status)
    scene.put(kinds.TEMPLATE_PLACEMENTS, build.placement_document(phase="Failed", **STALLED))
    (view,) = scene.world.placements
    await context.retry_stalled(Key("zone", "zone-1"), zone, [view], now)
    ((key, pause),) = looks
    assert key == Key("zone", "zone-1")
    assert 28 < pause <= 30
    assert scene.asked() == []
    await context.retry_stalled(key, zone, [view], served + requests.INTERVAL)
    assert scene.asked() == [view.key]


async def test_a_copy_that_is_to_serve_a_request_is_not_asked_again(scene: Scene) -> None:
    """But for one that has begun to: it may have looked before the next one came."""
    context = scene.context
    scene.put(kinds.TEMPLATE_PLACEMENTS, build.placement_document(phase="Ready", requested_at="1"))
    (view,) = scene.world.placements
    await context.ask("2", [view])
    assert scene.asked() == []
    annotations = {**controller_build.job(view, "verify").annotations, REQUESTED_AT: "1"}
    context.world.jobs.observe(controller_build.job(view, "verify", annotations=annotations))
    await context.ask("2", [view])
    assert scene.asked() == [view.key]


@pytest.mark.parametrize(("uid", "stays"), [("", False), ("of another", True)])
async def test_a_job_that_changes_while_it_is_deleted_is_not_deleted_again(scene: Scene, uid: str, stays: bool) -> None:
    """Its watch may report a change before the API server answers. Another of its name is not meant."""
    world = scene.world
    world.jobs.observe(view := controller_build.job(build.placement()))
    newer = dataclasses.replace(view, uid=uid or view.uid, resource_version=view.resource_version + 1)
    scene.api.on_call = lambda _: world.jobs.observe(newer)
    await scene.context.delete_job(view)
    assert (view.key in world.jobs) is stays
