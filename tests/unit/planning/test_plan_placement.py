"""The life of one placement as tables: what its job says, what stands in the way, what is asked, what comes next."""

import dataclasses
import statistics
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, applied, around, host, job, placement, seconds, told, zone
from tests.unit.planning.obstacles import OBSTACLES, REASONS

from directdownload.planning import placements, plans, requests
from directdownload.planning.attempts import one_more, retry_pause_seconds
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import Step, Surroundings
from directdownload.resources import naming
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
    status = plans.downloading(before, 3, NOW)
    assert (status.file, status.attempts, status.started_time) == (None, 3, NOW - seconds(500))
    assert plans.downloading(placement(), 1, NOW).started_time == NOW


def test_waiting_for_a_slot_says_for_which() -> None:
    status = plans.waiting_for_slot(waiting(), "zone/zone-1", 20, NOW)
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
    if reason in (Reason.DOWNLOADED, Reason.ALREADY_PRESENT):
        assert told(before, plan) == (Phase.READY, reason, ["Ready"])
        assert plan.look_again is None
        return
    if reason in DONE:
        # no fetch ends so: it is as if the job had said nothing
        reason = Reason.INTERRUPTED
    if reason in PERMANENT:
        assert told(before, plan) == (Phase.FAILED, reason, ["Stalled"])
        assert plan.look_again is plan.status.next_attempt_time is None
    else:
        assert told(before, plan) == (Phase.PENDING, reason, ["Reconciling"])
        assert plan.look_again == plan.status.next_attempt_time
        # the first pause of `retry: {initial: 5s}`, with jitter and rounded up
        assert plan.look_again is not None
        assert seconds(3) <= plan.look_again - NOW <= seconds(6)
        assert plan.status.recent_failures == 1
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
    told_by_job = {"path": "/etc/shadow", "virtual_size_bytes": 9000, "served_bytes": 1000}
    result = DONE_RESULT.model_copy(update=told_by_job)
    status = plan_placement(before, around(), job(result=result), NOW).status
    assert status is not None
    assert status.file is not None
    found = status.file
    assert (found.path, found.size_bytes, found.digest) == (before.path, 4096, build.DIGEST)
    assert found.served_bytes == 1000
    assert (found.format, found.virtual_size_bytes, found.verified_time) == ("QCOW2", 9000, NOW)


@pytest.mark.parametrize(("said", "believed"), [(-86400, -86400), (0, 0), (86400, 0), (None, 0)])
def test_a_copy_that_was_there_is_as_old_as_its_last_verification(said: float | None, believed: float) -> None:
    """Retained and deployed again, it was not read: the next scheduled verification counts from the last one."""
    moment = NOW + seconds(said) if said is not None else None
    result = JobResult(reason=Reason.ALREADY_PRESENT, verified_time=moment)
    status = plan_placement(running(), around(), job(result=result), NOW).status
    assert status is not None
    assert status.file is not None
    assert status.file.verified_time == NOW + seconds(believed)


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


@pytest.mark.parametrize("before", [waiting(), failed(), placement(phase="Ready", status={"attempts": 3})])
@pytest.mark.parametrize("result", [None, Reason.CHECKSUM_MISMATCH, Reason.DOWNLOADED])
def test_a_result_is_accounted_once(before: PlacementView, result: Reason | None) -> None:
    plan = plan_placement(before, around(), job(attempt=before.attempts, result=result), NOW)
    assert plan == plans.PlacementPlan(None, drop_job=True)


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
        (NOW + seconds(1), "now", "", Step.NONE),
        (NOW + seconds(1), "again", "now", Step.NONE),
    ],
)
def test_backoff_is_waited_for_whoever_asks(next_attempt: Any, requested: str, handled: str, step: Step) -> None:
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


def test_one_request_in_each_interval_lifts_a_stall() -> None:
    """The newest: those in between are served by it."""
    first = failed(requested_at="1")
    assert plan_placement(first, around(), None, NOW).step is Step.FETCH
    started = applied(first, plans.downloading(first, 4, NOW))
    assert started.last_handled_request_time == NOW
    running_on = job(attempt=4, request="1", created=NOW, result=Reason.SOURCE_REFUSED)
    ended = plan_placement(started, around(), running_on, NOW + seconds(1)).status
    assert ended is not None
    stalled = applied(started, ended)
    for request, after, step in [("2", 2, Step.NONE), ("3", 59, Step.NONE), ("3", 60, Step.FETCH)]:
        asked = dataclasses.replace(stalled, requested_at=request)
        plan = plan_placement(asked, around(), None, NOW + seconds(after))
        assert (plan.status, plan.step) == (None, step)
        assert plan.look_again == (NOW + requests.INTERVAL if step is Step.NONE else None)
    again = plans.downloading(asked, 5, NOW + seconds(60))
    assert (again.last_handled_request, again.last_handled_request_time) == ("3", NOW + seconds(60))


