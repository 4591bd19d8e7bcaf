"""Downloads on the hosts' network: the servers of a storage network let in hosts and nobody else."""

import pathlib
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import SAME_VERSION, Image, exported
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import Cluster


@pytest.fixture
def on_host_network(local: Cluster) -> Iterator[None]:
    local.install(*SAME_VERSION, "job.hostNetwork=true")
    yield
    local.install(*SAME_VERSION)


def addresses(cluster: Cluster) -> set[str]:
    """Of the nodes."""
    found = [address for node in cluster.list("nodes") for address in node["status"]["addresses"]]
    return {str(address["address"]) for address in found if address["type"] == "InternalIP"}


@pytest.mark.usefixtures("on_host_network")
def test_servers_that_let_only_hosts_in_serve_downloads(local: Cluster, directory: pathlib.Path, image: Image) -> None:
    hosts = addresses(local)
    only_hosts = "".join(f"allow {address}; " for address in sorted(hosts))
    with (
        origin.Origin(directory, local.origin_host, extra=f"{only_hosts} deny all;") as server,
        # It demands a port below 1024, for which a pod on the host's network needs a capability.
        exported(local, directory, clients=hosts) as nfs,
    ):
        urls = {"by-http": server.url(image.path.name), "by-nfs": nfs.url(image.path.name)}
        for name, url in urls.items():
            local.apply(clusters.template(name, url, checksum=image.checksum), clusters.deployment(name))
        for name in urls:
            local.converged(name, len(hosts))
            for host, placement in local.placements(name).items():
                assert clusters.sha256(local.file(host, placement["spec"]["path"])) == image.sha256
                assert placement["status"]["attempts"] == 1
        assert {request.client for request in evidence.gets(server)} == hosts
