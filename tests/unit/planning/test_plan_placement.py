"""The life of one placement as tables: what its job says, what stands in the way, what is asked, what comes next."""

import dataclasses
import statistics
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, applied, around, host, job, placement, seconds, told, zone
from tests.unit.planning.obstacles import OBSTACLES, REASONS

from directdownload.planning import placements
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.placements import START_DEADLINE, Step, plan_placement, retry_pause_seconds
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import DONE, PERMANENT, Reason
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import Retry

FILE = {"path": "/var/lib/libvirt/images/x", "sizeBytes": 4096, "digest": build.DIGEST}
DONE_RESULT = JobResult(reason=Reason.DOWNLOADED, size_bytes=4096, digest=build.DIGEST, format="QCOW2")


def running(attempt: int = 1, **status: Any) -> PlacementView:
    return placement(phase="Downloading", reason=Reason.DOWNLOADING, status={"attempts": attempt, **status})


def waiting(attempt: int = 1, **status: Any) -> PlacementView:
    return placement(phase="Pending", reason=Reason.SOURCE_UNREACHABLE, status={"attempts": attempt, **status})


def failed(**fields: Any) -> PlacementView:
    status = {"attempts": 3, **fields.pop("status", {})}
    return placement(phase="Failed", reason=Reason.CHECKSUM_MISMATCH, status=status, **fields)


# --- the first steps


@pytest.mark.parametrize("phase", [None, "Pending"])
def test_a_new_placement_is_fetched(phase: str | None) -> None:
    plan = plan_placement(placement(phase=phase), around(), None, NOW)
    assert (plan.step, plan.attempt, plan.drop_job) == (Step.FETCH, 1, False)


def test_a_job_that_was_made_before_a_restart_is_adopted() -> None:
    for before in (placement(), waiting(0), waiting(1)):
        plan = plan_placement(before, around(), job(attempt=before.attempts + 1), NOW)
        assert plan.step is Step.NONE
        assert told(before, plan) == (Phase.DOWNLOADING, Reason.DOWNLOADING, ["Reconciling"])
        assert plan.status is not None
        assert plan.status.attempts == before.attempts + 1


def test_downloading_forgets_the_file_and_keeps_when_it_began() -> None:
    before = waiting(2, file=FILE, startedTime=build.stamp(NOW - seconds(500)))
    status = placements.downloading(before, 3, NOW)
    assert (status.file, status.attempts, status.started_time) == (None, 3, NOW - seconds(500))
    assert placements.downloading(placement(), 1, NOW).started_time == NOW


def test_waiting_for_a_slot_says_for_which() -> None:
    status = placements.waiting_for_slot(waiting(), "zone/zone-1", 20, NOW)
    assert (status.phase, status.conditions[0].reason) == (Phase.PENDING, Reason.WAITING_FOR_SLOT)
    assert "zone/zone-1" in status.conditions[0].message
    build.check_kstatus(waiting(), status)


# --- how an attempt ends


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_that_a_job_may_give(reason: Reason) -> None:
    before = running(2)
    result = dataclasses.replace(job(attempt=2, result=reason))
    plan = plan_placement(before, around(), result, NOW)
    assert (plan.step, plan.drop_job) == (Step.NONE, True)
    assert plan.status is not None
    assert plan.status.attempts == 2
    if reason in DONE:
        assert told(before, plan) == (Phase.READY, reason, ["Ready"])
        assert plan.look_again is None
    elif reason in PERMANENT:
        assert told(before, plan) == (Phase.FAILED, reason, ["Stalled"])
        assert plan.look_again is plan.status.next_attempt_time is None
    else:
        assert told(before, plan) == (Phase.PENDING, reason, ["Reconciling"])
        assert plan.look_again == plan.status.next_attempt_time
        # the second pause of `retry: {initial: 5s}`, with jitter and rounded up
        assert plan.look_again is not None
        assert seconds(8) <= plan.look_again - NOW <= seconds(13)
        assert plan.look_again.microsecond == 0


@pytest.mark.parametrize("reason", sorted(set(Reason) - DONE))
def test_a_result_without_words_still_says_something(reason: Reason) -> None:
    for phase in ("Downloading", "Removing"):
        before = placement(phase=phase, reason=Reason.DOWNLOADING)
        verb = "remove" if phase == "Removing" else "fetch"
        plan = plan_placement(before, around(), job(verb, result=JobResult(reason=reason)), NOW)
        assert told(before, plan)[1] is reason


def test_a_verified_copy_is_described_by_its_job_but_lies_where_it_was_planned() -> None:
    before = running()
    result = DONE_RESULT.model_copy(update={"path": "/etc/shadow", "virtual_size_bytes": 9000})
    status = plan_placement(before, around(), job(result=result), NOW).status
    assert status is not None
    assert status.file is not None
    found = status.file
    assert (found.path, found.size_bytes, found.digest) == (before.path, 4096, build.DIGEST)
    assert (found.format, found.virtual_size_bytes, found.verified_time) == ("QCOW2", 9000, NOW)


