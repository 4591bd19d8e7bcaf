"""What goes wrong on real nodes, and how it ends: each failure has its reason, touches no other host, and recovers."""

import pathlib

import pytest
from tests import origin
from tests.api.kube import until
from tests.e2e import cluster as clusters
from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.conftest import Image
from tests.e2e.test_rollout import HOSTS, work_files

from directdownload.cluster import kinds


def running_pod(cluster: Cluster, host: str) -> str | None:
    pods = cluster.list("pods", NAMESPACE)
    for pod in pods:
        job = "batch.kubernetes.io/job-name" in pod["metadata"]["labels"]
        if job and pod["spec"].get("nodeName") == host and pod["status"]["phase"] == "Running":
            return str(pod["metadata"]["name"])
    return None


def downloaded(cluster: Cluster, template: str, host: str) -> int:
    placement = cluster.placements(template).get(host, {})
    return int(placement.get("status", {}).get("progress", {}).get("bytesDownloaded", 0))


def test_a_killed_download_continues_from_its_journal(local: Cluster, slow_server: origin.Origin) -> None:
    image = Image(slow_server.directory, "killed.raw", 64 << 20)
    local.apply(
        clusters.template("killed", slow_server.url("killed.raw"), checksum=image.checksum),
        clusters.deployment("killed", hosts=["kvm-1"]),
    )
    until("half of it", lambda: downloaded(local, "killed", "kvm-1") >= image.size_bytes // 2, 60)
    pod = running_pod(local, "kvm-1")
    assert pod is not None
    local.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--grace-period=0", "--force")
    local.converged("killed", 1)
    placement = local.placements("killed")["kvm-1"]
    assert placement["status"]["attempts"] == 2
    resumed = [request for request in slow_server.wait_for_requests(2) if request.status == 206]
    assert len(resumed) == 1
    assert resumed[0].bytes_sent <= image.size_bytes // 2
    assert resumed[0].range == f"bytes={image.size_bytes - resumed[0].bytes_sent}-"
    file = local.file("kvm-1", placement["spec"]["path"])
    assert file.read_bytes() == image.path.read_bytes()


@pytest.mark.parametrize("what", ["controller", "agent"])
def test_killing_our_own_pods_in_mid_rollout_changes_nothing(
    local: Cluster, slow_server: origin.Origin, what: str
) -> None:
    image = Image(slow_server.directory, "ours.raw", 32 << 20)
    local.apply(
        clusters.template("ours", slow_server.url("ours.raw"), checksum=image.checksum), clusters.deployment("ours")
    )
    until("downloads on every host", lambda: all(running_pod(local, host) for host in HOSTS), 60)
    selector = f"app.kubernetes.io/component={what}"
    local.kubectl("delete", "pod", "-l", selector, "-n", NAMESPACE, "--grace-period=0", "--force")
    local.converged("ours", 3)
    gets = slow_server.wait_for_requests(3)
    assert [(request.status, request.bytes_sent) for request in gets] == [(200, image.size_bytes)] * 3
    assert {p["status"]["attempts"] for p in local.placements("ours").values()} == {1}


def test_wrong_checksum_leaves_no_file_and_no_part(local: Cluster, server: origin.Origin, image: Image) -> None:
    local.apply(
        clusters.template("wrong", server.url(image.path.name), checksum="sha256:" + "0" * 64),
        clusters.template("right", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("wrong"),
        clusters.deployment("right"),
    )
    local.converged("right", 3)
    until("three failures", lambda: list(local.reasons("wrong").values()) == [("Failed", "ChecksumMismatch")] * 3, 60)
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
        until("the reason", lambda: local.reasons("big").get("kvm-1") == ("Pending", "InsufficientSpace"), 60)
        used = local.node("exec", "kvm-1", "du", "-sk", path).split()[0]
        assert int(used) < 64
        local.node("exec", "kvm-1", "mount", "-o", "remount,size=64m", path)
        local.converged("big", 1)
        local.kubectl("delete", "templatedeployment", "big", "-n", "default", "--timeout=60s")
        until("the file to go", lambda: not local.placements("big"), 60)
    finally:
        local.kubectl("delete", "storagepool", "small", "--ignore-not-found")
        local.node("exec", "kvm-1", "sh", "-c", f"umount -l {path}; rmdir {path}")


def test_an_origin_that_is_away_is_retried_until_it_is_back(
    cluster: Cluster, directory: pathlib.Path, image: Image
) -> None:
    port = origin.free_port(cluster.origin_host)
    url = f"http://{cluster.origin_host}:{port}/{image.path.name}"
    cluster.apply(clusters.template("away", url, checksum=image.checksum), clusters.deployment("away"))
    until("it is Ready all the same", lambda: cluster.get("template", "away", "default").get("status"), 10)
    until("the reason", lambda: ("Pending", "SourceUnreachable") in cluster.reasons("away").values(), 60)
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
        until("the others", lambda: _ready(local, "power") >= others, 90)
        until("the host to be Down", lambda: local.get("host", lost)["status"]["state"] == "Down", 120)
    finally:
        local.node("start", lost)
    local.converged("power", 3, 180)


def _ready(cluster: Cluster, template: str) -> set[str]:
    return {host for host, (phase, _) in cluster.reasons(template).items() if phase == "Ready"}


def test_an_agents_token_changes_nothing_of_others(
    local: Cluster, server: origin.Origin, image: Image, tmp_path: pathlib.Path
) -> None:
    local.apply(
        clusters.template("fenced", server.url(image.path.name), checksum=image.checksum), clusters.deployment("fenced")
    )
    local.converged("fenced", 3)
    pods = local.list("pods", NAMESPACE)
    (agent,) = [
        p
        for p in pods
        if p["metadata"]["labels"].get("app.kubernetes.io/component") == "agent" and p["spec"]["nodeName"] == "kvm-1"
    ]
    account = agent["spec"]["serviceAccountName"]
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", agent["metadata"]["name"])
    token = local.kubectl("create", "token", account, "-n", NAMESPACE, *bound).strip()
    placements = local.placements("fenced")

    mine, other = (placements[host]["metadata"]["name"] for host in ("kvm-1", "kvm-2"))
    forged = {"status": {"agentVersion": "forged"}}
    progress = {"status": {"progress": {"percent": 100}}}
    with local.bearer(token, tmp_path) as kube:
        for allowed in (
            kube.patch(kinds.HOSTS, "kvm-1", {"status": {"agentVersion": "0.1.0"}}, subresource="status"),
            kube.patch(kinds.TEMPLATE_PLACEMENTS, mine, progress, subresource="status"),
        ):
            assert allowed.ok, allowed.message
        # The fence: RBAC would allow these, the policy does not.
        for fenced in (
            kube.patch(kinds.HOSTS, "kvm-2", forged, subresource="status"),
            kube.patch(kinds.TEMPLATE_PLACEMENTS, other, progress, subresource="status"),
        ):
            # Its words tell it from a refusal of RBAC.
            assert (fenced.code, "kvm-1" in fenced.message, "kvm-2" in fenced.message) == (403, True, True)
        for refused in (
            kube.patch(kinds.HOSTS, "kvm-1", {"spec": {"allocationState": "Maintenance"}}),
            kube.patch(kinds.TEMPLATE_PLACEMENTS, mine, {"spec": {"host": "kvm-2"}}),
            kube.delete(kinds.HOSTS, "kvm-1"),
            kube.delete(kinds.TEMPLATE_PLACEMENTS, mine),
            kube.create(kinds.NAMESPACES, {"metadata": {"name": "forged"}}),
            kube.create(kinds.JOBS, {"metadata": {"name": "forged"}}, NAMESPACE),
            kube.request("GET", kinds.SECRETS.path(None, NAMESPACE)),
            kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()),
        ):
            assert refused.code == 403, refused
