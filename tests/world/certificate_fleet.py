"""Certificates by the command line: a zone whose controller and agents are the test, for the tests of `certificate`."""

import datetime
import pathlib
import re
import subprocess
from typing import Any

from tests.cluster import harness
from tests.world import certificates
from tests.world.cli_world import Cluster, condition

from directdownload.cluster import kinds
from directdownload.resources import pem

GROUP = "rbac.authorization.k8s.io"


def days(number: int) -> datetime.datetime:
    """From now."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(number)


class Fleet(Cluster):
    """A zone whose hosts prove what the test says. Objects are cluster-scoped: each test has an alias of its own."""

    def __init__(self, control_plane: harness.ControlPlane, directory: pathlib.Path) -> None:
        super().__init__(control_plane)
        self.alias = f"ca-{self.name}"
        self.directory = directory
        self.proofs: dict[str, list[dict[str, Any]]] = {}

    def file(self, text: str | bytes | None = None, name: str = "ca.pem") -> str:
        path = self.directory / name
        text = certificates.pem() if text is None else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def arguments_of(self, verb: str, *more: str) -> tuple[str, ...]:
        return ("certificate", verb, "--name", self.alias, "--zone", self.name, *more)

    def certificate(self, verb: str, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(*self.arguments_of(verb, *more), **options)

    def uploaded(self, text: str | None = None) -> str:
        """The path of the file whose certificate every host of the zone shall have."""
        path = self.file(text)
        done = self.certificate("upload", "--file", path)
        assert done.returncode == 0, done.stderr
        return path

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.get(kinds.CERTIFICATES, self.alias)["spec"]
        return spec

    def change(self, **patch: Any) -> None:
        """As anybody may, at any time."""
        self.patch(kinds.CERTIFICATES, self.alias, patch)

    def publish(self, **status: Any) -> None:
        """As the controller does."""
        document = self.get(kinds.CERTIFICATES, self.alias)
        found = pem.parse(document["spec"]["certificate"])
        published = {
            "observedGeneration": document["metadata"]["generation"],
            "certificate": found.pem,
            "fingerprintSHA256": found.fingerprint_sha256,
            "notAfter": found.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.status(kinds.CERTIFICATES, self.alias, published | status)

    def stall(self, reason: str, message: str) -> None:
        conditions = [condition(kind, truth, reason, message=message) for kind, truth in _STALLED]
        self.status(kinds.CERTIFICATES, self.alias, {"observedGeneration": 1, "conditions": conditions})

    def host(self, name: str, state: str = "Up", zone: str | None = None, **status: Any) -> str:
        """Named after the zone as well; `name` is what distinguishes it."""
        full = f"{self.name}-{name}"
        self.apply(kinds.HOSTS, full, spec={"nodeName": full, "zone": zone or self.name})
        self.status(kinds.HOSTS, full, {"state": state} | status)
        return full

    def prove(self, host: str, state: str = "Uploaded", **entry: Any) -> None:
        """As the agent does; Uploaded with the fingerprint of what the spec says now, unless given."""
        if state == "Uploaded":
            entry = {"fingerprintSHA256": pem.parse(self.spec()["certificate"]).fingerprint_sha256, **entry}
        self.status(kinds.HOSTS, host, {"certificates": [{"name": self.alias, "state": state, **entry}]})


_STALLED = (("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True"))


def rows(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in text.splitlines()]
