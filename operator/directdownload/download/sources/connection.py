"""One TCP connection: connecting and reading.

Called by the sources; `tls` and `proxy` build upon it. Promises: connecting, name resolution included, ends within the
connect timeout and goes to an address that the policy allows; reading ends with SocketTimeout after the given silence;
both check the guard every TICK_SECONDS.

Reading uses the kernel's own receive timeout on a blocking socket: one system call per read, where Python's socket
timeouts take two.
"""

import dataclasses
import errno
import io
import os
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from directdownload.download.errors import SourceError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.settings import Setting
from directdownload.download.sources import policy as rules
from directdownload.download.sources.urls import Url
from directdownload.download.terms import SourcePolicy, Timeouts
from directdownload.resources.reasons import Reason

_CONNECTIONS_PER_ORIGIN = 8

AddressInfo = tuple[int, int, int, str, Any]


class Slots:
    """At most `limit` connections of this process to one origin at a time."""

    def __init__(self, limit: int = _CONNECTIONS_PER_ORIGIN) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, str, int], threading.BoundedSemaphore] = {}

    def acquire(self, url: Url, timeout_seconds: float, guard: Guard) -> Callable[[], None]:
        """Wait for a slot; return the function that releases it, which is idempotent."""
        with self._lock:
            slot = self._slots.setdefault(url.origin, threading.BoundedSemaphore(self._limit))
        end = time.monotonic() + timeout_seconds
        while not slot.acquire(timeout=max(0.0, min(TICK_SECONDS, end - time.monotonic()))):
            guard.check()
            if time.monotonic() >= end:
                raise SourceError(
                    Reason.CONNECT_TIMEOUT,
                    f"{url}: no free connection within {timeout_seconds:g} s, all {self._limit} to this origin "
                    f"are busy ({Setting.CONNECTION_REQUEST_TIMEOUT})",
                )
        given_back = threading.Lock()

        def release() -> None:
            if given_back.acquire(blocking=False):
                slot.release()

        return release


@dataclasses.dataclass(frozen=True, slots=True)
class Effort:
    """The attempt to establish one connection for `url`, until `end` on the monotonic clock."""

    url: Url
    timeouts: Timeouts
    guard: Guard
    end: float

    @classmethod
    def begin(cls, url: Url, timeouts: Timeouts, guard: Guard) -> "Effort":
        """An attempt that begins now and may take the connect timeout."""
        return cls(url, timeouts, guard, time.monotonic() + timeouts.connect_seconds)

    def wait(self, connection: socket.socket, event: int, problem: str) -> None:
        """Wait until `connection` is ready for `event`; raise ConnectTimeout with `problem` when `end` comes first."""
        poll = select.poll()
        poll.register(connection, event)
        while True:
            self.guard.check()
            left = self.end - time.monotonic()
            if left <= 0:
                raise SourceError(
                    Reason.CONNECT_TIMEOUT,
                    f"{self.url}: {problem} within {self.timeouts.connect_seconds:g} s ({Setting.CONNECT_TIMEOUT})",
                )
            if poll.poll(min(left, TICK_SECONDS) * 1000):
                return


def resolve(url: Url, timeouts: Timeouts, guard: Guard, policy: SourcePolicy) -> list[AddressInfo]:
    """Resolve the host of `url` within the connect timeout, to the allowed addresses: at least one.

    The caller must connect to these and not resolve again. Raises RequestError(URLNotAllowed) if the policy denies
    every address.
    """
    return _resolve_allowed(Effort.begin(url, timeouts, guard), policy)


def connect(effort: Effort, policy: SourcePolicy) -> socket.socket:
    """Connect to the origin of the URL, at an address that `policy` allows. The socket is non-blocking."""
    return connect_any(effort, _resolve_allowed(effort, policy))


def connect_any(effort: Effort, addresses: Sequence[AddressInfo], through: str = "") -> socket.socket:
    """Connect to the first of `addresses` that accepts; `through` is for messages."""
    failures: list[SourceError] = []
    for index, address in enumerate(addresses):
        # an address that drops packets must leave time for the next ones
        share = (effort.end - time.monotonic()) / (len(addresses) - index)
        try:
            return _connect_address(dataclasses.replace(effort, end=time.monotonic() + share), address, through)
        except SourceError as error:
            failures.append(error)
    raise failures[0]


