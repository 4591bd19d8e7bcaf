"""Files that get lost or altered behind our back come back, and what is in order is left alone."""

import collections
import datetime
import time

import pytest
from tests.world.kube import Object
from tests.world.machines import Run
from tests.world.simulation import DIGEST, SIZE_BYTES, Simulation, fail, succeed
from tests.world.steps import (
    History,
    ask,
    counted,
    deployed,
    edit,
    file_of,
    hang,
    hosts_of_a_zone,
    kill,
    pause_seconds,
    phase_and_reason,
    ran,
    settle,
    state,
    until_state,
)
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import base
from directdownload.resources.jobs import JobDocument, JobResult, Verb
from directdownload.resources.reasons import Reason


def intact(world: Simulation, host: str) -> None:
    """Asserts that the host has the template's bytes, and that the status speaks of this very file."""
    placement = world.placement(host)
    name, disk = file_of(placement), world.disk(host)
    assert (disk.files[name].digest, disk.files[name].size_bytes) == (DIGEST, SIZE_BYTES)
    assert placement["status"]["file"]["digest"] == DIGEST
    assert placement["status"]["file"]["revision"] == disk.records[name].revision
    assert not disk.parts


def test_a_deleted_file_is_fetched_again_by_one_job(world: Simulation) -> None:
    lost, other = deployed(world, 2)
    with History(world) as history:
        world.disk(lost).delete(file_of(world.placement(lost)))
        until("the second fetch", lambda: world.placement(lost)["status"]["attempts"] == 2)
        until_state(world, lost, "Ready", "Downloaded")
        settle(world)
        assert history.states(lost) == [
            ("Ready", "Downloaded"),
            ("Pending", "Missing"),
            ("Downloading", "Downloading"),
            ("Ready", "Downloaded"),
        ]
        assert history.states(other) == [("Ready", "Downloaded")]
    intact(world, lost)
    assert counted(world) == {(lost, "fetch"): 2, (other, "fetch"): 1}
    assert not world.jobs()


@pytest.mark.parametrize("size_bytes", [10, SIZE_BYTES], ids=["truncated", "overwritten"])
def test_a_file_with_other_bytes_is_verified_and_then_fetched_again(world: Simulation, size_bytes: int) -> None:
    (host,) = deployed(world, 1)
    with History(world) as history:
        world.disk(host).alter(file_of(world.placement(host)), size_bytes=size_bytes)
        until("the repair", lambda: world.placement(host)["status"]["attempts"] == 3)
        until_state(world, host, "Ready", "Downloaded")
        settle(world)
        # It counts as Ready until its digest has told that it is not.
        assert history.states(host) == [
            ("Ready", "Downloaded"),
            ("Pending", "Altered"),
            ("Downloading", "Downloading"),
            ("Ready", "Downloaded"),
        ]
    assert ran(world) == ["fetch", "verify", "fetch"]
    intact(world, host)


def test_a_file_that_was_only_touched_is_verified_and_not_fetched(world: Simulation) -> None:
    (host,) = deployed(world, 1)
    before = world.placement(host)["status"]["file"]
    with History(world) as history:
        world.disk(host).touch(file_of(world.placement(host)))
        after = until_state(world, host, "Ready", "Verified")["status"]["file"]
        settle(world)
        assert history.states(host) == [("Ready", "Downloaded"), ("Ready", "Verified")]
    assert ran(world) == ["fetch", "verify"]
    assert after["revision"] != before["revision"]
    assert (after["digest"], after["sizeBytes"]) == (before["digest"], before["sizeBytes"])
    intact(world, host)


def test_what_an_agent_saw_before_a_repair_starts_no_other(world: Simulation) -> None:
    """An agent that hangs for a while tells late what it saw: that the file was gone, and that it had changed."""
    (host,) = deployed(world, 1)
    placement = world.placement(host)
    earlier = placement["status"]["file"]["revision"]
    world.disk(host).delete(file_of(placement))
    until("the repair", lambda: world.placement(host)["status"]["attempts"] == 2)
    until_state(world, host, "Ready", "Downloaded")
    settle(world)
    # From here on the test is the agent.
    world.silence_agent(host)
    for seen in ({"present": False}, {"present": True, "changed": True}):
        _observe(world, host, {**seen, "revision": earlier})
        settle(world)
    assert ran(world) == ["fetch", "fetch"]
    current = world.placement(host)["status"]["file"]["revision"]
    _observe(world, host, {"present": True, "changed": True, "revision": current})
    until_state(world, host, "Ready", "Verified")


def _observe(world: Simulation, host: str, observed: Object) -> None:
    kind = kinds.TEMPLATE_PLACEMENTS
    metadata = {"name": world.placement(host)["metadata"]["name"]}
    body = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata,
        "status": {"observed": observed},
    }
    with world.kube() as kube:
        kube.apply(kind, body, base.AGENT, subresource="status").object()


