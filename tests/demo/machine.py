"""The demo's end: a virtual machine boots on the host where its pod was scheduled, from a template as its volume."""

import hashlib
import pathlib

import yaml
from tests.demo.stage import DemoError, Stage
from tests.demo.target import Target
from tests.world import bootdisk, volumes
from tests.world.cluster import Object
from tests.world.origin import Origin

NAME = "vm"
MARKER = "Hello from a virtual machine"


class Machine:
    """`directory` is for manifests; `served` is what the origin serves."""

    def __init__(self, stage: Stage, cluster: Target, directory: pathlib.Path, served: pathlib.Path) -> None:
        self._stage = stage
        self._cluster = cluster.cluster
        self._directory = directory
        self._served = served

    def play(self, origin: Origin) -> None:
        stage = self._stage
        stage.heading(
            "A virtual machine, wherever it is scheduled",
            "A pod names a template as its volume. Nobody has said which host shall have it: the host on which the pod",
            "is scheduled fetches it. The machine writes to an overlay; the template cannot be written.",
        )
        if not self._cluster.local:
            stage.say("    Left out: it needs an image with qemu, which only the local cluster has.")
            return
        content = bootdisk.image(MARKER)
        (self._served / "boot.raw").write_bytes(content)
        wishes = '{"spec": {"onDemand": {"enabled": true, "namespaces": {}, "keep": "0s"}}}'
        stage.run("kubectl", "patch", "ddzone", "zone-1", "--type", "merge", "-p", wishes)
        path = self._directory / "vm.yaml"
        path.write_text(
            yaml.safe_dump_all(self._documents(origin, hashlib.sha256(content).hexdigest()), sort_keys=False)
        )
        stage.show_file(path, "a template and a virtual machine")
        stage.run("kubectl", "apply", "-f", str(path))
        stage.until("the machine to end", 120, lambda: volumes.phase(self._cluster, NAME, "default") == "Failed")
        stage.run("kubectl", "get", "pod", NAME, "-o", "wide")
        stage.run("kubectl", "logs", NAME)
        said = volumes.said(self._cluster, NAME, "default").splitlines()
        if said != [MARKER, bootdisk.WROTE]:
            raise DemoError(f"the machine was to say {[MARKER, bootdisk.WROTE]}, it said {said}")
        stage.run("kubectl", "delete", "pod", NAME, "--timeout=60s")
        stage.until("its copy to be gone", 60, lambda: not self._cluster.placements(NAME))
        stage.run("kubectl", "delete", "ddtemplate", NAME, "--timeout=60s")

    def _documents(self, origin: Origin, sha256: str) -> list[Object]:
        overlay = ["qemu-img", "create", "-f", "qcow2", "-b", volumes.DISK, "-F", "raw", "/scratch/overlay.qcow2"]
        machine = volumes.machine("-drive", "file=/scratch/overlay.qcow2,format=qcow2,if=ide")
        template = {
            "apiVersion": "directdownload.dev/v1alpha1",
            "kind": "Template",
            "metadata": {"namespace": "default", "name": NAME},
            "spec": {"url": origin.url("boot.raw"), "checksum": f"sha256:{sha256}", "format": "RAW"},
        }
        mounts = [
            {"name": "image", "mountPath": volumes.MOUNT},
            {"name": "scratch", "mountPath": "/scratch"},
        ]
        made = [
            volumes.container(name, volumes.VM_IMAGE, command, volumeMounts=mounts)
            for name, command in (("overlay", overlay), ("machine", machine))
        ]
        pod = volumes.pod(NAME, "", volumes.volume(NAME), made[1], namespace="default", initContainers=[made[0]])
        del pod["spec"]["nodeName"]
        pod["spec"]["volumes"].append({"name": "scratch", "emptyDir": {}})
        return [template, pod]
