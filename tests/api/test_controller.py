"""The controller against a real API server, with simulated hosts: from wishes to placements, Jobs and results."""

import collections
import datetime
import threading
import time
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.world import kube as api
from tests.world.simulation import DIGEST, SIZE_BYTES, Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason


@pytest.fixture(scope="module")
def fleet() -> Iterator[harness.ControlPlane]:
    """A control plane for controllers alone: they act on every object that they see."""
    with harness.ControlPlane() as running:
        api.install_definitions(running)
        yield running


@pytest.fixture
def world(fleet: harness.ControlPlane, request: pytest.FixtureRequest) -> Iterator[Simulation]:
    prefix = f"w{abs(hash(request.node.nodeid)) % 10**8}"
    with Simulation(fleet, prefix) as found:
        yield found
        with found.kube() as kube:
            for kind in (kinds.TEMPLATE_PLACEMENTS, kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATES):
                for item in kube.request("GET", kind.path()).object()["items"]:
                    name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
                    kube.patch(kind, name, {"metadata": {"finalizers": None}}, namespace)
                    kube.delete(kind, name, namespace)
            for kind in (kinds.STORAGE_POOLS, kinds.ZONES, kinds.HOSTS, kinds.NODES):
                for item in kube.request("GET", kind.path()).object()["items"]:
                    kube.delete(kind, item["metadata"]["name"])


def three_hosts(world: Simulation) -> list[str]:
    world.create_zone(downloads={"retry": {"initial": "1s", "maximum": "2s"}})
    return [world.add_host(f"kvm-{number}") for number in (1, 2, 3)]


def hang(_: JobDocument) -> JobResult | None:
    return None


def reasons(world: Simulation) -> dict[str, tuple[str, str]]:
    """Phase and reason by host."""
    return {
        p["spec"]["host"]: (p["status"]["phase"], p["status"]["conditions"][0]["reason"])
        for p in world.placements()
        if "phase" in p.get("status", {})
    }


def test_a_template_reaches_every_host(world: Simulation) -> None:
    hosts = three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    placements = world.placements()
    assert sorted(p["spec"]["host"] for p in placements) == hosts
    for placement in placements:
        status = placement["status"]
        assert (status["phase"], status["attempts"]) == ("Ready", 1)
        assert (status["file"]["sizeBytes"], status["file"]["digest"]) == (SIZE_BYTES, DIGEST)
        assert status["file"]["path"] == placement["spec"]["path"]
    until("the jobs to be deleted", lambda: not world.jobs())
    until("the template to learn", lambda: "digest" in world.get(kinds.TEMPLATES, "debian")["status"])
    template = world.get(kinds.TEMPLATES, "debian")
    assert (template["status"]["digest"], template["status"]["sizeBytes"]) == (DIGEST, SIZE_BYTES)
    arrived = world.deployment()["status"]["bytes"]
    assert (arrived["downloaded"], arrived["total"]) == (3 * SIZE_BYTES, 3 * SIZE_BYTES)
    up = {"total": 3, "up": 3}
    until("the zone's count", lambda: world.get(kinds.ZONES, world.zone)["status"]["hosts"] == up)


def test_a_template_is_ready_within_one_second_whatever_its_source(world: Simulation) -> None:
    controller = world.start_controller()
    until("the controller to lead", lambda: b"Synced" in controller.log.read_bytes())
    world.create_template("unreachable", url="http://192.0.2.1/nothing-is-there.qcow2")
    until("Ready", lambda: world.ready_reason(kinds.TEMPLATES, "unreachable") == "Registered")
    # By the API server's own clock: what the polling here takes does not count.
    events = harness.read_audit_log(world.control_plane.audit_log)
    of_template = [e for e in events if e["objectRef"].get("name") == "unreachable" or e["verb"] == "create"]
    times = {
        (e["verb"], e["objectRef"].get("subresource", "")): datetime.datetime.fromisoformat(e["stageTimestamp"])
        for e in reversed(of_template)
        if e["objectRef"]["resource"] == "templates" and e["objectRef"].get("namespace") == world.namespace
    }
    assert times["patch", "status"] - times["create", ""] < datetime.timedelta(seconds=1)


