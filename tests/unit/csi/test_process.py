"""`directdownload csi` as a process: small, with few privileges, and gone without a trace but its mounts."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from grpclib.exceptions import GRPCError, StreamTerminatedError
from tests.world import checkout, private_mounts, waiting
from tests.world.csi_world import CONTENT, VOLUME, Agent, Host, Kubelet

from directdownload.csi import messages, mounts
from directdownload.hostfiles import mountinfo
from directdownload.resources import volumes

MS_BIND, MS_SHARED = 0x1000, 1 << 20

#: Of libraries that a plugin on every host must not pay for.
HEAVY = ("pydantic", "pydantic_core", "aiohttp", "kubernetes", "kopf", "rich", "google.protobuf", "cryptography")
#: CAP_SYS_ADMIN
ONLY = f"{1 << 21:016x}"
_MODULES = """
import json, sys
from directdownload.cli import main
try:
    main.run(["csi", "--node-name", "n", "--pool-root", "/nonexistent", "--kubelet-directory", "/nonexistent"])
except SystemExit:
    pass
print(json.dumps(list(sys.modules)))
"""


#: A container of which kubelet's directory is mounted with Bidirectional propagation, or whatever `$0` says.
_CONTAINER = 'mount --bind "$1" "$1"; mount --make-$0 "$1"; shift; exec "$@"'


def of_its_own(host: Host, propagation: str = "shared") -> tuple[str, ...]:
    alone = ("unshare", "--mount", "--propagation", "private")
    return (*alone, "sh", "-ec", _CONTAINER, propagation, str(host.kubelet))


class Plugin:
    """The process, in a mount namespace of its own."""

    def __init__(self, host: Host, container: tuple[str, ...] = ()) -> None:
        self.host = host
        command = [checkout.DIRECTDOWNLOAD, "csi", "--node-name=kvm-1", f"--kubelet-directory={host.kubelet}"]
        command += [f"--pool-root={host.pool.parent}", f"--agent-socket={host.agent_socket}"]
        self.log = host.directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*(container or of_its_own(host)), *command], env=checkout.environment(), stderr=log
            )

    def until_it_listens(self) -> None:
        def listening() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return "CSI plugin " in self.log.read_text()

        waiting.until("the plugin listens", listening)

    def inside(self, path: pathlib.Path) -> pathlib.Path:
        """`path` with the mounts of the process."""
        return pathlib.Path(f"/proc/{self.process.pid}/root{path}")

    def status(self) -> list[dict[str, str]]:
        """`/proc/PID/status` of each thread."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        return [
            dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            for task in tasks.iterdir()
        ]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=120)


@pytest.fixture
def started(host: Host) -> Iterator[Plugin]:
    found = Plugin(host)
    try:
        found.until_it_listens()
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def call(started: Plugin, answer: volumes.Answer, unpublish: bool = False) -> None:
    """kubelet publishes, and perhaps unpublishes."""

    async def body() -> None:
        kubelet = Kubelet(started.host.settings().socket)
        try:
            async with Agent(lambda _: answer).serving(started.host.agent_socket) as agent:
                await kubelet.publish(started.host.request())
                if unpublish:
                    await kubelet.unpublish(started.host.target())
                    await waiting.until_async("told", lambda: volumes.Unpublish(VOLUME) in agent.requests)
        finally:
            kubelet.close()

    asyncio.run(body())


