"""A namespace goes with its Template and deployment while a host leaves its zone: nothing stays behind for ever."""

from tests.world.simulation import POOL_PATH, Simulation
from tests.world.steps import counted, empty, hosts_of_a_zone, kill, settle, state, until_state
from tests.world.waiting import until

from directdownload.cluster import kinds

READY = ("Ready", "Downloaded")
WRITTEN = (kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATES)


def tenant(world: Simulation, number: int) -> tuple[str, list[str]]:
    """A namespace whose Template and deployment have a Ready copy on each of `number` hosts; the controller is gone."""
    hosts = hosts_of_a_zone(world, number)
    namespace = world.create_namespace("tenant", team="blue")
    controller = world.start_controller("first")
    world.create_template(namespace=namespace)
    world.deploy(namespace=namespace)
    for host in hosts:
        until_state(world, host, *READY)
    settle(world)
    kill(world, controller)
    return namespace, hosts


def delete_namespace(world: Simulation, namespace: str) -> None:
    """Deletes it and its objects, as the namespace controller does, which does not run here."""
    with world.kube() as kube:
        kube.delete(kinds.NAMESPACES, namespace).object()
        for kind in WRITTEN:
            for item in kube.request("GET", kind.path(None, namespace)).object()["items"]:
                kube.delete(kind, item["metadata"]["name"], namespace).object()


def until_namespace_is_empty(world: Simulation, namespace: str) -> None:
    def nothing_left() -> bool:
        with world.kube() as kube:
            return not any(kube.request("GET", kind.path(None, namespace)).object()["items"] for kind in WRITTEN)

    until("the namespace to be empty", nothing_left)


def test_a_copy_on_a_host_that_left_its_zone_goes_when_the_label_is_back(world: Simulation) -> None:
    namespace, (left, stayed) = tenant(world, 2)
    world.relabel(left, simulated_zone=None)
    delete_namespace(world, namespace)
    world.start_controller("second")
    until_namespace_is_empty(world, namespace)
    until("the copy of the other host to go", lambda: empty(world, stayed))
    until("the wait", lambda: state(world, left) == ("Removing", "HostDown"))
    settle(world)
    assert not world.jobs()
    world.relabel(left, simulated_zone=world.zone)
    until("the placements to go", lambda: not world.placements())
    settle(world)
    assert empty(world, left)
    assert not world.jobs()
    assert counted(world) == {(host, verb): 1 for host in (left, stayed) for verb in ("fetch", "remove")}


def test_a_copy_on_a_host_that_moved_to_another_zone_is_removed_with_its_template(world: Simulation) -> None:
    namespace, (moved, stayed) = tenant(world, 2)
    other = world.add_zone("other")
    world.create_pool("there", zone=other, path=f"{POOL_PATH}/there")
    world.relabel(moved, simulated_zone=other)
    delete_namespace(world, namespace)
    world.start_controller("second")
    until_namespace_is_empty(world, namespace)
    until("the placements to go", lambda: not world.placements())
    settle(world)
    assert empty(world, moved)
    assert empty(world, stayed)
    assert not world.jobs()


def test_copies_go_with_a_template_whose_namespace_lost_its_label_at_once(world: Simulation) -> None:
    namespace, hosts = tenant(world, 2)
    with world.kube() as kube:
        selector = {"templateNamespaces": {"matchLabels": {"team": "blue"}}}
        kube.patch(kinds.ZONES, world.zone, {"spec": selector}).object()
        kube.patch(kinds.NAMESPACES, namespace, {"metadata": {"labels": {"team": None}}}).object()
    delete_namespace(world, namespace)
    world.start_controller("second")
    until_namespace_is_empty(world, namespace)
    until("the placements to go", lambda: not world.placements())
    settle(world)
    assert all(empty(world, host) for host in hosts)
    assert not world.jobs()
