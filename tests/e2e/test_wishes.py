"""People change their minds, in mid-download too: what is wanted comes, what is not goes, nothing else moves."""

import json
import platform
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import Image
from tests.world import cluster as clusters
from tests.world import evidence, origin
from tests.world.cluster import NAMESPACE, POOL_ROOT, Cluster
from tests.world.evidence import HOSTS
from tests.world.waiting import until


def files(cluster: Cluster) -> dict[str, set[str]]:
    """What lies in the pool of each node, work directory included."""
    pool = {host: cluster.file(host, POOL_ROOT) for host in HOSTS}
    return {
        host: evidence.names(path) - {".directdownload"} | set(evidence.work_files(cluster, host))
        for host, path in pool.items()
    }


def test_a_deployment_narrowed_in_mid_download_ends_what_nobody_wants_and_may_be_widened(
    local: Cluster, slow_server: origin.Origin
) -> None:
    image = Image(slow_server.directory, "narrowed.raw", 40 << 20)
    local.apply(
        clusters.template("narrowed", slow_server.url("narrowed.raw"), checksum=image.checksum),
        clusters.deployment("narrowed"),
    )
    until("parts on every host", lambda: all(evidence.work_files(local, host) for host in HOSTS))
    local.apply(clusters.deployment("narrowed", hosts=["kvm-1"]))
    until("the others to go", lambda: set(local.placements("narrowed")) == {"kvm-1"})
    until(
        "their pods to end", lambda: {pod["spec"].get("nodeName") for pod in evidence.pods(local, "job")} == {"kvm-1"}
    )
    assert (files(local)["kvm-2"], files(local)["kvm-3"]) == (set(), set())
    local.converged("narrowed", 1)
    assert local.placements("narrowed")["kvm-1"]["status"]["attempts"] == 1
    local.apply(clusters.deployment("narrowed", hosts=[]))
    local.converged("narrowed", 3)
    whole = [r for r in evidence.wait_for_gets(slow_server, 5) if (r.status, r.bytes_sent) == (200, image.size_bytes)]
    assert len(whole) == 3
    assert evidence.verbs(local.placements("narrowed")["kvm-1"]["metadata"]["name"]) == ["fetch"]


def test_a_rollout_paused_in_the_middle_finishes_what_runs_and_starts_nothing(
    local: Cluster, slow_server: origin.Origin
) -> None:
    image = Image(slow_server.directory, "paused.raw", 12 << 20)
    local.apply(
        clusters.template("paused", slow_server.url("paused.raw"), checksum=image.checksum),
        clusters.deployment("paused", rollout={"maxParallel": 1}),
    )
    until("the first", lambda: any(evidence.running_pod(local, host) for host in HOSTS))
    local.apply(clusters.deployment("paused", rollout={"maxParallel": 1, "paused": True}))
    until("it to finish", lambda: len(evidence.ready_hosts(local, "paused")) == 1)
    waiting = {("Pending", "Paused")}
    until("the others to wait", lambda: set(local.reasons("paused").values()) - {("Ready", "Downloaded")} == waiting)
    (done,) = evidence.ready_hosts(local, "paused")
    assert {host: len(names) for host, names in files(local).items()} == {host: int(host == done) for host in HOSTS}
    assert evidence.condition(local.get("templatedeployment", "paused", "default"), "Reconciling")[1] == "Paused"
    local.apply(clusters.deployment("paused", rollout={"maxParallel": "34%"}))
    local.converged("paused", 3)


