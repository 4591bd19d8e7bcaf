"""Volumes: a pod gets its template on the host where it is scheduled, and a virtual machine boots from it."""

import hashlib
import json
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import SETTINGS, Image, usual_zone
from tests.world import bootdisk, evidence, origin, volumes
from tests.world import cluster as clusters
from tests.world.cluster import LOCAL_IMAGE, NAMESPACE, POOL_ROOT, Cluster, Object
from tests.world.evidence import HOSTS
from tests.world.volumes import DISK, await_phase, pod, told, volume
from tests.world.waiting import until

HOST, OTHER = HOSTS[:2]
MARKER = "direct download: this machine booted"
#: What a pod sees: the digest of its disk, and what it could write.
LOOK = volumes.script(
    f"""
import errno, hashlib, json, os
written, flags = [], dict()
for path, mode in (("{DISK}", os.O_RDWR), ("{volumes.MOUNT}/new", os.O_WRONLY | os.O_CREAT)):
    try:
        os.close(os.open(path, mode))
        written.append(path)
    except OSError as error:
        flags[path] = errno.errorcode[error.errno]
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    if fields[4].startswith("{volumes.MOUNT}"):
        flags["options of " + fields[4]] = sorted(fields[5].split(","))
data = open("{DISK}", "rb")
print(json.dumps(dict(sha256=hashlib.file_digest(data, "sha256").hexdigest(), written=written, flags=flags)))
"""
)
#: It reads the whole file again and again: a volume that fails ends it.
READ = volumes.script(
    f"""
import time
while True:
    with open("{DISK}", "rb") as file:
        while file.read(1 << 20):
            pass
    time.sleep(0.2)
"""
)


@pytest.fixture(scope="module")
def vms(local: Cluster) -> Iterator[Cluster]:
    """The cluster, with a namespace whose pods may ask."""
    local.apply(volumes.namespace(), volumes.zone())
    until(
        "kubelets to know the driver",
        lambda: (
            sum(
                any(driver["name"] == volumes.DRIVER for driver in node["spec"].get("drivers") or ())
                for node in local.list("csinodes")
            )
            == len(HOSTS)
        ),
    )
    yield local
    local.delete("namespace", "vms", missing_ok=True)
    local.apply(usual_zone())


@pytest.fixture(autouse=True)
def tidy(vms: Cluster, clean: None) -> Iterator[None]:
    """Each test leaves no pod, no mount and no demand."""
    yield
    vms.delete_all("pods", "vms", grace_seconds=1, seconds=180)
    vms.delete_all("templates", "vms")
    vms.apply(volumes.zone(keep="0s"))
    until("the mounts to go", lambda: not any(volumes.mounts(vms, host) for host in HOSTS))
    until("the demands to go", lambda: not any(volumes.demands(vms, host) for host in HOSTS))
    vms.apply(volumes.zone())


@pytest.fixture
def template(vms: Cluster, server: origin.Origin, image: Image) -> Image:
    """The Template `disk`, in the namespace of the pods."""
    vms.apply(disk(server, image))
    return image


def disk(server: origin.Origin, image: Image, name: str = "disk", namespace: str = "vms", **spec: object) -> Object:
    found = clusters.template(name, server.url(image.path.name), checksum=image.checksum, **spec)
    return {**found, "metadata": {"name": name, "namespace": namespace}}


def files(cluster: Cluster, host: str = HOST) -> set[str]:
    """What is published on a node."""
    return {path.name for path in cluster.file(host, POOL_ROOT).glob("*") if path.is_file()}


def test_a_restricted_pod_reads_its_template_and_can_write_nothing(vms: Cluster, template: Image) -> None:
    look = volumes.container("look", LOCAL_IMAGE, ["python3", "-c", LOOK])
    # `readOnly: false` is the default of a mount; runc from 1.2 on makes what it mounts so writable.
    assert "readOnly" not in look["volumeMounts"][0]
    vms.apply(pod("reader", HOST, volume("disk"), look))
    await_phase(vms, "Succeeded", "reader")
    found = volumes.parsed(volumes.said(vms, "reader"))
    assert found["sha256"] == template.sha256
    assert found["written"] == []
    assert found["flags"][DISK] in ("EACCES", "EROFS")
    options = found["flags"][f"options of {DISK}"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)


