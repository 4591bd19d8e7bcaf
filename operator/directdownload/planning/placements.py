"""The life of one placement: what its job says, what stands in the way, and what to do next.

`plan_placement` looks at everything anew each time (architecture, rule 1): a job that is there is adopted whoever made
it, and the number of the next attempt follows from the jobs and the status that exist.
"""

import dataclasses
import datetime
import enum
import hashlib

from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.observed import Job, PlacementView
from directdownload.resources.host import Host
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import PERMANENT, WAITING, Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, PlacedFile, TemplatePlacementStatus
from directdownload.resources.zone import Retry, Zone

#: A pod that has not run after this time never will: its host path is missing, its image cannot be pulled.
START_DEADLINE = datetime.timedelta(minutes=5)
#: No server may hold a host off for longer than this.
LONGEST_RETRY_AFTER_SECONDS = 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """The objects that a placement depends on; None where there is none (any more)."""

    template: Template | None
    zone: Zone | None
    host: Host | None
    pool: StoragePool | None
    pool_roots: tuple[str, ...] = ()
    #: every deployment that wants the copy is paused
    paused: bool = False


class Step(enum.Enum):
    """What the controller does besides writing the status."""

    NONE = enum.auto()
    #: needs a slot of the ledger first
    FETCH = enum.auto()
    #: removal needs no slot
    REMOVE = enum.auto()
    #: take the finalizer off and delete the object; the file stays as it is
    RELEASE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementPlan:
    """`status` None: leave it. `drop_job`: its result has been read, or nobody wants it any more."""

    status: TemplatePlacementStatus | None
    step: Step = Step.NONE
    attempt: int = 0
    drop_job: bool = False
    look_again: datetime.datetime | None = None


def plan_placement(
    placement: PlacementView, around: Surroundings, job: Job | None, now: datetime.datetime
) -> PlacementPlan:
    if placement.phase is Phase.REMOVING:
        return _removal(placement, around, job, now)
    if placement.deleting:
        # Deleted by hand or with its CRD: no order to remove the file (rule 12).
        return PlacementPlan(None, Step.RELEASE, drop_job=job is not None)
    if job is not None and not job.deleting and job.verb is not Verb.REMOVE:
        return _with_job(placement, around, job, now)
    return _without_job(placement, around, job, now)


def mark_removing(placement: PlacementView, now: datetime.datetime) -> TemplatePlacementStatus:
    """The status that says, durably, that the file shall go."""
    verdict = Verdict(False, Reason.REMOVED, "the file is being removed: no deployment wants it any more")
    return _status(placement, Phase.REMOVING, verdict, now)


def waiting_for_slot(
    placement: PlacementView, group: str, limit: int, now: datetime.datetime
) -> TemplatePlacementStatus:
    message = f"{limit} downloads run at once for {group}; it waits for one of them to end"
    return _status(placement, Phase.PENDING, Verdict(False, Reason.WAITING_FOR_SLOT, message), now)


def downloading(placement: PlacementView, attempt: int, now: datetime.datetime) -> TemplatePlacementStatus:
    """The status once the job of `attempt` has been created."""
    verdict = Verdict(False, Reason.DOWNLOADING, f"attempt {attempt} runs on host {placement.host}")
    return _status(
        placement, Phase.DOWNLOADING, verdict, now, attempts=attempt, started=placement.started or now, keep_file=False
    )


def retry_pause_seconds(name: str, attempt: int, retry: Retry, retry_after_seconds: float | None) -> float:
    """Exponential backoff with jitter of ±20 % that depends on the name, so that hosts spread out.

    A longer `Retry-After` (RFC 9110, section 10.2.3) wins, up to an hour.
    """
    pause: float = min(retry.maximum, retry.initial * 2 ** min(attempt - 1, 32))
    fraction = int.from_bytes(hashlib.sha256(f"{name}/{attempt}".encode()).digest()[:4], "big") / 2**32
    return max(pause * (0.8 + 0.4 * fraction), min(retry_after_seconds or 0, LONGEST_RETRY_AFTER_SECONDS))


