"""A plain, synchronous way to the API of a control plane, for tests that look at the very words of a refusal.

Used by the tests of resources, policies and chart. The product's own client is not used on purpose: it shortens
messages, and what is tested here is what a person reads. `Kube.request` never raises for a refusal: it returns it.
"""

import base64
import copy
import dataclasses
import functools
import http.client
import json
import os
import pathlib
import select
import ssl
import subprocess
import tempfile
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import yaml
from tests.cluster import harness
from tests.world.checkout import CHART, CRDS
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources import base

MERGE_PATCH, APPLY_PATCH = "application/merge-patch+json", "application/apply-patch+yaml"
Object = dict[str, Any]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A response of the API server; `body` is a Status where `ok` is False."""

    code: int
    body: Object

    @property
    def ok(self) -> bool:
        return self.code < 300

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    def object(self) -> Object:
        """The body of a success; fails the test with the words of a refusal."""
        assert self.ok, f"{self.code}: {self.message}"
        return self.body


@dataclasses.dataclass(slots=True)
class _Account:
    """What a kubeconfig gives, and connections that were opened with it and that nobody uses now."""

    headers: dict[str, str]
    host: str
    port: int | None
    context: ssl.SSLContext
    idle: list[http.client.HTTPSConnection] = dataclasses.field(default_factory=list)

    def __del__(self) -> None:
        for connection in self.idle:
            connection.close()

    def take(self) -> http.client.HTTPSConnection:
        while self.idle:
            connection = self.idle.pop()
            if connection.sock and not _ended(connection):
                return connection
            connection.close()
        return self.new()

    def new(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, context=self.context, timeout=120)


def _ended(idle: http.client.HTTPSConnection) -> bool:
    # what can be read from one that is idle is its end
    return bool(idle.sock and select.select([idle.sock], [], [], 0)[0])


@functools.lru_cache(maxsize=64)
def _account(kubeconfig: str) -> _Account:
    config = yaml.safe_load(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    address = urllib.parse.urlsplit(cluster["server"])
    return _Account(headers, str(address.hostname), address.port, tls_context(config))


class Kube:
    """One user's connection. Use as a context manager.

    A TLS handshake for each look costs more than the look: the connection is left to the next one of that user.
    """

    def __init__(self, kubeconfig: pathlib.Path) -> None:
        self._account = _account(kubeconfig.read_text())
        self._connection = self._account.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._account.idle.append(self._connection)
        self._connection = self._account.new()

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        target = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        headers = {**self._account.headers, "Content-Type": content_type, "Accept": "application/json"}
        if _ended(self._connection):
            # A server closes what has been idle for a minute and a half; the next request opens it anew.
            self._connection.close()
        try:
            self._connection.request(method, target, json.dumps(body) if body is not None else None, headers)
            response = self._connection.getresponse()
            content = response.read()
        except BaseException:
            self._connection.close()  # the next request opens it anew
            raise
        # a kind that is not served is told in plain text
        served = response.headers.get_content_type() == "application/json"
        return Answer(response.status, json.loads(content) if served else {"message": content.decode().strip()})

    def get(self, kind: kinds.Resource, name: str, namespace: str | None = None) -> Answer:
        return self.request("GET", kind.path(name, namespace))

    def create(self, kind: kinds.Resource, body: Object, namespace: str | None = None, *, dry: bool = False) -> Answer:
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry else {})}
        return self.request("POST", kind.path(None, namespace), body, query=query)

    def patch(
        self, kind: kinds.Resource, name: str, patch: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Answer:
        path = kind.path(name, namespace, subresource or None)
        return self.request("PATCH", path, patch, query={"fieldValidation": "Strict"}, content_type=MERGE_PATCH)

    def apply(
        self,
        kind: kinds.Resource,
        body: Object,
        manager: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        force: bool = True,
    ) -> Answer:
        path = kind.path(body["metadata"]["name"], namespace, subresource or None)
        query = {"fieldManager": manager, "force": str(force).lower()}
        return self.request("PATCH", path, body, query=query, content_type=APPLY_PATCH)

    def delete(self, kind: kinds.Resource, name: str, namespace: str | None = None) -> Answer:
        return self.request("DELETE", kind.path(name, namespace))


def tls_context(kubeconfig: Object) -> ssl.SSLContext:
    """What a kubeconfig of `harness.ControlPlane` trusts, with its client certificate if it has one."""
    cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]))
            pem.write(base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


def resource(kind: kinds.Resource, name: str, spec: Object, namespace: str | None = None) -> Object:
    """A whole object of `kind`."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": copy.deepcopy(spec)}


def unique(prefix: str) -> str:
    """A name that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def install_definitions(control_plane: harness.ControlPlane) -> None:
    """Makes the control plane serve our kinds; harmless when it does already."""
    with Kube(control_plane.kubeconfig()) as kube:
        for path in CRDS.glob("*.yaml"):
            kube.apply(kinds.DEFINITIONS, yaml.safe_load(path.read_text()), "kubectl").object()
    await_definitions(control_plane)


def await_definitions(control_plane: harness.ControlPlane) -> None:
    """Waits until our kinds are served: Established comes a moment before the storage is there."""
    served = [kind for kind in vars(kinds).values() if isinstance(kind, kinds.Resource) and kind.group == base.GROUP]
    with Kube(control_plane.kubeconfig()) as kube:
        until("all kinds to be served", lambda: all(kube.request("GET", kind.path()).ok for kind in served))


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs helm, built on first use (minutes, once per machine); `check` fails the test with its words."""
    result = subprocess.run(
        [str(harness.ensure_tools() / "helm"), *arguments],
        env={**os.environ, **harness.BRIEF_GO},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not check or result.returncode == 0, f"helm {' '.join(arguments)}: {result.stderr}"
    return result


def rendered(release: str, namespace: str, *arguments: str, hooks: bool = False) -> str:
    """The chart's manifests as Helm would install them; with `hooks` also what it runs before and when it tests."""
    scope = () if hooks else ("--no-hooks",)
    return helm("template", release, str(CHART), "--namespace", namespace, *scope, *arguments).stdout
