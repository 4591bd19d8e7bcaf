"""One TCP connection, plain or TLS: how it is made, and how bytes come out of it.

Called by the HTTP source. Promises: establishing a connection, name resolution and TLS handshake included, ends
within the connect timeout; reading ends with SocketTimeout after the given silence; both notice the guard at once.

Reading uses the kernel's own receive timeout on a blocking socket: one system call per read, where Python's socket
timeouts take two. TLS goes through memory BIOs, fed with large reads: two system calls per record of 16 KiB would
cost more than the decryption.
"""

import errno
import io
import os
import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from directdownload.download.errors import SourceError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.urls import Url
from directdownload.resources.jobs import Timeouts
from directdownload.resources.reasons import Reason

_TLS_READ_BYTES = 256 * 1024
_CONNECTIONS_PER_ORIGIN = 8

AddressInfo = tuple[int, int, int, str, Any]


class Slots:
    """At most `limit` connections of this process to one origin at a time."""

    def __init__(self, limit: int = _CONNECTIONS_PER_ORIGIN) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, str, int], threading.BoundedSemaphore] = {}

    def acquire(self, url: Url, timeout_seconds: float, guard: Guard) -> Callable[[], None]:
        """Wait for a slot; returns what gives it back."""
        with self._lock:
            slot = self._slots.setdefault(url.origin, threading.BoundedSemaphore(self._limit))
        end = time.monotonic() + timeout_seconds
        while not slot.acquire(timeout=max(0.0, min(TICK_SECONDS, end - time.monotonic()))):
            guard.check()
            if time.monotonic() >= end:
                raise SourceError(
                    Reason.CONNECT_TIMEOUT,
                    f"{url}: no free connection within {timeout_seconds:g} s, all {self._limit} to this origin "
                    "are busy (timeouts.connectionRequest)",
                )
        return slot.release


def tls_context(trust_bundle: str) -> ssl.SSLContext:
    """The system's roots and, if it exists, the PEM file `trust_bundle`; host names are checked."""
    context = ssl.create_default_context()
    if trust_bundle and os.path.exists(trust_bundle):
        try:
            if os.path.getsize(trust_bundle):
                context.load_verify_locations(cafile=trust_bundle)
        except (ssl.SSLError, OSError) as error:
            raise SourceError(
                Reason.TLS_VERIFICATION_FAILED,
                f"trust bundle {trust_bundle} cannot be read: {error}; expected certificates in PEM",
            ) from error
        # a server certificate in the bundle is an anchor by itself, whoever signed it
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def connect(url: Url, timeouts: Timeouts, guard: Guard, context: ssl.SSLContext | None) -> "Wire":
    """A connection to the origin of `url`; with a `context` its TLS handshake is done and verified."""
    end = time.monotonic() + timeouts.connect_seconds
    addresses = _resolve(url, end, timeouts, guard)
    failure: SourceError | None = None
    for index, address in enumerate(addresses):
        # an address that swallows packets must leave time for those after it
        share = (end - time.monotonic()) / (len(addresses) - index)
        try:
            connection = _connect_address(url, address, time.monotonic() + share, timeouts, guard)
        except SourceError as error:
            failure = failure or error
            continue
        try:
            if context is None:
                return Wire(url, connection, timeouts, guard)
            return TLSWire(url, connection, timeouts, guard, context, end)
        except BaseException:
            connection.close()
            raise
    raise failure or SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: {url.host} has no address")


def _resolve(url: Url, end: float, timeouts: Timeouts, guard: Guard) -> list[AddressInfo]:
    """getaddrinfo in a thread, as it knows no timeout; a thread that hangs is left behind."""
    answers: queue.SimpleQueue[list[AddressInfo] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    while True:
        guard.check()
        try:
            answer = answers.get(timeout=max(0.001, min(TICK_SECONDS, end - time.monotonic())))
        except queue.Empty:
            if time.monotonic() >= end:
                raise SourceError(
                    Reason.CONNECT_TIMEOUT,
                    f"{url}: the address of {url.host} was not found within {timeouts.connect_seconds:g} s "
                    "(timeouts.connect)",
                ) from None
            continue
        if isinstance(answer, Exception):
            detail = answer.strerror if isinstance(answer, OSError) else str(answer)
            raise SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: {url.host} has no address: {detail}")
        return answer


def _connect_address(url: Url, address: AddressInfo, end: float, timeouts: Timeouts, guard: Guard) -> socket.socket:
    family, kind, protocol, _, target = address
    shown = f"{target[0]} port {target[1]}"
    try:
        connection = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: {shown}: {error.strerror}") from error
    try:
        connection.setblocking(False)
        error_number = connection.connect_ex(target)
        if error_number not in (0, errno.EINPROGRESS):
            raise SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: {shown}: {os.strerror(error_number)}")
        while error_number == errno.EINPROGRESS:
            _wait_until(url, connection, select.POLLOUT, end, timeouts, guard, f"{shown} did not answer")
            error_number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error_number:
                raise SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: {shown}: {os.strerror(error_number)}")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _wait_until(
    url: Url, connection: socket.socket, event: int, end: float, timeouts: Timeouts, guard: Guard, problem: str
) -> None:
    """Until `connection` is ready for `event`; ConnectTimeout with `problem` when `end` comes first."""
    poll = select.poll()
    poll.register(connection, event)
    while True:
        guard.check()
        left = end - time.monotonic()
        if left <= 0:
            raise SourceError(
                Reason.CONNECT_TIMEOUT,
                f"{url}: {problem} within {timeouts.connect_seconds:g} s (timeouts.connect)",
            )
        if poll.poll(min(left, TICK_SECONDS) * 1000):
            return