def test_a_virtual_machine_boots_from_a_volume(vms: Cluster, server: origin.Origin, directory: pathlib.Path) -> None:
    content = bootdisk.image(MARKER)
    (directory / "boot.raw").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    found = clusters.template("boot", server.url("boot.raw"), checksum=f"{{SHA-256}}{sha256}")
    vms.apply({**found, "metadata": {"name": "boot", "namespace": "vms"}})
    scratch = {"name": "scratch", "mountPath": "/scratch"}
    overlay = ["qemu-img", "create", "-f", "qcow2", "-b", DISK, "-F", "raw", "/scratch/overlay.qcow2"]
    boot = volumes.machine("-drive", "file=/scratch/overlay.qcow2,format=qcow2,if=ide")
    both = [
        volumes.container(name, volumes.VM_IMAGE, command) for name, command in (("overlay", overlay), ("vm", boot))
    ]
    for each in both:
        each["volumeMounts"].append(scratch)
    made = pod("vm", HOST, volume("boot"), both[1], initContainers=[both[0]])
    made["spec"]["volumes"].append({"name": "scratch", "emptyDir": {}})
    vms.apply(made)
    await_phase(vms, "Failed", "vm")
    assert volumes.said(vms, "vm").splitlines() == [MARKER, bootdisk.WROTE]
    (status,) = vms.get("pod", "vm", "vms")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == bootdisk.ENDED
    (name,) = files(vms)
    assert clusters.sha256(vms.file(HOST, f"{POOL_ROOT}/{name}")) == sha256


