"""What the tests of the controller's parts share: jobs and pods as the API serves them, in a `World`."""

import datetime
import itertools
from typing import Any

from tests.unit.planning.build import NOW, seconds, stamp

from directdownload.cluster.objects import JobView, NodeView, PodView, project_job, project_node, project_pod
from directdownload.controller import world
from directdownload.planning.observed import PlacementView
from directdownload.resources import naming
from directdownload.resources.template import Template

NAMESPACE = "direct-download"
_versions = itertools.count(100)


def _metadata(name: str, namespace: str | None, labels: dict[str, str], **fields: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": str(next(_versions)),
        "creationTimestamp": stamp(NOW - seconds(60)),
        "labels": labels,
        **fields,
    }
    return found if namespace is None else {"namespace": namespace, **found}


def node(
    name: str = "kvm-1",
    *,
    ready: bool = True,
    beat: bool = False,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> NodeView:
    """`beat`: its kubelet has spoken again, and has nothing else to say."""
    spoken = stamp(NOW + seconds(300) if beat else NOW)
    ready_now = {"status": str(ready), "lastTransitionTime": stamp(NOW), "lastHeartbeatTime": spoken}
    images = [{"names": ["registry.example.org/one"], "sizeBytes": 1}] if beat else []
    status = {"conditions": [{"type": "Ready", **ready_now}], "images": images}
    return project_node({"metadata": _metadata(name, None, labels or {}), "spec": spec, "status": status})


def job(
    placement: PlacementView,
    verb: str = "fetch",
    attempt: int = 1,
    *,
    ended: str = "",
    groups: tuple[str, ...] = ("zone/zone-1", "host/kvm-1"),
    uid: str = "",
    deleting: bool = False,
    annotations: dict[str, str] | None = None,
) -> JobView:
    """`ended` is `Complete` or `Failed`; `annotations` instead of what this version writes."""
    annotations = annotations or {
        world.VERB_ANNOTATION: verb,
        world.ATTEMPT_ANNOTATION: str(attempt),
        world.PLACEMENT_UID_ANNOTATION: uid or placement.uid,
        world.GROUPS_ANNOTATION: " ".join(groups),
    }
    fields: dict[str, Any] = {"annotations": annotations}
    if deleting:
        fields["deletionTimestamp"] = stamp(NOW)
    name = f"{placement.key}-{verb}-{attempt}"
    metadata = _metadata(name, NAMESPACE, {world.PLACEMENT_LABEL: placement.key}, **fields)
    conditions = [{"type": ended, "status": "True", "reason": "BackoffLimitExceeded"}] if ended else []
    return project_job({"metadata": metadata, "status": {"conditions": conditions}})


def probe(
    template: Template, attempt: int = 1, *, host: str = "kvm-1", ended: str = "", deleting: bool = False
) -> JobView:
    """The job of a probe. `ended` is `Complete` or `Failed`."""
    name = naming.probe_name(template.name, template.uid)
    annotations = {
        world.VERB_ANNOTATION: "probe",
        world.ATTEMPT_ANNOTATION: str(attempt),
        world.GROUPS_ANNOTATION: "probes",
        world.HOST_ANNOTATION: host,
        world.INPUTS_ANNOTATION: "told",
    }
    fields: dict[str, Any] = {"annotations": annotations}
    if deleting:
        fields["deletionTimestamp"] = stamp(NOW)
    metadata = _metadata(f"{name}-probe-{attempt}", NAMESPACE, {world.PROBE_LABEL: name}, **fields)
    conditions = [{"type": ended, "status": "True", "reason": "BackoffLimitExceeded"}] if ended else []
    return project_job({"metadata": metadata, "status": {"conditions": conditions}})


def pod(
    job: JobView,
    *,
    state: dict[str, Any] | None = None,
    name: str = "",
    created: datetime.datetime = NOW,
    reason: str = "",
) -> PodView:
    labels = {world.JOB_UID_LABEL: job.uid, **job.labels}
    metadata = _metadata(name or f"{job.name}-x", NAMESPACE, labels, creationTimestamp=stamp(created))
    statuses = [{"name": "download", "state": state}] if state else []
    status = {"containerStatuses": statuses, **({"reason": reason} if reason else {})}
    return project_pod({"metadata": metadata, "spec": {"nodeName": "kvm-1"}, "status": status})


def ended(message: str | None, exit_code: int = 0, reason: str = "Completed") -> dict[str, Any]:
    """A container's state after its end."""
    told = {"message": message} if message is not None else {}
    return {"terminated": {"exitCode": exit_code, "reason": reason, **told}}


def agent(
    node: str = "kvm-1",
    *,
    name: str = "agent-1",
    ready: bool | None = True,
    since: datetime.datetime = NOW,
    deleting: bool = False,
) -> PodView:
    """`ready` None: its kubelet has not said anything yet."""
    fields = {"deletionTimestamp": stamp(NOW)} if deleting else {}
    metadata = _metadata(name, NAMESPACE, {world.COMPONENT_LABEL: "agent"}, **fields)
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": stamp(since)}
    status = {"conditions": [] if ready is None else [condition]}
    return project_pod({"metadata": metadata, "spec": {"nodeName": node}, "status": status})
