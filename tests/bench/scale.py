"""What the controller costs in a large fleet: thousands of hosts, hundreds of certificates, ten copies on each host.

A real kube-apiserver with etcd, no kubelets; `seeding.py` fills it. The controller is the real process with the rights
of the chart, and records how long it keeps its event loop. SCALE_HOSTS, SCALE_CERTIFICATES, SCALE_TEMPLATES,
SCALE_ROUNDS and SCALE_WINDOW (seconds) make it smaller.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from tests.bench import changes, machines, seeding, turns
from tests.bench.controller import Controller, Metrics
from tests.cluster import harness
from tests.world import checkout
from tests.world import kube as api
from tests.world.kube import Kube
from tests.world.simulation import Simulation
from tests.world.waiting import until

from directdownload.cluster import kinds

HOSTS = int(os.environ.get("SCALE_HOSTS", "5000"))
CERTIFICATES = int(os.environ.get("SCALE_CERTIFICATES", "200"))
TEMPLATES = int(os.environ.get("SCALE_TEMPLATES", "10"))
ROUNDS = int(os.environ.get("SCALE_ROUNDS", "3"))
WINDOW_SECONDS = float(os.environ.get("SCALE_WINDOW", "120"))
HEARTBEAT_SECONDS = 300.0
RELIST_SECONDS = 600.0
SCRAPE_SECONDS = 15.0
#: The queue has to stay empty for so long. Proofs of certificates are gathered for up to 10 s before they are counted.
QUIET_SECONDS = 20.0
_POLL_SECONDS = 0.5


def measure() -> str:
    """Markdown tables."""
    with harness.ControlPlane() as control_plane, tempfile.TemporaryDirectory() as directory:
        api.install_definitions(control_plane)
        fleet = Fleet(control_plane, pathlib.Path(directory))
        fleet.fill()
        starts = [start(fleet) for _ in range(ROUNDS)]
        return "\n".join((*_start_rows(starts), *in_service(fleet), "", *changed(fleet)))


def measure_turns() -> str:
    """A Markdown table: how long the event loop is kept at a time, and the memory. Without all that takes long."""
    with harness.ControlPlane() as control_plane, tempfile.TemporaryDirectory() as directory:
        api.install_definitions(control_plane)
        fleet = Fleet(control_plane, pathlib.Path(directory))
        fleet.fill()
        return "\n".join(changed(fleet))


class Fleet:
    """The objects in one control plane, and controllers that look after them."""

    def __init__(self, control_plane: harness.ControlPlane, directory: pathlib.Path) -> None:
        self.control_plane = control_plane
        self.directory = directory
        self.world = Simulation(control_plane, "scale", agents=True, forked=False)
        self._started = 0

    def fill(self) -> None:
        """One host by controller and agent, all others as its copies, and the sums of statuses over all of them."""
        with self.world as world:
            manifests = api.rendered("release", world.namespace)
            self.control_plane.kubectl("apply", "-f", "-", input=manifests, check=True)
            found = [each for each in yaml.safe_load_all(manifests) if each]
            (template,) = (each["data"]["job.yaml"] for each in found if each["kind"] == "ConfigMap")
            (self.directory / "job.yaml").write_text(template)
            (agent,) = (each["spec"]["template"] for each in found if each["kind"] == "DaemonSet")
            (deployment,) = (each for each in found if each["kind"] == "Deployment")
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            self._arguments = [each.replace("/etc/directdownload", str(self.directory)) for each in container["args"]]
            self._account = str(deployment["metadata"]["name"])
            seeding.wish(world, TEMPLATES, CERTIFICATES)
            seeding.first_host(world, agent)
            with self.controller():
                seeding.settled(world, TEMPLATES, CERTIFICATES)
                time.sleep(6)
        seeding.multiply(self.world, HOSTS)
        with self.controller() as controller:
            caught_up(controller)
        self._check()

    def _check(self) -> None:
        """The fleet is what it should be, and everybody has said so."""
        assert not self.world.jobs(), "something was to be done"
        with self.world.kube() as kube:
            zone = kube.get(kinds.ZONES, self.world.zone).object()
            assert zone["status"]["hosts"] == {"total": HOSTS, "up": HOSTS}, zone["status"]
            for each in kube.request("GET", kinds.CERTIFICATES.path()).object()["items"]:
                assert each["status"]["hosts"]["uploaded"] == HOSTS, each["status"]
            for each in kube.request("GET", kinds.TEMPLATE_DEPLOYMENTS.path()).object()["items"]:
                assert each["status"]["placements"]["ready"] == HOSTS, each["status"]

    @contextlib.contextmanager
    def controller(self) -> Iterator[Controller]:
        """A process; it is asked to end, as kubelets do."""
        self._started += 1
        name = f"controller-{self._started}"
        token = self.control_plane.service_account_token(self._account, self.world.namespace)
        port = _free_port()
        kubeconfig = self.control_plane.token_kubeconfig(token, name)
        # Of tests and product, for a program that measures itself.
        pod = {
            "POD_NAME": name,
            "POD_NAMESPACE": self.world.namespace,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            turns.FILE_VARIABLE: str(self.directory / f"{name}.turns"),
        }
        environment = {**checkout.pod_environment(self.directory, kubeconfig), **pod}
        log = self.directory / f"{name}.log"
        command = [sys.executable, "-m", turns.__name__]
        if other := os.environ.get("SCALE_PROGRAM"):
            # Another version's, which has its own code.
            command, environment = [other], {**environment, "PYTHONPATH": ""}
        arguments = [*command, *self._arguments, f"--health-port={port}", "--log-format=text"]
        with log.open("wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT)
        controller = Controller(process, port, log, began, turns.Record(self.directory / f"{name}.turns"))
        try:
            yield controller
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def writes(self) -> list[dict[str, Any]]:
        """Of the controllers, from the audit log; Leases and Events are not in it."""
        user = f"system:serviceaccount:{self.world.namespace}:{self._account}"
        events = harness.read_audit_log(self.control_plane.audit_log)
        return [event for event in events if event["user"]["username"] == user]


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of the process; memory in MiB."""

    leading: float
    synced: float
    synced_cpu: float
    caught_up: float
    cpu: float
    peak: float