def test_at_most_eight_writes_per_placement(world: Simulation) -> None:
    hosts = 6
    world.create_zone()
    for number in range(hosts):
        world.add_host(f"kvm-{number}")
    controller = world.start_controller()
    world.create_template()
    until("Up hosts", lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts", {}).get("up") == hosts)
    before = len(world.writes("controller"))
    world.deploy()
    world.converged(hosts)
    until("the jobs to be deleted", lambda: not world.jobs())
    assert controller.stop() == 0
    writes = world.writes("controller")[before:]
    counted = collections.Counter((w["verb"], w["objectRef"]["resource"]) for w in writes)
    # One more is the agent's, which tells once what it sees under the final name.
    assert len(writes) <= 7 * hosts, counted
    of_placements = [w for w in writes if w["objectRef"]["resource"] in ("templateplacements", "jobs")]
    assert len(of_placements) == 5 * hosts, counted


def test_wrong_checksum_stalls_one_placement_and_no_other(world: Simulation) -> None:
    bad, *good = three_hosts(world)
    world.behaviour = lambda d: fail(Reason.CHECKSUM_MISMATCH) if d.host == bad else succeed(d)
    world.start_controller()
    world.create_template()
    world.deploy()
    until("a failed placement", lambda: reasons(world).get(bad) == ("Failed", "ChecksumMismatch"))
    until("the others", lambda: all(reasons(world).get(host) == ("Ready", "Downloaded") for host in good))

    def stalled() -> bool:
        conditions = world.deployment().get("status", {}).get("conditions", ())
        return ("Stalled", "True", "PlacementsFailed") in [(c["type"], c["status"], c["reason"]) for c in conditions]

    until("a stalled deployment", stalled)
    status = world.deployment()["status"]
    assert status["failures"] == [
        {"host": bad, "pool": world.pool, "reason": "ChecksumMismatch", "message": "simulated ChecksumMismatch"}
    ]
    assert [entry for entry in world.started if entry[0] == bad] == [(bad, "fetch", 1)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kinds.TEMPLATE_DEPLOYMENTS, "everywhere"), (kinds.TEMPLATES, "debian")],
    ids=["deployment", "template"],
)
def test_a_stalled_placement_is_tried_again_when_asked(world: Simulation, kind: kinds.Resource, name: str) -> None:
    bad, *_ = three_hosts(world)
    world.behaviour = lambda d: fail(Reason.CHECKSUM_MISMATCH) if d.host == bad else succeed(d)
    world.start_controller()
    world.create_template()
    world.deploy()
    until("a failed placement", lambda: reasons(world).get(bad) == ("Failed", "ChecksumMismatch"))
    world.behaviour = succeed
    with world.kube() as kube:
        patch = {"metadata": {"annotations": {"directdownload.dev/requested-at": "now"}}}
        kube.patch(kind, name, patch, world.namespace).object()
    world.converged(3)
    assert world.placement(bad)["status"]["attempts"] == 2
    assert world.get(kind, name)["status"]["lastHandledRequest"] == "now"


def test_what_is_asked_while_an_attempt_runs_is_done_by_the_next_one(world: Simulation) -> None:
    """The origin has been mended, and the attempt, which began before, fails for what was wrong then."""
    bad, *_ = three_hosts(world)
    mended = threading.Event()

    def behave(document: JobDocument) -> JobResult | None:
        if document.host != bad or (bad, "fetch", 2) in world.started:
            return succeed(document)
        return fail(Reason.CHECKSUM_MISMATCH) if mended.is_set() else None

    world.behaviour = behave
    world.start_controller()
    world.create_template()
    world.deploy()
    until("an attempt that runs", lambda: reasons(world).get(bad) == ("Downloading", "Downloading"))
    with world.kube() as kube:
        patch = {"metadata": {"annotations": {"directdownload.dev/requested-at": "now"}}}
        kube.patch(kinds.TEMPLATES, "debian", patch, world.namespace).object()
    until("its copies to be asked", lambda: world.placement(bad)["metadata"].get("annotations"))
    mended.set()
    world.converged(3)
    status = world.placement(bad)["status"]
    assert (status["attempts"], status["lastHandledRequest"]) == (2, "now")


