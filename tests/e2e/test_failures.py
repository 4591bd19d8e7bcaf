"""What goes wrong on real nodes, and how it ends: each failure has its reason, touches no other host, and recovers."""

import pathlib

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, Cluster
from tests.world.evidence import HOSTS, downloaded, ready_hosts, running_pod, wait_for_gets, work_files
from tests.world.waiting import until


def test_a_killed_download_continues_from_its_journal(cluster: Cluster, slow_server: origin.Origin) -> None:
    image = Image(slow_server.directory, "killed.raw", 64 << 20)
    host = cluster.hosts()[0]
    cluster.apply(
        clusters.template("killed", slow_server.url("killed.raw"), checksum=image.checksum),
        clusters.deployment("killed", hosts=[host]),
    )
    until("half of it", lambda: downloaded(cluster, "killed", host) >= image.size_bytes // 2)
    pod = running_pod(cluster, host)
    assert pod is not None
    cluster.delete("pod", pod, namespace=NAMESPACE, grace_seconds=0)
    cluster.converged("killed", 1)
    placement = cluster.placements("killed")[host]
    assert placement["status"]["attempts"] == 2
    resumed = [request for request in wait_for_gets(slow_server, 2) if request.status == 206]
    assert len(resumed) == 1
    assert resumed[0].bytes_sent <= image.size_bytes // 2
    assert resumed[0].range == f"bytes={image.size_bytes - resumed[0].bytes_sent}-"
    assert placement["status"]["file"]["digest"] == f"sha256:{image.sha256}"
    if cluster.local:
        assert cluster.file(host, placement["spec"]["path"]).read_bytes() == image.path.read_bytes()


@pytest.mark.parametrize("what", ["controller", "agent"])
def test_killing_our_own_pods_in_mid_rollout_changes_nothing(
    cluster: Cluster, slow_server: origin.Origin, what: str
) -> None:
    image = Image(slow_server.directory, "ours.raw", 32 << 20)
    hosts = cluster.hosts()
    cluster.apply(
        clusters.template("ours", slow_server.url("ours.raw"), checksum=image.checksum), clusters.deployment("ours")
    )
    until("downloads on every host", lambda: all(running_pod(cluster, host) for host in hosts))
    ours = [pod["metadata"]["name"] for pod in evidence.pods(cluster, what)]
    cluster.delete("pod", *ours, namespace=NAMESPACE, grace_seconds=0)
    cluster.converged("ours", len(hosts))
    gets = wait_for_gets(slow_server, len(hosts))
    assert [(request.status, request.bytes_sent) for request in gets] == [(200, image.size_bytes)] * len(hosts)
    assert {p["status"]["attempts"] for p in cluster.placements("ours").values()} == {1}


def test_wrong_checksum_leaves_no_file_and_no_part(local: Cluster, server: origin.Origin, image: Image) -> None:
    local.apply(
        clusters.template("wrong", server.url(image.path.name), checksum="sha256:" + "0" * 64),
        clusters.template("right", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("wrong"),
        clusters.deployment("right"),
    )
    local.converged("right", 3)
    until("three failures", lambda: list(local.reasons("wrong").values()) == [("Failed", "ChecksumMismatch")] * 3)
    for host, placement in local.placements("wrong").items():
        assert not local.file(host, placement["spec"]["path"]).exists()
        assert not work_files(local, host)
        assert {c["type"]: c["status"] for c in placement["status"]["conditions"]}["Stalled"] == "True"

    def told() -> bool:
        failures = local.get("templatedeployment", "wrong", "default")["status"]["failures"]
        return [(f["host"], f["reason"]) for f in failures] == [(host, "ChecksumMismatch") for host in HOSTS]

    until("the deployment to tell which", told)


def test_no_space_is_told_before_a_byte_moves_and_retried(local: Cluster, server: origin.Origin, image: Image) -> None:
    path = f"{clusters.POOL_ROOT}/small"
    local.node("exec", "kvm-1", "sh", "-c", f"mkdir -p {path} && mount -t tmpfs -o size=8m tmpfs {path}")
    try:
        local.apply(
            clusters.pool("small", path=path, hostSelector={"matchLabels": {"kubernetes.io/hostname": "kvm-1"}}),
            clusters.template("big", server.url(image.path.name), checksum=image.checksum),
            clusters.deployment("big", pools=["small"]),
        )
        until("the reason", lambda: local.reasons("big").get("kvm-1") == ("Pending", "InsufficientSpace"))
        used = local.node("exec", "kvm-1", "du", "-sk", path).split()[0]
        assert int(used) < 64
        local.node("exec", "kvm-1", "mount", "-o", "remount,size=64m", path)
        local.converged("big", 1)
        local.delete("templatedeployment", "big", namespace="default")
        until("the file to go", lambda: not local.placements("big"))
    finally:
        local.delete("storagepool", "small", missing_ok=True)
        local.node("exec", "kvm-1", "sh", "-c", f"umount -l {path}; rmdir {path}")


def test_an_origin_that_is_away_is_retried_until_it_is_back(
    cluster: Cluster, directory: pathlib.Path, image: Image
) -> None:
    port = origin.free_port(cluster.origin_host)
    url = f"http://{cluster.origin_host}:{port}/{image.path.name}"
    cluster.apply(clusters.template("away", url, checksum=image.checksum), clusters.deployment("away"))
    until("it is Ready all the same", lambda: cluster.get("template", "away", "default").get("status"))
    until("the reason", lambda: ("Pending", "SourceUnreachable") in cluster.reasons("away").values())
    with origin.Origin(directory, cluster.origin_host, port=port):
        cluster.converged("away", len(cluster.list("hosts")))


def test_a_host_without_power_holds_up_no_other(local: Cluster, server: origin.Origin, image: Image) -> None:
    # The leader's own node, so that the other controller has to take over.
    leader = local.get("lease", f"{clusters.RELEASE}-controller", NAMESPACE)["spec"]["holderIdentity"]
    pod = leader.partition("_")[0]
    lost = local.get("pod", pod, NAMESPACE)["spec"]["nodeName"]
    others = set(HOSTS) - {lost}
    local.node("stop", lost)
    try:
        local.apply(
            clusters.template("power", server.url(image.path.name), checksum=image.checksum),
            clusters.deployment("power"),
        )
        until("the others", lambda: ready_hosts(local, "power") >= others)
        until("the host to be Down", lambda: local.get("host", lost)["status"]["state"] == "Down")
    finally:
        local.node("start", lost)
    local.converged("power", 3, 180)
