"""Published files: lost ones are fetched again, changed ones verified first, and all verified once in an interval."""

import dataclasses
import datetime
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import (
    NOW,
    applied,
    around,
    file_status,
    host,
    job,
    placement,
    pool,
    seconds,
    stamp,
    told,
)
from tests.unit.planning.obstacles import OBSTACLES

from directdownload.planning import plans, requests
from directdownload.planning.observed import PlacementView
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import PlacementPlan, Step
from directdownload.planning.startup import LATE
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import DONE, Reason
from directdownload.resources.templateplacement import Phase

LONG_AGO = NOW - seconds(3600)
#: what holds up more than fetches
FETCHES = [
    name
    for name in OBSTACLES
    if name not in ("no template", "template being deleted", "paused") and "header Secret" not in name
]


def ready(**fields: Any) -> PlacementView:
    """Ready since long; `observed=…` of its file."""
    file = file_status(verified=fields.pop("verified", LONG_AGO), **fields.pop("observed", {"present": True}))
    status = {"attempts": 3, **file, **fields.pop("status", {})}
    return placement(phase="Ready", reason=Reason.DOWNLOADED, status=status, **fields)


LOST, CHANGED = {"present": False}, {"present": True, "changed": True}


# --- a file that is gone


def test_a_lost_file_is_fetched_again_at_once() -> None:
    before = ready(observed=LOST)
    plan = plan_placement(before, around(), None, NOW)
    assert told(before, plan) == (Phase.PENDING, Reason.MISSING, ["Reconciling"])
    assert plan.status is not None
    assert (plan.status.file, plan.status.next_attempt_time, plan.status.recent_failures) == (None, None, 1)
    again = plan_placement(applied(before, plan.status), around(), None, NOW)
    assert (again.step, again.attempt) == (Step.FETCH, 4)


def test_what_was_seen_of_an_earlier_file_counts_for_nothing() -> None:
    """Between the end of a download and the agent's next look, the status still says what was before."""
    for seen in ({"revision": "r0", **LOST}, {"revision": "r0", **CHANGED}, LOST, {}):
        before = ready(status={"observed": seen})
        assert plan_placement(before, around(), None, NOW).step is Step.NONE
        assert plan_placement(before, around(), None, NOW).status is None or told(
            before, plan_placement(before, around(), None, NOW)
        ) == (Phase.READY, Reason.DOWNLOADED, ["Ready"])


@pytest.mark.parametrize("name", FETCHES)
def test_a_loss_is_told_whatever_stands_in_the_way_of_its_repair(name: str) -> None:
    before = ready(observed=LOST)
    plan = plan_placement(before, OBSTACLES[name], None, NOW)
    assert told(before, plan) == (Phase.PENDING, Reason.MISSING, ["Reconciling"])


