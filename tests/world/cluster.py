"""A cluster with real nodes that has the product installed, as the e2e tests, the bench and the demo use it.

Without anything given it is the local cluster of tests/cluster, brought up and filled on demand. With `KUBECONFIG` and
`IMAGE` in the environment it is that cluster; `ORIGIN_ADDRESS` is then an address of this machine that its pods reach.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from tests.cluster import harness
from tests.world import kstatus
from tests.world.checkout import CHART, REPOSITORY
from tests.world.kube import Kube
from tests.world.waiting import DEADLINE_SECONDS, until

from directdownload.cluster import kinds

SCRIPTS = REPOSITORY / "tests" / "cluster"
LOCAL_KUBECONFIG = REPOSITORY / ".cluster" / "kubeconfig"
LOCAL_IMAGE = "localhost/direct-download-operator:dev"
#: The id of the image, and the digest of its manifest.
LOCAL_IMAGE_MADE = REPOSITORY / ".cluster" / "images" / "direct-download-operator.tar.made"
#: The host side of the local cluster's bridge.
LOCAL_ORIGIN_HOST = "10.89.0.1"
RELEASE = "direct-download-operator"
#: As in the demo, so that either finds what the other left.
NAMESPACE = "direct-download-system"
POOL_ROOT = "/var/lib/libvirt/images"

#: The image has no shell and no tools, only Python.
_DIGEST = """
import hashlib, os, sys
if os.path.exists(sys.argv[1]): print(hashlib.file_digest(open(sys.argv[1], "rb"), "sha256").hexdigest())
"""
Object = dict[str, Any]
_APPS = [
    kinds.Resource("apps", "v1", f"{kind.lower()}s", kind, namespaced=True) for kind in ("Deployment", "DaemonSet")
]
#: By the names that kubectl has for them; its events are those of another API group.
_KINDS = {
    name: kind
    for kind in (*vars(kinds).values(), *_APPS)
    if isinstance(kind, kinds.Resource) and kind is not kinds.EVENTS
    for name in (kind.plural, kind.kind.lower())
}


class CommandError(AssertionError):
    """A command of the test's own ended badly; the message holds what it said."""


