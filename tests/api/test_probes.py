"""Probes on a real API server: they fill a Template's status in the background, and leave nothing behind."""

import collections

import pytest
from tests.world import steps
from tests.world.controllers import Controller
from tests.world.kube import Object
from tests.world.simulation import SIZE_BYTES, Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.planning.slots import PROBES
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason


def reachable(world: Simulation, name: str = "debian") -> Object:
    """The condition; empty while there is none."""
    conditions = world.get(kinds.TEMPLATES, name).get("status", {}).get("conditions", ())
    return next((dict(c) for c in conditions if c["type"] == "SourceReachable"), {})


def until_reachable(world: Simulation, status: str, reason: str, name: str = "debian") -> None:
    until(
        f"SourceReachable {status} {reason}",
        lambda: (reachable(world, name).get("status"), reachable(world, name).get("reason")) == (status, reason),
    )


def leading(world: Simulation) -> Controller:
    controller = world.start_controller()
    until("the controller to lead", lambda: b"Synced" in controller.log.read_bytes())
    return controller


def test_a_probe_fills_the_status_and_is_gone(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 3)
    leading(world)
    world.create_template()
    until_reachable(world, "True", "SourceReachable")
    status = world.get(kinds.TEMPLATES, "debian")["status"]
    assert (status["sizeBytes"], status["etag"]) == (SIZE_BYTES, '"simulated"')
    assert status["probe"]["attempts"] == 1
    assert "digest" not in status, "nobody has verified anything"
    until("the probe's Job to be gone", lambda: not world.probes())
    ((host, verb, attempt),) = world.kubelets.probed
    assert (verb, attempt) == ("probe", 1)
    assert f"asked from host {host}" in reachable(world)["message"]
    assert not world.started, "nothing was downloaded"
    writes = collections.Counter(w["verb"] for w in world.probe_writes("controller"))
    assert writes == {"create": 1, "delete": 1}
    of_template = [w for w in world.writes("controller") if w["objectRef"]["resource"] == "templates"]
    assert len(of_template) <= 3, "Ready, and what the probe has found"


def test_a_silent_source_never_blocks_ready_nor_a_deployment(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 2)
    world.kubelets.probe_behaviour = steps.hang
    leading(world)
    world.create_template()
    world.deploy()
    world.converged(2)
    assert world.ready_reason(kinds.TEMPLATES, "debian") == "Registered"
    assert reachable(world) == {}
    assert len(world.probes()) == 1
    assert {p["status"]["attempts"] for p in world.placements()} == {1}, "a probe is no attempt of a placement"
    world.kubelets.probe_behaviour = succeed
    until_reachable(world, "True", "SourceReachable")


@pytest.mark.parametrize("reason", [Reason.SOURCE_REFUSED, Reason.SOURCE_UNREACHABLE])
def test_a_failed_probe_says_why_and_is_repeated_when_asked(world: Simulation, reason: Reason) -> None:
    steps.hosts_of_a_zone(world, 1)
    world.kubelets.probe_behaviour = lambda _: fail(reason)
    controller = leading(world)
    world.create_template()
    until_reachable(world, "False", str(reason))
    cause = f"probe: {reason}: simulated {reason}".encode()
    until("the cause in the log, for administrators", lambda: cause in controller.log.read_bytes())
    assert ("simulated" in reachable(world)["message"]) == (reason is Reason.SOURCE_REFUSED)
    until("the probe's Job to be gone", lambda: not world.probes())
    status = world.get(kinds.TEMPLATES, "debian")["status"]
    assert ("nextAttemptTime" in status["probe"]) == (reason is Reason.SOURCE_UNREACHABLE)
    assert world.ready_reason(kinds.TEMPLATES, "debian") == "Registered"
    steps.settle(world)
    assert len(world.kubelets.probed) == 1
    world.kubelets.probe_behaviour = succeed
    value = steps.ask(world, kinds.TEMPLATES, "debian")
    until_reachable(world, "True", "SourceReachable")
    assert world.get(kinds.TEMPLATES, "debian")["status"]["probe"]["lastHandledRequest"] == value
    steps.settle(world)
    assert len(world.kubelets.probed) == 2, "a success is not repeated"


