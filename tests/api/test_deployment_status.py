"""What people see of a deployment and its copies, beside the real controller: on a real API server, with kubectl."""

import re
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.world import kube as api
from tests.world.cli_world import directdownload
from tests.world.kube import Object
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import crd


@pytest.fixture
def world(own: harness.ControlPlane) -> Iterator[Simulation]:
    with Simulation(own, "see", agents=True) as found:
        yield found


def ready(world: Simulation, name: str = "everywhere") -> tuple[str, str, str]:
    conditions = world.deployment(name).get("status", {}).get("conditions", ())
    return next(((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == "Ready"), ("", "", ""))


def rows(world: Simulation, *arguments: str) -> list[dict[str, str]]:
    """What `kubectl get` prints, by the columns' names."""
    done = world.control_plane.kubectl("get", *arguments, "-n", world.namespace, check=True)
    head, *lines = done.stdout.splitlines()
    columns = [(found[0].strip(), found.span()) for found in re.finditer(r"\S+\s*", head)]
    return [{name: line[start:end].strip() for name, (start, end) in columns} for line in lines]


def shown(world: Simulation, *arguments: str) -> str:
    scope = ("--kubeconfig", str(world.control_plane.kubeconfig()), "-n", world.namespace)
    done = directdownload(*arguments, *scope)
    return done.stdout + done.stderr


def counts(status: Object) -> tuple[int, ...]:
    found = status["placements"]
    assert found["desired"] == sum(found[name] for name in ("ready", "downloading", "pending", "failed"))
    assert found["pending"] == sum(entry["count"] for entry in status.get("waiting", ()))
    return tuple(found[name] for name in ("desired", "ready", "downloading", "pending"))


def test_a_deployment_says_what_its_copies_wait_for(world: Simulation) -> None:
    world.create_zone()
    _, down, cordoned = (world.add_host(name) for name in ("up", "down", "cordoned"))
    world.power_off(down)
    world.cordon(cordoned)
    world.start_controller()
    world.create_template()
    world.deploy()
    until("one copy", lambda: world.deployment().get("status", {}).get("placements", {}).get("ready") == 1)
    expected = [("HostDown", 1, [down]), ("Maintenance", 1, [cordoned])]

    def waiting() -> list[tuple[str, int, list[str]]]:
        found = world.deployment()["status"].get("waiting", ())
        return [(entry["reason"], entry["count"], entry["hosts"]) for entry in found]

    until("what the others wait for", lambda: waiting() == expected)
    status = world.deployment()["status"]
    assert counts(status) == (3, 1, 0, 2)
    assert status["waiting"][0]["message"].startswith("the host is Down: ")
    message = f"1 of 3 copies are verified; waiting: 1 HostDown ({down}), 1 Maintenance ({cordoned})"
    assert ready(world) == ("False", "HostDown", message)
    (row,) = rows(world, "dddeploy")
    assert (row["DOWNLOADING"], row["PENDING"], row["REASON"]) == ("0", "2", "HostDown")
    (row,) = rows(world, "dddeploy", "-o", "wide")
    assert row["MESSAGE"] == message
    text = shown(world, "status", "everywhere")
    assert f"Status:     HostDown: {message}" in text
    assert f"Waiting:    1 HostDown ({down}): the host is Down: " in text
    assert f"Waiting:    1 Maintenance ({cordoned}): the host is in maintenance" in text
    world.restore(down)
    world.cordon(cordoned, False)
    world.converged(3)
    assert "waiting" not in world.deployment()["status"]


def test_a_copy_whose_host_goes_down_during_its_download_waits(world: Simulation) -> None:
    world.create_zone()
    host = world.add_host("kvm-1")
    world.behaviour = lambda _: None
    world.start_controller()
    world.create_template()
    world.deploy()
    until("the download", lambda: ready(world)[1] == "Downloading")
    world.unplug(host)
    until("the host to be missed", lambda: ready(world)[1] == "HostDown")
    assert world.placement(host)["status"]["phase"] == "Downloading"
    assert counts(world.deployment()["status"]) == (1, 0, 0, 1)


def test_names_that_the_zone_does_not_have_are_desired_and_not_served(world: Simulation) -> None:
    world.create_zone()
    there, other = world.add_host("kvm-1"), world.add_zone("other")
    elsewhere = world.add_host("kvm-9", zone=other)
    world.start_controller()
    world.create_template()
    coming = f"{world.prefix}-kvm-2"
    world.deploy(hosts=[there, coming, elsewhere])
    until("the deployment", lambda: ready(world)[1] == "HostNotFound")
    message = "1 of 1 copies are verified; spec.hosts: Zone {} has no host {}; spec.hosts: in another Zone: {}"
    assert ready(world) == ("False", "HostNotFound", message.format(world.zone, coming, elsewhere))
    assert coming in shown(world, "status", "everywhere")
    plan = shown(world, "plan", "debian", "--zone", world.zone, "--host", coming, "--host", elsewhere, "--host", there)
    assert f"zone {world.zone} has no host '{coming}' (did you mean '{there}'?): it gets its copies once" in plan
    assert f"host '{elsewhere}' is in zone {other}, not in {world.zone}" in plan
    assert world.add_host("kvm-2") == coming
    until("the node that has joined", lambda: coming not in ready(world)[2])
    world.relabel(elsewhere, simulated_zone=None)
    with world.kube() as connection:
        connection.delete(kinds.HOSTS, elsewhere)
    until("the name to be unknown", lambda: f"has no host {elsewhere}" in ready(world)[2])
    world.relabel(elsewhere, simulated_zone=world.zone)
    world.converged(3)


def test_templates_of_one_name_are_told_apart_and_amounts_are_for_people(world: Simulation) -> None:
    world.create_zone()
    host = world.add_host("kvm-1")
    world.start_controller()
    other = world.create_namespace("other")
    for namespace in (world.namespace, other):
        world.create_template(namespace=namespace)
        world.deploy(namespace=namespace)
    until("both copies", lambda: [p.get("status", {}).get("phase") for p in world.placements()] == ["Ready"] * 2)
    assert {(row["NAMESPACE"], row["TEMPLATE"]) for row in rows(world, "ddplacement")} == {
        (world.namespace, "debian"),
        (other, "debian"),
    }
    with world.kube() as connection:
        progress = {"bytesDownloaded": 45 << 20, "bytesPerSecond": 12_897_485, "rate": "12.3 MiB/s", "eta": "2m05s"}
        path = kinds.TEMPLATE_PLACEMENTS.path(world.placement(host)["metadata"]["name"])
        connection.request(
            "PATCH", f"{path}/status", {"status": {"progress": progress}}, content_type=api.MERGE_PATCH
        ).object()
    assert ("12.3 MiB/s", "2m05s") in {(row["RATE"], row["ETA"]) for row in rows(world, "ddplacement")}
    until("the size", lambda: "size" in world.get(kinds.TEMPLATES, "debian").get("status", {}))
    template = world.get(kinds.TEMPLATES, "debian")["status"]
    assert [row["SIZE"] for row in rows(world, "ddtemplate")] == [template["size"]]
    assert template["size"].split()[1] in {"B", "KiB", "MiB", "GiB"}
    file = world.placement(host)["status"]["file"]
    assert (file["size"], file["sizeBytes"]) == (template["size"], template["sizeBytes"])

    def pool_as_shown() -> bool:
        (row,) = rows(world, "ddpool", world.pool)
        told = world.get(kinds.STORAGE_POOLS, world.pool)["status"]
        return (row["CAPACITY"], row["AVAILABLE"]) == (told["capacity"], told["available"])

    # What is free changes with the copies.
    until("the pool's amounts in both", pool_as_shown)
    world.converged(1)
    (row,) = rows(world, "dddeploy", "-o", "wide")
    assert row["PROGRESS"] == f"{template['size']} of {template['size']}"


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: str(kind.__name__))
def test_kubectl_explains(definitions: harness.ControlPlane, kind: type) -> None:
    """Every description of the schema is there; a unit test demands one of every field."""
    plural = f"{kind.DEFINITION.plural}.directdownload.dev"  # type: ignore[attr-defined]
    for part in ("", ".spec", ".status", ".status.conditions.reason"):
        text = definitions.kubectl("explain", plural + part, check=True).stdout
        assert "<no description>" not in text, text
    selectors = ".spec.hostSelector.matchExpressions.operator"
    if kind.__name__ == "TemplateDeployment":
        assert "NotIn" in definitions.kubectl("explain", plural + selectors, check=True).stdout
