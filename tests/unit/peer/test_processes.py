"""The two processes as the chart starts them: the opener as root, the server as a user without rights."""

import contextlib
import http.client
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from tests.world import checkout, waiting
from tests.world.peerclient import Wire
from tests.world.peers import MIB, Fleet, PeerHost, SharedFile

from directdownload.resources import peers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a process as another user")


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    """One that other users may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


@contextlib.contextmanager
def running(*arguments: str, user: int = 0) -> Iterator["subprocess.Popen[bytes]"]:
    """With the rights that the chart gives each: root has one capability, and is in the group of the server."""
    command = [shutil.which("setpriv") or "setpriv", f"--reuid={user}", f"--regid={user}", "--no-new-privs"]
    of_root = [f"--groups={peers.SERVER_UID}", "--bounding-set=-all,+dac_read_search"]
    process = subprocess.Popen(
        [
            *command,
            *(["--clear-groups", "--bounding-set=-all"] if user else of_root),
            checkout.DIRECTDOWNLOAD,
            "peer",
            *arguments,
        ],
        env=checkout.environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def probed(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


def owned_by_the_server(host: PeerHost) -> None:
    """As the agent leaves it: nobody else may read the keys. The files of the pool stay those of root."""
    for path, mode in ((host.server_directory, 0o750), *((path, 0o640) for path in host.server_directory.iterdir())):
        os.chown(path, 0, peers.SERVER_UID)
        path.chmod(mode)
    host.pool.chmod(0o700)


def test_a_server_without_rights_gives_a_file_that_only_root_can_read(directory: pathlib.Path) -> None:
    fleet = Fleet(directory)
    seed, reader = fleet.host("kvm-1"), fleet.host("kvm-2")
    file = SharedFile.of(3 * MIB)
    seed.begin(file, warrant=fleet.warrant(file, seed))
    seed.write(file, range(3))
    final = seed.publish(file)
    final.chmod(0o600)
    owned_by_the_server(seed)
    socket = directory / "run" / "opener.sock"
    socket.parent.mkdir()
    health = fleet.port + 1
    paths = (f"--directory={seed.server_directory}", f"--opener-socket={socket}", f"--health-port={health}")
    with running("server", *paths, user=peers.SERVER_UID) as server:
        waiting.until("liveness", lambda: probed(health, "/healthz") == (200, "ok"))
        assert "the opener does not answer" in probed(health, "/readyz")[1]
        with running(
            "opener", f"--pool-root={directory}", f"--directory={seed.server_directory}", f"--socket={socket}"
        ):
            waiting.until("readiness", lambda: probed(health, "/readyz") == (200, "ok"))
            assert (socket.stat().st_uid, socket.stat().st_gid) == (0, peers.SERVER_UID)
            assert socket.stat().st_mode & 0o777 == 0o660
            with Wire(seed, reader) as wire:
                answer = wire.piece(file, 1, fleet.grant(file, reader))
            assert answer.body == file.piece(1)
            sent = "directdownload_peer_sent_bytes_total 1.048576e+06\n"
            waiting.until("the metric", lambda: sent in probed(health, "/metrics")[1])
            assert probed(health, "/other")[0] == 404
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=waiting.DEADLINE_SECONDS) == 0


def test_an_opener_ends_when_it_is_asked_to(directory: pathlib.Path) -> None:
    path = directory / "opener.sock"
    with running("opener", "--pool-root=/", f"--directory={directory}", f"--socket={path}") as process:
        waiting.until("the socket", path.exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=waiting.DEADLINE_SECONDS) == 0


def test_an_opener_does_not_take_the_place_of_what_is_no_socket(directory: pathlib.Path) -> None:
    path = directory / "opener.sock"
    path.write_text("precious")
    with running("opener", "--pool-root=/", f"--directory={directory}", f"--socket={path}") as process:
        assert process.wait(timeout=waiting.DEADLINE_SECONDS) == 1
    assert path.read_text() == "precious"
