"""Hosts join, lose power, are cordoned and go for good: no wish is lost, and no file goes that nobody gave up."""

from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import Cluster
from tests.world.evidence import HOSTS
from tests.world.waiting import until


def host_state(cluster: Cluster, host: str) -> str:
    return str(cluster.get("host", host).get("status", {}).get("state"))


@pytest.fixture
def fourth(local: Cluster) -> Iterator[str]:
    """The name of a node that a test may add; gone afterwards."""
    yield "kvm-4"
    local.node("remove", "kvm-4")
    local.delete("host", "kvm-4", missing_ok=True)


def test_a_node_that_joins_late_gets_its_copy_and_may_leave_for_ever(
    local: Cluster, server: origin.Origin, image: Image, fourth: str
) -> None:
    local.apply(
        clusters.template("late", server.url(image.path.name), checksum=image.checksum), clusters.deployment("late")
    )
    local.converged("late", 3)
    local.node("add", fourth)
    local.converged("late", 4, 120)
    placement = local.placements("late")[fourth]
    file = local.file(fourth, placement["spec"]["path"])
    assert clusters.sha256(file) == image.sha256

    local.node("stop", fourth)
    local.delete("node", fourth)
    until("the host to be Down", lambda: host_state(local, fourth) == "Down")
    local.delete("templatedeployment", "late", namespace="default")
    until("the others to be removed", lambda: set(local.placements("late")) == {fourth})
    until("the reason", lambda: local.reasons("late")[fourth] == ("Removing", "HostDown"))
    # Whoever deletes the Host gives up what lies there.
    local.delete("host", fourth)
    until("the last placement to go", lambda: not local.placements("late"))
    assert clusters.sha256(file) == image.sha256


def test_a_power_cut_in_mid_download_loses_neither_bytes_nor_wishes(local: Cluster, slow_server: origin.Origin) -> None:
    small = Image(slow_server.directory, "small.raw", 1 << 20)
    large = Image(slow_server.directory, "large.raw", 64 << 20)
    local.apply(
        clusters.template("unwanted", slow_server.url("small.raw"), checksum=small.checksum),
        clusters.template("cut", slow_server.url("large.raw"), checksum=large.checksum),
        clusters.deployment("unwanted"),
    )
    local.converged("unwanted", 3)
    unwanted = {host: local.file(host, p["spec"]["path"]) for host, p in local.placements("unwanted").items()}
    # Not the leader's node: how long another one takes over is not what is looked at here.
    leader = local.get("lease", f"{clusters.RELEASE}-controller", clusters.NAMESPACE)["spec"]["holderIdentity"]
    (on,) = (
        p["spec"]["nodeName"] for p in evidence.pods(local, "controller") if leader.startswith(p["metadata"]["name"])
    )
    lost = next(host for host in reversed(HOSTS) if host != on)
    local.apply(clusters.deployment("cut"))
    until("half of it", lambda: evidence.downloaded(local, "cut", lost) >= large.size_bytes // 2)
    local.node("stop", lost)
    try:
        local.delete("templatedeployment", "unwanted", namespace="default")
        until("the others", lambda: evidence.ready_hosts(local, "cut") == set(HOSTS) - {lost})
        until("the host to be Down", lambda: host_state(local, lost) == "Down")
        until("the others to be removed", lambda: set(local.placements("unwanted")) == {lost})
        assert local.reasons("unwanted")[lost][0] == "Removing"
        assert [host for host in HOSTS if unwanted[host].exists()] == [lost]
    finally:
        local.node("start", lost)
    until("the unwanted file to go", lambda: not unwanted[lost].exists())
    until("its placement to go", lambda: not local.placements("unwanted"))
    local.converged("cut", 3, 120)
    placement = local.placements("cut")[lost]
    assert clusters.sha256(local.file(lost, placement["spec"]["path"])) == large.sha256
    (resumed,) = (r for r in evidence.wait_for_gets(slow_server, 4) if r.status == 206)
    assert resumed.bytes_sent <= large.size_bytes // 2
    assert not evidence.work_files(local, lost)


def test_a_cordoned_node_finishes_what_runs_and_gets_nothing_new(local: Cluster, slow_server: origin.Origin) -> None:
    running = Image(slow_server.directory, "running.raw", 40 << 20)
    new = Image(slow_server.directory, "new.raw", 1 << 20)
    local.apply(
        clusters.template("running", slow_server.url("running.raw"), checksum=running.checksum),
        clusters.template("new", slow_server.url("new.raw"), checksum=new.checksum),
        clusters.deployment("running"),
    )
    until("downloads on every host", lambda: all(evidence.running_pod(local, host) for host in HOSTS))
    local.kubectl("cordon", "kvm-1")
    try:
        until("maintenance", lambda: host_state(local, "kvm-1") == "Maintenance")
        assert evidence.running_pod(local, "kvm-1")
        local.apply(clusters.deployment("new"))
        local.converged("running", 3)
        until("the others", lambda: evidence.ready_hosts(local, "new") == {"kvm-2", "kvm-3"})
        assert local.reasons("new")["kvm-1"] == ("Pending", "Maintenance")
        assert {p["status"]["attempts"] for p in local.placements("running").values()} == {1}
    finally:
        local.kubectl("uncordon", "kvm-1")
    local.converged("new", 3, 60)


def test_a_host_object_deleted_by_hand_comes_again_and_its_files_stay(
    local: Cluster, server: origin.Origin, image: Image
) -> None:
    local.apply(
        clusters.template("kept", server.url(image.path.name), checksum=image.checksum), clusters.deployment("kept")
    )
    local.converged("kept", 3)
    placement = local.placements("kept")["kvm-2"]
    file = local.file("kvm-2", placement["spec"]["path"])
    before, uid = file.stat().st_ino, local.get("host", "kvm-2")["metadata"]["uid"]
    local.delete("host", "kvm-2")

    def is_back() -> bool:
        found = {host["metadata"]["name"]: host for host in local.list("hosts")}.get("kvm-2", {})
        return bool(found) and found["metadata"]["uid"] != uid and found.get("status", {}).get("state") == "Up"

    until("the host", is_back)
    until("what it reports", lambda: evidence.storage(local, "kvm-2", "local").get("writable"))
    local.converged("kept", 3)
    assert file.stat().st_ino == before
    assert len(evidence.gets(server)) == 3
    assert evidence.verbs(placement["metadata"]["name"]) == ["fetch"]