@pytest.mark.parametrize(
    ("learnt", "template_gone", "phase"),
    [("", False, Phase.PENDING), (build.DIGEST, False, Phase.FAILED), (build.DIGEST, True, Phase.PENDING)],
)
def test_a_source_that_changed_stalls_only_against_a_learnt_digest(
    learnt: str, template_gone: bool, phase: Phase
) -> None:
    template = None if template_gone else build.template(status={"digest": learnt} if learnt else {})
    plan = plan_placement(running(), around(template=template), job(result=Reason.SOURCE_CHANGED), NOW)
    assert told(running(), plan)[0] is phase


@pytest.mark.parametrize("hint", ["", "OOMKilled"])
def test_a_job_without_a_result_is_interrupted(hint: str) -> None:
    plan = plan_placement(running(), around(), job(finished=True, hint=hint), NOW)
    assert told(running(), plan) == (Phase.PENDING, Reason.INTERRUPTED, ["Reconciling"])
    assert plan.status is not None
    assert hint in plan.status.conditions[0].message


@pytest.mark.parametrize(
    ("age", "started", "phase"),
    [
        (seconds(0), False, Phase.DOWNLOADING),
        (START_DEADLINE - seconds(1), False, Phase.DOWNLOADING),
        (START_DEADLINE, False, Phase.PENDING),
        (START_DEADLINE + seconds(9), False, Phase.PENDING),
        (seconds(86400), True, Phase.DOWNLOADING),
    ],
)
def test_a_pod_that_never_runs_fails_its_attempt(age: Any, started: bool, phase: Phase) -> None:
    view = job(created=NOW - age, started=started, hint="ContainerCreating")
    plan = plan_placement(placement(), around(), view, NOW)
    assert told(placement(), plan)[0] is phase
    if phase is Phase.DOWNLOADING:
        assert plan.look_again == (None if started else view.created + START_DEADLINE)
        assert not plan.drop_job
    else:
        assert told(placement(), plan)[1] is Reason.INTERRUPTED
        assert plan.drop_job
        assert plan.status is not None
        assert "ContainerCreating" in plan.status.conditions[0].message


@pytest.mark.parametrize("before", [waiting(), failed(), placement(phase="Ready", status={"attempts": 3})])
@pytest.mark.parametrize("result", [None, Reason.CHECKSUM_MISMATCH, Reason.DOWNLOADED])
def test_a_result_is_accounted_once(before: PlacementView, result: Reason | None) -> None:
    plan = plan_placement(before, around(), job(attempt=before.attempts, result=result), NOW)
    assert plan == placements.PlacementPlan(None, drop_job=True)


def test_running_work_is_left_to_finish_whatever_happens_around() -> None:
    for obstacle in OBSTACLES.values():
        plan = plan_placement(running(), obstacle, job(), NOW)
        assert not plan.drop_job
        assert told(running(), plan)[0] is Phase.DOWNLOADING


# --- what stands in the way


@pytest.mark.parametrize("name", OBSTACLES)
@pytest.mark.parametrize("before", [placement(), waiting(), running(), failed(requested_at="now")])
def test_obstacles(name: str, before: PlacementView) -> None:
    plan = plan_placement(before, OBSTACLES[name], None, NOW)
    assert plan.step is Step.NONE
    assert told(before, plan) == (Phase.PENDING, REASONS[name], ["Reconciling"])
    assert plan.status is not None
    after = applied(before, plan.status)
    assert plan_placement(after, OBSTACLES[name], None, NOW + seconds(600)).status == plan.status
    # and once it is out of the way, nothing else is
    assert plan_placement(after, around(), None, NOW).step is Step.FETCH


def test_facts_that_are_missing_are_no_obstacle() -> None:
    assert plan_placement(placement(), around(host=host()), None, NOW).step is Step.FETCH


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_ready_stays_ready(name: str) -> None:
    ready = placement(phase="Ready", status={"attempts": 1, "file": FILE})
    plan = plan_placement(ready, OBSTACLES[name], None, NOW)
    assert (plan.step, plan.drop_job) == (Step.NONE, False)
    assert plan.status is None or ready.shows(plan.status)


# --- waiting for the next attempt, and being asked


@pytest.mark.parametrize(
    ("next_attempt", "requested", "handled", "step"),
    [
        (None, "", "", Step.FETCH),
        (NOW - seconds(1), "", "", Step.FETCH),
        (NOW, "", "", Step.FETCH),
        (NOW + seconds(1), "", "", Step.NONE),
        (NOW + seconds(1), "now", "now", Step.NONE),
        (NOW + seconds(1), "now", "", Step.FETCH),
        (NOW + seconds(1), "again", "now", Step.FETCH),
    ],
)
def test_backoff_is_waited_for_unless_asked(next_attempt: Any, requested: str, handled: str, step: Step) -> None:
    status: dict[str, Any] = {"attempts": 2, "lastHandledRequest": handled}
    if next_attempt is not None:
        status["nextAttemptTime"] = build.stamp(next_attempt)
    before = placement(phase="Pending", reason=Reason.SOURCE_UNREACHABLE, status=status, requested_at=requested)
    plan = plan_placement(before, around(), None, NOW)
    assert plan.step is step
    assert plan.look_again == (next_attempt if step is Step.NONE else None)
    assert plan.attempt == (3 if step is Step.FETCH else 0)


