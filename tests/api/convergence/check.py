"""Whether the world is exactly what the objects in the API say: the comparison at the end of a random run.

Written from the documentation of the kinds and not from the planners. `World.read` takes a picture of all objects;
`differences` says in one sentence each what is not as it should be.
"""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

from tests.api.convergence.model import FileKey
from tests.world import kstatus
from tests.world.kube import Kube, Object
from tests.world.simulation import Simulation

from directdownload.cluster import kinds
from directdownload.controller.world import PROBE_LABEL
from directdownload.planning import rights
from directdownload.resources.templatedeployment import TemplateDeployment

#: template uid, pool, host; the host is empty for a shared pool
Copy = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class World:
    zones: dict[str, Object]
    hosts: dict[str, Object]
    pools: dict[str, Object]
    nodes: dict[str, Object]
    namespaces: dict[str, Object]
    #: by namespace and name
    templates: dict[tuple[str, str], Object]
    deployments: dict[tuple[str, str], Object]
    placements: list[Object]
    jobs: list[Object]

    @classmethod
    def read(cls, kube: Kube) -> "World":
        def items(kind: kinds.Resource) -> list[Object]:
            answer = kube.request("GET", kind.path()).object()
            # A list leaves out what all its items have in common.
            return [{"kind": kind.kind, **item} for item in answer["items"]]

        def by_name(kind: kinds.Resource) -> dict[str, Object]:
            return {item["metadata"]["name"]: item for item in items(kind)}

        def by_key(kind: kinds.Resource) -> dict[tuple[str, str], Object]:
            return {(i["metadata"]["namespace"], i["metadata"]["name"]): i for i in items(kind)}

        return cls(
            zones=by_name(kinds.ZONES),
            hosts=by_name(kinds.HOSTS),
            pools=by_name(kinds.STORAGE_POOLS),
            nodes=by_name(kinds.NODES),
            namespaces=by_name(kinds.NAMESPACES),
            templates=by_key(kinds.TEMPLATES),
            deployments=by_key(kinds.TEMPLATE_DEPLOYMENTS),
            placements=items(kinds.TEMPLATE_PLACEMENTS),
            jobs=[job for job in items(kinds.JOBS) if PROBE_LABEL not in job["metadata"]["labels"]],
        )

    def versions(self) -> dict[str, str]:
        """Of everything that the controller writes, to see whether it has come to rest."""
        written: list[dict[Any, Object]] = [self.zones, self.hosts, self.pools, self.templates, self.deployments]
        found = [*(item for items in written for item in items.values()), *self.placements]
        return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in found}

    # --- wishes

    def template_of(self, deployment: Object) -> Object | None:
        reference = deployment["spec"]["templateRef"]
        namespace = reference.get("namespace") or deployment["metadata"]["namespace"]
        found = self.templates.get((namespace, reference["name"]))
        return found if found is not None and not _deleting(found) else None

    def refused(self, deployment: Object) -> bool:
        template, namespace = self.template_of(deployment), deployment["metadata"]["namespace"]
        zone = self.zones.get(deployment["spec"]["zone"])
        if template is None or zone is None:
            return True
        labels = self.namespaces[namespace]["metadata"].get("labels", {})
        allowed = template["spec"].get("allowedNamespaces")
        foreign = template["metadata"]["namespace"] != namespace
        zones = template["spec"].get("zones") or [zone["metadata"]["name"]]
        return (
            not _matches(zone["spec"].get("templateNamespaces"), labels)
            or (foreign and (allowed is None or not _matches(allowed, labels)))
            or zone["metadata"]["name"] not in zones
        )

    def granted(self, deployment: Object) -> Object | None:
        """What it was permitted of this very Template, for what it selects now."""
        template, granted = self.template_of(deployment), deployment.get("status", {}).get("granted")
        if template is None or granted is None or granted["templateUID"] != template["metadata"]["uid"]:
            return None
        same = rights.selection(TemplateDeployment.model_validate(deployment)) == granted["selection"]
        return granted if same else None

    def counted(self, deployment: Object) -> set[Copy] | None:
        """The copies that its status counts: of a refused one those that it was given, if any."""
        selected, granted = self.selected(deployment), self.granted(deployment)
        if not self.refused(deployment) or (granted and deployment["spec"]["zone"] not in self.zones):
            return selected
        if granted is None:
            return None
        until = granted["time"]
        given = {self.copy_of(each) for each in self.placements if each["metadata"]["creationTimestamp"] <= until}
        return selected & given

    def selected(self, deployment: Object) -> set[Copy]:
        """The copies that it selects on the fleet as it is, refused or not."""
        template, spec = self.template_of(deployment), deployment["spec"]
        found: set[Copy] = set()
        for pool in self.pools.values():
            if template is None or not _of_zone(pool, spec["zone"]) or not _listed(pool, spec.get("pools")):
                continue
            for host in self.hosts.values():
                labels = host["metadata"].get("labels", {})
                if (
                    _of_zone(host, spec["zone"])
                    and _matches(pool["spec"].get("hostSelector"), labels)
                    and _listed(host, spec.get("hosts"))
                    and _matches(spec.get("hostSelector"), labels)
                ):
                    where = "" if _shared(pool) else host["metadata"]["name"]
                    found.add((template["metadata"]["uid"], pool["metadata"]["name"], where))
        return found

    def served(self, deployment: Object) -> bool:
        """Whether its zone has all the hosts and pools that it names."""
        spec = deployment["spec"]
        hosts, pools = spec.get("hosts", ()), spec.get("pools", ())
        return all(name in self.hosts and _of_zone(self.hosts[name], spec["zone"]) for name in hosts) and all(
            name in self.pools and _of_zone(self.pools[name], spec["zone"]) for name in pools
        )

    def wanted(self) -> set[Copy]:
        return {
            copy
            for deployment in self.deployments.values()
            if not _deleting(deployment) and not self.refused(deployment)
            for copy in self.selected(deployment)
        }

    def kept(self, placement: Object) -> bool:
        """Whether a deployment names the copy, even if labels or permission are gone: none asks to remove it."""
        spec = placement["spec"]
        for deployment in self.deployments.values():
            template, wish = self.template_of(deployment), deployment["spec"]
            if template is None or template["metadata"]["uid"] != spec["templateRef"]["uid"] or _deleting(deployment):
                continue
            if self.refused(deployment) and self.granted(deployment) is None:
                continue
            named = not wish.get("hosts") or spec["host"] in wish["hosts"] or _shared(self.pools[spec["pool"]])
            if wish["zone"] == spec["zone"] and named and (not wish.get("pools") or spec["pool"] in wish["pools"]):
                return True
        return False

    def copy_of(self, placement: Object) -> Copy:
        spec = placement["spec"]
        where = "" if _shared(self.pools[spec["pool"]]) else spec["host"]
        return spec["templateRef"]["uid"], spec["pool"], where


