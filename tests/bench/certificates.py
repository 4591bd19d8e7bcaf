"""The time from `kubectl apply` of a certificate to its proof by hosts: three real ones, and a thousand simulated.

The three are nodes of the local cluster. The thousand are agents of this process, each with its own keystore on disk,
beside a real kube-apiserver and a real controller.
"""

import asyncio
import concurrent.futures
import dataclasses
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import prometheus_client
from tests.cluster import harness
from tests.world import cluster as clusters
from tests.world import keystores
from tests.world import kube as api
from tests.world.certificates import Certificate
from tests.world.cluster import Cluster, Object
from tests.world.evidence import HOSTS
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.agent.settings import Settings
from directdownload.agent.supervisor import Supervisor
from directdownload.cluster import client, kinds, reflector
from directdownload.observe import health

ROUNDS = 40
FLEET = 1000
FLEET_ROUNDS = 5


def three_hosts() -> str:
    """A Markdown table."""
    with Cluster.acquired() as cluster:
        cluster.install()
        for host in HOSTS:
            keystores.set_password(cluster, host, keystores.PASSWORD)
            keystores.make(cluster, host, "PKCS12")
        cluster.apply(clusters.zone())
        until("three hosts", lambda: len(cluster.list("hosts")) == 3, 60)
        with api.Kube(cluster.kubeconfig) as connection:
            seconds = [_apply_and_wait(cluster, connection, f"bench-{number}") for number in range(ROUNDS)]
        cluster.kubectl("delete", "directdownloadcertificates", "--all", "--timeout=120s")
        keystores.remove(cluster)
    return "\n".join(
        (
            f"| `kubectl apply` of a certificate to its proof by three real hosts, {ROUNDS} times | seconds | aim |",
            "|---|---|---|",
            *spread(seconds, {"p95": "< 2"}),
        )
    )


def _apply_and_wait(cluster: Cluster, connection: api.Kube, name: str) -> float:
    cert = Certificate(authority=True)
    began = time.monotonic()
    cluster.apply(keystores.certificate(name, cert))
    until("the proof", lambda: len(_proofs(connection, name)) == len(HOSTS))
    return time.monotonic() - began


def _proofs(connection: api.Kube, name: str) -> list[Object]:
    hosts = connection.request("GET", kinds.HOSTS.path()).object()["items"]
    found = [c for host in hosts for c in host.get("status", {}).get("certificates", ()) if c["name"] == name]
    return [entry for entry in found if entry["state"] == "Uploaded"]


def fleet() -> str:
    """A Markdown table."""
    with (
        harness.ControlPlane() as control_plane,
        tempfile.TemporaryDirectory() as directory,
        Simulation(control_plane, "bench", kubelets=False, forked=False) as world,
    ):
        api.install_definitions(control_plane)
        world.create_zone()
        hosts = [world.add_host(f"kvm-{number}") for number in range(FLEET)]
        controller = world.start_controller()
        until(
            "Up hosts",
            lambda: world.get(kinds.ZONES, world.zone).get("status", {}).get("hosts", {}).get("up") == FLEET,
            300,
        )
        with Fleet(control_plane.kubeconfig(), pathlib.Path(directory), hosts) as agents:
            until("agents that have told of their keystores", lambda: len(agents.synced) == FLEET, 300)
            rounds = [_upload(world, agents, f"fleet-{number}") for number in range(FLEET_ROUNDS)]
        memory = resident_bytes(controller.process.pid) / 2**20
    seconds = [each for waits, _ in rounds for each in waits]
    writes = max(count for _, count in rounds)
    return "\n".join(
        (
            f"| a certificate for {FLEET} hosts, to the proof of each, {FLEET_ROUNDS} times | seconds | aim |",
            "|---|---|---|",
            *spread(seconds, {"p99": "< 10"}),
            "",
            "| | | aim |",
            "|---|---|---|",
            f"| writes to the API per host and certificate, the most of all rounds | {writes / FLEET:.3f} | ≤ 1 |",
            f"| controller: resident memory, MiB | {memory:.0f} | |",
        )
    )


