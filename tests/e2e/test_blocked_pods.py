"""Downloads whose pods cannot come up on a real cluster: the cause is told, no slot is lost, and each recovers."""

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest
import yaml
from tests.e2e.conftest import Image, remove_all
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, RELEASE, Cluster, Object
from tests.world.waiting import until

SETTINGS = ("headerSecrets.namespaces={default}", "agent.maxUnavailable=100%")
#: A node's own, and no mount of the agent's lies above it.
SECOND_ROOT = "/run/second-root"


def deploy(cluster: Cluster, name: str, url: str, image: Image, **spec: object) -> None:
    cluster.apply(clusters.template(name, url, checksum=image.checksum), clusters.deployment(name, **spec))


def blocked(cluster: Cluster, template: str, host: str) -> str:
    """The words of a placement that is blocked; it holds no Job then, and no attempt counts."""

    def told() -> str:
        placement = cluster.placements(template).get(host, {})
        ready = placement.get("status", {}).get("conditions", [{}])[0]
        return str(ready["message"]) if ready.get("reason") == "PodBlocked" else ""

    message = until(f"{template} on {host} to say what keeps its pod", told)
    assert message.isprintable()
    return message


def listed(cluster: Cluster, name: str, host: str) -> Callable[[], bool]:
    """Whether the deployment's failures say so."""

    def found() -> bool:
        failures = cluster.get("templatedeployment", name, "default").get("status", {}).get("failures", ())
        return (host, "PodBlocked") in [(f["host"], f["reason"]) for f in failures]

    return found


def counted_once(cluster: Cluster, template: str) -> bool:
    return {p["status"]["attempts"] for p in cluster.placements(template).values()} == {1}


@contextlib.contextmanager
def object_of(cluster: Cluster, kind: str, name: str, spec: Object) -> Iterator[None]:
    """An object of the core API in the operator's namespace, for a while."""
    metadata = {"name": name, "namespace": NAMESPACE}
    cluster.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
    try:
        yield
    finally:
        cluster.kubectl("delete", kind.lower(), name, "-n", NAMESPACE, "--ignore-not-found")


@contextlib.contextmanager
def job_image(cluster: Cluster, image: str) -> Iterator[None]:
    """Jobs alone run another image: the chart has one for all."""
    name = f"{RELEASE}-job-template"
    before = cluster.get("configmap", name, NAMESPACE)["data"]["job.yaml"]
    template = yaml.safe_load(before)
    (container,) = template["spec"]["template"]["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": "IfNotPresent"}

    def use(text: str) -> None:
        cluster.kubectl("patch", "configmap", name, "-n", NAMESPACE, "-p", json.dumps({"data": {"job.yaml": text}}))
        deployment = f"deployment/{RELEASE}-controller"
        cluster.kubectl("rollout", "restart", deployment, "-n", NAMESPACE)
        cluster.kubectl("rollout", "status", deployment, "-n", NAMESPACE, "--timeout=180s")

    use(yaml.safe_dump(template))
    try:
        yield
    finally:
        use(before)


