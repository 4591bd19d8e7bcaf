"""Volumes in the controller: the looks that a change asks for, and the way of a demand to its end."""

import dataclasses
from typing import Any

import pytest
from tests.unit.controller import scenes
from tests.unit.controller.test_watches import Notes
from tests.unit.planning import build
from tests.unit.planning.build import NOW, TEMPLATE_UID, Document, seconds

from directdownload.cluster import kinds
from directdownload.controller.demand_watches import DemandWatches
from directdownload.controller.reconcile import hosts, templates
from directdownload.controller.watches import COUNT_SECONDS, SUM_SECONDS_PER_OBJECT
from directdownload.controller.world import World
from directdownload.planning.observed import Namespace
from directdownload.resources.host import ServedState
from directdownload.resources.reasons import Reason

ON_DEMAND: Document = {"onDemand": {"enabled": True, "namespaces": {}}}
DEMAND: Document = {"namespace": "default", "template": "debian-13", "since": build.stamp(NOW), "volumes": 1}
OTHER = {**DEMAND, "template": "other", "uid": "uid-of-other"}


def host(*demands: Document, version: int = 1, name: str = "kvm-1", state: str = "Up", **status: Any) -> Any:
    return build.host(
        name,
        state,
        storage=[build.facts()],
        status={"demands": list(demands), **status},
        resourceVersion=str(version),
    )


@dataclasses.dataclass
class Watched:
    world: World
    queue: Notes


@pytest.fixture
def watched() -> Watched:
    """A host with a volume, one without; a copy for it, and one in a shared pool of another template."""
    found = Watched(World((build.ROOT,)), Notes())
    DemandWatches(found.world, found.queue)
    world = found.world
    world.namespaces.observe(Namespace("default", "uid", 1, {}))
    world.zones.observe(build.zone(spec=ON_DEMAND))
    world.pools.observe(build.pool())
    world.pools.observe(build.pool("nfs", spec={**build.SHARED, "path": f"{build.ROOT}/nfs"}))
    world.templates.observe(build.template())
    world.hosts.observe(host(DEMAND))
    world.hosts.observe(host(name="kvm-2"))
    world.placements.observe(COPY)
    world.placements.observe(SHARED)
    found.queue.take()
    return found


COPY = build.placement(phase="Pending")
SHARED = build.placement(phase="Ready", pool="nfs", shared=True, host="kvm-2")
H, T = "host kvm-1", "template default/debian-13"
SOON = {H: COUNT_SECONDS}
BOTH = (f"placement {COPY.key}", f"placement {SHARED.key}")
#: As one host demands it.
ONE = SUM_SECONDS_PER_OBJECT


@pytest.mark.parametrize(
    ("kind", "item", "at_once", "later"),
    [
        ("hosts", host(DEMAND, version=2), set(), {}),
        ("hosts", host(DEMAND, version=2, served=[{**DEMAND, "state": "Waiting"}]), set(), {}),
        ("hosts", host(DEMAND, version=2, state="Down"), {H, *BOTH}, {T: ONE}),
        ("hosts", host({**DEMAND, "volumes": 0}, version=2), {H, *BOTH}, {T: ONE}),
        ("hosts", host(OTHER, version=2), {H, T, *BOTH}, {"template default/other": ONE}),
        ("hosts", host(name="kvm-2", version=2, state="Down"), set(), {}),
        ("placements", build.placement(phase="Ready", resourceVersion="2"), {H}, {}),
        ("placements", build.placement(phase="Pending", resourceVersion="2"), set(), {}),
        (
            "placements",
            build.placement(phase="Failed", pool="nfs", shared=True, host="kvm-2", resourceVersion="2"),
            {H},
            {},
        ),
        ("placements", build.placement(host="kvm-2", phase="Ready"), set(), {}),
        ("templates", build.template(resourceVersion="2"), set(), {}),
        ("templates", build.template(resourceVersion="2", ready=False), set(), SOON),
        ("templates", build.template(resourceVersion="2", generation=2), set(), SOON),
        ("templates", build.template("another", uid="uid-2"), set(), {}),
        ("zones", build.zone(spec=ON_DEMAND, resourceVersion="2", generation=2), {T}, SOON),
        ("zones", build.zone(spec=ON_DEMAND, resourceVersion="2"), set(), {}),
        ("pools", build.pool("new"), {T}, SOON),
        ("pools", build.pool("new", zone="zone-2"), set(), {}),
        ("namespaces", Namespace("default", "uid", 2, {"vms": "yes"}), {T}, SOON),
        ("namespaces", Namespace("default", "uid", 2, {}), set(), {}),
        ("namespaces", Namespace("team-a", "uid-2", 2, {}), set(), {}),
    ],
)
def test_looks_that_a_change_asks_for(
    watched: Watched, kind: str, item: Any, at_once: set[str], later: dict[str, float]
) -> None:
    getattr(watched.world, kind).observe(item)
    assert watched.queue.take() == (at_once, later)


def test_a_host_that_goes_takes_its_demands_along(watched: Watched) -> None:
    watched.world.hosts.forget("kvm-1", 10)
    assert {H, T} <= watched.queue.take()[0]
    assert watched.world.hosts_of_demand.count("default/debian-13") == 0