@pytest.mark.parametrize("reason", [Reason.SOURCE_UNREACHABLE, Reason.INSUFFICIENT_SPACE])
def test_a_transient_failure_is_retried_until_it_recovers(world: Simulation, reason: Reason) -> None:
    three_hosts(world)
    world.behaviour = lambda _: fail(reason)
    world.start_controller()
    world.create_template()
    world.deploy()
    until("backoff", lambda: {found for _, found in reasons(world).values()} >= {str(reason)})
    until("second attempts", lambda: any(attempt == 2 for _, _, attempt in world.started))
    assert all(phase != "Failed" for phase, _ in reasons(world).values())
    world.behaviour = succeed
    world.converged(3)


def test_a_job_without_a_result_is_interrupted_and_tried_again(world: Simulation) -> None:
    three_hosts(world)
    lost: set[str] = set()

    def lose_once(document: JobDocument) -> JobResult:
        if document.host in lost:
            return succeed(document)
        lost.add(document.host)
        return JobResult.model_construct(reason=Reason.INTERRUPTED, message="not JSON that anyone reads")

    world.behaviour = lose_once
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    assert {p["status"]["attempts"] for p in world.placements()} == {2}


def test_a_down_host_waits_and_holds_up_no_other(world: Simulation) -> None:
    down, *up = three_hosts(world)
    world.set_ready(down, False)
    world.start_controller()
    world.create_template()
    world.deploy()
    until("the others", lambda: all(reasons(world).get(host) == ("Ready", "Downloaded") for host in up))
    until("the reason", lambda: reasons(world).get(down) == ("Pending", "HostDown"))
    assert world.ready_reason(kinds.HOSTS, down) == "NodeNotReady"
    world.set_ready(down, True)
    world.converged(3)


def test_limits_per_zone_hold(world: Simulation) -> None:
    world.create_zone(downloads={"maxParallel": 2})
    for number in range(5):
        world.add_host(f"kvm-{number}")
    world.behaviour = hang
    world.start_controller()
    world.create_template()
    world.deploy()
    waiting = ("Pending", "WaitingForSlot")
    until("three waiting", lambda: list(reasons(world).values()).count(waiting) == 3)
    until("two running", lambda: len(world.started) == 2)
    world.behaviour = succeed
    world.converged(5)
    assert world.most_active <= 2


def test_limits_per_host_hold(world: Simulation) -> None:
    world.create_zone(downloads={"maxParallelPerHost": 1})
    host = world.add_host("kvm-1")
    world.behaviour = hang
    world.start_controller()
    for name in ("one", "two", "three"):
        world.create_template(name)
        world.deploy(name, name)
    until(
        "two wait",
        lambda: [p["status"].get("phase") for p in world.placements() if "status" in p].count("Pending") == 2,
    )
    until("one runs", lambda: len(world.started) == 1)
    world.behaviour = succeed
    for name in ("one", "two", "three"):
        world.converged(1, name)
    assert world.most_active <= 1
    assert {entry[0] for entry in world.started} == {host}


@pytest.mark.parametrize("moment", ["placements", "jobs", "results", "status"])
def test_killing_the_controller_at_any_point_changes_nothing(world: Simulation, moment: str) -> None:
    hosts = three_hosts(world)
    world.behaviour = succeed if moment == "status" else hang
    first = world.start_controller("first")
    world.create_template()
    world.deploy()
    reached = {
        "placements": lambda: bool(world.placements()),
        "jobs": lambda: bool(world.started),
        "results": lambda: len(world.started) == 3,
        "status": lambda: any(phase == "Ready" for phase, _ in reasons(world).values()),
    }
    until(moment, reached[moment])
    first.kill()
    world.behaviour = succeed
    world.start_controller("second")
    world.converged(3)
    until("the jobs to be deleted", lambda: not world.jobs())
    # Whatever it was doing, each host fetched once.
    assert sorted(world.started) == [(host, "fetch", 1) for host in hosts]


