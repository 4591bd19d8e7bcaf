"""Hosts with links of their own that serve each other: network namespaces, the product's processes, an origin. As root.

    with Network(tmp_path, "image", hosts=8, rate="100mbit") as network:
        ends = network.fetch()              # the first host is the Seed, the others are Peers
        network.origin_bytes

Each host has a namespace, and a link of `rate` in each direction to a bridge in a further one; so has the origin. The
root namespace gets no interface. All has the number of this process in its name, and what a killed one has left is
removed at the next start.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from tests.world import checkout
from tests.world.origin import Origin
from tests.world.peers import Fleet, PeerHost, SharedFile
from tests.world.waiting import closely, until_started

from directdownload.resources import peers
from directdownload.resources.jobs import (
    JOB_ENVIRONMENT_VARIABLE,
    JobDocument,
    JobPool,
    JobResult,
    Limits,
    PeerRole,
    Verb,
)

_PREFIX = "ddpeers"
_NETWORK = "10.83.0"
_ORIGIN = f"{_NETWORK}.250"
_PARENTS = 16
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Of one process with its children: the CPU time, and the most memory (VmHWM) that each had, together."""

    cpu_seconds: float
    most_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """Of one job. `seconds`: since all jobs were started."""

    host: PeerHost
    result: JobResult
    seconds: float
    usage: Usage


class _Nginx(Origin):
    """Nobody in this namespace can connect to it."""

    def _wait_until_it_answers(self) -> None:
        until_started(self._process, (self._runtime / "nginx.pid").exists, lambda: "nginx did not start")


