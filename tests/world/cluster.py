"""A cluster with real nodes that has the product installed, as the e2e tests and the bench use it.

Without anything given it is the local cluster of tests/cluster, brought up and filled on demand. With `KUBECONFIG` and
`IMAGE` in the environment it is that cluster; `ORIGIN_ADDRESS` is then an address of this machine that its pods reach.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Any

import yaml
from tests.cluster import harness
from tests.world import kstatus
from tests.world.checkout import CHART, REPOSITORY
from tests.world.kube import Kube
from tests.world.waiting import until

SCRIPTS = REPOSITORY / "tests" / "cluster"
LOCAL_IMAGE = "localhost/direct-download-operator:dev"
#: The host side of the local cluster's bridge.
LOCAL_ORIGIN_HOST = "10.89.0.1"
RELEASE = "direct-download-operator"
#: As in the demo, so that either finds what the other left.
NAMESPACE = "direct-download-system"
POOL_ROOT = "/var/lib/libvirt/images"

Object = dict[str, Any]


class CommandError(AssertionError):
    """A command of the test's own ended badly; the message holds what it said."""


def run(*command: str, input: str | None = None, env: dict[str, str] | None = None, seconds: float = 300) -> str:
    result = subprocess.run(command, input=input, env=env, capture_output=True, text=True, check=False, timeout=seconds)
    if result.returncode != 0:
        raise CommandError(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """`local`: its nodes are on this machine, so that tests can look at their files and cut their power."""

    kubeconfig: pathlib.Path
    image: str
    origin_host: str
    local: bool

    @classmethod
    def acquire(cls) -> "Cluster":
        given, image = os.environ.get("KUBECONFIG"), os.environ.get("IMAGE")
        if given and image:
            host = os.environ.get("ORIGIN_ADDRESS", "")
            if not host:
                raise CommandError(
                    "KUBECONFIG and IMAGE are given: set ORIGIN_ADDRESS to an address that its pods reach"
                )
            return cls(pathlib.Path(given), image, host, local=False)
        harness.use_cluster_alone()
        # Not captured: whoever waits for minutes must see why.
        environment = {**os.environ, "NODES": "3"}
        subprocess.run([SCRIPTS / "tools.sh"], check=True)
        subprocess.run([SCRIPTS / "up.sh"], check=True, env=environment)
        subprocess.run([SCRIPTS / "image.sh"], check=True)
        return cls(REPOSITORY / ".cluster" / "kubeconfig", LOCAL_IMAGE, LOCAL_ORIGIN_HOST, local=True)

    def release(self) -> None:
        """Takes the local cluster down, unless KEEP=1 asks to leave it; one that was given stays as it is."""
        if self.local and os.environ.get("KEEP") != "1":
            run(str(SCRIPTS / "down.sh"))

    def install(self, *settings: str, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
        """`helm upgrade --install` with the product's image, and wait until every pod is ready; what Helm has said.

        The chart's hook brings definitions to this version that a cluster that was kept has of an earlier one.
        """
        repository, _, tag = self.image.rpartition(":")
        values = [f"image.repository={repository}", f"image.tag={tag}", "log.format=text", *settings]
        if self.local:
            values.append("image.pullPolicy=Never")
        arguments = [argument for value in values for argument in ("--set", value)]
        told = self.helm("upgrade", "--install", release, str(CHART), "--create-namespace", "-n", namespace, *arguments)
        if "has been upgraded" in told:
            # The image of the local cluster keeps its name when it changes.
            self.kubectl("rollout", "restart", "deployment,daemonset", "-n", namespace)
        for kind in ("deployment", "daemonset"):
            for name in self.names(kind, namespace):
                self.kubectl("rollout", "status", f"{kind}/{name}", "-n", namespace, "--timeout=180s")
        return told

    def names(self, kind: str, namespace: str = NAMESPACE) -> list[str]:
        return [item["metadata"]["name"] for item in self.list(kind, namespace)]

    def helm(self, *arguments: str) -> str:
        """What it has said; the logs of hooks go to standard error."""
        command = [str(self._program("helm")), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            raise CommandError(f"helm {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return run(str(self._program("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments, input=input)

    def _program(self, name: str) -> pathlib.Path | str:
        return harness.state_root() / "bin" / name if self.local else name

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        scope = ["-n", namespace] if namespace else []
        found: Object = json.loads(self.kubectl("get", kind, name, *scope, "-o", "json"))
        if found["apiVersion"].startswith("directdownload.dev/") and "status" in found:
            kstatus.assert_kstatus(found, lagging=True)
        return found

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        scope = ["-n", namespace] if namespace else ["-A"]
        return list(json.loads(self.kubectl("get", kind, *scope, "-o", "json"))["items"])

    def placements(self, template: str) -> dict[str, Object]:
        """The placements of a template by host, each checked against kstatus."""
        found = {
            p["spec"]["host"]: p
            for p in self.list("templateplacements")
            if p["spec"]["templateRef"]["name"] == template
        }
        for placement in found.values():
            if "status" in placement:
                # Deletion raises the generation; kstatus calls such an object Terminating whatever its conditions say.
                kstatus.assert_kstatus(placement, lagging="deletionTimestamp" in placement["metadata"])
        return found

    def reasons(self, template: str) -> dict[str, tuple[str, str]]:
        """Phase and reason by host."""
        return {
            host: (p["status"]["phase"], p["status"]["conditions"][0]["reason"])
            for host, p in self.placements(template).items()
            if "phase" in p.get("status", {})
        }

    def converged(self, deployment: str, copies: int, seconds: float = 120) -> None:
        def reached() -> bool:
            status = self.get("templatedeployment", deployment, "default").get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            return conditions.get("Ready") == "True" and status["placements"]["ready"] == copies

        until(f"{copies} copies of {deployment}", reached, seconds)

    def bearer(self, token: str, directory: pathlib.Path) -> Kube:
        """A connection to the API as whoever holds `token`."""
        config = yaml.safe_load(self.kubectl("config", "view", "--minify", "--flatten", "--raw"))
        config["users"][0]["user"] = {"token": token}
        path = directory / "bearer.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return Kube(path)

    def hosts(self) -> Sequence[str]:
        return sorted(host["metadata"]["name"] for host in self.list("hosts"))

    # --- the nodes of the local cluster

    def node(self, command: str, node: str, *arguments: str) -> str:
        """tests/cluster/node.sh: add, stop, start, remove, exec."""
        return run(str(SCRIPTS / "node.sh"), command, node.removeprefix("kvm-"), *arguments)

    def file(self, node: str, path: str) -> pathlib.Path:
        """A file of a local node, seen from here."""
        return harness.host_directory(node) / path.lstrip("/")


def zone(name: str = "zone-1", **spec: Any) -> Object:
    # Every node of any cluster.
    selector = {"nodeSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}}
    return _object("Zone", name, {**selector, **spec})


def pool(name: str = "local", zone: str = "zone-1", path: str = POOL_ROOT, **spec: Any) -> Object:
    return _object("StoragePool", name, {"zone": zone, "path": path, **spec})


def template(name: str, url: str, **spec: Any) -> Object:
    return _object("Template", name, {"url": url, "format": "RAW", **spec}, "default")


def deployment(name: str, **spec: Any) -> Object:
    body = {"templateRef": {"name": name}, "zone": "zone-1", "pools": ["local"], **spec}
    return _object("TemplateDeployment", name, body, "default")


def _object(kind: str, name: str, spec: Object, namespace: str | None = None) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "directdownload.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
