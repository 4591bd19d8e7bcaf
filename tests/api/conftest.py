"""Fixtures of the tests that need a real Kubernetes API but no nodes."""

import collections.abc
import itertools
import os
import pty

import pytest
import pytest_asyncio
from tests.cluster import harness
from tests.world import kube
from tests.world.cluster_support import namespace_with_things
from tests.world.simulation import Simulation

from directdownload.cluster import client, kinds

_LOG_CHARACTERS = 6000
#: Namespaces stay when a test is over: nothing deletes them without Kubernetes' own controllers.
_worlds = itertools.count(1)


#: Files that take longest, which begin first: otherwise one process works on the last of them while the others wait.
_LONGEST = (
    *("test_installations", "test_convergence", "test_weather", "test_agent_losses", "test_certificates"),
    *(
        "test_dashboard_pages",
        "test_controller",
        "test_headers",
        "test_repair",
        "test_leadership",
        "test_tenants",
        "test_unreadable",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the control plane runs before the first test: a build of minutes would exceed a test's time limit."""
    if session.config.option.collectonly:
        return
    if any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items):
        harness.ensure_tools()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> collections.abc.Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the controllers of a failed test said last: what fails once in a hundred runs has to tell its cause."""
    report = yield
    found = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(found, Simulation):
        for controller in found.controllers:
            end = "runs" if controller.alive else f"ended with {controller.process.returncode}"
            text = controller.log.read_text(errors="replace")[-_LOG_CHARACTERS:]
            report.sections.append((f"log of {controller.user}, which {end}", text))
    return report


@pytest.fixture(scope="session")
def control_plane() -> collections.abc.Iterator[harness.ControlPlane]:
    """A real etcd and kube-apiserver, shared by the whole session: tests make namespaces and names of their own."""
    with harness.ControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def definitions(control_plane: harness.ControlPlane) -> harness.ControlPlane:
    """The shared control plane, with the product's kinds."""
    kube.install_definitions(control_plane)
    return control_plane


@pytest.fixture(scope="module")
def admin(definitions: harness.ControlPlane) -> collections.abc.Iterator[kube.Kube]:
    """An administrator's connection to the shared control plane, with the product's kinds."""
    with kube.Kube(definitions.kubeconfig()) as connection:
        yield connection


@pytest_asyncio.fixture
async def api(control_plane: harness.ControlPlane) -> collections.abc.AsyncIterator[client.Api]:
    """The product's client, as an administrator."""
    connected = await client.Api.connect(kubeconfig=str(control_plane.kubeconfig()))
    yield connected
    await connected.close()


@pytest_asyncio.fixture
async def namespace(api: client.Api) -> str:
    """A fresh one, in a cluster that serves `cluster_support.THINGS`."""
    return await namespace_with_things(api)


@pytest.fixture
def terminal() -> collections.abc.Iterator[tuple[int, int]]:
    """Both ends, ours first."""
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)


@pytest.fixture(scope="session")
def fleet() -> collections.abc.Iterator[harness.ControlPlane]:
    """A control plane for controllers alone, one test after the other: they act on every object that they see."""
    with harness.ControlPlane() as running:
        kube.install_definitions(running)
        yield running


@pytest.fixture
def own() -> collections.abc.Iterator[harness.ControlPlane]:
    """A control plane that nobody else's objects are in, with the product's kinds."""
    with harness.ControlPlane() as running:
        kube.install_definitions(running)
        yield running


@pytest.fixture
def world(fleet: harness.ControlPlane) -> collections.abc.Iterator[Simulation]:
    """Simulated hosts with simulated agents, alone in their control plane; nothing of them is left behind."""
    try:
        with Simulation(fleet, f"world-{next(_worlds)}", agents=True) as found:
            yield found
    finally:
        with kube.Kube(fleet.kubeconfig()) as connection:
            for kind in (
                *(kinds.TEMPLATE_PLACEMENTS, kinds.TEMPLATE_DEPLOYMENTS, kinds.TEMPLATES),
                *(kinds.CERTIFICATES, kinds.STORAGE_POOLS, kinds.ZONES, kinds.HOSTS, kinds.NODES),
            ):
                for item in connection.request("GET", kind.path()).object()["items"]:
                    name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
                    connection.patch(kind, name, {"metadata": {"finalizers": None}}, namespace)
                    connection.delete(kind, name, namespace)