def caught_up(controller: Controller, seconds: float = 900) -> Start:
    """Waits until the controller leads, its first lists are complete, and its queue is empty and stays so.

    It had then caught up at the first look that found the queue empty, after every object had been looked at.
    """
    marks: dict[str, tuple[float, float]] = {}
    empty: tuple[float, float] | None = None
    last = 0.0
    deadline = time.monotonic() + seconds
    while empty is None or time.monotonic() - controller.began - empty[0] < QUIET_SECONDS:
        assert time.monotonic() < deadline, controller.log.read_text()[-2000:]
        assert controller.process.poll() is None, controller.log.read_text()[-2000:]
        time.sleep(_POLL_SECONDS)
        for words in ("Leading as", "Synced"):
            if words not in marks and controller.says(words):
                marks[words] = time.monotonic() - controller.began, controller.cpu_seconds()
        if "Synced" not in marks:
            continue
        metrics = controller.metrics()
        done = metrics.sum("directdownload_reconcile_duration_seconds_count")
        if metrics.depth or done != last:
            empty = None
        elif empty is None:
            empty = time.monotonic() - controller.began, controller.cpu_seconds()
        last = done
    assert empty is not None
    (leading, _), (synced, synced_cpu) = marks["Leading as"], marks["Synced"]
    return Start(leading, synced, synced_cpu, *empty, controller.memory("VmHWM"))


