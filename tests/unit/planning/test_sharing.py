"""Shared pools: which host has the one copy, and when another one takes it over."""

from typing import Any

import pytest
from tests.unit.planning import build
from tests.unit.planning.build import NOW, ROOT, SHARED, around, condition, facts, host, job, placement, pool, seconds

from directdownload.planning.placements import plan_placement
from directdownload.planning.plans import PlacementPlan, Step
from directdownload.planning.sharing import choose, stays
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase

POOL = pool(spec=SHARED)
ROOTS = (ROOT,)


def remains(present: Host | None, phase: Phase | None, silent_seconds: float = 3600, since: str = "progress") -> bool:
    """Whether the copy stays; a download has made no progress for so long."""
    moment = build.stamp(NOW - seconds(silent_seconds))
    status: dict[str, Any] = {"progress": {"updatedTime": moment}} if since == "progress" else {"startedTime": moment}
    copy = placement(shared=True, phase=phase, status=status if phase else None)
    return stays(POOL, present, copy, ROOTS, NOW)


def having(name: str, available: int = 100, state: str = "Up", **fields: Any) -> Host:
    return host(name, state, storage=[facts(availableBytes=available, **fields)])


def down(reason: Reason) -> Host:
    return host(state="Down", storage=[facts()], status={"conditions": [condition("Ready", "False", reason)]})


def test_the_host_with_the_most_space_fetches() -> None:
    hosts = [having("kvm-1", 100), having("kvm-2", 300), having("kvm-3", 300), having("kvm-4", 900, "Down")]
    assert choose(POOL, hosts, ROOTS) == "kvm-2"


@pytest.mark.parametrize(
    "unable",
    [
        having("kvm-1", state="Down"),
        having("kvm-1", state="Maintenance"),
        having("kvm-1", mounted=False),
        having("kvm-1", writable=False),
        having("kvm-1", reason="PoolNotReady"),
        host("kvm-1", zone="zone-2", storage=[facts()]),
    ],
)
def test_a_host_that_cannot_is_not_chosen(unable: Host) -> None:
    assert choose(POOL, [unable], ROOTS) == ""
    assert choose(POOL, [unable, having("kvm-2", 1)], ROOTS) == "kvm-2"


NODE_LOST = [down(Reason.NODE_NOT_READY), down(Reason.NODE_NOT_FOUND), None, host(zone="zone-2", storage=[facts()])]
HUNG = [having("kvm-1", reason="PoolNotReady"), having("kvm-1", mounted=False)]
RESTING = [having("kvm-1", state="Maintenance"), down(Reason.AGENT_NOT_READY)]


@pytest.mark.parametrize("present", [*NODE_LOST, *HUNG])
def test_a_download_is_taken_over_when_its_node_or_its_mount_is_lost(present: Host | None) -> None:
    assert not remains(present, Phase.DOWNLOADING)


@pytest.mark.parametrize("since", ["progress", "start"])
def test_a_mount_that_is_only_slow_keeps_its_download(since: str) -> None:
    """An agent that waits for an answer for some seconds is no reason to begin again elsewhere."""
    silent = having("kvm-1", reason="PoolNotReady")
    assert remains(silent, Phase.DOWNLOADING, 119, since)
    assert not remains(silent, Phase.DOWNLOADING, 120, since)
    assert not remains(having("kvm-1", mounted=False), Phase.DOWNLOADING, 0, since)


@pytest.mark.parametrize("present", [having("kvm-1"), *RESTING])
def test_a_download_is_left_to_finish_where_it_can(present: Host) -> None:
    """Neither a cordon nor a missing agent stops it: another host would begin again for nothing."""
    assert remains(present, Phase.DOWNLOADING)


@pytest.mark.parametrize("phase", [None, Phase.PENDING, Phase.FAILED, Phase.REMOVING])
def test_what_has_yet_to_start_goes_where_it_can(phase: Phase | None) -> None:
    assert remains(having("kvm-1"), phase)
    for present in (*NODE_LOST, *HUNG, *RESTING):
        assert not remains(present, phase)


def test_a_ready_copy_moves_from_a_host_that_cannot_see_it() -> None:
    """Its agent tells when the file is lost; that of a Down host, or without the mount, tells nothing."""
    for present in (having("kvm-1"), having("kvm-1", state="Maintenance")):
        assert remains(present, Phase.READY)
    for lost in (down(Reason.NODE_NOT_READY), down(Reason.AGENT_NOT_READY), None, *HUNG):
        assert not remains(lost, Phase.READY)


@pytest.mark.parametrize("phase", ["Pending", "Downloading", "Failed", "Ready", "Removing"])
def test_a_take_over_ends_the_old_job_first(phase: str) -> None:
    taken = around(pool=POOL, successor="kvm-2")
    before = placement(shared=True, phase=phase, status={"attempts": 1})
    assert plan_placement(before, taken, None, NOW) == PlacementPlan(None, Step.HAND_OVER)
    for verb in ("fetch", "verify", "remove"):
        assert plan_placement(before, taken, job(verb, 2), NOW) == PlacementPlan(None, Step.HAND_OVER, drop_job=True)


def test_what_has_ended_is_read_before_another_host_takes_over() -> None:
    taken = around(pool=POOL, host=down(Reason.NODE_NOT_READY), successor="kvm-2")
    before = placement(shared=True, phase="Downloading", status={"attempts": 1})
    plan = plan_placement(before, taken, job(result=Reason.DOWNLOADED), NOW)
    assert plan.status is not None
    assert (plan.step, plan.status.phase) == (Step.NONE, Phase.READY)