@dataclasses.dataclass(frozen=True)
class Verdict:
    differences: list[str]
    #: files without a placement
    orphans: set[FileKey]
    world: World


def compare(world: World, simulation: Simulation, may_stay: set[FileKey]) -> Verdict:
    """`may_stay`: files that may lie there without a placement."""
    owned = {_file(simulation, placement) for placement in world.placements}
    present = {(disk.name, name) for disk in simulation.disks() for name in list(disk.files)}
    orphans = present - owned
    found = [
        *(f"job {job['metadata']['name']} is still there" for job in world.jobs),
        *(f"nobody asked to keep {name} on {disk}" for disk, name in sorted(orphans - may_stay)),
        *_placements(world, simulation),
        *_hosts(world),
        *_counts(world),
        *_conventions(world),
    ]
    return Verdict(found, orphans, world)


def held_up(world: World, simulation: Simulation) -> list[str]:
    """Wanted copies that are not Ready although a host could see to it."""
    ready = {world.copy_of(placement) for placement in world.placements if _phase(placement) == "Ready"}
    found = []
    for uid, pool, where in sorted(world.wanted() - ready):
        able = [
            name
            for name, host in world.hosts.items()
            if _of_zone(host, world.pools[pool]["spec"]["zone"])
            and where in ("", name)
            and host.get("status", {}).get("state") == "Up"
            and pool not in simulation.kubelets.machines[name].mounts
        ]
        if able:
            placed = [p for p in world.placements if world.copy_of(p) == (uid, pool, where)]
            present = ", ".join(f"{p['spec']['host']}: {_summary(p)}" for p in placed)
            found.append(f"{uid} in {pool} could be fetched by {', '.join(able)}: {present or 'there is no placement'}")
    return found