def start(fleet: Fleet) -> Start:
    """A controller begins with a fleet in which nothing is left to do: it must find just that."""
    before = len(fleet.writes())
    with fleet.controller() as controller:
        found = caught_up(controller)
        looked = {kind: max(each.values()) for kind, each in controller.metrics().reconciles().items()}
    expected = {"host": HOSTS, "placement": HOSTS * TEMPLATES, "certificate": CERTIFICATES, "template": TEMPLATES}
    assert all(looked[kind] >= count for kind, count in expected.items()), looked
    writes = fleet.writes()[before:]
    assert not writes, collections.Counter((w["verb"], w["objectRef"]["resource"]) for w in writes)
    print(f"start: {found}, looks: {looked}", file=sys.stderr, flush=True)
    return found


def _start_rows(starts: Sequence[Start]) -> list[str]:
    def median(field: str) -> float:
        return float(statistics.median(getattr(each, field) for each in starts))

    return [
        f"| {HOSTS:,} hosts, {CERTIFICATES} certificates, {HOSTS * TEMPLATES:,} placements "
        f"| median of {len(starts)} | aim |",
        "|---|---|---|",
        f"| start to leading, seconds | {median('leading'):.1f} | |",
        f"| start to complete lists, seconds | {median('synced'):.1f} | |",
        f"| start to caught up, seconds | {median('caught_up'):.1f} | < 60 |",
        f"| CPU seconds for that | {median('cpu'):.1f} | |",
        "| writes to the API for that | 0 | 0 |",
        f"| peak memory until then, MiB | {median('peak'):.0f} | < 600 |",
    ]


def in_service(fleet: Fleet) -> list[str]:
    """Rows: a quiet window, a standby, and the rollout of one more template."""
    with fleet.controller() as controller:
        began = caught_up(controller)
        quiet, steady = quiet_window(fleet, controller)
        with fleet.controller() as other:
            time.sleep(10)
            standby = other.memory("VmRSS")
        relists = began.synced_cpu / RELIST_SECONDS
        rollout = rolled_out(fleet, controller)
        peak = controller.memory("VmHWM")
    return [
        f"| resident memory {WINDOW_SECONDS:.0f} s later, MiB | {steady:.0f} | < 600 |",
        f"| cores, {HOSTS / HEARTBEAT_SECONDS:.1f} node statuses per second | {quiet:.3f} | |",
        f"| cores, with complete lists every ten minutes | {quiet + relists:.3f} | < 0.2 |",
        f"| resident memory of a standby, MiB | {standby:.0f} | |",
        f"| one more template on {HOSTS:,} hosts: seconds | {rollout.seconds:.0f} | |",
        f"| CPU seconds for that | {rollout.cpu:.0f} | |",
        f"| writes to the API per placement, the agent's included | {rollout.writes:.2f} | ≤ 8 |",
        f"| p99 of a reconcile meanwhile, seconds | {rollout.p99['all']} | < 1 |",
        *(f"| p99 of kind {kind} | {text} | |" for kind, text in rollout.p99.items() if kind != "all"),
        f"| peak memory of all, MiB | {peak:.0f} | < 600 |",
    ]


def changed(fleet: Fleet) -> list[str]:
    """Rows: how long the event loop was kept, and the most memory until then, at the start and by changes of the whole
    fleet."""
    with fleet.controller() as controller:
        caught_up(controller)
        found = [("start to caught up", controller.turns.longest(controller.began), controller.memory("VmHWM"))]
        for name, turn in changes.measured(fleet, controller, HOSTS):
            found.append((name, turn, controller.memory("VmHWM")))
    return [
        f"| {HOSTS:,} hosts, {CERTIFICATES} certificates, {HOSTS * TEMPLATES:,} placements "
        "| longest turn, ms of CPU | ms of wall time | aim | peak memory, MiB | aim |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {turn.cpu * 1000:.0f} | {turn.wall * 1000:.0f} | ≤ 200 of CPU | {peak:.0f} | < 600 |"
            for name, turn, peak in found
        ),
    ]


