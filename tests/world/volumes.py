"""Pods that have a template as a volume, on the local cluster, and what is left of them on a node."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.world import cluster as clusters
from tests.world import evidence
from tests.world.cluster import LOCAL_IMAGE, Cluster, Object
from tests.world.waiting import until

DRIVER = "directdownload.dev"
VM_IMAGE = "localhost/vm:1"
MOUNT = "/image"
DISK = f"{MOUNT}/disk.img"
#: Debian's number of qemu
UID = 107
#: As `enforce: restricted` asks for it.
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": UID,
    "runAsGroup": UID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: containerd's tasks, on a node.
TASKS = ("ctr", "-a", "/run/containerd.sock", "-n", "k8s.io", "tasks")
WAIT = "import signal; signal.sigwait([signal.SIGTERM])"


def volume(template: str, attributes: Mapping[str, str] = {}, *, read_only: bool | None = True) -> Object:
    source: Object = {"driver": DRIVER, "volumeAttributes": {"template": template, **attributes}}
    if read_only is not None:
        source["readOnly"] = read_only
    return {"name": "image", "csi": source}


def container(name: str, image: str, command: Iterable[str], **fields: Any) -> Object:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": list(command),
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "image", "mountPath": MOUNT}],
        **fields,
    }


def pod(name: str, host: str, source: Object, *containers: Object, namespace: str = "vms", **spec: Any) -> Object:
    """On `host`; without `containers` one that does nothing until it is told to end."""
    idle = container("idle", LOCAL_IMAGE, ["python3", "-c", WAIT])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": host,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 5,
            "restartPolicy": "Never",
            "containers": list(containers) or [idle],
            "volumes": [source],
            **spec,
        },
    }


def namespace(name: str = "vms", *, vms: bool = True) -> Object:
    """Pods in it must be restricted; `vms`: as the zone of these tests wants it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **({"vms": "yes"} if vms else {})}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def machine(*arguments: str) -> list[str]:
    """qemu with an emulated processor, its serial port on standard output, and a way for the guest to end it."""
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-m", "32"),
        *("-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", *arguments),
    ]


def phase(cluster: Cluster, name: str, namespace: str = "vms") -> str:
    """Empty if there is no such pod."""
    found = {p["metadata"]["name"]: p for p in cluster.list("pods", namespace)}
    return str(found[name]["status"].get("phase", "")) if name in found else ""


def await_phase(cluster: Cluster, wanted: str, *names: str, namespace: str = "vms", seconds: float = 120) -> None:
    def reached() -> bool:
        return all(phase(cluster, name, namespace) == wanted for name in names)

    until(f"{', '.join(names)} to be {wanted}", reached, seconds)


def said(cluster: Cluster, name: str, namespace: str = "vms", *options: str) -> str:
    return cluster.kubectl("logs", name, "-n", namespace, *options)


def told(cluster: Cluster, name: str, namespace: str = "vms") -> str:
    """The messages of the Events about a pod."""
    about = [e for e in cluster.list("events", namespace) if e["involvedObject"].get("name") == name]
    return "\n".join(str(event.get("message", "")) for event in about)


def run(cluster: Cluster, name: str, script: str, namespace: str = "vms") -> str:
    """What Python says in the pod."""
    return cluster.kubectl("exec", name, "-n", namespace, "--", "python3", "-c", script)


def delete(cluster: Cluster, *names: str, namespace: str = "vms", force: bool = False) -> None:
    """Returns when the pods are gone from the API."""
    grace = 0 if force else None
    cluster.delete("pod", *names, namespace=namespace, missing_ok=True, grace_seconds=grace, seconds=180)


def mounts(cluster: Cluster, host: str) -> list[str]:
    """The lines of the node's mount table that are of volumes."""
    table = cluster.node("exec", host, "cat", "/proc/self/mountinfo")
    return [line for line in table.splitlines() if f" {DRIVER}" in line or "/disk.img " in line]


def demands(cluster: Cluster, host: str) -> list[Object]:
    return list(cluster.get("host", host).get("status", {}).get("demands", ()))


def plugin(cluster: Cluster, host: str, name: str = "csi") -> tuple[str, str, int]:
    """The agent's pod on `host`, the id of its container `name`, and how often that has started again."""
    pods = [pod for pod in evidence.pods(cluster, "agent") if pod["spec"].get("nodeName") == host]
    (found,) = (pod for pod in pods if "deletionTimestamp" not in pod["metadata"])
    (status,) = (each for each in found["status"]["containerStatuses"] if each["name"] == name)
    return found["metadata"]["name"], status.get("containerID", "").rpartition("/")[2], status["restartCount"]


def zone(**on_demand: Any) -> Object:
    """The usual zone, with volumes for the namespaces of these tests."""
    wishes = {"enabled": True, "namespaces": {"matchLabels": {"vms": "yes"}}, **on_demand}
    return clusters.zone(
        downloads={"retry": {"initial": "1s", "maximum": "5s"}, "connectionsPerSource": 1}, onDemand=wishes
    )


def script(text: str) -> str:
    """`text` as one argument without quotes or line ends."""
    code = base64.b64encode(text.encode()).decode()
    return f"import base64; exec(base64.b64decode('{code}'))"


def parsed(text: str) -> Any:
    return json.loads(text.strip().splitlines()[-1])
