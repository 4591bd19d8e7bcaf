"""Connections to the peer servers of parents: HTTP/1.1 over mutual TLS 1.3.

Promises: the connection goes to an address of the job document that no rule denies, and the server's certificate names
the parent. Every wait checks the guard. All failures are SourceErrors that name the parent.
"""

import contextlib
import dataclasses
import ipaddress
import re
import socket
import ssl
from collections.abc import Collection, Iterator

from directdownload.download.errors import SourceError, plain
from directdownload.download.guard import Guard
from directdownload.download.sources import body, connection, head, policy, tls
from directdownload.download.sources.urls import Url
from directdownload.download.terms import SourcePolicy, Timeouts
from directdownload.peer import protocol
from directdownload.resources import peers
from directdownload.resources.jobs import JobParent, JobPeers
from directdownload.resources.reasons import Reason

#: of the head of an answer
_HEAD_SECONDS = 10.0
_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """See `terms.Timeouts`; `socket_seconds` is the longest silence."""

    connect_seconds: float
    socket_seconds: float
    connection_request_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How this job reaches its parents."""

    terms: JobPeers
    context: ssl.SSLContext
    policy: SourcePolicy
    timeouts: Timeouts

    def without(self, hosts: Collection[str]) -> "Access":
        parents = tuple(parent for parent in self.terms.parents if parent.host not in hosts)
        return dataclasses.replace(self, terms=self.terms.model_copy(update={"parents": parents}))

    def dial(self, parent: JobParent, silence_seconds: float, guard: Guard) -> "Link":
        """A connection to `parent`, by its addresses in turn."""
        patience = Patience(self.timeouts.connect_seconds, silence_seconds)
        failures: list[SourceError] = []
        for address in parent.addresses:
            try:
                return self._dial(parent, address, patience, guard)
            except SourceError as error:
                failures.append(error)
        if not failures:
            raise SourceError(Reason.PEERS_UNAVAILABLE, f"{parent.host}: it has no address")
        raise failures[0]

    def _dial(self, parent: JobParent, address: str, patience: Patience, guard: Guard) -> "Link":
        with _named(parent.host):
            target = _target(address, self.terms.port, self.policy)
            authority = f"[{target[4][0]}]" if ":" in target[4][0] else target[4][0]
            url = Url.parse(f"https://{authority}:{self.terms.port}/")
            effort = connection.Effort.begin(url, patience, guard)
            wire = tls.TLSWire(effort, connection.connect_any(effort, [target]), self.context)
            wanted = peers.spiffe(self.terms.trust_domain, parent.host)
            if wanted not in wire.uris:
                wire.close()
                shown = ", ".join(wire.uris)[:200] or "no host"
                message = f"the certificate of {address} is of {shown}, expected {wanted}"
                raise SourceError(Reason.PEERS_UNAVAILABLE, message)
            return Link(parent.host, url, wire, self.terms.grant)


class Link:
    """One open connection; one request at a time."""

    def __init__(self, host: str, url: Url, wire: tls.TLSWire, grant: str) -> None:
        self._host = host
        self._url = url
        self._wire = wire
        self._grant = grant
        self._reader = wire.reader()

    def get(self, target: protocol.Target, *, last: bool = False) -> head.Head:
        """Ask; return the head of the answer. `last`: nothing more will be asked."""
        lines = [
            f"GET {target.path()} HTTP/1.1",
            f"Host: {self._url.authority}",
            f"{protocol.AUTHORIZATION}: {protocol.SCHEME} {self._grant}",
            *(["Connection: close"] if last else []),
        ]
        with _named(self._host):
            self._wire.begin_head(_HEAD_SECONDS)
            self._wire.send("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
            found = head.read(self._reader, self._url)
            self._wire.end_head()
            return found

    def body(self, length_bytes: int) -> "_Body":
        return _Body(self._host, body.LengthBody(self._url, self._reader, length_bytes))

    def line(self) -> bytes:
        """The next line of a state, without its end; empty at the end. Raises ProtocolError if it is too long."""
        with _named(self._host):
            line = self._reader.readline(protocol.LINE_LIMIT_BYTES + 1)
        if len(line) > protocol.LINE_LIMIT_BYTES:
            raise protocol.ProtocolError("a line of the state is too long")
        return line if line.endswith(b"\n") else b""

    def close(self) -> None:
        self._wire.close()


class _Body:
    def __init__(self, host: str, inner: body.LengthBody) -> None:
        self._host = host
        self._inner = inner

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer`; return the number of bytes, which is 0 only at the end."""
        with _named(self._host):
            return self._inner.readinto(buffer)


def length_of(found: head.Head) -> int | None:
    """The length of the body; None if the answer does not say it in the one way that this protocol has."""
    lengths = found.headers.get_all("Content-Length")
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]) or found.headers.get_all("Transfer-Encoding"):
        return None
    return int(lengths[0])


def refusal(answer: head.Head) -> str:
    """What an answer that is none says, for messages."""
    words = {
        401: "it does not accept the certificate or the permission of this host, or the clocks differ",
        403: "its zone or its content is another one",
        503: "it is busy",
    }
    return words.get(answer.status, f"it answers with status {answer.status}")


def _target(address: str, port: int, rules: SourcePolicy) -> connection.AddressInfo:
    """Raises SourceError for what is no address, or a denied one."""
    # a scope would name an interface of this host
    denied = "scoped" if "%" in address else policy.denial(address, rules)
    if denied is not None:
        message = f"{address[:64]} is no address that may be asked: it is {denied}"
        raise SourceError(Reason.PEERS_UNAVAILABLE, message)
    parsed = ipaddress.ip_address(address)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(parsed), port)


@contextlib.contextmanager
def _named(host: str) -> Iterator[None]:
    """Failures here become failures of this host, in words that fit a parent."""
    try:
        yield
    except SourceError as error:
        cause = error.__cause__
        words = error.message
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = f"its certificate is not trusted: {cause.verify_message}"
        elif isinstance(cause, ssl.SSLError):
            words = f"TLS failed: {plain(cause.reason or str(cause))}"
        raise SourceError(Reason.PEERS_UNAVAILABLE, f"{host}: {words}") from cause