def _status(
    placement: PlacementView,
    phase: Phase,
    verdict: Verdict,
    now: datetime.datetime,
    *,
    attempts: int | None = None,
    next_attempt: datetime.datetime | None = None,
    started: datetime.datetime | None = None,
    file: PlacedFile | None = None,
    keep_file: bool = True,
) -> TemplatePlacementStatus:
    return TemplatePlacementStatus(
        observed_generation=placement.generation,
        # Whatever is written, the phase carries the request on from here.
        last_handled_request=placement.requested_at or None,
        conditions=conditions(verdict, placement.conditions, placement.generation, now),
        phase=phase,
        started_time=started or placement.started,
        file=file or (placement.file if keep_file else None),
        attempts=placement.attempts if attempts is None else attempts,
        next_attempt_time=next_attempt,
    )


def _with_job(placement: PlacementView, around: Surroundings, job: Job, now: datetime.datetime) -> PlacementPlan:
    """A fetch is there: it runs, or it has ended and says how."""
    if _accounted(placement, job):
        return PlacementPlan(None, drop_job=True)
    result = _result(job, now)
    if result is not None:
        return _after_attempt(placement, around, job, result, now)
    return PlacementPlan(downloading(placement, job.attempt, now), look_again=_start_deadline(job))


def _result(job: Job, now: datetime.datetime) -> JobResult | None:
    """How the job ended, also when it cannot say so itself; None while it runs or may yet start."""
    deadline = _start_deadline(job)
    if job.finished:
        what = "the job ended without a result"
    elif deadline is not None and now >= deadline:
        what = "the pod did not start within 5 minutes"
    else:
        return None
    hint = f": {job.hint}" if job.hint else ""
    return job.result or JobResult(reason=Reason.INTERRUPTED, message=what + hint)


def _start_deadline(job: Job) -> datetime.datetime | None:
    """When a job that has not started counts as ended; None once it has."""
    return None if job.started else job.created + START_DEADLINE


def _accounted(placement: PlacementView, job: Job) -> bool:
    """Whether the result of `job` already stands in the status, so that only its deletion is left."""
    return placement.attempts >= job.attempt and placement.phase not in (None, Phase.DOWNLOADING)


def _after_attempt(
    placement: PlacementView, around: Surroundings, job: Job, result: JobResult, now: datetime.datetime
) -> PlacementPlan:
    if result.done:
        file = PlacedFile(
            # Never what the job says: it has read foreign bytes, and others open this path.
            path=placement.path,
            size_bytes=result.size_bytes,
            digest=result.digest or None,
            format=result.format or None,
            virtual_size_bytes=result.virtual_size_bytes,
            verified_time=now,
        )
        verdict = Verdict(True, result.reason, result.message)
        status = _status(placement, Phase.READY, verdict, now, attempts=job.attempt, file=file)
        return PlacementPlan(status, drop_job=True)
    differs = result.reason is Reason.SOURCE_CHANGED and around.template is not None and around.template.status.digest
    message = result.message or f"the job ended with {result.reason}"
    if result.reason in PERMANENT or differs:
        verdict = Verdict(False, result.reason, message, stalled=True)
        status = _status(placement, Phase.FAILED, verdict, now, attempts=job.attempt)
        return PlacementPlan(status, drop_job=True)
    next_attempt = _next_attempt(placement, around, job, result, now)
    verdict = Verdict(False, result.reason, message)
    status = _status(placement, Phase.PENDING, verdict, now, attempts=job.attempt, next_attempt=next_attempt)
    return PlacementPlan(status, drop_job=True, look_again=next_attempt)


def _next_attempt(
    placement: PlacementView, around: Surroundings, job: Job, result: JobResult, now: datetime.datetime
) -> datetime.datetime:
    retry = around.zone.spec.downloads.retry if around.zone is not None else Retry()
    pause = retry_pause_seconds(placement.key, job.attempt, retry, result.retry_after_seconds)
    # Times in a status have whole seconds: rounding up keeps the next look from coming too early.
    return (now + datetime.timedelta(seconds=pause + 1)).replace(microsecond=0)


