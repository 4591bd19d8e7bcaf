"""The real parts of Kubernetes for tests: a control plane without nodes, and the paths of the local cluster.

Used by the fixtures of tests/api and tests/bench. `ControlPlane` is a real etcd and kube-apiserver (on request also the
controller manager) in a temporary directory on free loopback ports, so that it runs beside the local cluster and other
control planes. Its processes end with `stop()`, at interpreter exit, and when the test process is killed. Start it from
a thread that outlives it (the main thread): Linux ties the last of these promises to that thread.
"""

import atexit
import base64
import contextlib
import dataclasses
import fcntl
import functools
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import types
import typing

import yaml
from cryptography.x509 import oid
from tests.world import certificates
from tests.world.certificates import Certificate

CLUSTER_DIRECTORY = pathlib.Path(__file__).resolve().parent
ISSUER = "https://kubernetes.default.svc"
STARTUP_TIMEOUT_SECONDS = 60.0
ADMINISTRATORS = ("system:masters",)
#: Go's garbage collector would take a fifth of a control plane's time; tests have the memory. Several processors make
#: its scheduler look for work where there is none, on a machine where others wait for them.
_GO = {"GOGC": "800", "GOMAXPROCS": "1"}
#: Of kubectl and helm, which end before memory matters.
BRIEF_GO = {"GOGC": "off"}
#: How long certificates are valid, from today.
_DAYS = (-1, 7)


class ControlPlaneError(RuntimeError):
    """A process of the control plane ended or did not become ready; the message has the end of its log."""


def state_root() -> pathlib.Path:
    """The directory of binaries and of the local cluster; the same rule as in lib.sh."""
    return pathlib.Path(os.environ.get("DIRECTDOWNLOAD_CLUSTER_ROOT") or "/var/tmp/directdownload-cluster")


def host_directory(node: str) -> pathlib.Path:
    """The directory of a node's files on this machine: `host_directory("kvm-1") / "var/lib/libvirt/images"`."""
    return state_root() / "nodes" / node / "host"


def cluster_audit_log() -> pathlib.Path:
    """The audit log of the local cluster (not of a `ControlPlane`)."""
    return state_root() / "logs" / "audit.log"


def read_audit_log(path: pathlib.Path) -> list[dict[str, typing.Any]]:
    """Audit events in the order of writing; an unfinished last line is left for the next call.

    A request whose token was not accepted has no user: its name is empty then.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    for event in events:
        event["user"].setdefault("username", "")
    return events


@functools.cache
def use_cluster_alone() -> None:
    """Wait until no other e2e, bench or demo run uses this machine's local cluster; hold it until this process ends.

    All of them install into it under the same names, and take it down at the end.
    """
    root = state_root()
    root.mkdir(parents=True, exist_ok=True)
    # Never closed: the kernel releases the lock at the end of the process.
    descriptor = os.open(root / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write("another run uses the local cluster of this machine: waiting for it to end\n")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


@functools.cache
def ensure_tools() -> pathlib.Path:
    """Build the Kubernetes program unless it exists (minutes, once per machine); return the directory of binaries."""
    script = CLUSTER_DIRECTORY / "tools.sh"
    try:
        # Not captured: a user who waits for minutes must see the reason.
        subprocess.run([str(script), "kube"], check=True)
    except subprocess.CalledProcessError as error:
        raise ControlPlaneError(
            f"{script} kube ended with {error.returncode}; its messages say what is missing"
        ) from error
    return state_root() / "bin"


class _Authority:
    """A certificate authority whose certificates pass strict verification (key usage, key identifiers)."""

    def __init__(self) -> None:
        name = certificates.common_name("directdownload-test-ca")
        self._certificate = Certificate(subject=name, authority=True, days=_DAYS, strict=True)

    @property
    def pem(self) -> bytes:
        return self._certificate.pem

    def issue(self, user: str, groups: typing.Sequence[str] = (), *, server: bool = False) -> tuple[bytes, bytes]:
        """A certificate and its key as PEM; Kubernetes reads the user from CN and the groups from O."""
        issued = Certificate(
            *(("localhost", "127.0.0.1") if server else ()),
            subject=certificates.common_name(user, groups),
            issuer=self._certificate,
            authority=False,
            days=_DAYS,
            strict=True,
            purpose=oid.ExtendedKeyUsageOID.SERVER_AUTH if server else oid.ExtendedKeyUsageOID.CLIENT_AUTH,
        )
        return issued.pem, issued.key_pem


def _write_private(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Write atomically: one thread may read a kubeconfig while another writes it."""
    descriptor, beside = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, "wb") as file:
        file.write(content)
    return pathlib.Path(beside).rename(path)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; each is held until all are chosen, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclasses.dataclass(frozen=True, slots=True)
