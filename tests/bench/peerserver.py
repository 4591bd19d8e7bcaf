"""What a peer server costs: CPU time per GiB, memory with as many connections as it takes.

The two processes as the chart starts them, one host that asks for pieces over loopback and looks at none, and a file in
the page cache. The host is no Seed, so that a piece may be asked for again.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator

from tests.world import checkout, waiting
from tests.world.peerclient import Wire
from tests.world.peers import MIB, Fleet, PeerHost, SharedFile

from directdownload.peer import clients

PIECES_MIB = (16, 1)
FILE_BYTES = int(os.environ.get("PEERSERVER_MIB", "1024")) * MIB
#: Waiting, and no bytes: these seconds show what an idle server costs.
_IDLE_SECONDS = 10
_TICKS = os.sysconf("SC_CLK_TCK")


class Processes:
    """Server and opener of one host."""

    def __init__(self, server: "subprocess.Popen[bytes]", host: PeerHost) -> None:
        self.server = server
        self.host = host

    def cpu_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mib(self) -> int:
        lines = pathlib.Path(f"/proc/{self.server.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


@contextlib.contextmanager
def running(fleet: Fleet, host: PeerHost) -> Iterator[Processes]:
    path, directory = fleet.directory / "opener.sock", f"--directory={host.server_directory}"
    commands = (
        ("server", f"--opener-socket={path}", "--health-port=0", "--health-address=127.0.0.1", directory),
        ("opener", f"--pool-root={fleet.directory}", f"--socket={path}", directory),
    )
    with contextlib.ExitStack() as stack:
        started = []
        for command in commands:
            arguments = [checkout.DIRECTDOWNLOAD, "peer", *command, "--log-level=warning"]
            started.append(stack.enter_context(subprocess.Popen(arguments, env=checkout.environment())))
            stack.callback(started[-1].kill)
        waiting.until("the opener", path.exists)
        waiting.until("the server", lambda: _listens(host))
        yield Processes(started[0], host)


def _listens(host: PeerHost) -> bool:
    try:
        socket.create_connection((host.address, host.port)).close()
    except OSError:
        return False
    return True


def _read(host: PeerHost, reader: PeerHost, file: SharedFile, grant: str, indices: range) -> None:
    """Ask for pieces one after another, and look at none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(reader.client_directory / "tls.crt", reader.client_directory / "tls.key")
    room = bytearray(2**18)
    with Wire(host, reader, context) as wire:
        for index in indices:
            wire.ask(f"/v1/{file.content}/pieces/{index}", grant)
            status, fields = wire.head()
            if status != 200:
                raise RuntimeError(f"the server answers {status}")
            left = int(fields["content-length"]) - len(wire.rest())
            while left:
                came = wire.socket.recv_into(room, min(left, len(room)))
                if not came:
                    raise RuntimeError(f"the server ends piece {index} with {left} bytes missing")
                left -= came


def _reading(processes: Processes, fleet: Fleet, file: SharedFile, connections: int) -> float:
    """CPU seconds per GiB of the server, while so many hosts read the file together."""
    host = processes.host
    readers = [fleet.host(f"reader-{len(fleet.hosts)}") for _ in range(connections)]
    threads = [
        threading.Thread(
            target=_read, args=(host, reader, file, fleet.grant(file, reader), range(number, file.pieces, connections))
        )
        for number, reader in enumerate(readers)
    ]
    before = processes.cpu_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (processes.cpu_seconds() - before) / (len(file.data) / 2**30)


def _crowd(processes: Processes, fleet: Fleet, file: SharedFile) -> tuple[int, float]:
    """Memory with all connections that the server takes, half of them streams, and CPU seconds per second then."""
    with contextlib.ExitStack() as stack:
        for number in range(clients.CLIENTS_LIMIT):
            if number % clients.CLIENTS_PER_HOST == 0:
                reader = fleet.host(f"reader-{len(fleet.hosts)}")
                grant = fleet.grant(file, reader)
            wire = stack.enter_context(Wire(processes.host, reader))
            if number % 2:
                wire.ask(f"/v1/{file.content}/state", grant)
                wire.head()
            else:
                wire.piece(file, number % file.pieces, grant)
        before = processes.cpu_seconds()
        time.sleep(_IDLE_SECONDS)
        return processes.memory_mib(), (processes.cpu_seconds() - before) / _IDLE_SECONDS


def measure() -> str:
    lines = [
        "| peer server | first time, hashed | again, 1 connection | again, 3 connections |",
        "|---|---|---|---|",
    ]
    for piece_mib in PIECES_MIB:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="peerserver-"))
        try:
            fleet = Fleet(directory)
            host, seed = fleet.host("kvm-1"), fleet.host("kvm-2")
            file = SharedFile(os.urandom(FILE_BYTES), str(uuid.uuid4()), piece_mib * MIB)
            host.begin(file, warrant=fleet.warrant(file, seed))
            host.write(file, range(file.pieces), signer=seed)
            with running(fleet, host) as processes:
                small = processes.memory_mib()
                found = [_reading(processes, fleet, file, connections) for connections in (1, 1, 3)]
                words = " | ".join(f"{seconds:.2f}" for seconds in found)
                lines.append(f"| CPU s/GiB, pieces of {piece_mib} MiB | {words} |")
                memory, idle = _crowd(processes, fleet, file)
        finally:
            shutil.rmtree(directory)
    lines.append("")
    lines.append(
        f"Memory: {small} MiB at the start, {memory} MiB with {clients.CLIENTS_LIMIT} connections, half of them "
        f"streams. These use {idle:.1%} of a core while nothing changes."
    )
    return "\n".join(lines)
