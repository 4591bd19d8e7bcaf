"""What keeps the pod of a job from starting, from what the job, the pod and their Events say, and when that is decided.

`controller/starts.py` makes a `Start` of the objects that it sees; `attempts` ends a job that is blocked. Only evidence
decides early: a state, a condition or an Event that names a cause. Without one a pod gets more time: a busy control
plane and a slow registry look the same, and a job that is deleted each time before its pod starts would never run.
"""

import datetime
from collections.abc import Iterable

from directdownload.planning.observed import Happening, Job, Start

#: From this age on a job is late: its Events are asked for, and a known cause blocks it.
LATE = datetime.timedelta(seconds=8)
#: A job without a pod, or a pod that does not even get to its image, and nothing tells why.
SILENT = datetime.timedelta(seconds=60)
#: A pod that has not run by then, whatever it is said to do.
DEADLINE = datetime.timedelta(minutes=5)
#: Events are asked for again after this long: at first often, so that a cause is shown soon.
ASK_PAUSE, LATER_ASK_PAUSE = datetime.timedelta(seconds=3), datetime.timedelta(seconds=15)
_OFTEN = datetime.timedelta(seconds=15)

#: A container that waits for these is on its way.
_ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
#: What is wrong, by the reason of a state, a condition or an Event.
_LEADS = {
    **dict.fromkeys(("FailedCreate",), "its pod cannot be created"),
    **dict.fromkeys(("Unschedulable", "FailedScheduling", "SchedulingGated"), "its pod cannot be scheduled"),
    **dict.fromkeys(
        (
            *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"),
            *("SignatureValidationFailed", "InvalidImageName"),
        ),
        "its image cannot be pulled",
    ),
    **dict.fromkeys(
        ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "Failed"),
        "its container cannot be created",
    ),
    **dict.fromkeys(("FailedMount", "FailedAttachVolume", "FailedMapVolume"), "a volume of its pod cannot be mounted"),
    **dict.fromkeys(("FailedCreatePodSandBox", "NetworkNotReady"), "its pod gets no sandbox or no network"),
    **dict.fromkeys(("Suspended",), "its Job is suspended"),
}
_OTHER_LEAD = "its pod does not start"
#: Events after which the pod does not start by itself. Other warnings accompany pods that start all the same.
_KEEPING = frozenset(
    {
        *("FailedCreate", "FailedScheduling", "FailedMount", "FailedAttachVolume", "FailedMapVolume"),
        *("FailedCreatePodSandBox", "NetworkNotReady", "Failed"),
    }
)
#: Events that show that an earlier one of those no longer holds.
_LIFTING = frozenset({"SuccessfulCreate", "Resumed", "Pulling", "Pulled", "Created", "Started"})


def latest(events: Iterable[Happening]) -> Happening | None:
    """The Event that says how things are: the latest that keeps a pod, or shows progress; else the latest warning.

    By the API server's order, as each reporter has a clock of its own.
    """
    decisive: Happening | None = None
    other: Happening | None = None
    for event in events:
        if event.reason in _KEEPING or event.reason in _LIFTING:
            decisive = event if decisive is None or event.version > decisive.version else decisive
        elif event.warning:
            other = event if other is None or event.version > other.version else other
    return decisive or other


def without_pod(suspended: str | None, event: Happening | None) -> Start:
    """The Job has no pod. `suspended`: the words of its condition Suspended, if that is True."""
    if suspended is not None:
        return Start(_words("Suspended", suspended), blocked=True)
    return _by_event(event, pulling=False)


def with_pod(reason: str, message: str, *, prepared: bool, event: Happening | None) -> Start:
    """`reason`, `message`: of the waiting container, else of the condition PodScheduled if that is False.

    `prepared`: it is on a host and has its volumes and network, for all that is known.
    """
    if reason not in _ON_ITS_WAY:
        return Start(_words(reason, message), blocked=True)
    found = _by_event(event, pulling=prepared)
    if not found.cause and (reason or message):
        return Start(": ".join(filter(None, (reason, message))), pulling=prepared)
    return found


def _by_event(event: Happening | None, *, pulling: bool) -> Start:
    if event is None:
        return Start(pulling=pulling)
    if event.reason in _LIFTING:
        return Start(f"{event.reason}: {event.message}" if event.message else event.reason, pulling=pulling)
    return Start(_words(event.reason, event.message), blocked=event.reason in _KEEPING, pulling=pulling)


def _words(reason: str, message: str) -> str:
    told = ": ".join(filter(None, (reason, message)))
    return f"{_LEADS.get(reason, _OTHER_LEAD)}: {told}"


def late(job: Job, now: datetime.datetime) -> bool:
    return not (job.started or job.finished or job.deleting) and _age(job, now) >= LATE


def asks(job: Job, now: datetime.datetime) -> bool:
    """Whether the Events of `job` are to be asked for now: only while they may tell a cause that nothing else does."""
    return late(job, now) and not job.start.blocked and (job.asked is None or now >= job.asked + _ask_pause(job, now))


def blocked(job: Job, now: datetime.datetime, *, reachable: bool = True) -> str | None:
    """Why `job` is given up, in words; None while it runs or may still start.

    Not `reachable`: its host is Down, which explains it all. Only the deadline counts then.
    """
    if job.started or job.finished or job.deleting:
        return None
    start = job.start
    if reachable and start.blocked and _age(job, now) >= LATE:
        return start.cause
    if now >= job.created + DEADLINE:
        return _silence("its pod did not start within 5 minutes", start)
    if reachable and not start.pulling and _age(job, now) >= SILENT:
        return _silence(f"its pod did not start within {SILENT.total_seconds():.0f} s", start)
    return None


def look_again(job: Job, now: datetime.datetime) -> datetime.datetime | None:
    """When there may be news of a job that has not started, without any event; None once it has started."""
    if job.started:
        return None
    seen = job.seen or job.created
    moments = [seen + LATE, seen + SILENT, job.created + DEADLINE]
    if late(job, now):
        pause = _ask_pause(job, now)
        # Also where it had no turn: it then tries again.
        moments += [now + pause, *([job.asked + pause] if job.asked is not None else [])]
    return min((moment for moment in moments if moment > now), default=None)


def _silence(words: str, start: Start) -> str:
    return f"{words}: {start.cause}" if start.cause else words


def _age(job: Job, now: datetime.datetime) -> datetime.timedelta:
    """By one clock: the API server's may differ by more than `LATE`."""
    return now - (job.seen or job.created)


def _ask_pause(job: Job, now: datetime.datetime) -> datetime.timedelta:
    return ASK_PAUSE if _age(job, now) < _OFTEN else LATER_ASK_PAUSE
