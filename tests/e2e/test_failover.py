"""The leader ends, in order or not, in the middle of a rollout: another one writes soon, and nothing is done twice."""

import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, failover, origin
from tests.world.checkout import CHART
from tests.world.cluster import NAMESPACE, Cluster
from tests.world.evidence import HOSTS
from tests.world.waiting import until

#: From the failure to the first write of the next leader; the Lease lasts 15 s. The documentation's times are of a
#: machine with time to spare: `make bench` measures them, and tests/unit/cluster/test_lease.py has the exact ones.
FAILOVER_SECONDS = 30.0
#: Less than the Lease lasts: it was released.
HANDOVER_SECONDS = 12.0
#: `maxParallelPerHost` of a Zone that does not say
PER_HOST = 2
SIZE_BYTES = 20 << 20
NAMES = [f"failover-{number}" for number in range(3)]


@pytest.fixture
def rollout(local: Cluster, slow_server: origin.Origin) -> Iterator[failover.Work]:
    """Three templates on their way to three hosts, two at a time on each."""
    failover.settled(local)
    image = Image(slow_server.directory, "failover.raw", SIZE_BYTES)
    url = slow_server.url(image.path.name)
    local.apply(*(clusters.template(name, url, checksum=image.checksum) for name in NAMES))
    with failover.Work(local) as work:
        local.apply(*(clusters.deployment(name) for name in NAMES))
        until("downloads on every host", lambda: all(evidence.running_pod(local, host) for host in HOSTS))
        yield work


def converged_once(
    cluster: Cluster, work: failover.Work, *, server: origin.Origin | None = None, disturbed: str = ""
) -> list[failover.Handover]:
    """Waits for the end of the rollout; nothing was done twice, no limit passed, no leader wrote beside another.

    With `server`: nor was any download begun anew.
    """
    for name in NAMES:
        cluster.converged(name, len(HOSTS), 180)
    made = failover.writes(work.began)
    failover.nothing_twice(cluster, made, NAMES, disturbed=disturbed)
    if server is not None:
        gets = evidence.wait_for_gets(server, len(NAMES) * len(HOSTS))
        assert [(r.status, r.bytes_sent) for r in gets] == [(200, SIZE_BYTES)] * len(NAMES) * len(HOSTS)
    assert 1 < len(work.most_on_a_host) <= PER_HOST, work.most_on_a_host
    return failover.handovers(made)


class Farewell:
    """What a pod logs until its end, and the exit status of its container."""

    def __init__(self, cluster: Cluster, pod: str, directory: pathlib.Path) -> None:
        self._log, self._status = directory / "log", directory / "status"
        kubectl = [str(harness.state_root() / "bin" / "kubectl"), "--kubeconfig", str(cluster.kubeconfig)]
        path = '{.status.containerStatuses[0].state.terminated.exitCode}{"\\n"}'
        with self._log.open("wb") as log, self._status.open("wb") as status:
            self._processes = [
                subprocess.Popen([*kubectl, "logs", "-f", pod, "-n", NAMESPACE], stdout=log),
                subprocess.Popen(
                    [*kubectl, "get", "pod", pod, "-n", NAMESPACE, "-w", "-o", f"jsonpath={path}"], stdout=status
                ),
            ]
        until("the log", lambda: self._log.stat().st_size and self._status.stat().st_size)

    def end(self) -> tuple[str, str]:
        """Exit status and log, once the pod has ended."""
        until("the exit status", lambda: self._status.read_text().split())
        self._processes[0].wait(timeout=120)
        self._processes[1].kill()
        self._processes[1].wait()
        return self._status.read_text().split()[0], self._log.read_text()


def test_a_leader_that_is_drained_hands_over_before_its_lease_expires(
    local: Cluster, slow_server: origin.Origin, rollout: failover.Work, tmp_path: pathlib.Path
) -> None:
    old = failover.leader(local)
    (other,) = failover.names(evidence.pods(local, "controller")) - {old}
    farewell = Farewell(local, old, tmp_path)
    began = time.time()
    failover.evict(local, old).object()
    # A drain of both nodes takes one controller after the other.
    refused = failover.evict(local, other)
    assert (refused.code, "disruption budget" in refused.message) == (429, True), refused.message
    first = failover.first_write_of_another(began, {old})
    status, log = farewell.end()
    assert status == "0"
    end = log[log.index("Asked to end") :]
    for noise in ("Traceback", "Task was destroyed", "never retrieved", "ERROR", "WARNING"):
        assert noise not in end, end
    (handover,) = converged_once(local, rollout, server=slow_server)
    assert (handover.old, handover.new) == (old, first.pod)
    # From its last write on: how soon the kubelet hears of an eviction is not ours.
    assert handover.seconds < HANDOVER_SECONDS


def test_a_leader_that_is_killed_is_followed_once_its_lease_has_expired(
    local: Cluster, slow_server: origin.Origin, rollout: failover.Work
) -> None:
    old = failover.leader(local)
    before = failover.lease(local)
    began = time.time()
    failover.kill(old)
    # Also itself counts, begun anew by the kubelet: its Lease belongs to the process that is gone.
    first = until("the next leader", lambda: next((w for w in failover.writes(began + 1)), None))
    assert first.ended - began < FAILOVER_SECONDS
    after = failover.lease(local)
    assert after["leaseTransitions"] == before["leaseTransitions"] + 1
    assert after["holderIdentity"] != before["holderIdentity"]
    converged_once(local, rollout, server=slow_server)


def test_a_leader_that_is_cut_off_ends_before_another_leads(local: Cluster, rollout: failover.Work) -> None:
    old = failover.leader(local)
    node = failover.node_of(local, old)
    process = failover.process_of(old)
    began = time.time()
    with failover.unplugged(node):
        until("it to end", lambda: not pathlib.Path(f"/proc/{process}").exists(), 15)
        ended = time.time()
        assert failover.lease(local)["holderIdentity"].startswith(old)
        first = failover.first_write_of_another(began + 1, {old})
        assert ended < first.began
        assert first.ended - began < FAILOVER_SECONDS
    (handover,) = converged_once(local, rollout, disturbed=node)
    assert (handover.old, handover.new) == (old, first.pod)


def test_an_upgrade_in_mid_rollout_stops_neither_downloads_nor_the_controller(
    local: Cluster, slow_server: origin.Origin, rollout: failover.Work
) -> None:
    old = failover.names(evidence.pods(local, "controller")) | failover.names(evidence.pods(local, "agent"))
    began = time.time()
    changed = f"upgraded={began:.0f}"
    annotations = [f"--set-string={part}.podAnnotations.{changed}" for part in ("controller", "agent")]
    local.helm("upgrade", clusters.RELEASE, str(CHART), "-n", NAMESPACE, "--reuse-values", *annotations)
    for name in (f"deployment/{clusters.RELEASE}-controller", f"daemonset/{clusters.RELEASE}-agent"):
        local.kubectl("rollout", "status", name, "-n", NAMESPACE, "--timeout=120s")
    # The last old one ends a moment after the Deployment calls itself rolled out.
    leader = failover.settled(local)
    until("the new leader to write", lambda: any(write.pod == leader for write in failover.writes(began)))
    found = converged_once(local, rollout, server=slow_server)
    assert found
    assert max(handover.seconds for handover in found) < HANDOVER_SECONDS
    new = failover.names(evidence.pods(local, "controller")) | failover.names(evidence.pods(local, "agent"))
    assert not {handover.new for handover in found[-1:]} & old
    assert len(new - old) >= 5
