"""The demo's private origin: an nginx that serves one directory, slowly enough to watch, and logs who took what."""

import dataclasses
import pathlib
import re
import socket
import subprocess
import time
import types
from typing import Self

_CONFIGURATION = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 256; }}
http {{
    log_format demo '$remote_addr $request_method $uri $status $body_bytes_sent';
    access_log {directory}/access.log demo;
    client_body_temp_path {directory}/temp;
    proxy_temp_path {directory}/temp;
    fastcgi_temp_path {directory}/temp;
    uwsgi_temp_path {directory}/temp;
    scgi_temp_path {directory}/temp;
    sendfile on;
    server {{
        listen {address}:{port};
        root {root};
        limit_rate {rate_bytes};
    }}
}}
"""
_LINE = re.compile(r"(?P<client>\S+) (?P<method>\S+) (?P<path>\S+) (?P<status>\d+) (?P<bytes>\d+)")
_START_SECONDS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    client: str
    method: str
    path: str
    status: int
    sent_bytes: int


class Origin:
    """Serves `root` on `address`, at most `rate_bytes` a second for each download. Needs `directory` for itself."""

    def __init__(self, directory: pathlib.Path, root: pathlib.Path, address: str, rate_bytes: int) -> None:
        self._directory = directory
        self._address = address
        with socket.socket() as probe:
            probe.bind((address, 0))
            self._port: int = probe.getsockname()[1]
        self._configuration = directory / "nginx.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                directory=directory, root=root, address=address, port=self._port, rate_bytes=rate_bytes
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}"

    def __enter__(self) -> Self:
        # Workers run as another user when nginx is started by root, and must reach the files.
        self._directory.chmod(0o755)
        # A process group of its own: Ctrl-C on the terminal must not end it before the report is written.
        self._process = subprocess.Popen(
            ["nginx", "-e", str(self._directory / "error.log"), "-c", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection((self._address, self._port), timeout=1).close()
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._end()
                    raise RuntimeError(f"nginx does not serve {self.url}: {error}; {self._complaint()}") from error
                time.sleep(0.05)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._end()

    def requests(self) -> list[Request]:
        """All that were answered, oldest first."""
        log = self._directory / "access.log"
        found = [_LINE.fullmatch(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [
            Request(match["client"], match["method"], match["path"], int(match["status"]), int(match["bytes"]))
            for match in found
            if match is not None
        ]

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _complaint(self) -> str:
        log = self._directory / "error.log"
        return log.read_text().strip() if log.exists() else "it left no log"
