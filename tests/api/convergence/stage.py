"""Where a random run plays: a simulated fleet with its controllers, the model of the wishes, and both kept in step."""

import dataclasses
import random
import subprocess

from tests.api.convergence.invariants import Invariants
from tests.api.convergence.model import FileKey, Key, Pool, WishedDeployment, WishedHost, WishedTemplate, Wishes
from tests.world.controllers import Controller
from tests.world.disks import Disk
from tests.world.kube import Kube, Object, resource
from tests.world.simulation import POOL_PATH, Simulation
from tests.world.steps import LEASE, RETRY

from directdownload.cluster import kinds
from directdownload.resources.base import REQUESTED_AT

TEAM = "blue"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One file of the model, with what is needed to get at it."""

    file: FileKey
    pool: str
    #: empty: of a shared pool
    host: str
    template: Key


class Stage:
    """`complaints` are violations of what must hold at every moment, one sentence each."""

    def __init__(self, simulation: Simulation, kube: Kube) -> None:
        self.simulation = simulation
        self.kube = kube
        self.complaints: list[str] = []
        self.trace: list[str] = []
        self.invariants = Invariants(self.complain)
        self.main = simulation.namespace
        self.tenant = simulation.create_namespace("tenant", team=TEAM)
        self.wishes = Wishes(lambda host, pool: simulation.disk(host, pool).name, {self.tenant: TEAM})
        self.zones: list[str] = []
        self.enabled: dict[str, bool] = {}
        self.controllers: list[Controller] = []
        #: files that were changed so that no agent can see it
        self.tampered: set[FileKey] = set()
        #: templates of which bad bytes were served
        self.spoilt: set[str] = set()
        self._requests = 0

    def complain(self, sentence: str) -> None:
        self.complaints.append(f"after step {self.trace[-1] if self.trace else 0}: {sentence}")

    def build(self) -> None:
        """Two zones with a local pool of the same path, one with a shared pool; four hosts; one controller."""
        simulation = self.simulation
        downloads = {"retry": RETRY, "maxParallel": 4}
        simulation.create_zone(downloads=downloads)
        second = simulation.add_zone("other", downloads=downloads)
        self.zones = [simulation.zone, second]
        self.wishes.pools = [
            Pool(simulation.pool, simulation.zone, shared=False),
            Pool(simulation.create_pool("nfs", type="NetworkFilesystem"), simulation.zone, shared=True),
            Pool(simulation.create_pool("elsewhere", zone=second, path=POOL_PATH), second, shared=False),
        ]
        for zone in self.zones:
            self.enabled[zone] = True
            self.invariants.note_limits(zone, {"maxParallel": 4, "maxParallelPerHost": 2})
        kubelets = simulation.kubelets
        kubelets.observers.append(self.invariants.look_at_jobs)
        kubelets.removed = self._removed
        kubelets.strayed = lambda disk, name: self.wishes.release((disk, name))
        # On a shared pool another host may have published meanwhile: until its next verification no agent watches it.
        kubelets.overwrote = lambda disk, name: self.tampered.add((disk, name))
        for number, zone in enumerate([*self.zones[:1] * 3, second], 1):
            self.add_host(f"kvm-{number}", zone, tier="ab"[number % 2])
        self.start_controller()

    def _removed(self, disk: str, name: str) -> None:
        if (disk, name) not in self.wishes.ordered:
            self.complain(f"a job removes {name} on {disk}, and nobody has ordered that")

    # --- controllers

    def start_controller(self) -> None:
        self.controllers.append(self.simulation.start_controller(f"controller-{len(self.controllers)}"))

    def stop_controller(self, controller: Controller) -> None:
        try:
            controller.stop()
        except subprocess.TimeoutExpired:
            self.complain(f"{controller.user} does not end: {controller.log.read_text(errors='replace')[-2000:]}")

    def keep_controller(self) -> None:
        """One runs, and need not wait for the Lease of one that has died."""
        if not self.running_controllers():
            self.start_controller()
        self.drop_lease()

    def running_controllers(self) -> list[Controller]:
        return [controller for controller in self.controllers if controller.alive]

    def drop_lease(self) -> None:
        """The next one need not wait until it has run out. That of a leader that is alive stays."""
        found = self.kube.get(kinds.LEASES, LEASE, self.main)
        holder = found.body["spec"].get("holderIdentity", "") if found.ok else ""
        if found.ok and not any(f"{self.main}-{holder}".startswith(f"{c.user}_") for c in self.running_controllers()):
            self.kube.delete(kinds.LEASES, LEASE, self.main)

    # --- hosts

    def add_host(self, name: str, zone: str, tier: str) -> str:
        """One that is new, or was lost for good before."""
        full = self.simulation.add_host(name, zone=zone, labels={"tier": tier})
        known = self.wishes.hosts.get(full)
        if known is not None:
            self.wishes.leave(full)
        # Its Host, if that was not deleted, has what people wrote into it.
        maintenance = known is not None and known.maintenance
        self.wishes.hosts[full] = WishedHost(full, zone, tier, maintenance=maintenance)
        self.invariants.note_reachable(full, True)
        return full

    # --- what people write

    def make(self) -> None:
        """Makes what is wished and not there yet; of the same name as one that is still going: another time."""
        for template in self.wishes.templates.values():
            if not template.uid:
                template.uid = self._create(kinds.TEMPLATES, template.key, template_spec(template))
        for deployment in self.wishes.deployments.values():
            spec = deployment_spec(deployment)
            if not deployment.made and self._create(kinds.TEMPLATE_DEPLOYMENTS, deployment.key, spec):
                self.wishes.made(deployment.key)

    def _create(self, kind: kinds.Resource, key: Key, spec: Object) -> str:
        namespace, name = key
        answer = self.kube.create(kind, resource(kind, name, spec, namespace), namespace)
        return "" if answer.code == 409 else str(answer.object()["metadata"]["uid"])

    def write_template(self, template: WishedTemplate) -> None:
        if template.uid:
            spec = {"spec": template_spec(template)}
            self.kube.patch(kinds.TEMPLATES, template.name, spec, template.namespace).object()

    def write_deployment(self, deployment: WishedDeployment) -> None:
        if deployment.made:
            spec = {"spec": deployment_spec(deployment)}
            self.kube.patch(kinds.TEMPLATE_DEPLOYMENTS, deployment.name, spec, deployment.namespace).object()

    def unseen(self) -> set[Key]:
        """The deployments whose last change the controller has perhaps not seen."""
        items = self.kube.request("GET", kinds.TEMPLATE_DEPLOYMENTS.path()).object()["items"]
        return {
            (item["metadata"]["namespace"], item["metadata"]["name"])
            for item in items
            if item.get("status", {}).get("observedGeneration") != item["metadata"]["generation"]
        }

    def request(self, kind: kinds.Resource, name: str, namespace: str | None = None) -> None:
        """`directdownload.dev/requested-at` with a value that was never there."""
        self._requests += 1
        annotations = {REQUESTED_AT: f"request-{self._requests}"}
        self.kube.patch(kind, name, {"metadata": {"annotations": annotations}}, namespace)

    # --- files

    def some_place(self, rng: random.Random) -> Place | None:
        """A file that a deployment names; one that is there, if there is any."""
        found = {
            file: Place(file, pool.name, host, deployment.template)
            for _, deployment in sorted(self.wishes.deployments.items())
            for file, pool, host in self.wishes.files_of(deployment)
        }
        places = list(found.values())
        rng.shuffle(places)
        return next((p for p in places if p.file[1] in self.disk(p).files), places[0] if places else None)

    def disk(self, place: Place) -> Disk:
        return self.simulation.disk(place.host, place.pool)

    def placement_of(self, place: Place) -> Object | None:
        items = self.kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"]
        for item in items:
            spec = item["spec"]
            if spec["pool"] == place.pool and place.host in ("", spec["host"]) and place.file[1] in spec["path"]:
                return dict(item)
        return None


def template_spec(template: WishedTemplate) -> Object:
    allowed = {None: None, "": {}}.get(template.allowed_team, {"matchLabels": {"team": template.allowed_team}})
    return {
        "url": template.url,
        "format": "ISO" if template.iso else "QCOW2",
        "checksum": template.checksum or None,
        "allowedNamespaces": allowed,
        "zones": list(template.zones),
    }


def deployment_spec(deployment: WishedDeployment) -> Object:
    namespace, name = deployment.template
    limit = deployment.max_parallel
    return {
        "templateRef": {"namespace": namespace, "name": name},
        "zone": deployment.zone,
        "hosts": list(deployment.hosts),
        "hostSelector": {"matchLabels": {"tier": deployment.tier or None}},
        "pools": list(deployment.pools),
        "rollout": {"paused": deployment.paused, "maxParallel": limit if limit.endswith("%") else int(limit)},
        "deletionPolicy": deployment.policy,
    }