def test_a_virtual_machine_boots_from_the_file_of_a_deployment(
    vms: Cluster, server: origin.Origin, directory: pathlib.Path
) -> None:
    content = bootdisk.image(MARKER)
    (directory / "boot.raw").write_bytes(content)
    vms.apply(clusters.template("boot", server.url("boot.raw")), clusters.deployment("boot", hosts=[HOST]))
    vms.converged("boot", 1)
    path = vms.placements("boot")[HOST]["spec"]["path"]
    overlay = f"{POOL_ROOT}/vm.qcow2"
    vms.node("exec", HOST, "qemu-img", "create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", overlay)
    try:
        command = volumes.machine("-drive", f"file={overlay},format=qcow2,if=ide")
        number = HOST.removeprefix("kvm-")
        ended = subprocess.run(
            [clusters.SCRIPTS / "node.sh", "exec", number, *command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        vms.file(HOST, overlay).unlink()
    assert (ended.stdout.splitlines(), ended.returncode) == ([MARKER, bootdisk.WROTE], bootdisk.ENDED)
    assert vms.file(HOST, path).read_bytes() == content


def test_ten_pods_of_one_template_on_one_host_make_one_download(
    vms: Cluster, server: origin.Origin, template: Image
) -> None:
    names = [f"pod-{number}" for number in range(10)]
    vms.apply(*(pod(name, HOST, volume("disk")) for name in names))
    await_phase(vms, "Running", *names)
    assert len(evidence.gets(server)) == 1
    assert [d["volumes"] for d in volumes.demands(vms, HOST)] == [10]
    # One that is there: no download.
    vms.apply(pod("late", HOST, volume("disk")))
    await_phase(vms, "Running", "late")
    assert len(evidence.gets(server)) == 1
    assert sorted(host for host in HOSTS if files(vms, host)) == [HOST]


def test_the_container_runs_soon_after_the_publication_of_a_long_download(
    vms: Cluster, directory: pathlib.Path
) -> None:
    """kubelet alone would come back after 16 s, then 32 s: it waits in a call instead."""
    image = Image(directory, "long.raw", 24 << 20)
    limited = volumes.zone()
    limited["spec"]["downloads"] |= {"bandwidthPerHost": "2Mi", "minimumRate": 0}
    vms.apply(limited)
    with origin.Origin(directory, vms.origin_host) as server:
        vms.apply(disk(server, image), pod("patient", HOST, volume("disk")))
        until("the Event that says how far it is", lambda: " of 24.0 MiB" in told(vms, "patient"), 60)
        assert "disk" in told(vms, "patient")
        assert "%" not in told(vms, "patient")
        await_phase(vms, "Running", "patient")
    published = evidence.condition_time(vms.placements("disk")[HOST], "Ready")
    (status,) = vms.get("pod", "patient", "vms")["status"]["containerStatuses"]
    began = evidence.moment(status["state"]["running"]["startedAt"])
    assert (began - published).total_seconds() < 12


@pytest.mark.parametrize("force", [False, True], ids=["deleted", "force-deleted"])
def test_a_pod_that_goes_while_it_waits_leaves_nothing(vms: Cluster, directory: pathlib.Path, force: bool) -> None:
    image = Image(directory, "slow.raw", 16 << 20)
    limited = volumes.zone()
    limited["spec"]["downloads"] |= {"bandwidthPerHost": "512Ki", "minimumRate": 0}
    vms.apply(limited)
    with origin.Origin(directory, vms.origin_host) as server:
        vms.apply(disk(server, image), pod("impatient", HOST, volume("disk")))
        until("it to wait", lambda: "disk" in told(vms, "impatient"))
        volumes.delete(vms, "impatient", force=force)
        until("the volume to go", lambda: [d["volumes"] for d in volumes.demands(vms, HOST)] in ([], [0]))
        assert volumes.mounts(vms, HOST) == []
        vms.apply(volumes.zone(keep="0s"))
        until("the copy to go", lambda: not vms.placements("disk"))


def test_pods_run_on_while_the_plugin_is_killed_and_upgraded_and_a_copy_is_repaired(
    vms: Cluster, template: Image
) -> None:
    vms.apply(pod("steady", HOST, volume("disk"), volumes.container("read", LOCAL_IMAGE, ["python3", "-c", READ])))
    vms.apply(pod("above", OTHER, volume("disk")))
    await_phase(vms, "Running", "steady", "above")
    # Noticed and repaired while the rest of this goes on.
    (name,) = files(vms, OTHER)
    altered = vms.file(OTHER, f"{POOL_ROOT}/{name}")
    with altered.open("r+b") as file:
        file.write(b"altered")
    before = volumes.mounts(vms, HOST)
    name, container, restarts = volumes.plugin(vms, HOST)
    vms.node("exec", HOST, *volumes.TASKS, "kill", "-s", "SIGKILL", container)
    until("it to start again", lambda: volumes.plugin(vms, HOST)[2] > restarts)
    vms.apply(pod("second", HOST, volume("disk")))
    await_phase(vms, "Running", "second")
    volumes.delete(vms, "second")
    vms.delete("pod", name, namespace=NAMESPACE)
    until("another agent", lambda: volumes.plugin(vms, HOST)[0] != name)
    vms.await_hosts(len(HOSTS))
    vms.apply(pod("third", HOST, volume("disk")))
    await_phase(vms, "Running", "third")
    volumes.delete(vms, "third")
    assert volumes.mounts(vms, HOST) == before
    assert volumes.phase(vms, "steady") == "Running"
    until("the right file", lambda: clusters.sha256(altered) == template.sha256, 200)
    until("its copy to be Ready", lambda: OTHER in evidence.ready_hosts(vms, "disk"))
    vms.apply(pod("beside", OTHER, volume("disk")))
    await_phase(vms, "Running", "beside")
    assert volumes.parsed(volumes.run(vms, "beside", LOOK))["sha256"] == template.sha256
    assert volumes.phase(vms, "above") == "Running"


def test_pods_end_and_run_on_while_agent_and_controller_are_away(vms: Cluster, template: Image) -> None:
    vms.apply(pod("steady", HOST, volume("disk")), pod("leaving", HOST, volume("disk")))
    await_phase(vms, "Running", "steady", "leaving")
    name = f"{clusters.RELEASE}-controller"
    vms.kubectl("scale", "deployment", name, "-n", NAMESPACE, "--replicas=0")
    try:
        _, agent, _ = volumes.plugin(vms, HOST, "agent")
        vms.node("exec", HOST, *volumes.TASKS, "pause", agent)
        volumes.delete(vms, "leaving")
        vms.node("exec", HOST, *volumes.TASKS, "resume", agent)
        until("no controller", lambda: not evidence.pods(vms, "controller"))
        vms.apply(pod("early", OTHER, volume("disk")))
        until("it to wait", lambda: "controller" in told(vms, "early"))
    finally:
        vms.kubectl("scale", "deployment", name, "-n", NAMESPACE, "--replicas=1")
    await_phase(vms, "Running", "early")
    assert volumes.phase(vms, "steady") == "Running"


def test_a_kubelet_that_starts_again_finds_its_volumes(vms: Cluster, template: Image) -> None:
    vms.apply(pod("steady", HOST, volume("disk")), pod("leaving", HOST, volume("disk")))
    await_phase(vms, "Running", "steady", "leaving")
    (started,) = vms.get("pod", "steady", "vms")["status"]["containerStatuses"]
    vms.node("kubelet", HOST)
    volumes.delete(vms, "leaving")
    vms.apply(pod("new", HOST, volume("disk")))
    await_phase(vms, "Running", "new")
    (now,) = vms.get("pod", "steady", "vms")["status"]["containerStatuses"]
    assert now["containerID"] == started["containerID"]
    volumes.delete(vms, "steady", "new")
    until("no mount", lambda: not volumes.mounts(vms, HOST))


def test_after_a_power_cut_a_pod_has_the_same_template_though_another_has_its_name(
    vms: Cluster, server: origin.Origin, template: Image, directory: pathlib.Path
) -> None:
    vms.apply(pod("steady", HOST, volume("disk"), restartPolicy="Always"))
    vms.apply(pod("gone", HOST, volume("disk")))
    await_phase(vms, "Running", "steady", "gone")
    vms.node("stop", HOST)
    volumes.delete(vms, "gone", force=True)
    vms.delete("template", "disk", namespace="vms", seconds=60)
    other = Image(directory, "other.raw", 1 << 20)
    vms.apply(disk(server, other))
    vms.node("start", HOST)
    vms.await_hosts(len(HOSTS))
    until(
        "it to run again",
        lambda: (
            vms.get("pod", "steady", "vms")["status"]["containerStatuses"][0]["restartCount"] > 0
            and volumes.phase(vms, "steady") == "Running"
        ),
    )
    assert volumes.parsed(volumes.run(vms, "steady", LOOK))["sha256"] == template.sha256
    vms.apply(pod("new", HOST, volume("disk")))
    await_phase(vms, "Running", "new")
    assert volumes.parsed(volumes.run(vms, "new", LOOK))["sha256"] == other.sha256


def test_a_template_that_is_deleted_while_it_is_mounted_goes_with_its_last_volume(
    vms: Cluster, server: origin.Origin, template: Image, directory: pathlib.Path
) -> None:
    vms.apply(pod("first", HOST, volume("disk")))
    await_phase(vms, "Running", "first")
    (old,) = files(vms)
    vms.delete("template", "disk", namespace="vms", seconds=60)
    until("the reason", lambda: vms.reasons("disk") == {HOST: ("Removing", "InUse")})
    other = Image(directory, "other.raw", 1 << 20)
    vms.apply(disk(server, other), pod("second", HOST, volume("disk")))
    await_phase(vms, "Running", "second")
    assert volumes.parsed(volumes.run(vms, "first", LOOK))["sha256"] == template.sha256
    assert volumes.parsed(volumes.run(vms, "second", LOOK))["sha256"] == other.sha256
    volumes.delete(vms, "first")
    until("the old file to go", lambda: old not in files(vms))
    assert len(files(vms)) == 1


def test_a_copy_is_kept_for_a_while_and_then_goes(vms: Cluster, template: Image) -> None:
    vms.apply(pod("short", HOST, volume("disk")))
    await_phase(vms, "Running", "short")
    volumes.delete(vms, "short")
    until("it to be unused", lambda: [d["volumes"] for d in volumes.demands(vms, HOST)] == [0])
    assert len(files(vms)) == 1
    assert evidence.ready_hosts(vms, "disk") == {HOST}
    vms.apply(volumes.zone(keep="1s"))
    until("the file to go", lambda: not files(vms))
    until("its placement to go", lambda: not vms.placements("disk"))
    until("the demand to go", lambda: not volumes.demands(vms, HOST))


@pytest.mark.parametrize("how", ["ledger wiped", "Host deleted", "onDemand off"])
def test_what_is_no_order_removes_nothing(vms: Cluster, template: Image, how: str) -> None:
    vms.apply(pod("steady", HOST, volume("disk")))
    await_phase(vms, "Running", "steady")
    (name,) = files(vms)
    if how == "onDemand off":
        vms.apply(volumes.zone(enabled=False, keep="0s"))
        volumes.delete(vms, "steady")
        until("it to be unused", lambda: [d["volumes"] for d in volumes.demands(vms, HOST)] == [0])
        # Long enough for a removal, had it been ordered.
        time.sleep(3)
        assert evidence.ready_hosts(vms, "disk") == {HOST}
    else:
        if how == "ledger wiped":
            agent, _, _ = volumes.plugin(vms, HOST)
            vms.file(HOST, "/var/lib/directdownload/volumes.json").unlink()
            vms.delete("pod", agent, namespace=NAMESPACE)
            until("another agent", lambda: volumes.plugin(vms, HOST)[0] != agent)
        else:
            vms.delete("host", HOST, seconds=60)
        vms.await_hosts(len(HOSTS))
        until("the mounted one to be known", lambda: [d["volumes"] for d in volumes.demands(vms, HOST)] == [1])
        until("its placement", lambda: evidence.ready_hosts(vms, "disk") == {HOST})
    assert files(vms) == {name}


REFUSED: dict[str, tuple[Object, str]] = {
    "a spoofed namespace": (
        volume("default/private", {"csi.storage.k8s.io/pod.namespace": "default"}),
        "there is no Template default/private that pods of namespace vms may use",
    ),
    "a template of another namespace": (
        volume("default/private"),
        "there is no Template default/private that pods of namespace vms may use",
    ),
    "no such template": (
        volume("default/none"),
        "there is no Template default/none that pods of namespace vms may use",
    ),
    "a path": (volume("../../etc/passwd"), "template"),
    "an unknown attribute": (volume("disk", {"size": "1"}), "size"),
    "a volume to write to": (volume("disk", read_only=False), "readOnly: true"),
    "nothing about writing": (volume("disk", read_only=None), "readOnly: true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_pod_may_not_have_is_refused_with_the_reason(
    vms: Cluster, template: Image, image: Image, server: origin.Origin, case: str
) -> None:
    source, words = REFUSED[case]
    vms.apply(disk(server, image, "private", "default"), pod("refused", HOST, source))
    until("the Event that says why", lambda: words in told(vms, "refused"))
    assert volumes.phase(vms, "refused") == "Pending"
    assert volumes.mounts(vms, HOST) == []
    assert not vms.placements("private")
    volumes.delete(vms, "refused")


def test_a_namespace_that_the_zone_does_not_name_is_refused(
    vms: Cluster, template: Image, server: origin.Origin
) -> None:
    vms.apply(volumes.namespace("strangers", vms=False))
    try:
        vms.apply(disk(server, template, "theirs", "strangers"))
        vms.apply(pod("refused", HOST, volume("theirs"), namespace="strangers"))
        until("the reason", lambda: "spec.onDemand.namespaces" in told(vms, "refused", "strangers"))
        volumes.delete(vms, "refused", namespace="strangers")
    finally:
        vms.delete("namespace", "strangers")


def test_a_host_over_its_cap_refuses_the_next_template(vms: Cluster, template: Image, server: origin.Origin) -> None:
    vms.apply(volumes.zone(maxPerHost=1), disk(server, template, "other"))
    vms.apply(pod("first", HOST, volume("disk")))
    await_phase(vms, "Running", "first")
    vms.apply(pod("second", HOST, volume("other")), pod("elsewhere", OTHER, volume("other")))
    until("the reason", lambda: "maxPerHost" in told(vms, "second"))
    await_phase(vms, "Running", "elsewhere")
    volumes.delete(vms, "first")
    await_phase(vms, "Running", "second", seconds=200)


def test_uninstalling_is_refused_while_there_are_volumes(vms: Cluster, template: Image) -> None:
    vms.apply(pod("steady", HOST, volume("disk")))
    await_phase(vms, "Running", "steady")
    words = f"1 volume of pods on {HOST}: delete these pods first"
    with pytest.raises(clusters.CommandError, match=words):
        vms.helm("uninstall", clusters.RELEASE, "-n", NAMESPACE)
    # What Helm calls "uninstalling" cannot be upgraded. Without a number it would go back to the values before these.
    last = json.loads(vms.helm("history", clusters.RELEASE, "-n", NAMESPACE, "-o", "json"))[-1]["revision"]
    vms.helm("rollback", clusters.RELEASE, str(last), "-n", NAMESPACE)
    with pytest.raises(clusters.CommandError, match=words):
        vms.install(*SETTINGS, "csi.enabled=false")
    assert volumes.plugin(vms, HOST)
    assert volumes.phase(vms, "steady") == "Running"