def _placements(world: World, simulation: Simulation) -> Iterator[str]:
    wanted = world.wanted()
    placed = collections.Counter(world.copy_of(placement) for placement in world.placements)
    for copy in sorted(wanted - placed.keys()):
        yield f"there is no placement for {copy}"
    for copy, number in placed.items():
        if number > 1:
            yield f"there are {number} placements for {copy}"
    for placement in world.placements:
        name = f"placement {placement['metadata']['name']} ({placement['spec']['host']}, {placement['spec']['pool']})"
        if world.copy_of(placement) not in wanted and not world.kept(placement):
            yield f"{name}: nobody wants it, it is {_summary(placement)}"
        for problem in _copy(world, simulation, placement):
            yield f"{name}: {problem}"


def _copy(world: World, simulation: Simulation, placement: Object) -> Iterator[str]:
    """What is wrong with one copy: all are Ready when nothing is in the way."""
    spec, status = placement["spec"], placement.get("status", {})
    host = world.hosts.get(spec["host"])
    if not any(_of_zone(each, spec["zone"]) for each in world.hosts.values()):
        # The last host that could do anything for a shared copy has left: it waits for the next one.
        return
    if host is None or host["spec"]["zone"] != spec["zone"]:
        yield f"host {spec['host']} is not of its zone"
    if _phase(placement) != "Ready":
        yield f"it is {_summary(placement)}"
        return
    disk_name, file_name = _file(simulation, placement)
    disk = simulation.disk(spec["host"], spec["pool"])
    file, record = disk.files.get(file_name), disk.records.get(file_name)
    reference = spec["templateRef"]
    template = world.templates.get((reference["namespace"], reference["name"]))
    if template is None or template["metadata"]["uid"] != reference["uid"]:
        yield "its template is gone"
        return
    if file is None or record is None:
        yield f"there is no {'file' if file is None else 'record'} on {disk_name}"
        return
    digest = simulation.origin.digest(template["spec"]["url"])
    if file.digest != digest:
        yield f"the file on {disk_name} has {file.digest}, expected {digest}"
    if (record.placement, record.placement_uid) != (placement["metadata"]["name"], placement["metadata"]["uid"]):
        yield f"the record on {disk_name} is of {record.placement} ({record.placement_uid})"
    told, seen = status["file"], status.get("observed", {})
    expected = {"digest": digest, "path": spec["path"], "revision": record.revision}
    for field, value in expected.items():
        if told.get(field) != value:
            yield f"status.file.{field} is {told.get(field)!r}, expected {value!r}"
    if (seen.get("present"), seen.get("changed"), seen.get("revision")) != (True, False, record.revision):
        yield f"status.observed is {seen}, expected the file of revision {record.revision}"


def _hosts(world: World) -> Iterator[str]:
    for name, host in world.hosts.items():
        if host.get("status", {}).get("state") != "Up":
            yield f"host {name} is {_summary(host)}"
    for zone_name, zone in world.zones.items():
        selector = zone["spec"]["nodeSelector"]
        for name, node in world.nodes.items():
            if _matches(selector, node["metadata"].get("labels", {})):
                of = world.hosts.get(name, {}).get("spec", {}).get("zone")
                if of != zone_name:
                    yield f"node {name} is selected by {zone_name}, its Host is of {of}"


