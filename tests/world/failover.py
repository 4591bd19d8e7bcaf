"""Who leads, what each leader wrote and when: for the tests and the bench of failover, on the local cluster.

The moments are those of the API server's audit log, which knows the pod behind each write. `Work` gives the leader
something to write five times a second, so that the first write of the next one comes as soon as it is able to.
"""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from tests.cluster import harness
from tests.world import cluster as clusters
from tests.world import evidence
from tests.world.cluster import NAMESPACE, RELEASE, Cluster
from tests.world.kube import Answer, Kube
from tests.world.waiting import until

from directdownload.cluster import kinds

LEASE = f"{RELEASE}-controller"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-controller"
_POD = "authentication.kubernetes.io/pod-name"
_ROUND_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Write:
    """One write of a controller that succeeded; times in seconds since the epoch."""

    pod: str
    began: float
    ended: float
    verb: str
    resource: str
    name: str


def lease(cluster: Cluster) -> dict[str, Any]:
    spec: dict[str, Any] = cluster.get("lease", LEASE, NAMESPACE)["spec"]
    return spec


def acquired(cluster: Cluster) -> float:
    """When the leader took the Lease, in seconds since the epoch, by its own clock."""
    return _seconds(lease(cluster)["acquireTime"])


def leader(cluster: Cluster) -> str:
    """The pod that leads; "" while none does."""
    return str(lease(cluster).get("holderIdentity") or "").partition("_")[0]


def settled(cluster: Cluster) -> str:
    """Waits until one of two ready controllers leads; its pod."""

    def both() -> bool:
        pods = evidence.pods(cluster, "controller")
        return sum(evidence.is_ready(pod) for pod in pods) == 2 == len(pods) and leader(cluster) in names(pods)

    until("two controllers, one of them leading", both)
    return leader(cluster)


def names(pods: list[clusters.Object]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def node_of(cluster: Cluster, pod: str) -> str:
    return str(cluster.get("pod", pod, NAMESPACE)["spec"]["nodeName"])


def evict(cluster: Cluster, pod: str) -> Answer:
    """What a drain asks for; the API server refuses where a disruption budget would be passed."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    with Kube(cluster.kubeconfig) as kube:
        return kube.request("POST", f"{kinds.PODS.path(pod, NAMESPACE)}/eviction", body)


def process_of(pod: str) -> int:
    """The controller's process in a pod of a local node, as this machine numbers it."""
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (directory / "environ").read_bytes().split(b"\0")
            command = (directory / "cmdline").read_bytes().split(b"\0")
            if b"controller" in command and f"HOSTNAME={pod}".encode() in environment:
                return int(directory.name)
    raise AssertionError(f"no process of {pod}")


def kill(pod: str) -> None:
    os.kill(process_of(pod), signal.SIGKILL)


@contextlib.contextmanager
def unplugged(node: str) -> Iterator[None]:
    """The cable of a node is pulled; what runs there runs on."""
    link = f"dd-{node.removeprefix('kvm-')}"
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", link, "up"], check=True)


def writes(since: float) -> list[Write]:
    """Every write of a controller since then, in the order of their beginning; Leases and Events left out."""
    found = []
    for event in harness.read_audit_log(harness.cluster_audit_log()):
        began, ended = _seconds(event["requestReceivedTimestamp"]), _seconds(event["stageTimestamp"])
        if event["user"]["username"] != ACCOUNT or began < since or event["responseStatus"]["code"] >= 300:
            continue
        if event["objectRef"]["resource"] in ("leases", "events"):
            continue
        (pod,) = event["user"]["extra"][_POD]
        reference = event["objectRef"]
        found.append(Write(pod, began, ended, event["verb"], reference["resource"], reference.get("name", "")))
    return sorted(found, key=lambda write: write.began)


def _seconds(timestamp: str) -> float:
    return datetime.datetime.fromisoformat(timestamp).timestamp()


def first_write_of_another(since: float, pods: set[str], seconds: float = 120) -> Write:
    """The first write after `since` of a controller that is none of `pods`."""
    return until(
        "the first write of the next leader",
        lambda: next((write for write in writes(since) if write.pod not in pods), None),
        seconds,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Handover:
    """One change of the leader; `seconds` from the last write of one to the first of the next."""

    old: str
    new: str
    seconds: float


def handovers(made: list[Write]) -> list[Handover]:
    """Fails where a leader wrote before the one that wrote earlier had ended, or after it."""
    found: list[Handover] = []
    ended: dict[str, float] = {}
    current = ""
    for write in made:
        if write.pod != current:
            assert write.pod not in ended, f"{write.pod} writes again after {current}: {write}"
            if current:
                assert ended[current] < write.began, f"{write} overlaps with a write of {current}"
                found.append(Handover(current, write.pod, write.began - ended[current]))
            current = write.pod
        ended[current] = max(ended.get(current, 0.0), write.ended)
    return found


def nothing_twice(cluster: Cluster, made: list[Write], templates: list[str], *, disturbed: str = "") -> None:
    """No Job was made twice, no attempt was one too many; but for the host that the test itself has `disturbed`."""
    created = Counter(write.name for write in made if (write.verb, write.resource) == ("create", "jobs"))
    assert set(created.values()) <= {1}, created
    for name in templates:
        placements = {host: p for host, p in cluster.placements(name).items() if host != disturbed}
        assert {(p["status"]["phase"], p["status"]["attempts"]) for p in placements.values()} == {("Ready", 1)}, name
        jobs = {f"{p['metadata']['name']}-fetch-1" for p in placements.values()}
        assert jobs <= set(created), f"{name}: {jobs - set(created)}"


class Work:
    """While it is entered the leader has something to write all the time, and what runs on each host is counted."""

    NAME = "work"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        #: when it began, in seconds since the epoch
        self.began = time.time()
        #: the pods of downloads of one host, where there were most of them at once
        self.most_on_a_host: set[str] = set()

    def __enter__(self) -> Self:
        # Nobody deploys it, so that the controller has seen its new text costs one write and no more.
        self._cluster.apply(clusters.template(self.NAME, "http://192.0.2.1/nothing.raw"))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=120)
        self._cluster.delete("template", self.NAME, namespace="default")

    def _run(self) -> None:
        selector = {"labelSelector": "app.kubernetes.io/component=job"}
        with Kube(self._cluster.kubeconfig) as kube:
            while not self._stop.wait(_ROUND_SECONDS):
                text = {"spec": {"displayText": str(time.time())}}
                kube.patch(kinds.TEMPLATES, self.NAME, text, "default").object()
                pods = kube.request("GET", kinds.PODS.path(None, NAMESPACE), query=selector).object()["items"]
                running: dict[str, set[str]] = {}
                for pod in pods:
                    # Not those of probes; nor those of removals, which no limit holds back.
                    if "-fetch-" in pod["metadata"]["name"] and not _has_ended(pod):
                        running.setdefault(pod["spec"].get("nodeName", ""), set()).add(pod["metadata"]["name"])
                running.pop("", None)
                self.most_on_a_host = max([self.most_on_a_host, *running.values()], key=len)


def _has_ended(pod: clusters.Object) -> bool:
    """Its process is gone; the kubelet leaves the phase at Running for as long as it clears up."""
    states = [status["state"] for status in pod["status"].get("containerStatuses", ())]
    return pod["status"]["phase"] in ("Succeeded", "Failed") or any("terminated" in state for state in states)
