"""`directdownload plan` against a real API server, beside the real controller: it says what then happens."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import harness
from tests.world import kube as api
from tests.world.cli_world import directdownload
from tests.world.simulation import SIZE_BYTES, Simulation
from tests.world.steps import hang
from tests.world.waiting import until

from directdownload.cluster import kinds

RULES = {
    "templates": [{"apiGroups": ["directdownload.dev"], "resources": ["templates"], "verbs": ["get", "list"]}],
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[harness.ControlPlane]:
    """A control plane for a controller alone: it acts on every object that it sees."""
    with harness.ControlPlane() as running:
        api.install_definitions(running)
        yield running


@pytest.fixture(scope="module")
def world(fleet: harness.ControlPlane) -> Iterator[Simulation]:
    with Simulation(fleet, "plan", agents=True) as found:
        yield found


def plan(world: Simulation, *arguments: str, kubeconfig: Any = None) -> subprocess.CompletedProcess[str]:
    config = str(kubeconfig or world.control_plane.kubeconfig())
    scope = ("--kubeconfig", config, "-n", world.namespace, "--zone", world.zone)
    return directdownload("plan", *scope, *arguments)


def planned(world: Simulation, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(world, *arguments, "-o", "json").stdout)
    return found


def copies(document: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {(item["host"], item["pool"]): (item["action"], item["reason"]) for item in document["items"]}


def test_the_plan_says_what_the_controller_then_does(world: Simulation) -> None:
    world.create_zone(downloads={"maxParallel": 2})
    shared = world.create_pool("shared", type="NetworkFilesystem")
    one, two, three = (world.add_host(f"kvm-{number}") for number in (1, 2, 3))
    world.cordon(three)
    world.start_controller()
    world.create_template()

    def reported() -> bool:
        with world.kube() as kube:
            hosts = kube.request("GET", kinds.HOSTS.path()).object()["items"]
        return sorted(len(host.get("status", {}).get("storage", ())) for host in hosts) == [2, 2, 2]

    until("the agents to report their pools", reported)
    until("the template to be Ready", lambda: "conditions" in world.get(kinds.TEMPLATES, "debian").get("status", {}))
    until(
        "the cordon to be seen",
        lambda: world.get(kinds.HOSTS, three)["status"]["state"] == "Maintenance",
    )
    before = planned(world, "debian")
    assert not world.placements()
    assert before["refused"] is None
    assert (before["total"]["rounds"], before["total"]["mostAtOnce"]) == (2, 2)
    download = {key for key, (action, _) in copies(before).items() if action == "Download"}
    assert {key for key in copies(before) if key[1] == world.pool} == {(h, world.pool) for h in (one, two, three)}
    assert copies(before)[three, world.pool] == ("Wait", "Maintenance")
    assert len(download) == 3
    assert [pool for _, pool in download].count(shared) == 1
    table = plan(world, "debian")
    assert table.returncode == 0
    assert "Total: 4 copies on 3 hosts: 3 to download, 1 waiting" in table.stdout
    assert f"Maintenance on {three}: the host is in maintenance" in table.stdout

    world.deploy(f"debian-{world.zone}")

    def done() -> bool:
        ready = {
            (p["spec"]["host"], p["spec"]["pool"])
            for p in world.placements()
            if p.get("status", {}).get("phase") == "Ready"
        }
        return ready == download

    until("exactly those that the plan says to be downloaded", done)
    placements = {(p["spec"]["host"], p["spec"]["pool"]): p["metadata"]["name"] for p in world.placements()}
    assert placements == {(item["host"], item["pool"]): item["placement"] for item in before["items"]}
    after = copies(planned(world, "debian"))
    assert {key for key, (action, _) in after.items() if action == "Present"} == download
    assert after[three, world.pool] == ("Wait", "Maintenance")
    until("the size to be learnt", lambda: "sizeBytes" in world.get(kinds.TEMPLATES, "debian")["status"])

    only = planned(world, "debian", "--host", three, "--pool", world.pool)
    assert (only["sizeBytes"], only["items"][0]["fetchBytes"]) == (SIZE_BYTES, SIZE_BYTES)
    names = plan(world, "debian", "-o", "name").stdout.splitlines()
    assert sorted(names) == sorted(f"templateplacement.directdownload.dev/{name}" for name in placements.values())


def test_running_downloads_of_another_namespace_hold_slots_of_the_first_round(world: Simulation) -> None:
    elsewhere = world.create_namespace("elsewhere")
    world.create_template("busy", namespace=elsewhere)
    with world.kube() as kube:
        kube.patch(kinds.ZONES, world.zone, {"spec": {"downloads": {"maxParallelPerSource": 1}}}).object()
    behaviour, world.behaviour = world.behaviour, hang
    world.deploy("busy", "busy", namespace=elsewhere, hosts=["plan-kvm-1"], pools=[world.pool])

    def downloading() -> bool:
        found = {p["spec"]["templateRef"]["name"]: p.get("status", {}).get("phase") for p in world.placements()}
        return found.get("busy") == "Downloading"

    until("a download", downloading)
    world.create_template("next")
    until("the template to be Ready", lambda: "conditions" in world.get(kinds.TEMPLATES, "next").get("status", {}))
    found = planned(world, "next", "--host", "plan-kvm-2", "--pool", world.pool)
    assert (found["items"][0]["round"], found["total"]["otherDownloads"]) == (2, 1)
    assert "Rounds: 1 other download runs in the zone, counted in round 1" in plan(world, "next").stdout
    world.behaviour = behaviour
    with world.kube() as kube:
        kube.patch(kinds.ZONES, world.zone, {"spec": {"downloads": {"maxParallelPerSource": 16}}}).object()
    until("it to end", lambda: not downloading())


def test_a_zone_that_refuses_and_names_that_do_not_exist(world: Simulation) -> None:
    world.create_template("other", url="https://images.example.org/y.qcow2?token=geheim", checksum="0" * 32)
    zone = world.get(kinds.ZONES, world.zone)
    policy = {"allowedHosts": ["*.example.com"], "minimumChecksum": "SHA-256"}
    with world.kube() as kube:
        kube.patch(kinds.ZONES, zone["metadata"]["name"], {"spec": {"sourcePolicy": policy}}).object()
    until("the template to be Ready", lambda: "conditions" in world.get(kinds.TEMPLATES, "other").get("status", {}))
    done = plan(world, "other", "--host", "plan-kvm-11")
    assert done.returncode == 3
    assert (
        "host images.example.org is not allowed; sourcePolicy.allowedHosts of the Zone allows *.example.com"
        in done.stdout
    )
    assert "No copies." in done.stdout
    assert f"zone {world.zone} has no host 'plan-kvm-11' (did you mean 'plan-kvm-1'" in done.stderr
    assert "geheim" not in done.stdout + done.stderr
    assert {action for action, _ in copies(planned(world, "other")).values()} == {"Refused"}


def test_a_tenant_learns_what_cannot_be_told(world: Simulation) -> None:
    with world.kube() as kube:
        role = {"metadata": {"name": "tenant", "namespace": world.namespace}}
        roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}"
        kube.request("POST", f"{roles}/roles", {**role, "rules": RULES["templates"]}).object()
        group = {"apiGroup": "rbac.authorization.k8s.io"}
        subjects = [{**group, "kind": "User", "name": "tenant"}]
        reference = {**group, "kind": "Role", "name": "tenant"}
        kube.request("POST", f"{roles}/rolebindings", {**role, "subjects": subjects, "roleRef": reference}).object()
    world.create_template("exported", url="nfs://nas.example.com/export/templates/x.qcow2")
    until("the template to be Ready", lambda: "conditions" in world.get(kinds.TEMPLATES, "exported").get("status", {}))
    refused = plan(world, "exported")
    assert refused.returncode == 3
    assert 'sourcePolicy.nfsExports of the Zone the line - "nas.example.com:/export' in refused.stdout
    tenant = world.control_plane.kubeconfig("tenant", [])
    # which exports the zone allows is not known either
    assert plan(world, "exported", kubeconfig=tenant).returncode == 0
    done = plan(world, "debian", kubeconfig=tenant)
    assert done.returncode == 0
    assert "Source:   http://images.example.org/debian.qcow2 (HTTP)" in done.stdout
    for what, right in (
        ("zones", "'get' on zones"),
        ("hosts", "'list' on hosts"),
        ("storagepools", "'list' on storagepools"),
        ("templateplacements", "'list' on templateplacements"),
    ):
        assert f"{what} ({right}.directdownload.dev, as the chart's ClusterRole <release>-infrastructure-view has)" in (
            done.stderr
        )
