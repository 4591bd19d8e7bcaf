"""The cluster of the demo: the local one that it makes, or one that the user gives.

`tests/world/cluster.py` drives both; this module has what the reader sees of it.
"""

import ipaddress
import json
import os
import pathlib
import socket
import urllib.parse
from typing import Protocol

from tests.cluster import harness
from tests.demo.stage import FAILURES, DemoError, RefusedError, Stage
from tests.world import cluster as clusters
from tests.world.cluster import NAMESPACE, RELEASE, Cluster

TEMPLATE, DEPLOYMENT = "debian-13", "debian-13-everywhere"
#: Template and deployment of the second half.
PRIVATE = "private-image"
#: A label on the namespace, from before the chart is installed: the demo may remove a namespace with it.
MARK = "made-by=direct-download-demo"
KEYSTORE = "/etc/cloudstack/agent/cloud.jks"
KEYSTORE_PASSWORD = "demo-passphrase"
_REMOVAL_SECONDS = 45


class Target(Protocol):
    #: for what the reader need not see
    cluster: Cluster
    #: the address of this machine for nodes
    origin_address: str
    #: nodes with these labels are the zone's hosts
    node_labels: dict[str, str]

    def bring_up(self, stage: Stage) -> None: ...
    def provide_image(self, stage: Stage) -> list[str]:
        """Returns Helm's `--set` values for it."""

    def host_of(self, client: str) -> str:
        """The host of an address in the origin's access log; the address itself if the host is unknown."""

    def lose(self, stage: Stage, host: str, path: str) -> None:
        """Delete a file on a host without the product."""

    def add_host(self, stage: Stage) -> str:
        """Add a node and return its name; "" where that is impossible."""

    def make_keystore(self, stage: Stage, host: str) -> bool:
        """Recreate the host's Java keystore with the key `cloud`, as CloudStack's setup does; False if unsupported."""

    def show_keystore(self, stage: Stage, host: str) -> None:
        """Show keytool's list."""

    def aliases(self, stage: Stage, host: str) -> set[str]:
        """The aliases in keytool's list."""

    def take_down(self, stage: Stage) -> None: ...
    def how_to_take_down(self) -> str: ...


class LocalCluster:
    """Three nodes (NODES) on this machine, each with its own directories."""

    origin_address = clusters.LOCAL_ORIGIN_HOST

    def __init__(self) -> None:
        self.cluster = Cluster.on_this_machine()
        self.node_labels = {"topology.kubernetes.io/zone": "zone-1"}
        self._started_it = False
        self._installing = False
        self._added = 0

    def bring_up(self, stage: Stage) -> None:
        harness.use_cluster_alone()
        stage.environment["KUBECONFIG"] = str(self.cluster.kubeconfig)
        if stage.ask("kubectl", "get", "--raw", "/readyz") == "ok":
            refuse_what_others_installed(stage, self.cluster)
        else:
            self._started_it = True
        stage.run("tests/cluster/up.sh")
        # Again, as up.sh may have waited for another user who was bringing a cluster up.
        refuse_what_others_installed(stage, self.cluster)
        self._installing = True

    def provide_image(self, stage: Stage) -> list[str]:
        stage.command("tests/cluster/image.sh")
        reference = stage.read("tests/cluster/image.sh").splitlines()[-1]
        stage.say(reference)
        values = self.cluster.image_values()
        if stage.ask("helm", "list", "--namespace", NAMESPACE, "--short") == RELEASE:
            # From a run with KEEP=1. A moved tag does not restart pods by itself.
            values += self.cluster.image_annotations()
        return values

    def host_of(self, client: str) -> str:
        address = ipaddress.ip_address(client)
        for number in range(1, 201):
            if address in ipaddress.ip_network(f"10.244.{number}.0/24"):
                return f"kvm-{number}"
        return client

    def lose(self, stage: Stage, host: str, path: str) -> None:
        stage.run("rm", str(self.cluster.file(host, path)))

    def add_host(self, stage: Stage) -> str:
        nodes = (harness.state_root() / "nodes").iterdir()
        self._added = 1 + max(int(node.name.removeprefix("kvm-")) for node in nodes)
        stage.run("tests/cluster/node.sh", "add", str(self._added))
        return f"kvm-{self._added}"

    def make_keystore(self, stage: Stage, host: str) -> bool:
        path = self._keystore(host)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("agent.properties").write_text(f"keystore.passphrase={KEYSTORE_PASSWORD}\n")
        path.unlink(missing_ok=True)
        own = ("-genkeypair", "-alias", "cloud", "-keyalg", "EC", "-dname", f"CN={host}")
        stage.command(f"keytool {' '.join(own)} -keystore {KEYSTORE}    # on {host}")
        stage.read(*_keytool(path, *own))
        return True

    def show_keystore(self, stage: Stage, host: str) -> None:
        stage.command(f"keytool -list -keystore {KEYSTORE}    # on {host}")
        stage.say(stage.read(*_keytool(self._keystore(host), "-list")))

    def aliases(self, stage: Stage, host: str) -> set[str]:
        listed = stage.ask(*_keytool(self._keystore(host), "-list"))
        return {line.partition(",")[0] for line in listed.splitlines() if line.rstrip(", ").endswith("Entry")}

    def _keystore(self, host: str) -> pathlib.Path:
        return self.cluster.file(host, KEYSTORE)

    def take_down(self, stage: Stage) -> None:
        if self._installing:
            _uninstall(stage, self.cluster)
        if self._started_it:
            stage.run("tests/cluster/down.sh")
        else:
            if self._added:
                stage.run("tests/cluster/node.sh", "remove", str(self._added))
            stage.say("    The cluster was up before the demo and stays up; `make cluster-down` ends it.")

    def how_to_take_down(self) -> str:
        return "make cluster-down"