def test_every_copy_is_verified_once_per_interval_and_not_all_at_once(world: Simulation) -> None:
    interval, copies = 5.0, 12
    hosts_of_a_zone(world, copies)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(copies)
    verified: dict[str, list[float]] = collections.defaultdict(list)

    def note(document: JobDocument) -> JobResult | None:
        if document.verb is Verb.VERIFY:
            verified[document.placement].append(time.monotonic())
        return succeed(document)

    world.behaviour = note
    started = time.monotonic()
    edit(world, kinds.STORAGE_POOLS, world.pool, {"verifyInterval": f"{interval:g}s"})
    until("all copies to be verified twice", lambda: [len(v) >= 2 for v in verified.values()] == [True] * copies)
    intervals = (time.monotonic() - started) / interval
    # Each has its own moment in the interval: at most two intervals until the second one, and one for a busy machine.
    assert intervals < 3
    # One whose moment had passed already when the interval was set is verified at once, and again at its next moment.
    assert max(len(times) for times in verified.values()) <= intervals + 2
    first = sorted(times[0] for times in verified.values())
    assert first[-1] - first[0] > 0.3 * interval
    assert set(ran(world)) == {"fetch", "verify"}
    assert ran(world).count("fetch") == copies


def test_a_host_reads_one_file_at_a_time_to_verify_it(world: Simulation) -> None:
    hosts = hosts_of_a_zone(world, 2, maxParallelPerHost=5)
    world.start_controller()
    for name in ("one", "two", "three"):
        world.create_template(name)
        world.deploy(name, name)
    for name in ("one", "two", "three"):
        world.converged(2, name)
    world.behaviour = hang
    for host in hosts:
        for name in list(world.disk(host).files):
            world.disk(host).touch(name)
    until("a verification on each host", lambda: {run.machine.name for run in world.kubelets.running()} == {*hosts})
    settle(world)
    assert counted(world) == {(host, verb): n for host in hosts for verb, n in (("fetch", 3), ("verify", 1))}
    at_once: set[int] = set()

    def end(document: JobDocument) -> JobResult | None:
        at_once.add(sum(_verifies(run, document.host) for run in world.kubelets.running()))
        return succeed(document)

    world.behaviour = end
    until("all to be verified", lambda: set(map(phase_and_reason, world.placements())) == {("Ready", "Verified")})
    assert at_once == {1}
    assert counted(world) == {(host, verb): 3 for host in hosts for verb in ("fetch", "verify")}


def _verifies(run: Run, host: str) -> bool:
    return run.machine.name == host and run.document.verb is Verb.VERIFY


def test_an_interval_of_zero_is_never_and_a_new_one_holds_at_once(world: Simulation) -> None:
    world.create_zone()
    edit(world, kinds.STORAGE_POOLS, world.pool, {"verifyInterval": "0s"})
    host = world.add_host("kvm-1")
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(1)
    name = file_of(world.placement(host))
    world.disk(host).alter(name, silently=True)
    settle(world)
    assert ran(world) == ["fetch"]
    edit(world, kinds.STORAGE_POOLS, world.pool, {"verifyInterval": "1s"})
    # No stat tells of bytes that rot: the scheduled verification does.
    until("the repair", lambda: ran(world)[:3] == ["fetch", "verify", "fetch"])
    until("the template's bytes", lambda: world.disk(host).files[name].digest == DIGEST)
    edit(world, kinds.STORAGE_POOLS, world.pool, {"verifyInterval": "0s"})
    settle(world)
    number = len(world.started)
    settle(world)
    assert len(world.started) == number


def test_a_verification_that_cannot_look_leaves_the_copy_ready_and_is_tried_again(world: Simulation) -> None:
    (host,) = deployed(world, 1)

    def twice(document: JobDocument) -> JobResult | None:
        return fail(Reason.POOL_NOT_READY) if ran(world).count("verify") <= 2 else succeed(document)

    world.behaviour = twice
    with History(world) as history:
        world.disk(host).touch(file_of(world.placement(host)))
        until_state(world, host, "Ready", "Verified")
        settle(world)
        assert {phase for phase, _ in history.states(host)} == {"Ready"}
        failures = [status.get("recentFailures", 0) for status in history.statuses(host)]
        assert sorted(set(failures)) == [0, 1, 2]
        assert failures[-1] == 0
        pausing = [status for status in history.statuses(host) if "nextAttemptTime" in status]
        assert "the last verification ended with PoolNotReady" in pausing[0]["conditions"][0]["message"]
    assert ran(world) == ["fetch", "verify", "verify", "verify"]
    intact(world, host)


