"""HTTP servers that misbehave on purpose: they lie, stall, drip, cut and change what they serve.

A server that behaves is `origin.Origin`, a real nginx.
"""

import contextlib
import dataclasses
import pathlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from tests.world import waiting
from tests.world.certificates import Certificate

_TCP_INFO_UNACKED = 24


@dataclasses.dataclass(frozen=True)
class Received:
    """A request as the server saw it; header names are lower-case."""

    target: str
    headers: dict[str, str]

    @property
    def range(self) -> tuple[int, int | None] | None:
        """Offsets of the first byte and the last, None for the end; no range: None."""
        if not (wanted := self.headers.get("range")):
            return None
        low, _, high = wanted.removeprefix("bytes=").partition("-")
        return int(low), int(high) if high else None


Respond = Callable[[socket.socket, Received, int], None]


class HostileServer:
    """Answers each connection by `respond(connection, request, number of the connection from 0)`, then closes it."""

    def __init__(self, respond: Respond, *, reads_request: bool = True) -> None:
        self._respond = respond
        self._reads_request = reads_request
        self.received: list[Received] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def url(self, path: str = "file") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def secure_url(self, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}/file"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection, number))
            self._threads.append(thread)
            thread.start()
            number += 1

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(10)
        # a client that has given up is what these tests are about
        with connection, contextlib.suppress(OSError):
            request = (_read_request(connection) if self._reads_request else None) or Received("", {})
            self.received.append(request)
            self._respond(connection, request, number)


def tls_server(certificate: Certificate, directory: pathlib.Path, respond: Respond) -> HostileServer:
    """As HostileServer, behind TLS; a client that does not trust it never gets to `respond`."""
    context = certificate.server_context(directory)

    def serve(connection: socket.socket, _request: Received, number: int) -> None:
        with contextlib.suppress(ssl.SSLError, ValueError), context.wrap_socket(connection, server_side=True) as secure:
            if (request := _read_request(secure)) is not None:
                respond(secure, request, number)
                secure.unwrap()

    return HostileServer(serve, reads_request=False)


class RangeServer(HostileServer):
    """Serves `data` with ranges and an ETag, each connection at `rate` bytes per second; 0: as fast as it goes.

    `stall_after` so many bytes of a connection it sends no more. It sends no byte of a body before so many connections
    have been made as it `gathers`. A subclass changes one of its connections by `serve`.
    """

    def __init__(
        self, data: bytes, *, rate: int = 0, etag: str = '"one"', stall_after: int | None = None, gathers: int = 1
    ) -> None:
        self.data = data
        self.rate = rate
        self.etag = etag
        self.stall_after = stall_after
        self.gathers = gathers
        self.sent_bytes = 0
        self.open_now = 0
        self._count = threading.Lock()
        super().__init__(self.serve)

    def head(self, request: Received) -> tuple[bytes, int, int]:
        """Of its answer, and the first and the last byte that it promises."""
        first, last = 0, len(self.data) - 1
        status = "200 OK"
        if request.range and request.headers.get("if-range", self.etag) == self.etag:
            first, high = request.range
            last = last if high is None else min(high, last)
            status = f"206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len(self.data)}"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {last - first + 1}\r\nETag: {self.etag}\r\n"
        return f"{head}Accept-Ranges: bytes\r\n\r\n".encode(), first, last

    def serve(self, connection: socket.socket, request: Received, _number: int) -> None:
        head, first, last = self.head(request)
        with self._counted():
            connection.sendall(head)
            while len(self.received) < self.gathers and not self.ended.wait(0.005):
                pass
            position = first
            began = time.monotonic()
            while position <= last and not self.ended.is_set():
                if self.stall_after is not None and position - first >= self.stall_after:
                    self.ended.wait(0.05)
                    continue
                block = self.data[position : min(position + 64 * 1024, last + 1)]
                connection.sendall(block)
                position += len(block)
                with self._count:
                    self.sent_bytes += len(block)
                if self.rate:
                    pause = began + (position - first) / self.rate - time.monotonic()
                    if pause > 0:
                        self.ended.wait(pause)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._count:
            self.open_now += 1
        try:
            yield
        finally:
            with self._count:
                self.open_now -= 1


class CutServer(RangeServer):
    """Resets its first `times` connections after `cut` bytes of its answer, head included."""

    def __init__(self, data: bytes, cut: int, times: int = 1) -> None:
        self.cut, self.times = cut, times
        super().__init__(data)

    def serve(self, connection: socket.socket, request: Received, number: int) -> None:
        if number >= self.times:
            super().serve(connection, request, number)
            return
        connection.sendall((self.head(Received("", {}))[0] + self.data)[: self.cut])
        wait_until_read(connection)
        reset(connection)


def answer(
    connection: socket.socket, body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None
) -> None:
    """A response that says it has `length` bytes, whatever it has."""
    declared = len(body) if length is None else length
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {declared}\r\n{headers}\r\n".encode() + body)


def redirect(connection: socket.socket, to: str, status: str = "302 Found") -> None:
    answer(connection, b"", status=status, headers=f"Location: {to}\r\n")


def reset(connection: socket.socket) -> None:
    """The next packet of this connection is a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wait_until_read(connection: socket.socket) -> None:
    """A RST discards what the other side has not read: wait until it has it all."""

    def read() -> bool:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return not struct.unpack_from("I", info, _TCP_INFO_UNACKED)[0]

    waiting.closely("the client has read all", read)


def _read_request(connection: socket.socket) -> Received | None:
    """None: the client has left without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return None
        data += more
    lines = data.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return Received(lines[0].split(" ")[1] if " " in lines[0] else "", headers)
