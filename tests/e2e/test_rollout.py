"""The first whole path on real nodes: from `kubectl apply` to a verified file on every host's primary storage."""

import hashlib
import json
import time

from tests.cluster import harness
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import origin
from tests.world.cluster import NAMESPACE, Cluster
from tests.world.evidence import HOSTS, condition, wait_for_gets, work_files
from tests.world.waiting import until

from directdownload.controller.watches import SUMMARY_SECONDS


def all_observed(cluster: Cluster, template: str) -> bool:
    """Whether the agents have told what lies under the final names."""
    return all("observed" in placement["status"] for placement in cluster.placements(template).values())


def test_a_template_reaches_every_host(local: Cluster, server: origin.Origin, image: Image) -> None:
    local.apply(
        clusters.template("everywhere", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("everywhere"),
    )
    local.converged("everywhere", 3)
    placements = local.placements("everywhere")
    assert sorted(placements) == HOSTS
    for host, placement in placements.items():
        file = local.file(host, placement["spec"]["path"])
        assert hashlib.sha256(file.read_bytes()).hexdigest() == image.sha256
        assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o644, 0)
        assert placement["status"]["file"]["digest"] == f"sha256:{image.sha256}"
        assert not work_files(local, host)
    gets = wait_for_gets(server, 3)
    assert [(request.status, request.bytes_sent) for request in gets] == [(200, image.size_bytes)] * 3
    until("what the agents see", lambda: all_observed(local, "everywhere"))
    for placement in local.placements("everywhere").values():
        assert placement["status"]["observed"]["sizeBytes"] == image.size_bytes
        assert placement["status"]["progress"]["percent"] == 100
    until("the jobs to be deleted", lambda: not local.list("jobs", NAMESPACE))


def test_hosts_and_pools_tell_their_facts(cluster: Cluster) -> None:
    hosts = cluster.hosts()
    for host in hosts:
        status = cluster.get("host", host)["status"]
        (entry,) = [storage for storage in status["storage"] if storage["pool"] == "local"]
        assert entry["capacityBytes"] > entry["availableBytes"] > 0
        assert entry["inodesFree"] > 0
        assert (status["state"], bool(status["agentVersion"])) == ("Up", True)
    until(
        "a ready pool",
        lambda: cluster.get("storagepool", "local")["status"]["hosts"] == {"total": len(hosts), "ready": len(hosts)},
    )
    assert cluster.get("zone", "zone-1")["status"]["hosts"] == {"total": len(hosts), "up": len(hosts)}


def test_progress_is_published_while_it_downloads(
    cluster: Cluster, slow_server: origin.Origin, directory: object
) -> None:
    image = Image(slow_server.directory, "slow.raw", 48 << 20)
    cluster.apply(
        clusters.template("progress", slow_server.url("slow.raw"), checksum=image.checksum),
        clusters.deployment("progress"),
    )

    def moving() -> object:
        for placement in cluster.placements("progress").values():
            progress = placement.get("status", {}).get("progress", {})
            if 0 < progress.get("percent", 0) < 100 and progress.get("bytesPerSecond"):
                return progress
        return None

    progress = until("progress on the way", moving)
    assert isinstance(progress, dict)
    assert progress["bytesTotal"] == image.size_bytes
    assert progress["source"] == cluster.origin_host
    cluster.converged("progress", len(cluster.list("hosts")))


def test_at_most_eight_writes_per_placement(local: Cluster, server: origin.Origin, image: Image) -> None:
    local.apply(clusters.template("counted", server.url(image.path.name), checksum=image.checksum))
    reachable = ("True", "SourceReachable")
    until(
        "the probe", lambda: condition(local.get("template", "counted", "default"), "SourceReachable") == reachable, 60
    )
    until("its job to be deleted", lambda: not local.list("jobs", NAMESPACE))
    before, began = len(harness.read_audit_log(harness.cluster_audit_log())), time.monotonic()
    local.apply(clusters.deployment("counted"))
    local.converged("counted", 3)
    until("the jobs to be deleted", lambda: not local.list("jobs", NAMESPACE))
    until("what the agents see", lambda: all_observed(local, "counted"))
    events = harness.read_audit_log(harness.cluster_audit_log())[before:]
    prefix = f"system:serviceaccount:{NAMESPACE}:"
    ours = [e for e in events if e["user"]["username"].startswith(prefix) and e["objectRef"]["resource"] != "leases"]
    agents = [e for e in ours if e["user"]["username"].endswith("-agent")]
    of_placements = [e for e in agents if e["objectRef"]["resource"] == "templateplacements"]
    # An agent's writes to a placement are progress, and one more: what it sees under the final name.
    counted = len(ours) - len(of_placements) + 3
    assert of_placements
    # Where it takes longer, the summaries of Template and deployment are written once more each time (rule 6).
    summaries = 2 * int((time.monotonic() - began) / SUMMARY_SECONDS)
    assert counted <= 8 * 3 + summaries, json.dumps([(e["verb"], e["objectRef"]) for e in ours])