class Scene(scenes.Scene):
    """One host, whose agent says what `ask` gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.world.namespaces.observe(Namespace("default", "uid", 1, {}))
        self.put(kinds.ZONES, build.zone(spec=ON_DEMAND))
        self.put(kinds.STORAGE_POOLS, build.pool())
        self.put(kinds.TEMPLATES, build.template())
        self.ask()

    def ask(self, *demands: Document) -> None:
        before = self.world.hosts.get("kvm-1")
        answers = [each.model_dump(mode="json", by_alias=True) for each in before.status.served] if before else []
        status = {"demands": list(demands), "served": answers}
        self.put(kinds.HOSTS, build.host_document(storage=[build.facts()], status=status))

    async def look(self) -> list[tuple[ServedState, Reason | None]]:
        """The answers once everything has been looked at."""
        await templates.reconcile(self.context, "default/debian-13")
        await hosts.reconcile(self.context, "kvm-1")
        found = self.world.hosts.get("kvm-1")
        return [(each.state, each.reason) for each in found.status.served] if found is not None else []

    def publish(self) -> None:
        (present,) = self.api.objects(kinds.TEMPLATE_PLACEMENTS)
        ready = build.placement_document(phase="Ready", status=build.file_status())["status"]
        self.put(kinds.TEMPLATE_PLACEMENTS, {**present, "status": ready})

    @property
    def phases(self) -> list[str | None]:
        return [each.phase for each in self.world.placements]


async def test_the_way_of_a_demand() -> None:
    scene = Scene()
    assert await scene.look() == []
    scene.ask(DEMAND)
    assert await scene.look() == [(ServedState.WAITING, Reason.PREPARING)]
    assert [p.namespace for p in scene.world.placements] == ["default"]
    scene.publish()
    assert await scene.look() == [(ServedState.READY, None)]
    mounted = {**DEMAND, "uid": TEMPLATE_UID}
    scene.ask(mounted)
    assert await scene.look() == [(ServedState.READY, None)]
    idle = {**mounted, "volumes": 0, "lastUsedTime": build.stamp(scene.context.now() - seconds(10))}
    scene.ask(idle)
    assert await scene.look() == [(ServedState.READY, None)]
    assert scene.phases == ["Ready"]
    scene.ask({**idle, "lastUsedTime": build.stamp(NOW)})
    assert await scene.look() == [(ServedState.RELEASED, None)]
    assert scene.phases == ["Removing"]
    scene.ask()
    assert await scene.look() == []


async def test_a_pod_that_comes_while_the_file_goes_gets_it_again() -> None:
    scene = Scene()
    scene.ask(DEMAND)
    await scene.look()
    scene.publish()
    idle = {**DEMAND, "uid": TEMPLATE_UID, "volumes": 0, "lastUsedTime": build.stamp(NOW)}
    scene.ask(idle)
    await scene.look()
    assert scene.phases == ["Removing"]
    scene.ask(idle, DEMAND)
    assert await scene.look() == [(ServedState.WAITING, Reason.DOWNLOADING)] * 2
    assert scene.phases == ["Pending"]


async def test_a_demand_that_nobody_reports_any_more_loses_no_file() -> None:
    """The ledger was wiped: the placement goes, the file stays."""
    scene = Scene()
    scene.ask(DEMAND)
    await scene.look()
    scene.publish()
    scene.ask()
    await scene.look()
    (present,) = scene.api.objects(kinds.TEMPLATE_PLACEMENTS)
    assert present["metadata"]["deletionTimestamp"]
    assert present["status"]["phase"] == "Ready"


@pytest.mark.parametrize(("named", "state"), [("kvm-2", ServedState.READY), ("kvm-1", ServedState.RELEASED)])
async def test_a_deployment_on_other_hosts_does_not_keep_the_copy(named: str, state: ServedState) -> None:
    """Were the demand released for it before the removal is marked, the reason of the removal would be lost."""
    scene = Scene()
    scene.ask(DEMAND)
    await scene.look()
    scene.publish()
    scene.put(kinds.TEMPLATE_DEPLOYMENTS, build.deployment(spec={"hosts": [named]}))
    scene.ask({**DEMAND, "uid": TEMPLATE_UID, "volumes": 0, "lastUsedTime": build.stamp(NOW)})
    await hosts.reconcile(scene.context, "kvm-1")
    found = scene.world.hosts.get("kvm-1")
    assert found is not None
    assert [each.state for each in found.status.served] == [state]


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"onDemand": {**ON_DEMAND["onDemand"], "pool": "fast"}}, Reason.NO_MATCHING_POOLS, "spec.onDemand.pool"),
        ({**ON_DEMAND, "placementsPerNamespace": 1}, Reason.TOO_MANY_PLACEMENTS, "placementsPerNamespace"),
    ],
)
async def test_what_keeps_a_copy_from_being_made(spec: Document, reason: Reason, words: str) -> None:
    scene = Scene()
    scene.put(kinds.ZONES, build.zone(spec=spec, generation=2))
    scene.world.placements.observe(build.placement(host="kvm-9", uid="uid-9"))
    scene.ask(DEMAND)
    assert await scene.look() == [(ServedState.WAITING, reason)]
    found = scene.world.hosts.get("kvm-1")
    assert found is not None
    assert words in (found.status.served[0].message or "")


async def test_a_template_that_cannot_be_read_is_not_refused_for_good() -> None:
    scene = Scene()
    broken = build.template(resourceVersion="999999").model_dump(mode="json", by_alias=True)
    scene.world.templates.take(kinds.TEMPLATES, _unreadable, broken)
    scene.ask(DEMAND)
    assert await scene.look() == [(ServedState.WAITING, Reason.UNREADABLE)]


def _unreadable(_: Any) -> Any:
    raise ValueError("of a newer version")


async def test_a_status_without_volumes_is_as_before() -> None:
    scene = Scene()
    await scene.look()
    (written,) = scene.api.called("apply", kinds.HOSTS)[-1:]
    assert "served" not in written.body["status"]