def test_a_repair_goes_on_after_the_controller_was_killed_in_the_middle(world: Simulation) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    first = world.start_controller("first")
    world.create_template()
    world.deploy()
    world.converged(1)
    world.behaviour = hang
    world.disk(host).alter(file_of(world.placement(host)))
    until("the verification", lambda: ran(world) == ["fetch", "verify"])
    kill(world, first)
    world.behaviour = lambda d: succeed(d) if d.verb is Verb.VERIFY else None
    until("its end, which nobody reads", lambda: not world.kubelets.running())
    second = world.start_controller("second")
    until("the fetch", lambda: ran(world) == ["fetch", "verify", "fetch"])
    kill(world, second)
    world.start_controller("third")
    world.behaviour = succeed
    until_state(world, host, "Ready", "Downloaded")
    settle(world)
    assert world.started == [(host, "fetch", 1), (host, "verify", 2), (host, "fetch", 3)]
    intact(world, host)


def test_a_file_lost_while_no_controller_ran_is_fetched_again(world: Simulation) -> None:
    hosts_of_a_zone(world, 1)
    first = world.start_controller("first")
    world.create_template()
    world.deploy()
    world.converged(1)
    (placement,) = world.placements()
    host = placement["spec"]["host"]
    kill(world, first)
    world.disk(host).delete(file_of(placement))
    until("the agent to tell", lambda: world.placement(host)["status"]["observed"]["present"] is False)
    world.start_controller("second")
    until("the repair", lambda: ran(world) == ["fetch", "fetch"])
    until_state(world, host, "Ready", "Downloaded")
    intact(world, host)


def test_a_request_on_a_ready_copy_verifies_it_once(world: Simulation) -> None:
    asked, other = deployed(world, 2)
    placement = world.placement(asked)
    value = ask(world, kinds.TEMPLATE_PLACEMENTS, placement["metadata"]["name"])
    until_state(world, asked, "Ready", "Verified")
    settle(world)
    assert world.placement(asked)["status"]["lastHandledRequest"] == value
    assert counted(world) == {(asked, "fetch"): 1, (asked, "verify"): 1, (other, "fetch"): 1}


@pytest.mark.parametrize("obstacle", ["ZoneDisabled", "Maintenance"])
def test_a_repair_waits_until_work_may_start_again(world: Simulation, obstacle: str) -> None:
    lost, touched = deployed(world, 2)

    def block(blocked: bool) -> None:
        if obstacle == "ZoneDisabled":
            edit(world, kinds.ZONES, world.zone, {"enabled": not blocked})
        else:
            for host in (lost, touched):
                edit(world, kinds.HOSTS, host, {"allocationState": "Maintenance" if blocked else "Enabled"})

    block(True)
    settle(world)
    world.disk(lost).delete(file_of(world.placement(lost)))
    world.disk(touched).touch(file_of(world.placement(touched)))
    until_state(world, lost, "Pending", obstacle)
    settle(world)
    assert state(world, touched) == ("Ready", "Downloaded")
    assert ran(world) == ["fetch", "fetch"]
    block(False)
    until_state(world, lost, "Ready", "Downloaded")
    until_state(world, touched, "Ready", "Verified")
    assert counted(world) == {(lost, "fetch"): 2, (touched, "fetch"): 1, (touched, "verify"): 1}


def test_a_file_that_is_lost_again_and_again_is_fetched_ever_later(world: Simulation) -> None:
    """Until it was good for longer than the longest pause."""
    (host,) = deployed(world, 1, retry={"initial": "2s", "maximum": "4s"})
    name, disk = file_of(world.placement(host)), world.disk(host)
    # The first loss shall come after the download was good for long enough to count as its own.
    until("the copy to be good for a while", lambda: _good_seconds(world, host) > 5)
    with History(world) as history:
        for number in (2, 3, 4):
            disk.delete(name)
            until(f"fetch {number}", lambda number=number: world.placement(host)["status"]["attempts"] == number)  # type: ignore[misc]
            until_state(world, host, "Ready", "Downloaded")
        lost = _losses(history, host)
        assert sorted(lost) == [1, 2, 3]
    pauses = [pause_seconds(lost[number]) for number in (1, 2, 3)]
    assert pauses[0] == 0
    assert 1 <= pauses[1] < pauses[2] <= 5
    until("the copy to be good for a while", lambda: _good_seconds(world, host) > 5)
    with History(world) as history:
        disk.delete(name)
        until("the fetch", lambda: world.placement(host)["status"]["attempts"] == 5)
        until_state(world, host, "Ready", "Downloaded")
        assert list(_losses(history, host)) == [1]
    assert ran(world) == ["fetch"] * 5


def _losses(history: History, host: str) -> dict[int, Object]:
    """The first version of the placement after each loss, by the failures that count."""
    lost = [v for v in history.versions(host) if v["status"]["conditions"][0]["reason"] == "Missing"]
    return {v["status"]["recentFailures"]: v for v in reversed(lost)}


def _good_seconds(world: Simulation, host: str) -> float:
    verified = datetime.datetime.fromisoformat(world.placement(host)["status"]["file"]["verifiedTime"])
    return (datetime.datetime.now(datetime.UTC) - verified).total_seconds()