class _Daemon:
    name: str
    process: subprocess.Popen[bytes]
    log: pathlib.Path


class ControlPlane:
    """etcd and kube-apiserver with RBAC, NodeRestriction, service account tokens and an audit log; no nodes.

    With `controller_manager=True` Kubernetes' controllers run too: namespaces can then be deleted, default service
    accounts appear, owner references are honoured, and Jobs get Pods (which nothing runs).
    """

    def __init__(self, *, controller_manager: bool = False) -> None:
        self._with_controller_manager = controller_manager
        self._daemons: list[_Daemon] = []
        self._authority = _Authority()
        self._bin = state_root() / "bin"
        self._kubeconfigs: dict[tuple[str, ...], pathlib.Path] = {}
        self.directory = pathlib.Path()
        self.url = ""
        #: of etcd, which requires no credentials
        self.etcd_url = ""

    @property
    def audit_log(self) -> pathlib.Path:
        """One JSON object per line for each write of the product, see audit-policy.yaml; `read_audit_log` parses it."""
        return self.directory / "audit.log"

    @property
    def ca_file(self) -> pathlib.Path:
        return self.directory / "ca.crt"

    def start(self) -> typing.Self:
        """Start everything and return when the API server is ready. Raises ControlPlaneError."""
        self._bin = ensure_tools()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="directdownload-control-plane-"))
        atexit.register(self.stop)
        try:
            self._start_api_server()
            if self._with_controller_manager:
                self._start_controller_manager()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the processes and remove the directory. Idempotent."""
        atexit.unregister(self.stop)
        # No state is kept, so the processes need no orderly end.
        for daemon in self._daemons:
            daemon.process.kill()
        for daemon in self._daemons:
            daemon.process.wait()
        self._daemons.clear()
        if self.directory != pathlib.Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> typing.Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.stop()

    def kubeconfig(self, user: str = "admin", groups: typing.Sequence[str] = ADMINISTRATORS) -> pathlib.Path:
        """A self-contained kubeconfig with a client certificate for `user` in `groups`, the same one at each call."""
        identity = (user, *groups)
        if identity not in self._kubeconfigs:
            certificate, key = self._authority.issue(user, groups)
            credentials = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
            self._kubeconfigs[identity] = self._write_kubeconfig("-".join(identity), credentials)
        return self._kubeconfigs[identity]

    def token_kubeconfig(self, token: str, name: str) -> pathlib.Path:
        """A self-contained kubeconfig with a bearer token, for instance from `service_account_token`."""
        return self._write_kubeconfig(f"token-{name}", {"token": token})

    def service_account_token(self, service_account: str, namespace: str, *, node: str | None = None) -> str:
        """A token of an existing service account; with `node` bound to that Node object, which must exist."""
        bound = ["--bound-object-kind", "Node", "--bound-object-name", node] if node else []
        return self.kubectl("create", "token", service_account, "-n", namespace, *bound, check=True).stdout.strip()

    def kubectl(
        self,
        *args: str,
        input: str | None = None,
        kubeconfig: pathlib.Path | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, by default as an administrator. `check` raises ControlPlaneError with its message."""
        result = subprocess.run(
            [str(self._bin / "kubectl"), "--kubeconfig", str(kubeconfig or self.kubeconfig()), *args],
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**self._environment(), **BRIEF_GO, "KUBECACHEDIR": str(self.directory / "kubectl-cache")},
        )
        if check and result.returncode != 0:
            raise ControlPlaneError(f"kubectl {' '.join(args)} ended with {result.returncode}: {result.stderr.strip()}")
        return result

    def _start_api_server(self) -> None:
        etcd_port, peer_port, api_port = _free_ports(3)
        self.url = f"https://127.0.0.1:{api_port}"
        etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        self.etcd_url = etcd
        self.ca_file.write_bytes(self._authority.pem)
        certificate, key = self._authority.issue("kube-apiserver", server=True)
        sa_key = _write_private(self.directory / "sa.key", certificates.key_pem(certificates.rsa_key()))
        self._daemon(
            "etcd",
            *("--name", "test", "--data-dir", str(self.directory / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"test={peer}"),
        )
        self._daemon(
            "kube-apiserver",
            *("--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", str(api_port)),
            # There are no nodes, so no client needs the address that it would announce.
            *("--advertise-address", "10.96.0.1", "--endpoint-reconciler-type", "none"),
            *("--service-cluster-ip-range", "10.96.0.0/16", "--allow-privileged"),
            *("--tls-cert-file", str(self._file("apiserver.crt", certificate))),
            *("--tls-private-key-file", str(self._file("apiserver.key", key)), "--client-ca-file", str(self.ca_file)),
            *("--service-account-key-file", str(sa_key), "--service-account-signing-key-file", str(sa_key)),
            *("--service-account-issuer", ISSUER, "--authorization-mode", "Node,RBAC"),
            *("--enable-admission-plugins", "NodeRestriction"),
            *("--audit-policy-file", str(CLUSTER_DIRECTORY / "audit-policy.yaml")),
            *("--audit-log-path", str(self.audit_log)),
        )
        self._wait_for("the API server to be ready", "/readyz")
        # The server creates this one itself, a moment after it reports ready.
        self._wait_for("the default namespace", "/api/v1/namespaces/default")

    def _start_controller_manager(self) -> None:
        kubeconfig = str(self.kubeconfig("system:kube-controller-manager", ()))
        (port,) = _free_ports(1)
        self._daemon(
            "kube-controller-manager",
            *("--kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig),
            *("--authorization-kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", str(port)),
            *("--service-account-private-key-file", str(self.directory / "sa.key")),
            *("--root-ca-file", str(self.ca_file), "--use-service-account-credentials", "--leader-elect=false"),
            *("--cert-dir", str(self.directory / "kube-controller-manager")),
        )
        self._wait_for("the controllers", "/api/v1/namespaces/default/serviceaccounts/default")

    def _daemon(self, name: str, *args: str) -> None:
        log = self.directory / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(self._bin / name), *args],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.directory,
            )
        self._daemons.append(_Daemon(name, process, log))

    def _wait_for(self, what: str, path: str) -> None:
        certificate, key = self._authority.issue("admin", ADMINISTRATORS)
        context = ssl.create_default_context(cadata=self._authority.pem.decode())
        context.load_cert_chain(self._file("admin.crt", certificate), self._file("admin.key", key))
        deadline = time.monotonic() + STARTUP_TIMEOUT_SECONDS
        while not self._answers(path, context):
            for daemon in self._daemons:
                if daemon.process.poll() is not None:
                    raise ControlPlaneError(
                        f"{daemon.name} ended with {daemon.process.returncode}: {_tail(daemon.log)}"
                    )
            if time.monotonic() > deadline:
                last = self._daemons[-1]
                raise ControlPlaneError(
                    f"waited {STARTUP_TIMEOUT_SECONDS:.0f} s for {what}; {last.name}: {_tail(last.log)}"
                )
            time.sleep(0.05)

    def _answers(self, path: str, context: ssl.SSLContext) -> bool:
        port = int(self.url.rsplit(":", 1)[1])
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _environment(self) -> dict[str, str]:
        # Not the caller's: its KUBECONFIG or proxies must not redirect requests.
        go = {name: os.environ.get(name, value) for name, value in _GO.items()}
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory), **go}

    def _file(self, name: str, content: bytes) -> pathlib.Path:
        return _write_private(self.directory / name, content)

    def _write_kubeconfig(self, name: str, credentials: dict[str, str]) -> pathlib.Path:
        cluster = {"server": self.url, "certificate-authority-data": _base64(self._authority.pem)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file_name = "".join(character if character.isalnum() else "-" for character in name)
        return self._file(f"{file_name}.kubeconfig", yaml.safe_dump(config).encode())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _tail(log: pathlib.Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