def quiet_window(fleet: Fleet, controller: Controller) -> tuple[float, float]:
    """Cores and MiB while nothing changes but that nodes report; Prometheus looks in now and then."""
    with heartbeats(fleet):
        before = len(fleet.writes())
        looks = controller.metrics().sum("directdownload_reconcile_duration_seconds_count")
        began, cpu = time.monotonic(), controller.cpu_seconds()
        while time.monotonic() - began < WINDOW_SECONDS:
            time.sleep(SCRAPE_SECONDS)
            controller.metrics()
        used, seconds = controller.cpu_seconds() - cpu, time.monotonic() - began
        looks = controller.metrics().sum("directdownload_reconcile_duration_seconds_count") - looks
    print(f"quiet: {used:.2f} s of CPU in {seconds:.0f} s, {looks:.0f} reconciles", file=sys.stderr, flush=True)
    assert len(fleet.writes()) == before
    return used / seconds, controller.memory("VmRSS")


@contextlib.contextmanager
def heartbeats(fleet: Fleet) -> Iterator[None]:
    """What kubelets tell of their nodes every five minutes, though nothing has changed."""
    ended = threading.Event()

    def beat() -> int:
        began, sent = time.monotonic(), 0
        with fleet.world.kube() as kube:
            while not ended.is_set():
                patch = {"status": {"conditions": _renewed(kube)}}
                kube.patch(kinds.NODES, seeding.host_name(sent % HOSTS), patch, subresource="status").object()
                sent += 1
                ended.wait(max(0.0, began + sent * HEARTBEAT_SECONDS / HOSTS - time.monotonic()))
        return sent

    # What changes is only when the kubelet has spoken.
    def _renewed(kube: Kube) -> list[dict[str, Any]]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return [{**each, "lastHeartbeatTime": now} for each in conditions]

    with fleet.world.kube() as connection:
        node = connection.get(kinds.NODES, seeding.host_name(0)).object()
    conditions = node["status"]["conditions"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(beat)
        try:
            yield
        finally:
            ended.set()
            print(f"heartbeats: {running.result(60)}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Rollout:
    seconds: float
    cpu: float
    #: per placement
    writes: float
    #: by kind, and of all
    p99: Mapping[str, str]


def rolled_out(fleet: Fleet, controller: Controller) -> Rollout:
    """One more template goes onto every host; Jobs end at once, agents see the files."""
    world, name = fleet.world, "rollout"
    before, writes, cpu = controller.metrics(), len(fleet.writes()), controller.cpu_seconds()
    began = time.monotonic()
    with machines.Machines(world.control_plane.kubeconfig(), world.namespace, name) as simulated:
        world.create_template(name, url="http://images.example.org/rollout.qcow2")
        world.deploy(name, name)

        def converged() -> bool:
            simulated.check()
            time.sleep(1)
            return world.ready_reason(kinds.TEMPLATE_DEPLOYMENTS, name) == "Converged"

        until("the rollout", converged, 1800)
        seconds = time.monotonic() - began
        used = controller.cpu_seconds() - cpu
        until("all observations", lambda: simulated.observed == HOSTS, 120)
    time.sleep(5)
    made = fleet.writes()[writes:]
    counted = collections.Counter((w["verb"], w["objectRef"]["resource"]) for w in made)
    print(f"rollout: {seconds:.0f} s, {used:.0f} s of CPU, {counted}", file=sys.stderr, flush=True)
    after = controller.metrics()
    return Rollout(seconds, used, (len(made) + simulated.observed) / HOSTS, _p99(before, after))


def _p99(before: Metrics, after: Metrics) -> dict[str, str]:
    """The bound of the bucket that holds it, by kind."""
    earlier, total = before.reconciles(), collections.Counter[float]()
    found = {}
    for kind, buckets in after.reconciles().items():
        counts = {bound: count - earlier.get(kind, {}).get(bound, 0) for bound, count in buckets.items()}
        total.update(counts)
        if max(counts.values()):
            found[kind] = f"{_bound(counts)} ({max(counts.values()):.0f} looks)"
    return {"all": _bound(total), **found}


def _bound(counts: Mapping[float, float]) -> str:
    wanted = 0.99 * max(counts.values())
    return f"≤ {next(bound for bound, count in sorted(counts.items()) if count >= wanted):g}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
