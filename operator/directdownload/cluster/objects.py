"""Small views of the objects that the controller keeps in memory by the thousand: nodes, pods, jobs.

`reflector.Reflector` projects every object of a list or watch into one of these and drops the rest. A projection never
fails on an object that the API server accepted: a fact that is not reported yet is None, False or empty.
"""

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

#: Characters kept of a message.
_TEXT_LIMIT = 1024
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeView:
    key: str
    name: str
    uid: str
    resource_version: int
    labels: Mapping[str, str]
    ready: bool
    #: when `ready` last changed; None while the node has not reported
    ready_since: datetime | None
    unschedulable: bool
    #: its internal ones: at most one of each IP family
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodView:
    key: str
    name: str
    namespace: str
    uid: str
    resource_version: int
    node: str
    labels: Mapping[str, str]
    phase: str
    ready: bool
    ready_changed: datetime | None
    #: some container runs or has run; a pod that is ready has, even if nobody reported its containers
    started: bool
    #: why no container runs: `ImagePullBackOff`, `ContainerCreating`, `Unschedulable`, …
    waiting_reason: str
    waiting_message: str
    #: it is on a node, and its volumes and network are there; True also where the kubelet does not report this
    prepared: bool
    termination_message: str | None
    exit_code: int | None
    #: the container's (`Completed`, `Error`, `OOMKilled`, `StartError`), else the pod's (`Evicted`, `OutOfcpu`)
    termination_reason: str
    created: datetime
    deleting: bool

    @property
    def running(self) -> bool:
        """Whether a container of it runs or may still run: a deleted pod does until its grace period ends."""
        return self.exit_code is None and self.phase not in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class JobView:
    key: str
    name: str
    namespace: str
    uid: str
    resource_version: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: datetime
    succeeded: bool
    failed: bool
    #: of the condition Failed: `BackoffLimitExceeded`, `DeadlineExceeded`, …
    failure_reason: str
    #: the message of the condition Suspended; None: it is not True
    suspended: str | None
    active: int
    deleting: bool


def key_of(metadata: Mapping[str, Any]) -> str:
    """`namespace/name`, or `name` of a cluster-scoped object."""
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else sys.intern(str(metadata["name"]))


def parse_time(text: str | None) -> datetime | None:
    """A `Time` or `MicroTime` of the API. One in the year 0, or after 9999, counts as not reported."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def shared(pairs: Mapping[str, str] | None) -> Mapping[str, str]:
    """Labels as a read-only mapping; equal ones (the pods of a DaemonSet) are one object in memory."""
    return _shared(tuple(sorted(pairs.items()))) if pairs else _NO_LABELS


@functools.lru_cache(maxsize=1024)
def _shared(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return MappingProxyType({sys.intern(key): sys.intern(value) for key, value in pairs})


def project_node(document: Mapping[str, Any]) -> NodeView:
    metadata = document["metadata"]
    ready = _condition(document, "Ready")
    return NodeView(
        key=key_of(metadata),
        name=sys.intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        labels=shared(metadata.get("labels")),
        ready=ready.get("status") == "True",
        ready_since=parse_time(ready.get("lastTransitionTime")),
        unschedulable=bool(document.get("spec", {}).get("unschedulable")),
        addresses=_internal(document.get("status", {}).get("addresses") or ()),
    )


def _internal(addresses: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The first internal address of each IP family."""
    told = [str(each.get("address") or "") for each in addresses if each.get("type") == "InternalIP"]
    firsts = (next((text for text in told if text and (":" in text) is six), "") for six in (False, True))
    return tuple(filter(None, firsts))


def project_pod(document: Mapping[str, Any]) -> PodView:
    metadata, status = document["metadata"], document.get("status", {})
    ready = _condition(document, "Ready")
    containers = status.get("containerStatuses") or []
    states = [container.get("state") or {} for container in containers]
    node = document.get("spec", {}).get("nodeName") or ""
    waiting_reason, waiting_message = _waiting(document, states)
    terminated: Mapping[str, Any] = next((state["terminated"] for state in states if "terminated" in state), {})
    return PodView(
        key=key_of(metadata),
        name=metadata["name"],
        namespace=sys.intern(metadata["namespace"]),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        node=sys.intern(node),
        labels=shared(metadata.get("labels")),
        phase=sys.intern(status.get("phase") or ""),
        ready=ready.get("status") == "True",
        ready_changed=parse_time(ready.get("lastTransitionTime")),
        started=ready.get("status") == "True" or any(map(_has_run, containers)),
        waiting_reason=waiting_reason,
        waiting_message=waiting_message,
        prepared=bool(node) and _condition(document, "PodReadyToStartContainers").get("status") != "False",
        termination_message=terminated.get("message") or None,
        exit_code=terminated.get("exitCode"),
        termination_reason=sys.intern(terminated.get("reason") or status.get("reason") or ""),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
    )


def project_job(document: Mapping[str, Any]) -> JobView:
    metadata = document["metadata"]
    failed, suspended = _condition(document, "Failed"), _condition(document, "Suspended")
    return JobView(
        key=key_of(metadata),
        name=metadata["name"],
        namespace=sys.intern(metadata["namespace"]),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        labels=shared(metadata.get("labels")),
        annotations=shared(metadata.get("annotations")),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        succeeded=_condition(document, "Complete").get("status") == "True",
        failed=failed.get("status") == "True",
        failure_reason=sys.intern(failed.get("reason") or ""),
        suspended=(suspended.get("message") or "")[:_TEXT_LIMIT] if suspended.get("status") == "True" else None,
        active=document.get("status", {}).get("active") or 0,
        deleting="deletionTimestamp" in metadata,
    )


def _condition(document: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions: list[Mapping[str, Any]] = document.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _has_run(container: Mapping[str, Any]) -> bool:
    state = container.get("state") or {}
    return "running" in state or "terminated" in state or bool(container.get("lastState"))


def _waiting(document: Mapping[str, Any], states: list[Mapping[str, Any]]) -> tuple[str, str]:
    """Reason and message of the container that waits, else of the pod that no node takes."""
    for state in states:
        waiting = state.get("waiting") or {}
        if reason := waiting.get("reason"):
            return sys.intern(reason), (waiting.get("message") or "")[:_TEXT_LIMIT]
    scheduled = _condition(document, "PodScheduled")
    if scheduled.get("status") != "False":
        return "", ""
    return sys.intern(scheduled.get("reason") or ""), (scheduled.get("message") or "")[:_TEXT_LIMIT]
