"""A pod that does not start: what is said of it, when it is given up, and that nothing else is lost by it."""

import dataclasses
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, SHARED, applied, around, host, job, placement, seconds, stamp, told

from directdownload.planning import attempts, plans, startup
from directdownload.planning.observed import Happening, Job, PlacementView, Start
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import Step
from directdownload.planning.startup import ASK_PAUSE, DEADLINE, LATE, LATER_ASK_PAUSE, SILENT
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import TRANSIENT, Reason
from directdownload.resources.templateplacement import Phase

BLOCKED = Start("its image cannot be pulled: ErrImagePull: no such host", blocked=True)
SECOND = seconds(1)


def event(reason: str, message: str = "", version: int = 1, *, warning: bool = True) -> Happening:
    return Happening(reason, message, warning, version)


def unstarted(age: Any = LATE, start: Start = BLOCKED, verb: str = "fetch", attempt: int = 1, **fields: Any) -> Job:
    """First seen `age` ago."""
    known = {"started": False, "created": NOW - age, "seen": NOW - age, "start": start, **fields}
    return job(verb, attempt, **known)


def downloading(attempt: int = 1, **fields: Any) -> PlacementView:
    status = {"attempts": attempt, **fields.pop("status", {})}
    return placement(phase="Downloading", reason=Reason.DOWNLOADING, status=status, **fields)


# --- what is said of it


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ErrImagePull", "its image cannot be pulled: ErrImagePull: why"),
        ("ImagePullBackOff", "its image cannot be pulled: ImagePullBackOff: why"),
        ("InvalidImageName", "its image cannot be pulled: InvalidImageName: why"),
        ("CreateContainerConfigError", "its container cannot be created: CreateContainerConfigError: why"),
        ("CreateContainerError", "its container cannot be created: CreateContainerError: why"),
        ("Unschedulable", "its pod cannot be scheduled: Unschedulable: why"),
        ("SchedulingGated", "its pod cannot be scheduled: SchedulingGated: why"),
        ("OfTomorrow", "its pod does not start: OfTomorrow: why"),
    ],
)
def test_a_state_that_ends_by_nothing_blocks(reason: str, words: str) -> None:
    assert startup.with_pod(reason, "why", prepared=True, event=None) == Start(words, blocked=True)


@pytest.mark.parametrize("reason", ["", "ContainerCreating", "PodInitializing"])
@pytest.mark.parametrize("prepared", [True, False])
def test_a_pod_on_its_way_is_blocked_by_its_events_only(reason: str, prepared: bool) -> None:
    assert startup.with_pod(reason, "", prepared=prepared, event=None) == Start(reason, pulling=prepared)
    failed = event("FailedMount", "hostPath type check failed")
    words = "a volume of its pod cannot be mounted: FailedMount: hostPath type check failed"
    assert startup.with_pod(reason, "", prepared=prepared, event=failed) == Start(words, True, pulling=prepared)
    pulling = event("Pulling", "Pulling image", warning=False)
    assert startup.with_pod(reason, "", prepared=prepared, event=pulling) == Start(
        "Pulling: Pulling image", pulling=prepared
    )


def test_a_job_without_a_pod() -> None:
    assert startup.without_pod(None, None) == Start()
    refused = startup.without_pod(None, event("FailedCreate", "exceeded quota"))
    assert refused == Start("its pod cannot be created: FailedCreate: exceeded quota", blocked=True)
    made = startup.without_pod(None, event("SuccessfulCreate", "Created pod: x", warning=False))
    assert made == Start("SuccessfulCreate: Created pod: x")
    assert startup.without_pod("", None) == Start("its Job is suspended: Suspended", blocked=True)
    queued = startup.without_pod("by Kueue", event("FailedCreate", "earlier"))
    assert queued == Start("its Job is suspended: Suspended: by Kueue", blocked=True)


