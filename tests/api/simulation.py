"""Hosts without kubelets: Nodes, agent Pods and job Pods made and moved by the tests, and controllers as processes.

A `Simulation` plays the kubelets of its hosts: for every Job it makes the Pod, and ends it with the result that
`behaviour` gives for the job's document. Everything else, the controller above all, is real.
"""

import dataclasses
import datetime
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import yaml
from tests import kstatus
from tests.api.kube import Kube, Object, resource, until
from tests.cluster import harness

from directdownload.cluster import kinds
from directdownload.resources import jobs
from directdownload.resources.reasons import Reason

POOL_PATH = "/var/lib/libvirt/images"
SIZE_BYTES = 4096
DIGEST = "sha256:" + "ab" * 32
JOB_TEMPLATE = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "backoffLimit": 0,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [{"name": "download", "image": "localhost/none"}],
            }
        },
    },
}

#: What a job answers; None: it runs on, and is asked again.
Behaviour = Callable[[jobs.JobDocument], jobs.JobResult | None]


def succeed(document: jobs.JobDocument) -> jobs.JobResult:
    reason = Reason.REMOVED if document.verb is jobs.Verb.REMOVE else Reason.DOWNLOADED
    path = f"{document.pool.path}/{document.file_name}"
    return jobs.JobResult(reason=reason, path=path, size_bytes=SIZE_BYTES, digest=DIGEST)


def fail(reason: Reason) -> jobs.JobResult:
    return jobs.JobResult(reason=reason, message=f"simulated {reason}")


