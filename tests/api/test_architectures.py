"""Hosts of several architectures in one zone: where copies are made, what is reported, and that none is lost."""

from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.steps import RETRY, counted, edit, settle, states
from tests.world.waiting import until

from directdownload.cluster import kinds

READY = ("Ready", "Downloaded")
LABEL = "kubernetes.io/arch"


def mixed(world: Simulation) -> tuple[str, str, str]:
    """A zone with an x86_64 host, an aarch64 one, and one whose node has no such label."""
    world.create_zone(downloads={"retry": RETRY})
    amd = world.add_host("amd", labels={LABEL: "amd64"})
    arm = world.add_host("arm", labels={LABEL: "arm64"})
    unknown = world.add_host("unknown")
    world.start_controller()
    until("the fleet", lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts", {}).get("up") == 3)
    return amd, arm, unknown


def condition(world: Simulation, name: str, kind: str) -> tuple[str, str]:
    found: list[Object] = world.deployment(name).get("status", {}).get("conditions", [])
    return next(((each["status"], each["reason"]) for each in found if each["type"] == kind), ("", ""))


def test_new_copies_follow_the_template_and_old_ones_stay(world: Simulation) -> None:
    amd, arm, unknown = mixed(world)
    reported = {name: world.get(kinds.HOSTS, name)["status"].get("architecture") for name in (amd, arm, unknown)}
    assert reported == {amd: "x86_64", arm: "aarch64", unknown: None}
    world.create_template()
    world.deploy()
    world.converged(2)
    settle(world)
    assert states(world) == {amd: READY, unknown: READY}
    counts = world.deployment()["status"]["placements"]
    assert (counts["desired"], counts["skipped"]) == (2, 1)
    edit(world, kinds.TEMPLATES, "debian", {"architecture": "aarch64"}, world.namespace)
    world.converged(3)
    settle(world)
    assert states(world) == dict.fromkeys((amd, arm, unknown), READY)
    assert "skipped" not in world.deployment()["status"]["placements"]
    # What was lost is fetched again, also where no new copy would be made.
    world.disk(amd).files.clear()
    until("another fetch", lambda: counted(world)[amd, "fetch"] == 2)
    world.converged(3)
    settle(world)
    assert counted(world) == {(amd, "fetch"): 2, (arm, "fetch"): 1, (unknown, "fetch"): 1}


def test_a_named_host_of_another_architecture_is_an_error_and_a_late_label_is_none(world: Simulation) -> None:
    amd, arm, unknown = mixed(world)
    world.create_template(architecture="aarch64")
    world.deploy("one", hosts=[amd])
    until("the error", lambda: condition(world, "one", "Stalled") == ("True", "ArchitectureMismatch"))
    (failure,) = world.deployment("one")["status"]["failures"]
    assert (failure["host"], failure["pool"], failure["reason"]) == (amd, world.pool, "ArchitectureMismatch")
    world.deploy("some", hosts=[amd, arm])
    until("the other one", lambda: states(world) == {arm: READY})
    until("the error beside it", lambda: condition(world, "some", "Stalled") == ("True", "ArchitectureMismatch"))
    assert world.deployment("some")["status"]["placements"]["ready"] == 1
    # Selected by nobody yet: its label comes first.
    world.relabel(unknown, **{LABEL: "s390x"})
    until("its architecture", lambda: world.get(kinds.HOSTS, unknown)["status"].get("architecture") == "s390x")
    world.deploy("everywhere")
    world.converged(1)
    settle(world)
    assert states(world) == {arm: READY}
    assert world.deployment()["status"]["placements"]["skipped"] == 2
    # The label alone makes the host fit, and a copy that it got stays when the label goes on.
    world.relabel(unknown, **{LABEL: "arm64"})
    world.converged(2)
    world.relabel(unknown, **{LABEL: "s390x"})
    until("its architecture again", lambda: world.get(kinds.HOSTS, unknown)["status"].get("architecture") == "s390x")
    edit(world, kinds.TEMPLATES, "debian", {"architecture": "x86_64"}, world.namespace)
    until("the named one", lambda: condition(world, "one", "Ready") == ("True", "Converged"))
    world.converged(3)
    settle(world)
    assert counted(world) == dict.fromkeys(((amd, "fetch"), (arm, "fetch"), (unknown, "fetch")), 1)
