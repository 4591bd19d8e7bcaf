"""Writes that reconcilers share: a status is written when it says something else, and only then."""

import pathlib
from collections.abc import Mapping
from typing import Any, cast

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, Document

from directdownload.cluster import client, errors, kinds
from directdownload.controller import events, settings
from directdownload.controller.context import Context
from directdownload.controller.queue import WorkQueue
from directdownload.controller.world import World
from directdownload.planning import hosts
from directdownload.planning.observed import Agent
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