def test_an_image_that_cannot_be_pulled(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    host = cluster.hosts()[0]
    # Nothing listens there.
    with job_image(cluster, "localhost:1/none:1"):
        deploy(cluster, "image", server.url(image.path.name), image, hosts=[host])
        message = blocked(cluster, "image", host)
        assert message.startswith("its image cannot be pulled: ")
        assert "ErrImagePull" in message or "ImagePullBackOff" in message
        assert "localhost:1/none:1" in message
        until("the deployment to list it", listed(cluster, "image", host))
    cluster.converged("image", 1)
    assert counted_once(cluster, "image")


def test_a_quota_without_pods(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    host = cluster.hosts()[0]
    with object_of(cluster, "ResourceQuota", "none", {"hard": {"pods": "0"}}):
        quota = ("resourcequota", "none", NAMESPACE)
        until("the quota to hold", lambda: cluster.get(*quota).get("status", {}).get("hard") == {"pods": "0"})
        deploy(cluster, "quota", server.url(image.path.name), image, hosts=[host])
        message = blocked(cluster, "quota", host)
        assert message.startswith("its pod cannot be created: FailedCreate: ")
        assert "exceeded quota: none, requested: pods=1" in message
        until("the deployment to list it", listed(cluster, "quota", host))
    cluster.converged("quota", 1)
    assert counted_once(cluster, "quota")


def test_a_limit_range_that_no_download_meets(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    host = cluster.hosts()[0]
    limits = [{"type": "Container", "max": {"memory": "1Mi"}}]
    with object_of(cluster, "LimitRange", "small", {"limits": limits}):
        deploy(cluster, "limits", server.url(image.path.name), image, hosts=[host])
        message = blocked(cluster, "limits", host)
        assert message.startswith("its pod cannot be created: FailedCreate: ")
        assert "maximum memory usage per Container is 1Mi" in message
    cluster.converged("limits", 1)
    assert counted_once(cluster, "limits")


@pytest.fixture
def absent_priority_class(cluster: Cluster) -> Iterator[None]:
    cluster.install(*SETTINGS, "job.priorityClassName=absent")
    yield
    cluster.install(*SETTINGS)


@pytest.mark.usefixtures("absent_priority_class")
def test_a_priority_class_that_does_not_exist(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    host = cluster.hosts()[0]
    deploy(cluster, "priority", server.url(image.path.name), image, hosts=[host])
    message = blocked(cluster, "priority", host)
    assert message.startswith("its pod cannot be created: FailedCreate: ")
    assert "no PriorityClass with name absent was found" in message
    made = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "absent"}, "value": 1}
    cluster.apply(made)
    try:
        cluster.converged("priority", 1)
        assert counted_once(cluster, "priority")
        # Its removal needs the class as well.
        remove_all(cluster)
    finally:
        cluster.kubectl("delete", "priorityclass", "absent", "--ignore-not-found")


@pytest.fixture
def two_roots(local: Cluster) -> Iterator[None]:
    """A second pool root on every node, with a pool."""
    for host in evidence.HOSTS:
        local.node("exec", host, "mkdir", "-p", SECOND_ROOT)
    local.install(*SETTINGS, f"agent.poolRoots={{{clusters.POOL_ROOT},{SECOND_ROOT}}}")
    local.apply(clusters.pool("second", path=SECOND_ROOT))
    yield
    remove_all(local)
    local.kubectl("delete", "storagepool", "second", "--ignore-not-found")
    local.install(*SETTINGS)
    for host in evidence.HOSTS:
        local.node("exec", host, "rm", "-rf", SECOND_ROOT)


@pytest.mark.usefixtures("two_roots")
def test_a_root_that_a_host_lacks_keeps_only_what_belongs_there(
    local: Cluster, server: origin.Origin, image: Image
) -> None:
    """The agent still has the directory that was moved away, so only the kubelet notices."""
    lacking = evidence.HOSTS[0]
    until("the pool everywhere", lambda: all("pool" in evidence.storage(local, h, "second") for h in evidence.HOSTS))
    local.node("exec", lacking, "mv", SECOND_ROOT, f"{SECOND_ROOT}.away")
    try:
        for name in ("second", "local"):
            deploy(local, f"in-{name}", server.url(image.path.name), image, pools=[name])
        local.converged("in-local", len(evidence.HOSTS))
        message = blocked(local, "in-second", lacking)
        assert message.startswith("a volume of its pod cannot be mounted: FailedMount: ")
        assert f"{SECOND_ROOT} is not a directory" in message
        until("the others", lambda: evidence.ready_hosts(local, "in-second") == set(evidence.HOSTS) - {lacking})
    finally:
        local.node("exec", lacking, "mv", f"{SECOND_ROOT}.away", SECOND_ROOT)
    local.converged("in-second", len(evidence.HOSTS))
    assert counted_once(local, "in-second")


def test_no_blocked_pod_keeps_the_only_slot(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    hosts = cluster.hosts()
    with object_of(cluster, "ResourceQuota", "none", {"hard": {"pods": "0"}}):
        quota = ("resourcequota", "none", NAMESPACE)
        until("the quota to hold", lambda: cluster.get(*quota).get("status", {}).get("hard") == {"pods": "0"})
        deploy(cluster, "slots", server.url(image.path.name), image, rollout={"maxParallel": 1})
        # One slot, and each has had it: nobody keeps it.
        for host in hosts:
            blocked(cluster, "slots", host)
    cluster.converged("slots", len(hosts))
    assert counted_once(cluster, "slots")