def test_the_event_that_counts_is_the_latest_that_decides() -> None:
    mount, pulling = event("FailedMount", version=5), event("Pulling", version=9, warning=False)
    noise = event("DNSConfigForming", "limits were exceeded", version=99)
    other = event("SandboxChanged", version=100, warning=False)
    assert startup.latest([]) is None
    assert startup.latest([mount, noise, other]) == mount
    assert startup.latest([pulling, mount, noise]) == pulling, "it was mounted in the end"
    assert startup.latest([noise, other]) == noise
    said = startup.with_pod("ContainerCreating", "", prepared=True, event=noise)
    assert said == Start("its pod does not start: DNSConfigForming: limits were exceeded", pulling=True)


def test_the_latest_event_is_found_in_one_pass() -> None:
    """Whoever may write Events may write many."""
    count = 0

    def many() -> Any:
        nonlocal count
        for number in range(1000):
            count += 1
            yield event("FailedMount", str(number), version=number)

    found = startup.latest(many())
    assert (found and found.message, count) == ("999", 1000)


# --- when it is given up


@pytest.mark.parametrize(
    ("age", "start", "given_up"),
    [
        (LATE - SECOND, BLOCKED, False),
        (LATE, BLOCKED, True),
        (LATE, Start("its pod does not start: DNSConfigForming", pulling=True), False),
        (LATE, Start(), False),
        (SILENT - SECOND, Start(), False),
        (SILENT, Start(), True),
        (SILENT, Start("ContainerCreating"), True),
        (SILENT, Start("Pulling: Pulling image", pulling=True), False),
        (DEADLINE - SECOND, Start("Pulling: Pulling image", pulling=True), False),
        (DEADLINE, Start("Pulling: Pulling image", pulling=True), True),
    ],
)
def test_evidence_decides_early_and_silence_late(age: Any, start: Start, given_up: bool) -> None:
    view, before = unstarted(age, start), downloading()
    plan = plan_placement(before, around(), view, NOW)
    assert (plan.drop_job, plan.gives_up) == (given_up, given_up)
    assert plan.look_again is not None
    assert plan.look_again > NOW
    if not given_up:
        assert told(before, plan) == (Phase.DOWNLOADING, Reason.DOWNLOADING, ["Reconciling"])
        return
    assert told(before, plan) == (Phase.PENDING, Reason.POD_BLOCKED, ["Reconciling"])
    assert plan.status is not None
    assert start.cause in plan.status.conditions[0].message
    assert plan.status.conditions[0].message


def test_a_known_cause_is_told_within_15_seconds() -> None:
    """Also if it becomes known only by the second question, and the clock of the API server is off."""
    for skew in (seconds(0), seconds(3600), seconds(-200)):
        view, now, asked = unstarted(seconds(0), Start(), created=NOW + skew), NOW, 0
        while (plan := plan_placement(downloading(), around(), view, now)).status is not None and not plan.drop_job:
            assert plan.look_again is not None
            assert now < plan.look_again
            now = plan.look_again
            if startup.asks(view, now):
                asked += 1
                view = dataclasses.replace(view, asked=now, start=BLOCKED if asked == 2 else Start())
        assert (plan.drop_job, asked) == (True, 2)
        assert now - NOW <= seconds(15)


def test_events_are_asked_for_while_a_job_is_late_and_nothing_else_tells() -> None:
    assert not startup.asks(unstarted(LATE - SECOND, Start()), NOW)
    assert startup.asks(unstarted(LATE, Start()), NOW)
    assert not startup.asks(unstarted(LATE, BLOCKED), NOW)
    for ended in ("started", "deleting", "finished"):
        ended_fields: dict[str, Any] = {ended: True}
        assert not startup.asks(dataclasses.replace(unstarted(LATE, Start()), **ended_fields), NOW)
    for age, pause in ((seconds(12), ASK_PAUSE), (seconds(100), LATER_ASK_PAUSE)):
        assert not startup.asks(unstarted(age, Start(), asked=NOW - pause + SECOND), NOW)
        assert startup.asks(unstarted(age, Start(), asked=NOW - pause), NOW)


def test_a_job_costs_few_questions() -> None:
    view, now, asked = unstarted(seconds(0), Start("ContainerCreating", pulling=True)), NOW, 0
    while startup.blocked(view, now) is None:
        if startup.asks(view, now):
            asked += 1
            view = dataclasses.replace(view, asked=now)
        now += SECOND
    assert asked <= 25