@dataclasses.dataclass(slots=True)
class Controller:
    """One controller process with an identity of its own towards the API."""

    user: str
    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=20)

    def stop(self) -> int:
        """Asks it to end, as the kubelet does, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


class Simulation:
    """One zone of simulated hosts in one control plane. Names carry `prefix`, so that simulations do not meet."""

    def __init__(self, control_plane: harness.ControlPlane, prefix: str, *, kubelets: bool = True) -> None:
        """Without `kubelets` no Job gets a Pod."""
        self.control_plane = control_plane
        self.prefix = prefix
        self.namespace = prefix
        self.zone = f"{prefix}-zone"
        self.pool = f"{prefix}-local"
        self.behaviour: Behaviour = succeed
        #: every job that ever ran, as `(host, verb, attempt)`, and the most that ran at once
        self.started: list[tuple[str, str, int]] = []
        self.most_active = 0
        self._stop = threading.Event()
        self._done: set[str] = set()
        self._kube = Kube(control_plane.kubeconfig())
        self._thread = threading.Thread(target=self._play if kubelets else lambda: None, daemon=True)
        self._failure: BaseException | None = None
        self._controllers: list[Controller] = []
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="simulation-", dir=control_plane.directory))

    def __enter__(self) -> "Simulation":
        with self.kube() as kube:
            kube.create(kinds.NAMESPACES, {"metadata": {"name": self.namespace}}).object()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for controller in self._controllers:
            if controller.process.poll() is None:
                controller.kill()
        self._stop.set()
        self._thread.join(timeout=20)
        self._kube.__exit__()
        if self._failure is not None:
            raise self._failure

    def kube(self) -> Kube:
        return Kube(self.control_plane.kubeconfig())

    # --- the fleet

    def add_host(self, name: str, *, ready: bool = True, labels: dict[str, str] | None = None) -> str:
        """A Node with a ready agent Pod; the full name is returned."""
        full = f"{self.prefix}-{name}"
        with self.kube() as kube:
            node = {"metadata": {"name": full, "labels": {"simulated-zone": self.zone, **(labels or {})}}}
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
            self.set_ready(full, ready)
            condition = _condition("Ready", True)
            kube.patch(
                kinds.PODS,
                f"agent-{full}",
                {"status": {"phase": "Running", "conditions": [condition]}},
                self.namespace,
                subresource="status",
            ).object()
        return full

    def _service_account(self, kube: Kube) -> None:
        # The controller that makes it in every namespace does not run here.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        kube.request("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", account)

    def set_ready(self, host: str, ready: bool) -> None:
        """What the node's kubelet or the node lifecycle controller says."""
        with self.kube() as kube:
            patch = {"status": {"conditions": [_condition("Ready", ready)]}}
            kube.patch(kinds.NODES, host, patch, subresource="status").object()

    def create_zone(self, **spec: Any) -> None:
        with self.kube() as kube:
            selector = {"nodeSelector": {"matchLabels": {"simulated-zone": self.zone}}}
            kube.create(kinds.ZONES, resource(kinds.ZONES, self.zone, {**selector, **spec})).object()
            pool = {"zone": self.zone, "path": POOL_PATH}
            kube.create(kinds.STORAGE_POOLS, resource(kinds.STORAGE_POOLS, self.pool, pool)).object()

    def create_template(self, name: str = "debian", **spec: Any) -> None:
        body = {"url": "http://images.example.org/debian.qcow2", "format": "QCOW2", **spec}
        with self.kube() as kube:
            template = resource(kinds.TEMPLATES, name, body, self.namespace)
            kube.create(kinds.TEMPLATES, template, self.namespace).object()

    def deploy(self, name: str = "everywhere", template: str = "debian", **spec: Any) -> None:
        body = {"templateRef": {"name": template}, "zone": self.zone, **spec}
        with self.kube() as kube:
            deployment = resource(kinds.TEMPLATE_DEPLOYMENTS, name, body, self.namespace)
            kube.create(kinds.TEMPLATE_DEPLOYMENTS, deployment, self.namespace).object()

    # --- what is there

    def placements(self) -> list[Object]:
        with self.kube() as kube:
            items = kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"]
        found = [item for item in items if item["spec"]["zone"] == self.zone]
        for item in found:
            # Deletion raises the generation; kstatus calls such an object Terminating whatever its conditions say.
            kstatus.assert_kstatus(item, lagging="deletionTimestamp" in item["metadata"])
        return found

    def placement(self, host: str) -> Object:
        return next(item for item in self.placements() if item["spec"]["host"] == host)

    def get(self, kind: kinds.Resource, name: str) -> Object:
        """The object, checked against kstatus."""
        with self.kube() as kube:
            found = kube.get(kind, name, self.namespace if kind.namespaced else None).object()
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

        until(f"{ready} copies of {name}", reached, 40)

    def jobs(self) -> list[Object]:
        with self.kube() as kube:
            return list(kube.request("GET", kinds.JOBS.path(None, self.namespace)).object()["items"])

    # --- controllers

    def start_controller(self, user: str = "controller") -> Controller:
        template = self._directory / "job.yaml"
        template.write_text(yaml.safe_dump(JOB_TEMPLATE))
        log = self._directory / f"{user}-{len(self._controllers)}.log"
        kubeconfig = self.control_plane.kubeconfig(f"{self.prefix}-{user}")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    str(pathlib.Path(sys.executable).with_name("directdownload")),
                    *("controller", "--pod-name", user, "--pod-namespace", self.namespace, "--health-port", "0"),
                    *("--job-template", str(template), "--pool-root", POOL_PATH),
                ],
                env={"PATH": os.environ["PATH"], "HOME": str(self._directory), "KUBECONFIG": str(kubeconfig)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        controller = Controller(f"{self.prefix}-{user}", process, log)
        self._controllers.append(controller)
        return controller

    def writes(self, user: str) -> list[dict[str, Any]]:
        """The audit log's writes of one controller, Leases left out."""
        events = harness.read_audit_log(self.control_plane.audit_log)
        return [
            event
            for event in events
            if event["user"]["username"] == f"{self.prefix}-{user}" and event["objectRef"]["resource"] != "leases"
        ]

    # --- the kubelets

    def _play(self) -> None:
        try:
            while not self._stop.wait(0.05):
                items = self._kube.request("GET", kinds.JOBS.path(None, self.namespace)).object()["items"]
                running = [job for job in items if job["metadata"]["uid"] not in self._done]
                self.most_active = max(self.most_active, len(running))
                for job in running:
                    self._play_job(job)
        except BaseException as error:
            self._failure = error

    def _play_job(self, job: Object) -> None:
        pod_spec = job["spec"]["template"]["spec"]
        (container,) = pod_spec["containers"]
        document = jobs.JobDocument.model_validate_json(
            next(v["value"] for v in container["env"] if v["name"] == jobs.JOB_ENVIRONMENT_VARIABLE)
        )
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        pod_name = f"{name}-{uid[:5]}"
        attempt = int(name.rpartition("-")[2])
        if self._kube.get(kinds.PODS, pod_name, self.namespace).code == 404:
            self._create_pod(job, pod_name, document.host)
            self.started.append((document.host, str(document.verb), attempt))
        result = self.behaviour(document)
        if result is None:
            return
        self._done.add(uid)
        terminated = {"exitCode": 0 if result.done else 1, "message": result.to_message(), "reason": "Completed"}
        status = {"name": "download", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        self._kube.patch(
            kinds.PODS,
            pod_name,
            {"status": {"phase": "Succeeded", "containerStatuses": [{**status, "state": {"terminated": terminated}}]}},
            self.namespace,
            subresource="status",
        ).object()

    def _create_pod(self, job: Object, name: str, host: str) -> None:
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "job-name": job["metadata"]["name"]}
        spec = {**template["spec"], "nodeName": host}
        spec.pop("affinity", None)
        pod = {"metadata": {"name": name, "labels": labels}, "spec": spec}
        self._kube.create(kinds.PODS, pod, self.namespace).object()
        running = {"name": "download", "image": "", "imageID": "", "ready": True, "restartCount": 0}
        started = {"running": {"startedAt": _now()}}
        self._kube.patch(
            kinds.PODS,
            name,
            {"status": {"phase": "Running", "containerStatuses": [{**running, "state": started}]}},
            self.namespace,
            subresource="status",
        ).object()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(name: str, truth: bool) -> dict[str, str]:
    return {"type": name, "status": str(truth), "lastTransitionTime": _now(), "reason": "Simulated"}
