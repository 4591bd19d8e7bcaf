"""The life of one placement: what its job reports, what stands in the way, and what to do next.

`plan_placement` looks at everything anew each time (architecture, rule 1): an existing job is adopted whoever created
it, and the number of the next attempt follows from the jobs and the status that exist.
"""

import datetime
import hashlib
import json
from typing import Any

from directdownload.planning import attempts, digests, header_secrets, peers, removal, repair, requests, startup
from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import FileView, Job, PlacementView
from directdownload.planning.plans import (
    PlacementPlan,
    Step,
    Surroundings,
    downloading,
    held_up,
    request_due,
    status_of,
)
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import PERMANENT, Reason
from directdownload.resources.templateplacement import BytesFrom, Phase
from directdownload.resources.zone import SourcePolicy

#: The fields of `sourcePolicy` in 0.1.0.
_FIRST = (
    *("protocols", "allowedHosts", "allowedCIDRs", "maxRedirects"),
    *("requireChecksum", "requireDirect", "minimumChecksum"),
)
_DEFAULTS = SourcePolicy().model_dump(mode="json")
_HANG_LOOK = datetime.timedelta(seconds=30)
#: A Seed that starts to run calls those that wait for it; this is for a call that was lost.
_SEED_LOOK = datetime.timedelta(minutes=5)


def plan_placement(
    placement: PlacementView, around: Surroundings, job: Job | None, now: datetime.datetime
) -> PlacementPlan:
    removing = placement.phase is Phase.REMOVING
    if placement.phase is Phase.UNKNOWN or (removing and around.held):
        # This version does not know the phase, nor whether it still holds: it leaves the copy alone.
        return PlacementPlan(None)
    if job is not None and job.verb is None and not job.deleting:
        # A job of another version runs to its end. Its result is not understood, and the next job looks anew.
        return PlacementPlan(None, drop_job=job.finished)
    if (placement.deleting and not removing) or (around.departed and not around.shared):
        # Deleted by hand or with its definition, or its host is gone for good: no order to remove the file (rule 12).
        return PlacementPlan(None, Step.RELEASE, drop_job=job is not None)
    if removing and around.claimed:
        return PlacementPlan(None, Step.RELEASE, drop_job=job is not None)
    if around.successor and not (job is not None and job.finished):
        return PlacementPlan(None, Step.HAND_OVER, drop_job=job is not None)
    if removing:
        return removal.plan_removal(placement, around, job, _obstacle(around) or around.in_use, now)
    if job is not None and not job.deleting and job.verb is Verb.FETCH:
        return digests.hold(_with_fetch(placement, around, job, now), around.template, job)
    if job is not None and not job.deleting and job.verb is Verb.VERIFY:
        return repair.plan_verification(placement, around, job, now)
    return _without_job(placement, around, job, now)


def inputs_of(around: Surroundings) -> str:
    """A hash of all that people wrote and that decides how a fetch ends: another one lifts a stall. After a dot, a hash
    of the host's keystore, if it is known: another one ends the pause after an unknown certificate."""
    if around.template is None or around.zone is None or around.pool is None:
        return ""
    template, downloads = around.template.spec, around.zone.spec.downloads
    told = [
        *(template.url, template.mirrors, template.checksum, str(template.headers_secret_ref)),
        *(downloads.max_size_bytes, downloads.max_virtual_size_bytes, _told(around.zone.spec.source_policy)),
        around.pool.spec.file.model_dump(mode="json"),
    ]
    keystore = around.host.status.keystore if around.host is not None else None
    trust = f".{keystore.sha256[:10]}" if keystore is not None and keystore.sha256 else ""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10] + trust


def _told(policy: SourcePolicy) -> dict[str, Any]:
    """As 0.1.0 wrote it, so that an upgrade is no reason to try again: a field that is newer counts once it is set."""
    told = policy.model_dump(mode="json")
    return {name: value for name, value in told.items() if name in _FIRST or value != _DEFAULTS[name]}


