"""A real nfs-ganesha that serves a directory over NFS versions 3 and 4: the origin of every test with an nfs URL.

Used by unit tests and the bench. It runs in its own network namespace, with the port mapper that version 3 needs: it
uses the standard ports regardless of other servers on this machine. Needs root, for the namespace and ganesha's VFS.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from tests.world.waiting import until_started

_PORT = 2049
_MOUNT_PORT = 20048

# Without its caches, so that it sees a test's changes to the directory at once.
_CONFIGURATION = """
NFS_CORE_PARAM {{
    NFS_Port = {port};
    MNT_Port = {mount_port};
    Protocols = {versions};
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = false;
}}
NFSv4 {{
    Graceless = true;
    RecoveryBackend = fs;
    RecoveryRoot = {runtime}/recovery;
    Only_Numeric_Owners = true;
}}
EXPORT {{
    Export_Id = 1;
    Path = {directory};
    Pseudo = {pseudo};
    Access_Type = {access};
    Squash = {squash};
    SecType = sys;
    Protocols = {versions};
    PrivilegedPort = {privileged};
    Attr_Expiration_Time = 0;
    FSAL {{ Name = VFS; }}
    {clients}
}}
MDCACHE {{ Dir_Chunk = 0; }}
LOG {{ Default_Log_Level = EVENT; }}
"""

# Another port mapper must not see this one's files in /run; it stays the namespaces' first process.
_NAMESPACE = """
mount -t tmpfs tmpfs /run
mkdir /run/rpcbind /run/ganesha
ip link set lo up
exec rpcbind -f
"""


class Ganesha:
    """Serves `directory` from construction until `stop`; anonymous users can read world-readable files.

    With `privileged_port` it requires a source port below 1024, as most servers do; with `clients` it serves only those
    addresses; with `squash` of `no_root_squash` user 0 reads everything. Version 4 shows the export as `pseudo`,
    version 3 as the directory itself; both are the same by default.
    `host6` is its IPv6 address.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        privileged_port: bool = False,
        versions: tuple[int, ...] = (3, 4),
        pseudo: str = "",
        clients: Collection[str] = (),
        squash: str = "root_squash",
    ) -> None:
        self.directory = directory
        self.versions = versions
        self.pseudo = pseudo or str(directory)
        self.port = _PORT
        number = random.SystemRandom().randrange(2**15)
        # RFC 2544: addresses for tests between devices
        network = f"198.{18 + (number >> 14)}.{(number >> 6) & 255}"
        self.host = f"{network}.{(number & 63) * 4 + 1}"
        self._client = f"{network}.{(number & 63) * 4 + 2}"
        self.host6 = f"fd00:6e66:73::{number:x}:1"
        self._client6 = f"fd00:6e66:73::{number:x}:2"
        self._link = f"nfs{number}"
        self._runtime = pathlib.Path(tempfile.mkdtemp(prefix="ganesha-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration = self._runtime / "ganesha.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                port=_PORT,
                mount_port=_MOUNT_PORT,
                versions=", ".join(map(str, versions)),
                runtime=self._runtime,
                directory=directory,
                pseudo=self.pseudo,
                privileged=str(privileged_port).lower(),
                squash=squash,
                access="NONE" if clients else "RO",
                clients=f"CLIENT {{ Clients = {', '.join(clients)}; Access_Type = RO; }}" if clients else "",
            )
        )
        with (self._runtime / "rpcbind.log").open("wb") as log:
            self._namespace = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-euc", _NAMESPACE],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C on a terminal must not end it before the caller has read its log.
                start_new_session=True,
            )
        try:
            self._wait(pathlib.Path(f"/proc/{self._namespace.pid}/root/run/rpcbind.sock").exists, "rpcbind")
            self._connect_namespace()
            self.start()
        except BaseException:
            self.stop()
            raise

    def url(self, path: str, host: str = "") -> str:
        host = host or self.host
        return f"nfs://{f'[{host}]' if ':' in host else host}{self.pseudo}/{path}"

    @property
    def export(self) -> str:
        """The export in the notation of a source policy."""
        return f"{self.host}:{self.pseudo}"

    @property
    def enter(self) -> list[str]:
        """The prefix of a command that runs in the server's network namespace."""
        return ["nsenter", "--target", str(self._namespace.pid), "--net"]

    def start(self) -> None:
        """Start the server if it does not run; return when it is ready."""
        self._log.unlink(missing_ok=True)
        with (self._runtime / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [
                    *(*self.enter, "--mount", "--", _program("ganesha.nfsd", "nfs-ganesha-vfs"), "-F"),
                    *("-f", str(self._configuration), "-L", str(self._log), "-p", str(self._runtime / "pid")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        self._wait(self._ready, "ganesha")

    def kill(self) -> None:
        """End the server as a power failure does: clients get only resets."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def suspend(self) -> None:
        """Keep connections open without answers, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything and remove its runtime files; the served directory stays. The link goes with its namespace."""
        self.kill()
        self._namespace.kill()
        self._namespace.wait()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log(self) -> pathlib.Path:
        return self._runtime / "ganesha.log"

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server does not run"
        self._process.send_signal(number)

    def _connect_namespace(self) -> None:
        commands = [
            [
                "ip",
                "link",
                "add",
                self._link,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                str(self._namespace.pid),
            ],
            ["ip", "address", "add", f"{self._client}/30", "dev", self._link],
            ["ip", "address", "add", f"{self._client6}/112", "dev", self._link, "nodad"],
            ["ip", "link", "set", self._link, "up"],
            [*self.enter, "ip", "address", "add", f"{self.host}/30", "dev", "eth0"],
            [*self.enter, "ip", "address", "add", f"{self.host6}/112", "dev", "eth0", "nodad"],
            [*self.enter, "ip", "link", "set", "eth0", "up"],
        ]
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)

    def _ready(self) -> bool:
        # it listens long before it registers with the port mapper
        return self._log.exists() and "NFS SERVER INITIALIZED" in self._log.read_text(errors="replace")

    def _wait(self, condition: Callable[[], bool], name: str) -> None:
        def words() -> str:
            logs = [path.read_text(errors="replace")[-2000:] for path in sorted(self._runtime.glob("*[lr][or][gr]"))]
            return f"{name} did not start: {' '.join(logs)}"

        until_started(self._process or self._namespace, condition, words)


def available() -> bool:
    """Whether this process may run one: as root. The programs are those of tests/cluster/tools.sh."""
    return os.geteuid() == 0


def _program(name: str, package: str) -> str:
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin:/usr/bin:/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise RuntimeError(f"{name} is not installed: install the package {package}")
    return found