def _upload(world: Simulation, agents: "Fleet", name: str) -> tuple[list[float], int]:
    """The seconds to the proof of each host, and the number of agents' writes to the API for it."""
    before = agents_writes()
    wish = keystores.certificate(name, Certificate(authority=True), zone=world.zone)
    began = time.monotonic()
    with world.kube() as connection:
        connection.create(kinds.CERTIFICATES, wish).object()
    until("all proofs", lambda: len(agents.proved.get(name, ())) == FLEET, 120)
    until("Ready", lambda: world.ready_reason(kinds.CERTIFICATES, name) == "Provisioned", 60)
    return [at - began for at in agents.proved[name].values()], agents_writes() - before


class Fleet:
    """Real agents in a thread of this process, and a watch that records their proofs with times."""

    def __init__(self, kubeconfig: pathlib.Path, root: pathlib.Path, hosts: Sequence[str]) -> None:
        self._kubeconfig = kubeconfig
        self._root = root
        self._hosts = hosts
        #: by certificate: the time of each host's proof
        self.proved: dict[str, dict[str, float]] = {}
        self.synced: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._running: list[concurrent.futures.Future[None]] = []

    def __enter__(self) -> Self:
        self._prepare()
        self._thread.start()
        self._running = [asyncio.run_coroutine_threadsafe(self._watch(), self._loop)]
        self._running += [asyncio.run_coroutine_threadsafe(self._agent(host), self._loop) for host in self._hosts]
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._running:
            each.cancel()
        concurrent.futures.wait(self._running, 60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _prepare(self) -> None:
        """A keystore of keytool and its password for each host. JKS, which needs little CPU, as all share two cores."""
        original = self._root / "original.jks"
        own = (
            "-alias",
            "cloud",
            "-keyalg",
            "EC",
            "-dname",
            "CN=host",
            "-storetype",
            "JKS",
            "-keypass",
            keystores.PASSWORD,
        )
        keystores.keytool(original, "-genkeypair", *own)
        with api.Kube(self._kubeconfig) as connection:
            for host in self._hosts:
                directory = self._root / host
                directory.mkdir()
                shutil.copy(original, directory / "cloud.jks")
                (directory / "password").write_text(keystores.PASSWORD)
                spec = {"path": f"{directory}/cloud.jks", "passwordFrom": {"file": f"{directory}/password"}}
                connection.patch(kinds.HOSTS, host, {"spec": {"keystore": spec}}).object()

    async def _agent(self, host: str) -> None:
        directory = str(self._root / host)
        settings = Settings(host, pool_roots=(), keystore_roots=(directory,), state_directory=directory)
        connection = await client.Api.connect(kubeconfig=str(self._kubeconfig), on_request=health.count_request)
        try:
            await Supervisor(settings, connection).run()
        finally:
            await connection.close()

    async def _watch(self) -> None:
        connection = await client.Api.connect(kubeconfig=str(self._kubeconfig))
        try:
            await reflector.Reflector(connection, kinds.HOSTS, self._see, reflector.Store[_Seen]()).run()
        finally:
            await connection.close()

    def _see(self, document: Mapping[str, Any]) -> "_Seen":
        metadata, status = document["metadata"], document.get("status", {})
        if "keystore" in status:
            self.synced.add(metadata["name"])
        for entry in status.get("certificates", ()):
            if entry["state"] == "Uploaded":
                self.proved.setdefault(entry["name"], {}).setdefault(metadata["name"], time.monotonic())
        return _Seen(metadata["name"], metadata["uid"], int(metadata["resourceVersion"]))


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    key: str
    uid: str
    resource_version: int


def agents_writes() -> int:
    """The number of writes to the API server by agents of this process."""
    samples = [sample for metric in prometheus_client.REGISTRY.collect() for sample in metric.samples]
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name == "directdownload_api_requests_total"
            and sample.labels["verb"] not in ("get", "list", "watch")
        )
    )


def spread(seconds: Sequence[float], aims: Mapping[str, str]) -> list[str]:
    """Rows of a table."""
    ordered = sorted(seconds)
    found = {f"p{share}": ordered[int(len(ordered) * share / 100)] for share in (50, 95, 99)}
    found["longest"] = ordered[-1]
    return [f"| {name} | {value:.2f} | {aims.get(name, '')} |" for name, value in found.items()]


def resident_bytes(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