@pytest.mark.parametrize(
    ("requested", "handled", "generation", "step"),
    [
        ("", "", 1, Step.NONE),
        ("now", "now", 1, Step.NONE),
        ("", "now", 1, Step.NONE),
        ("now", "", 1, Step.FETCH),
        ("again", "now", 1, Step.FETCH),
        ("", "", 2, Step.FETCH),
    ],
)
def test_what_has_failed_waits_for_a_request_or_a_change(
    requested: str, handled: str, generation: int, step: Step
) -> None:
    before = failed(requested_at=requested, generation=generation, status={"lastHandledRequest": handled})
    plan = plan_placement(before, around(), None, NOW)
    assert (plan.status, plan.step) == (None, step)
    assert plan.attempt == (4 if step is Step.FETCH else 0)


def test_a_request_is_served_exactly_once() -> None:
    before = failed(requested_at="now")
    started = applied(before, placements.downloading(before, 4, NOW))
    assert started.last_handled_request == "now"
    ended = plan_placement(started, around(), job(attempt=4, result=Reason.CHECKSUM_MISMATCH), NOW)
    assert ended.status is not None
    again = applied(started, ended.status)
    assert again.phase is Phase.FAILED
    assert plan_placement(again, around(), None, NOW) == placements.PlacementPlan(None)


def test_a_request_that_meets_no_slot_is_carried_on() -> None:
    before = failed(requested_at="now")
    queued = applied(before, placements.waiting_for_slot(before, "zone/zone-1", 1, NOW))
    assert (queued.phase, queued.last_handled_request) == (Phase.PENDING, "now")
    assert plan_placement(queued, around(), None, NOW).step is Step.FETCH


def test_a_request_on_a_ready_placement_is_noted() -> None:
    ready = placement(phase="Ready", requested_at="now", status={"file": FILE})
    plan = plan_placement(ready, around(), None, NOW)
    assert plan.status is not None
    assert (plan.status.last_handled_request, plan.status.phase) == ("now", Phase.READY)
    assert applied(ready, plan.status).shows(plan.status)


@pytest.mark.parametrize("view", [job(deleting=True), job("remove"), job("remove", result=Reason.REMOVED)])
def test_an_earlier_job_has_to_go_first(view: Job) -> None:
    plan = plan_placement(waiting(), around(), view, NOW)
    assert plan == placements.PlacementPlan(None, drop_job=not view.deleting)


def test_a_download_whose_job_vanished_is_started_again() -> None:
    plan = plan_placement(running(2), around(), None, NOW)
    assert (plan.step, plan.attempt) == (Step.FETCH, 3)


# --- pauses


def pause(attempt: int, name: str = "p", retry_after: float | None = None, **retry: Any) -> float:
    return retry_pause_seconds(name, attempt, Retry.model_validate(retry), retry_after)


@pytest.mark.parametrize("attempt", [1, 2, 3, 4, 7, 8, 9, 33, 1000, 10**6])
def test_backoff_doubles_up_to_its_maximum_with_jitter(attempt: int) -> None:
    middle = min(600, 5 * 2 ** min(attempt - 1, 32))
    found = [pause(attempt, f"placement-{i}") for i in range(500)]
    assert 0.8 * middle <= min(found) < 0.82 * middle
    assert 1.18 * middle < max(found) <= 1.2 * middle
    assert statistics.mean(found) == pytest.approx(middle, rel=0.03)


def test_jitter_is_the_same_for_whoever_computes_it() -> None:
    assert pause(3) == pause(3)
    assert pause(3) != pause(3, "q")


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, None),
        (0, None),
        (-5, None),
        (float("nan"), None),
        (float("-inf"), None),
        (1, None),
        (120, 120),
        (3600, 3600),
        (86400, 3600),
        (float("inf"), 3600),
        (1e308, 3600),
    ],
)
def test_retry_after_wins_when_it_is_longer_up_to_an_hour(retry_after: float | None, expected: float | None) -> None:
    assert pause(1, retry_after=retry_after) == (expected if expected is not None else pause(1))
    result = JobResult(reason=Reason.SOURCE_UNAVAILABLE, retry_after_seconds=retry_after)
    plan = plan_placement(running(), around(), job(result=result), NOW)
    assert plan.look_again is not None
    assert NOW < plan.look_again <= NOW + seconds(3601)


def test_the_zone_decides_about_pauses() -> None:
    patient = around(zone=zone(spec={"downloads": {"retry": {"initial": "1m", "maximum": "2m"}}}))
    for attempt, middle in ((1, 60), (2, 120), (9, 120)):
        plan = plan_placement(running(attempt), patient, job(attempt=attempt, result=Reason.TRUNCATED), NOW)
        assert plan.look_again is not None
        assert seconds(0.8 * middle) <= plan.look_again - NOW <= seconds(1.2 * middle + 1)
