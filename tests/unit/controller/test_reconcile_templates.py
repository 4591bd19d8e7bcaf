"""A template's reconcile in a large fleet: how many placements one look makes, and that refused ones stop no others."""

import asyncio
import contextlib
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import Document

from directdownload.cluster import client, errors, kinds
from directdownload.controller import events, settings, watches
from directdownload.controller.context import Context
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.reconcile import templates as reconcile
from directdownload.controller.world import World
from directdownload.planning import quotas
from directdownload.resources import base
from directdownload.resources.reasons import Reason

HOSTS = 450
FINALIZERS: Document = {"finalizers": [base.FINALIZER]}
KEY = Key("template", "default/debian-13")


class Api:
    """Takes every placement whose host is not in `refused`, and every status."""

    def __init__(self, refused: frozenset[str]) -> None:
        self.refused = refused
        self.made: list[str] = []
        #: how many placements were to be made
        self.asked_for = 0
        self._versions = itertools.count(1000)

    async def create(self, _: kinds.Resource, body: Document) -> Document:
        self.asked_for += 1
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

    def __init__(self, api: Api, memory_bytes: int = 0) -> None:
        self.api = api
        #: placements made after each look
        self.counts: list[int] = []
        self.all_made = asyncio.Event()
        told = cast(client.Api, self.api)
        around = settings.Settings("operator", "pod", pathlib.Path("job.yaml"), ())
        world, queue = World((build.POOL_PATH,), memory_bytes), WorkQueue(self._reconcile)
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


class Kept(Api):
    """Keeps what is made as an API server does: with labels, and a little later."""

    async def create(self, resource: kinds.Resource, body: Document) -> Document:
        await asyncio.sleep(0)
        return await super().create(resource, body)

    async def apply(self, resource: kinds.Resource, body: Document, **options: Any) -> Document:
        if resource is not kinds.TEMPLATE_DEPLOYMENTS:
            return await super().apply(resource, body, **options)
        spec = {"templateRef": {"name": "debian-13"}, "zone": "zone-1"}
        return self._kept({**body, "metadata": {**body["metadata"], **FINALIZERS}, "spec": spec})


def limit(scene: Scene, number: int, version: int = 20) -> None:
    spec = {"placementsPerNamespace": number}
    scene.context.world.zones.observe(build.zone(spec=spec, resourceVersion=str(version)))


def counted(scene: Scene) -> int:
    return scene.context.world.charges.counts.get(quotas.Account("default", "zone-1"), 0)


async def test_templates_that_are_looked_at_at_once_share_one_limit() -> None:
    """Each plans before the placements of the other are there."""
    scene = Scene(Kept(frozenset()))
    world = scene.context.world
    limit(scene, 150)
    world.templates.observe(build.template("other", uid="other", **FINALIZERS))
    reference = {"templateRef": {"name": "other"}}
    world.deployments.observe(build.deployment("other", spec=reference, **FINALIZERS))
    await asyncio.gather(*(reconcile.reconcile(scene.context, f"default/{name}") for name in ("debian-13", "other")))
    assert (len(scene.api.made), len(world.placements), counted(scene)) == (150, 150, 150)


async def test_room_that_refused_placements_have_given_back_wakes_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(Kept(frozenset(f"kvm-{number}" for number in range(HOSTS))))
    looks: list[Key] = []
    monkeypatch.setattr(scene.context.queue, "add_later", lambda key, _: looks.append(key))
    limit(scene, 150)
    scene.context.world.charges.wait("default/other", frozenset({quotas.Account("default", "zone-1")}))
    with pytest.raises(errors.Forbidden):
        await reconcile.reconcile(scene.context, KEY.name)
    assert (counted(scene), looks) == (0, [Key("template", "default/other")])


async def test_a_placement_that_goes_wakes_the_template_that_waits_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(Kept(frozenset()))
    world, looks = scene.context.world, list[Key]()
    limit(scene, 150)
    await reconcile.reconcile(scene.context, KEY.name)
    watches.Watches(world, scene.context.queue)
    monkeypatch.setattr(scene.context.queue, "add_later", lambda key, _: looks.append(key))
    monkeypatch.setattr(scene.context.queue, "add", lambda _: None)
    world.charges.leave(KEY.name)
    for name in ("first", "second"):
        world.charges.wait(f"default/{name}", frozenset({quotas.Account("default", "zone-1")}))
    gone = next(iter(world.placements))
    world.placements.forget(gone.key, 10**6)
    assert Key("template", "default/first") in looks
    assert Key("template", "default/second") not in looks


