"""One attempt of a job: when it counts as ended, how it ended, and when the next one is due."""

import datetime
import hashlib

from directdownload.planning import startup
from directdownload.planning.observed import Job, PlacementView
from directdownload.resources import naming
from directdownload.resources.jobs import SUCCESSES, JobResult
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import Retry

#: A server can delay a host's next attempt by this much at most.
LONGEST_RETRY_AFTER_SECONDS = 3600.0
#: Each pause is shortened by up to this share, so that hosts that failed together do not return together.
_JITTER = 0.25


def one_more(number: int) -> int:
    """`number` of attempts or failures plus one, up to `naming.ATTEMPT_LIMIT`."""
    return min(number + 1, naming.ATTEMPT_LIMIT)


def result_of(job: Job, now: datetime.datetime, *, reachable: bool = True) -> JobResult | None:
    """How the job ended, even if it left no result or its pod is blocked; None while it runs or may still start.

    `reachable`: its host is not Down.
    """
    if not job.finished:
        words = startup.blocked(job, now, reachable=reachable)
        return JobResult(reason=Reason.POD_BLOCKED, message=words) if words is not None else None
    hint = f": {job.hint}" if job.hint else ""
    # A job that has met foreign bytes may say anything. A success that its verb cannot have is no result.
    told = job.result
    if told is not None and told.done and job.verb is not None and told.reason not in SUCCESSES[job.verb]:
        told = None
    return told or JobResult(reason=Reason.INTERRUPTED, message="the job ended without a result" + hint)


def gives_up(job: Job) -> bool:
    """Whether a job that counts as ended is given up: it has not begun to run."""
    return not (job.started or job.finished)


def counted(job: Job) -> int:
    """The number of attempts once `job` has ended. One that was given up is no attempt: the next one has its number."""
    return max(job.attempt - 1, 0) if gives_up(job) else job.attempt


def given_up(placement: PlacementView, job: Job, now: datetime.datetime) -> bool:
    """Whether `job` has been given up already, and the pause after it has begun: only its deletion is left."""
    pauses = placement.next_attempt_time is not None and placement.next_attempt_time > now
    # The one that serves a newer request was created in that pause.
    return gives_up(job) and pauses and job.request in ("", placement.last_handled_request)


def pause_end(placement: PlacementView, request: datetime.datetime | None) -> datetime.datetime | None:
    """When the next attempt is due, None: at once. `request`: when the request on the placement may be served.

    A request ends the pause after a blocked pod, which has asked no server.
    """
    pause = placement.next_attempt_time
    if pause is None or request is None or placement.reason is not Reason.POD_BLOCKED:
        return pause
    return min(pause, request)


def retry_pause_seconds(name: str, failures: int, retry: Retry, retry_after_seconds: float | None) -> float:
    """Seconds: exponential backoff after `failures` in a row, with jitter that depends on the name.

    At most `retry.maximum`; a longer `Retry-After` (RFC 9110, section 10.2.3) wins, up to an hour.
    """
    pause: float = min(retry.maximum, retry.initial * 2 ** min(failures - 1, 32))
    fraction = int.from_bytes(hashlib.sha256(f"{name}/{failures}".encode()).digest()[:4], "big") / 2**32
    return max(pause * (1 - _JITTER * fraction), min(retry_after_seconds or 0, LONGEST_RETRY_AFTER_SECONDS))


def next_attempt(
    placement: PlacementView,
    retry: Retry,
    failures: int,
    now: datetime.datetime,
    retry_after_seconds: float | None = None,
) -> datetime.datetime:
    pause = retry_pause_seconds(placement.key, failures, retry, retry_after_seconds)
    # Times in a status have whole seconds. Rounding up keeps the next look from coming too early.
    return (now + datetime.timedelta(seconds=pause + 1)).replace(microsecond=0)


def failures_before(placement: PlacementView, retry: Retry, now: datetime.datetime) -> int:
    """The failures that still count: none once the copy has been good for longer than the longest pause."""
    good_since = placement.file.verified_time if placement.phase is Phase.READY and placement.file else None
    if good_since is not None and (now - good_since).total_seconds() > retry.maximum:
        return 0
    return placement.recent_failures
