"""Writes that reconcilers share: a status is written when it says something else, and only then."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import pytest
from tests.unit.controller import build as controller_build
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document, seconds

from directdownload.cluster import client, errors, kinds
from directdownload.controller import events, settings
from directdownload.controller.context import Context
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.world import World
from directdownload.planning import hosts, requests
from directdownload.planning.deployments import plan_deployment
from directdownload.planning.observed import Agent, project_placement
from directdownload.resources.base import REQUESTED_AT
from directdownload.resources.reasons import Reason

AGENTS = {
    "agentVersion": "1",
    "certificates": [{"name": "my-ca", "state": "Uploaded", "fingerprintSHA256": "AA"}],
    "keystore": {"type": "JKS", "entries": 1},
    "conditions": [build.condition("KeystoreSynced", "True", Reason.KEYSTORE_SYNCED)],
}


class Api:
    """Takes note of what is applied, and answers as an API server that has the agent's fields as well."""

    def __init__(self) -> None:
        self.applied: list[Mapping[str, Any]] = []

    async def apply(self, _: kinds.Resource, body: Document, **__: Any) -> Document:
        self.applied.append(body)
        conditions = [*body["status"]["conditions"], *cast(list[Document], AGENTS["conditions"])]
        metadata = build.metadata("kvm-1", resourceVersion=str(9 + len(self.applied)))
        spec = {"nodeName": "kvm-1", "zone": "zone-1"}
        return {"metadata": metadata, "spec": spec, "status": {**AGENTS, **body["status"], "conditions": conditions}}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def context(api: Api) -> Context:
    async def nothing(_: object) -> None: ...

    told = cast(client.Api, api)
    around = settings.Settings("operator", "pod", pathlib.Path("job.yaml"), ())
    return Context(told, World(()), WorkQueue(nothing), around, {}, events.Recorder(told, "pod"))


async def test_the_status_of_a_host_is_written_once_whatever_its_agent_says(context: Context, api: Api) -> None:
    context.world.hosts.observe(build.host(status=AGENTS))

    async def write() -> bool:
        host = context.world.hosts.get("kvm-1")
        assert host is not None
        plan = hosts.plan_host(host, build.node(), [build.zone()], Agent(True), NOW)
        return await context.write_status(kinds.HOSTS, host, plan.status)

    assert await write()
    (body,) = api.applied
    assert body["status"].keys() <= {"state", "nodeUID", "conditions", "observedGeneration", "lastHandledRequest"}
    assert not await write()
    found = context.world.hosts.get("kvm-1")
    assert found is not None
    assert found.proofs["my-ca"].state == "Uploaded"


async def test_a_write_leaves_the_body_of_its_caller_as_it_is(context: Context) -> None:
    context.world.hosts.observe(build.host())
    body: Document = {"metadata": {"labels": {"rack": "a"}}, "status": {"conditions": []}}
    for _ in range(2):
        await context.apply(kinds.HOSTS, context.world.hosts.get("kvm-1"), body)
        assert body == {"metadata": {"labels": {"rack": "a"}}, "status": {"conditions": []}}


class Gone(Api):
    """Whatever is written is not there any more."""

    async def apply(self, *_: Any, **__: Any) -> Document:
        raise errors.NotFound(404, "NotFound", "")

    async def merge_patch(self, *_: Any, **__: Any) -> Document:
        raise errors.NotFound(404, "NotFound", "")


@pytest.mark.parametrize("api", [Gone()])
async def test_what_the_api_server_does_not_find_is_not_there(context: Context) -> None:
    """No watch need tell of it: it may have vanished between the first list and the beginning of the watch."""
    world = context.world
    world.zones.observe(build.zone())
    world.deployments.observe(deployment := build.deployment())
    await context.apply(kinds.ZONES, world.zones.get("zone-1"), {"status": {}}, subresource="status")
    assert not await context.set_finalizer(kinds.TEMPLATE_DEPLOYMENTS, deployment, present=True)
    assert (len(world.zones), len(world.deployments)) == (0, 0)
    world.deployments.observe(build.deployment(resourceVersion="20"))
    assert not await context.set_finalizer(kinds.TEMPLATE_DEPLOYMENTS, deployment, present=True)
    assert len(world.deployments) == 1, "made again since"


class Asking(Api):
    """Takes every request to try a copy again."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self._versions = itertools.count(1000)

    async def merge_patch(self, _: kinds.Resource, name: str, patch: Document, **__: Any) -> Document:
        self.asked.append(name)
        document = build.placement_document(host=f"kvm-{name.rpartition('-')[2]}", phase="Failed", **STALLED)
        document["metadata"].update(
            name=name, uid=f"uid-{name}", resourceVersion=str(next(self._versions)), **patch["metadata"]
        )
        return document


STALLED: Document = {"reason": Reason.SOURCE_REFUSED}
COPIES = 5000


@pytest.mark.parametrize("api", [Asking()])
async def test_a_new_value_each_second_is_one_request_to_each_copy_in_an_interval(
    context: Context, api: Asking
) -> None:
    """Whatever the copies make of it: here each has served its request by the next second."""
    world, key = context.world, Key("template", "default/debian-13")
    world.deployments.observe(deployment := build.deployment())
    for number in range(COPIES):
        document = build.placement_document(phase="Failed", **STALLED)
        document["metadata"].update(name=f"copy-{number}", uid=f"uid-copy-{number}")
        world.placements.observe(project_placement(document))
    patches: list[int] = []
    served: list[str | None] = []
    for second in range(125):
        now, asked = NOW + seconds(second), build.deployment(requested_at=f"request-{second}")
        deployment = asked.model_copy(update={"status": deployment.status})
        before = len(api.asked)
        await context.retry_stalled(key, deployment, list(world.placements), now)
        patches.append(len(api.asked) - before)
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


@pytest.mark.parametrize("api", [Asking()])
async def test_a_request_that_waits_is_looked_at_again_by_itself(
    context: Context, api: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[Key, float]] = []
    monkeypatch.setattr(context.queue, "add_later", lambda key, pause: looks.append((key, pause)))
    now = context.now()
    served = now.replace(microsecond=0) - seconds(30)
    status = {"lastHandledRequest": "1", "lastHandledRequestTime": build.stamp(served)}
    zone = build.zone(requested_at="2", status=status)
    view = build.placement(phase="Failed", **STALLED)
    await context.retry_stalled(Key("zone", "zone-1"), zone, [view], now)
    ((key, pause),) = looks
    assert key == Key("zone", "zone-1")
    assert 28 < pause <= 30
    assert api.asked == []
    await context.retry_stalled(key, zone, [view], served + requests.INTERVAL)
    assert api.asked == [view.key]


@pytest.mark.parametrize("api", [Asking()])
async def test_a_copy_that_is_to_serve_a_request_is_not_asked_again(context: Context, api: Asking) -> None:
    """But for one that has begun to: it may have looked before the next one came."""
    view = build.placement(phase="Ready", requested_at="1")
    context.world.placements.observe(view)
    await context.ask("2", [view])
    assert api.asked == []
    annotations = {**controller_build.job(view, "verify").annotations, REQUESTED_AT: "1"}
    context.world.jobs.observe(controller_build.job(view, "verify", annotations=annotations))
    await context.ask("2", [view])
    assert api.asked == [view.key]
