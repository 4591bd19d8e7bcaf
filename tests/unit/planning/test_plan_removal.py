"""The end of one placement: its file is removed by a job, or it is let go and the file stays."""

import dataclasses
import itertools
from typing import Any

import pytest
from tests.unit.planning.build import (
    NOW,
    SHARED,
    applied,
    around,
    check_kstatus,
    host,
    job,
    placement,
    pool,
    seconds,
    stamp,
    template,
    told,
)
from tests.unit.planning.obstacles import OBSTACLES, REASONS

from directdownload.planning import plans
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import Step
from directdownload.planning.startup import DEADLINE, LATE
from directdownload.resources.jobs import Verb
from directdownload.resources.reasons import DONE, Reason
from directdownload.resources.templateplacement import Phase


def removing(attempt: int = 1, **fields: Any) -> PlacementView:
    status = {"attempts": attempt, **fields.pop("status", {})}
    return placement(phase="Removing", reason=Reason.REMOVED, status=status, **fields)


@pytest.mark.parametrize(
    "before",
    [
        placement(),
        *(placement(phase=phase, status={"attempts": 3}) for phase in ("Pending", "Downloading", "Failed", "Ready")),
    ],
)
def test_marked_for_removal(before: PlacementView) -> None:
    status = plans.mark_removing(before, NOW)
    check_kstatus(before, status)
    after = applied(before, status)
    assert (after.phase, after.reason, after.attempts) == (Phase.REMOVING, Reason.REMOVED, before.attempts)
    plan = plan_placement(after, around(), None, NOW)
    assert (plan.step, plan.attempt) == (Step.REMOVE, before.attempts + 1)


@pytest.mark.parametrize("view", [job(), job(result=Reason.DOWNLOADED), job("verify")])
def test_removal_ends_other_work_first(view: Job) -> None:
    plan = plan_placement(removing(), around(), view, NOW)
    assert plan == plans.PlacementPlan(None, drop_job=True)
    leaving = dataclasses.replace(view, deleting=True)
    assert plan_placement(removing(), around(), leaving, NOW) == plans.PlacementPlan(None)


def test_a_removal_that_runs_is_waited_for() -> None:
    assert plan_placement(removing(), around(), job("remove", 2), NOW) == plans.PlacementPlan(None)
    young = job("remove", 2, started=False, created=NOW)
    assert plan_placement(removing(), around(), young, NOW).look_again == NOW + LATE


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_that_a_removal_may_give(reason: Reason) -> None:
    before = removing()
    plan = plan_placement(before, around(), job("remove", 2, result=reason), NOW)
    assert plan.drop_job
    if reason is Reason.REMOVED:
        assert (plan.status, plan.step) == (None, Step.RELEASE)
        return
    # whoever says that it has downloaded has removed nothing: it is as if the job had said nothing
    reason = Reason.INTERRUPTED if reason in DONE else reason
    assert plan.step is Step.NONE
    assert told(before, plan) == (Phase.REMOVING, reason, ["Reconciling"])
    assert plan.status is not None
    assert plan.status.attempts == 2
    assert plan.look_again == plan.status.next_attempt_time is not None


@pytest.mark.parametrize(
    ("view", "reason", "attempts"),
    [
        (job("remove", 2, finished=True), Reason.INTERRUPTED, 2),
        (job("remove", 2, started=False, created=NOW - DEADLINE), Reason.POD_BLOCKED, 1),
    ],
)
def test_a_removal_without_a_result_is_tried_again(view: Job, reason: Reason, attempts: int) -> None:
    plan = plan_placement(removing(), around(), view, NOW)
    assert told(removing(), plan) == (Phase.REMOVING, reason, ["Reconciling"])
    assert (plan.drop_job, plan.status and plan.status.attempts) == (True, attempts)


def test_a_failed_removal_is_accounted_once_and_tried_again_in_time() -> None:
    before = removing()
    plan = plan_placement(before, around(), job("remove", 2, result=Reason.IN_USE), NOW)
    assert plan.status is not None
    assert plan.look_again is not None
    after = applied(before, plan.status)
    again = plan_placement(after, around(), job("remove", 2, result=Reason.IN_USE), NOW + seconds(1))
    assert again == plans.PlacementPlan(None, drop_job=True)
    early = plan_placement(after, around(), None, NOW + seconds(1))
    assert early == plans.PlacementPlan(None, look_again=plan.look_again)
    late = plan_placement(after, around(), None, plan.look_again)
    assert (late.step, late.attempt) == (Step.REMOVE, 3)


def test_a_request_ends_no_pause_of_a_removal() -> None:
    """Nor does an obstacle that comes between."""
    later = NOW + seconds(600)
    before = removing(requested_at="now", status={"nextAttemptTime": stamp(later)})
    assert plan_placement(before, around(), None, NOW) == plans.PlacementPlan(None, look_again=later)
    blocked = plan_placement(before, around(host=host(state="Down")), None, NOW).status
    assert blocked is not None
    for each in (before, applied(before, blocked)):
        assert plan_placement(each, around(), None, NOW).step is Step.NONE
        assert plan_placement(each, around(), None, later).step is Step.REMOVE