def test_one_that_had_no_turn_is_looked_at_again_soon() -> None:
    view = unstarted(seconds(9), Start(), asked=NOW - seconds(60))
    assert startup.look_again(view, NOW) == NOW + ASK_PAUSE


def test_a_late_job_says_what_it_waits_for() -> None:
    for start, words in ((Start(), ""), (Start("Pulling: x", pulling=True), ": Pulling: x")):
        plan = plan_placement(downloading(), around(), unstarted(LATE, start), NOW)
        assert plan.status is not None
        assert plan.status.conditions[0].message == f"attempt 1 waits for its pod on host kvm-1{words}"
        running = plan_placement(downloading(), around(), unstarted(LATE, start, started=True), NOW)
        assert running.status is not None
        assert running.status.conditions[0].message == "attempt 1 runs on host kvm-1"


# --- what is lost by it


def test_a_job_that_runs_is_never_given_up_for_this() -> None:
    for age in (LATE, SILENT, DEADLINE, seconds(86400)):
        plan = plan_placement(downloading(), around(), unstarted(age, BLOCKED, started=True), NOW)
        assert (plan.drop_job, plan.look_again) == (False, None)
        assert told(downloading(), plan)[0] is Phase.DOWNLOADING


def test_a_pod_on_a_lost_host_waits_for_the_host() -> None:
    down = around(host=host(state="Down"))
    for age in (LATE, SILENT):
        plan = plan_placement(downloading(), down, unstarted(age), NOW)
        assert told(downloading(), plan) == (Phase.DOWNLOADING, Reason.HOST_DOWN, ["Reconciling"])
        assert not plan.drop_job
    ended = plan_placement(downloading(), down, unstarted(DEADLINE), NOW)
    assert told(downloading(), ended)[1] is Reason.POD_BLOCKED
    assert ended.status is not None
    after = applied(downloading(), ended.status)
    lingering = plan_placement(after, down, job(deleting=True), NOW)
    assert told(after, lingering) == (Phase.PENDING, Reason.HOST_DOWN, ["Reconciling"])


def test_no_attempt_counts_and_the_pauses_grow() -> None:
    assert Reason.POD_BLOCKED in TRANSIENT
    view, now, pauses = placement(), NOW, []
    for _ in range(9):
        begin = plan_placement(view, around(), None, now)
        assert (begin.step, begin.attempt) == (Step.FETCH, 1)
        view = applied(view, plans.downloading(view, 1, now))
        plan = plan_placement(view, around(), unstarted(created=now, seen=now - LATE), now)
        assert plan.status is not None
        assert (plan.status.attempts, plan.outcome and plan.outcome.reason) == (0, Reason.POD_BLOCKED)
        view = applied(view, plan.status)
        assert plan_placement(view, around(), None, now).step is Step.NONE
        assert plan.look_again is not None
        assert plan.look_again == view.next_attempt_time
        pauses.append((plan.look_again - now).total_seconds())
        now = plan.look_again
    assert pauses[:7] == sorted(pauses[:7])
    assert (pauses[0] <= 6, max(pauses) <= 601, min(pauses[7:]) > 400) == (True, True, True)


def test_what_was_written_before_its_job_could_be_deleted_is_not_counted_again() -> None:
    view = unstarted(attempt=3)
    before = downloading(3)
    plan = plan_placement(before, around(), view, NOW)
    assert plan.status is not None
    after = applied(before, plan.status)
    again = plan_placement(after, around(), view, NOW + SECOND)
    assert again == plans.PlacementPlan(None, drop_job=True, gives_up=True)
    began = plan_placement(after, around(), dataclasses.replace(view, started=True), NOW + SECOND)
    assert told(after, began) == (Phase.DOWNLOADING, Reason.DOWNLOADING, ["Reconciling"])
    assert began.status is not None
    assert (began.status.attempts, began.drop_job) == (3, False)


