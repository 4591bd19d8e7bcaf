"""The program against a real API server: a namespace and a zone for each test, and the program called with them."""

import functools
import os
import pathlib
import signal
import subprocess
import uuid
from typing import Any

from tests.cluster import harness
from tests.world import checkout, forked
from tests.world.kube import Kube, Object

from directdownload.cluster import kinds

SHA256 = "sha256:c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"


def directdownload(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """The program, which has ended without a traceback."""
    done = forked.run([checkout.DIRECTDOWNLOAD, *arguments], checkout.environment(), input)
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Cluster:
    """A namespace and a zone of the test's own, and the program called with them."""

    def __init__(self, control_plane: harness.ControlPlane) -> None:
        self.control_plane = control_plane
        self.kubeconfig = control_plane.kubeconfig()
        self.name = f"cli-{uuid.uuid4().hex[:8]}"
        self.apply(kinds.NAMESPACES, self.name)
        self.apply(kinds.ZONES, self.name, spec={"nodeSelector": {"matchLabels": {"zone": self.name}}})

    def apply(self, kind: kinds.Resource, name: str, **body: Any) -> Object:
        document = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        document["metadata"] = {"name": name, **body.get("metadata", {})}
        with Kube(self.kubeconfig) as kube:
            return kube.apply(kind, document, "kubectl", self.name).object()

    def get(self, kind: kinds.Resource, name: str) -> Object:
        with Kube(self.kubeconfig) as kube:
            return kube.get(kind, name, self.name).object()

    def delete(self, kind: kinds.Resource, name: str) -> None:
        with Kube(self.kubeconfig) as kube:
            kube.delete(kind, name, self.name).object()

    def status(self, kind: kinds.Resource, name: str, status: Object) -> None:
        self.patch(kind, name, {"status": status}, "status")

    def patch(self, kind: kinds.Resource, name: str, patch: Object, subresource: str = "") -> None:
        with Kube(self.kubeconfig) as kube:
            kube.patch(kind, name, patch, self.name, subresource=subresource).object()

    def template(self, name: str = "debian") -> None:
        spec = {"url": "https://images.example.org/x.qcow2", "format": "QCOW2", "checksum": SHA256}
        self.apply(kinds.TEMPLATES, name, spec=spec)

    def placement(self, host: str, template: str = "debian") -> str:
        name = f"{self.name}-{host}"
        labels = {"directdownload.dev/template": template, "directdownload.dev/template-namespace": self.name}
        reference = {"namespace": self.name, "name": template, "uid": "u"}
        spec = {"templateRef": reference, "zone": self.name, "pool": "local", "host": host, "path": "/p/u"}
        self.apply(kinds.TEMPLATE_PLACEMENTS, name, metadata={"labels": labels}, spec=spec)
        return name

    def arguments(self, *arguments: str, kubeconfig: pathlib.Path | None = None) -> list[str]:
        return [checkout.DIRECTDOWNLOAD, *self._scope(kubeconfig), *arguments]

    def _scope(self, kubeconfig: pathlib.Path | None) -> tuple[str, ...]:
        return ("--kubeconfig", str(kubeconfig or self.kubeconfig), "-n", self.name)

    def run(
        self, *arguments: str, kubeconfig: pathlib.Path | None = None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return directdownload(*self._scope(kubeconfig), *arguments, input=input)

    def start(self, *arguments: str, kubeconfig: pathlib.Path | None = None) -> "Running":
        return Running(self.arguments(*arguments, kubeconfig=kubeconfig))


class Running:
    """The program while it waits; `until` reads its output up to a text."""

    def __init__(self, arguments: list[str]) -> None:
        # Whoever runs the tests in the background has children ignore Ctrl-C.
        heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self.process = subprocess.Popen(
            arguments,
            env=checkout.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=heeded,
        )
        self.text = ""

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.text:
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"ended without {text!r}:\n{self.text}"
            self.text += chunk.decode()

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            self.text += chunk.decode()
        assert "Traceback" not in self.text
        return self.process.wait(timeout=120), self.text


def condition(kind: str, status: str, reason: str, generation: int = 1, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-05-01T12:00:00Z",
        "observedGeneration": generation,
    }
