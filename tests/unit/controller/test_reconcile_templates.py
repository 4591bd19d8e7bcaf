"""A template's reconcile in a large fleet: how many placements one look makes, and that refused ones stop no others."""

import asyncio
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import Document

from directdownload.cluster import client, errors, kinds
from directdownload.controller import events, settings
from directdownload.controller.context import Context
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.reconcile import templates as reconcile
from directdownload.controller.world import World
from directdownload.resources import base

HOSTS = 450
FINALIZERS: Document = {"finalizers": [base.FINALIZER]}
KEY = Key("template", "default/debian-13")


class Api:
    """Takes every placement whose host is not in `refused`, and every status."""

    def __init__(self, refused: frozenset[str]) -> None:
        self.refused = refused
        self.made: list[str] = []
        self._versions = itertools.count(1000)

    async def create(self, _: kinds.Resource, body: Document) -> Document:
        if body["spec"]["host"] in self.refused:
            raise errors.Forbidden(403, "Forbidden", body["metadata"]["name"])
        self.made.append(body["spec"]["host"])
        return self._kept(body)

    async def apply(self, resource: kinds.Resource, body: Document, **options: Any) -> Document:
        spec = {"url": "https://images.example.org/debian-13.qcow2", "format": "QCOW2"}
        return self._kept({**body, "metadata": {**body["metadata"], **FINALIZERS}, "spec": spec})

    def _kept(self, body: Document) -> Document:
        given = {**body["metadata"], "resourceVersion": str(next(self._versions))}
        return {**body, "metadata": {**build.metadata(given["name"]), **given}}


class Meanwhile(Api):
    """While the mark of a removal is written, `happens` does. `freed`: deployments whose finalizer was taken off."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__(frozenset())
        self.happens = happens
        self.marked: list[str] = []
        self.released: list[str] = []
        self.freed: list[str] = []

    async def get(self, _: kinds.Resource, name: str) -> Document:
        return {"metadata": {"name": name}}

    async def apply(self, resource: kinds.Resource, body: Document, **options: Any) -> Document:
        if resource is not kinds.TEMPLATE_PLACEMENTS:
            return await super().apply(resource, body, **options)
        self.marked.append(body["metadata"]["name"])
        self.happens()
        marked: Document = build.placement_document(host="kvm-1", phase="Removing")
        marked["metadata"]["resourceVersion"] = "1000"
        return marked

    async def delete(self, _: kinds.Resource, name: str, **__: Any) -> None:
        self.released.append(name)

    async def merge_patch(self, _: kinds.Resource, name: str, body: Document, **__: Any) -> Document:
        self.freed.append(name)
        return {"metadata": {"deletionTimestamp": "now", **body["metadata"]}}


class Scene:
    """A template for all of `HOSTS` hosts, and a queue in which its reconciles are real and nothing else is done."""

    def __init__(self, api: Api) -> None:
        self.api = api
        #: placements made after each look
        self.counts: list[int] = []
        self.all_made = asyncio.Event()
        told = cast(client.Api, self.api)
        around = settings.Settings("operator", "pod", pathlib.Path("job.yaml"), ())
        world, queue = World((build.POOL_PATH,)), WorkQueue(self._reconcile)
        self.context = Context(told, world, queue, around, {}, events.Recorder(told, "pod"))
        world.zones.observe(build.zone())
        world.pools.observe(build.pool())
        world.templates.observe(build.template(**FINALIZERS))
        world.deployments.observe(build.deployment(**FINALIZERS))
        for number in range(HOSTS):
            world.hosts.observe(build.host(f"kvm-{number}"))

    async def _reconcile(self, key: Key) -> None:
        if key == KEY:
            await reconcile.reconcile(self.context, key.name)
            self.counts.append(len(self.api.made))
            if len(self.api.made) == HOSTS:
                self.all_made.set()


async def test_thousands_of_placements_are_made_in_portions_one_look_after_the_other() -> None:
    scene = Scene(Api(frozenset()))
    scene.context.queue.add(KEY)
    working = asyncio.create_task(scene.context.queue.run(1))
    async with asyncio.timeout(20):
        await scene.all_made.wait()
    working.cancel()
    # The look that writes what became of them comes later.
    assert scene.counts == [200, 400, HOSTS]
    assert len(set(scene.api.made)) == HOSTS


async def test_placements_that_are_refused_stop_no_others_however_many_they_are() -> None:
    refused = frozenset(f"kvm-{number}" for number in range(300))
    scene = Scene(Api(refused))
    with pytest.raises(errors.Forbidden):
        await reconcile.reconcile(scene.context, KEY.name)
    assert set(scene.api.made) == {f"kvm-{number}" for number in range(300, HOSTS)}


async def test_what_changes_while_others_are_removed_is_planned_before_it_goes() -> None:
    """A deployment that is deleted in the middle of a look must not go with it: its Retain would be lost."""
    kept: Document = {"spec": {"hosts": ["kvm-2"], "deletionPolicy": "Retain"}, **FINALIZERS}
    deleted = build.deployment("kept", generation=2, deleting=True, resourceVersion="20", **kept)
    api = Meanwhile(lambda: world.deployments.observe(deleted))
    scene = Scene(api)
    world = scene.context.world
    world.deployments.forget("default/everywhere", 10)
    on_1, on_2 = (build.placement(host=name, phase="Ready") for name in ("kvm-1", "kvm-2"))
    for view in (on_1, on_2):
        world.placements.observe(view)
    gone = build.deployment("gone", deleting=True, spec={"hosts": ["kvm-1"]}, **FINALIZERS)
    for each in (gone, build.deployment("kept", **kept)):
        world.deployments.observe(each)

    await reconcile.reconcile(scene.context, KEY.name)
    assert (api.marked, api.released, api.freed) == ([on_1.key], [], ["gone"])
    world.deployments.forget("default/gone", 10)
    await reconcile.reconcile(scene.context, KEY.name)
    assert (api.marked, api.released, api.freed) == ([on_1.key], [on_2.key], ["gone", "kept"])


class Vanished(Api):
    """The deployment is deleted before the controller has put its finalizer on it, and no watch has told of that."""

    async def merge_patch(self, *_: Any, **__: Any) -> Document:
        raise errors.NotFound(404, "NotFound", "everywhere")


async def test_no_copy_is_made_for_a_deployment_that_has_vanished() -> None:
    """Its copies would be removed at once, with files that lay there before: nobody knew of its Retain any more."""
    scene = Scene(Vanished(frozenset()))
    scene.context.world.deployments.observe(build.deployment(resourceVersion="20"))
    await reconcile.reconcile(scene.context, KEY.name)
    assert (scene.api.made, len(scene.context.world.deployments)) == ([], 0)