def test_every_thread_has_one_capability_and_can_gain_none(started: Plugin) -> None:
    call(started, started.host.ready())
    threads = started.status()
    # the watchdog is one
    assert len(threads) > 1
    for each in threads:
        assert [each[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [
            "0" * 16,
            ONLY,
            ONLY,
            ONLY,
            "0" * 16,
        ]
        assert each["NoNewPrivs"].strip() == "1"
        assert each["Umask"].strip() == "0077"


def test_the_process_has_no_network(started: Plugin) -> None:
    own = os.readlink("/proc/self/ns/net")
    assert {os.readlink(task / "ns/net") for task in pathlib.Path(f"/proc/{started.process.pid}/task").iterdir()} != {
        own
    }
    devices = pathlib.Path(f"/proc/{started.process.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_volumes_are_mounted_with_what_privileges_remain_and_outlive_the_process(started: Plugin) -> None:
    disk = started.host.target() / "disk.img"
    call(started, started.host.ready())
    assert started.inside(disk).read_bytes() == CONTENT
    with open(f"/proc/{started.process.pid}/ns/mnt") as namespace:
        assert started.end(signal.SIGTERM) == 0
        looking = ["nsenter", f"--mount=/proc/self/fd/{namespace.fileno()}", "cat", str(disk)]
        found = subprocess.run(looking, pass_fds=[namespace.fileno()], capture_output=True, check=True)
    assert found.stdout == CONTENT
    assert not os.path.exists(started.host.settings().socket)
    assert "Traceback" not in started.log.read_text()


def test_volumes_are_unmounted_with_what_privileges_remain(started: Plugin) -> None:
    call(started, started.host.ready(), unpublish=True)
    assert not os.path.lexists(started.inside(started.host.target()))


def test_a_pool_that_is_closed_to_root_without_capabilities_is_named(started: Plugin) -> None:
    os.chown(started.host.pool, 65531, 65531)
    started.host.pool.chmod(0o700)
    with pytest.raises(GRPCError, match="cannot be opened: root must be able to enter its directories"):
        call(started, started.host.ready())


@private_mounts.alone
def test_volumes_reach_the_host_complete_and_go_there_as_well(host: Host) -> None:
    # kubelet's directory is shared between the host, which is this thread, and the container
    kubelet = str(host.kubelet)
    private_mounts.mount(kubelet, kubelet, "", MS_BIND)
    private_mounts.mount("", kubelet, "", MS_SHARED)
    plugin = Plugin(host, ("unshare", "--mount", "--propagation", "unchanged"))
    try:
        plugin.until_it_listens()
        call(plugin, host.ready())
        assert isinstance(mounts.at(mountinfo.read(), str(host.target())), volumes.MountedVolume)
        # as a runtime does for a pod that asks for rw
        subprocess.run(["mount", "-o", "remount,bind,rw", host.target()], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            (host.target() / "other").write_bytes(b"")
        with pytest.raises(OSError, match="Read-only file system"):
            (host.target() / mounts.DISK).write_bytes(b"")
        call(plugin, host.ready(), unpublish=True)
        assert not os.path.lexists(host.target())
    finally:
        plugin.end(signal.SIGKILL)


def test_sigterm_ends_calls_that_wait(started: Plugin) -> None:
    async def body() -> None:
        kubelet = Kubelet(started.host.settings().socket)
        agent = Agent(lambda _: asyncio.sleep(600, volumes.Answer()))
        async with agent.serving(started.host.agent_socket):
            waits = asyncio.create_task(kubelet.publish(started.host.request()))
            await waiting.until_async("asked", lambda: agent.requests)
            assert await asyncio.to_thread(started.end, signal.SIGTERM) == 0
            (outcome,) = await asyncio.gather(waits, return_exceptions=True)
            assert isinstance(outcome, GRPCError | StreamTerminatedError)
        kubelet.close()

    asyncio.run(body())
    assert "Traceback" not in started.log.read_text()


def test_a_plugin_that_was_killed_is_replaced(started: Plugin) -> None:
    started.end(signal.SIGKILL)
    assert os.path.exists(started.host.settings().socket)
    second = Plugin(started.host)
    try:
        second.until_it_listens()

        async def body() -> Any:
            kubelet = Kubelet(started.host.settings().socket)
            found = await kubelet.call("/csi.v1.Node/NodeGetInfo", messages.Empty(), messages.NodeGetInfoResponse)
            kubelet.close()
            return found

        assert asyncio.run(body()) == messages.NodeGetInfoResponse(node_id="kvm-1")
    finally:
        second.end(signal.SIGTERM)


def test_nothing_heavy_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MODULES], env=checkout.environment(), capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert "directdownload.csi.server" in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_the_process_stays_small(started: Plugin) -> None:
    call(started, started.host.ready())
    (resident,) = {int(each["VmRSS"].split()[0]) for each in started.status()}
    # 27 MB with Python 3.11
    assert resident < 40 * 1024


_STUCK = """
import asyncio, time
from directdownload.csi import watchdog
async def main():
    watch = asyncio.create_task(watchdog.run(float({seconds})))
    await asyncio.sleep(0.5)
    print("alive", flush=True)
    time.sleep({stuck})
    watch.cancel()
asyncio.run(main())
"""


def test_an_event_loop_that_stands_still_ends_the_process_with_its_stacks() -> None:
    program = _STUCK.format(seconds=0.2, stuck=100)
    done = subprocess.run(
        [sys.executable, "-c", program], env=checkout.environment(), capture_output=True, text=True, timeout=60
    )
    # it lived longer than the limit while it went on
    assert (done.returncode, done.stdout) == (1, "alive\n")
    assert "Timeout" in done.stderr


def test_a_watchdog_that_is_cancelled_ends_nothing() -> None:
    program = _STUCK.format(seconds=30, stuck=0)
    done = subprocess.run([sys.executable, "-c", program], env=checkout.environment(), timeout=60)
    assert done.returncode == 0


def _problem(host: Host, *arguments: str, prefix: tuple[str, ...] = (), propagation: str = "shared") -> str:
    command = [*prefix, checkout.DIRECTDOWNLOAD, "csi", "--node-name=n", *arguments]
    done = subprocess.run(
        [*of_its_own(host, propagation), *command],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_process_without_privileges_says_what_it_expects(host: Host) -> None:
    arguments = (f"--kubelet-directory={host.kubelet}", f"--pool-root={host.pool}")
    words = _problem(host, *arguments, prefix=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"))
    assert "privileges cannot be dropped" in words
    assert "expected a privileged container" in words


@pytest.mark.parametrize(
    ("kubelet", "pool", "words"),
    [
        ("gone", "images", "gone/pods: expected a directory; set --kubelet-directory to kubelet's --root-dir"),
        ("link", "images", "link: expected an absolute path without links; name"),
        ("kubelet", "linked", "linked: expected an absolute path without links; name"),
    ],
)
def test_a_directory_that_is_none_is_named(host: Host, kubelet: str, pool: str, words: str) -> None:
    (host.directory / "link").symlink_to(host.kubelet)
    (host.directory / "linked").symlink_to(host.pool)
    arguments = (f"--kubelet-directory={host.directory / kubelet}", f"--pool-root={host.directory / pool}")
    assert words in _problem(host, *arguments)


def test_a_directory_of_which_mounts_do_not_reach_the_host_is_named(host: Host) -> None:
    arguments = (f"--kubelet-directory={host.kubelet}", f"--pool-root={host.pool}")
    words = _problem(host, *arguments, propagation="private")
    assert f"{host.kubelet}/pods: mounts do not reach the host; expected mountPropagation: Bidirectional" in words


def test_a_socket_that_cannot_be_made_is_named(host: Host) -> None:
    pathlib.Path(host.settings().socket).mkdir()
    words = _problem(host, f"--kubelet-directory={host.kubelet}", f"--pool-root={host.pool}")
    assert "cannot be made: " in words
    assert "expected a socket or nothing" in words


def test_privileges_are_dropped_before_there_are_threads() -> None:
    program = """
import threading
from directdownload.csi import privileges
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    privileges.drop()
except privileges.PrivilegesError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=checkout.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "privileges are dropped before there are threads\n"
