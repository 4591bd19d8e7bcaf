"""A real nginx that serves a directory: the origin of every test that fetches a file over HTTP.

Used by unit, api and e2e tests, by the bench and the demo. One process, ended by its pid; works with and without root.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.world.certificates import Certificate, common_name
from tests.world.waiting import closely, until_started

_CONFIGURATION = """
daemon off;
master_process off;
pid {runtime}/nginx.pid;
error_log {runtime}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format entries escape=json '{{"client":"$remote_addr","method":"$request_method",'
        '"path":"$uri","status":$status,'
        '"range":"$http_range","if_range":"$http_if_range","bytes_sent":$body_bytes_sent,'
        '"host":"$http_host","token":"$http_x_token","user_agent":"$http_user_agent","authorization":"$http_authorization"}}';
    access_log {runtime}/access.log entries;
    client_body_temp_path {runtime}/body;
    proxy_temp_path {runtime}/proxy;
    fastcgi_temp_path {runtime}/fastcgi;
    uwsgi_temp_path {runtime}/uwsgi;
    scgi_temp_path {runtime}/scgi;
    sendfile on;
    keepalive_timeout 5;
    default_type application/octet-stream;
    {rate}
    server {{
        listen {listen}:{port}{ssl};
        {certificate}
        root {directory};
        {extra}
    }}
}}
"""


@dataclasses.dataclass(frozen=True)
class Request:
    """One line of the access log; nginx writes it at the end of the request."""

    client: str
    method: str
    path: str
    status: int
    range: str
    if_range: str
    bytes_sent: int
    host: str
    token: str
    user_agent: str
    authorization: str


class Origin:
    """Serves `directory` from construction until `stop`.

    `rate` limits each connection in bytes per second; with `tls` the certificate is valid for
    `certificate_host` (else `host`) and localhost, and lies as PEM in `certificate`. `extra` goes into the server
    block, `prefix` before nginx's command: `ip netns exec …`.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        host: str = "127.0.0.1",
        *,
        port: int | None = None,
        tls: bool = False,
        certificate_host: str = "",
        self_signed: bool = True,
        rate: int | None = None,
        extra: str = "",
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.host = host
        self.tls = tls
        self.port = port or free_port(host)
        self._runtime = pathlib.Path(tempfile.mkdtemp(prefix="origin-"))
        self._log = self._runtime / "access.log"
        self.certificate = self._runtime / "certificate.pem"
        key = self._runtime / "key.pem"
        if tls:
            named = certificate_host or host
            issuer = None if self_signed else Certificate(subject=common_name("unknown authority"))
            own = Certificate("localhost", named, issuer=issuer, subject=common_name(named))
            own.save(self.certificate)
            key.write_bytes(own.key_pem)
        configuration = self._runtime / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                runtime=self._runtime,
                directory=directory,
                listen=f"[{host}]" if ":" in host else host,
                port=self.port,
                ssl=" ssl" if tls else "",
                certificate=f"ssl_certificate {self.certificate}; ssl_certificate_key {key};" if tls else "",
                rate=f"limit_rate {rate};" if rate else "",
                extra=extra,
            )
        )
        with (self._runtime / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [
                    *(*prefix, _nginx(), "-c", str(configuration), "-p", str(self._runtime)),
                    *("-e", str(self._runtime / "error.log")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                # Ctrl-C on a terminal must not end it before the caller has read its log.
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def url(self, path: str) -> str:
        scheme = "https" if self.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{path.lstrip('/')}"

    def requests(self) -> list[Request]:
        """All finished requests, in the order of their ends."""
        if not self._log.exists():
            return []
        return [Request(**json.loads(line)) for line in self._log.read_text().splitlines()]

    def wait_for_requests(self, count: int) -> list[Request]:
        """As `requests`, once there are at least `count`: nginx writes the log after the client has its answer."""
        closely(f"{count} requests", lambda: len(self.requests()) >= count)
        return self.requests()

    def stop(self) -> None:
        """End nginx and remove its runtime files; the served directory stays."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return True
            return False

        until_started(self._process, answers, lambda: f"nginx did not start: {(self._runtime / 'stderr').read_text()}")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _nginx() -> str:
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"
    found = shutil.which("nginx", path=path)
    if found is None:
        raise RuntimeError("nginx is not installed: install the package nginx-light")
    return found