class Network:
    """`hosts` hosts with a server each, and an origin that serves `file`."""

    def __init__(self, directory: pathlib.Path, file: SharedFile, *, hosts: int, rate: str) -> None:
        self._directory, self._rate = directory, rate
        self.file = file
        self.fleet = Fleet(directory / "hosts")
        self.fleet.network = _NETWORK
        self.hosts = [self.fleet.host(f"kvm-{number + 1}") for number in range(hosts)]
        self.origin: Origin | None = None
        self._stack = contextlib.ExitStack()
        self._bridge = _name("bridge")
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            _sweep()
            self._add_namespace(stack, self._bridge)
            _run(f"ip -n {self._bridge} link add br0 type bridge", f"ip -n {self._bridge} link set br0 up")
            for number, (name, address) in enumerate(
                [("origin", _ORIGIN), *((host.name, host.address) for host in self.hosts)]
            ):
                self._add_namespace(stack, _name(name))
                self._link(_name(name), number, address)
            served = self._directory / "served"
            served.mkdir()
            served.chmod(0o755)
            (served / "image.raw").write_bytes(self.file.data)
            self.origin = stack.enter_context(_Nginx(served, _ORIGIN, port=80, prefix=_inside("origin")))
            for host in self.hosts:
                self._serve(stack, host)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def origin_bytes(self) -> int:
        """That the origin has sent, in finished requests."""
        return sum(request.bytes_sent for request in self.origin.requests()) if self.origin is not None else 0

    def fetch(self, *, shared: bool = True, hosts: int | None = None) -> list[End]:
        """The file on the first `hosts` hosts, all of which start at once. Not `shared`: each reads the origin."""
        chosen = self.hosts[:hosts]
        began = time.monotonic()
        ends: list[End] = []
        processes = [self._start(host, number, shared) for number, host in enumerate(chosen)]
        waiters = [
            threading.Thread(target=self._wait, args=(host, process, began, ends))
            for host, process in zip(chosen, processes, strict=True)
        ]
        try:
            for waiter in waiters:
                waiter.start()
            for waiter in waiters:
                waiter.join()
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL) if process.returncode is None else None
        return ends

    def check(self, ends: Sequence[End]) -> None:
        """Raises RuntimeError unless all of `ends` have fetched the very file."""
        for end in ends:
            path = end.host.pool / self.file.template_uid
            if not end.result.done or hashlib.sha256(path.read_bytes()).hexdigest() not in self.file.checksum:
                raise RuntimeError(f"{end.host.name}: {end.result.reason}: {end.result.message}")

    def server_usage(self, host: PeerHost) -> Usage:
        """Of the server, without the opener."""
        return _usage(self._servers[host.name].pid)

    def forget(self) -> None:
        """Remove all copies, and what belongs to them."""
        for host in self.hosts:
            for path in (*host.pool.iterdir(), *host.work.iterdir()):
                if path.is_file():
                    path.unlink()

    def _start(self, host: PeerHost, number: int, shared: bool) -> subprocess.Popen[bytes]:
        document = JobDocument(
            verb=Verb.FETCH,
            placement=host.name,
            placement_uid=host.name,
            template_uid=self.file.template_uid,
            host=host.name,
            pool=JobPool(name="images", path=str(host.pool), reserve="0"),
            file_name=self.file.template_uid,
            url=f"http://{_ORIGIN}/image.raw",
            checksum=self.file.checksum,
            format="RAW",
            # nginx counts what it has given to the kernel: of one more connection, on trial, some is never read
            limits=Limits(connections=1),
            seal_directory="",
        )
        if shared:
            document = document.model_copy(update={"peers": self._peers(host, seed=not number)})
        told = document.model_dump_json(exclude_defaults=True)
        with (self._directory / f"{host.name}.job").open("ab") as log:
            return subprocess.Popen(
                [*_inside(host.name), checkout.DIRECTDOWNLOAD, "job", "fetch"],
                env=checkout.environment(**{JOB_ENVIRONMENT_VARIABLE: told}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def _peers(self, host: PeerHost, *, seed: bool) -> object:
        role = PeerRole.SEED if seed else PeerRole.PEER
        number = self.hosts.index(host)
        parents = [*self.hosts[number + 1 :], *self.hosts[:number]][: _PARENTS - 1]
        if self.hosts[0] not in (host, *parents):
            parents.append(self.hosts[0])
        warrant = self.fleet.warrant(self.file, host) if seed else ""
        return self.fleet.job_peers(self.file, host, role, parents=() if seed else parents, warrant=warrant)

    def _wait(self, host: PeerHost, process: subprocess.Popen[bytes], began: float, ends: list[End]) -> None:
        assert process.stdout is not None
        most: dict[int, int] = {}
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        while not pid:
            # What the kernel reports at the end is not less than this process had when it started the job.
            for each in _family(process.pid):
                with contextlib.suppress(OSError, StopIteration):
                    most[each] = _most_bytes(each)
            time.sleep(_POLL_SECONDS)
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        with process.stdout:
            result = JobResult.model_validate(json.loads(process.stdout.read().splitlines()[-1]))
        ends.append(End(host, result, seconds, Usage(used.ru_utime + used.ru_stime, sum(most.values()))))

    def _serve(self, stack: contextlib.ExitStack, host: PeerHost) -> None:
        directory, socket = str(host.server_directory), host.opener_socket
        opener = ["opener", "--pool-root", str(host.pool), "--directory", directory, "--socket", socket]
        server = ["server", "--directory", directory, "--opener-socket", socket, "--health-address", "127.0.0.1"]
        self._run_peer(stack, host, opener)
        closely(f"the opener of {host.name}", lambda: os.path.exists(socket))
        self._servers[host.name] = self._run_peer(stack, host, server)
        listens = ["ss", "-Hltn", f"sport = :{host.port}"]
        closely(
            f"the server of {host.name}",
            lambda: subprocess.run([*_inside(host.name), *listens], check=True, capture_output=True).stdout,
        )

    def _run_peer(self, stack: contextlib.ExitStack, host: PeerHost, words: Sequence[str]) -> subprocess.Popen[bytes]:
        log = stack.enter_context((self._directory / f"{host.name}.{words[0]}").open("wb"))
        process = subprocess.Popen(
            [*_inside(host.name), checkout.DIRECTDOWNLOAD, "peer", *words],
            env=checkout.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C on a terminal is for this process, which ends it.
            start_new_session=True,
        )
        stack.callback(_end, process)
        return process

    def _add_namespace(self, stack: contextlib.ExitStack, name: str) -> None:
        _run(f"ip netns add {name}")
        stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        _run(f"ip -n {name} link set lo up")

    def _link(self, name: str, number: int, address: str) -> None:
        port = f"port{number}"
        limit = f"root tbf rate {self._rate} burst 256kb latency 100ms"
        _run(
            f"ip -n {self._bridge} link add {port} type veth peer name eth0 netns {name}",
            f"ip -n {self._bridge} link set {port} master br0 up",
            f"ip -n {name} addr add {address}/24 dev eth0",
            f"ip -n {name} link set eth0 up",
            f"ip netns exec {name} tc qdisc add dev eth0 {limit}",
            f"ip netns exec {self._bridge} tc qdisc add dev {port} {limit}",
        )


def _name(of: str) -> str:
    return f"{_PREFIX}-{os.getpid()}-{of}"


def _inside(of: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", _name(of))


def _run(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True)


def _sweep() -> None:
    """Ends and removes what a run has left that was killed."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    for name in (line.split()[0] for line in listed.splitlines() if line.startswith(f"{_PREFIX}-")):
        maker = name.split("-")[1]
        if not os.path.exists(f"/proc/{maker}"):
            left = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True).stdout
            for pid in left.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _usage(pid: int) -> Usage:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), _most_bytes(pid))


def _most_bytes(pid: int) -> int:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _family(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]
    return []


@contextlib.contextmanager
def network(directory: pathlib.Path, size_bytes: int, *, hosts: int, rate: str = "100mbit") -> Iterator[Network]:
    """With a file of `size_bytes` in pieces as the controller would choose them."""
    file = SharedFile.of(size_bytes, piece_bytes=peers.piece_bytes(size_bytes))
    with Network(directory, file, hosts=hosts, rate=rate) as made:
        yield made