def _with_fetch(placement: PlacementView, around: Surroundings, job: Job, now: datetime.datetime) -> PlacementPlan:
    """A fetch exists: it runs, or it has ended and says how."""
    if placement.attempts >= job.attempt and placement.phase not in (None, Phase.DOWNLOADING):
        # Its result is in the status already: only its deletion is left.
        return PlacementPlan(None, drop_job=True)
    if attempts.given_up(placement, job, now):
        return PlacementPlan(None, drop_job=True, gives_up=True)
    obstacle = _host_down(around)
    result = attempts.result_of(job, now, reachable=obstacle is None)
    if result is not None:
        return _after_fetch(placement, around, job, result, now)
    shown = peers.shown(placement, job.role) if _shares(around, job) else None
    status = downloading(placement, job.attempt, now, job=job, peers=shown)
    if obstacle is not None:
        # The job may go on there unseen, or end with its node: its host will report it when it is back.
        verdict = Verdict(False, Reason.HOST_DOWN, f"{obstacle.message}; attempt {job.attempt} was running there")
        status = status_of(placement, Phase.DOWNLOADING, verdict, now, attempts=job.attempt, keep_file=False, job=job)
    # While the pool does not answer, time alone may give a shared copy to another host.
    hangs = around.shared and job.started and _obstacle(around) is not None
    return PlacementPlan(status, look_again=now + _HANG_LOOK if hangs else startup.look_again(job, now))


def _shares(around: Surroundings, job: Job) -> bool:
    return around.part is not None or job.role is not None


def _after_fetch(
    placement: PlacementView, around: Surroundings, job: Job, result: JobResult, now: datetime.datetime
) -> PlacementPlan:
    shown = peers.after(placement, job, result) if _shares(around, job) else None
    if result.done:
        file = FileView(
            # Never the job's path: it has read foreign bytes, and others open this path.
            path=placement.path,
            size_bytes=result.size_bytes,
            served_bytes=result.served_bytes,
            digest=result.digest or None,
            published_digest=result.published_digest or None,
            format=result.format or None,
            virtual_size_bytes=result.virtual_size_bytes,
            # A file that was there may not have been read for long: its next verification counts from then.
            verified_time=min(now, result.verified_time or now),
            revision=result.revision or None,
            content=peers.recorded(job, result),
            bytes_from=BytesFrom(origin=result.origin_bytes, peers=result.peer_bytes) if shown is not None else None,
        ).placed()
        verdict = Verdict(True, result.reason, result.message)
        status = status_of(placement, Phase.READY, verdict, now, attempts=job.attempt, file=file, peers=shown)
        return PlacementPlan(status, drop_job=True, outcome=result)
    failures = attempts.one_more(placement.recent_failures)
    differs = result.reason is Reason.SOURCE_CHANGED and around.template is not None and around.template.status.digest
    message = result.message or f"the job ended with {result.reason}"
    if result.reason in PERMANENT or differs:
        verdict = Verdict(False, result.reason, message, stalled=True)
        status = status_of(
            placement, Phase.FAILED, verdict, now, attempts=job.attempt, failures=failures, job=job, peers=shown
        )
        return PlacementPlan(status, drop_job=True, outcome=result)
    when = attempts.next_attempt(placement, around.retry, failures, now, result.retry_after_seconds)
    verdict = Verdict(False, result.reason, message)
    count = attempts.counted(job)
    status = status_of(
        placement,
        Phase.PENDING,
        verdict,
        now,
        attempts=count,
        next_attempt=when,
        failures=failures,
        job=job,
        peers=shown,
    )
    return PlacementPlan(status, drop_job=True, look_again=when, outcome=result, gives_up=attempts.gives_up(job))


