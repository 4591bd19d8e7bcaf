"""Simulated machines and their kubelets: Jobs become Pods, Pods do their work and report it, power and network go.

What the scheduler, the Job controller and the garbage collector do for a Job is played here too, as far as the
controller can see it.
"""

import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.world.disks import Disk, Origin
from tests.world.kube import Kube, Object
from tests.world.lists import Lists
from tests.world.stuck import Stuck, StuckPods

from directdownload.cluster import kinds
from directdownload.controller.world import PROBE_LABEL
from directdownload.resources import jobs
from directdownload.resources.reasons import Reason

#: What a job answers; None: it runs on, and is asked again.
Behaviour = Callable[[jobs.JobDocument], jobs.JobResult | None]
_COLLECT_SECONDS = 1.0
_ON_DISK = jobs.JobResult(reason=Reason.VERIFIED, message="stands for what the verb does to the disk")


def succeed(_: jobs.JobDocument) -> jobs.JobResult:
    """The job does what its verb says, on the disk of its host, and answers what came of it."""
    return _ON_DISK


def fail(reason: Reason) -> jobs.JobResult:
    return jobs.JobResult(reason=reason, message=f"simulated {reason}")


@dataclasses.dataclass(slots=True)
class Machine:
    """A host. Without power nothing runs there; without network it works on, and nobody hears of it."""

    name: str
    power: bool = True
    network: bool = True
    #: the agent's process runs
    agent: bool = True
    #: shared pools that are not mounted (`NotMounted`) or do not answer (`PoolNotReady`) here, by name
    mounts: dict[str, Reason] = dataclasses.field(default_factory=dict)

    @property
    def online(self) -> bool:
        return self.power and self.network


@dataclasses.dataclass(slots=True)
class Run:
    """The pod of one Job on its machine."""

    job: str
    namespace: str
    pod: str
    machine: Machine
    document: jobs.JobDocument
    disk: Disk
    result: jobs.JobResult | None = None
    #: the process was ended from outside
    killed: bool = False
    reported: bool = False
    #: its Job is gone; until the kubelet has ended it, it works on
    leaving: bool = False
    ends_monotonic: float = 0.0

    @property
    def works(self) -> bool:
        return self.result is None and not self.killed