def _counts(world: World) -> Iterator[str]:
    ready = {world.copy_of(placement) for placement in world.placements if _phase(placement) == "Ready"}
    for (namespace, name), deployment in world.deployments.items():
        selected, status = world.selected(deployment), deployment.get("status", {})
        counted, expected = world.counted(deployment), None
        if counted is not None:
            there = len(counted & ready)
            expected = _tally(desired=len(counted), ready=there, pending=len(counted) - there)
        if status.get("placements") != expected:
            yield f"deployment {namespace}/{name} counts {status.get('placements')}, expected {expected}"
        refused = world.refused(deployment)
        served = bool(selected) and not refused and world.served(deployment)
        if (_condition(deployment, "Ready") == "True") != served:
            yield f"deployment {namespace}/{name} is {_summary(deployment)}: {len(selected)} copies, refused {refused}"
        if status.get("failures"):
            yield f"deployment {namespace}/{name} has failures {status['failures']}"
    for (namespace, name), template in world.templates.items():
        uid = template["metadata"]["uid"]
        mine = [p for p in world.placements if p["spec"]["templateRef"]["uid"] == uid]
        there = sum(world.copy_of(p) in ready for p in mine)
        expected = _tally(total=len(mine), ready=there, pending=len(mine) - there)
        counted = template.get("status", {}).get("placements")
        if counted != expected:
            yield f"template {namespace}/{name} counts {counted}, expected {expected}"
    for name, zone in world.zones.items():
        number = sum(_of_zone(host, name) for host in world.hosts.values())
        counted = zone.get("status", {}).get("hosts")
        if counted != {"total": number, "up": number}:
            yield f"zone {name} counts {counted}, expected {number}"
    for name, pool in world.pools.items():
        number = sum(
            _of_zone(host, pool["spec"]["zone"])
            and _matches(pool["spec"].get("hostSelector"), host["metadata"].get("labels", {}))
            for host in world.hosts.values()
        )
        counted = pool.get("status", {}).get("hosts")
        if counted != {"total": number, "ready": number}:
            yield f"pool {name} counts {counted}, expected {number}"


def _conventions(world: World) -> Iterator[str]:
    """kstatus, current generations, and nothing that does not get away."""
    groups: list[Any] = [world.zones, world.hosts, world.pools, world.templates, world.deployments]
    for item in [*(item for group in groups for item in group.values()), *world.placements]:
        name = f"{item['kind']} {item['metadata']['name']}"
        if _deleting(item):
            yield f"{name} is deleted and does not go: finalizers {item['metadata'].get('finalizers')}"
            continue
        observed, generation = item.get("status", {}).get("observedGeneration"), item["metadata"]["generation"]
        if observed != generation:
            yield f"{name} has generation {generation}, observed is {observed}"
        for problem in kstatus.violations(item):
            yield f"{name} breaks kstatus: {problem}"


def _tally(**counts: int) -> dict[str, int]:
    return {"ready": 0, "downloading": 0, "pending": 0, "failed": 0, **counts}


def _file(simulation: Simulation, placement: Object) -> FileKey:
    spec = placement["spec"]
    return simulation.disk(spec["host"], spec["pool"]).name, spec["path"].rpartition("/")[2]


def _phase(placement: Object) -> str | None:
    phase: str | None = placement.get("status", {}).get("phase")
    return phase


def _condition(item: Object, kind: str) -> str | None:
    conditions = item.get("status", {}).get("conditions", ())
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def _summary(item: Object) -> str:
    status = item.get("status", {})
    conditions = [f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in status.get("conditions", ())]
    return f"{status.get('phase') or status.get('state') or ''} {'; '.join(conditions)}".strip() or "without a status"


def _deleting(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]


def _of_zone(item: Object, zone: str) -> bool:
    return bool(item["spec"]["zone"] == zone)


def _shared(pool: Object) -> bool:
    return bool(pool["spec"].get("type", "Filesystem") != "Filesystem")


def _listed(item: Object, names: list[str] | None) -> bool:
    return not names or item["metadata"]["name"] in names


def _matches(selector: Object | None, labels: Object) -> bool:
    """Of the selectors that are used here; none selects all."""
    return all(labels.get(key) == value for key, value in ((selector or {}).get("matchLabels") or {}).items())
