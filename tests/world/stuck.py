"""Pods that do not come up, as scheduler, kubelet and Job controller report them: conditions, states and Events.

`Kubelets.stuck` says which ones. A pod that the API server refuses (quota, limits, Pod Security, priority) becomes
the Event that the Job controller writes then.
"""

import dataclasses
import datetime
import uuid

from tests.world.kube import Answer, Kube, Object

from directdownload.cluster import kinds


@dataclasses.dataclass(frozen=True, slots=True)
class Stuck:
    """How a pod does not come up. Without `pod` the Job controller makes none, and `events` are about the Job.

    `events`: type, reason and message of each, in order.
    """

    pod: bool = True
    #: a node has it
    scheduled: bool = True
    conditions: tuple[Object, ...] = ()
    #: of its container: reason and message
    waiting: Object | None = None
    events: tuple[tuple[str, str, str], ...] = ()
    #: the message of the Job's condition Suspended
    suspended: str = ""


class StuckPods:
    """Makes pods stuck, each once, and remembers them until their Jobs are gone."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._held: dict[str, str] = {}
        self._refused: set[str] = set()

    def hold(self, kube: Kube, job: Object, stuck: Stuck, pod: Object) -> None:
        """`pod`: as it would run; it is not made where `stuck` has none."""
        uid = job["metadata"]["uid"]
        if uid in self._held:
            return
        self._held[uid] = pod["metadata"]["name"] if stuck.pod else ""
        if stuck.suspended:
            suspended = {
                "type": "Suspended",
                "status": "True",
                "message": stuck.suspended,
                "reason": "JobSuspended",
                "lastTransitionTime": _now(),
            }
            status = {"conditions": [suspended]}
            kube.patch(
                kinds.JOBS, job["metadata"]["name"], {"status": status}, self._namespace, subresource="status"
            ).object()
        regarding, kind = job, "Job"
        if stuck.pod:
            if not stuck.scheduled:
                pod["spec"].pop("nodeName")
            regarding, kind = kube.create(kinds.PODS, pod, self._namespace).object(), "Pod"
            self._report(kube, pod["metadata"]["name"], stuck)
        for event in stuck.events:
            self._tell(kube, kind, regarding, *event)

    def _report(self, kube: Kube, pod: str, stuck: Stuck) -> None:
        states = []
        if stuck.waiting is not None:
            state = {"waiting": stuck.waiting}
            empty = {"image": "", "imageID": "", "ready": False, "restartCount": 0}
            states = [{"name": "download", **empty, "state": state}]
        status = {"phase": "Pending", "conditions": list(stuck.conditions), "containerStatuses": states}
        kube.patch(kinds.PODS, pod, {"status": status}, self._namespace, subresource="status").object()

    def holds(self, uid: str) -> bool:
        """Whether there is a pod of the Job `uid`, which is to run now."""
        return bool(self._held.pop(uid, ""))

    def refuse(self, kube: Kube, job: Object, answer: Answer) -> None:
        """The API server refused the Job's pod: the Job controller writes it down."""
        if job["metadata"]["uid"] not in self._refused:
            self._refused.add(job["metadata"]["uid"])
            self._tell(kube, "Job", job, "Warning", "FailedCreate", f"Error creating: {answer.message}")

    def collect(self, kube: Kube, uids: set[str]) -> None:
        """`uids`: of the Jobs that exist. A pod that never ran goes at once with its Job."""
        for uid in [uid for uid in self._held if uid not in uids]:
            if name := self._held.pop(uid):
                kube.request("DELETE", kinds.PODS.path(name, self._namespace), query={"gracePeriodSeconds": "0"})

    def _tell(self, kube: Kube, kind: str, regarding: Object, type_: str, reason: str, message: str) -> None:
        metadata = regarding["metadata"]
        name = f"{metadata['name'][:200]}.{uuid.uuid4().hex[:16]}"
        reference = {"kind": kind, "name": metadata["name"], "namespace": self._namespace, "uid": metadata["uid"]}
        event = {
            "metadata": {"name": name},
            "involvedObject": reference,
            **{"type": type_, "reason": reason, "message": message, "source": {"component": "simulated"}},
            **{"firstTimestamp": _now(), "lastTimestamp": _now(), "count": 1},
        }
        kube.create(kinds.CORE_EVENTS, event, self._namespace).object()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
