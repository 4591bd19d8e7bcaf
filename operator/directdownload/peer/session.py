"""One connection of another host, from its certificate to its end, in a thread of its own.

Made by `server`. Promises: everything has an end that a client cannot put off; no exception gets out; an answer is
given only for a certificate and a grant that are valid now, of the same host, for this zone and this content.
"""

import contextlib
import email.utils
import fcntl
import logging
import select
import socket
import ssl
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from directdownload.peer import clients, heads, metrics, protocol
from directdownload.peer.clients import Client, Connections
from directdownload.peer.contents import Contents
from directdownload.peer.copies import BLOCK_BYTES, Copy, GoneError
from directdownload.peer.credentials import Credentials
from directdownload.peer.protocol import Changes, ProtocolError, State, Target
from directdownload.peer.statements import LEEWAY_SECONDS, Grant, StatementError
from directdownload.peer.uploads import FullError, Uploads
from directdownload.peer.watches import Listener, Watches

logger = logging.getLogger(__name__)

#: A client may let a connection rest so long between two requests, and has so long for one head.
IDLE_SECONDS, HEAD_SECONDS = 60.0, 5.0
#: Between two looks whether a client has what was sent, at first and at most.
_FIRST_LOOK_SECONDS, _LOOK_SECONDS = 0.001, 0.01
#: For one line of a state, or the head of an answer.
_SEND_SECONDS = 10.0
#: So long, and with so many reads of what it sends, a refused client may take to see the answer.
_LINGER_SECONDS, _LINGER_READS = 1.0, 8
#: After these answers the connection ends.
_LAST = frozenset({400, 401})


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions share."""

    connections: Connections
    contents: Contents
    watches: Watches
    uploads: Uploads
    #: those of now
    credentials: Callable[[], Credentials]
    #: seconds since 1970
    clock: Callable[[], float]


class RefusedError(Exception):
    """The request is answered with `status`; `reason` is for the metric."""

    def __init__(self, status: int, reason: str, fields: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.fields = fields


class Session:
    """`run` ends with the connection; `drop` ends it from another thread. `sock` has not shaken hands yet."""

    def __init__(self, sock: ssl.SSLSocket, services: Services) -> None:
        self._socket = sock
        self._services = services
        self._received = b""
        self._client: Client | None = None
        self._grants = _Grants()

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            # not its own one, which would take TLS away under the thread that uses it
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            self._serve()
        except (OSError, GoneError):
            # the client went, was too slow, or was dropped
            pass
        except Exception:
            logger.exception("A connection failed")
        finally:
            self._services.connections.leave(self)
            with contextlib.suppress(OSError):
                self._socket.close()

    def _serve(self) -> None:
        self._socket.settimeout(clients.STRANGER_SECONDS)
        try:
            self._socket.do_handshake()
        except ssl.SSLError:
            metrics.REFUSALS.labels(reason="Handshake").inc()
            return
        domain = self._services.credentials().config.trust_domain
        self._client = Client.of(self._socket.getpeercert(), domain)
        if self._client is not None and not self._services.connections.known(self, self._client.host):
            metrics.REFUSALS.labels(reason="TooManyConnections").inc()
            return
        idle = IDLE_SECONDS if self._client is not None else clients.STRANGER_SECONDS
        while self._answer(idle):
            pass

    def _answer(self, idle_seconds: float) -> bool:
        """One request; return whether another one may come. Raises OSError."""
        try:
            head = self._head(idle_seconds)
            if head is None:
                return False
            request = heads.parse(head)
            target, end = self._permitted(request)
            if target.index is None:
                self._state(target.content, end)
                return False
            self._piece(target.content, target.index)
            return not request.last
        except ProtocolError:
            self._refuse(RefusedError(400, "Malformed"))
        except RefusedError as refused:
            self._refuse(refused)
            return refused.status not in _LAST
        return False

    def _head(self, idle_seconds: float) -> bytes | None:
        """None if the client has closed. Raises OSError, ProtocolError if it is too long."""
        self._socket.settimeout(idle_seconds)
        end: float | None = None
        while (at := self._received.find(heads.END)) < 0:
            if len(self._received) > protocol.HEAD_LIMIT_BYTES:
                raise ProtocolError("the head is too long")
            if self._received and end is None:
                end = time.monotonic() + HEAD_SECONDS
            if end is not None:
                self._socket.settimeout(max(0.001, end - time.monotonic()))
            data = self._socket.recv(protocol.HEAD_LIMIT_BYTES)
            if not data:
                return None
            self._received += data
        head, self._received = self._received[:at], self._received[at + len(heads.END) :]
        return head

    def _permitted(self, request: heads.Request) -> tuple[Target, float]:
        """What may be answered, and until when. Raises RefusedError."""
        services, client = self._services, self._client
        now = services.clock()
        if client is None or now > client.expiry:
            raise RefusedError(401, "Certificate")
        try:
            target = Target.of(request.path)
        except ProtocolError:
            raise RefusedError(404, "Path") from None
        credentials = services.credentials()
        try:
            grant = self._grants.read(request.grant, credentials, now)
        except StatementError:
            raise RefusedError(401, "Grant") from None
        if (grant.host, grant.zone, grant.content) != (client.host, credentials.config.zone, target.content):
            raise RefusedError(403, "GrantOfAnother")
        return target, min(client.expiry, grant.expiry + LEEWAY_SECONDS)

    def _refuse(self, refused: RefusedError) -> None:
        metrics.REFUSALS.labels(reason=refused.reason).inc()
        fields = {
            "Date": email.utils.formatdate(self._services.clock(), usegmt=True),
            "Content-Length": "0",
            **refused.fields,
        }
        last = refused.status in _LAST
        self._send(heads.answer(refused.status, fields | ({"Connection": "close"} if last else {})), _SEND_SECONDS)
        if last:
            self._linger()

    def _piece(self, content: str, index: int) -> None:
        """Raises RefusedError before the first byte of the answer, OSError after it."""
        services, client = self._services, self._client
        copy = services.contents.find(content)
        found = copy.claim(index) if copy is not None else None
        if copy is None or found is None or client is None:
            raise RefusedError(404, "NoSuchPiece")
        claim, start, end = found
        try:
            with services.uploads.one(content, client.host):
                if not copy.check(index, claim.proof.digest, start, end):
                    raise RefusedError(404, "NoSuchPiece")
                fields = {
                    "Content-Length": str(end - start),
                    protocol.PROOF: protocol.proof_header(claim.proof),
                    protocol.WARRANT: claim.warrant,
                }
                if not copy.given(index):
                    raise RefusedError(404, "NoSuchPiece")
                seconds, limit_seconds = None, services.uploads.limit(content, end - start)
                try:
                    seconds = self._upload(copy, heads.answer(200, fields), start, end, limit_seconds)
                    services.uploads.took(content, seconds)
                finally:
                    copy.sent(index, seconds)
                    metrics.UPLOADS.labels(result="sent" if seconds is not None else "broken").inc()
        except FullError as error:
            raise RefusedError(503, "Full", {protocol.RETRY_AFTER: f"{error.retry_seconds:.3f}"}) from None

    def _upload(self, copy: Copy, head: bytes, start: int, end: int, limit_seconds: float) -> float:
        """Send the bytes; return the seconds until the client had them. Raises OSError, also if it takes longer than
        the limit."""
        began = time.monotonic()
        self._send(head, limit_seconds)
        block = memoryview(bytearray(min(BLOCK_BYTES, end - start)))
        while start < end:
            count = copy.read(block[: end - start], start)
            if not count:
                raise OSError("the file is shorter than it was")
            self._send(block[:count], began + limit_seconds - time.monotonic())
            metrics.SENT_BYTES.inc(count)
            start += count
        self._deliver(began + limit_seconds)
        return time.monotonic() - began

    def _deliver(self, end: float) -> None:
        """Wait until the client has what the kernel took, or asks for more. `end`: monotonic. Raises OSError.

        The kernel takes some MiB at once: a small piece would seem to be there when its first bytes are on their way.
        """
        poll, pause = select.poll(), _FIRST_LOOK_SECONDS
        poll.register(self._socket, select.POLLIN)
        while any(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if events := poll.poll(min(pause, left) * 1000):
                if events[0][1] & (select.POLLERR | select.POLLHUP):
                    raise ConnectionError
                return
            pause = min(2 * pause, _LOOK_SECONDS)

    def _state(self, content: str, end: float) -> None:
        """Follows the content until the client goes, the content goes, or `end` (seconds since 1970)."""
        with self._services.watches.listen(content) as listener, metrics.STREAMS.track_inprogress():
            copy = listener.copy
            state, sequence = copy.state() if copy is not None else (State(None, None, frozenset()), 0)
            head = heads.answer(200, {"Content-Type": "application/jsonl", "Connection": "close"})
            self._send(head + protocol.state_line(state), _SEND_SECONDS)
            sent = time.monotonic()
            while (left := end - self._services.clock()) > 0:
                heartbeat = sent + protocol.HEARTBEAT_SECONDS - time.monotonic()
                if self._closes(listener, max(0.0, min(left, heartbeat))) or listener.over:
                    return
                news = b""
                if copy is None and (copy := listener.copy) is not None:
                    state, sequence = copy.state()
                    news = protocol.changes_line(Changes(state.size_bytes, tuple(sorted(state.have))))
                elif copy is not None:
                    lines, sequence = copy.lines(sequence)
                    news = b"".join(lines)
                if not news and time.monotonic() >= sent + protocol.HEARTBEAT_SECONDS:
                    news = protocol.changes_line(Changes())
                if news:
                    self._send(news, _SEND_SECONDS)
                    sent = time.monotonic()

    def _closes(self, listener: Listener, seconds: float) -> bool:
        """Wait for news or the client; return whether the client closes, or says something."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(listener.descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        listener.looks()
        if self._socket.fileno() not in ready:
            return False
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except ssl.SSLWantReadError:
            # a record of TLS itself
            return False
        return True

    def _send(self, data: bytes | memoryview, seconds: float) -> None:
        """Raises OSError, TimeoutError after `seconds` at the latest."""
        end = time.monotonic() + seconds
        view = memoryview(data)
        while view:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            # one record of TLS
            view = view[self._socket.send(view) :]

    def _linger(self) -> None:
        """Let the client read the answer: closing with unread bytes would reset the connection."""
        end = time.monotonic() + _LINGER_SECONDS
        socket.socket.shutdown(self._socket, socket.SHUT_WR)
        for _ in range(_LINGER_READS):
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            if not socket.socket.recv(self._socket, protocol.HEAD_LIMIT_BYTES):
                return


class _Grants:
    """Reads the grant of each request of a connection, which is the same one as a rule: a signature costs 0.1 ms."""

    def __init__(self) -> None:
        self._last: tuple[str, Credentials, Grant] | None = None

    def read(self, token: str, credentials: Credentials, now: float) -> Grant:
        """Raises StatementError."""
        if self._last is not None:
            known, of, grant = self._last
            if known == token and of is credentials and now <= grant.expiry + LEEWAY_SECONDS:
                return grant
        grant = credentials.verifier.grant(token, now)
        self._last = token, credentials, grant
        return grant
