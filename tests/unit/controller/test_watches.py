"""What triggers what: each change, the keys that it adds, and what becomes of the slots."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.controller import build as kube
from tests.unit.planning import build
from tests.unit.planning.build import facts

from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.watches import (
    COUNT_SECONDS,
    PROOF_SECONDS,
    PROOF_SECONDS_PER_HOST,
    SUM_SECONDS_PER_OBJECT,
    SUMMARY_SECONDS,
    Watches,
    call_next_probe,
)
from directdownload.controller.world import HOST_ANNOTATION, World
from directdownload.planning import slots
from directdownload.planning.observed import Namespace, Revision
from directdownload.planning.slots import Group
from directdownload.resources import naming
from directdownload.resources.reasons import Reason

PENDING = build.placement(phase="Pending")
READY = build.placement(host="kvm-2", phase="Ready")
HOST = build.host(storage=[facts()])
REFERENCE = {"certificateRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}}
CERTIFICATE, OTHER_CERTIFICATE = (
    build.certificate(),
    build.certificate("other-ca", spec={"alias": "other", **REFERENCE}),
)
ZONE, POOL, TEMPLATE = build.zone(), build.pool(), build.template()
DEPLOYMENT = build.deployment()


class Notes(WorkQueue):
    """A queue that nobody works on: what was added, at once or for later."""

    def __init__(self) -> None:
        async def nothing(_: Key) -> None:
            await asyncio.sleep(0)

        super().__init__(nothing)
        self.at_once: set[str] = set()
        self.later: dict[str, float] = {}

    def add(self, key: Key) -> None:
        self.at_once.add(f"{key.kind} {key.name}")

    def add_later(self, key: Key, seconds: float) -> None:
        name = f"{key.kind} {key.name}"
        self.later[name] = min(seconds, self.later.get(name, seconds))

    def take(self) -> tuple[set[str], dict[str, float]]:
        found = self.at_once | {name for name, pause in self.later.items() if pause == 0}
        later = {name: pause for name, pause in self.later.items() if name not in found}
        self.at_once, self.later = set(), {}
        return found, later


@dataclasses.dataclass
class Scene:
    world: World
    queue: Notes


@pytest.fixture
def scene() -> Scene:
    """One zone with a host, a pool, a template, a deployment, a placement that waits and one that is Ready."""
    found = Scene(World((build.ROOT,)), Notes())
    Watches(found.world, found.queue)
    world = found.world
    world.namespaces.observe(Namespace("default", "uid", 1, {"team": "a"}))
    world.nodes.observe(dataclasses.replace(kube.node(), resource_version=1))
    world.zones.observe(ZONE)
    world.zones.observe(build.zone("zone-2"))
    world.hosts.observe(HOST)
    world.pools.observe(POOL)
    world.templates.observe(TEMPLATE)
    world.deployments.observe(DEPLOYMENT)
    world.placements.observe(PENDING)
    world.placements.observe(READY)
    world.certificates.observe(CERTIFICATE)
    world.certificates.observe(OTHER_CERTIFICATE)
    found.queue.take()
    # Its certificates have been looked at since.
    world.gathering.clear()
    return found


C, E = "certificate my-ca", "certificate other-ca"
#: how long what the zone's one host says is gathered
PROOF = PROOF_SECONDS + PROOF_SECONDS_PER_HOST
SUM = COUNT_SECONDS + SUM_SECONDS_PER_OBJECT
#: how long changes of so many copies are gathered
COPIES = {count: COUNT_SECONDS + SUM_SECONDS_PER_OBJECT * count for count in (1, 2, 3)}
#: of the template's probes
S = f"probe {naming.probe_name(TEMPLATE.name, TEMPLATE.uid)}"
P, R, T, D = (
    f"placement {PENDING.key}",
    f"placement {READY.key}",
    "template default/debian-13",
    "template default/debian-13",
)
OBJECTS: dict[str, Callable[..., Any]] = {
    "zones": build.zone,
    "hosts": build.host,
    "pools": build.pool,
    "templates": build.template,
    "deployments": build.deployment,
    "placements": build.placement,
    "certificates": build.certificate,
}
ZONES_SOON = {"zone zone-1": COUNT_SECONDS, "zone zone-2": COUNT_SECONDS}


def changed(kind: str, **fields: Any) -> tuple[str, Any]:
    return kind, OBJECTS[kind](resourceVersion="2", **fields)


def proving(*names: str) -> dict[str, Any]:
    return {"certificates": [{"name": name, "fingerprintSHA256": "AA", "state": "Uploaded"} for name in names]}


WRONG = Reason.KEYSTORE_PASSWORD_WRONG
DRIFT = {"kind": "EntryMissing", "alias": "my-ca", "time": build.stamp(build.NOW)}
SAME: dict[str, Any] = {"storage": [facts()]}
ABOUT_ZONE = {"host kvm-1", "zone zone-1", "zone zone-2", "pool local", T, P, R, C, E}

CHANGES: dict[str, tuple[tuple[str, Any], set[str], dict[str, float]]] = {
    "our own status of a zone": (changed("zones", status={"hosts": {"total": 1}}), set(), {}),
    "a zone's spec": (changed("zones", generation=2), ABOUT_ZONE, {S: COUNT_SECONDS}),
    "a zone asked for": (changed("zones", requested_at="now"), ABOUT_ZONE, {S: COUNT_SECONDS}),
    "another zone's spec": (
        ("zones", build.zone("zone-2", resourceVersion="2", generation=2)),
        {"host kvm-1", "zone zone-1", "zone zone-2"},
        {S: COUNT_SECONDS},
    ),
    "host: heartbeat of its agent": (
        changed("hosts", storage=[facts(availableBytes=1)]),
        set(),
        {"pool local": SUM},
    ),
    "host: down": (
        changed("hosts", state="Down", **SAME),
        {P},
        {"pool local": SUM, "zone zone-1": COUNT_SECONDS, T: COUNT_SECONDS, C: PROOF, E: PROOF},
    ),
    "host: pool not writable": (
        changed("hosts", storage=[facts(writable=False)]),
        {P},
        {"pool local": SUM, "zone zone-1": COUNT_SECONDS, T: COUNT_SECONDS},
    ),
    "host: spec": (changed("hosts", generation=2, **SAME), {"host kvm-1"}, {"pool local": SUM}),
    "host: architecture": (
        changed("hosts", status={"architecture": "aarch64"}, **SAME),
        set(),
        {"pool local": SUM, T: COUNT_SECONDS},
    ),
    "host: labels": (
        changed("hosts", labels={"rack": "1"}, **SAME),
        {"host kvm-1", P},
        {"pool local": SUM, "zone zone-1": COUNT_SECONDS, T: COUNT_SECONDS},
    ),
    "host: moved to another zone": (
        changed("hosts", zone="zone-2", generation=2, **SAME),
        {"host kvm-1", P},
        # The pools of the zone that it has left count one host less.
        {**ZONES_SOON, "pool local": COUNT_SECONDS, T: COUNT_SECONDS, C: PROOF_SECONDS, E: PROOF_SECONDS},
    ),
    "host: a proof": (
        changed("hosts", status=proving("my-ca", "unknown"), **SAME),
        set(),
        {"pool local": SUM, C: PROOF},
    ),
    "host: its keystore fails": (
        changed("hosts", status={"conditions": [build.condition("KeystoreSynced", "False", WRONG)]}, **SAME),
        set(),
        {"pool local": SUM, C: PROOF, E: PROOF},
    ),
    "host: its keystore was repaired": (
        changed("hosts", status={"keystore": {"lastDrift": DRIFT}}, **SAME),
        {"host kvm-1"},
        {"pool local": SUM, C: PROOF, E: PROOF},
    ),
    "certificate: our own status": (changed("certificates", status={"subject": "CN=a"}), set(), {}),
    "certificate: spec": (changed("certificates", generation=2), {C}, {}),
    "certificate: asked for": (changed("certificates", requested_at="now"), {C}, {}),
    "certificate: being deleted": (changed("certificates", deleting=True), {C}, {}),
    "certificate: another of its alias": (
        ("certificates", build.certificate("third", spec={"alias": "my-ca"})),
        {C, "certificate third"},
        {},
    ),
    "certificate: leaves its alias": (
        ("certificates", build.certificate(resourceVersion="2", generation=2, spec={"zone": "zone-2"})),
        {C},
        {},
    ),
    "Secret: one that is referred to": (("secret_revisions", Revision("ns/ca", "ca", "uid", 2)), {E}, {}),
    "Secret: another": (("secret_revisions", Revision("ns/other", "other", "uid", 2)), set(), {}),
    "ConfigMap: of a Secret's name": (("config_map_revisions", Revision("ns/ca", "ca", "uid", 2)), set(), {}),
    "pool: our own status": (changed("pools", status={"capacityBytes": 1}), set(), {}),
    "pool: spec": (changed("pools", generation=2), {"pool local", T, P, R}, {}),
    "template: our own status": (changed("templates", status={"sizeBytes": 1}), set(), {}),
    "template: spec": (changed("templates", generation=2), {T, P, R, S}, {}),
    "template: being deleted": (changed("templates", deleting=True), {T, P, R, S}, {}),
    "template: asked for": (changed("templates", requested_at="now"), {T, P, R, S}, {}),
    "deployment: our own status": (changed("deployments", status={"bytes": {"total": 1}}), set(), {}),
    "deployment: spec": (changed("deployments", generation=2), {D, P, R}, {}),
    "deployment: asked for": (changed("deployments", requested_at="now"), {D, P, R}, {}),
    "deployment: being deleted": (changed("deployments", deleting=True), {D, P, R}, {}),
    "deployment: a second one": (("deployments", build.deployment("second", resourceVersion="2")), {D, P, R}, {}),
    "placement: our own phase": (changed("placements", phase="Downloading"), set(), {T: COPIES[2]}),
    "placement: progress": (
        changed("placements", phase="Pending", status={"progress": {"bytesDownloaded": 9}}),
        set(),
        {T: SUMMARY_SECONDS},
    ),
    "placement: its file is lost": (
        changed("placements", phase="Pending", status={"observed": {"present": False, "revision": "r1"}}),
        {P},
        {},
    ),
    "placement: nothing": (changed("placements", phase="Pending"), set(), {}),
    "placement: asked for": (changed("placements", phase="Pending", requested_at="now"), {P}, {}),
    "placement: spec": (changed("placements", phase="Pending", generation=2), {P}, {}),
    "placement: being deleted": (changed("placements", phase="Pending", deleting=True), {P}, {}),
    "placement: to be removed": (changed("placements", phase="Removing"), {P}, {T: COPIES[2]}),
    "placement: another of its name": (changed("placements", phase="Pending", uid="new"), {P}, {}),
    "placement: a new one": (
        ("placements", build.placement(host="kvm-7")),
        {f"placement {build.placement(host='kvm-7').key}"},
        {T: COPIES[3]},
    ),
    "node: nothing": (("nodes", kube.node()), set(), {}),
    "node: heartbeat": (("nodes", kube.node(beat=True)), set(), {}),
    "node: not ready": (("nodes", kube.node(ready=False)), {"host kvm-1"}, ZONES_SOON),
    "node: cordoned": (("nodes", kube.node(unschedulable=True)), {"host kvm-1"}, ZONES_SOON),
    "node: labels": (("nodes", kube.node(labels={"rack": "1"})), {"host kvm-1"}, ZONES_SOON),
    "node: joins": (("nodes", kube.node("kvm-7")), {"host kvm-7"}, ZONES_SOON),
    "namespace: nothing": (("namespaces", Namespace("default", "uid", 2, {"team": "a"})), set(), {}),
    "namespace: labels": (("namespaces", Namespace("default", "uid", 2, {})), {D}, {}),
    "namespace: another": (("namespaces", Namespace("other", "uid", 2, {})), set(), {}),
    "pod: an agent": (("pods", kube.agent("kvm-1", ready=False)), {"host kvm-1"}, {}),
    "pod: an agent without a node": (("pods", kube.agent("", ready=None)), set(), {}),
    "pod: of a job": (("pods", kube.pod(kube.job(PENDING))), {P}, {}),
    "job": (("jobs", kube.job(PENDING)), {P}, {}),
    "pod: of a probe": (("pods", kube.pod(kube.probe(TEMPLATE))), {S}, {}),
    "probe": (("jobs", kube.probe(TEMPLATE)), {S}, {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_change_asks_for(scene: Scene, name: str) -> None:
    (store, item), at_once, later = CHANGES[name]
    assert getattr(scene.world, store).observe(item)
    assert scene.queue.take() == (at_once, later)


DELETIONS = {
    "zones": ("zone-1", {"host kvm-1", "zone zone-2", "pool local", T, P, R, C, E}, {S: COUNT_SECONDS}),
    "hosts": (
        "kvm-1",
        {"host kvm-1", P},
        {
            "zone zone-1": COUNT_SECONDS,
            "pool local": COUNT_SECONDS,
            T: COUNT_SECONDS,
            C: PROOF_SECONDS,
            E: PROOF_SECONDS,
        },
    ),
    "certificates": ("my-ca", {C}, {}),
    "pools": ("local", {"pool local", T, P, R}, {}),
    "templates": ("default/debian-13", {T, P, R, S}, {}),
    "deployments": ("default/everywhere", {D, P, R}, {}),
    "placements": (PENDING.key, {P}, {T: COPIES[1]}),
    "nodes": ("kvm-1", {"host kvm-1"}, ZONES_SOON),
    "namespaces": ("default", {D}, {}),
}


@pytest.mark.parametrize("store", DELETIONS)
def test_what_a_deletion_asks_for(scene: Scene, store: str) -> None:
    key, at_once, later = DELETIONS[store]
    assert getattr(scene.world, store).forget(key, 10**9)
    assert scene.queue.take() == (at_once, later)


def test_only_the_certificates_whose_proof_changed_are_looked_at(scene: Scene) -> None:
    world = scene.world
    world.hosts.observe(build.host(status=proving("my-ca", "other-ca"), resourceVersion="2", **SAME))
    scene.queue.take()
    world.hosts.observe(build.host(status=proving("my-ca", "other-ca"), resourceVersion="3", **SAME))
    assert scene.queue.take()[1].keys() == {"pool local"}
    world.hosts.observe(build.host(status=proving("other-ca"), resourceVersion="4", **SAME))
    assert scene.queue.take()[1].keys() == {"pool local", C}


def test_a_fleet_that_comes_asks_once_for_each_certificate(scene: Scene) -> None:
    world = scene.world
    world.hosts.observe(build.host("kvm-2", storage=[facts()]))
    assert {C, E} <= scene.queue.take()[1].keys()
    world.hosts.observe(build.host("kvm-3", storage=[facts()]))
    assert not {C, E} & scene.queue.take()[1].keys()
    # `reconcile/certificates.py` says so as soon as it looks at one of them.
    world.gathering.discard("zone-1")
    world.hosts.observe(build.host("kvm-4", storage=[facts()]))
    assert {C, E} <= scene.queue.take()[1].keys()


def test_an_alias_that_is_free_again_is_offered_to_the_next(scene: Scene) -> None:
    world = scene.world
    world.certificates.observe(build.certificate("third", spec={"alias": "MY-ca"}))
    scene.queue.take()
    world.certificates.observe(build.certificate(resourceVersion="2", generation=2, spec={"zone": "zone-2"}))
    assert scene.queue.take()[0] == {C, "certificate third"}
    world.certificates.observe(build.certificate("fourth", spec={"alias": "my-ca"}))
    scene.queue.take()
    world.certificates.forget("third", 9)
    assert scene.queue.take()[0] == {"certificate third", "certificate fourth"}


def test_a_template_that_waits_for_its_zone_hears_of_it(scene: Scene) -> None:
    scene.world.templates.observe(build.template("limited", spec={"zones": ["zone-9"]}))
    scene.queue.take()
    scene.world.zones.observe(build.zone("zone-9"))
    assert "template default/limited" in scene.queue.take()[0]


def test_a_deployment_hears_of_a_host_that_it_names_whichever_zone_that_is_in(scene: Scene) -> None:
    """Its status says of a name that it is one of another zone."""
    named: dict[str, Any] = {"hosts": ["kvm-9"], "templateRef": {"name": "named"}}
    scene.world.deployments.observe(build.deployment("named", spec=named))
    scene.queue.take()
    for version, zone in enumerate(("zone-2", "zone-3"), start=2):
        scene.world.hosts.observe(build.host("kvm-9", zone=zone, resourceVersion=str(version)))
        assert "template default/named" in scene.queue.take()[1]
    scene.world.hosts.observe(build.host("kvm-9", "Down", zone="zone-3", resourceVersion="9"))
    assert "template default/named" not in scene.queue.take()[1], "that is no news to it"
    scene.world.hosts.forget("kvm-9", 10)
    assert "template default/named" in scene.queue.take()[1]


# --- slots


def test_a_job_holds_its_slots_until_it_ends(scene: Scene) -> None:
    world = scene.world
    for end in ("Complete", "Failed", "deleting", "gone"):
        job = kube.job(PENDING)
        world.jobs.observe(job)
        world.jobs.observe(kube.job(PENDING))
        assert (world.slots.used("zone/zone-1"), world.slots.used("host/kvm-1")) == (1, 1)
        if end == "gone":
            world.jobs.forget(job.key, 10**9)
        else:
            world.jobs.observe(kube.job(PENDING, ended=end if end != "deleting" else "", deleting=end == "deleting"))
        assert (world.slots.used("zone/zone-1"), world.slots.used("host/kvm-1")) == (0, 0)


@pytest.mark.parametrize("reason", [Reason.TLS_VERIFICATION_FAILED, Reason.SOURCE_UNREACHABLE])
def test_a_copy_whose_source_was_not_trusted_hears_of_another_keystore(scene: Scene, reason: Reason) -> None:
    refused = build.placement(phase="Pending", reason=reason, resourceVersion="2")
    scene.world.placements.observe(refused)
    scene.queue.take()
    status = {"keystore": {"sha256": "a" * 64}}
    scene.world.hosts.observe(build.host(storage=[facts()], status=status, resourceVersion="5"))
    at_once, _ = scene.queue.take()
    assert (f"placement {refused.key}" in at_once) == (reason is Reason.TLS_VERIFICATION_FAILED)


def test_a_job_on_a_down_host_frees_its_slots_at_once_and_takes_them_back(scene: Scene) -> None:
    world = scene.world
    world.jobs.observe(kube.job(PENDING))
    for version, (state, used) in enumerate([("Down", 0), ("Up", 1), ("Down", 0), ("Maintenance", 1)], start=2):
        world.hosts.observe(build.host(state=state, storage=[facts()], resourceVersion=str(version)))
        assert world.slots.used("zone/zone-1") == used
    world.hosts.observe(build.host(state="Down", resourceVersion="9"))
    world.jobs.observe(kube.job(PENDING, attempt=2))
    assert world.slots.used("zone/zone-1") == 0


@pytest.mark.parametrize("order", ["hpj", "hjp", "phj", "pjh", "jhp", "jph"])
@pytest.mark.parametrize(("state", "used"), [("Down", 0), ("Up", 1)])
def test_after_a_restart_slots_are_the_same_in_whatever_order_things_are_seen(
    order: str, state: str, used: int
) -> None:
    world = World((build.ROOT,))
    Watches(world, Notes())
    for letter in order:
        if letter == "h":
            world.hosts.observe(build.host(state=state))
        elif letter == "p":
            world.placements.observe(PENDING)
        else:
            world.jobs.observe(kube.job(PENDING))
    assert world.slots.used("zone/zone-1") == used


ROOM, FULL = Group("zone/zone-1", 1), Group("host/other", 1)


@pytest.mark.parametrize("how", ["Complete", "deleting", "gone", "host down"])
def test_who_waits_is_called_when_a_slot_is_free(scene: Scene, how: str) -> None:
    world = scene.world
    job = kube.job(PENDING)
    world.jobs.observe(job)
    world.slots.occupy("another", ["host/other"])
    for name, groups in (("a", (ROOM, FULL)), ("b", (ROOM,)), ("c", (ROOM,))):
        world.line.join(name, groups, 0)
    scene.queue.take()
    if how == "gone":
        world.jobs.forget(job.key, 10**9)
    elif how == "host down":
        world.hosts.observe(build.host(state="Down", resourceVersion="2"))
    else:
        world.jobs.observe(kube.job(PENDING, ended="Complete" if how == "Complete" else "", deleting=how == "deleting"))
    assert "placement b" in scene.queue.take()[0]
    assert (len(world.line), world.line.answer("b")) == (2, True)


def test_a_job_that_frees_nothing_calls_nobody(scene: Scene) -> None:
    scene.world.line.join("first", (ROOM,), 0)
    scene.world.jobs.observe(kube.job(PENDING, ended="Complete"))
    assert len(scene.world.line) == 1


# --- probes


def test_a_probe_that_waits_for_a_host_hears_of_hosts_zones_and_namespaces(scene: Scene) -> None:
    scene.world.probes_without_host.add("waits")
    changes: tuple[tuple[str, Any], ...] = (
        ("hosts", build.host("kvm-7")),
        ("hosts", build.host(state="Down", resourceVersion="2")),
        ("zones", build.zone("zone-9")),
        ("namespaces", Namespace("default", "uid", 9, {"team": "b"})),
    )
    for store, item in changes:
        assert getattr(scene.world, store).observe(item)
        assert scene.queue.take()[1].get("probe waits") == COUNT_SECONDS, item
    scene.world.hosts.observe(build.host(state="Down", storage=[facts(availableBytes=1)], resourceVersion="3"))
    scene.queue.take()
    scene.world.hosts.observe(build.host(state="Down", storage=[facts(availableBytes=2)], resourceVersion="4"))
    assert "probe waits" not in scene.queue.take()[1], "free space changes often and matters to no probe"


def test_a_probe_on_a_host_that_goes_down_is_looked_at_and_its_slot_is_free(scene: Scene) -> None:
    scene.world.jobs.observe(kube.probe(TEMPLATE))
    scene.queue.take()
    scene.world.hosts.observe(build.host(state="Down", resourceVersion="2"))
    assert S in scene.queue.take()[0]


def test_a_job_that_names_a_host_and_is_no_probe_ends_nothing(scene: Scene) -> None:
    """Whoever may write Jobs in the operator's namespace writes their annotations."""
    copy = next(iter(scene.world.placements))
    scene.world.jobs.observe(kube.job(copy, annotations={HOST_ANNOTATION: "kvm-1"}))
    scene.queue.take()
    scene.world.hosts.observe(build.host(state="Down", resourceVersion="2"))
    assert f"placement {copy.key}" in scene.queue.take()[0]