def _without_job(
    placement: PlacementView, around: Surroundings, job: Job | None, now: datetime.datetime
) -> PlacementPlan:
    if job is not None:
        # A job that removes a wanted copy, or one that is being deleted: the next one waits until it is gone.
        down = _host_down(around) if placement.phase in (None, Phase.PENDING) else None
        shown = held_up(placement, Phase.PENDING, down, now) if down is not None else None
        return PlacementPlan(shown, drop_job=not job.deleting)
    if placement.phase is Phase.READY:
        return repair.plan_ready(placement, around, _obstacle(around), now)
    changed = placement.observed_generation not in (None, placement.generation)
    told_before, _, trusted_before = (placement.observed_inputs or "").partition(".")
    told, _, trusted = inputs_of(around).partition(".")
    told_otherwise = told_before not in ("", told)
    request = request_due(placement, now)
    if placement.phase is Phase.FAILED and not (requests.is_due(request, now) or changed or told_otherwise):
        return PlacementPlan(None, look_again=request)
    obstacle = _obstacle(around) or _fetch_obstacle(around)
    if obstacle is not None:
        return PlacementPlan(held_up(placement, Phase.PENDING, obstacle, now), look_again=requests.later(request, now))
    trusts_otherwise = placement.reason is Reason.TLS_VERIFICATION_FAILED and trusted != trusted_before
    pause = attempts.pause_end(placement, request)
    if pause is not None and pause > now and not trusts_otherwise:
        # A request in between is served then: it lifts a stall, and no pause.
        return PlacementPlan(None, look_again=pause)
    part = around.part or peers.Part()
    if part.waits is not None:
        return PlacementPlan(held_up(placement, Phase.PENDING, part.waits, now), look_again=now + _SEED_LOOK)
    return PlacementPlan(None, Step.FETCH, attempt=attempts.one_more(placement.attempts), role=part.role)


def startable(around: Surroundings) -> bool:
    """Whether nothing stands in the way of a fetch, slots apart."""
    return _obstacle(around) is None and _fetch_obstacle(around) is None


def verifiable(around: Surroundings) -> bool:
    """Whether nothing stands in the way of a verification, slots apart."""
    return _obstacle(around) is None


def _obstacle(around: Surroundings) -> Verdict | None:
    """The obstacle to any job, the widest first; None: there is none."""
    zone, host, pool = around.zone, around.host, around.pool
    if zone is None or not zone.spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, "the Zone is disabled or gone: nothing new starts there")
    if (down := _host_down(around)) is not None or host is None:
        return down
    if host.status.state == "Maintenance":
        return Verdict(False, Reason.MAINTENANCE, "the host is in maintenance: nothing new starts there")
    if pool is None:
        return Verdict(False, Reason.POOL_NOT_READY, "its StoragePool is gone")
    blocked = pool_planning.obstacle(pool, host, around.pool_roots)
    if blocked is Reason.NOT_MOUNTED:
        return Verdict(False, blocked, f"nothing is mounted at {pool.spec.path} on host {host.name}")
    if blocked is not None:
        message = f"StoragePool {pool.name} is not usable on host {host.name}: {blocked}"
        return Verdict(False, Reason.POOL_NOT_READY, message)
    return None


def _host_down(around: Surroundings) -> Verdict | None:
    host = around.host
    if host is not None and host.status.state not in (None, "Down"):
        return None
    ready = host.status.condition("Ready") if host is not None else None
    return Verdict(False, Reason.HOST_DOWN, f"the host is Down: {ready.message if ready else 'it has no Host object'}")


def _fetch_obstacle(around: Surroundings) -> Verdict | None:
    """The further obstacle to a fetch; None: there is none."""
    if around.template is None or around.template.deleting:
        return Verdict(False, Reason.TEMPLATE_NOT_FOUND, "the Template is gone")
    if around.paused:
        return Verdict(False, Reason.PAUSED, "every deployment that wants it is paused, or cannot be read")
    return header_secrets.obstacle(around.template)
