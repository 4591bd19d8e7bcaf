"""Relays of TCP connections: what comes from either side goes to the other, until it is cut or slowed down."""

import contextlib
import socket
import threading
import time

from tests.world.http import HostileServer, Received


class Relay(HostileServer):
    """To `host` and `port`. Its connections end after `cut_bytes` from there, or trickle from then on."""

    def __init__(self, host: str, port: int, cut_bytes: int | None = None, *, trickles: bool = False) -> None:
        self._target = (host, port)
        self._cut_bytes = cut_bytes
        self._trickles = trickles
        super().__init__(self._relay, reads_request=False)

    def _relay(self, client: socket.socket, _request: Received, _number: int) -> None:
        with socket.create_connection(self._target, 10) as server:
            carry(client, server, self._cut_bytes, trickles=self._trickles)


def carry(
    client: socket.socket, server: socket.socket, cut_bytes: int | None = None, *, trickles: bool = False
) -> None:
    """Both ways between the two, until both have ended, or `server` has sent `cut_bytes`."""

    def ask() -> None:
        _copy(client, server)
        _end(server)

    requests = threading.Thread(target=ask)
    requests.start()
    _copy(server, client, cut_bytes)
    if trickles:
        _copy(server, client, pause_seconds=0.1)
    _end(client)
    requests.join()


def _end(sink: socket.socket) -> None:
    """What was sent still arrives: a reset would overtake it."""
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, sink: socket.socket, most: int | None = None, *, pause_seconds: float = 0) -> None:
    """Until `source` ends, or `most` bytes have gone; with pauses byte by byte."""
    left = most
    with contextlib.suppress(OSError):
        while left != 0:
            if not (data := source.recv(1 if pause_seconds else min(left or 65536, 65536))):
                return
            sink.sendall(data)
            left = None if left is None else left - len(data)
            time.sleep(pause_seconds)