async def test_in_all_no_more_are_made_than_the_memory_holds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "_LEAST", 120)
    scene = Scene(Kept(frozenset()), memory_bytes=1)
    for _ in range(3):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.api.made) == 120
    told = [record.getMessage() for record in caplog.records if "No more placements" in record.getMessage()]
    assert len(told) == 1
    assert "there are 120, and the controller has memory for 120 at most" in told[0]
    deployment = scene.context.world.deployments.get("default/everywhere")
    assert deployment is not None
    assert deployment.status.conditions[0].reason is Reason.TOO_MANY_PLACEMENTS


class Asked(Kept):
    """Takes requests to try copies again."""

    def __init__(self) -> None:
        super().__init__(frozenset())
        self.asked: list[str] = []

    async def merge_patch(self, _: kinds.Resource, name: str, body: Document, **__: Any) -> Document:
        self.asked.append(name)
        document = build.placement_document(host=f"kvm-{len(self.asked)}", **body["metadata"])
        document["metadata"].update(name=name, uid=f"uid-{name}", resourceVersion=str(next(self._versions)))
        return document


async def test_a_request_that_was_handed_on_is_served_at_once_though_counts_still_move() -> None:
    """Were that written with the next summary only, each value until then would be handed on as well."""
    scene = Scene(api := Asked())
    world = scene.context.world
    limit(scene, 3)
    for _ in range(2):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(api.made) == 3
    for number in range(5):
        before = world.deployments.get("default/everywhere")
        assert before is not None
        metadata = before.metadata.model_copy(
            update={
                "annotations": {base.REQUESTED_AT: f"request-{number}"},
                "resource_version": str(before.resource_version + 1),
            }
        )
        world.deployments.observe(before.model_copy(update={"metadata": metadata}))
        await reconcile.reconcile(scene.context, KEY.name)
    after = world.deployments.get("default/everywhere")
    assert after is not None
    assert after.status.last_handled_request == "request-0"
    assert len(api.asked) == 3


async def test_placements_that_are_refused_stop_no_others_however_many_they_are() -> None:
    """Each look makes one portion. Those that were refused come last, and only they wait for the pause of a failure."""
    refused = frozenset(f"kvm-{number}" for number in range(300))
    scene = Scene(Api(refused))
    made = []
    for _ in range(3):
        asked = scene.api.asked_for
        with contextlib.suppress(errors.Forbidden):
            await reconcile.reconcile(scene.context, KEY.name)
        assert scene.api.asked_for - asked <= 200
        made.append(len(scene.api.made))
    assert set(scene.api.made) == {f"kvm-{number}" for number in range(300, HOSTS)}
    assert made[-1] == 150
    with pytest.raises(errors.Forbidden):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.context.world.refused[build.TEMPLATE_UID]) == 300
    scene.context.world.templates.forget(KEY.name, 10**6)
    assert not scene.context.world.refused


class Throttling(Api):
    """Takes so many placements, and then asks for a pause of a minute."""

    def __init__(self, takes: int) -> None:
        super().__init__(frozenset())
        self.takes = takes

    async def create(self, resource: kinds.Resource, body: Document) -> Document:
        await asyncio.sleep(0)
        if len(self.made) >= self.takes:
            self.asked_for += 1
            raise errors.TooManyRequests(429, "TooManyRequests", "later", 60)
        return await super().create(resource, body)


@pytest.mark.parametrize(("takes", "most"), [(0, 1), (10, 11), (40, 40 + 16), (200, 201)])
async def test_nothing_more_is_sent_to_a_server_that_throttles(takes: int, most: int) -> None:
    """The queue then waits for the time that the server asked for."""
    scene = Scene(Throttling(takes))
    for _ in range(takes // 200):
        await reconcile.reconcile(scene.context, KEY.name)
    with pytest.raises(errors.TooManyRequests):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.api.made) == takes
    assert scene.api.asked_for <= most


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
