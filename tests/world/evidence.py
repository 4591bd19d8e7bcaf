"""What e2e tests look at besides the objects: pods, Events, metrics, Jobs that were made, files on the nodes' disks."""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Iterable, Set

from tests.cluster import harness
from tests.world import origin
from tests.world.cluster import NAMESPACE, POOL_ROOT, Cluster, Object
from tests.world.waiting import until

from directdownload.resources.naming import WORK_DIRECTORY

#: The nodes of the local cluster.
HOSTS = ["kvm-1", "kvm-2", "kvm-3"]
#: What a probe asks for; no download that has a source for itself asks for so little.
_HEAD_RANGE = "bytes=0-262143"
_METRICS_PORT = {"controller": 8080, "agent": 8081}


def pods(cluster: Cluster, component: str) -> list[Object]:
    """The product's pods of a component: controller, agent or job."""
    label = "app.kubernetes.io/component"
    return [pod for pod in cluster.list("pods", NAMESPACE) if pod["metadata"]["labels"].get(label) == component]


def running_pod(cluster: Cluster, host: str) -> str | None:
    """The download pod that runs on `host`; not that of a probe, nor of an earlier template's removal."""
    for pod in pods(cluster, "job"):
        name = str(pod["metadata"]["name"])
        if "-fetch-" in name and pod["spec"].get("nodeName") == host and pod["status"]["phase"] == "Running":
            return name
    return None


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def ready_hosts(cluster: Cluster, template: str) -> set[str]:
    return {host for host, (phase, _) in cluster.reasons(template).items() if phase == "Ready"}


def downloaded(cluster: Cluster, template: str, host: str) -> int:
    """Bytes of its copy that the agent of `host` has told of."""
    placement = cluster.placements(template).get(host, {})
    return int(placement.get("status", {}).get("progress", {}).get("bytesDownloaded", 0))


def condition(found: Object, kind: str) -> tuple[str, str]:
    """Status and reason of a condition; empty if there is none."""
    for entry in found.get("status", {}).get("conditions", ()):
        if entry["type"] == kind:
            return entry["status"], entry["reason"]
    return "", ""


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def condition_time(found: Object, kind: str) -> datetime.datetime:
    """When a condition changed last."""
    return moment(next(c["lastTransitionTime"] for c in found["status"]["conditions"] if c["type"] == kind))


def storage(cluster: Cluster, host: str, pool: str) -> Object:
    """What a host reports of a pool; empty if nothing."""
    entries = cluster.get("host", host).get("status", {}).get("storage", ())
    return next((entry for entry in entries if entry["pool"] == pool), {})


def events(cluster: Cluster, name: str) -> list[str]:
    """The reasons of the Events about the object `name`."""
    return [event["reason"] for event in cluster.list("events") if event["involvedObject"].get("name") == name]


def metric(cluster: Cluster, component: str, name: str) -> float:
    """The sum over all pods of a component and all labels."""
    total = 0.0
    for pod in pods(cluster, component):
        address = f"{pod['metadata']['name']}:{_METRICS_PORT[component]}"
        text = cluster.raw(f"/api/v1/namespaces/{NAMESPACE}/pods/{address}/proxy/metrics")
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name:
                total += float(value)
    return total


def verbs(placement: str) -> list[str]:
    """The verbs of the Jobs that were ever made for a placement of the local cluster, in order."""
    made = []
    for event in harness.read_audit_log(harness.cluster_audit_log()):
        reference = event["objectRef"]
        name = reference.get("name", "")
        created = event["verb"] in ("create", "patch") and event["responseStatus"]["code"] == 201
        if reference["resource"] == "jobs" and created and name.startswith(f"{placement}-"):
            made.append(name.removeprefix(f"{placement}-").partition("-")[0])
    return made


def gets(server: origin.Origin) -> list[origin.Request]:
    """The requests of downloads that have ended so far: all but those of probes."""
    return [request for request in server.requests() if request.method == "GET" and request.range != _HEAD_RANGE]


def wait_for_gets(server: origin.Origin, count: int) -> list[origin.Request]:
    """The same, once there are at least `count`: the log is written after the client has its answer."""
    until(f"{count} requests of downloads", lambda: len(gets(server)) >= count)
    return gets(server)


def names(directory: pathlib.Path) -> set[str]:
    """What lies in a directory; nothing if there is none."""
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def work_files(cluster: Cluster, node: str, pool: str = POOL_ROOT) -> list[str]:
    """Parts and journals that lie in a pool of a node."""
    found = names(cluster.file(node, f"{pool}/{WORK_DIRECTORY}"))
    return sorted(name for name in found if not name.endswith(".record"))


def gone(paths: Iterable[pathlib.Path]) -> bool:
    return not any(path.exists() for path in paths)


#: What a pod says of itself. The image has no program but Python.
_LOOK = """
import json, os
written = []
for path in ("/new", "/usr/bin/new", "/etc/passwd", "/opt/directdownload/bin/directdownload"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        written.append(path)
    except OSError:
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
roots = [line.split()[3].split(",") for line in open("/proc/mounts") if line.split()[1] == "/"]
print(json.dumps({
    "user": os.getuid(), "capabilities": int(status["CapBnd"], 16), "written": written,
    "read_only_root": "ro" in roots[-1],
    "no_new_privileges": status["NoNewPrivs"].strip() == "1", "seccomp": status["Seccomp"].strip() == "2",
}))
"""
#: Their bits (capabilities(7)).
_CAPABILITIES = {0: "CHOWN", 1: "DAC_OVERRIDE", 2: "DAC_READ_SEARCH", 3: "FOWNER", 6: "SETGID", 7: "SETUID"}
#: Of all processes of a pod: whom they run as and what they can, as the kernel says.
_PROCESSES = """
import json, os
found = []
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        status = dict(line.split(":", 1) for line in open(f"/proc/{name}/status").read().splitlines())
    except OSError:
        continue
    found.append([*map(int, status["Uid"].split()), int(status["CapPrm"], 16), int(status["NoNewPrivs"])])
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class Confinement:
    """How a pod runs; as it should, but for its user and what the chart gives it."""

    user: int
    #: of the bounding set: what it could have, whatever it does
    capabilities: Set[str] = frozenset()
    written: tuple[str, ...] = ()
    read_only_root: bool = True
    no_new_privileges: bool = True
    seccomp: bool = True


def processes(cluster: Cluster, pod: str) -> list[list[int]]:
    """Of each process: its four user ids, the capabilities that it may use, and whether it can get no new ones."""
    found: list[list[int]] = json.loads(
        cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", _PROCESSES)
    )
    return found


def confinement(cluster: Cluster, pod: str) -> Confinement:
    """As the pod itself sees it, while it tries to write into what it runs."""
    found = json.loads(cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", _LOOK))
    bits = {bit for bit in range(64) if found["capabilities"] >> bit & 1}
    names = frozenset(_CAPABILITIES.get(bit, f"bit {bit}") for bit in bits)
    return Confinement(**{**found, "written": tuple(found["written"]), "capabilities": names})
