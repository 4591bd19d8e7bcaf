"""The demo's step with peers: the fleet reads the source once, and the rest from host to host."""

import pathlib
from collections.abc import Sequence

import yaml
from tests.demo.stage import DemoError, Stage
from tests.demo.target import Target
from tests.world import cluster as clusters
from tests.world import evidence
from tests.world.cluster import NAMESPACE, RELEASE
from tests.world.origin import Origin

NAME = "fleet-image"
#: What the source may send beside the file: a request may be repeated.
SHARE = 1.05


class Peers:
    """`directory` is for manifests; `hosts` are all of the zone."""

    def __init__(self, stage: Stage, target: Target, directory: pathlib.Path, hosts: Sequence[str]) -> None:
        self._stage = stage
        self._target = target
        self._cluster = target.cluster
        self._directory = directory
        self._hosts = hosts

    def play(self, origin: Origin, file: pathlib.Path, sha256: str) -> None:
        """`file` is what the origin serves."""
        stage = self._stage
        stage.heading(
            "One read of the source for the whole fleet",
            "With peers.enabled a server runs on every host. One host reads the source, and the hosts read from each",
            "other. Each piece is checked against the proof of the host that read the source, and the whole file",
            "against its checksum.",
        )
        stage.run(
            *("helm", "upgrade", RELEASE, "charts/direct-download-operator", "--namespace", NAMESPACE),
            *("--reset-then-reuse-values", "--set=peers.enabled=true", "--wait", "--timeout", "120s"),
        )
        stage.until("certificates of all hosts", 90, self._certified)
        path = self._directory / "fleet.yaml"
        template = clusters.template(NAME, origin.url(file.name), checksum=f"sha256:{sha256}", format="QCOW2")
        path.write_text(yaml.safe_dump_all((template, clusters.deployment(NAME)), sort_keys=False))
        stage.show_file(path, "a template and its deployment")
        stage.run("kubectl", "apply", "-f", str(path))
        stage.run("kubectl", "directdownload", "status", NAME, "--watch", "--timeout", "150s")
        self._count(origin, file.stat().st_size, sha256)
        own = (f"dddeploy/{NAME}", f"ddtemplate/{NAME}")
        stage.run("kubectl", "delete", *own, "--timeout=60s")
        stage.until("the placements to be gone", 60, lambda: not self._cluster.placements(NAME))

    def _certified(self) -> bool:
        found = {host["metadata"]["name"]: host.get("status", {}) for host in self._cluster.list("ddhost")}
        return all("peer" in found.get(host, {}) for host in self._hosts)

    def _count(self, origin: Origin, size_bytes: int, sha256: str) -> None:
        stage = self._stage
        placements = self._cluster.placements(NAME)
        rows, wrong = [], []
        for host, placement in sorted(placements.items()):
            source = placement["status"]["file"].get("bytesFrom", {})
            right = self._cluster.sha256(host, placement["spec"]["path"]) == sha256
            rows.append((host, str(source.get("origin", 0)), str(source.get("peers", 0)), "same" if right else "OTHER"))
            wrong += [] if right else [host]
        own = self._target.origin_address
        sent = sum(request.bytes_sent for request in evidence.gets(origin) if request.client != own)
        rows.append(("the origin has sent", str(sent), "", ""))
        stage.table(("host", "bytes from the origin", "bytes from other hosts", "file"), rows)
        if wrong or sorted(placements) != sorted(self._hosts):
            raise DemoError(f"expected the origin's file on each of {', '.join(self._hosts)}")
        if sent > SHARE * size_bytes:
            raise DemoError(f"the origin has sent {sent} bytes for a file of {size_bytes}: expected one read")
        stage.say(f"{len(placements)} copies of {size_bytes} bytes, and the origin has sent {sent}.")
