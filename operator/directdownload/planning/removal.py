"""Removal of an unwanted copy: a job on the host that has it removes the file, however long that takes.

The placement stays in phase Removing until the file is gone or its host has left for good.
"""

import datetime

from directdownload.planning import attempts, startup
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.plans import PlacementPlan, Step, Surroundings, held_up, request_due, status_of
from directdownload.resources.jobs import Verb
from directdownload.resources.reasons import WAITING, Reason
from directdownload.resources.templateplacement import Phase


def plan_removal(
    placement: PlacementView, around: Surroundings, job: Job | None, obstacle: Verdict | None, now: datetime.datetime
) -> PlacementPlan:
    """`obstacle`: why nothing can start on its host."""
    down = obstacle if obstacle is not None and obstacle.reason is Reason.HOST_DOWN else None
    if job is not None and (job.verb is not Verb.REMOVE or job.deleting):
        # On a lost host its pod lingers until the host is back.
        shown = held_up(placement, Phase.REMOVING, down, now) if down is not None else None
        return PlacementPlan(shown, drop_job=not job.deleting)
    if job is not None and attempts.given_up(placement, job, now):
        return PlacementPlan(None, drop_job=True, gives_up=True)
    result = attempts.result_of(job, now, reachable=down is None) if job is not None else None
    if job is not None and result is not None:
        if result.done:
            return PlacementPlan(None, Step.RELEASE, drop_job=True, outcome=result)
        if placement.attempts >= job.attempt:
            return PlacementPlan(None, drop_job=True)
        failures = attempts.one_more(placement.recent_failures)
        when = attempts.next_attempt(placement, around.retry, failures, now, result.retry_after_seconds)
        verdict = Verdict(False, result.reason, result.message or f"the job ended with {result.reason}")
        count = attempts.counted(job)
        status = status_of(
            placement, Phase.REMOVING, verdict, now, attempts=count, next_attempt=when, failures=failures, job=job
        )
        return PlacementPlan(status, drop_job=True, look_again=when, outcome=result, gives_up=attempts.gives_up(job))
    if job is not None:
        shown = status_of(placement, Phase.REMOVING, down, now, job=job) if down is not None else None
        return PlacementPlan(shown, look_again=startup.look_again(job, now))
    if obstacle is not None and obstacle.reason in WAITING:
        return PlacementPlan(held_up(placement, Phase.REMOVING, obstacle, now))
    pause = attempts.pause_end(placement, request_due(placement, now))
    if pause is not None and pause > now:
        return PlacementPlan(None, look_again=pause)
    return PlacementPlan(None, Step.REMOVE, attempt=attempts.one_more(placement.attempts))
