"""A directory that several hosts share holds one copy, whichever of them fetches it; a mount that hangs stops no other.

The nodes share a directory of this machine by a bind mount in each, which to them is a mount of its own.
"""

import contextlib
import pathlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, POOL_ROOT, SCRIPTS, Cluster
from tests.world.waiting import until

SHARED, HUNG = f"{POOL_ROOT}/shared", f"{POOL_ROOT}/hung"


def _mounted(cluster: Cluster) -> list[bool | None]:
    return [evidence.storage(cluster, host, "shared").get("mounted") for host in evidence.HOSTS]


@pytest.fixture
def common(local: Cluster) -> Iterator[pathlib.Path]:
    """The directory behind the pool `shared` of kvm-1 and kvm-2; on kvm-3 nothing is mounted."""
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name, contextlib.ExitStack() as stack:
        for host in evidence.HOSTS:
            point = local.file(host, SHARED)
            point.mkdir()
            stack.callback(point.rmdir)
        for host in ("kvm-1", "kvm-2"):
            local.node("exec", host, "mount", "--bind", name, SHARED)
            stack.callback(local.node, "exec", host, "umount", "-l", SHARED)
        local.apply(clusters.pool("shared", path=SHARED, type="NetworkFilesystem"))
        stack.callback(local.kubectl, "delete", "storagepool", "shared")
        until("what the hosts report", lambda: _mounted(local) == [True, True, False])
        yield pathlib.Path(name)
        # Before the pool goes: without it the files would stay.
        local.delete_all("templatedeployments", "default")
        until("the placements to go", lambda: not local.list("templateplacements"))


def test_one_copy_by_one_job_and_none_where_nothing_is_mounted(
    local: Cluster, server: origin.Origin, image: Image, common: pathlib.Path
) -> None:
    assert evidence.storage(local, "kvm-3", "shared")["reason"] == "NotMounted"
    until("the pool", lambda: local.get("storagepool", "shared")["status"]["hosts"] == {"total": 3, "ready": 2})
    local.apply(
        clusters.template("one", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("one", pools=["shared"]),
    )
    local.converged("one", 1)
    (placement,) = local.placements("one").values()
    assert placement["spec"]["host"] in ("kvm-1", "kvm-2")
    assert clusters.sha256(common / pathlib.Path(placement["spec"]["path"]).name) == image.sha256
    assert evidence.verbs(placement["metadata"]["name"]) == ["fetch"]
    assert len(evidence.gets(server)) == 1
    for host in evidence.HOSTS:
        # below the mounts: the nodes' own disks
        assert not evidence.names(local.file(host, SHARED))


def test_a_host_that_is_cut_off_is_replaced_and_its_return_harms_nothing(
    local: Cluster, slow_server: origin.Origin, common: pathlib.Path
) -> None:
    image = Image(slow_server.directory, "taken.raw", 96 << 20)
    local.apply(
        clusters.template("taken", slow_server.url("taken.raw"), checksum=image.checksum),
        clusters.deployment("taken", pools=["shared"]),
    )
    (first,) = until("a placement", lambda: local.placements("taken"))
    (second,) = {"kvm-1", "kvm-2"} - {first}
    until("a part of it", lambda: evidence.downloaded(local, "taken", first) >= image.size_bytes // 8)
    link = first.replace("kvm-", "dd-")
    clusters.run("ip", "link", "set", link, "down")
    try:
        until("the other host to take over", lambda: set(local.placements("taken")) == {second})
        until("its download", lambda: evidence.downloaded(local, "taken", second) >= image.size_bytes // 8)
    finally:
        clusters.run("ip", "link", "set", link, "up")
    until("the first to be back", lambda: local.get("host", first)["status"]["state"] == "Up")
    local.converged("taken", 1)
    (placement,) = local.placements("taken").values()
    assert placement["spec"]["host"] == second
    file = common / pathlib.Path(placement["spec"]["path"]).name
    until("every job to end", lambda: not evidence.pods(local, "job"))
    assert clusters.sha256(file) == image.sha256
    assert evidence.names(common) == {file.name, ".directdownload"}
    assert local.reasons("taken")[second][0] == "Ready"


@pytest.fixture
def network_storage(local: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """A FUSE file system as the pool `hung` of kvm-1; the process that answers for it."""
    with tempfile.TemporaryDirectory(dir=harness.state_root()) as name, contextlib.ExitStack() as stack:
        point = local.file("kvm-1", HUNG)
        point.mkdir()
        stack.callback(point.rmdir)
        process = subprocess.Popen([SCRIPTS / "node.sh", "exec", "1", "bindfs", "-f", name, HUNG])
        stack.callback(local.node, "exec", "kvm-1", "umount", "-l", HUNG)
        stack.callback(process.wait)
        stack.callback(process.kill)
        first = {"matchLabels": {"kubernetes.io/hostname": "kvm-1"}}
        local.apply(clusters.pool("hung", path=HUNG, type="SharedMountPoint", hostSelector=first))
        stack.callback(local.kubectl, "delete", "storagepool", "hung")
        until("the pool", lambda: evidence.storage(local, "kvm-1", "hung").get("writable"))
        yield process
        process.send_signal(signal.SIGCONT)
        local.delete_all("templatedeployments", "default")
        until("the placements to go", lambda: not local.list("templateplacements"))


def test_a_hung_mount_freezes_neither_agent_nor_other_pools(
    local: Cluster, server: origin.Origin, image: Image, network_storage: subprocess.Popen[bytes]
) -> None:
    def template(name: str) -> clusters.Object:
        return clusters.template(name, server.url(image.path.name), checksum=image.checksum)

    local.apply(template("before"), clusters.deployment("before", pools=["hung"]))
    local.converged("before", 1)
    (placement,) = local.placements("before").values()
    network_storage.send_signal(signal.SIGSTOP)
    until("what the host says", lambda: evidence.storage(local, "kvm-1", "hung").get("reason") == "PoolNotReady")

    local.apply(template("beside"), clusters.deployment("beside"))
    local.converged("beside", 3)
    until("what the agents see", lambda: "observed" in local.placements("beside")["kvm-1"]["status"])
    local.apply(template("behind"), clusters.deployment("behind", pools=["hung"]))
    until("the reason", lambda: local.reasons("behind") == {"kvm-1": ("Pending", "PoolNotReady")})
    (agent,) = (pod for pod in evidence.pods(local, "agent") if pod["spec"]["nodeName"] == "kvm-1")
    assert evidence.is_ready(agent)
    assert agent["status"]["containerStatuses"][0]["restartCount"] == 0
    # Silence says nothing about the file: no repair.
    assert evidence.verbs(placement["metadata"]["name"]) == ["fetch"]
    # An upgrade of the agents in the middle of it.
    local.kubectl("delete", "pod", agent["metadata"]["name"], "-n", NAMESPACE, "--wait=false")

    def replaced() -> bool:
        pods = [pod for pod in evidence.pods(local, "agent") if pod["spec"].get("nodeName") == "kvm-1"]
        return any(evidence.is_ready(p) and p["metadata"]["uid"] != agent["metadata"]["uid"] for p in pods)

    until("a new agent", replaced)
    network_storage.send_signal(signal.SIGCONT)
    local.converged("behind", 1, 60)
    assert local.reasons("before") == {"kvm-1": ("Ready", "Downloaded")}