@pytest.mark.parametrize("how", ["Complete", "deleting", "gone"])
def test_the_next_probe_is_called_when_one_has_ended(scene: Scene, how: str) -> None:
    world = scene.world
    others = [build.template(f"t{number}", uid=f"uid-{number}") for number in range(slots.PROBES.limit)]
    for each in others:
        world.jobs.observe(kube.probe(each))
    assert world.slots.used("probes") == slots.PROBES.limit
    world.probe_line |= {"first": None, "second": None}
    scene.queue.take()
    call_next_probe(world, scene.queue)
    assert not scene.queue.take()[0], "no slot is free"
    if how == "gone":
        world.jobs.forget(kube.probe(others[0]).key, 10**9)
    else:
        world.jobs.observe(
            kube.probe(others[0], ended="Complete" if how == "Complete" else "", deleting=how == "deleting")
        )
    assert "probe first" in scene.queue.take()[0]
    assert list(world.probe_line) == ["second"]


def test_probes_take_no_slot_of_downloads(scene: Scene) -> None:
    scene.world.jobs.observe(kube.probe(TEMPLATE))
    assert scene.world.slots._used == {"probes": 1}


def test_every_host_of_a_shared_pool_may_take_over_its_copy(scene: Scene) -> None:
    world = scene.world
    world.pools.observe(build.pool("shared", spec=build.SHARED))
    copy = build.placement(pool="shared", host="kvm-2", shared=True, phase="Ready")
    world.placements.observe(copy)
    scene.queue.take()
    world.hosts.observe(build.host(state="Down", storage=[facts()], resourceVersion="2"))
    assert f"placement {copy.key}" in scene.queue.take()[0]
    world.hosts.observe(build.host(state="Down", storage=[facts(availableBytes=1)], resourceVersion="3"))
    assert f"placement {copy.key}" not in scene.queue.take()[0]


def test_a_pool_that_appears_in_another_zone_concerns_who_names_it(scene: Scene) -> None:
    """The deployment says where such a pool is."""
    scene.world.deployments.observe(build.deployment(spec={"pools": ["far"]}, resourceVersion="9"))
    scene.queue.take()
    scene.world.pools.observe(build.pool("far", zone="zone-2"))
    _, later = scene.queue.take()
    assert "template default/debian-13" in later