def test_only_the_leader_acts_and_another_takes_over_when_it_dies(world: Simulation) -> None:
    three_hosts(world)
    first = world.start_controller("first")
    until("a leader", lambda: b"Synced" in first.log.read_bytes())
    second = world.start_controller("second")
    world.create_template()
    world.deploy()
    world.converged(3)
    assert second.process.poll() is None
    assert not world.writes("second")
    first.kill()
    world.create_template("later")
    world.deploy("later", "later")
    world.converged(3, "later")
    assert world.writes("second")


def test_a_leader_that_is_stopped_hands_over_at_once(world: Simulation) -> None:
    three_hosts(world)
    first = world.start_controller("first")
    until("a leader", lambda: b"Synced" in first.log.read_bytes())
    world.start_controller("second")
    assert first.stop() == 0
    started = time.monotonic()
    world.create_template()
    until("Ready", lambda: world.ready_reason(kinds.TEMPLATES, "debian") == "Registered")
    # A Lease that is not released runs out after 15 s.
    assert time.monotonic() - started < 12


def test_deleting_a_deployment_removes_its_files(world: Simulation) -> None:
    hosts = three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    with world.kube() as kube:
        kube.delete(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", world.namespace).object()
    until("the placements to go", lambda: not world.placements())
    assert sorted(entry[0] for entry in world.started if entry[1] == "remove") == hosts
    assert world.gone(kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    until("the jobs to be deleted", lambda: not world.jobs())


def test_retain_leaves_the_files(world: Simulation) -> None:
    three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy(deletionPolicy="Retain")
    world.converged(3)
    with world.kube() as kube:
        kube.delete(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", world.namespace).object()
    until("the placements to go", lambda: not world.placements())
    assert not [entry for entry in world.started if entry[1] == "remove"]


def test_deleting_a_template_removes_its_files(world: Simulation) -> None:
    hosts = three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    with world.kube() as kube:
        kube.delete(kinds.TEMPLATES, "debian", world.namespace).object()
    until("the placements to go", lambda: not world.placements())
    assert sorted(entry[0] for entry in world.started if entry[1] == "remove") == hosts
    until("the template to go", lambda: world.gone(kinds.TEMPLATES, "debian"))
    until("the reason", lambda: world.ready_reason(kinds.TEMPLATE_DEPLOYMENTS, "everywhere") == "TemplateNotFound")


def test_narrowing_a_deployment_removes_what_it_no_longer_names(world: Simulation) -> None:
    keep, *_ = three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    with world.kube() as kube:
        kube.patch(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", {"spec": {"hosts": [keep]}}, world.namespace).object()
    until("one placement", lambda: [p["spec"]["host"] for p in world.placements()] == [keep])
    world.converged(1)


def test_deleting_a_definition_removes_no_file(world: Simulation, fleet: harness.ControlPlane) -> None:
    three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    name = "templatedeployments.directdownload.dev"
    try:
        fleet.kubectl("delete", "crd", name, "--timeout=120s", check=True)
        until("the placements to go", lambda: not world.placements())
    finally:
        api.install_definitions(fleet)
    assert not [entry for entry in world.started if entry[1] == "remove"]


def test_a_placement_deleted_by_hand_comes_back_and_its_file_stays(world: Simulation) -> None:
    host, *_ = three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    before = world.placement(host)
    with world.kube() as kube:
        kube.delete(kinds.TEMPLATE_PLACEMENTS, before["metadata"]["name"]).object()

    def replaced() -> bool:
        found = [p for p in world.placements() if p["spec"]["host"] == host]
        return bool(found) and found[0]["metadata"]["uid"] != before["metadata"]["uid"]

    until("another placement of the same name", replaced)
    world.converged(3)
    assert not [entry for entry in world.started if entry[1] == "remove"]


def test_a_host_that_joins_later_gets_its_copy(world: Simulation) -> None:
    three_hosts(world)
    world.start_controller()
    world.create_template()
    world.deploy()
    world.converged(3)
    late = world.add_host("kvm-4")
    world.converged(4)
    assert reasons(world)[late] == ("Ready", "Downloaded")
