"""The chart by Helm itself on real nodes: its test, an upgrade in mid-download, a second life under another name."""

import json
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import SETTINGS, Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, RELEASE, Cluster
from tests.world.waiting import until

from directdownload.resources import crd
from directdownload.resources.base import GROUP

OTHER_RELEASE, OTHER_NAMESPACE = "again", "another-namespace"
DEFINITION = f"zones.{GROUP}"


def helm_test(cluster: Cluster, release: str, namespace: str) -> str:
    told = cluster.helm("test", release, "-n", namespace, "--timeout", "4m")
    assert "The test has succeeded: a file was downloaded, verified and removed again." in told
    # Not even the pod stays of one that succeeded.
    assert [pod for pod in cluster.list("pods", namespace) if pod["metadata"]["name"].endswith("-test")] == []
    assert cluster.list("templates", namespace) == []
    return told


def test_helm_test_downloads_a_file(cluster: Cluster) -> None:
    told = helm_test(cluster, RELEASE, NAMESPACE)
    assert "in zone zone-1." in told
    assert "with the right digest" in told


@pytest.fixture
def older_definition(cluster: Cluster) -> Iterator[None]:
    """A definition as a version before this one had it: less of a schema."""
    found = cluster.get("crd", DEFINITION)
    assert "requireDirect" in policy_of(found)
    del policy_of(found)["requireDirect"]
    metadata = {"name": DEFINITION, "annotations": {crd.VERSION_ANNOTATION: "0.0.9"}}
    cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-"),
        input=json.dumps({**{key: found[key] for key in ("apiVersion", "kind", "spec")}, "metadata": metadata}),
    )
    yield
    assert "requireDirect" in policy_of(cluster.get("crd", DEFINITION))


def policy_of(definition: clusters.Object) -> clusters.Object:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: clusters.Object = schema["properties"]["spec"]["properties"]["sourcePolicy"]["properties"]
    return found


@pytest.mark.usefixtures("older_definition")
def test_an_upgrade_leaves_running_downloads_alone(cluster: Cluster, slow_server: origin.Origin) -> None:
    image = Image(slow_server.directory, "upgrade.raw", 96 << 20)
    host = cluster.hosts()[0]
    cluster.apply(
        clusters.template("upgrade", slow_server.url("upgrade.raw"), checksum=image.checksum),
        clusters.deployment("upgrade", hosts=[host]),
    )
    until("a download that runs", lambda: evidence.running_pod(cluster, host))
    (job,) = jobs(cluster, "upgrade")
    before = {pod["metadata"]["uid"] for pod in evidence.pods(cluster, "controller")}
    # Other arguments: everything but the download is replaced.
    told = cluster.install(*SETTINGS, "log.level=debug")
    assert f"{DEFINITION}: upgraded from version 0.0.9" in told
    # The last old one ends a moment after the Deployment calls itself rolled out.
    until(
        "new controllers alone",
        lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in evidence.pods(cluster, "controller")),
    )
    still = {each["metadata"]["uid"] for each in jobs(cluster, "upgrade")}
    assert still <= {job["metadata"]["uid"]}
    cluster.converged("upgrade", 1)
    placement = cluster.placements("upgrade")[host]
    assert placement["status"]["attempts"] == 1
    assert placement["status"]["file"]["digest"] == f"sha256:{image.sha256}"
    requests = evidence.gets(slow_server)
    assert [(request.status, request.bytes_sent) for request in requests] == [(200, image.size_bytes)]


def jobs(cluster: Cluster, template: str) -> list[clusters.Object]:
    """Of downloads of `template`; not those of probes."""
    wanted = {f"{GROUP}/template": template}.items()
    found = [(each, each["metadata"]["labels"]) for each in cluster.list("jobs", NAMESPACE)]
    return [job for job, labels in found if wanted <= labels.items() and f"{GROUP}/placement" in labels]


@pytest.fixture
def reinstalled(cluster: Cluster) -> Iterator[None]:
    """Installed under the usual name again, whatever happened."""
    yield
    cluster.helm("uninstall", OTHER_RELEASE, "-n", OTHER_NAMESPACE, "--ignore-not-found", "--wait")
    cluster.kubectl("delete", "namespace", OTHER_NAMESPACE, "--ignore-not-found", "--wait=false")
    cluster.install(*SETTINGS)


@pytest.mark.usefixtures("reinstalled")
def test_what_was_there_goes_on_under_another_name(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    """Uninstalling keeps objects and files; another release in another namespace takes them over."""
    cluster.apply(
        clusters.template("kept", server.url(image.path.name), checksum=image.checksum), clusters.deployment("kept")
    )
    hosts = cluster.hosts()
    cluster.converged("kept", len(hosts))
    before = cluster.placements("kept")
    downloads = len(evidence.gets(server))
    cluster.helm("uninstall", RELEASE, "-n", NAMESPACE, "--wait")
    # Nobody is there to notice, and whoever comes next shall.
    lost = cluster.file(hosts[0], before[hosts[0]]["spec"]["path"]) if cluster.local else None
    if lost is not None:
        lost.unlink()
    cluster.install(*SETTINGS, release=OTHER_RELEASE, namespace=OTHER_NAMESPACE)
    if lost is not None:
        until("the lost file to be fetched again", lambda: clusters.sha256(lost) == image.sha256)
    cluster.converged("kept", len(hosts))
    after = cluster.placements("kept")
    assert {host: each["metadata"]["uid"] for host, each in after.items()} == {
        host: each["metadata"]["uid"] for host, each in before.items()
    }
    # What was there was not fetched again.
    assert len(evidence.gets(server)) == downloads + (lost is not None)
    helm_test(cluster, OTHER_RELEASE, OTHER_NAMESPACE)