def test_a_value_that_is_taken_away_makes_the_next_one_no_sooner() -> None:
    status = {"lastHandledRequest": "1", "lastHandledRequestTime": build.stamp(NOW)}
    for before in (failed(status=status), build.placement(phase="Ready", status={"file": FILE, **status})):
        plan = plan_placement(before, around(), None, NOW)
        kept = applied(before, plan.status) if plan.status is not None else before
        assert kept.last_handled_request_time == NOW
        asked = dataclasses.replace(kept, requested_at="2")
        assert plan_placement(asked, around(), None, NOW + seconds(30)).step is Step.NONE


def test_a_clock_that_was_set_back_holds_no_request_off() -> None:
    status = {"lastHandledRequest": "1", "lastHandledRequestTime": build.stamp(NOW + seconds(86400))}
    assert plan_placement(failed(requested_at="2", status=status), around(), None, NOW).step is Step.FETCH


@pytest.mark.parametrize("name", OBSTACLES)
def test_requests_that_meet_an_obstacle_cost_one_write_in_each_interval(name: str) -> None:
    before = failed(requested_at="1")
    blocked = plan_placement(before, OBSTACLES[name], None, NOW).status
    assert blocked is not None
    assert blocked.last_handled_request == "1"
    asked = dataclasses.replace(applied(before, blocked), requested_at="2")
    plan = plan_placement(asked, OBSTACLES[name], None, NOW + seconds(1))
    assert plan.status is not None
    assert asked.shows(plan.status)
    assert plan.look_again == NOW + requests.INTERVAL
    later = plan_placement(asked, OBSTACLES[name], None, NOW + requests.INTERVAL).status
    assert later is not None
    assert later.last_handled_request == "2"


def test_requests_that_meet_no_slot_cost_one_write_in_each_interval() -> None:
    before = failed(requested_at="1")
    queued = applied(before, plans.waiting_for_slot(before, "zone/zone-1", 1, NOW))
    asked = dataclasses.replace(queued, requested_at="2")
    assert asked.shows(plans.waiting_for_slot(asked, "zone/zone-1", 1, NOW + seconds(1)))
    later = plans.waiting_for_slot(asked, "zone/zone-1", 1, NOW + requests.INTERVAL)
    assert later.last_handled_request == "2"
    assert plans.downloading(asked, 5, NOW + seconds(1)).last_handled_request == "2", "what begins serves all"


def test_a_request_is_served_exactly_once() -> None:
    before = failed(requested_at="now")
    started = applied(before, plans.downloading(before, 4, NOW))
    assert started.last_handled_request == "now"
    served = job(attempt=4, request="now", result=Reason.CHECKSUM_MISMATCH)
    ended = plan_placement(started, around(), served, NOW)
    assert ended.status is not None
    again = applied(started, ended.status)
    assert again.phase is Phase.FAILED
    assert plan_placement(again, around(), None, NOW) == plans.PlacementPlan(None)


@pytest.mark.parametrize("result", [Reason.CHECKSUM_MISMATCH, Reason.SOURCE_UNREACHABLE])
@pytest.mark.parametrize("state", ["Up", "Down"])
def test_a_request_that_comes_while_an_attempt_runs_is_served_by_the_next_one(result: Reason, state: str) -> None:
    """What was mended when it was asked need not have been when the attempt began."""
    running_there = around(host=host(state=state))
    before = running(1)
    asked = dataclasses.replace(before, requested_at="now")
    told = plan_placement(asked, running_there, job(), NOW).status
    assert told is not None
    assert told.last_handled_request is None
    meanwhile = applied(asked, told)
    ended = plan_placement(meanwhile, running_there, job(result=result), NOW)
    assert ended.status is not None
    plan = plan_placement(applied(meanwhile, ended.status), around(), None, ended.look_again or NOW)
    assert (plan.step, plan.attempt) == (Step.FETCH, 2)


def test_a_request_that_comes_while_an_attempt_succeeds_is_served_by_it() -> None:
    asked = dataclasses.replace(running(1), requested_at="now")
    done = plan_placement(asked, around(), job(result=DONE_RESULT), NOW).status
    assert done is not None
    assert (done.phase, done.last_handled_request) == (Phase.READY, "now")


def test_a_request_that_meets_an_obstacle_still_waits_for_the_pause() -> None:
    later = NOW + seconds(600)
    status = {"nextAttemptTime": build.stamp(later)}
    before = placement(phase="Pending", reason=Reason.SOURCE_UNREACHABLE, status=status, requested_at="now")
    blocked = plan_placement(before, around(host=host(state="Maintenance")), None, NOW).status
    assert blocked is not None
    assert plan_placement(applied(before, blocked), around(), None, NOW).step is Step.NONE
    assert plan_placement(applied(before, blocked), around(), None, later).step is Step.FETCH


