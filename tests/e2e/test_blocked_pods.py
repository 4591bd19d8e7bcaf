"""Downloads whose pods cannot come up on a real cluster: the cause is told, no slot is lost, and each recovers."""

import contextlib
import json
import posixpath
from collections.abc import Callable, Iterator

import yaml
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, RELEASE, Cluster, Object
from tests.world.waiting import until


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
def changed_jobs(cluster: Cluster, change: Callable[[Object], object]) -> Iterator[None]:
    """The pods of jobs alone are as `change` makes their spec."""
    held = cluster.get("configmap", f"{RELEASE}-job-template", NAMESPACE)
    before = held["data"]["job.yaml"]
    template = yaml.safe_load(before)
    change(template["spec"]["template"]["spec"])
    kept = {key: held["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}

    def use(text: str) -> None:
        # As Helm writes it: of a field that another manager has written, the next upgrade would meet a conflict.
        as_helm = ("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-")
        cluster.kubectl(*as_helm, input=json.dumps(held | {"metadata": kept, "data": {"job.yaml": text}}))
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

    def run_none(pod: Object) -> None:
        # Nothing listens there.
        pod["containers"][0] |= {"image": "localhost:1/none:1", "imagePullPolicy": "IfNotPresent"}

    with changed_jobs(cluster, run_none):
        deploy(cluster, "image", server.url(image.path.name), image, hosts=[host])
        message = blocked(cluster, "image", host)
        assert message.startswith("its image cannot be pulled: ")
        assert "ErrImagePull" in message or "ImagePullBackOff" in message
        assert "localhost:1/none:1" in message
        until("the deployment to list it", listed(cluster, "image", host))
    cluster.converged("image", 1)
    assert counted_once(cluster, "image")


def test_a_quota_without_pods_keeps_no_slot(cluster: Cluster, server: origin.Origin, image: Image) -> None:
    """The words of the real Job controller; tests/api has those of LimitRange, PriorityClass and PodSecurity."""
    hosts = cluster.hosts()
    with object_of(cluster, "ResourceQuota", "none", {"hard": {"pods": "0"}}):
        quota = ("resourcequota", "none", NAMESPACE)
        until("the quota to hold", lambda: cluster.get(*quota).get("status", {}).get("hard") == {"pods": "0"})
        deploy(cluster, "slots", server.url(image.path.name), image, rollout={"maxParallel": 1})
        # One slot, and each has had it: nobody keeps it.
        for host in hosts:
            message = blocked(cluster, "slots", host)
            assert message.startswith("its pod cannot be created: FailedCreate: ")
            assert "exceeded quota: none, requested: pods=1" in message
        until("the deployment to list it", listed(cluster, "slots", hosts[0]))
    cluster.converged("slots", len(hosts))
    assert counted_once(cluster, "slots")


def test_a_host_that_lacks_the_root_of_a_pool(local: Cluster, server: origin.Origin, image: Image) -> None:
    """Its job says so, other hosts are served, and it gets its copy once the root is back. (An agent that starts there
    says so after its grace of two minutes: tests/unit/controller/test_causes.py.)"""
    *others, host = local.hosts()
    above = posixpath.dirname(clusters.POOL_ROOT)
    # It hides the root from the kubelet; the agent that runs keeps its mount.
    local.node("exec", host, "mount", "-t", "tmpfs", "none", above)
    try:
        deploy(local, "rootless", server.url(image.path.name), image)
        message = blocked(local, "rootless", host)
        assert message.startswith("a volume of its pod cannot be mounted: FailedMount: ")
        assert f"{clusters.POOL_ROOT} is not a directory" in message
        until("copies on the other hosts", lambda: evidence.ready_hosts(local, "rootless") == {*others})
    finally:
        local.node("exec", host, "umount", above)
    local.await_hosts(len(others) + 1)
    local.converged("rootless", len(others) + 1)
