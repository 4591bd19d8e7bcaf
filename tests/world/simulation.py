"""Hosts without kubelets: Nodes, agent Pods and job Pods made and moved by the tests, and controllers as processes.

A `Simulation` plays the kubelets of its hosts (`machines.py`): for every Job it makes the Pod, and ends it with the
result that `behaviour` gives for the job's document. Jobs work on simulated disks (`disks.py`); with `agents=True`
simulated agents publish what lies there (`agents.py`). Everything else, the controller above all, is real.
"""

import datetime
import pathlib
import threading
import time
from typing import Any

from tests.cluster import harness
from tests.world import kstatus
from tests.world.agents import Agents
from tests.world.controllers import Controller, Controllers
from tests.world.disks import SIZE_BYTES, Disk, Origin, digest_of
from tests.world.kube import Kube, Object, resource
from tests.world.lists import Lists
from tests.world.machines import Behaviour, Kubelets, Machine, fail, succeed
from tests.world.simulated_keystores import Keystore
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.controller.world import PROBE_LABEL

__all__ = ["DIGEST", "POOL_PATH", "SIZE_BYTES", "Behaviour", "Simulation", "fail", "succeed"]

POOL_PATH = "/var/lib/libvirt/images"
URL = "http://images.example.org/debian.qcow2"
DIGEST = digest_of(URL)
_KUBELETS_SECONDS = 0.05
_AGENTS_SECONDS = 0.2


