"""Two installations in one cluster, as real processes in two namespaces: one leads, the other says so and waits."""

import contextlib
import datetime
import pathlib
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.world import steps, weather
from tests.world.controllers import Controller
from tests.world.simulation import Simulation
from tests.world.waiting import until
from tests.world.weather import Call, Proxy

from directdownload.cluster import kinds

#: A Lease that was seen to move counts for 30 s.
TAKE_OVER_SECONDS = 60


@pytest.fixture
def other(fleet: harness.ControlPlane, world: Simulation) -> Iterator[Simulation]:
    """The namespace of another installation."""
    with Simulation(fleet, f"{world.prefix}-other", kubelets=False) as found:
        yield found


def works(controller: Controller) -> bool:
    """It leads, and has read the cluster."""
    return b"Synced" in controller.log.read_bytes()


def waits_for(controller: Controller, leading: Simulation) -> bool:
    text = controller.log.read_text()
    return f"Its Lease {leading.namespace}/{steps.LEASE} is older" in text


def holder(world: Simulation) -> str:
    return str(world.get(kinds.LEASES, steps.LEASE)["spec"].get("holderIdentity"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def answer(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())
    except OSError:
        return ""


def leader_metric(port: int) -> str:
    found = re.search(r"^directdownload_leader (\S+)$", answer(port, "metrics"), re.MULTILINE)
    return found[1] if found else ""


def test_the_younger_one_waits_and_takes_over_when_the_older_one_has_gone(world: Simulation, other: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    first_port, second_port = free_port(), free_port()
    first = world.start_controller("first", "--health-port", str(first_port))
    until("the first to lead", lambda: works(first))
    second = other.start_controller("second", "--health-port", str(second_port))
    until("the second to see it", lambda: waits_for(second, world))
    assert f"{holder(world)} renews it" in second.log.read_text()
    assert (answer(second_port, "readyz"), answer(second_port, "healthz")) == ("ok", "ok")
    assert (leader_metric(first_port), leader_metric(second_port)) == ("1.0", "0.0")
    world.create_template()
    world.deploy()
    world.converged(1)
    assert other.writes("second") == []
    assert not works(second)
    assert second.alive
    labels = world.get(kinds.LEASES, steps.LEASE)["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/managed-by": "direct-download-operator"}
    assert first.stop() == 0
    until("the second to take over", lambda: works(second), TAKE_OVER_SECONDS)
    assert leader_metric(second_port) == "1.0"
    assert second.stop() == 0


def test_of_two_that_begin_together_one_leads(world: Simulation, other: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    controllers = {world.namespace: world.start_controller("first"), other.namespace: other.start_controller("second")}

    def decided() -> bool:
        texts = [controller.log.read_text() for controller in controllers.values()]
        return sum("Synced" in text for text in texts) == 1 == sum("Not leading" in text for text in texts)

    until("one to lead and the other to wait", decided)
    assert all(controller.alive for controller in controllers.values())


def test_one_that_leads_gives_way_to_an_older_one_and_waits_again(world: Simulation, other: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    first = world.start_controller("first")
    until("the first to lead", lambda: works(first))
    assert first.stop() == 0
    # Its Lease was given back: seen for some seconds, it stops nobody.
    port = free_port()
    second = other.start_controller("second", "--health-port", str(port))
    until("the second to lead", lambda: works(second))
    again = world.start_controller("again")
    until("the second to give way", lambda: "Restarting to wait" in second.log.read_text())
    until("it to wait", lambda: second.log.read_text().count("Not leading") >= 2)
    log = second.log.read_text()
    assert "Giving way: finishing running reconciles" in log
    assert "Traceback" not in log, log
    assert second.alive, "the same process, for Kubernetes: no restart"
    assert not holder(other)
    assert answer(port, "readyz") == "ok"
    assert leader_metric(port) == "0.0"
    assert works(again)
    world.create_template()
    world.deploy()
    world.converged(1)
    assert not {write["objectRef"]["resource"] for write in other.writes("second")} & {"jobs"}
    assert again.stop() == 0
    until("the second to lead once more", lambda: second.log.read_text().count("Synced") == 2, TAKE_OVER_SECONDS)


@contextlib.contextmanager
def moving_lease(world: Simulation, name: str, labels: dict[str, str]) -> Iterator[None]:
    """A Lease that somebody renews every second."""
    stop = threading.Event()

    def renew() -> None:
        with world.kube() as kube:
            while not stop.wait(1):
                now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                kube.patch(kinds.LEASES, name, {"spec": {"renewTime": now}}, world.namespace).object()

    body = {"metadata": {"name": name, "labels": labels}, "spec": {"holderIdentity": "old\x1b[2J" + "x" * 1000}}
    with world.kube() as kube:
        kube.create(kinds.LEASES, body, world.namespace).object()
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        pytest.param(steps.LEASE, {}, id="of version 0.1.0, which has no label"),
        pytest.param("another", {"app.kubernetes.io/managed-by": "direct-download-operator"}, id="of another name"),
    ],
)
def test_a_lease_is_found_by_its_name_and_by_its_label(
    world: Simulation, other: Simulation, name: str, labels: dict[str, str]
) -> None:
    with moving_lease(other, name, labels):
        controller = world.start_controller()
        until("it to wait", lambda: f"Its Lease {other.namespace}/{name} is older" in controller.log.read_text())
        log = controller.log.read_text()
        assert "\x1b" not in log
        assert "x" * 300 not in log
        assert not works(controller)


def lists_leases(call: Call) -> bool:
    return (call.verb, call.resource) == ("list", "leases")


def test_without_the_right_to_see_others_an_installation_leads_all_the_same(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path
) -> None:
    """As after an upgrade of the image alone, with the roles of before."""
    with (
        Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy,
        proxy.fault(weather.refusal(403, "Forbidden"), lists_leases) as refused,
    ):
        controller = world.start_controller(kubeconfig=proxy.kubeconfig)
        until("it to lead", lambda: works(controller))
        assert refused
        log = controller.log.read_text()
        words = "Cannot see whether another installation leads in this cluster, continuing as if none did"
        assert log.count(words) == 1
        assert controller.stop() == 0


def test_a_look_that_fails_while_it_waits_is_no_reason_to_lead(
    fleet: harness.ControlPlane, world: Simulation, other: Simulation, tmp_path: pathlib.Path
) -> None:
    first = world.start_controller("first")
    until("the first to lead", lambda: works(first))
    with Proxy(fleet.kubeconfig(f"{other.prefix}-second"), tmp_path) as proxy:
        second = other.start_controller("second", kubeconfig=proxy.kubeconfig)
        until("the second to wait", lambda: waits_for(second, world))
        with proxy.fault(weather.refusal(500, "InternalError"), lists_leases) as failed:
            until("looks that fail", lambda: len(failed) >= 2)
        until("a look again", lambda: "can be listed again" in second.log.read_text())
        assert "still waiting" in second.log.read_text()
        assert not works(second)
        assert second.stop() == 0


def test_alone_a_controller_waits_for_nothing(
    fleet: harness.ControlPlane, world: Simulation, tmp_path: pathlib.Path
) -> None:
    with Proxy(fleet.kubeconfig(f"{world.prefix}-controller"), tmp_path) as proxy:
        controller = world.start_controller(kubeconfig=proxy.kubeconfig)
        until("it to lead", lambda: works(controller))
        # One look before it stands for election and one after, each by name and by label.
        assert proxy.count(lists_leases) == 4
        assert controller.stop() == 0
