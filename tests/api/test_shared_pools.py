"""Pools that hosts share: one copy, one host at a time, and another host when that one is lost."""

from collections.abc import Callable

import pytest
from tests.world import kstatus
from tests.world.disks import CAPACITY_BYTES
from tests.world.kube import Object
from tests.world.simulation import DIGEST, Simulation, succeed
from tests.world.steps import delete, file_of, hang, hosts_of_a_zone, phase_and_reason, settle
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.base import AGENT
from directdownload.resources.jobs import JobDocument, JobResult, Verb


class Shared:
    """One pool that all hosts of a zone share, and one template that is wanted there."""

    def __init__(self, world: Simulation, number: int) -> None:
        self.world = world
        self.hosts = hosts_of_a_zone(world, number)
        self.pool = world.create_pool("nfs", type="NetworkFilesystem")
        self.disk = world.disk(self.hosts[0], self.pool)

    def deploy(self) -> None:
        self.world.create_template()
        self.world.deploy(pools=[self.pool])

    def start(self) -> None:
        self.world.start_controller()
        self.deploy()

    def copies(self) -> list[Object]:
        """The placements. A takeover changes their spec, so what they say may still be of the generation before."""
        with self.world.kube() as kube:
            found = kube.request("GET", kinds.TEMPLATE_PLACEMENTS.path()).object()["items"]
        for placement in found:
            kstatus.assert_kstatus(placement, lagging=True)
        return list(found)

    def copy(self) -> Object:
        (placement,) = self.copies()
        return placement

    @property
    def host(self) -> str:
        return str(self.copy()["spec"]["host"])

    def other(self, host: str) -> str:
        (other,) = set(self.hosts) - {host}
        return other

    def until_downloading(self) -> str:
        """The host that downloads."""
        until("a download", lambda: self.world.started)
        until("the status", lambda: phase_and_reason(self.copy()) == ("Downloading", "Downloading"))
        return self.host

    def until_state(self, phase: str, *reasons: str) -> None:
        def reached() -> bool:
            found = [phase_and_reason(placement) for placement in self.copies()]
            return len(found) == 1 and found[0] in [(phase, reason) for reason in reasons]

        until(f"{phase} {' or '.join(reasons)}", reached)

    def until_on(self, host: str) -> None:
        until(f"{host} to have it", lambda: self.host == host)

    def assert_intact(self) -> None:
        placement = self.copy()
        name = file_of(placement)
        assert {n: f.digest for n, f in self.disk.files.items()} == {name: DIGEST}
        assert placement["status"]["file"]["revision"] == self.disk.records[name].revision

    def mount(self, host: str, mounted: bool) -> None:
        """What the agent of `host` says of the pool from now on; the test speaks for it."""
        self.world.silence_agent(host)
        storage = {"pool": self.pool, "capacityBytes": CAPACITY_BYTES, "availableBytes": CAPACITY_BYTES}
        path = f"/var/lib/libvirt/images/{self.pool}"
        facts = {**storage, "path": path, "writable": True, "mounted": mounted}
        body = {
            "apiVersion": kinds.HOSTS.api_version,
            "kind": "Host",
            "metadata": {"name": host},
            "status": {"agentVersion": "simulated", "storage": [facts]},
        }
        with self.world.kube() as kube:
            kube.apply(kinds.HOSTS, body, AGENT, subresource="status").object()


def only_on(host: str) -> Callable[[JobDocument], JobResult | None]:
    """Jobs on `host` end, those elsewhere run on."""
    return lambda document: succeed(document) if document.host == host else None


def test_all_hosts_share_one_copy_that_one_job_has_fetched(world: Simulation) -> None:
    shared = Shared(world, 3)
    shared.start()
    world.converged(1)
    settle(world)
    assert world.started == [(shared.host, "fetch", 1)]
    assert world.deployment()["status"]["placements"]["desired"] == 1
    shared.assert_intact()
    # A host that joins finds it there.
    world.add_host("kvm-9")
    settle(world)
    assert len(world.started) == 1


