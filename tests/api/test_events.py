"""Events and metrics as an operator sees them: a recorder and a real controller against a real API server."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import posixpath
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import prometheus_client
import pytest
from prometheus_client import parser
from tests.cluster import harness
from tests.world import cluster_support, kube
from tests.world.controllers import Controller
from tests.world.simulation import SIZE_BYTES, Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import client, kinds
from directdownload.controller import events
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Regarded:
    """An object that something is told of; Events need not name one that exists."""

    key: str
    uid: str = "7d4f7a44-0000-4000-8000-000000000001"


@contextlib.asynccontextmanager
async def recording(api: client.Api, instance: str = "controller-0", **options: Any) -> AsyncIterator[events.Recorder]:
    recorder = events.Recorder(api, instance, **options)
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def posted(api: client.Api, name: str, namespace: str = "default") -> list[dict[str, Any]]:
    found, _ = await api.list(kinds.EVENTS, namespace=namespace)
    return [event for event in found if event["regarding"]["name"] == name]


async def counts(api: client.Api, name: str, expected: list[int], namespace: str = "default") -> list[dict[str, Any]]:
    """Waits until the Events of the object have happened so often, and returns them."""
    async with asyncio.timeout(20):
        while True:
            found = await posted(api, name, namespace)
            if sorted(event.get("series", {}).get("count", 1) for event in found) == expected:
                return found
            await asyncio.sleep(0.02)


def dropped(cause: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value("directdownload_events_dropped_total", {"cause": cause}) or 0.0


# The recorder


async def test_what_happens_again_raises_the_count_of_one_event(api: client.Api) -> None:
    host = Regarded("repeating")
    async with recording(api) as recorder:
        for number in range(1, 4):
            recorder.tell(kinds.HOSTS, host, "Warning", Reason.NODE_NOT_READY, f"for the {number}. time")
            (event,) = await counts(api, "repeating", [number])
        recorder.tell(kinds.HOSTS, host, "Normal", Reason.UP, "it is back")
        await counts(api, "repeating", [1, 3])
    assert (event["type"], event["reason"], event["action"]) == ("Warning", "NodeNotReady", "Reconcile")
    assert event["note"] == "for the 1. time"
    assert (event["reportingController"], event["reportingInstance"]) == (
        "directdownload.dev/controller",
        "controller-0",
    )
    assert event["series"]["lastObservedTime"] > event["eventTime"]


async def test_an_event_that_ran_out_is_made_again_with_its_count(api: client.Api) -> None:
    host = Regarded("forgotten")
    async with recording(api) as recorder:
        recorder.tell(kinds.HOSTS, host, "Warning", Reason.NODE_NOT_READY, "gone")
        (event,) = await counts(api, "forgotten", [1])
        await api.delete(kinds.EVENTS, event["metadata"]["name"], namespace="default")
        recorder.tell(kinds.HOSTS, host, "Warning", Reason.NODE_NOT_READY, "gone")
        (again,) = await counts(api, "forgotten", [2])
    assert again["metadata"]["name"] == event["metadata"]["name"]
    assert again["metadata"]["uid"] != event["metadata"]["uid"]


async def test_the_longest_values_are_accepted(api: client.Api) -> None:
    host = Regarded("h" * 63 + ".example" * 23)
    async with recording(api, "p" * 253) as recorder:
        recorder.tell(kinds.HOSTS, host, "Warning", Reason.NODE_NOT_READY, "€" * 2000)
        (event,) = await counts(api, host.key, [1])
    assert len(event["note"].encode()) > 1000


async def test_an_event_of_a_namespaced_object_lies_beside_it(api: client.Api) -> None:
    namespace = await cluster_support.namespace_with_things(api)
    async with recording(api) as recorder:
        recorder.tell(kinds.TEMPLATES, Regarded(f"{namespace}/debian"), "Normal", Reason.REGISTERED, "")
        (event,) = await counts(api, "debian", [1], namespace)
    assert event["regarding"]["namespace"] == namespace


async def test_an_api_server_that_is_away_for_a_while_loses_no_event(
    api: client.Api, control_plane: harness.ControlPlane, tmp_path: pathlib.Path
) -> None:
    tried: list[int] = []
    async with cluster_support.proxied(control_plane.kubeconfig(), tmp_path) as (proxy, path):
        through = await client.Api.connect(kubeconfig=str(path), on_request=lambda *call: tried.append(call[2]))
        try:
            async with recording(through, pauses_seconds=(0.2,) * 50) as recorder:
                proxy.cut()
                for name in ("away-0", "away-1", "away-2", "away-2"):
                    recorder.tell(kinds.HOSTS, Regarded(name, f"uid of {name}"), "Normal", Reason.UP, "")
                await cluster_support.until(lambda: len(tried) >= 3)
                assert set(tried) == {0}
                proxy.heal()
                for name, times in (("away-0", 1), ("away-1", 1), ("away-2", 2)):
                    await counts(api, name, [times])
        finally:
            await through.close()


async def test_events_that_are_refused_are_dropped_and_the_recorder_goes_on(
    api: client.Api, control_plane: harness.ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    namespace = await cluster_support.namespace_with_things(api)
    control_plane.kubectl("-n", namespace, "create", "serviceaccount", "nobody", check=True)
    token = control_plane.service_account_token("nobody", namespace)
    nobody = await client.Api.connect(kubeconfig=str(control_plane.token_kubeconfig(token, namespace)))
    before = dropped("Refused")
    try:
        async with recording(nobody) as recorder:
            for number in range(3):
                recorder.tell(kinds.HOSTS, Regarded(f"refused-{number}", str(number)), "Normal", Reason.UP, "")
            await cluster_support.until(lambda: dropped("Refused") == before + 3)
    finally:
        await nobody.close()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "Refused" in warning
    assert not await posted(api, "refused-0")


# A controller, as an operator sees it


@pytest.fixture
def world() -> Iterator[Simulation]:
    """In a control plane for itself: controllers act on every object that they see."""
    with harness.ControlPlane() as running:
        kube.install_definitions(running)
        with Simulation(running, "events", agents=True) as found:
            found.create_zone(downloads={"retry": {"initial": "1s", "maximum": "1s"}})
            yield found


def deploy(world: Simulation, hosts: int) -> Controller:
    """A controller, and one template wherever it goes. Hosts are Up before, so that nothing waits for them."""
    controller = world.start_controller()
    up = {"total": hosts, "up": hosts}
    until("the hosts to be Up", lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts") == up)
    world.create_template()
    world.deploy()
    world.converged(hosts)
    return controller


def told(world: Simulation, name: str, namespace: str = "default") -> set[tuple[str, str, int]]:
    """Type, reason and count of the Events of one object, as `kubectl get events` lists them."""
    selector = f"--field-selector=involvedObject.name={name}"
    listed = world.control_plane.kubectl("get", "events", "-n", namespace, selector, "-o", "json", check=True)
    items = json.loads(listed.stdout)["items"]
    assert all(item["reportingComponent"] == "directdownload.dev/controller" for item in items)
    found = [(item["type"], item["reason"], item.get("series", {}).get("count", 1)) for item in items]
    assert len(found) == len({reason for _, reason, _ in found}), f"what happened again is one Event: {found}"
    return set(found)


def until_told(world: Simulation, name: str, *expected: tuple[str, str, int], namespace: str = "default") -> None:
    """Waits until exactly `expected` is told of an object."""
    last: list[set[tuple[str, str, int]]] = []

    def reached() -> bool:
        last[:] = [told(world, name, namespace)]
        return last == [set(expected)]

    try:
        until(f"the Events of {name}", reached)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None


def scrape(controller: Controller) -> dict[str, dict[tuple[str, ...], float]]:
    """What Prometheus reads: values by name, then by the values of the labels in the order of their names."""
    until("the controller to listen", lambda: _health_port(controller) is not None)
    with urllib.request.urlopen(f"http://127.0.0.1:{_health_port(controller)}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            found.setdefault(sample.name.removeprefix("directdownload_"), {})[labels] = sample.value
    return found


def _health_port(controller: Controller) -> int | None:
    """Where it listens: with `--health-port 0` only the kernel knows."""
    own = set()
    for descriptor in pathlib.Path(f"/proc/{controller.process.pid}/fd").iterdir():
        # closed meanwhile
        with contextlib.suppress(FileNotFoundError):
            own.add(os.readlink(descriptor))
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in own:
            return int(local.partition(":")[2], 16)
    return None


def everything_told(world: Simulation) -> dict[str, str]:
    """The version of each Event of the product, which a repetition raises; not of those of the Lease."""
    listed = world.control_plane.kubectl("get", "events", "-A", "-o", "json", check=True)
    items = [each for each in json.loads(listed.stdout)["items"] if each["involvedObject"]["kind"] != "Lease"]
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}


def nothing_is_told_twice(world: Simulation, controller: Controller) -> None:
    """Reconciles of a fleet in which nothing happens tell nothing, nor does the next leader tell it all again."""
    before = everything_told(world)
    assert before
    assert controller.stop() == 0
    heir = world.start_controller("heir")
    until("another to lead", lambda: b"Synced" in heir.log.read_bytes())
    touched = (
        (kinds.TEMPLATE_PLACEMENTS, [p["metadata"]["name"] for p in world.placements()], None),
        (kinds.TEMPLATES, ["debian"], world.namespace),
        (kinds.TEMPLATE_DEPLOYMENTS, ["everywhere"], world.namespace),
        (kinds.ZONES, [world.zone], None),
        (kinds.STORAGE_POOLS, [world.pool], None),
    )
    with world.kube() as connection:
        for kind, names, namespace in touched:
            for name in names:
                connection.patch(kind, name, {"metadata": {"labels": {"touched": "yes"}}}, namespace).object()

    def looked() -> bool:
        """Each kind of object was reconciled again, and none waits."""
        found = scrape(heir)
        done = found.get("reconcile_duration_seconds_count", {})
        busy = sum(found.get("queue_depth", {"": 1}).values())
        return not busy and all(
            done.get((kind, "success")) for kind in ("placement", "template", "host", "zone", "pool")
        )

    until("all to be looked at again", looked)
    assert everything_told(world) == before
    heir.kill()


def test_failures_are_counted_in_one_event_and_in_the_metrics(world: Simulation) -> None:
    """Two attempts fail on one host, the third succeeds; another host has no trouble; a standby says nothing."""
    bad, good = (world.add_host(f"kvm-{number}") for number in (1, 2))
    attempts = itertools.count(1)

    def twice(document: JobDocument) -> JobResult:
        if document.host == bad and next(attempts) <= 2:
            return fail(Reason.SOURCE_UNAVAILABLE)
        return succeed(document)

    world.behaviour = twice
    controller = deploy(world, 2)
    names = {host: world.placement(host)["metadata"]["name"] for host in (bad, good)}
    until_told(world, names[bad], ("Warning", "SourceUnavailable", 2), ("Normal", "Downloaded", 1))
    until_told(world, names[good], ("Normal", "Downloaded", 1))
    for host in (bad, good):
        until_told(world, host, ("Normal", "Up", 1))
    reasons = {reason for kind, reason, _ in told(world, "everywhere", world.namespace) if kind == "Normal"}
    assert "Converged" in reasons

    assert told(world, "debian", world.namespace) == {("Normal", "Registered", 1)}
    for name in (world.zone, world.pool):
        assert ("Normal", "Ready", 1) in told(world, name)
        assert {kind for kind, *_ in told(world, name)} == {"Normal"}

    def idle() -> bool:
        now = scrape(controller)
        return not any((*now["queue_depth"].values(), *now["jobs_active"].values()))

    until("the controller to have nothing to do", idle)
    found = scrape(controller)
    assert found["download_attempts_total"] == {("SourceUnavailable", world.zone): 2, ("Downloaded", world.zone): 2}
    assert found["download_bytes_total"] == {(host, "HTTP", world.zone): SIZE_BYTES for host in (bad, good)}
    assert found["placements"]["Ready", world.zone] == 2
    assert sum(found["placements"].values()) == 2
    assert found["hosts"]["Up", world.zone] == 2
    assert found["pool_available_bytes"].keys() == {(host, world.pool, world.zone) for host in (bad, good)}
    assert found["jobs_active"] == {(world.zone,): 0}
    assert found["reconcile_duration_seconds_count"]["placement", "success"] > 0
    assert found["queue_depth"]["placement",] == 0
    nothing_is_told_twice(world, controller)
    standby = world.start_controller("standby")
    until("the standby to ask for the lead", lambda: "api_requests_total" in scrape(standby))
    common = {"build_info", "api_requests_total", "leader"}
    assert {name for name in scrape(standby) if not name.startswith(("python_", "process_"))} == common


def test_a_repair_is_told_and_counted(world: Simulation) -> None:
    """A file is deleted, then another one altered, behind everybody's back."""
    host = world.add_host("kvm-1")
    controller = deploy(world, 1)
    placement = world.placement(host)
    name, file = placement["metadata"]["name"], posixpath.basename(placement["spec"]["path"])
    until_told(world, name, ("Normal", "Downloaded", 1))
    world.disk(host).delete(file)
    until_told(world, name, ("Warning", "Missing", 1), ("Normal", "Downloaded", 2))
    world.disk(host).alter(file)
    until_told(world, name, ("Warning", "Missing", 1), ("Warning", "Altered", 1), ("Normal", "Downloaded", 3))
    found = scrape(controller)
    assert found["repairs_total"] == {("Missing", world.zone): 1, ("Altered", world.zone): 1}
    assert found["verifications_total"] == {("Altered", world.zone): 1}
    assert found["download_attempts_total"] == {("Downloaded", world.zone): 3}


def test_a_removal_is_told_also_while_it_waits(world: Simulation) -> None:
    """The Events outlive the object that they are about."""
    host = world.add_host("kvm-1")
    deploy(world, 1)
    placement = world.placement(host)
    name, file = placement["metadata"]["name"], posixpath.basename(placement["spec"]["path"])
    until_told(world, name, ("Normal", "Downloaded", 1))
    world.disk(host).in_use.add(file)
    with world.kube() as connection:
        connection.delete(kinds.TEMPLATE_DEPLOYMENTS, "everywhere", world.namespace).object()
    until_told(world, name, ("Normal", "Downloaded", 1), ("Normal", "InUse", 1))
    world.disk(host).in_use.clear()
    until("the placement to go", lambda: not world.placements())
    until_told(world, name, ("Normal", "Downloaded", 1), ("Normal", "InUse", 1), ("Normal", "Removed", 1))
