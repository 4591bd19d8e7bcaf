"""Published files stay as they were: what the agent saw, what a verification found, and when one is due.

A file that is gone is fetched again. One that looks changed (size, mtime or inode) is verified first: only its digest
can prove a change. Besides, every file is verified once in each `StoragePool.spec.verifyInterval`.
"""

import datetime
import hashlib
import math

from directdownload.planning import attempts, peers, startup
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.plans import PlacementPlan, Step, Surroundings, request_due, status_of
from directdownload.resources.jobs import PeerRole
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase

_FOUND_BAD = frozenset({Reason.ALTERED, Reason.MISSING})


def plan_ready(
    placement: PlacementView, around: Surroundings, obstacle: Verdict | None, now: datetime.datetime
) -> PlacementPlan:
    """A copy that is Ready and has no job. `obstacle`: why nothing can start on its host."""
    if _seen(placement) and not placement.observed_present:
        return _repair(placement, around, Reason.MISSING, f"{placement.path} is gone", placement.attempts, now)
    if around.part is not None and around.part.records and obstacle is None:
        attempt = attempts.one_more(placement.attempts)
        return PlacementPlan(None, Step.VERIFY, attempt=attempt, role=PeerRole.SEED)
    due = _due(placement, around, now)
    if due is None or due > now:
        verdict = Verdict(True, placement.reason or Reason.DOWNLOADED, placement.message)
        # A verification serves a request: one that waits for its time goes on waiting.
        status = status_of(placement, Phase.READY, verdict, now, next_attempt=placement.next_attempt_time, serves=False)
        return PlacementPlan(status, look_again=due)
    if obstacle is not None:
        return PlacementPlan(None)
    return PlacementPlan(None, Step.VERIFY, attempt=attempts.one_more(placement.attempts))


def plan_verification(
    placement: PlacementView, around: Surroundings, job: Job, now: datetime.datetime
) -> PlacementPlan:
    """A `verify` job exists."""
    if placement.phase is not Phase.READY or placement.attempts >= job.attempt:
        # No longer needed, or its result is written already.
        return PlacementPlan(None, drop_job=True)
    if attempts.given_up(placement, job, now):
        return PlacementPlan(None, drop_job=True, gives_up=True)
    result = attempts.result_of(job, now, reachable=around.host is not None and around.host.status.state != "Down")
    if result is None:
        return PlacementPlan(None, look_again=startup.look_again(job, now))
    if result.reason in _FOUND_BAD:
        return _repair(placement, around, result.reason, result.message, job.attempt, now, job)
    if result.reason is Reason.VERIFIED and placement.file is not None:
        found: dict[str, object] = {"verified_time": now, "revision": result.revision or None}
        if result.published_digest:
            found["published_digest"] = result.published_digest
        if (content := peers.recorded(job, result)) is not None:
            found["content"] = content
        file = placement.file.placed().model_copy(update=found)
        verdict = Verdict(True, Reason.VERIFIED, result.message)
        status = status_of(placement, Phase.READY, verdict, now, attempts=job.attempt, file=file, failures=0, job=job)
        return PlacementPlan(status, drop_job=True, outcome=result)
    # The job says nothing about the file, which counts as before.
    failures = attempts.one_more(placement.recent_failures)
    when = attempts.next_attempt(placement, around.retry, failures, now, result.retry_after_seconds)
    verdict = Verdict(
        True,
        placement.reason or Reason.DOWNLOADED,
        f"the last verification ended with {result.reason}: {result.message}",
    )
    count = attempts.counted(job)
    status = status_of(
        placement, Phase.READY, verdict, now, attempts=count, next_attempt=when, failures=failures, job=job
    )
    return PlacementPlan(status, drop_job=True, look_again=when, outcome=result, gives_up=attempts.gives_up(job))


def _repair(
    placement: PlacementView,
    around: Surroundings,
    reason: Reason,
    message: str,
    attempt: int,
    now: datetime.datetime,
    job: Job | None = None,
) -> PlacementPlan:
    """The copy is Pending again: at once if it was good for a while, else after a pause: someone may be changing it."""
    before = attempts.failures_before(placement, around.retry, now)
    when = attempts.next_attempt(placement, around.retry, before, now) if before else None
    status = status_of(
        placement,
        Phase.PENDING,
        Verdict(False, reason, f"{message}; it is fetched again"),
        now,
        attempts=attempt,
        next_attempt=when,
        keep_file=False,
        failures=attempts.one_more(before),
        job=job,
    )
    found = job.result if job is not None else None
    return PlacementPlan(status, drop_job=job is not None, look_again=when, outcome=found)


def _seen(placement: PlacementView) -> bool:
    """Whether the agent's observation is of the file in the status, and not of an earlier one."""
    return (
        placement.file is not None
        and placement.file.revision is not None
        and placement.observed_revision == placement.file.revision
    )


def _due(placement: PlacementView, around: Surroundings, now: datetime.datetime) -> datetime.datetime | None:
    """When the file is to be verified; None: never."""
    due = now if _seen(placement) and placement.observed_changed else _scheduled(placement, around)
    request = request_due(placement, now)
    if request is not None:
        due = request if due is None else min(due, request)
    # A verification that could not look at the file delays the next one.
    return max(due, placement.next_attempt_time) if due is not None and placement.next_attempt_time is not None else due


def _scheduled(placement: PlacementView, around: Surroundings) -> datetime.datetime | None:
    """Each copy has its own moment in the interval, so that a fleet that was filled at once is not read at once.

    It is the first such moment after the last verification: no verification is older than the interval.
    """
    interval = around.pool.spec.verify_interval if around.pool is not None else 0
    verified = placement.file.verified_time if placement.file is not None else None
    if not interval or verified is None:
        return None
    fraction = int.from_bytes(hashlib.sha256(placement.uid.encode()).digest()[:4], "big") / 2**32
    # Times in a status have whole seconds: with a fraction, the moment just served would seem to be in the future.
    offset = math.floor(fraction * interval)
    number = math.floor((verified.timestamp() - offset) / interval) + 1
    try:
        return datetime.datetime.fromtimestamp(number * interval + offset, datetime.UTC)
    except (OverflowError, ValueError):
        # After the year 9999.
        return None