@pytest.mark.parametrize("loss", ["network", "power"])
def test_another_host_takes_over_when_the_node_is_lost_in_mid_download(world: Simulation, loss: str) -> None:
    """The lost host, back again, or never away but unheard of, neither starts nor spoils anything."""
    shared = Shared(world, 2)
    world.behaviour = hang
    shared.start()
    lost = shared.until_downloading()
    successor = shared.other(lost)
    (world.unplug if loss == "network" else world.power_off)(lost)
    shared.until_on(successor)
    until("the successor's attempt", lambda: world.started[1:] == [(successor, "fetch", 2)])
    world.behaviour = only_on(successor)
    shared.until_state("Ready", "Downloaded")
    shared.assert_intact()
    revision = shared.copy()["status"]["file"]["revision"]
    # Without its network the first host now finishes as well.
    world.behaviour = succeed
    settle(world)
    world.restore(lost)
    until("its pod to end", lambda: not world.kubelets.running())
    settle(world)
    assert world.started == [(lost, "fetch", 1), (successor, "fetch", 2)]
    assert shared.host == successor
    assert shared.copy()["status"]["file"]["revision"] == revision
    shared.assert_intact()
    assert not world.jobs()


def test_what_a_lost_host_has_published_unheard_stays(world: Simulation) -> None:
    shared = Shared(world, 2)
    world.behaviour = hang
    shared.start()
    lost = shared.until_downloading()
    successor = shared.other(lost)
    world.unplug(lost)
    world.behaviour = only_on(lost)
    until("the file", lambda: shared.disk.files)
    shared.until_on(successor)
    world.behaviour = succeed
    shared.until_state("Ready", "AlreadyPresent")
    shared.assert_intact()


def test_a_ready_copy_of_a_lost_host_is_watched_and_repaired_by_another(world: Simulation) -> None:
    shared = Shared(world, 2)
    shared.start()
    world.converged(1)
    lost = shared.host
    successor = shared.other(lost)
    world.power_off(lost)
    shared.until_on(successor)
    settle(world)
    assert phase_and_reason(shared.copy()) == ("Ready", "Downloaded")
    assert len(world.started) == 1
    shared.disk.delete(file_of(shared.copy()))
    until("the repair", lambda: world.started[1:] == [(successor, "fetch", 2)])
    shared.until_state("Ready", "Downloaded")
    shared.assert_intact()
    world.restore(lost)
    settle(world)
    assert (shared.host, len(world.started)) == (successor, 2)


def test_a_ready_copy_is_watched_by_another_host_when_its_own_has_lost_the_mount(world: Simulation) -> None:
    shared = Shared(world, 2)
    shared.start()
    world.converged(1)
    first = shared.host
    shared.mount(first, False)
    shared.until_on(shared.other(first))
    assert len(world.started) == 1
    shared.disk.delete(file_of(shared.copy()))
    until("the repair", lambda: world.started[1:] == [(shared.other(first), "fetch", 2)])
    shared.until_state("Ready", "Downloaded")
    shared.assert_intact()


def test_a_cordoned_host_goes_on_with_its_download(world: Simulation) -> None:
    shared = Shared(world, 2)
    world.behaviour = hang
    shared.start()
    host = shared.until_downloading()
    world.cordon(host)
    until("maintenance", lambda: world.get(kinds.HOSTS, host)["status"]["state"] == "Maintenance")
    settle(world)
    assert shared.host == host
    world.behaviour = succeed
    world.converged(1)
    settle(world)
    assert world.started == [(host, "fetch", 1)]
    assert shared.host == host


def test_a_copy_that_waits_leaves_a_cordoned_host(world: Simulation) -> None:
    shared = Shared(world, 2)
    world.behaviour = hang
    shared.start()
    host = shared.until_downloading()
    world.cordon(host)
    until("maintenance", lambda: world.get(kinds.HOSTS, host)["status"]["state"] == "Maintenance")
    world.kubelets.kill(world.kubelets.running()[0])
    shared.until_on(shared.other(host))
    world.behaviour = succeed
    world.converged(1)
    assert world.started == [(host, "fetch", 1), (shared.other(host), "fetch", 2)]