class Wire(io.RawIOBase):
    """The bytes of a plain connection. While a response's head is read, a budget of bytes and seconds bounds it."""

    def __init__(self, url: Url, connection: socket.socket, timeouts: Timeouts, guard: Guard) -> None:
        self._url = url
        self._socket = connection
        self._silence_seconds = timeouts.socket_seconds
        self._guard = guard
        self._budget_bytes: int | None = None
        self._budget_end = 0.0
        connection.setblocking(True)
        tick = struct.pack("ll", 0, int(TICK_SECONDS * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)

    def set_budget(self, limit_bytes: int | None, seconds: float = 0) -> None:
        """Bound what is read from now on; None lifts the bound."""
        self._budget_bytes = limit_bytes
        self._budget_end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What http.client asks a socket for."""
        return io.BufferedReader(self, 64 * 1024)

    def readinto(self, buffer: Any) -> int:
        count = self._read(buffer)
        if self._budget_bytes is not None:
            self._budget_bytes -= count
            if self._budget_bytes < 0 or time.monotonic() > self._budget_end:
                raise SourceError(
                    Reason.SOURCE_UNAVAILABLE, f"{self._url}: the server's headers are endless; is it an HTTP server?"
                )
        return count

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        last = time.monotonic()
        while view:
            self._guard.check()
            try:
                sent = self._socket.send(view)
            except BlockingIOError:
                self._check_silence(last)
                continue
            except OSError as error:
                raise self._broken(error) from error
            view = view[sent:]
            last = time.monotonic()

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _read(self, buffer: memoryview) -> int:
        return self._receive(buffer)

    def _receive(self, buffer: memoryview | bytearray) -> int:
        last = time.monotonic()
        while True:
            self._guard.check()
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                self._check_silence(last)
            except OSError as error:
                raise self._broken(error) from error

    def _check_silence(self, last: float) -> None:
        if time.monotonic() - last >= self._silence_seconds:
            raise SourceError(
                Reason.SOCKET_TIMEOUT, f"{self._url}: silence for {self._silence_seconds:g} s (timeouts.socket)"
            )

    def _broken(self, error: OSError) -> SourceError:
        detail = os.strerror(error.errno) if error.errno else str(error)
        in_head = self._budget_bytes is not None
        reason = Reason.SOURCE_UNREACHABLE if in_head else Reason.TRUNCATED
        return SourceError(reason, f"{self._url}: the connection broke: {detail}")


class TLSWire(Wire):
    """The decrypted bytes of a TLS connection; the handshake is done when the constructor returns."""

    def __init__(
        self,
        url: Url,
        connection: socket.socket,
        timeouts: Timeouts,
        guard: Guard,
        context: ssl.SSLContext,
        handshake_end: float,
    ) -> None:
        self._socket = connection  # close() needs it even if the handshake fails
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._encrypted = bytearray(_TLS_READ_BYTES)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=url.host)
        self._handshake(url, connection, timeouts, guard, handshake_end)
        super().__init__(url, connection, timeouts, guard)

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        super().send(self._outgoing.read())

    def _handshake(self, url: Url, connection: socket.socket, timeouts: Timeouts, guard: Guard, end: float) -> None:
        while True:
            problem = None
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                problem = "the TLS handshake did not end"
            except ssl.SSLCertVerificationError as error:
                raise SourceError(
                    Reason.TLS_VERIFICATION_FAILED,
                    f"{url}: the server's certificate is not trusted: {error.verify_message}",
                ) from error
            except ssl.SSLError as error:
                raise SourceError(
                    Reason.TLS_VERIFICATION_FAILED, f"{url}: the TLS handshake failed: {error.reason or error}"
                ) from error
            try:
                if data := self._outgoing.read():
                    _wait_until(url, connection, select.POLLOUT, end, timeouts, guard, "the TLS handshake did not end")
                    connection.sendall(data)
                if problem is None:
                    return
                _wait_until(url, connection, select.POLLIN, end, timeouts, guard, problem)
                received = connection.recv(_TLS_READ_BYTES)
            except OSError as error:
                raise SourceError(
                    Reason.SOURCE_UNREACHABLE, f"{url}: the connection broke in the TLS handshake: {error.strerror}"
                ) from error
            if received:
                self._incoming.write(received)
            else:
                self._incoming.write_eof()

    def _read(self, buffer: memoryview) -> int:
        filled = 0
        while True:
            try:
                # what was received holds many records: take them all before asking the kernel again
                while filled < len(buffer):
                    # with a buffer it returns a number, whatever typeshed says
                    count: Any = self._tls.read(len(buffer) - filled, buffer[filled:])
                    if not count:
                        return filled
                    filled += count
                return filled
            except ssl.SSLWantReadError:
                if filled:
                    return filled
            except ssl.SSLZeroReturnError:
                return filled
            except ssl.SSLEOFError as error:
                if filled:
                    return filled
                raise SourceError(
                    Reason.TRUNCATED, f"{self._url}: the connection ended without a proper end of TLS"
                ) from error
            except ssl.SSLError as error:
                raise SourceError(
                    Reason.TLS_VERIFICATION_FAILED, f"{self._url}: damaged TLS data: {error.reason or error}"
                ) from error
            received = self._receive(self._encrypted)
            if received:
                self._incoming.write(memoryview(self._encrypted)[:received])
            else:
                self._incoming.write_eof()
