"""A template's reconcile in a large fleet: how many placements one look makes, and that refused ones stop no others."""

import asyncio
import contextlib
import itertools

import pytest
from tests.unit.controller import scenes
from tests.unit.planning import build
from tests.unit.planning.build import Document
from tests.world.api import Call

from directdownload.cluster import errors, kinds
from directdownload.controller import watches
from directdownload.controller.queue import Key
from directdownload.controller.reconcile import templates as reconcile
from directdownload.planning import quotas
from directdownload.resources import base
from directdownload.resources.reasons import Reason

HOSTS = 450
FINALIZERS: Document = {"finalizers": [base.FINALIZER]}
KEY = Key("template", "default/debian-13")


class Scene(scenes.Scene):
    """A template for all of `HOSTS` hosts, and a queue in which its reconciles are real and nothing else is done."""

    def __init__(self, memory_bytes: int = 0) -> None:
        super().__init__(self._reconcile, memory_bytes=memory_bytes)
        #: placements made after each look
        self.counts: list[int] = []
        self.all_made = asyncio.Event()
        self.put(kinds.ZONES, build.zone())
        self.put(kinds.STORAGE_POOLS, build.pool())
        self.put(kinds.TEMPLATES, build.template(**FINALIZERS))
        self.put(kinds.TEMPLATE_DEPLOYMENTS, build.deployment(**FINALIZERS))
        for number in range(HOSTS):
            self.world.hosts.observe(build.host(f"kvm-{number}"))

    async def _reconcile(self, key: Key) -> None:
        if key == KEY:
            await reconcile.reconcile(self.context, key.name)
            self.counts.append(len(self.made()))
            if self.counts[-1] == HOSTS:
                self.all_made.set()


async def test_thousands_of_placements_are_made_in_portions_one_look_after_the_other() -> None:
    scene = Scene()
    scene.context.queue.add(KEY)
    working = asyncio.create_task(scene.context.queue.run(1))
    async with asyncio.timeout(20):
        await scene.all_made.wait()
    working.cancel()
    # The look that writes what became of them comes later.
    assert scene.counts == [200, 400, HOSTS]
    assert len(set(scene.made())) == HOSTS


def limit(scene: Scene, number: int) -> None:
    scene.put(kinds.ZONES, build.zone(spec={"placementsPerNamespace": number}))


def counted(scene: Scene) -> int:
    return scene.context.world.charges.counts.get(quotas.Account("default", "zone-1"), 0)


async def test_templates_that_are_looked_at_at_once_share_one_limit() -> None:
    """Each plans before the placements of the other are there."""
    scene = Scene()
    world = scene.context.world
    limit(scene, 150)
    scene.put(kinds.TEMPLATES, build.template("other", uid="other", **FINALIZERS))
    scene.put(
        kinds.TEMPLATE_DEPLOYMENTS, build.deployment("other", spec={"templateRef": {"name": "other"}}, **FINALIZERS)
    )
    await asyncio.gather(*(reconcile.reconcile(scene.context, f"default/{name}") for name in ("debian-13", "other")))
    assert (len(scene.made()), len(world.placements), counted(scene)) == (150, 150, 150)


async def test_room_that_refused_placements_have_given_back_wakes_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.refuse("create", *(f"kvm-{number}" for number in range(HOSTS)))
    looks: list[Key] = []
    monkeypatch.setattr(scene.context.queue, "add_later", lambda key, _: looks.append(key))
    limit(scene, 150)
    scene.context.world.charges.wait("default/other", frozenset({quotas.Account("default", "zone-1")}))
    with pytest.raises(errors.Forbidden):
        await reconcile.reconcile(scene.context, KEY.name)
    assert (counted(scene), looks) == (0, [Key("template", "default/other")])


async def test_a_placement_that_goes_wakes_the_template_that_waits_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
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
    scene = Scene(memory_bytes=1)
    for _ in range(3):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.made()) == 120
    told = [record.getMessage() for record in caplog.records if "No more placements" in record.getMessage()]
    assert len(told) == 1
    assert "there are 120, and the controller has memory for 120 at most" in told[0]
    deployment = scene.context.world.deployments.get("default/everywhere")
    assert deployment is not None
    assert deployment.status.conditions[0].reason is Reason.TOO_MANY_PLACEMENTS


