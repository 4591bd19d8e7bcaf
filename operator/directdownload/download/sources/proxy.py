"""Proxies: choosing one for a URL, and connecting through it.

Called by the HTTP source. `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` mean the same as for curl; an entry of `NO_PROXY`
may also have a port, or begin with `*.`. For a request through a proxy only the URL is checked, not the address: the
proxy resolves the name. The administrator names the proxy itself, which may have any address. Messages never contain
the credentials of a proxy.
"""

import base64
import dataclasses
import ipaddress
import re
import select
import socket
import urllib.parse
from collections.abc import Mapping

from directdownload.download.errors import DownloadError, SourceError
from directdownload.download.sources import connection, policy
from directdownload.download.sources.connection import Effort
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason
from directdownload.resources.urls import bracketed

_ANSWER_LIMIT_BYTES = 32 * 1024
_PROXY = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:([^/]*)@)?([^/?#@]+)/?")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """`authorization` is the value of Proxy-Authorization, empty for none."""

    host: str
    port: int
    authorization: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        return f"proxy {bracketed(self.host)}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy variables of the environment, unparsed: the URLs may contain passwords."""

    http: str = dataclasses.field(default="", repr=False)
    https: str = dataclasses.field(default="", repr=False)
    exceptions: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Proxies":
        """Read the variables; lower case takes precedence over upper case."""

        def read(name: str) -> str:
            return environment.get(name.lower(), environment.get(name, "")).strip()

        # a CGI server sets HTTP_PROXY from a header `Proxy` of its client
        is_cgi = "REQUEST_METHOD" in environment
        return cls(
            environment.get("http_proxy", "").strip() if is_cgi else read("HTTP_PROXY"),
            read("HTTPS_PROXY"),
            read("NO_PROXY"),
        )

    def choose(self, url: Url) -> Proxy | None:
        """The proxy for `url`, None for none. Raises SourceError if the variable is not the URL of a proxy."""
        text = self.http if url.scheme == "http" else self.https
        if not text or any(_is_exception(entry, url) for entry in re.split(r"[\s,]+", self.exceptions)):
            return None
        return _parse(text, f"{url.protocol}_PROXY")


def connect(effort: Effort, proxy: Proxy) -> socket.socket:
    """Connect to `proxy`; for https, through it to the origin of the URL. The socket is non-blocking."""
    addresses = connection.resolve_any(effort, proxy.host, proxy.port)
    connected = connection.connect_any(effort, addresses, f"{proxy} at ")
    if effort.url.scheme == "https":
        try:
            _tunnel(effort, proxy, connected)
        except BaseException:
            connected.close()
            raise
    return connected


def refusal(url: Url, proxy: Proxy, status: int) -> SourceError:
    """The error for a status of the proxy itself other than success."""
    message = f"{url}: {proxy} answered {status}"
    if status == 407:
        return SourceError(
            Reason.SOURCE_REFUSED,
            f"{message}: it requires valid credentials; put them into the proxy's URL ({url.protocol}_PROXY)",
        )
    return SourceError(Reason.SOURCE_REFUSED if 400 <= status < 500 else Reason.SOURCE_UNAVAILABLE, message)


def _tunnel(effort: Effort, proxy: Proxy, connected: socket.socket) -> None:
    """Send CONNECT (RFC 9110, 9.3.6): after the head of a 2xx answer the bytes are the origin's."""
    target = f"{bracketed(effort.url.host)}:{effort.url.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: directdownload"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        effort.wait(connected, select.POLLOUT, f"{proxy} did not accept the request")
        connected.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer:
            effort.wait(connected, select.POLLIN, f"{proxy} did not answer")
            received = connected.recv(4096)
            answer += received
            if not received or len(answer) > _ANSWER_LIMIT_BYTES:
                break
    except OSError as error:
        raise SourceError(
            Reason.SOURCE_UNREACHABLE, f"{effort.url}: the connection to {proxy} broke: {error.strerror}"
        ) from error
    status = _STATUS.match(answer)
    if status is None:
        raise SourceError(Reason.SOURCE_UNAVAILABLE, f"{effort.url}: {proxy} does not answer as an HTTP proxy")
    if status[1][:1] != b"2":
        raise refusal(effort.url, proxy, int(status[1]))
    if not answer.endswith(b"\r\n\r\n"):
        raise SourceError(
            Reason.SOURCE_UNAVAILABLE, f"{effort.url}: {proxy} sent data after its answer to CONNECT; expected none"
        )


def _parse(text: str, variable: str) -> Proxy:
    problem = SourceError(
        Reason.SOURCE_UNREACHABLE,
        f"{variable} is not the URL of an http proxy; expected http://[user:password@]host:port, percent-encoded",
    )
    match = _PROXY.fullmatch(text)
    if match is None or (match[1] or "http").lower() != "http":
        raise problem
    try:
        url = Url.parse(f"http://{match[3]}/")
    except DownloadError:
        # its message may contain a part of a password
        raise problem from None
    if match[2] is None:
        return Proxy(url.host, url.port)
    credentials = urllib.parse.unquote(match[2] if ":" in match[2] else match[2] + ":")
    return Proxy(url.host, url.port, "Basic " + base64.b64encode(credentials.encode(errors="surrogateescape")).decode())


def _is_exception(entry: str, url: Url) -> bool:
    """Whether `url` matches an entry of NO_PROXY: `*`, a domain or all below it, an address, a range; port optional."""
    if entry in ("", "*"):
        return entry == "*"
    address = policy.literal_address(url.host)
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        network = None
    if network is not None:
        return address is not None and address in network
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal():
        return int(port) == url.port and _is_exception(host, url)
    domain = entry.lower().removeprefix("*").strip(".")
    return bool(domain) and (url.host == domain or url.host.endswith(f".{domain}"))