@pytest.mark.parametrize("name", OBSTACLES)
def test_removal_waits_for_the_host_and_the_zone_only(name: str) -> None:
    plan = plan_placement(removing(), OBSTACLES[name], None, NOW)
    if name in ("no zone", "zone disabled", "no host", "host never seen", "host down", "maintenance"):
        assert told(removing(), plan) == (Phase.REMOVING, REASONS[name], ["Reconciling"])
        assert plan.step is Step.NONE
    else:
        assert (plan.status, plan.step) == (None, Step.REMOVE)


@pytest.mark.parametrize("view", [None, job(), job("remove", 2), job("remove", 2, result=Reason.IN_USE)])
def test_a_host_that_is_deleted_takes_its_files_along(view: Job | None) -> None:
    plan = plan_placement(removing(deleting=True), around(host=None, departed=True), view, NOW)
    assert plan == plans.PlacementPlan(None, Step.RELEASE, drop_job=view is not None)


@pytest.mark.parametrize(
    ("before", "view"),
    list(
        itertools.product(
            [None, "Pending", "Downloading", "Ready", "Failed"], [None, job(), job(result=Reason.DOWNLOADED)]
        )
    ),
)
def test_what_others_delete_is_let_go_and_nothing_is_removed(before: str | None, view: Job | None) -> None:
    for surroundings in (around(), around(host=None), around(template=template(deleting=True))):
        plan = plan_placement(placement(phase=before, deleting=True), surroundings, view, NOW)
        assert plan == plans.PlacementPlan(None, Step.RELEASE, drop_job=view is not None)


def test_deleting_what_is_being_removed_removes_it_still() -> None:
    assert plan_placement(removing(deleting=True), around(), None, NOW).step is Step.REMOVE


def test_a_host_that_is_made_again_keeps_the_wish_to_remove() -> None:
    """Its Host object was deleted by hand while the node lives: the file is still there, and still has to go."""
    plan = plan_placement(removing(), around(host=None), None, NOW)
    assert told(removing(), plan) == (Phase.REMOVING, Reason.HOST_DOWN, ["Reconciling"])
    assert plan_placement(removing(), around(), None, NOW).step is Step.REMOVE


def test_the_file_of_a_shared_pool_outlives_any_host() -> None:
    shared = around(pool=pool(spec=SHARED), host=None, departed=True)
    plan = plan_placement(removing(), shared, None, NOW)
    assert told(removing(), plan) == (Phase.REMOVING, Reason.HOST_DOWN, ["Reconciling"])
    taken = around(pool=pool(spec=SHARED), host=None, departed=True, successor="kvm-2")
    assert plan_placement(removing(), taken, None, NOW).step is Step.HAND_OVER


def test_a_removal_that_meets_a_virtual_machine_waits_and_says_so() -> None:
    before = removing()
    plan = plan_placement(before, around(), job("remove", 2, result=Reason.IN_USE), NOW)
    assert told(before, plan) == (Phase.REMOVING, Reason.IN_USE, ["Reconciling"])
    assert plan.look_again is not None
    assert plan.look_again - NOW < seconds(60)


@pytest.mark.parametrize("view", [None, job("remove", 2), job("remove", 2, result=Reason.REMOVED)])
def test_a_file_that_another_placement_has_is_let_go_and_not_removed(view: Job | None) -> None:
    """Two pools of one path: the host has moved to the zone of the other."""
    plan = plan_placement(removing(), around(claimed=True), view, NOW)
    assert plan == plans.PlacementPlan(None, Step.RELEASE, drop_job=view is not None)
    stays = placement(phase="Ready")
    assert plan_placement(stays, around(claimed=True), None, NOW).step is Step.NONE


def test_what_is_wanted_again_is_looked_for_once_its_removal_has_ended() -> None:
    before = removing(2)
    status = plans.mark_wanted(before, NOW)
    check_kstatus(before, status)
    after = applied(before, status)
    assert (after.phase, after.file, after.attempts) == (Phase.PENDING, None, 2)
    running = job("remove", 3)
    assert plan_placement(after, around(), running, NOW) == plans.PlacementPlan(None, drop_job=True)
    leaving = job("remove", 3, deleting=True)
    assert plan_placement(after, around(), leaving, NOW) == plans.PlacementPlan(None)
    plan = plan_placement(after, around(), None, NOW)
    assert (plan.step, plan.attempt) == (Step.FETCH, 3)


@pytest.mark.parametrize("view", [job(deleting=True), job("verify", deleting=True), job("remove", 2, deleting=True)])
def test_a_pod_that_lingers_on_a_lost_host_does_not_hide_that_it_is_down(view: Job) -> None:
    down = around(host=host(state="Down"))
    plan = plan_placement(removing(), down, view, NOW)
    assert told(removing(), plan) == (Phase.REMOVING, Reason.HOST_DOWN, ["Reconciling"])
    assert (plan.step, plan.drop_job) == (Step.NONE, False)
    ends = plan_placement(removing(), down, dataclasses.replace(view, verb=Verb.FETCH, deleting=False), NOW)
    assert told(removing(), ends) == (Phase.REMOVING, Reason.HOST_DOWN, ["Reconciling"])
    assert ends.drop_job


def test_a_removal_on_a_host_that_went_down_says_so_and_is_waited_for() -> None:
    down = around(host=host(state="Down"))
    plan = plan_placement(removing(), down, job("remove", 2), NOW)
    assert told(removing(), plan) == (Phase.REMOVING, Reason.HOST_DOWN, ["Reconciling"])
    assert (plan.step, plan.drop_job) == (Step.NONE, False)
