"""Health for the kubelet and metrics for Prometheus, by the standard library: the process has no event loop.

Called by `main`. It serves `GET /healthz`, `/readyz` and `/metrics`, a bounded number at once, and nothing else.
"""

import http.server
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from typing import Any

import prometheus_client
from prometheus_client import exposition

logger = logging.getLogger(__name__)

#: Empty: healthy; else why not.
Check = Callable[[], str]

_AT_ONCE = 8
_SECONDS = 5.0


class HealthServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves from `start` to `close`; `checks` by their paths. Raises OSError if it cannot listen."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: str, port: int, checks: Mapping[str, Check]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.checks = checks
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__((address, port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        # not the one of HTTPServer, which looks for the name of the address
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # a probe that has gone away
        logger.debug("A request for health or metrics failed", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _SECONDS
    server: HealthServer

    def do_GET(self) -> None:
        if self.path == "/metrics":
            encode, kind = exposition.choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(prometheus_client.REGISTRY), kind)
        elif (check := self.server.checks.get(self.path)) is not None:
            illness = check()
            self._answer(500 if illness else 200, (illness or "ok").encode("ascii", "backslashreplace"), "text/plain")
        else:
            self._answer(404, b"", "text/plain")

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are no news."""

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