def resolve_any(effort: Effort, host: str, port: int) -> list[AddressInfo]:
    """Every address of `host`, at least one, regardless of the policy.

    getaddrinfo has no timeout, so it runs in a thread; a thread that hangs is abandoned.
    """
    answers: queue.SimpleQueue[list[AddressInfo] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    while True:
        effort.guard.check()
        try:
            answer = answers.get(timeout=max(0.001, min(TICK_SECONDS, effort.end - time.monotonic())))
        except queue.Empty:
            if time.monotonic() >= effort.end:
                raise SourceError(
                    Reason.CONNECT_TIMEOUT,
                    f"{effort.url}: the address of {host} was not found within {effort.timeouts.connect_seconds:g} s "
                    f"({Setting.CONNECT_TIMEOUT})",
                ) from None
            continue
        if isinstance(answer, Exception) or not answer:
            detail = (answer.strerror if isinstance(answer, OSError) else str(answer)) if answer else "empty answer"
            raise SourceError(Reason.SOURCE_UNREACHABLE, f"{effort.url}: {host} has no address: {detail}")
        return answer


def _resolve_allowed(effort: Effort, policy: SourcePolicy) -> list[AddressInfo]:
    addresses = resolve_any(effort, effort.url.host, effort.url.port)
    kept = rules.check_addresses(effort.url, [str(address[4][0]) for address in addresses], policy)
    return [address for address in addresses if address[4][0] in kept]


def _connect_address(effort: Effort, address: AddressInfo, through: str) -> socket.socket:
    family, kind, protocol, _, target = address
    shown = f"{through}{target[0]} port {target[1]}"
    try:
        connection = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SourceError(Reason.SOURCE_UNREACHABLE, f"{effort.url}: {shown}: {error.strerror}") from error
    try:
        connection.setblocking(False)
        error_number = connection.connect_ex(target)
        if error_number == errno.EINPROGRESS:
            effort.wait(connection, select.POLLOUT, f"{shown} did not answer")
            error_number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error_number:
            raise SourceError(Reason.SOURCE_UNREACHABLE, f"{effort.url}: {shown}: {os.strerror(error_number)}")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


class Wire(io.RawIOBase):
    """The bytes of a plain connection. A moment by which it must have ended bounds the head of a response."""

    def __init__(self, effort: Effort, connection: socket.socket) -> None:
        self._url = effort.url
        self._socket = connection
        self._silence_seconds = effort.timeouts.socket_seconds
        self._guard = effort.guard
        #: on the monotonic clock; None: no head is being read
        self._head_end: float | None = None
        connection.setblocking(True)
        tick = struct.pack("ll", 0, int(TICK_SECONDS * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)

    def begin_head(self, seconds: float) -> None:
        """A head follows, within so many seconds. `head.read` bounds its bytes."""
        self._head_end = time.monotonic() + seconds

    def end_head(self) -> None:
        self._head_end = None

    def readable(self) -> bool:
        return True

    def reader(self) -> io.BufferedReader:
        """Of all that comes from now on; only one may be used."""
        return io.BufferedReader(self, 64 * 1024)

    def readinto(self, buffer: Any) -> int:
        count = self._read(buffer)
        if self._head_end is not None and time.monotonic() > self._head_end:
            raise SourceError(
                Reason.SOURCE_UNAVAILABLE,
                f"{self._url}: the server's headers do not end; check that the URL names an HTTP server",
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
                Reason.SOCKET_TIMEOUT,
                f"{self._url}: no data for {self._silence_seconds:g} s ({Setting.SOCKET_TIMEOUT})",
            )

    def _broken(self, error: OSError) -> SourceError:
        detail = os.strerror(error.errno) if error.errno else str(error)
        return self._cut(f"the connection broke: {detail}")

    def _cut(self, problem: str) -> SourceError:
        in_head = self._head_end is not None
        return SourceError(Reason.SOURCE_UNREACHABLE if in_head else Reason.TRUNCATED, f"{self._url}: {problem}")
