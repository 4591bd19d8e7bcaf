"""Every placement in every small world: conformant status, no endless writes, and always something to wait for."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, applied, around, host, job, placement, seconds, zone
from tests.world.soak import SOAKING

from directdownload.planning import plans, startup
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import PlacementPlan, Step, Surroundings
from directdownload.resources.jobs import Verb
from directdownload.resources.reasons import WAITING, Reason
from directdownload.resources.templateplacement import Phase

pytestmark = pytest.mark.long

#: Besides `WAITING`: what a change of another object ends (`controller/watches.py` says which).
EXTERNAL = WAITING | {Reason.POOL_NOT_READY, Reason.NOT_MOUNTED, Reason.TEMPLATE_NOT_FOUND, Reason.PAUSED}
#: So many steps without anything happening outside must lead to rest.
STEPS = 5

WORLDS = {
    "usable": around(),
    "learnt digest": around(template=build.template(status={"digest": build.DIGEST})),
    "no zone": around(zone=None),
    "zone disabled": around(zone=zone(spec={"enabled": False})),
    "no host": around(host=None),
    "host down": around(host=host(state="Down")),
    "maintenance": around(host=host(state="Maintenance")),
    "no pool": around(pool=None),
    "pool not exposed": around(pool_roots=()),
    "not mounted": around(pool=build.pool(spec=build.SHARED), host=host(storage=[build.facts(mounted=False)])),
    "no template": around(template=None),
    "paused": around(paused=True),
    "taken over": around(pool=build.pool(spec=build.SHARED), successor="kvm-2"),
}
RESULTS = [
    None,
    Reason.DOWNLOADED,
    Reason.REMOVED,
    Reason.CHECKSUM_MISMATCH,
    Reason.SOURCE_UNREACHABLE,
    Reason.SOURCE_CHANGED,
    Reason.IN_USE,
    Reason.ALTERED,
    Reason.VERIFIED,
]


def jobs() -> Iterator[Job | None]:
    yield None
    for verb, attempt in itertools.product(("fetch", "remove", "verify"), (1, 2)):
        yield job(verb, attempt)
        yield job(verb, attempt, started=False, created=NOW)
        yield job(verb, attempt, started=False, created=NOW - startup.DEADLINE)
        yield job(verb, attempt, deleting=True)
        for result in RESULTS:
            yield job(verb, attempt, result=result, finished=True)


def views() -> Iterator[PlacementView]:
    for (phase, seen), pause, (requested, handled), generation, deleting in itertools.product(
        [
            *((phase, {}) for phase in (None, "Pending", "Downloading", "Failed", "Removing")),
            ("Ready", build.file_status(verified=NOW - seconds(30), present=True)),
            ("Ready", build.file_status(verified=NOW - seconds(30), present=False)),
            ("Ready", build.file_status(verified=NOW - seconds(30), changed=True)),
        ],
        [None, -60, 60],
        [("", ""), ("now", ""), ("now", "now"), ("again", "now")],
        [1, 2],
        [False, True],
    ):
        status: dict[str, Any] = {"attempts": 1, "lastHandledRequest": handled, **seen}
        if requested == "again":
            status["lastHandledRequestTime"] = build.stamp(NOW - seconds(30))
        if pause is not None:
            status["nextAttemptTime"] = build.stamp(NOW + seconds(pause))
        yield placement(
            phase=phase,
            reason=Reason.SOURCE_UNREACHABLE,
            status=status if phase else None,
            requested_at=requested,
            generation=generation,
            deleting=deleting,
        )


def carried_out(
    view: PlacementView, job: Job | None, plan: PlacementPlan, *, slots: bool
) -> tuple[PlacementView, Job | None] | None:
    """What the controller makes of `plan`, at once and without anything else happening; None: the object is gone."""
    status = plan.status
    if plan.step in (Step.RELEASE, Step.HAND_OVER):
        # From then on it is another world.
        return None
    started: Job | None = None
    if plan.step is Step.FETCH and not slots:
        status = plans.waiting_for_slot(view, "zone/zone-1", 1, NOW)
    elif plan.step is not Step.NONE:
        verb = {Step.FETCH: Verb.FETCH, Step.VERIFY: Verb.VERIFY, Step.REMOVE: Verb.REMOVE}[plan.step]
        started = Job(name="new", verb=verb, attempt=plan.attempt, created=NOW, request=view.requested_at)
        if verb is Verb.FETCH:
            status = plans.downloading(view, plan.attempt, NOW)
    if status is not None and not view.shows(status):
        build.check_kstatus(view, status)
        view = applied(view, status)
    return view, None if plan.drop_job else (started or job)


def at_rest(view: PlacementView, plan: PlacementPlan, *, slots: bool) -> bool:
    silent = plan.status is None or view.shows(plan.status)
    waits = plan.step is Step.NONE or (
        # asked anew at each look, and called when there is a slot
        plan.step is Step.FETCH and not slots and view.reason is Reason.WAITING_FOR_SLOT
    )
    return silent and waits and not plan.drop_job


def check(view: PlacementView, job: Job | None, surroundings: Surroundings, *, slots: bool) -> None:
    for _ in range(STEPS):
        plan = plan_placement(view, surroundings, job, NOW)
        starts = plan.step in (Step.FETCH, Step.VERIFY, Step.REMOVE)
        assert not (starts and (job is not None or plan.drop_job))
        assert plan.step is not Step.REMOVE or view.phase is Phase.REMOVING
        assert plan.step is not Step.FETCH or view.phase not in (Phase.READY, Phase.REMOVING)
        assert plan.step is not Step.VERIFY or view.phase is Phase.READY
        assert plan.look_again is None or plan.look_again > NOW
        if at_rest(view, plan, slots=slots):
            break
        outcome = carried_out(view, job, plan, slots=slots)
        if outcome is None:
            return
        view, job = outcome
    else:
        raise AssertionError(f"still not at rest after {STEPS} steps: {view} {job}")
    settled = view.phase is Phase.READY or (view.phase is Phase.FAILED and view.conditions[2].status == "True")
    assert (
        settled
        or plan.look_again is not None
        # its end, or its deletion, is an event
        or (job is not None and (job.started or job.deleting))
        or view.reason in EXTERNAL
    ), f"nothing to wait for: {view} {job}"
    if settled:
        assert job is None or job.deleting or job.verb is Verb.VERIFY
    if view.conditions:
        assert plan_placement(view, surroundings, job, NOW + seconds(1)).step in (Step.NONE, plan.step)


_DONE_BY = {Verb.FETCH: Reason.DOWNLOADED, Verb.VERIFY: Reason.VERIFIED, Verb.REMOVE: Reason.REMOVED}


# Slots are asked for only where nothing else is in the way.
@pytest.mark.soak
@pytest.mark.parametrize(("world", "slots"), [*((name, True) for name in WORLDS), ("usable", False)])
def test_every_placement_comes_to_rest_and_has_something_to_wait_for(world: str, slots: bool) -> None:
    """All states in `make soak`, a third of them in one world; in three worlds, one after the other, that is each."""
    states = list(itertools.product(VIEWS, JOBS))
    assert len(states) > 10_000
    first = list(WORLDS).index(world) % 3
    for view, present in states if SOAKING else states[first::3]:
        check(view, present, WORLDS[world], slots=slots)


def test_a_world_that_clears_up_gets_every_wanted_copy() -> None:
    """From every state: with jobs that succeed and nothing in the way, a placement becomes Ready or is gone."""
    for view, present in itertools.product(VIEWS, JOBS):
        current: PlacementView | None = view if view.phase is not Phase.FAILED else None
        running, now = present, NOW
        for _ in range(12):
            if current is None or (current.phase is Phase.READY and running is None):
                break
            plan = plan_placement(current, around(), running, now)
            outcome = carried_out(current, running, plan, slots=True)
            if outcome is None:
                current = None
                break
            current, running = outcome
            now = plan.look_again or now + seconds(60)
            if running is not None and running.deleting:
                running = None
            elif running is not None and running.verb is not None and not running.finished:
                reason = _DONE_BY[running.verb]
                done = job(result=reason).result
                running = dataclasses.replace(running, started=True, finished=True, result=done)
            if current.phase is Phase.FAILED:
                # its last result was one for good; that is tested elsewhere
                current = None
        else:
            raise AssertionError(f"never got there: {view} {present}, at last {current} {running}")


VIEWS, JOBS = list(views()), list(jobs())