def test_a_host_where_the_pool_is_not_mounted_is_never_chosen(world: Simulation) -> None:
    shared = Shared(world, 3)
    world.start_controller()
    bare = shared.hosts[:2]
    until("Hosts", lambda: all(not world.gone(kinds.HOSTS, host) for host in shared.hosts))
    for host in bare:
        shared.mount(host, False)
    until("the pool's count", lambda: _ready_hosts(shared) == 1)
    shared.deploy()
    world.converged(1)
    assert world.started == [(shared.hosts[2], "fetch", 1)]
    # Not even when it is the last one left.
    world.power_off(shared.hosts[2])
    settle(world)
    assert shared.host == shared.hosts[2]


def _ready_hosts(shared: Shared) -> int:
    status = shared.world.get(kinds.STORAGE_POOLS, shared.pool).get("status", {})
    return int(status.get("hosts", {}).get("ready", 0))


def test_another_host_takes_over_when_the_mount_goes_in_mid_download(world: Simulation) -> None:
    shared = Shared(world, 2)
    world.behaviour = hang
    shared.start()
    host = shared.until_downloading()
    shared.mount(host, False)
    shared.until_on(shared.other(host))
    world.behaviour = succeed
    world.converged(1)
    assert world.started == [(host, "fetch", 1), (shared.other(host), "fetch", 2)]
    shared.assert_intact()
    shared.mount(host, True)
    settle(world)
    assert len(world.started) == 2
    assert shared.host == shared.other(host)


@pytest.mark.parametrize("reason", ["HostDown", "NotMounted"])
def test_where_no_host_can_the_copy_waits_and_goes_on_with_the_first_that_can(world: Simulation, reason: str) -> None:
    shared = Shared(world, 2)
    world.start_controller()
    until("Hosts", lambda: all(not world.gone(kinds.HOSTS, host) for host in shared.hosts))
    for host in shared.hosts:
        if reason == "HostDown":
            world.unplug(host)
        else:
            shared.mount(host, False)
    shared.deploy()
    shared.until_state("Pending", reason)
    settle(world)
    assert not world.started
    # Not the one that has the placement.
    first = shared.other(shared.host)
    if reason == "HostDown":
        world.restore(first)
    else:
        shared.mount(first, True)
    world.converged(1)
    assert world.started == [(first, "fetch", 1)]


def test_another_host_removes_the_file_when_the_first_one_is_gone(world: Simulation) -> None:
    shared = Shared(world, 2)
    shared.start()
    world.converged(1)
    first = shared.host
    shared.disk.in_use.add(file_of(shared.copy()))
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    shared.until_state("Removing", "InUse")
    world.power_off(first)
    shared.until_on(shared.other(first))
    assert shared.disk.files
    shared.disk.in_use.clear()
    until("the placement to go", lambda: not shared.copies())
    assert not shared.disk.files
    assert world.started[-1][:2] == (shared.other(first), Verb.REMOVE)


def test_with_all_hosts_down_a_deleted_deployment_goes_at_once_and_the_file_later(world: Simulation) -> None:
    shared = Shared(world, 2)
    shared.start()
    world.converged(1)
    for host in shared.hosts:
        world.power_off(host)
    settle(world)
    delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    until("the deployment to go", lambda: world.gone(kinds.TEMPLATE_DEPLOYMENTS, "everywhere"))
    shared.until_state("Removing", "HostDown")
    settle(world)
    assert len(shared.disk.files) == 1
    # Either of them will do.
    world.restore(shared.other(shared.host))
    until("the placement to go", lambda: not shared.copies())
    assert not shared.disk.files
    assert [verb for _, verb, _ in world.started] == ["fetch", "remove"]


def test_a_copy_outlives_the_host_object_that_had_it_until_another_host_can_take_it_over(world: Simulation) -> None:
    shared = Shared(world, 2)
    shared.start()
    world.converged(1)
    gone, uid = shared.host, shared.copy()["metadata"]["uid"]
    world.power_off(shared.other(gone))
    world.delete_node(gone)
    settle(world)
    delete(world, kinds.HOSTS, gone)
    settle(world)
    assert (shared.host, shared.copy()["metadata"]["uid"]) == (gone, uid)
    world.restore(shared.other(gone))
    shared.until_on(shared.other(gone))
    settle(world)
    assert shared.copy()["metadata"]["uid"] == uid
    shared.assert_intact()
    assert len(world.started) == 1