def _without_job(
    placement: PlacementView, around: Surroundings, job: Job | None, now: datetime.datetime
) -> PlacementPlan:
    # A job that removes a copy which is wanted; any other is on its way out already.
    unwanted = job is not None and not job.deleting
    asked = _asked(placement)
    changed = placement.observed_generation not in (None, placement.generation)
    if placement.phase is Phase.READY:
        verdict = Verdict(True, placement.reason or Reason.DOWNLOADED, placement.message)
        return PlacementPlan(_status(placement, Phase.READY, verdict, now), drop_job=unwanted)
    if placement.phase is Phase.FAILED and not asked and not changed:
        return PlacementPlan(None, drop_job=unwanted)
    if job is not None:
        # The next one waits until this one is gone.
        return PlacementPlan(None, drop_job=unwanted)
    obstacle = _obstacle(around)
    if obstacle is not None:
        return PlacementPlan(_status(placement, Phase.PENDING, obstacle, now))
    if placement.next_attempt is not None and placement.next_attempt > now and not asked:
        return PlacementPlan(None, look_again=placement.next_attempt)
    return PlacementPlan(None, Step.FETCH, attempt=placement.attempts + 1)


def _asked(placement: PlacementView) -> bool:
    return bool(placement.requested_at) and placement.requested_at != placement.last_handled_request


def _obstacle(around: Surroundings) -> Verdict | None:
    """What a fetch has to wait for, the widest first."""
    zone, host, pool = around.zone, around.host, around.pool
    if zone is None or not zone.spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, "the Zone is disabled or gone: nothing new starts there")
    if host is None or host.status.state in (None, "Down"):
        ready = host.status.condition("Ready") if host is not None else None
        return Verdict(
            False, Reason.HOST_DOWN, f"the host is Down: {ready.message if ready else 'it has no Host object'}"
        )
    if host.status.state == "Maintenance":
        return Verdict(False, Reason.MAINTENANCE, "the host is in maintenance: nothing new starts there")
    if pool is None:
        return Verdict(False, Reason.POOL_NOT_READY, "there is no such StoragePool any more")
    blocked = pool_planning.obstacle(pool, host, around.pool_roots)
    if blocked is Reason.NOT_MOUNTED:
        return Verdict(False, blocked, f"nothing is mounted at {pool.spec.path} on host {host.name}")
    if blocked is not None:
        message = f"StoragePool {pool.name} is not usable on host {host.name}: {blocked}"
        return Verdict(False, Reason.POOL_NOT_READY, message)
    if around.template is None or around.template.deleting:
        return Verdict(False, Reason.TEMPLATE_NOT_FOUND, "the Template is gone")
    return Verdict(False, Reason.PAUSED, "every deployment that wants it is paused") if around.paused else None


def _removal(placement: PlacementView, around: Surroundings, job: Job | None, now: datetime.datetime) -> PlacementPlan:
    """The file shall go: by a job on the host that has it. A Host that is deleted takes its files along."""
    if around.host is None:
        return PlacementPlan(None, Step.RELEASE, drop_job=job is not None)
    if job is not None and (job.verb is not Verb.REMOVE or job.deleting):
        return PlacementPlan(None, drop_job=not job.deleting)
    result = _result(job, now) if job is not None else None
    if job is not None and result is not None:
        if result.done:
            return PlacementPlan(None, Step.RELEASE, drop_job=True)
        if _accounted(placement, job):
            return PlacementPlan(None, drop_job=True)
        next_attempt = _next_attempt(placement, around, job, result, now)
        verdict = Verdict(False, result.reason, result.message or f"the job ended with {result.reason}")
        status = _status(placement, Phase.REMOVING, verdict, now, attempts=job.attempt, next_attempt=next_attempt)
        return PlacementPlan(status, drop_job=True, look_again=next_attempt)
    if job is not None:
        return PlacementPlan(None, look_again=_start_deadline(job))
    obstacle = _obstacle(around)
    if obstacle is not None and obstacle.reason in WAITING:
        return PlacementPlan(_status(placement, Phase.REMOVING, obstacle, now))
    if placement.next_attempt is not None and placement.next_attempt > now and not _asked(placement):
        return PlacementPlan(None, look_again=placement.next_attempt)
    return PlacementPlan(None, Step.REMOVE, attempt=placement.attempts + 1)