class GivenCluster:
    """The user's cluster: `KUBECONFIG` and `IMAGE`. The demo touches only what it installs."""

    def __init__(self, kubeconfig: str, image: str, origin_address: str) -> None:
        self.cluster = Cluster(pathlib.Path(kubeconfig), image, origin_address, local=False)
        self.origin_address = origin_address
        self.node_labels = {"kubernetes.io/os": "linux"}
        self._installing = False

    def bring_up(self, stage: Stage) -> None:
        stage.say(f"    KUBECONFIG={self.cluster.kubeconfig} is given: that cluster is used.")
        stage.environment["KUBECONFIG"] = str(self.cluster.kubeconfig)
        refuse_what_others_installed(stage, self.cluster)
        self._installing = True
        if not self.origin_address:
            server = stage.read("kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
            self.origin_address = _own_address_towards(server)
        stage.say(f"    Its nodes must reach this machine at {self.origin_address} (else set ORIGIN_ADDRESS).")

    def provide_image(self, stage: Stage) -> list[str]:
        stage.say(f"    IMAGE={self.cluster.image} is given: nothing is built.")
        return self.cluster.image_values()

    def host_of(self, client: str) -> str:
        return client

    def lose(self, stage: Stage, host: str, path: str) -> None:
        """Delete the file in a separate pod: the product's agents mount the pool read-only."""
        directory, pod = str(pathlib.Path(path).parent), "demo-loses-a-file"
        volume = {"name": "pool", "hostPath": {"path": directory, "type": "Directory"}}
        container = {
            "name": "remove",
            "image": self.cluster.image,
            "command": ["python3", "-c", "import os, sys; os.unlink(sys.argv[1])", path],
            "securityContext": {"runAsUser": 0},
            "volumeMounts": [{"name": "pool", "mountPath": directory}],
        }
        spec = {
            "nodeName": host,
            "tolerations": [{"operator": "Exists"}],
            "volumes": [volume],
            "containers": [container],
        }
        stage.command(f"rm {path}    # by a pod on {host}")
        stage.read(
            *("kubectl", "-n", NAMESPACE, "run", pod, f"--image={self.cluster.image}", "--restart=Never"),
            f"--overrides={json.dumps({'apiVersion': 'v1', 'spec': spec})}",
        )
        done = "--for=jsonpath={.status.phase}=Succeeded"
        stage.read("kubectl", "-n", NAMESPACE, "wait", f"pod/{pod}", done, "--timeout=60s")
        stage.read("kubectl", "-n", NAMESPACE, "delete", "pod", pod)

    def add_host(self, stage: Stage) -> str:
        stage.say("    No node can be added to a cluster that was given: left out.")
        return ""

    def make_keystore(self, stage: Stage, host: str) -> bool:
        stage.say("    The keystores of hosts that are not the demo's own are not touched: left out.")
        return False

    def show_keystore(self, stage: Stage, host: str) -> None:
        raise DemoError(f"the keystore of {host} is not the demo's own")

    def aliases(self, stage: Stage, host: str) -> set[str]:
        raise DemoError(f"the keystore of {host} is not the demo's own")

    def take_down(self, stage: Stage) -> None:
        if self._installing:
            _uninstall(stage, self.cluster)

    def how_to_take_down(self) -> str:
        return f"helm uninstall {RELEASE} -n {NAMESPACE}; kubectl delete -f crds; kubectl delete namespace {NAMESPACE}"


def choose() -> Target:
    """The given cluster if both a kubeconfig and an image are given, else the local one."""
    kubeconfig, image = os.environ.get("KUBECONFIG", ""), os.environ.get("IMAGE", "")
    if image and not kubeconfig:
        raise DemoError("IMAGE is given without KUBECONFIG: give both for a cluster of yours, or neither")
    if image:
        return GivenCluster(kubeconfig, image, os.environ.get("ORIGIN_ADDRESS", ""))
    if os.geteuid() != 0:
        raise DemoError("the local cluster needs root (network namespaces and mounts): run it with sudo")
    return LocalCluster()


def refuse_what_others_installed(stage: Stage, cluster: Cluster) -> None:
    """Raise RefusedError where the operator is installed, but not by a demo (with KEEP=1)."""
    if "NotFound" in stage.ask("kubectl", "get", "crd", "zones.directdownload.dev", "-o", "name"):
        return
    if not stage.ask("kubectl", "get", "namespace", "-l", MARK, "-o", "name").startswith("namespace/"):
        raise RefusedError(
            "the operator is installed in this cluster already, and not by this demo: it would get in the way of "
            "whoever uses it. Remove it first, or use another cluster"
        )
    others = _foreign(cluster)
    if others:
        raise RefusedError(f"the cluster holds more than the demo's own: {', '.join(others)}")


def mark(stage: Stage) -> None:
    """Label the namespace, before the installation."""
    if "NotFound" in stage.ask("kubectl", "get", "namespace", NAMESPACE, "-o", "name"):
        stage.read("kubectl", "create", "namespace", NAMESPACE)
    stage.read("kubectl", "label", "namespace", NAMESPACE, MARK, "--overwrite")


def _uninstall(stage: Stage, cluster: Cluster) -> None:
    """Remove the demo's objects and the operator; keep the operator if another user now uses it."""
    if "NotFound" not in stage.ask("kubectl", "get", "crd", "templateplacements.directdownload.dev", "-o", "name"):
        _remove_own(stage, cluster)
        others = _foreign(cluster)
        if others:
            raise DemoError(f"somebody else uses the operator by now ({', '.join(others)}): it stays installed")
    stage.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    stage.run("kubectl", "delete", "-f", "crds", "--ignore-not-found", "--timeout=60s")
    stage.run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")


def _remove_own(stage: Stage, cluster: Cluster) -> None:
    """Remove the objects while the controller runs, so that hosts remove their files; after a failure it may hang."""
    own = (f"dddeploy/{DEPLOYMENT}", f"dddeploy/{PRIVATE}", f"ddtemplate/{TEMPLATE}", f"ddtemplate/{PRIVATE}")
    stage.run("kubectl", "delete", *own, "--ignore-not-found", "--wait=false")
    try:
        stage.until("every copy to be removed", _REMOVAL_SECONDS, lambda: not _own(cluster))
    except FAILURES as error:
        stage.say(f"    {error}: letting go of them, files may remain on hosts")
        for namespace, name in _own(cluster):
            where = ("-n", namespace) if namespace else ()
            stage.ask("kubectl", *where, "patch", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


def _own(cluster: Cluster) -> list[tuple[str, str]]:
    return [(namespace, name) for namespace, name, template in _managed(cluster) if template in (TEMPLATE, PRIVATE)]


def _foreign(cluster: Cluster) -> list[str]:
    return [name for _, name, template in _managed(cluster) if template not in (TEMPLATE, PRIVATE)]


def _managed(cluster: Cluster) -> list[tuple[str, str, str]]:
    """Namespace, kind/name and template of each deployment, template and placement."""
    return [
        (
            item["metadata"].get("namespace", ""),
            f"{item['kind'].lower()}.directdownload.dev/{item['metadata']['name']}",
            item["spec"].get("templateRef", item["metadata"])["name"],
        )
        for item in cluster.list("templatedeployments,templates,templateplacements")
    ]


def _keytool(path: pathlib.Path, *arguments: str) -> tuple[str, ...]:
    return ("keytool", *arguments, "-keystore", str(path), "-storepass", KEYSTORE_PASSWORD)


def _own_address_towards(server: str) -> str:
    parts = urllib.parse.urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # No packet is sent: connecting only queries the routing table.
        probe.connect((parts.hostname or "", parts.port or 443))
        address: str = probe.getsockname()[0]
    return address


def work_directory() -> pathlib.Path:
    """For the generated image and the origin; on disk, as /tmp is memory on some systems."""
    return pathlib.Path(os.environ.get("TMPDIR") or "/var/tmp")