def test_a_request_that_meets_no_slot_is_carried_on() -> None:
    before = failed(requested_at="now")
    queued = applied(before, plans.waiting_for_slot(before, "zone/zone-1", 1, NOW))
    assert (queued.phase, queued.last_handled_request) == (Phase.PENDING, "now")
    assert plan_placement(queued, around(), None, NOW).step is Step.FETCH


@pytest.mark.parametrize("view", [job(deleting=True), job("remove"), job("remove", result=Reason.REMOVED)])
def test_an_earlier_job_has_to_go_first(view: Job) -> None:
    plan = plan_placement(waiting(), around(), view, NOW)
    assert plan == plans.PlacementPlan(None, drop_job=not view.deleting)


def test_a_download_whose_job_vanished_is_started_again() -> None:
    plan = plan_placement(running(2), around(), None, NOW)
    assert (plan.step, plan.attempt) == (Step.FETCH, 3)


# --- pauses


def pause(attempt: int, name: str = "p", retry_after: float | None = None, **retry: Any) -> float:
    return retry_pause_seconds(name, attempt, Retry.model_validate(retry), retry_after)


@pytest.mark.parametrize("attempt", [1, 2, 3, 4, 7, 8, 9, 33, 1000, 10**6])
def test_backoff_doubles_up_to_its_maximum_with_jitter(attempt: int) -> None:
    longest = min(600, 5 * 2 ** min(attempt - 1, 32))
    found = [pause(attempt, f"placement-{i}") for i in range(500)]
    assert 0.75 * longest <= min(found) < 0.77 * longest
    assert 0.98 * longest < max(found) <= longest
    assert statistics.mean(found) == pytest.approx(0.875 * longest, rel=0.03)


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
    for failures, longest in ((0, 60), (1, 120), (8, 120)):
        before = running(20, recentFailures=failures)
        plan = plan_placement(before, patient, job(attempt=20, result=Reason.TRUNCATED), NOW)
        assert plan.look_again is not None
        assert seconds(0.75 * longest) <= plan.look_again - NOW <= seconds(longest + 1)


def test_failures_count_in_a_row_and_not_over_the_years() -> None:
    """A copy of many attempts that was good for long begins with the shortest pause."""
    first = plan_placement(running(500), around(), job(attempt=500, result=Reason.TRUNCATED), NOW).look_again
    assert first is not None
    assert first - NOW <= seconds(6)


@pytest.mark.parametrize("phase", ["Pending", "Failed"])
@pytest.mark.parametrize("requested", ["", "now"])
def test_a_request_shortens_no_pause_to_come(phase: str, requested: str) -> None:
    status = {"attempts": 9, "recentFailures": 9}
    before = placement(phase=phase, reason=Reason.TRUNCATED, status=status, requested_at=requested)
    started = applied(before, plans.downloading(before, 10, NOW))
    ended = plan_placement(started, around(), job(attempt=10, request=requested, result=Reason.TRUNCATED), NOW)
    assert ended.look_again is not None
    assert ended.look_again - NOW > seconds(0.75 * 600)


@pytest.mark.parametrize("name", OBSTACLES)
def test_an_obstacle_that_goes_by_leaves_the_pause_as_it_was(name: str) -> None:
    """A host that flickers between Down and Up must not skip a backoff or a Retry-After."""
    later = NOW + seconds(300)
    before = waiting(3, nextAttemptTime=build.stamp(later), recentFailures=3)
    plan = plan_placement(before, OBSTACLES[name], None, NOW)
    assert plan.status is not None
    after = applied(before, plan.status)
    assert (after.next_attempt_time, after.recent_failures) == (later, 3)
    assert plan_placement(after, around(), None, NOW + seconds(1)).step is Step.NONE
    assert plan_placement(after, around(), None, later).step is Step.FETCH


# --- what people have written changes