def test_another_policy_of_the_zone_repeats_a_probe_that_failed_for_good(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)

    def judged(document: JobDocument) -> JobResult:
        return succeed(document) if document.policy.allowed_cidrs else fail(Reason.URL_NOT_ALLOWED)

    world.kubelets.probe_behaviour = judged
    leading(world)
    world.create_template()
    until_reachable(world, "False", "URLNotAllowed")
    steps.edit(world, kinds.ZONES, world.zone, {"sourcePolicy": {"allowedCIDRs": ["127.0.0.0/8"]}})
    until_reachable(world, "True", "SourceReachable")


def test_a_template_deleted_while_its_probe_runs(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    world.kubelets.probe_behaviour = steps.hang
    leading(world)
    world.create_template()
    until("the probe", lambda: world.kubelets.probed)
    steps.delete(world, kinds.TEMPLATES, "debian")
    until("the template to be gone", lambda: world.gone(kinds.TEMPLATES, "debian"))
    until("the probe's Job to be gone", lambda: not world.probes())


def test_a_template_deleted_while_nobody_leads_takes_its_probe_along(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    world.kubelets.probe_behaviour = steps.hang
    controller = world.start_controller()
    world.create_template()
    until("the probe", lambda: world.kubelets.probed)
    steps.kill(world, controller)
    steps.delete(world, kinds.TEMPLATES, "debian")
    world.create_template()
    assert len(world.probes()) == 1
    world.kubelets.probe_behaviour = succeed
    leading(world)
    until_reachable(world, "True", "SourceReachable")
    until("the Jobs of both probes to be gone", lambda: not world.probes())
    assert [attempt for _, _, attempt in world.kubelets.probed] == [1, 1], "the new Template was asked for by itself"


def test_a_controller_that_is_killed_reads_the_probe_of_the_one_before(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    world.kubelets.probe_behaviour = steps.hang
    first = world.start_controller("first")
    world.create_template()
    until("the probe", lambda: world.kubelets.probed)
    steps.kill(world, first)
    world.kubelets.probe_behaviour = succeed
    world.start_controller("second")
    until_reachable(world, "True", "SourceReachable")
    until("the probe's Job to be gone", lambda: not world.probes())
    assert len(world.kubelets.probed) == 1


def test_the_source_is_asked_as_soon_as_there_is_a_host(world: Simulation) -> None:
    world.create_zone()
    leading(world)
    world.create_template()
    until("Ready", lambda: world.ready_reason(kinds.TEMPLATES, "debian") == "Registered")
    steps.settle(world)
    assert reachable(world) == {}
    world.add_host("kvm-1")
    until_reachable(world, "True", "SourceReachable")


def test_another_host_asks_when_the_first_one_is_lost(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 2)
    world.kubelets.probe_behaviour = steps.hang
    leading(world)
    world.create_template()
    until("the probe", lambda: world.kubelets.probed)
    lost = world.kubelets.probed[0][0]
    world.power_off(lost)
    until_reachable(world, "Unknown", "Interrupted")
    world.kubelets.probe_behaviour = succeed
    steps.ask(world, kinds.TEMPLATES, "debian")
    until_reachable(world, "True", "SourceReachable")
    assert [host == lost for host, _, _ in world.kubelets.probed] == [True, False]


def test_only_a_few_probes_run_at_once_and_all_get_their_turn(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 2)
    world.kubelets.probe_behaviour = steps.hang
    leading(world)
    names = [f"t{number}" for number in range(PROBES.limit + 4)]
    for name in names:
        world.create_template(name)
    until("as many probes as may be", lambda: len(world.kubelets.probed) == PROBES.limit)
    steps.settle(world)
    assert len(world.probes()) == PROBES.limit
    world.kubelets.probe_behaviour = succeed
    for name in names:
        until_reachable(world, "True", "SourceReachable", name)
    assert world.kubelets.most_probes == PROBES.limit
    assert len(world.kubelets.probed) == len(names)


def test_a_template_asks_from_no_zone_that_it_may_not_be_deployed_in(world: Simulation) -> None:
    world.create_zone(templateNamespaces={"matchLabels": {"team": "red"}})
    world.add_host("kvm-1")
    red = world.create_namespace("red", team="red")
    leading(world)
    world.create_template()
    world.create_template("allowed", namespace=red)
    until("the allowed one", lambda: world.kubelets.probed)
    steps.settle(world)
    assert len(world.kubelets.probed) == 1
    assert reachable(world) == {}
    status = world.get(kinds.TEMPLATES, "allowed", red)["status"]
    assert "SourceReachable" in [condition["type"] for condition in status["conditions"]]