async def test_a_request_that_was_handed_on_is_served_at_once_though_counts_still_move() -> None:
    """Were that written with the next summary only, each value until then would be handed on as well."""
    scene = Scene()
    world = scene.context.world
    limit(scene, 3)
    for _ in range(2):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.made()) == 3
    for number in range(5):
        patch = {"metadata": {"annotations": {base.REQUESTED_AT: f"request-{number}"}}}
        asked = await scene.api.merge_patch(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", patch, namespace="default")
        scene.context.observe(kinds.TEMPLATE_DEPLOYMENTS, asked)
        await reconcile.reconcile(scene.context, KEY.name)
    after = world.deployments.get("default/everywhere")
    assert after is not None
    assert after.status.last_handled_request == "request-0"
    assert len(scene.asked()) == 3


async def test_placements_that_are_refused_stop_no_others_however_many_they_are() -> None:
    """Each look makes one portion. Those that were refused come last, and only they wait for the pause of a failure."""
    scene = Scene()
    scene.refuse("create", *(f"kvm-{number}" for number in range(300)))
    made = []
    for _ in range(3):
        asked = len(scene.api.called("create", kinds.TEMPLATE_PLACEMENTS))
        with contextlib.suppress(errors.Forbidden):
            await reconcile.reconcile(scene.context, KEY.name)
        assert len(scene.api.called("create", kinds.TEMPLATE_PLACEMENTS)) - asked <= 200
        made.append(len(scene.made()))
    assert set(scene.made()) == {f"kvm-{number}" for number in range(300, HOSTS)}
    assert made[-1] == HOSTS - 300
    with pytest.raises(errors.Forbidden):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.context.world.refused[build.TEMPLATE_UID]) == 300
    scene.context.world.templates.forget(KEY.name, 10**6)
    assert not scene.context.world.refused


