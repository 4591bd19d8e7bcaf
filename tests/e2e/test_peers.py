"""Peers: one host of a zone reads the source, and the others read from each other."""

import pathlib
import time
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import SAME_VERSION, Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, Cluster, Object
from tests.world.evidence import HOSTS
from tests.world.waiting import until

PORT = 10471
#: Answers of the source beside the file: a request may be repeated, and a probe reads a few bytes.
SHARE = 1.05


@pytest.fixture(scope="module")
def old(local: Cluster, shared_directory: pathlib.Path) -> Image:
    """The file of Template `old`, which one host has from before there were peers, and whose source is gone."""
    image = Image(shared_directory, "old.raw", 16 << 20)
    with origin.Origin(shared_directory, local.origin_host) as server:
        deploy(local, server, image, "old", 1, **only(HOSTS[0]))
    return image


@pytest.fixture(scope="module")
def fleet(local: Cluster, old: Image) -> Iterator[Cluster]:
    """The cluster with peers, each host with its certificates."""
    local.install(*SAME_VERSION, "peers.enabled=true")
    local.await_hosts()
    until("certificates on all hosts", lambda: all(certified(local, host) for host in HOSTS))
    yield local
    local.install(*SAME_VERSION)
    local.await_hosts()


def certified(cluster: Cluster, host: str) -> bool:
    """Whether the agent has put the host's certificates where server and jobs read them."""
    directory = cluster.file(host, "/var/lib/directdownload/peer")
    return all((directory / name).exists() for name in ("server/tls.crt", "server/config.json", "client/tls.crt"))


@pytest.fixture
def image(directory: pathlib.Path) -> Image:
    """64 pieces."""
    return Image(directory, "image.raw", 64 << 20)