def test_retained_files_stay_and_are_found_again_without_a_download(
    local: Cluster, server: origin.Origin, image: Image
) -> None:
    local.apply(
        clusters.template("kept", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("kept", deletionPolicy="Retain"),
    )
    local.converged("kept", 3)
    uid = local.get("template", "kept", "default")["metadata"]["uid"]
    local.delete("templatedeployment", "kept", namespace="default")
    until("the placements to go", lambda: not local.placements("kept"))
    assert files(local) == {host: {uid} for host in HOSTS}
    local.apply(clusters.deployment("kept"))
    local.converged("kept", 3)
    assert set(local.reasons("kept").values()) == {("Ready", "AlreadyPresent")}
    assert len(evidence.gets(server)) == 3


@pytest.fixture
def tenant(local: Cluster) -> Iterator[str]:
    local.kubectl("create", "namespace", "tenant")
    yield "tenant"
    local.delete("namespace", "tenant")


def test_two_namespaces_share_a_copy_until_the_last_one_gives_it_up(
    local: Cluster, server: origin.Origin, image: Image, tenant: str
) -> None:
    theirs = clusters.deployment("theirs", templateRef={"name": "common", "namespace": "default"}, hosts=["kvm-1"])
    theirs["metadata"]["namespace"] = tenant
    local.apply(
        clusters.template("common", server.url(image.path.name), checksum=image.checksum, allowedNamespaces={}),
        clusters.deployment("common"),
        theirs,
    )
    local.converged("common", 3)
    until("theirs", lambda: evidence.condition(local.get("templatedeployment", "theirs", tenant), "Ready")[0] == "True")
    paths = {host: local.file(host, p["spec"]["path"]) for host, p in local.placements("common").items()}
    local.delete("templatedeployment", "common", namespace="default")
    until("what only one wanted to go", lambda: set(local.placements("common")) == {"kvm-1"})
    assert [host for host in HOSTS if paths[host].exists()] == ["kvm-1"]
    local.delete("templatedeployment", "theirs", namespace=tenant)
    until("the last file to go", lambda: evidence.gone(paths.values()))
    assert len(evidence.gets(server)) == 3


def test_a_template_made_again_under_its_name_brings_its_own_bytes(local: Cluster, server: origin.Origin) -> None:
    old, new = (Image(server.directory, f"{name}.raw", 1 << 20) for name in ("old", "new"))
    local.apply(clusters.template("again", server.url("old.raw"), checksum=old.checksum), clusters.deployment("again"))
    local.converged("again", 3)
    before = {p["metadata"]["uid"] for p in local.placements("again").values()}
    local.delete("template", "again", namespace="default")
    local.apply(clusters.template("again", server.url("new.raw"), checksum=new.checksum))
    uid = local.get("template", "again", "default")["metadata"]["uid"]

    def replaced() -> bool:
        placements = local.placements("again").values()
        return all(p["metadata"]["uid"] not in before for p in placements) and files(local) == {h: {uid} for h in HOSTS}

    until("the new files, and only those", replaced)
    local.converged("again", 3)
    for host in HOSTS:
        assert clusters.sha256(local.file(host, f"{POOL_ROOT}/{uid}")) == new.sha256


def test_a_stalled_copy_is_tried_again_on_request(local: Cluster, server: origin.Origin, image: Image) -> None:
    content = image.path.read_bytes()
    image.path.unlink()
    local.apply(
        clusters.template("asked", server.url(image.path.name), checksum=image.checksum),
        clusters.deployment("asked", hosts=["kvm-1"]),
    )
    until("the refusal", lambda: local.reasons("asked") == {"kvm-1": ("Failed", "SourceRefused")})
    image.path.write_bytes(content)
    request = "directdownload.dev/requested-at=now"
    local.kubectl("annotate", "templatedeployment", "asked", "-n", "default", request)
    local.converged("asked", 1, 60)
    assert not [job for job in local.list("jobs", NAMESPACE) if job.get("status", {}).get("active")]


def test_a_template_of_another_architecture_gets_no_job_until_its_field_is_right(
    local: Cluster, server: origin.Origin, image: Image
) -> None:
    own = platform.machine()
    other = "aarch64" if own == "x86_64" else "x86_64"
    assert {host["status"]["architecture"] for host in local.list("hosts")} == {own}
    local.apply(
        clusters.template("foreign", server.url(image.path.name), checksum=image.checksum, architecture=other),
        clusters.deployment("foreign", hosts=["kvm-1"]),
    )

    def found() -> clusters.Object:
        return local.get("templatedeployment", "foreign", "default")

    until("the refusal", lambda: evidence.condition(found(), "Stalled") == ("True", "ArchitectureMismatch"))
    assert [(each["host"], each["reason"]) for each in found()["status"]["failures"]] == [
        ("kvm-1", "ArchitectureMismatch")
    ]
    assert local.placements("foreign") == {}
    patch = json.dumps({"spec": {"architecture": own}})
    local.kubectl("patch", "template", "foreign", "-n", "default", "--type", "merge", "-p", patch)
    local.converged("foreign", 1)
    assert evidence.verbs(local.placements("foreign")["kvm-1"]["metadata"]["name"]) == ["fetch"]