CHANGES = {
    "source policy": around(zone=zone(spec={"sourcePolicy": {"allowedHosts": ["*.example.org"]}})),
    "size limit": around(zone=zone(spec={"downloads": {"maxSize": 5000}})),
    "owner of files": around(pool=build.pool(spec={"file": {"uid": 7}})),
    "mirrors": around(template=build.template(spec={"mirrors": ["https://mirror.example.org/debian-13.qcow2"]})),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_failed_is_tried_again_when_what_it_was_told_changes(name: str) -> None:
    before = failed(status={"observedInputs": placements.inputs_of(around())})
    assert plan_placement(before, around(), None, NOW).step is Step.NONE
    plan = plan_placement(before, CHANGES[name], None, NOW)
    assert (plan.step, plan.attempt) == (Step.FETCH, 4)
    told_anew = applied(before, plans.downloading(before, 4, NOW, inputs=placements.inputs_of(CHANGES[name])))
    assert plan_placement(told_anew, CHANGES[name], job(attempt=4), NOW).step is Step.NONE
    ended = plan_placement(told_anew, CHANGES[name], job(attempt=4, result=Reason.TOO_LARGE), NOW).status
    assert ended is not None
    assert plan_placement(applied(told_anew, ended), CHANGES[name], None, NOW).step is Step.NONE


def test_what_does_not_decide_an_attempt_lifts_no_stall() -> None:
    before = failed(status={"observedInputs": placements.inputs_of(around())})
    other = around(zone=zone(spec={"downloads": {"maxParallel": 3}}), pool=build.pool(spec={"verifyInterval": "1h"}))
    assert plan_placement(before, other, None, NOW).step is Step.NONE


def test_a_host_that_trusts_something_else_tries_at_once_what_it_did_not_trust() -> None:
    def trusting(sha256: str) -> Surroundings:
        return around(host=build.host(storage=[build.facts()], status={"keystore": {"sha256": sha256 * 64}}))

    known = placements.inputs_of(trusting("a"))
    later = build.stamp(NOW + seconds(300))
    for reason, sha256, expected in [
        (Reason.TLS_VERIFICATION_FAILED, "b", Step.FETCH),
        (Reason.TLS_VERIFICATION_FAILED, "a", Step.NONE),
        (Reason.SOURCE_UNREACHABLE, "b", Step.NONE),
    ]:
        status = {"attempts": 1, "nextAttemptTime": later, "observedInputs": known}
        before = placement(phase="Pending", reason=reason, status=status)
        assert plan_placement(before, trusting(sha256), None, NOW).step is expected
    stalled = failed(status={"observedInputs": known})
    assert plan_placement(stalled, trusting("b"), None, NOW).step is Step.NONE


# --- a host that dies under its download


def test_a_download_on_a_host_that_went_down_says_so_and_goes_on_when_it_is_back() -> None:
    for gone in ("host down", "no host"):
        plan = plan_placement(running(2), OBSTACLES[gone], job(attempt=2), NOW)
        assert told(running(2), plan) == (Phase.DOWNLOADING, Reason.HOST_DOWN, ["Reconciling"])
        assert not plan.drop_job
        assert plan.status is not None
        down = applied(running(2), plan.status)
        back = plan_placement(down, around(), job(attempt=2), NOW)
        assert told(down, back) == (Phase.DOWNLOADING, Reason.DOWNLOADING, ["Reconciling"])
        done = plan_placement(down, around(), job(attempt=2, result=DONE_RESULT), NOW)
        assert told(down, done)[0] is Phase.READY


def test_a_download_in_a_shared_pool_that_does_not_answer_is_looked_at_again() -> None:
    """Nothing else happens that would call for a look when its patience ends."""
    silent = host(storage=[build.facts(reason="PoolNotReady")])
    shared = build.pool(spec=build.SHARED)
    assert plan_placement(running(), around(pool=shared, host=silent), job(), NOW).look_again == NOW + seconds(30)
    assert plan_placement(running(), around(host=silent), job(), NOW).look_again is None
    assert plan_placement(running(), around(pool=shared), job(), NOW).look_again is None


def test_a_host_that_has_left_for_good_takes_its_placements_along() -> None:
    for before in (placement(), running(), waiting(), failed(), placement(phase="Ready", status={"file": FILE})):
        plan = plan_placement(before, around(host=None, departed=True), None, NOW)
        assert (plan.step, plan.status) == (Step.RELEASE, None)
        assert plan_placement(before, around(host=None), None, NOW).step is not Step.RELEASE


def test_the_longest_pause_that_can_be_written_ends_at_a_time() -> None:
    retry = {"initial": "999999999999h", "maximum": "999999999999h"}
    result = JobResult(reason=Reason.SOURCE_UNREACHABLE)
    plan = plan_placement(running(), around(zone=zone(spec={"downloads": {"retry": retry}})), job(result=result), NOW)
    assert plan.look_again is not None
    assert 2090 < plan.look_again.year <= 2125


@pytest.mark.parametrize(("number", "more"), [(0, 1), (999_999_998, 999_999_999), (999_999_999, 999_999_999)])
def test_attempts_are_counted_as_far_as_the_name_of_a_job_has_room(number: int, more: int) -> None:
    assert one_more(number) == more
    assert len(naming.job_name("p" * 41, "verify", more)) <= naming.NAME_LIMIT
