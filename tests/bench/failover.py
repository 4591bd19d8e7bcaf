"""The time without a leader: from the failure of a leader to the first write of the next one, by the audit log.

On three nodes of the local cluster, with two controllers and a status to write five times a second.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from tests.world import cluster as clusters
from tests.world import failover
from tests.world.cluster import NAMESPACE, Cluster
from tests.world.waiting import until

ROUNDS = 3
Failure = Callable[[Cluster, str], contextlib.AbstractContextManager[None]]


def measure() -> str:
    """A Markdown table: the median and the longest of some rounds of each failure."""
    with Cluster.acquired() as cluster:
        cluster.install()
        cluster.apply(clusters.zone(), clusters.pool())
        with failover.Work(cluster):
            return _measure(cluster)


def _measure(cluster: Cluster) -> str:
    failures: dict[str, tuple[Failure, str]] = {
        "its pod is deleted": (_deleted, "< 3"),
        "its process is killed (SIGKILL)": (_killed, "< 20"),
        "its node is cut off from the network": (_unplugged, "< 20"),
        "its node loses power": (_stopped, "< 20"),
    }
    rows = []
    for name, (fail, aim) in failures.items():
        seconds = sorted(_seconds(cluster, fail) for _ in range(ROUNDS))
        rows.append(f"| {name} | {seconds[ROUNDS // 2]:.1f} | {seconds[-1]:.1f} | {aim} |")
    gaps = sorted(max(_upgrade(cluster)) for _ in range(ROUNDS))
    rows.append(f"| upgrade: the longest time without a write | {gaps[ROUNDS // 2]:.1f} | {gaps[-1]:.1f} | < 3 |")
    header = f"| what happens to the leader | seconds, median of {ROUNDS} | longest | aim |"
    return "\n".join((header, "|---|---|---|---|", *rows))


def _seconds(cluster: Cluster, fail: Failure) -> float:
    old = failover.settled(cluster)
    _is_writing(old)
    # The identity of the process, not of the pod: its container may restart and lead again.
    before = failover.lease(cluster)["holderIdentity"]
    began = time.time()
    with fail(cluster, old):
        until("another leader", lambda: failover.lease(cluster).get("holderIdentity") not in (before, "", None), 60)
        acquired = failover.acquired(cluster)
        first = until("its first write", lambda: next(iter(failover.writes(acquired)), None), 60)
    # A returning node reports its pods ready too early: a new pod follows the Lease once it is reported ready.
    cluster.kubectl("delete", "pod", old, "-n", NAMESPACE, "--ignore-not-found", "--force", "--grace-period=0")
    return first.ended - began


def _is_writing(pod: str) -> None:
    now = time.time()
    until("the leader to write", lambda: [write for write in failover.writes(now) if write.pod == pod], 60)


@contextlib.contextmanager
def _deleted(cluster: Cluster, pod: str) -> Iterator[None]:
    cluster.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--wait=false")
    yield


@contextlib.contextmanager
def _killed(_: Cluster, pod: str) -> Iterator[None]:
    failover.kill(pod)
    yield


@contextlib.contextmanager
def _unplugged(cluster: Cluster, pod: str) -> Iterator[None]:
    with failover.unplugged(failover.node_of(cluster, pod)):
        yield


@contextlib.contextmanager
def _stopped(cluster: Cluster, pod: str) -> Iterator[None]:
    node = failover.node_of(cluster, pod)
    cluster.node("stop", node)
    try:
        yield
    finally:
        cluster.node("start", node)


def _upgrade(cluster: Cluster) -> list[float]:
    """The pauses between the last write of a leader and the first of the next, of one upgrade."""
    _is_writing(failover.settled(cluster))
    began = time.time()
    cluster.kubectl("rollout", "restart", "deployment", "-n", NAMESPACE)
    for name in cluster.names("deployment"):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=180s")
    _is_writing(failover.settled(cluster))
    return [handover.seconds for handover in failover.handovers(failover.writes(began))]
