"""A client of the peer server that says exactly what a test wants, bytes by bytes."""

import contextlib
import dataclasses
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Self

from tests.world.peers import PeerHost, SharedFile

#: No test waits so long where all is well.
SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Answer:
    """`fields` by lower-case names."""

    status: int
    fields: Mapping[str, str]
    body: bytes = dataclasses.field(repr=False)


class Wire:
    """One connection of `reader`, or of whoever `context` says, to the server of `server`.

    `window_bytes`: about so much comes before it is read.
    """

    def __init__(
        self, server: PeerHost, reader: PeerHost, context: ssl.SSLContext | None = None, *, window_bytes: int = 0
    ) -> None:
        self._plain = socket.socket()
        self._plain.settimeout(SECONDS)
        try:
            if window_bytes:
                self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
            self._plain.connect((server.address, server.port))
            self.socket = (context or reader.client_context()).wrap_socket(self._plain)
        except OSError:
            self._plain.close()
            raise
        self._rest = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, path: str, grant: str = "") -> Answer:
        """One request and its answer. Raises OSError if the connection ends before it."""
        self.ask(path, grant)
        return self.answer()

    def piece(self, file: SharedFile, index: int, grant: str) -> Answer:
        return self.get(f"/v1/{file.content}/pieces/{index}", grant)

    def ask(self, path: str, grant: str = "") -> None:
        authorization = f"Authorization: DirectDownload {grant}\r\n" if grant else ""
        self.send(f"GET {path} HTTP/1.1\r\nHost: peer\r\n{authorization}\r\n".encode())

    def answer(self) -> Answer:
        """The next answer, with the body that its length says. Raises ConnectionError if there is none."""
        status, fields = self.head()
        return Answer(status, fields, self.read(int(fields.get("content-length", "0"))))

    def read(self, length: int) -> bytes:
        """Raises ConnectionError if there are fewer bytes."""
        while len(self._rest) < length:
            self._more()
        data = bytes(self._rest[:length])
        del self._rest[:length]
        return data

    def rest(self) -> bytes:
        """What came beyond that already."""
        return self.read(len(self._rest))

    def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        told = (field.partition(": ") for field in fields)
        return int(line.split(" ")[1]), {name.lower(): value for name, _, value in told}

    def line(self) -> dict[str, Any]:
        """The next line of a state. Raises ConnectionError at its end."""
        while b"\n" not in self._rest:
            self._more()
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def lines(self) -> Iterator[dict[str, Any]]:
        """What comes until the stream ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                yield self.line()

    def ends(self) -> bool:
        """Whether nothing more comes, and the server has closed."""
        try:
            return not self._rest and not self.socket.recv(1)
        except ConnectionError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(2**16)
        if not data:
            raise ConnectionError("the server has closed")
        self._rest += data


@contextlib.contextmanager
def state(server: PeerHost, reader: PeerHost, file: SharedFile, grant: str) -> Iterator[Wire]:
    """A stream of the state of a content, of which the head has been read."""
    with Wire(server, reader) as wire:
        wire.ask(f"/v1/{file.content}/state", grant)
        status, _ = wire.head()
        assert status == 200
        yield wire
