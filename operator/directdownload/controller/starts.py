"""What jobs, pods and Events say of a pod that has not started, read as what it is: text of others. Pure.

Called by `world` and `causes`. Admission plugins, container runtimes and all who may write Events word these texts.
They become one printable and bounded line without anything that looks like a credential.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from directdownload import escaping
from directdownload.cluster.objects import JobView, PodView
from directdownload.observe import logs
from directdownload.planning import startup
from directdownload.planning.observed import Happening, Start

#: Characters of a message, and of a reason: with the words before it, a cause fits into `failures` of a deployment.
MESSAGE_LIMIT, REASON_LIMIT = 380, 64
#: What is looked at of one text.
_READ_LIMIT = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What the Events of the object `uid`, a Job or a Pod, said when they were asked for."""

    uid: str
    at: datetime.datetime
    event: Happening | None = None


def line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """`text` on one printable line of at most `limit` characters."""
    return escaping.escaped(" ".join(logs.mask(text[:_READ_LIMIT]).split()), limit)


def asked_about(job: JobView, pod: PodView | None) -> str:
    """The uid of the object whose Events tell what keeps the pod: of the pod, or of a Job that has none."""
    return pod.uid if pod is not None else job.uid


def start_of(job: JobView, pod: PodView | None, told: Told | None) -> Start:
    """What keeps the pod of `job`, or the Job from having one."""
    if pod is not None:
        return _start_of_pod(pod, told)
    suspended = line(job.suspended) if job.suspended is not None else None
    return startup.without_pod(suspended, _event_about(job.uid, told))


def _start_of_pod(pod: PodView, told: Told | None) -> Start:
    reason, message = line(pod.waiting_reason, REASON_LIMIT), line(pod.waiting_message)
    return startup.with_pod(reason, message, prepared=pod.prepared, event=_event_about(pod.uid, told))


def _event_about(uid: str, told: Told | None) -> Happening | None:
    """`told` counts only if it is about the object that exists now."""
    return told.event if told is not None and told.uid == uid else None


def cause_of_agent(pods: Iterable[PodView], told: Mapping[str, Told]) -> str:
    """What keeps the first of an agent's `pods` that has not started; empty: there is none, or nothing is known."""
    starts = (_start_of_pod(pod, told.get(pod.key)) for pod in pods if not pod.started)
    return next((start.cause for start in starts if start.blocked), "")


def happenings(documents: Iterable[Mapping[str, Any]]) -> Iterable[Happening]:
    """Events as the API serves them (core/v1)."""
    for document in documents:
        yield Happening(
            reason=line(document.get("reason") or "", REASON_LIMIT),
            message=line(document.get("message") or ""),
            warning=document.get("type") == "Warning",
            version=int(document["metadata"]["resourceVersion"]),
        )