def test_a_request_ends_its_pause() -> None:
    later = NOW + seconds(300)
    for phase, step in (("Pending", Step.FETCH), ("Removing", Step.REMOVE)):
        for reason, ends in ((Reason.POD_BLOCKED, True), (Reason.SOURCE_UNREACHABLE, False)):
            status = {"attempts": 0, "nextAttemptTime": stamp(later)}
            paused = placement(phase=phase, reason=reason, status=status)
            assert plan_placement(paused, around(), None, NOW) == plans.PlacementPlan(None, look_again=later)
            asked = placement(phase=phase, reason=reason, status=status, requested_at="now")
            assert plan_placement(asked, around(), None, NOW).step is (step if ends else Step.NONE)
    # one request a minute
    status |= {"lastHandledRequest": "1", "lastHandledRequestTime": stamp(NOW - seconds(20))}
    again = placement(phase="Pending", reason=Reason.POD_BLOCKED, status=status, requested_at="2")
    assert plan_placement(again, around(), None, NOW).look_again == NOW + seconds(40)


def test_a_job_for_a_request_within_the_pause_is_no_leftover() -> None:
    """No status is written when the removal begins."""
    status = {"attempts": 1, "nextAttemptTime": stamp(NOW + seconds(300))}
    before = placement(phase="Removing", reason=Reason.POD_BLOCKED, status=status, requested_at="now")
    fresh = unstarted(seconds(0), Start(), "remove", 2, request="now")
    assert not plan_placement(before, around(), fresh, NOW).drop_job
    blocked = plan_placement(before, around(), unstarted(LATE, BLOCKED, "remove", 2, request="now"), NOW)
    assert blocked.status is not None
    assert blocked.status.last_handled_request == "now"
    after = applied(before, blocked.status)
    assert plan_placement(after, around(), None, NOW + SECOND).step is Step.NONE


def test_a_removal_whose_pod_is_blocked() -> None:
    before = placement(phase="Removing", reason=Reason.REMOVED, status={"attempts": 1})
    plan = plan_placement(before, around(), unstarted(verb="remove", attempt=2), NOW)
    assert told(before, plan) == (Phase.REMOVING, Reason.POD_BLOCKED, ["Reconciling"])
    assert plan.status is not None
    assert (plan.status.attempts, plan.drop_job, plan.gives_up) == (1, True, True)
    after = applied(before, plan.status)
    again = plan_placement(after, around(), unstarted(verb="remove", attempt=2), NOW)
    assert again == plans.PlacementPlan(None, drop_job=True, gives_up=True)
    assert plan.look_again is not None
    assert plan_placement(after, around(), None, plan.look_again).attempt == 2


def test_a_verification_whose_pod_is_blocked_leaves_the_copy_ready() -> None:
    status = {"attempts": 1, **build.file_status(changed=True)}
    before = placement(phase="Ready", reason=Reason.DOWNLOADED, status=status)
    plan = plan_placement(before, around(), unstarted(verb="verify", attempt=2), NOW)
    assert told(before, plan) == (Phase.READY, Reason.DOWNLOADED, ["Ready"])
    assert plan.status is not None
    assert BLOCKED.cause in plan.status.conditions[0].message
    assert (plan.status.attempts, plan.drop_job, plan.gives_up) == (1, True, True)
    after = applied(before, plan.status)
    again = plan_placement(after, around(), unstarted(verb="verify", attempt=2), NOW)
    assert again == plans.PlacementPlan(None, drop_job=True, gives_up=True)


def test_a_hung_mount_of_a_shared_pool_is_watched_once_the_job_runs() -> None:
    hung = host(storage=[build.facts(writable=False, reason="PoolNotReady")])
    shared = around(pool=build.pool(spec=SHARED), host=hung)
    view = unstarted(seconds(0), Start())
    assert plan_placement(downloading(), shared, view, NOW).look_again == NOW + LATE
    running = dataclasses.replace(view, started=True)
    assert plan_placement(downloading(), shared, running, NOW).look_again == NOW + seconds(30)


def test_a_job_that_claims_to_be_blocked_has_run() -> None:
    """A job has read foreign bytes: its attempt counts."""
    plan = plan_placement(downloading(2), around(), job(attempt=2, result=Reason.POD_BLOCKED), NOW)
    assert plan.status is not None
    assert (plan.status.attempts, plan.gives_up) == (2, False)
    assert attempts.result_of(job(finished=True, started=False), NOW) == JobResult(
        reason=Reason.INTERRUPTED, message="the job ended without a result"
    )
