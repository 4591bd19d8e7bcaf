"""Removal of an unwanted copy: a job on the host that has it removes the file, however long that takes.

The placement stays in phase Removing until the file is gone or its host has left for good.
"""

import datetime

from directdownload.planning import attempts
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.plans import PlacementPlan, Step, Surroundings, held_up, status_of
from directdownload.resources.jobs import Verb
from directdownload.resources.reasons import WAITING, Reason
from directdownload.resources.templateplacement import Phase


def plan_removal(
    placement: PlacementView, around: Surroundings, job: Job | None, obstacle: Verdict | None, now: datetime.datetime
) -> PlacementPlan:
    """`obstacle`: why nothing can start on its host."""
    if job is not None and (job.verb is not Verb.REMOVE or job.deleting):
        return PlacementPlan(None, drop_job=not job.deleting)
    result = attempts.result_of(job, now) if job is not None else None
    if job is not None and result is not None:
        if result.done:
            return PlacementPlan(None, Step.RELEASE, drop_job=True, outcome=result)
        if placement.attempts >= job.attempt:
            return PlacementPlan(None, drop_job=True)
        failures = attempts.one_more(placement.recent_failures)
        when = attempts.next_attempt(placement, around.retry, failures, now, result.retry_after_seconds)
        verdict = Verdict(False, result.reason, result.message or f"the job ended with {result.reason}")
        status = status_of(
            placement, Phase.REMOVING, verdict, now, attempts=job.attempt, next_attempt=when, failures=failures, job=job
        )
        return PlacementPlan(status, drop_job=True, look_again=when, outcome=result)
    if job is not None:
        down = obstacle is not None and obstacle.reason is Reason.HOST_DOWN
        shown = status_of(placement, Phase.REMOVING, obstacle, now, job=job) if obstacle is not None and down else None
        return PlacementPlan(shown, look_again=attempts.start_deadline(job))
    if obstacle is not None and obstacle.reason in WAITING:
        return PlacementPlan(held_up(placement, Phase.REMOVING, obstacle, now))
    if placement.next_attempt is not None and placement.next_attempt > now:
        return PlacementPlan(None, look_again=placement.next_attempt)
    return PlacementPlan(None, Step.REMOVE, attempt=attempts.one_more(placement.attempts))
