"""A controller's world as others could have written it: objects of every kind that name one another, by a seed."""

import dataclasses
from typing import Any

from tests.world import admitted, foreign
from tests.world.admitted import NAMES, Document, Draw

from directdownload.cluster import kinds, objects
from directdownload.cluster.reflector import Store
from directdownload.controller import metrics, starts
from directdownload.controller.context import projections
from directdownload.controller.demand_watches import DemandWatches
from directdownload.controller.queue import WorkQueue
from directdownload.controller.watches import Watches
from directdownload.controller.world import COMPONENT_LABEL, JOB_UID_LABEL, PLACEMENT_LABEL, PROBE_LABEL, World
from directdownload.planning import observed, startup
from directdownload.resources import naming

_WRITTEN = (
    *(kinds.ZONES, kinds.HOSTS, kinds.STORAGE_POOLS, kinds.TEMPLATES),
    *(kinds.TEMPLATE_DEPLOYMENTS, kinds.CERTIFICATES),
)
_COPIES = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    draw: Draw
    world: World
    collector: metrics.Collector
    names: tuple[str, ...]

    @classmethod
    def of(cls, seed: int) -> "Drawn":
        """Needs a running loop: what changes puts keys into a queue that nobody works on."""
        draw = Draw(seed)
        draw.names = tuple(draw.sample(NAMES, 2))
        world = World(("/var/lib/libvirt", "/"))
        queue = WorkQueue(_unworked)
        Watches(world, queue)
        DemandWatches(world, queue)
        found = cls(draw, world, metrics.Collector(world, queue), tuple(draw.names))
        found._fill()
        return found

    def take(self, kind: kinds.Resource, document: Document) -> None:
        self.world.ours[kind].take(kind, projections(self.world.views)[kind], document)

    @property
    def unread(self) -> dict[str, str]:
        """What could not be read, by kind and key."""
        stores: dict[str, Store[Any]] = {kind.kind: store for kind, store in self.world.ours.items()}
        stores |= {"Node": self.world.nodes, "Pod": self.world.pods}
        stores |= {"Job": self.world.jobs, "Namespace": self.world.namespaces}
        return {f"{kind} {each.key}": each.problem for kind, store in stores.items() for each in store.unreadable}

    def _fill(self) -> None:
        draw, world = self.draw, self.world
        for name in self.names:
            for kind in _WRITTEN:
                self.take(kind, self._working(kind, draw.document(kind, name)))
            world.nodes.take(kinds.NODES, objects.project_node, foreign.node(draw, name))
            world.namespaces.take(kinds.NAMESPACES, observed.project_namespace, foreign.namespace(draw, name))
            agent = foreign.pod(draw, f"{name}-agent", {COMPONENT_LABEL: "agent"})
            world.pods.take(kinds.PODS, objects.project_pod, agent)
        self._copies()
        for template in tuple(world.templates):
            name = naming.probe_name(template.name, template.uid)
            self._job(name, PROBE_LABEL, "")
        # Some of all this, as another one of the same name or another version of it.
        for _ in range(3):
            kind = draw.choice(_WRITTEN)
            document = draw.document(kind, draw.choice(self.names))
            document["metadata"]["resourceVersion"] = str(2 * 10**9)
            self.take(kind, document)

    def _working(self, kind: kinds.Resource, document: Document) -> Document:
        """Most of the time as in a fleet at work: with nothing but oddities, planners would stop at the first."""
        if self.draw.chance(0.3):
            return document
        zone, (name, *_) = self.names[0], self.names
        document["metadata"].pop("deletionTimestamp", None)
        spec, status = document["spec"], document.setdefault("status", {})
        match kind:
            case kinds.ZONES:
                spec |= {"enabled": True, "nodeSelector": {}, "templateNamespaces": {}}
            case kinds.HOSTS:
                spec["zone"], status["state"] = zone, "Up"
                facts = admitted.schema_of(kind)["status"]["properties"]["storage"]["items"]
                drawn = [self.draw.value(facts, status=True) for _ in self.names]
                for pool, entry in zip(self.names, drawn, strict=True):
                    entry |= {"pool": pool, "writable": True, "mounted": True}
                    entry.pop("reason", None)
                status["storage"] = drawn
            case kinds.STORAGE_POOLS:
                spec |= {"zone": zone, "hostSelector": {}, "path": "/var/lib/libvirt/images"}
            case kinds.TEMPLATES:
                spec["zones"] = []
                ready = {"type": "Ready", "status": "True", "reason": "Registered"}
                status["conditions"] = [ready]
            case kinds.TEMPLATE_DEPLOYMENTS:
                namespaces = [template.metadata.namespace for template in self.world.templates] or ["a"]
                spec |= {"zone": zone, "hostSelector": {}, "hosts": [], "pools": []}
                spec["templateRef"] = {"name": name, "namespace": namespaces[0]}
                document["metadata"]["namespace"] = namespaces[0]
            case kinds.CERTIFICATES:
                spec["zone"] = zone
                if "certificate" in spec:
                    spec["certificate"] = self.draw.choice(foreign.pems())
                status["certificate"] = self.draw.choice(foreign.pems())
                if "previous" in status:
                    status["previous"]["certificate"] = self.draw.choice(foreign.pems())
        return document

    def _copies(self) -> None:
        draw, world = self.draw, self.world
        wanted = [(t, pool, host) for t in world.templates for pool in world.pools for host in world.hosts]
        for template, pool, host in draw.sample(wanted, min(_COPIES, len(wanted))):
            shared = pool.spec.shared
            name = naming.placement_name(template.name, template.uid, pool.name, None if shared else host.name)
            document = draw.document(kinds.TEMPLATE_PLACEMENTS, name)
            if draw.chance(0.9):
                reference = {"namespace": template.metadata.namespace, "name": template.name, "uid": template.uid}
                document["spec"] |= {"templateRef": reference, "pool": pool.name, "host": host.name}
                document["spec"]["zone"] = host.spec.zone
            if draw.chance(0.8):
                document["metadata"].pop("deletionTimestamp", None)
                phases = ("Pending", "Downloading", "Ready", "Ready", "Failed", "Removing")
                document.setdefault("status", {})["phase"] = draw.choice(phases)
                if draw.chance(0.6):
                    # What its job says has not been read yet.
                    document["status"].pop("attempts", None)
            self.take(kinds.TEMPLATE_PLACEMENTS, document)
            if draw.chance(0.6):
                self._job(name, PLACEMENT_LABEL, document["metadata"]["uid"])

    def _job(self, owner: str, label: str, owner_uid: str) -> None:
        draw, world = self.draw, self.world
        name = f"{owner}-{draw.randrange(10)}"
        world.jobs.take(kinds.JOBS, objects.project_job, foreign.job(draw, name, {label: owner}, owner_uid))
        made = world.jobs.get(f"{foreign.NAMESPACE}/{name}")
        if made is not None and draw.chance(0.8):
            labels = {**made.labels, JOB_UID_LABEL: made.uid}
            world.pods.take(kinds.PODS, objects.project_pod, foreign.pod(draw, f"{name}-pod", labels))
        if made is not None and draw.chance(0.3):
            event = startup.latest(starts.happenings([foreign.event(draw, "e")]))
            about = starts.asked_about(made, world.pod_of(made))
            world.told[made.key] = starts.Told(about, made.created, event)


async def _unworked(_: object) -> None:
    """No key of it is ever reconciled."""