def test_a_file_that_is_lost_again_and_again_is_fetched_ever_later() -> None:
    view, now, pauses = ready(observed=LOST), NOW, []
    for _ in range(9):
        lost = plan_placement(view, around(), None, now)
        assert lost.status is not None
        pauses.append((lost.look_again - now).total_seconds() if lost.look_again else 0)
        now = (lost.look_again or now) + seconds(10)
        started = applied(applied(view, lost.status), plans.downloading(applied(view, lost.status), 9, now))
        result = JobResult(reason=Reason.DOWNLOADED, revision="r1")
        done = plan_placement(started, around(), job(attempt=9, result=result), now)
        assert done.status is not None
        view = applied(started, done.status)
        now += seconds(5)
    assert pauses[:3] == [0, pytest.approx(5, abs=1.3), pytest.approx(9, abs=2.1)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 400
    # after a while in peace all is forgiven
    later = plan_placement(view, around(), None, now + seconds(700))
    assert later.look_again is None
    assert later.status is not None
    assert later.status.recent_failures == 1


# --- a file that looks changed


def test_a_changed_file_is_verified_and_stays_ready_meanwhile() -> None:
    before = ready(observed=CHANGED)
    plan = plan_placement(before, around(), None, NOW)
    assert plan == PlacementPlan(None, Step.VERIFY, attempt=4)
    assert plan_placement(before, around(), job("verify", 4), NOW) == PlacementPlan(None)
    young = job("verify", 4, started=False, created=NOW)
    assert plan_placement(before, around(), young, NOW).look_again == NOW + LATE


def test_a_verified_file_is_what_it_was() -> None:
    before = ready(observed=CHANGED, status={"recentFailures": 2})
    result = JobResult(reason=Reason.VERIFIED, revision="r2", digest="sha256:" + "cd" * 32, path="/etc/shadow")
    plan = plan_placement(before, around(), job("verify", 4, result=result), NOW)
    assert told(before, plan) == (Phase.READY, Reason.VERIFIED, ["Ready"])
    assert plan.status is not None
    assert plan.drop_job
    assert plan.outcome == result
    found = plan.status.file
    assert found is not None
    # what the job read says nothing about what was wished for
    assert (found.path, found.digest, found.size_bytes) == (before.path, build.DIGEST, 4096)
    assert (found.revision, found.verified_time, plan.status.recent_failures) == ("r2", NOW, None)
    # the agent still speaks of the revision before
    assert plan_placement(applied(before, plan.status), around(), None, NOW).step is Step.NONE


@pytest.mark.parametrize("reason", [Reason.ALTERED, Reason.MISSING])
def test_a_file_that_is_not_what_it_was_is_fetched_again(reason: Reason) -> None:
    before = ready(observed=CHANGED)
    plan = plan_placement(before, around(), job("verify", 4, result=reason), NOW)
    assert told(before, plan) == (Phase.PENDING, reason, ["Reconciling"])
    assert plan.status is not None
    assert (plan.drop_job, plan.status.attempts, plan.status.file) == (True, 4, None)
    again = plan_placement(applied(before, plan.status), around(), None, NOW)
    assert (again.step, again.attempt) == (Step.FETCH, 5)


@pytest.mark.parametrize("reason", sorted(set(Reason) - DONE - {Reason.ALTERED, Reason.MISSING}))
def test_a_verification_that_could_not_look_says_nothing_about_the_file(reason: Reason) -> None:
    before = ready(observed=CHANGED)
    plan = plan_placement(before, around(), job("verify", 4, result=reason), NOW)
    assert told(before, plan) == (Phase.READY, Reason.DOWNLOADED, ["Ready"])
    assert plan.status is not None
    assert plan.look_again is not None
    assert plan.look_again == plan.status.next_attempt_time
    assert reason in plan.status.conditions[0].message
    after = applied(before, plan.status)
    assert after.file == before.file
    waits = plan_placement(after, around(), None, NOW)
    assert (waits.step, waits.look_again) == (Step.NONE, plan.look_again)
    assert plan_placement(after, around(), None, plan.look_again).step is Step.VERIFY


def test_a_verification_without_a_result_is_tried_again() -> None:
    plan = plan_placement(ready(), around(), job("verify", 4, finished=True), NOW)
    assert told(ready(), plan)[0] is Phase.READY
    assert plan.look_again is not None


@pytest.mark.parametrize("name", FETCHES)
def test_a_verification_waits_for_what_any_work_waits_for(name: str) -> None:
    assert plan_placement(ready(observed=CHANGED), OBSTACLES[name], None, NOW) == PlacementPlan(None)


def test_a_paused_rollout_is_verified_all_the_same() -> None:
    assert plan_placement(ready(observed=CHANGED), around(paused=True), None, NOW).step is Step.VERIFY


@pytest.mark.parametrize("phase", ["Pending", "Downloading", "Failed"])
def test_nobody_waits_for_a_verification_of_what_is_fetched_anyway(phase: str) -> None:
    before = placement(phase=phase, reason=Reason.MISSING, status={"attempts": 3})
    assert plan_placement(before, around(), job("verify", 4), NOW) == PlacementPlan(None, drop_job=True)


def test_a_verification_is_accounted_once() -> None:
    before = ready(status={"attempts": 4})
    plan = plan_placement(before, around(), job("verify", 4, result=Reason.ALTERED), NOW)
    assert plan == PlacementPlan(None, drop_job=True)


# --- on request, and by the calendar


def test_a_request_verifies_what_is_ready() -> None:
    before = ready(requested_at="now")
    plan = plan_placement(before, around(), None, NOW)
    assert plan == PlacementPlan(None, Step.VERIFY, attempt=4)
    done = plan_placement(before, around(), job("verify", 4, request="now", result=Reason.VERIFIED), NOW)
    assert done.status is not None
    assert done.status.last_handled_request == "now"
    assert plan_placement(applied(before, done.status), around(), None, NOW).step is Step.NONE


def test_a_request_ends_no_pause_after_a_verification_that_could_not_look() -> None:
    later = NOW + seconds(300)
    before = ready(requested_at="now", status={"nextAttemptTime": stamp(later)})
    plan = plan_placement(before, around(), None, NOW)
    assert (plan.step, plan.look_again) == (Step.NONE, later)
    assert plan.status is not None
    assert plan.status.last_handled_request is None, "it is still to be served"
    assert plan_placement(applied(before, plan.status), around(), None, later).step is Step.VERIFY


def test_one_request_in_each_interval_verifies() -> None:
    first = ready(requested_at="1")
    done = plan_placement(first, around(), job("verify", 4, request="1", created=NOW, result=Reason.VERIFIED), NOW)
    assert done.status is not None
    assert done.status.last_handled_request_time == NOW
    asked = dataclasses.replace(applied(first, done.status), requested_at="2")
    plan = plan_placement(asked, around(), None, NOW + seconds(59))
    assert (plan.step, plan.look_again) == (Step.NONE, NOW + requests.INTERVAL)
    assert plan.status is not None
    assert asked.shows(plan.status), "it is neither served nor told of"
    assert plan_placement(asked, around(), None, NOW + requests.INTERVAL).step is Step.VERIFY


@pytest.mark.parametrize(
    ("result", "step"),
    [(Reason.VERIFIED, Step.VERIFY), (Reason.INTERRUPTED, Step.VERIFY), (Reason.ALTERED, Step.FETCH)],
)
def test_a_verification_serves_no_request_that_came_after_it_began(result: Reason, step: Step) -> None:
    """It may have read past what has changed since."""
    before = ready(requested_at="now")
    done = plan_placement(before, around(), job("verify", 4, result=result), NOW).status
    assert done is not None
    assert done.last_handled_request is None
    assert plan_placement(applied(before, done), around(), None, done.next_attempt_time or NOW).step is step


def due(uid: str, interval: str, verified: datetime.datetime) -> datetime.datetime:
    """When a copy is verified next: looked for from its last verification on."""
    around_it = around(pool=pool(spec={"verifyInterval": interval}))
    view = ready(uid=uid, verified=verified)
    plan = plan_placement(view, around_it, None, verified)
    assert plan.look_again is not None
    assert plan_placement(view, around_it, None, plan.look_again - seconds(1)).step is Step.NONE
    assert plan_placement(view, around_it, None, plan.look_again).step is Step.VERIFY
    return plan.look_again


def test_verifications_are_spread_over_the_interval() -> None:
    """A fleet that was filled in one minute is not read in one minute."""
    moments = sorted((due(f"uid-{number}", "10h", NOW) - NOW).total_seconds() / 3600 for number in range(1000))
    assert moments[0] > 0
    assert moments[-1] <= 10
    per_hour = [sum(hour < moment <= hour + 1 for moment in moments) for hour in range(10)]
    assert min(per_hour) > 60
    assert max(per_hour) < 140


def test_each_copy_keeps_its_moment_and_is_never_older_than_the_interval() -> None:
    first = due("uid-1", "24h", NOW)
    assert due("uid-1", "24h", first + seconds(40)) == first + seconds(86400)
    assert due("uid-1", "24h", first - seconds(1)) == first


def test_a_verification_in_the_second_of_its_moment_serves_that_moment() -> None:
    """A status has whole seconds: a moment with a fraction would still lie before what was just written."""
    for number in range(50):
        moment = due(f"uid-{number}", "10s", NOW)
        ended = (moment + seconds(0.9)).replace(microsecond=0)
        assert due(f"uid-{number}", "10s", ended) == moment + seconds(10)


def test_an_interval_of_zero_never_verifies() -> None:
    never = around(pool=pool(spec={"verifyInterval": "0s"}))
    plan = plan_placement(ready(verified=NOW - seconds(10**8)), never, None, NOW)
    assert (plan.step, plan.look_again) == (Step.NONE, None)


def test_a_host_that_was_down_at_the_time_is_verified_when_it_is_back() -> None:
    view = ready(verified=NOW - seconds(86400 * 30))
    assert plan_placement(view, around(host=host(state="Down")), None, NOW) == PlacementPlan(None)
    assert plan_placement(view, around(), None, NOW).step is Step.VERIFY


def test_a_verification_after_the_end_of_time_is_never_due() -> None:
    last = datetime.datetime(9999, 12, 31, 23, 59, tzinfo=datetime.UTC)
    copy = ready(verified=last)
    plan = plan_placement(copy, around(pool=pool(spec={"verifyInterval": "168h"})), None, NOW)
    assert (plan.step, plan.look_again) == (Step.NONE, None)
