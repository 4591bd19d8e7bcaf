"""Parents of the tests' own: TLS servers that give pieces as the protocol says, and each as one test wants it."""

import contextlib
import datetime
import hashlib
import ipaddress
import pathlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.unit.download.peers.support import DOMAIN, MIB, Swarm, pieces_of

from directdownload.peer import protocol
from directdownload.peer.protocol import Changes, State, Target
from directdownload.resources import peers

#: a connection of a test ends with the test
_SILENCE_SECONDS = 60


class Authority:
    """A CA for hosts, and the files of one of them."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hosts")])
        self.pem = self._certificate(self._key, self._name, None, authority=True)

    def client(self, host: str) -> str:
        """The client directory of a host."""
        directory = self._directory / f"client-{host}"
        directory.mkdir(exist_ok=True)
        self._write(directory, host, ExtendedKeyUsageOID.CLIENT_AUTH)
        return str(directory)

    def server_context(self, host: str) -> ssl.SSLContext:
        directory = self._directory / f"server-{host}-{time.monotonic_ns()}"
        directory.mkdir()
        self._write(directory, host, ExtendedKeyUsageOID.SERVER_AUTH)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(directory / peers.AUTHORITIES)
        context.load_cert_chain(directory / peers.CERTIFICATE, directory / peers.KEY)
        return context

    def _write(self, directory: pathlib.Path, host: str, purpose: x509.ObjectIdentifier) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        (directory / peers.CERTIFICATE).write_bytes(
            self._certificate(key, name, peers.spiffe(DOMAIN, host), purpose=purpose)
        )
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (directory / peers.KEY).write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        (directory / peers.AUTHORITIES).write_bytes(self.pem)

    def _certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        name: x509.Name,
        uri: str | None,
        *,
        authority: bool = False,
        purpose: x509.ObjectIdentifier | None = None,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        hour = datetime.timedelta(hours=1)
        builder = (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - hour)
            .not_valid_after(now + hour)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if uri is not None:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
            )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Parent:
    """Serves the pieces in `has` of a content. What a test does otherwise it sets before, or overrides.

    `log` has the index of each piece that was asked for. Use as a context manager.
    """

    def __init__(
        self,
        authority: Authority,
        swarm: Swarm,
        host: str,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        data: bytes | None = None,
        named: str = "",
    ) -> None:
        self.swarm = swarm
        self.host = host
        self.address = address
        self.data = swarm.data if data is None else data
        self.pieces = pieces_of(self.data, swarm.header.piece_bytes)
        self.has = set(range(len(self.pieces)))
        self.size: int | None = len(self.data)
        self.epoch = swarm.epoch
        self.warrant = swarm.warrant()
        self.asked: list[int] = []
        self.states = 0
        #: bytes per second of a piece; 0: no limit
        self.rate = 0.0
        #: of a piece, sent before the connection stalls
        self.stalls_after: int | None = None
        #: sent in place of pieces, each once
        self.answers: list[bytes] = []
        self.first_line: bytes | None = None
        self.later: list[bytes] = []
        self.piece: Callable[[int], bytes | None] = self.data_of
        self.proof: Callable[[int], Any] = lambda index: swarm.proof(index, self.pieces[index], self.epoch)
        self.body: Callable[[int], bytes] = lambda index: self.pieces[index]
        self._context = authority.server_context(named or host)
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]

    def data_of(self, index: int) -> bytes | None:
        """The body of a piece; None: it is not here."""
        return self.body(index) if index in self.has else None

    def told(self) -> dict[str, Any]:
        """Its entry in a job document."""
        return {"host": self.host, "addresses": [self.address]}

    def add(self, *indices: int) -> None:
        self.has |= {*indices}
        self.say(protocol.changes_line(Changes(add=indices)))

    def say(self, line: bytes) -> None:
        with self._changed:
            self.later.append(line)
            self._changed.notify_all()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(_SILENCE_SECONDS)
        with contextlib.suppress(OSError, ValueError), self._context.wrap_socket(plain, server_side=True) as connection:
            reader = connection.makefile("rb")
            while request := reader.readline():
                while reader.readline().strip():
                    pass
                target = Target.of(request.split()[1].decode())
                if target.content != self.swarm.content:
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                elif target.index is None:
                    self._state(connection)
                    return
                else:
                    self._give(connection, target.index)

    def _state(self, connection: ssl.SSLSocket) -> None:
        self.states += 1
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with self._changed:
            have = frozenset(self.has) if self.size is not None else frozenset[int]()
            piece_bytes = self.swarm.header.piece_bytes
            first = self.first_line or protocol.state_line(State(piece_bytes, self.size, have))
            told = 0
        connection.sendall(first)
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait(0.2)
                lines, told = self.later[told:], len(self.later)
            connection.sendall(b"".join(lines) or protocol.changes_line(Changes()))

    def _give(self, connection: ssl.SSLSocket, index: int) -> None:
        self.asked.append(index)
        if self.answers:
            connection.sendall(self.answers.pop(0))
            return
        body = self.piece(index)
        if body is None:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        proof = protocol.proof_header(self.proof(index))
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
            f"{protocol.PROOF}: {proof}\r\n{protocol.WARRANT}: {self.warrant}\r\n\r\n"
        )
        connection.sendall(head.encode())
        step = MIB // 16
        for start in range(0, len(body), step):
            if self.stalls_after is not None and start >= self.stalls_after:
                self._closing.wait()
                return
            connection.sendall(body[start : start + step])
            if self.rate:
                self._closing.wait(step / self.rate)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@contextlib.contextmanager
def all_of(*parents: Parent) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for parent in parents:
            stack.enter_context(parent)
        yield