def run(*command: str, input: str | None = None, env: dict[str, str] | None = None, seconds: float = 300) -> str:
    result = subprocess.run(command, input=input, env=env, capture_output=True, text=True, check=False, timeout=seconds)
    if result.returncode != 0:
        raise CommandError(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


def sha256(path: pathlib.Path) -> str:
    """Of a file's bytes; "" if it does not exist."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        return cls.on_this_machine()

    @classmethod
    def on_this_machine(cls) -> "Cluster":
        """The local one, which somebody has brought up or will."""
        return cls(LOCAL_KUBECONFIG, LOCAL_IMAGE, LOCAL_ORIGIN_HOST, local=True)

    @classmethod
    @contextlib.contextmanager
    def acquired(cls) -> Iterator["Cluster"]:
        """`acquire`, and `release` in the end."""
        found = cls.acquire()
        try:
            yield found
        finally:
            found.release()

    def release(self) -> None:
        """Takes the local cluster down, unless KEEP=1 asks to leave it; one that was given stays as it is."""
        if self.local and os.environ.get("KEEP") != "1":
            run(str(SCRIPTS / "down.sh"))

    def install(self, *settings: str, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
        """`helm upgrade --install` with the product's image, and wait until every pod is ready; what Helm has said.

        The chart's hook brings definitions to this version that a cluster that was kept has of an earlier one.
        """
        values = [*self.image_values(), *self.image_annotations(), "log.format=text", *settings]
        arguments = [argument for value in values for argument in ("--set", value)]
        told = self.helm("upgrade", "--install", release, str(CHART), "--create-namespace", "-n", namespace, *arguments)
        for kind in ("deployment", "daemonset"):
            for name in self.names(kind, namespace):
                self.kubectl("rollout", "status", f"{kind}/{name}", "-n", namespace, "--timeout=180s")
        return told

    def image_values(self) -> list[str]:
        """Helm's values for the product's image."""
        repository, at, digest = self.image.partition("@")
        if at:
            return [f"image.repository={repository}", f"image.digest={digest}"]
        name, colon, tag = repository.rpartition(":")
        if not colon or "/" in tag:
            return [f"image.repository={repository}", "image.tag=latest"]
        never = ["image.pullPolicy=Never"] if self.local else []
        return [f"image.repository={name}", f"image.tag={tag}", *never]

    def image_annotations(self) -> list[str]:
        """Helm's values that let pods of an earlier image go: that of the local cluster keeps its name."""
        if not self.local:
            return []
        digest = LOCAL_IMAGE_MADE.read_text().split()[-1].removeprefix("sha256:")[:16]
        # with a letter in front: what is all digits would be a number
        return [f"{component}.podAnnotations.image=sha-{digest}" for component in ("controller", "agent")]

    def names(self, kind: str, namespace: str | None = NAMESPACE) -> list[str]:
        return [item["metadata"]["name"] for item in self.list(kind, namespace)]

    def helm(self, *arguments: str) -> str:
        """What it has said; the logs of hooks go to standard error."""
        done = subprocess.run(
            [str(self._program("helm")), *arguments],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0:
            raise CommandError(f"helm {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return run(str(self._program("kubectl")), *arguments, input=input, env=self._environment())

    def _environment(self) -> dict[str, str]:
        # Not an option: KUBECONFIG may name several files.
        return {**os.environ, **harness.BRIEF_GO, "KUBECONFIG": str(self.kubeconfig)}

    def _program(self, name: str) -> pathlib.Path | str:
        return harness.state_root() / "bin" / name if self.local else name

    # A kubectl for each change of a test would be minutes of a run: the local cluster is asked directly.

    def apply(self, *objects: Object) -> None:
        for direct, some in itertools.groupby(objects, lambda each: self._direct(each["kind"].lower()) is not None):
            if direct:
                self._apply_directly(some)
            else:
                self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(some))

    def _apply_directly(self, objects: Iterable[Object]) -> None:
        with Kube(self.kubeconfig) as kube:
            for each in objects:
                kind, metadata = _KINDS[each["kind"].lower()], each["metadata"]
                answer = kube.apply(kind, each, "kubectl", metadata.get("namespace"))
                if not answer.ok:
                    raise CommandError(f"apply {each['kind']} {metadata['name']}: {answer.code}: {answer.message}")

    def delete(
        self,
        kind: str,
        *names: str,
        namespace: str | None = None,
        missing_ok: bool = False,
        grace_seconds: int | None = None,
        seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """Returns when they are gone, finalizers done, within `seconds`. `grace_seconds`: of pods; 0: by force."""
        resource = self._direct(kind)
        if resource is not None:
            query = None if grace_seconds is None else {"gracePeriodSeconds": str(grace_seconds)}
            self._delete_directly(resource, names, namespace, query, seconds, missing_ok=missing_ok)
        elif names:
            options = ["-n", namespace] if namespace else []
            options += ["--ignore-not-found"] if missing_ok else []
            options += [f"--grace-period={grace_seconds}"] if grace_seconds is not None else []
            options += ["--force"] if grace_seconds == 0 else []
            self.kubectl("delete", kind, *names, *options, f"--timeout={seconds:g}s")

    def delete_all(self, plural: str, namespace: str | None = None, **options: Any) -> None:
        """`options`: of `delete`."""
        self.delete(plural, *self.names(plural, namespace), namespace=namespace, missing_ok=True, **options)

    def _delete_directly(
        self,
        kind: kinds.Resource,
        names: Iterable[str],
        namespace: str | None,
        query: Mapping[str, str] | None,
        seconds: float,
        *,
        missing_ok: bool,
    ) -> None:
        asked = set()
        with Kube(self.kubeconfig) as kube:
            for name in names:
                answer = kube.request("DELETE", kind.path(name, namespace), query=query)
                if answer.ok:
                    # of the object, which may stay for a while, or in the Status of one that is gone
                    asked.add((answer.body.get("details") or answer.body["metadata"])["uid"])
                elif answer.code != 404 or not missing_ok:
                    raise CommandError(f"delete {kind.plural} {name}: {answer.code}: {answer.message}")

            def gone() -> bool:
                items = kube.request("GET", kind.path(None, namespace)).object()["items"] if asked else []
                return asked.isdisjoint(item["metadata"]["uid"] for item in items)

            until(f"the deleted {kind.plural} to go", gone, seconds)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        found = self._read(kind, name, namespace)
        if found is None:
            scope = ["-n", namespace] if namespace else []
            found = dict(json.loads(self.kubectl("get", kind, name, *scope, "-o", "json")))
        if found["apiVersion"].startswith("directdownload.dev/") and "status" in found:
            kstatus.assert_kstatus(found, lagging=True)
        return found

    def list(self, kind: str, namespace: str | None = None, *options: str) -> list[Object]:
        """`options`: further ones of `kubectl get`, for instance selectors."""
        if not options and (found := self._read(kind, None, namespace)) is not None:
            return list(found["items"])
        scope = ["-n", namespace] if namespace else ["-A"]
        return list(json.loads(self.kubectl("get", kind, *scope, *options, "-o", "json"))["items"])

    def _direct(self, kind: str) -> kinds.Resource | None:
        """What the local cluster is asked for without a process; None: kubectl asks."""
        return _KINDS.get(kind) if self.local else None

    def _read(self, kind: str, name: str | None, namespace: str | None) -> Object | None:
        resource = self._direct(kind)
        if resource is None:
            return None
        with Kube(self.kubeconfig) as kube:
            return kube.request("GET", resource.path(name, namespace)).object()

    def raw(self, path: str) -> str:
        """What the API server answers as plain text."""
        if not self.local:
            return self.kubectl("get", "--raw", path)
        with Kube(self.kubeconfig) as kube:
            return str(kube.request("GET", path).object()["message"])

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

    def await_hosts(self, number: int = 0, seconds: float = 120) -> None:
        """Waits until all hosts are Up and report their storage: `number` of them, or at least one."""

        def all_up() -> bool:
            statuses = [host.get("status", {}) for host in self.list("hosts")]
            usable = [status for status in statuses if status.get("state") == "Up" and status.get("storage")]
            return len(usable) == (number or max(1, len(statuses)))

        until("hosts that are Up and report their storage", all_up, seconds)

    # --- the nodes' files

    def sha256(self, node: str, path: str) -> str:
        """Of a file on a node; "" if it does not exist. The agent's pod reads it where the nodes are not here."""
        if self.local:
            return sha256(self.file(node, path))
        selectors = ("-l", "app.kubernetes.io/component=agent", "--field-selector", f"spec.nodeName={node}")
        pods = self.list("pods", NAMESPACE, *selectors)
        if not pods:
            raise CommandError(f"no agent runs on {node}")
        command = ("exec", pods[0]["metadata"]["name"], "-n", NAMESPACE, "--", "python3", "-c", _DIGEST, path)
        return self.kubectl(*command).strip()

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