def only(*hosts: str) -> Object:
    """A deployment's choice of hosts."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [*hosts]}
    return {"hostSelector": {"matchExpressions": [expression]}}


def sent(server: origin.Origin) -> int:
    return sum(request.bytes_sent for request in server.requests())


def bytes_from(cluster: Cluster, template: str) -> dict[str, Object]:
    return {
        host: placement["status"]["file"].get("bytesFrom", {})
        for host, placement in cluster.placements(template).items()
    }


def deploy(cluster: Cluster, server: origin.Origin, image: Image, name: str, copies: int, **spec: object) -> None:
    cluster.apply(
        clusters.template(name, server.url(image.path.name), checksum=image.checksum),
        clusters.deployment(name, **spec),
    )
    cluster.converged(name, copies, 180)


def assert_right(cluster: Cluster, name: str, image: Image) -> None:
    for host, placement in cluster.placements(name).items():
        assert cluster.sha256(host, placement["spec"]["path"]) == image.sha256, host


def test_without_peers_nothing_listens(local: Cluster, server: origin.Origin, image: Image) -> None:
    assert not [name for name in local.names("daemonset") if name.endswith("-peer")]
    for host in HOSTS:
        assert f":{PORT} " not in local.node("exec", host, "ss", "-ltn")
    deploy(local, server, image, "off", 3)
    assert sent(server) >= 3 * image.size_bytes
    assert not any(bytes_from(local, "off").values())


def test_a_copy_from_before_peers_serves_those_that_come(fleet: Cluster, old: Image) -> None:
    fleet.apply(clusters.deployment("old"))
    fleet.converged("old", 3, 180)
    assert_right(fleet, "old", old)
    assert bytes_from(fleet, "old")[HOSTS[1]].get("peers") == old.size_bytes


def test_a_zone_reads_its_source_once(fleet: Cluster, server: origin.Origin, image: Image) -> None:
    deploy(fleet, server, image, "once", 3)
    assert_right(fleet, "once", image)
    assert image.size_bytes <= sent(server) <= SHARE * image.size_bytes
    found = bytes_from(fleet, "once")
    assert sorted(each.get("origin", 0) for each in found.values()) == [0, 0, image.size_bytes]
    assert sorted(each.get("peers", 0) for each in found.values()) == [0, image.size_bytes, image.size_bytes]


def test_a_host_that_comes_late_needs_no_source(fleet: Cluster, server: origin.Origin, image: Image) -> None:
    deploy(fleet, server, image, "late", 1, **only(HOSTS[0]))
    server.stop()
    fleet.apply(clusters.deployment("late"))
    fleet.converged("late", 3, 180)
    assert_right(fleet, "late", image)


def test_the_same_checksum_in_another_namespace_gets_nothing_from_peers(
    fleet: Cluster, server: origin.Origin, image: Image
) -> None:
    deploy(fleet, server, image, "mine", 2, **only(*HOSTS[:2]))
    before = sent(server)
    fleet.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strangers"}})
    try:
        theirs = clusters.template("theirs", server.url(image.path.name), checksum=image.checksum)
        wish = clusters.deployment("theirs", **only(HOSTS[2]))
        fleet.apply(*({**each, "metadata": {"name": "theirs", "namespace": "strangers"}} for each in (theirs, wish)))
        until("their copy", lambda: fleet.reasons("theirs").get(HOSTS[2], ("", ""))[0] == "Ready", 120)
        assert sent(server) - before >= image.size_bytes
        assert bytes_from(fleet, "theirs")[HOSTS[2]].get("peers", 0) == 0
    finally:
        fleet.delete("namespace", "strangers")


def test_with_the_port_blocked_everywhere_the_rollout_completes(
    fleet: Cluster, server: origin.Origin, image: Image
) -> None:
    rule = ("INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP")
    try:
        for host in HOSTS:
            fleet.node("exec", host, "iptables", "-I", *rule)
        deploy_blocked(fleet, server, image)
    finally:
        for host in HOSTS:
            fleet.node("exec", host, "iptables", "-D", *rule)
    assert_right(fleet, "blocked", image)


def deploy_blocked(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    cluster.apply(
        clusters.template("blocked", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("blocked"),
    )
    # three times half a minute without a piece, and the pauses between
    cluster.converged("blocked", 3, 280)


def test_the_seed_killed_half_way_costs_the_source_no_second_read(
    fleet: Cluster, slow_server: origin.Origin, image: Image
) -> None:
    fleet.apply(
        clusters.template("killed", slow_server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("killed"),
    )
    until("a download that is half done", lambda: half_done(fleet, "killed") is not None, 120)
    host = half_done(fleet, "killed")
    assert host is not None
    pod = evidence.running_pod(fleet, host)
    assert pod is not None
    fleet.delete("pod", pod, namespace=NAMESPACE, grace_seconds=0)
    fleet.converged("killed", 3, 240)
    assert_right(fleet, "killed", image)
    time.sleep(0.5)
    # what came since the last line of its journal is fetched again
    assert sent(slow_server) <= 1.3 * image.size_bytes


def test_hosts_start_over_time_while_servers_die_and_the_controller_is_away(
    fleet: Cluster, slow_server: origin.Origin, image: Image
) -> None:
    def begun(host: str) -> bool:
        placement = fleet.placements("over-time").get(host, {})
        return bool(placement.get("status", {}).get("progress", {}).get("bytesDownloaded"))

    def ended() -> bool:
        pods = evidence.pods(fleet, "job")
        return len(pods) == 2 and all(pod["status"]["phase"] == "Succeeded" for pod in pods)

    fleet.apply(
        clusters.template("over-time", slow_server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("over-time", **only(HOSTS[0])),
    )
    until("the Seed's first bytes", lambda: begun(HOSTS[0]))
    fleet.apply(clusters.deployment("over-time", **only(*HOSTS[:2])))
    until("the Peer's first bytes", lambda: begun(HOSTS[1]))
    for pod in evidence.pods(fleet, "peer"):
        fleet.delete("pod", pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=0)
    controllers = ("deployment", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller")
    fleet.kubectl("scale", *controllers, "--replicas=0")
    try:
        until("both downloads to end without a controller", ended, 120)
    finally:
        fleet.kubectl("scale", *controllers, "--replicas=2")
    fleet.apply(clusters.deployment("over-time"))
    fleet.converged("over-time", 3, 180)
    assert_right(fleet, "over-time", image)
    assert sent(slow_server) <= SHARE * image.size_bytes
    assert {host: found.get("origin", 0) > 0 for host, found in bytes_from(fleet, "over-time").items()} == {
        HOSTS[0]: True,
        HOSTS[1]: False,
        HOSTS[2]: False,
    }


def half_done(cluster: Cluster, template: str) -> str | None:
    """The host of the Seed, once it has half of the file."""
    for host, placement in cluster.placements(template).items():
        status = placement.get("status", {})
        if status.get("peers", {}).get("role") == "Seed" and status.get("progress", {}).get("percent", 0) >= 40:
            return host
    return None