class Kubelets:
    """All machines; `step` moves everything on by what can happen at once."""

    def __init__(self, namespace: str, disk_of: Callable[[str, str], Disk], origin: Origin) -> None:
        self.machines: dict[str, Machine] = {}
        self.behaviour: Behaviour = succeed
        #: every job of a placement that ever ran, as `(host, verb, attempt)`, and the most that ran at once
        self.started: list[tuple[str, str, int]] = []
        self.most_active = 0
        #: the same of probes
        self.probe_behaviour: Behaviour = succeed
        self.probed: list[tuple[str, str, int]] = []
        self.most_probes = 0
        #: are shown all Jobs that exist, each time
        self.observers: list[Callable[[Sequence[Object]], None]] = []
        #: hear the disk's and the file's name: before a job removes a file; after one whose Job is gone published one;
        #: after such a one wrote its record over that of another
        self.removed: Callable[[str, str], None] = lambda disk, name: None
        self.strayed: Callable[[str, str], None] = lambda disk, name: None
        self.overwrote: Callable[[str, str], None] = lambda disk, name: None
        #: how long a pod goes on once its Job was deleted
        self.linger_seconds: Callable[[], float] = lambda: 0.0
        #: how the pod of a job does not come up; None: it does
        self.stuck: Callable[[jobs.JobDocument], Stuck | None] = lambda document: None
        self._stuck = StuckPods(namespace)
        self._namespace = namespace
        self._disk_of = disk_of
        self._origin = origin
        self._runs: dict[str, Run] = {}
        self._collect_monotonic = 0.0
        self.lock = threading.RLock()

    def step(self, kube: Kube, lists: Lists) -> None:
        items = lists.items(kinds.JOBS, self._namespace)
        self._collect(kube, lists, items)
        with self.lock:
            for observer in self.observers:
                observer(items)
            uids = [job["metadata"]["uid"] for job in items]
            ended = {uid for uid, run in self._runs.items() if run.reported}
            probes = {job["metadata"]["uid"] for job in items if PROBE_LABEL in job["metadata"]["labels"]}
            self.most_active = max(self.most_active, len(set(uids) - ended - probes))
            self.most_probes = max(self.most_probes, len(probes - ended))
            for uid, job in zip(uids, items, strict=True):
                run = self._runs.get(uid) or self._start(kube, uid, job)
                if run is not None:
                    self._advance(kube, run)
            self._stuck.collect(kube, set(uids))
            for uid in [uid for uid in self._runs if uid not in set(uids)]:
                self._abandon(kube, uid, self._runs[uid])

    def _collect(self, kube: Kube, lists: Lists, items: Sequence[Object]) -> None:
        """The collector of garbage: Jobs whose placement is gone go as well, a little later; so do Secrets of Jobs."""
        now = time.monotonic()
        if now < self._collect_monotonic:
            return
        for secret in lists.items(kinds.SECRETS, self._namespace):
            for owner in secret["metadata"].get("ownerReferences", ()):
                # Asked for now: a Secret may be younger than `items`, and so may its Job.
                found = kube.get(kinds.JOBS, owner["name"], self._namespace)
                if not found.ok or found.body["metadata"]["uid"] != owner["uid"]:
                    kube.delete(kinds.SECRETS, secret["metadata"]["name"], self._namespace)
        self._collect_monotonic = now + _COLLECT_SECONDS
        if not items:
            return
        uids = {owner["metadata"]["uid"] for owner in lists.items(kinds.TEMPLATE_PLACEMENTS)}
        for job in items:
            job_owners = job["metadata"].get("ownerReferences", ())
            if job_owners and not any(owner["uid"] in uids for owner in job_owners):
                self._delete_job(kube, job["metadata"]["name"])

    def running(self) -> list[Run]:
        """Those whose process runs, as far as anybody knows."""
        with self.lock:
            return [run for run in self._runs.values() if not (run.reported or run.killed or run.leaving)]

    def kill(self, run: Run) -> None:
        """The process of a pod dies without a word, as when memory runs out."""
        with self.lock:
            run.killed = run.works

    def power_off(self, machine: Machine) -> None:
        with self.lock:
            machine.power = False
            for run in self._runs.values():
                if run.machine is machine and not run.reported:
                    run.killed, run.result = True, None

    def evict(self, kube: Kube, run: Run) -> None:
        """The Pod is deleted, and the Job fails with it, as its controller would say."""
        with self.lock:
            run.killed, run.result, run.reported = True, None, True
            self._delete_pod(kube, run)
            now = _now()
            conditions = [
                {"type": name, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": now}
                for name in ("FailureTarget", "Failed")
            ]
            status = {"startTime": now, "failed": 1, "conditions": conditions}
            kube.patch(kinds.JOBS, run.job, {"status": status}, run.namespace, subresource="status")

    def delete_job(self, kube: Kube, run: Run) -> None:
        self._delete_job(kube, run.job)

    def _delete_job(self, kube: Kube, name: str) -> None:
        # As kubectl does it: without a word on how, the API waits for a collector of its own.
        kube.request("DELETE", kinds.JOBS.path(name, self._namespace), query={"propagationPolicy": "Background"})

    def lose(self, kube: Kube, machine: Machine) -> None:
        """The Node is gone for good: its Pods go with it."""
        with self.lock:
            for run in self._runs.values():
                if run.machine is machine and not run.reported:
                    self.evict(kube, run)

    def _start(self, kube: Kube, uid: str, job: Object) -> Run | None:
        pod_spec = job["spec"]["template"]["spec"]
        (container,) = pod_spec["containers"]
        document = jobs.JobDocument.model_validate_json(
            next(v["value"] for v in container["env"] if v["name"] == jobs.JOB_ENVIRONMENT_VARIABLE)
        )
        machine = self.machines.get(document.host)
        if machine is None or not machine.online:
            return None
        if not self._secrets_are_there(kube, pod_spec):
            return None
        name = job["metadata"]["name"]
        probe = document.verb is jobs.Verb.PROBE
        run = Run(
            job=name,
            namespace=self._namespace,
            pod=f"{name}-{uid[:5]}",
            machine=machine,
            document=document,
            disk=Disk(name) if probe else self._disk_of(document.host, document.pool.name),
        )
        stuck, pod = self.stuck(document), self._pod(job, run)
        if stuck is not None:
            self._stuck.hold(kube, job, stuck, pod)
            return None
        if not self._stuck.holds(uid):
            answer = kube.create(kinds.PODS, pod, run.namespace)
            if answer.code == 403:
                self._stuck.refuse(kube, job, answer)
                return None
            answer.object()
        self._tell(kube, run, "Running", {"running": {"startedAt": _now()}}, ready=True)
        run.disk.begin(document)
        self._runs[uid] = run
        entry = (document.host, str(document.verb), int(name.rpartition("-")[2]))
        (self.probed if probe else self.started).append(entry)
        return run

    def _secrets_are_there(self, kube: Kube, pod_spec: Object) -> bool:
        """A pod waits for the Secrets that it mounts."""
        names = [volume["secret"]["secretName"] for volume in pod_spec.get("volumes", ()) if "secret" in volume]
        return all(kube.get(kinds.SECRETS, name, self._namespace).ok for name in names)

    def _pod(self, job: Object, run: Run) -> Object:
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
        spec = {**template["spec"], "nodeName": run.machine.name}
        spec.pop("affinity", None)
        return {"metadata": {"name": run.pod, "labels": labels}, "spec": spec}

    def _advance(self, kube: Kube, run: Run) -> None:
        if run.reported or not run.machine.power:
            return
        self._work(run)
        if not run.machine.network:
            return
        if run.killed:
            self._tell(kube, run, "Failed", {"terminated": {"exitCode": 137, "reason": "Error"}})
        elif run.result is not None:
            phase, code = ("Succeeded", 0) if run.result.done else ("Failed", 1)
            terminated = {"exitCode": code, "reason": "Completed", "message": run.result.to_message()}
            self._tell(kube, run, phase, {"terminated": terminated})
        else:
            return
        run.reported = True

    def _work(self, run: Run) -> None:
        mount = run.machine.mounts.get(run.document.pool.name)
        if not run.works or self._locked(run) or mount is Reason.POOL_NOT_READY:
            return
        if mount is not None:
            run.result = fail(mount)
            return
        probe = run.document.verb is jobs.Verb.PROBE
        answer = (self.probe_behaviour if probe else self.behaviour)(run.document)
        if answer is _ON_DISK:
            name = run.document.file_name
            before = run.disk.records.get(name)
            answer = run.disk.work(run.document, self._origin, self.removed)
            if run.leaving and answer.reason is Reason.DOWNLOADED:
                self.strayed(run.disk.name, name)
            if run.leaving and before is not None and run.disk.records.get(name) not in (None, before):
                self.overwrote(run.disk.name, name)
        run.result = answer

    def _locked(self, run: Run) -> bool:
        """Jobs of one template on one host take turns, by the lock on the part."""
        for other in self._runs.values():
            if other is run:
                return False
            same = (other.machine, other.disk, other.document.file_name)
            if other.works and same == (run.machine, run.disk, run.document.file_name):
                return True
        return False

    def _abandon(self, kube: Kube, uid: str, run: Run) -> None:
        """Its Job is gone: where the kubelet hears of it, the pod ends soon; elsewhere it works on."""
        now = time.monotonic()
        if not run.leaving:
            run.leaving, run.ends_monotonic = True, now + self.linger_seconds()
            if not run.machine.online:
                kube.delete(kinds.PODS, run.pod, run.namespace)
        if run.machine.power:
            self._work(run)
        hung = run.machine.mounts.get(run.document.pool.name) is Reason.POOL_NOT_READY
        if run.machine.online and not hung and (not run.works or now >= run.ends_monotonic):
            self._delete_pod(kube, run)
            del self._runs[uid]

    def _delete_pod(self, kube: Kube, run: Run) -> None:
        path = kinds.PODS.path(run.pod, run.namespace)
        kube.request("DELETE", path, query={"gracePeriodSeconds": "0"})

    def _tell(self, kube: Kube, run: Run, phase: str, state: dict[str, Any], *, ready: bool = False) -> None:
        status = {
            "name": "download",
            "image": "",
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        }
        patch = {"status": {"phase": phase, "containerStatuses": [status]}}
        # A Pod that someone has deleted has nobody to tell.
        kube.patch(kinds.PODS, run.pod, patch, run.namespace, subresource="status")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
