"""One cluster for the whole run, with the product installed and one zone of three hosts."""

import contextlib
import hashlib
import ipaddress
import os
import pathlib
from collections.abc import Collection, Iterator

import pytest
from tests.world import cluster as clusters
from tests.world import origin
from tests.world.cluster import Cluster
from tests.world.ganesha import Ganesha
from tests.world.kube import Kube
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.naming import WORK_DIRECTORY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Of the test alone: the first one's fixtures build what is missing, which takes minutes.
        item.add_marker(pytest.mark.timeout(300, func_only=True))


#: Of the chart, in all tests. Pods that are deleted while they wait for a volume must not stay for long. Agents go at
#: once: one after the other costs a minute.
SETTINGS = (
    *("headerSecrets.namespaces={default}", "csi.enabled=true", "csi.holdSeconds=5"),
    "agent.maxUnavailable=100%",
)
#: Of an upgrade between releases of one version: the hook for the definitions has nothing to do.
SAME_VERSION = (*SETTINGS, "crds.upgrade=false")


def usual_zone(*nfs_exports: str, **downloads: str) -> clusters.Object:
    """The zone of all tests. It retries soon, and keeps to one connection, so that requests can be counted.

    On a busy machine a download that has received nothing after a second would open a further one.
    """
    return clusters.zone(
        downloads={"retry": {"initial": "1s", "maximum": "5s"}, "connectionsPerSource": 1, **downloads},
        sourcePolicy={"nfsExports": [*nfs_exports]},
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    found = Cluster.acquire()
    found.install(*SETTINGS)
    found.apply(usual_zone(), clusters.pool())
    found.await_hosts()
    yield found
    found.release()


@pytest.fixture(scope="session")
def local(cluster: Cluster) -> Cluster:
    """A cluster whose nodes are on this machine."""
    if not cluster.local:
        pytest.skip("needs the nodes' files and power switches: a cluster given by KUBECONFIG has neither")
    return cluster


class Image:
    """A file of random bytes that the origin serves."""

    def __init__(self, directory: pathlib.Path, name: str, size_bytes: int) -> None:
        self.path = directory / name
        content = os.urandom(size_bytes)
        self.path.write_bytes(content)
        self.size_bytes = size_bytes
        self.sha256 = hashlib.sha256(content).hexdigest()

    @property
    def checksum(self) -> str:
        return f"{{SHA-256}}{self.sha256}"


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    return served(tmp_path)


@pytest.fixture(scope="module")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The same for all tests of a module."""
    return served(tmp_path_factory.mktemp("served"))


def served(path: pathlib.Path) -> pathlib.Path:
    """A directory made fit for an origin: nginx's workers are not root."""
    for parent in (path, *path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    return path


@contextlib.contextmanager
def exported(cluster: Cluster, directory: pathlib.Path, clients: Collection[str] = ()) -> Iterator[Ganesha]:
    """An NFS server that demands a port below 1024, as most do; with `clients` only they are let in.

    Pods reach it with their own addresses and ports. The zone allows what it exports.
    """
    with Ganesha(directory, privileged_port=True, clients=clients) as server:
        gateway = str(ipaddress.ip_address(server.host) + 1)
        clusters.run(*server.enter, "ip", "route", "add", "default", "via", gateway)
        cluster.apply(usual_zone(server.export))
        try:
            yield server
        finally:
            cluster.apply(usual_zone())


@pytest.fixture
def image(directory: pathlib.Path) -> Image:
    return Image(directory, "image.raw", 16 << 20)


@pytest.fixture
def server(cluster: Cluster, directory: pathlib.Path) -> Iterator[origin.Origin]:
    with origin.Origin(directory, cluster.origin_host) as found:
        yield found


@pytest.fixture
def slow_server(cluster: Cluster, directory: pathlib.Path) -> Iterator[origin.Origin]:
    """4 MiB/s for each download, as two may run on a host: time to look and to break things."""
    cluster.apply(usual_zone(bandwidthPerHost="8Mi"))
    with origin.Origin(directory, cluster.origin_host) as found:
        yield found
    cluster.apply(usual_zone())


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    """What a test deployed goes with it, files included."""
    yield
    remove_all(cluster)


def remove_all(cluster: Cluster) -> None:
    if cluster.local:
        # Retained, so that no pods run for the removal of files which are unlinked below.
        with Kube(cluster.kubeconfig) as kube:
            for name in cluster.names("templatedeployments", "default"):
                kube.patch(kinds.TEMPLATE_DEPLOYMENTS, name, {"spec": {"deletionPolicy": "Retain"}}, "default")
    for plural in ("templatedeployments", "templates"):
        cluster.delete_all(plural, "default")
    until("the placements to go", lambda: not cluster.list("templateplacements"))
    if cluster.local:
        # What was retained, or what a failed test left, must not look like another test's.
        for host in cluster.hosts():
            for directory in (clusters.POOL_ROOT, f"{clusters.POOL_ROOT}/{WORK_DIRECTORY}"):
                for path in cluster.file(host, directory).glob("*"):
                    if path.is_file():
                        path.unlink()