class Simulation:
    """Simulated hosts of some zones in one control plane. Names carry `prefix`, so that simulations do not meet.

    Names of hosts, zones, pools and namespaces are given without the prefix where they are made, and whole, as the
    maker returns them, everywhere else.
    """

    def __init__(
        self,
        control_plane: harness.ControlPlane,
        prefix: str,
        *,
        kubelets: bool = True,
        agents: bool = False,
        forked: bool = True,
    ) -> None:
        """Without `kubelets` no Job gets a Pod; without `agents` nobody observes what lies on the disks.

        `forked`: controllers need not start an interpreter each, see `Forked`.
        """
        self.control_plane = control_plane
        self.prefix = prefix
        self.namespace = prefix
        self.zone = f"{prefix}-zone"
        self.pool = f"{prefix}-local"
        self.origin = Origin()
        #: of the controllers that are started from now on; None: as it is
        self.request_interval_seconds: float | None = None
        self.kubelets = Kubelets(self.namespace, self.disk, self.origin)
        self._agents = Agents(self.kubelets.machines, self.disk) if agents else None
        self._disks: dict[tuple[str, str], Disk] = {}
        #: by pool; empty: of one disk for all its hosts
        self._paths: dict[str, str] = {}
        self._agents_speak = threading.Lock()
        self._stop = threading.Event()
        self._kube = Kube(control_plane.kubeconfig())
        self._lists = Lists(self._kube, control_plane.etcd_url)
        self._thread = threading.Thread(target=self._play if kubelets else lambda: None, daemon=True)
        self._failure: BaseException | None = None
        self._controllers = Controllers(control_plane, prefix, forked=forked)

    def __enter__(self) -> "Simulation":
        self._create_namespace(self.namespace, {})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controllers.kill()
        self._stop.set()
        self._thread.join(timeout=120)
        # An older Lease that somebody still holds is watched for half a minute by every controller that begins later.
        for lease in self._kube.request("GET", kinds.LEASES.path(None, self.namespace)).object()["items"]:
            self._kube.delete(kinds.LEASES, lease["metadata"]["name"], self.namespace)
        self._lists.close()
        self._kube.__exit__()
        self.check()

    def check(self) -> None:
        """Raises what went wrong in the simulated kubelets and agents."""
        if self._failure is not None:
            raise self._failure

    def kube(self) -> Kube:
        return Kube(self.control_plane.kubeconfig())

    # --- jobs and disks

    @property
    def behaviour(self) -> Behaviour:
        return self.kubelets.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self.kubelets.behaviour = behaviour

    @property
    def started(self) -> list[tuple[str, str, int]]:
        """Every job that ever ran, as `(host, verb, attempt)`; probes are in `kubelets.probed`."""
        return self.kubelets.started

    @property
    def most_active(self) -> int:
        """How many Jobs there were at most at once, probes left out."""
        return self.kubelets.most_active

    def disk(self, host: str, pool: str = "") -> Disk:
        """What `pool` (else the pool of `create_zone`) holds on `host`; one disk for all hosts if it is shared.

        Pools of the same path are one disk, so a host that moves to another zone finds its files there. What was not
        made here is every host's own.
        """
        name = pool or self.pool
        path = self._paths.get(name, POOL_PATH)
        key = (host, path) if path else ("", name)
        return self._disks.setdefault(key, Disk(":".join(key)))

    def disks(self) -> list[Disk]:
        return list(self._disks.values())

    def keystore(self, host: str) -> Keystore:
        """What the simulated agent of `host` keeps."""
        if self._agents is None:
            raise ValueError("agents=False: nobody keeps keystores")
        return self._agents.keystores.setdefault(host, Keystore())

    # --- the fleet

    def add_host(self, name: str, *, ready: bool = True, labels: dict[str, str] | None = None, zone: str = "") -> str:
        """A Node with a ready agent Pod; the full name is returned. One that was lost comes back with its disks."""
        full = f"{self.prefix}-{name}"
        machine = self.kubelets.machines.setdefault(full, Machine(full))
        with self.kube() as kube:
            node = {"metadata": {"name": full, "labels": {"simulated-zone": zone or self.zone, **(labels or {})}}}
            kube.create(kinds.NODES, node).object()
            agent = {
                "metadata": {"name": f"agent-{full}", "labels": {"app.kubernetes.io/component": "agent"}},
                "spec": {
                    "nodeName": full,
                    "serviceAccountName": "default",
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "agent", "image": "localhost/none"}],
                },
            }
            self._service_account(kube)
            kube.create(kinds.PODS, agent, self.namespace).object()
        machine.power = machine.network = machine.agent = True
        self.set_ready(full, ready)
        self._set_agent_ready(full, True)
        return full

    def _service_account(self, kube: Kube) -> None:
        # The controller that makes it in every namespace does not run here.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        kube.request("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", account)

    def set_ready(self, host: str, ready: bool) -> None:
        """What the node's kubelet or the node lifecycle controller says."""
        self._patch_node(host, {"status": {"conditions": [_condition("Ready", ready)]}}, "status")

    def cordon(self, host: str, cordoned: bool = True) -> None:
        self._patch_node(host, {"spec": {"unschedulable": cordoned or None}})

    def relabel(self, host: str, **labels: str | None) -> None:
        """Labels of the Node; None takes one away. `simulated_zone`: moves it to another zone, or to none."""
        self._patch_node(host, {"metadata": {"labels": {k.replace("_", "-"): v for k, v in labels.items()}}})

    def power_off(self, host: str) -> None:
        """Everything on it ends at once; the cluster has noticed."""
        self.kubelets.power_off(self.kubelets.machines[host])
        self._unreachable(host)

    def unplug(self, host: str) -> None:
        """The cluster does not hear from it any more; what runs there runs on."""
        self.kubelets.machines[host].network = False
        self._unreachable(host)

    def restore(self, host: str) -> None:
        """Power and network are back."""
        machine = self.kubelets.machines[host]
        machine.power = machine.network = True
        self.set_ready(host, True)
        self._set_agent_ready(host, machine.agent)

    def _unreachable(self, host: str) -> None:
        self.set_ready(host, False)
        self._set_agent_ready(host, False)

    def set_agent(self, host: str, running: bool) -> None:
        """Crash or start of its agent."""
        machine = self.kubelets.machines[host]
        machine.agent = running
        self._set_agent_ready(host, running and machine.online)

    def silence_agent(self, host: str) -> None:
        """It writes nothing from now on, nor what it has begun; its Pod stays ready."""
        with self._agents_speak:
            self.kubelets.machines[host].agent = False

    def delete_node(self, host: str) -> None:
        """The machine is gone for good (unless `add_host` brings it back), Node and Pods too; the Host stays."""
        machine = self.kubelets.machines[host]
        self.kubelets.power_off(machine)
        with self.kube() as kube:
            kube.delete(kinds.NODES, host).object()
            path = kinds.PODS.path(f"agent-{host}", self.namespace)
            kube.request("DELETE", path, query={"gracePeriodSeconds": "0"}).object()
            self.kubelets.lose(kube, machine)

    def _patch_node(self, host: str, patch: Object, subresource: str = "") -> None:
        with self.kube() as kube:
            kube.patch(kinds.NODES, host, patch, subresource=subresource).object()

    def _set_agent_ready(self, host: str, ready: bool) -> None:
        status = {"phase": "Running", "conditions": [_condition("Ready", ready)]}
        with self.kube() as kube:
            kube.patch(kinds.PODS, f"agent-{host}", {"status": status}, self.namespace, subresource="status").object()

    # --- wishes

    def create_namespace(self, name: str, **labels: str) -> str:
        full = f"{self.prefix}-{name}"
        self._create_namespace(full, labels)
        return full

    def _create_namespace(self, name: str, labels: dict[str, str]) -> None:
        with self.kube() as kube:
            kube.create(kinds.NAMESPACES, {"metadata": {"name": name, "labels": labels}}).object()

    def create_zone(self, **spec: Any) -> None:
        """The first zone, with a pool that every host of it has for itself."""
        self._create_zone(self.zone, spec)
        self._create_pool(self.pool, {"zone": self.zone, "path": POOL_PATH})

    def add_zone(self, name: str, **spec: Any) -> str:
        """A further zone, without a pool; hosts join it by `add_host(zone=…)` or `relabel(simulated_zone=…)`."""
        full = f"{self.prefix}-{name}"
        self._create_zone(full, spec)
        return full

    def _create_zone(self, name: str, spec: dict[str, Any]) -> None:
        with self.kube() as kube:
            selector = {"nodeSelector": {"matchLabels": {"simulated-zone": name}}}
            kube.create(kinds.ZONES, resource(kinds.ZONES, name, {**selector, **spec})).object()

    def create_pool(self, name: str, *, zone: str = "", type: str = "Filesystem", path: str = "", **spec: Any) -> str:
        """A further pool; the full name is returned. Of a shared type, all its hosts see one disk."""
        full = f"{self.prefix}-{name}"
        where = path or f"{POOL_PATH}/{name}"
        self._create_pool(full, {"zone": zone or self.zone, "path": where, "type": type, **spec})
        return full

    def _create_pool(self, name: str, spec: dict[str, Any]) -> None:
        self._paths[name] = spec["path"] if spec.get("type", "Filesystem") == "Filesystem" else ""
        with self.kube() as kube:
            kube.create(kinds.STORAGE_POOLS, resource(kinds.STORAGE_POOLS, name, spec)).object()

    def create_template(self, name: str = "debian", *, namespace: str = "", **spec: Any) -> None:
        body = {"url": URL, "format": "QCOW2", **spec}
        self._create(kinds.TEMPLATES, name, body, namespace)

    def deploy(self, name: str = "everywhere", template: str = "debian", *, namespace: str = "", **spec: Any) -> None:
        body = {"templateRef": {"name": template}, "zone": self.zone, **spec}
        self._create(kinds.TEMPLATE_DEPLOYMENTS, name, body, namespace)

    def create_certificate(self, name: str, text: str = "", **spec: Any) -> str:
        """In the zone of `create_zone`, with its name as alias; the full name is returned."""
        full = f"{self.prefix}-{name}"
        source = {"certificate": text} if text else {}
        body = resource(kinds.CERTIFICATES, full, {"zone": self.zone, "alias": name, **source, **spec})
        with self.kube() as kube:
            kube.create(kinds.CERTIFICATES, body).object()
        return full

    def _create(self, kind: kinds.Resource, name: str, spec: Object, namespace: str) -> None:
        where = namespace or self.namespace
        with self.kube() as kube:
            kube.create(kind, resource(kind, name, spec, where), where).object()

    # --- what is there

    def placements(self) -> list[Object]:
        with self.kube() as kube:
            items = kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"]
        found = [item for item in items if item["spec"]["zone"].startswith(f"{self.prefix}-")]
        for item in found:
            # Deletion raises the generation; kstatus calls such an object Terminating whatever its conditions say.
            kstatus.assert_kstatus(item, lagging="deletionTimestamp" in item["metadata"])
        return found

    def placement(self, host: str) -> Object:
        return next(item for item in self.placements() if item["spec"]["host"] == host)

    def get(self, kind: kinds.Resource, name: str, namespace: str = "") -> Object:
        """The object, checked against kstatus."""
        with self.kube() as kube:
            found = kube.get(kind, name, (namespace or self.namespace) if kind.namespaced else None).object()
        if "status" in found:
            kstatus.assert_kstatus(found, lagging=True)
        return found

    def gone(self, kind: kinds.Resource, name: str) -> bool:
        with self.kube() as kube:
            return kube.get(kind, name, self.namespace if kind.namespaced else None).code == 404

    def deployment(self, name: str = "everywhere") -> Object:
        return self.get(kinds.TEMPLATE_DEPLOYMENTS, name)

    def ready_reason(self, kind: kinds.Resource, name: str) -> str:
        conditions = self.get(kind, name).get("status", {}).get("conditions", ())
        return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")

    def converged(self, ready: int, name: str = "everywhere") -> None:
        """Waits until the deployment is Ready with `ready` copies."""

        def reached() -> bool:
            status = self.deployment(name).get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            return conditions.get("Ready") == "True" and status["placements"]["ready"] == ready

        until(f"{ready} copies of {name}", reached)

    def jobs(self) -> list[Object]:
        """Those of placements."""
        return [job for job in self._jobs() if PROBE_LABEL not in job["metadata"]["labels"]]

    def probes(self) -> list[Object]:
        """The Jobs of probes, which nobody has to wait for."""
        return [job for job in self._jobs() if PROBE_LABEL in job["metadata"]["labels"]]

    def _jobs(self) -> list[Object]:
        with self.kube() as kube:
            return list(kube.request("GET", kinds.JOBS.path(None, self.namespace)).object()["items"])

    # --- controllers

    @property
    def controllers(self) -> list[Controller]:
        """All that were started, in order."""
        return self._controllers.started

    def start_controller(
        self, user: str = "controller", *arguments: str, kubeconfig: pathlib.Path | None = None
    ) -> Controller:
        """`arguments`: further ones of its command; `kubeconfig`: another way to the API server than the direct one."""
        options = ("--pool-root", POOL_PATH, *arguments)
        return self._controllers.start(user, *options, kubeconfig=kubeconfig, interval=self.request_interval_seconds)

    def writes(self, user: str) -> list[dict[str, Any]]:
        """The audit log's writes of one controller; Leases, Events (architecture, rule 6) and probes left out."""
        return self._controllers.writes(user)

    def probe_writes(self, user: str) -> list[dict[str, Any]]:
        """Those to the Jobs of probes and to their Secrets."""
        return self._controllers.writes(user, of_probes=True)

    # --- kubelets and agents

    def _play(self) -> None:
        agents_due = 0.0
        try:
            while not self._stop.wait(_KUBELETS_SECONDS):
                self._lists.look()
                self.kubelets.step(self._kube, self._lists)
                if self._agents is not None and time.monotonic() >= agents_due:
                    with self._agents_speak:
                        self._agents.step(self._kube, self._lists)
                    agents_due = time.monotonic() + _AGENTS_SECONDS
        except BaseException as error:
            self._failure = error


def _condition(name: str, truth: bool) -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": name, "status": str(truth), "lastTransitionTime": now, "reason": "Simulated"}