@pytest.mark.parametrize(("takes", "most"), [(0, 1), (10, 11), (40, 40 + 16), (200, 201)])
async def test_nothing_more_is_sent_to_a_server_that_throttles(takes: int, most: int) -> None:
    """The queue then waits for the time that the server asked for."""
    scene = Scene()

    def throttle(call: Call) -> None:
        creates = scene.api.called("create", kinds.TEMPLATE_PLACEMENTS)
        if call.verb == "create" and call.resource is kinds.TEMPLATE_PLACEMENTS and len(creates) > takes:
            raise errors.TooManyRequests(429, "TooManyRequests", "later", 60)

    scene.api.on_call = throttle
    for _ in range(takes // 200):
        await reconcile.reconcile(scene.context, KEY.name)
    with pytest.raises(errors.TooManyRequests):
        await reconcile.reconcile(scene.context, KEY.name)
    assert len(scene.made()) == takes
    assert len(scene.api.called("create", kinds.TEMPLATE_PLACEMENTS)) <= most


async def test_what_changes_while_others_are_removed_is_planned_before_it_goes() -> None:
    """A deployment that is deleted in the middle of a look must not go with it: its Retain would be lost."""
    kept: Document = {"spec": {"hosts": ["kvm-2"], "deletionPolicy": "Retain"}, **FINALIZERS}
    scene = Scene()
    api, world = scene.api, scene.world
    api.remove(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", "default")
    world.deployments.forget("default/everywhere", 10**6)
    documents = [build.placement_document(host=name, phase="Ready") for name in ("kvm-1", "kvm-2")]
    scene.put(kinds.TEMPLATE_PLACEMENTS, *documents)
    on_1, on_2 = (document["metadata"]["name"] for document in documents)
    gone = build.deployment("gone", deleting=True, spec={"hosts": ["kvm-1"]}, **FINALIZERS)
    scene.put(kinds.TEMPLATE_DEPLOYMENTS, gone, build.deployment("kept", **kept))

    def meanwhile(call: Call) -> None:
        if call.verb == "apply" and call.name == on_1:
            deleted = build.deployment("kept", generation=2, deleting=True, **kept)
            scene.put(kinds.TEMPLATE_DEPLOYMENTS, deleted)

    def done() -> tuple[list[str], list[str], list[str]]:
        """What was marked for removal, what was released, and which deployments were let go."""
        marked, released = (api.called(verb, kinds.TEMPLATE_PLACEMENTS) for verb in ("apply", "delete"))
        freed = api.called("patch", kinds.TEMPLATE_DEPLOYMENTS)
        return [call.name for call in marked], [call.name for call in released], [call.name for call in freed]

    api.on_call = meanwhile
    await reconcile.reconcile(scene.context, KEY.name)
    assert done() == ([on_1], [], ["gone"])
    world.deployments.forget("default/gone", 10**6)
    await reconcile.reconcile(scene.context, KEY.name)
    assert done() == ([on_1], [on_2], ["gone", "kept"])


async def test_no_copy_is_made_for_a_deployment_that_has_vanished() -> None:
    """Its copies would be removed at once, with files that lay there before: nobody knew of its Retain any more."""
    scene = Scene()
    scene.put(kinds.TEMPLATE_DEPLOYMENTS, build.deployment())
    scene.api.remove(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", "default")
    await reconcile.reconcile(scene.context, KEY.name)
    assert (scene.made(), len(scene.world.deployments)) == ([], 0)


@pytest.mark.parametrize("away", [True, False], ids=["away", "each other answer is lost"])
async def test_lost_answers_slow_nothing_down_and_an_api_server_that_is_away_is_left_alone(away: bool) -> None:
    scene = Scene()
    asked = itertools.count()

    def lose(call: Call) -> None:
        if call.verb == "create" and call.resource is kinds.TEMPLATE_PLACEMENTS and (next(asked) % 2 or away):
            raise errors.Unreachable(0, "ConnectionFailed", "no answer")

    scene.api.on_call = lose
    if away:
        with pytest.raises(errors.Unreachable):
            await reconcile.reconcile(scene.context, KEY.name)
        # The requests of one moment were on their way already.
        assert len(scene.api.called("create", kinds.TEMPLATE_PLACEMENTS)) <= 3 + 16
        return
    made = []
    for _ in range(10):
        # None fails: the queue adds no pause, and the next look follows.
        await reconcile.reconcile(scene.context, KEY.name)
        made.append(len(scene.made()))
    assert made == sorted(set(made)), "each look makes some"


class Told:
    """A recorder that only keeps the reasons of Events about deployments."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def tell(self, resource: kinds.Resource, _item: object, _type: str, reason: Reason, *_: str) -> None:
        if resource is kinds.TEMPLATE_DEPLOYMENTS:
            self.reasons.append(reason)


@pytest.mark.parametrize("denied", [False, True], ids=["permitted", "denied since"])
async def test_what_copies_wait_for_is_written_no_more_often_than_counts_and_is_no_event(denied: bool) -> None:
    """In a rollout to thousands of hosts it changes with each attempt of each copy, also of those that it still has."""
    recorder = Told()
    scene = scenes.Scene(recorder=recorder)
    team: Document = {"templateNamespaces": {"matchLabels": {"team": "b"}}}
    scene.put(kinds.ZONES, build.zone(spec=team if denied else {}))
    scene.put(kinds.STORAGE_POOLS, build.pool())
    scene.put(kinds.TEMPLATES, build.template(**FINALIZERS))
    scene.put(kinds.TEMPLATE_DEPLOYMENTS, build.deployment(**FINALIZERS))
    scene.world.hosts.observe(build.host("kvm-1"))

    def written() -> int:
        return len(scene.api.called("apply", kinds.TEMPLATE_DEPLOYMENTS))

    async def look(phase: str, reason: Reason) -> Document:
        scene.put(kinds.TEMPLATE_PLACEMENTS, build.placement_document(host="kvm-1", phase=phase, reason=reason))
        await reconcile.reconcile(scene.context, KEY.name)
        (found,) = scene.api.objects(kinds.TEMPLATE_DEPLOYMENTS)
        status: Document = found["status"]
        return status

    first = await look("Pending", Reason.WAITING_FOR_SLOT)
    assert [(entry["reason"], entry["count"]) for entry in first["waiting"]] == [("WaitingForSlot", 1)]
    before, told = written(), list(recorder.reasons)
    for reason in (Reason.HOST_DOWN, Reason.SOURCE_UNREACHABLE, Reason.MAINTENANCE) * 3:
        assert await look("Pending", reason) == first
        assert await look("Downloading", Reason.DOWNLOADING) == first
    assert written() == before
    (uid,) = {deployment.uid for deployment in scene.world.deployments}
    scene.world.summaries[uid] -= watches.SUMMARY_SECONDS
    later = await look("Pending", Reason.HOST_DOWN)
    assert later["waiting"][0]["reason"] == "HostDown"
    assert (written(), recorder.reasons) == (before + 1, told)
    done = await look("Ready", Reason.DOWNLOADED)
    assert "waiting" not in done
    news = [] if denied else [Reason.CONVERGED]
    assert (written(), recorder.reasons) == (before + 2, [*told, *news]), "its end is told at once"
