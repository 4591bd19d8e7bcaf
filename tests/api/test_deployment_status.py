"""What people see of a deployment and its copies, beside the real controller: on a real API server, with kubectl."""

import re
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.world import kube as api
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import crd


@pytest.fixture
def world(own: harness.ControlPlane) -> Iterator[Simulation]:
    with Simulation(own, "see", agents=True) as found:
        yield found


def rows(world: Simulation, *arguments: str) -> list[dict[str, str]]:
    """What `kubectl get` prints, by the columns' names."""
    done = world.control_plane.kubectl("get", *arguments, "-n", world.namespace, check=True)
    head, *lines = done.stdout.splitlines()
    columns = [(found[0].strip(), found.span()) for found in re.finditer(r"\S+\s*", head)]
    return [{name: line[start:end].strip() for name, (start, end) in columns} for line in lines]


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
    template, pool = world.get(kinds.TEMPLATES, "debian")["status"], world.get(kinds.STORAGE_POOLS, world.pool)
    assert [row["SIZE"] for row in rows(world, "ddtemplate")] == [template["size"]]
    assert template["size"].split()[1] in {"B", "KiB", "MiB", "GiB"}
    file = world.placement(host)["status"]["file"]
    assert (file["size"], file["sizeBytes"]) == (template["size"], template["sizeBytes"])
    (row,) = rows(world, "ddpool", world.pool)
    assert (row["CAPACITY"], row["AVAILABLE"]) == (pool["status"]["capacity"], pool["status"]["available"])
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
