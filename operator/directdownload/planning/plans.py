"""The input and the result of planning one placement, and the statuses that it writes.

Shared by `placements` (the dispatch and the fetch), `repair` and `removal`.
"""

import dataclasses
import datetime
import enum

from directdownload.planning import peers, requests, startup
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.observed import Job, PlacementView
from directdownload.resources.host import Host
from directdownload.resources.jobs import JobResult, PeerRole
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, PlacedFile, PlacementPeers, TemplatePlacementStatus
from directdownload.resources.zone import Retry, Zone


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """The objects that a placement depends on; None for each that does not exist (any more)."""

    template: Template | None
    zone: Zone | None
    host: Host | None
    pool: StoragePool | None
    pool_roots: tuple[str, ...] = ()
    #: every deployment that wants the copy is paused, or cannot be read
    paused: bool = False
    #: a deployment that cannot be read may want the copy
    held: bool = False
    #: the Host was deleted and no Zone selects a node of its name: it will not come back
    departed: bool = False
    #: another placement, which stays, has the same file on the same host
    claimed: bool = False
    #: volumes of pods want the copy
    demanded: bool = False
    #: why its file may not be removed: volumes use it
    in_use: Verdict | None = None
    #: the host that takes over the copy of a shared pool; empty: it stays where it is
    successor: str = ""
    #: its part in its swarm; None: hosts do not read from each other
    part: peers.Part | None = None

    @property
    def retry(self) -> Retry:
        return self.zone.spec.downloads.retry if self.zone is not None else Retry()

    @property
    def shared(self) -> bool:
        return self.pool is not None and self.pool.spec.shared


class Step(enum.Enum):
    """The controller's next step, apart from writing the status."""

    NONE = enum.auto()
    #: needs a slot first
    FETCH = enum.auto()
    #: needs a slot of its own kind
    VERIFY = enum.auto()
    #: removal needs no slot
    REMOVE = enum.auto()
    #: give a copy of a shared pool to `Surroundings.successor`
    HAND_OVER = enum.auto()
    #: take the finalizer off and delete the object; the file stays as it is
    RELEASE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementPlan:
    """`status` None: leave it. `drop_job`: its result has been read, or it is no longer needed.

    `outcome` is the result that this plan takes in; it is counted once. `teaches`: the Template is to take the job's
    digest; the job stays until it has.
    """

    status: TemplatePlacementStatus | None
    step: Step = Step.NONE
    attempt: int = 0
    drop_job: bool = False
    look_again: datetime.datetime | None = None
    outcome: JobResult | None = None
    teaches: bool = False
    #: the job is dropped because its pod is blocked: not if it has begun to run meanwhile
    gives_up: bool = False
    #: of the job that `step` starts
    role: PeerRole | None = None


def status_of(
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
    peers: PlacementPeers | None = None,
    failures: int | None = None,
    inputs: str | None = None,
    job: Job | None = None,
    serves: bool = True,
) -> TemplatePlacementStatus:
    """A complete status: fields that are not given are carried on, except the time of the next attempt.

    `job`: the one that the status is about. A request that came after its creation is still to be served. Without a job
    the phase serves the request from here, unless not `serves`.
    """
    before = placement.fields()
    changes = {
        "observed_generation": placement.generation,
        **_served(placement, now, job, serves=serves).fields(),
        "conditions": conditions(verdict, placement.conditions, placement.generation, now),
        "phase": phase,
        "started_time": started or before["started_time"],
        "file": file or (before["file"] if keep_file else None),
        "peers": peers or before["peers"],
        "attempts": before["attempts"] if attempts is None else attempts,
        "recent_failures": before["recent_failures"] if failures is None else failures or None,
        "next_attempt_time": next_attempt,
        "observed_inputs": before["observed_inputs"] if inputs is None else inputs or None,
    }
    return TemplatePlacementStatus(**{**before, **changes})


def _served(placement: PlacementView, now: datetime.datetime, job: Job | None, *, serves: bool) -> requests.Served:
    request = placement.requested_at if job is None else job.request
    if request and request != placement.last_handled_request:
        if job is not None or serves:
            # A time in a status has whole seconds, and must be the same each time this is computed.
            return requests.Served(request, (now if job is None else job.created).replace(microsecond=0))
        return requests.Served(placement.last_handled_request, placement.last_handled_request_time)
    return requests.Served(request or None, placement.last_handled_request_time)


def request_due(placement: PlacementView, now: datetime.datetime) -> datetime.datetime | None:
    """When the request on `placement` may be served, `now` if at once; None: there is none, or it was served."""
    before = requests.Served(placement.last_handled_request, placement.last_handled_request_time)
    return requests.due(placement.requested_at, before, now)


def mark_removing(placement: PlacementView, now: datetime.datetime) -> TemplatePlacementStatus:
    """The status that records durably that the file is to be removed."""
    verdict = Verdict(False, Reason.REMOVED, "the file is being removed: no deployment wants it any more")
    return status_of(placement, Phase.REMOVING, verdict, now, failures=0)


def mark_wanted(placement: PlacementView, now: datetime.datetime) -> TemplatePlacementStatus:
    """Takes `mark_removing` back. The next fetch finds out whether the file is still there."""
    verdict = Verdict(False, Reason.DOWNLOADING, "a deployment wants it again")
    return status_of(placement, Phase.PENDING, verdict, now, keep_file=False, failures=0)


def waiting_for_slot(
    placement: PlacementView, group: str, limit: int, now: datetime.datetime
) -> TemplatePlacementStatus:
    message = f"{limit} downloads run at once for {group}; this copy waits for one of them to end"
    verdict = Verdict(False, Reason.WAITING_FOR_SLOT, message)
    serves = requests.is_due(request_due(placement, now), now)
    return status_of(placement, Phase.PENDING, verdict, now, serves=serves)


def held_up(
    placement: PlacementView, phase: Phase, obstacle: Verdict, now: datetime.datetime
) -> TemplatePlacementStatus:
    """The status while `obstacle` stands in the way. A pause goes on meanwhile."""
    serves = requests.is_due(request_due(placement, now), now)
    return status_of(placement, phase, obstacle, now, next_attempt=placement.next_attempt_time, serves=serves)


def downloading(
    placement: PlacementView,
    attempt: int,
    now: datetime.datetime,
    *,
    inputs: str | None = None,
    job: Job | None = None,
    peers: PlacementPeers | None = None,
) -> TemplatePlacementStatus:
    """The status once the job of `attempt` has been created; `inputs`: hash of its inputs, if it is new.

    `job`: its present state, unless it has just been created. `peers`: its part in its swarm.
    """
    message = f"attempt {attempt} runs on host {placement.host}"
    if job is not None and startup.late(job, now):
        message = f"attempt {attempt} waits for its pod on host {placement.host}"
        message += f": {job.start.cause}" if job.start.cause else ""
    verdict = Verdict(False, Reason.DOWNLOADING, message)
    return status_of(
        placement,
        Phase.DOWNLOADING,
        verdict,
        now,
        attempts=attempt,
        started=placement.started_time or now,
        keep_file=False,
        peers=peers,
        inputs=inputs,
        job=job,
    )
