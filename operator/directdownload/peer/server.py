"""Takes the connections of other hosts: HTTPS with certificates of both sides, one thread for each.

Called by `main`. It listens once the agent has put certificates, keys and settings there, and takes new ones while it
runs. `session` serves a connection.
"""

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from directdownload.peer import metrics
from directdownload.peer.asking import Ask
from directdownload.peer.clients import STRANGERS_LIMIT, Connections
from directdownload.peer.contents import Contents
from directdownload.peer.credentials import Credentials, Loader
from directdownload.peer.session import Services, Session
from directdownload.peer.uploads import Uploads
from directdownload.peer.watches import Watches

logger = logging.getLogger(__name__)

#: Certificates are looked at, and unused copies let go, so often.
_TURN_SECONDS = 1.0
#: Liveness: the loop turns more often than that.
_STUCK_SECONDS = 30.0
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - other hosts come from outside


class Server:
    """`serve` runs until `close`. `directory` has the files of `resources.peers`; `clock` gives seconds since 1970."""

    def __init__(
        self,
        directory: str,
        ask: Ask,
        *,
        addresses: Sequence[str] = ALL_ADDRESSES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loader = Loader(directory)
        self._addresses = addresses
        self.connections = Connections()
        self._contents = Contents(ask, clock)
        self._services = Services(
            self.connections, self._contents, Watches(self._contents), Uploads(), self._credentials, clock
        )
        self._listening: dict[int, socket.socket] = {}
        self._wanted_port: int | None = None
        self._problem = ""
        # the end of the one is what `serve` reads at the other
        self._open, self._end = socket.socketpair()
        self._turn_monotonic = time.monotonic()
        metrics.CONNECTIONS.labels(kind="stranger").set_function(lambda: self.connections.strangers)
        metrics.CONNECTIONS.labels(kind="client").set_function(lambda: self.connections.clients)

    @property
    def port(self) -> int:
        """At which it listens; 0 while it does not."""
        return next((each.getsockname()[1] for each in self._listening.values()), 0)

    @property
    def stuck(self) -> bool:
        return time.monotonic() - self._turn_monotonic > _STUCK_SECONDS

    @property
    def problem(self) -> str:
        """What keeps it from serving; empty if nothing does."""
        if self._loader.credentials is None:
            return self._loader.problem
        return self._problem or self._contents.problem

    def serve(self) -> None:
        with self._end:
            while self._turn():
                pass
        self._stop_listening()
        self.connections.drop_all()

    def _turn(self) -> bool:
        """Whether there is another one."""
        self._turn_monotonic = time.monotonic()
        self._renew()
        self._contents.tidy()
        poll = select.poll()
        for descriptor in (self._end.fileno(), *self._listening):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(_TURN_SECONDS * 1000)]
        if self._end.fileno() in ready:
            return False
        for descriptor in ready:
            self._accept(self._listening[descriptor])
        return True

    def close(self) -> None:
        """From any thread, at any time; `serve` returns soon."""
        self._open.close()

    def _credentials(self) -> Credentials:
        credentials = self._loader.credentials
        if credentials is None:
            raise RuntimeError("a connection before there are certificates")
        return credentials

    def _renew(self) -> None:
        if self._loader.refresh():
            credentials = self._credentials()
            self._contents.use(credentials)
            logger.info("Serves as host %s of zone %s", credentials.config.host, credentials.config.zone)
        if self._loader.credentials is not None:
            self._listen(self._loader.credentials.config.port)

    def _listen(self, port: int) -> None:
        if port == self._wanted_port and self._listening:
            return
        self._stop_listening()
        try:
            for address in self._addresses:
                self._listen_at(address, port)
        except OSError as error:
            self._stop_listening()
            problem = f"port {port} cannot be had: {error.strerror or error}"
            if problem != self._problem:
                logger.error("Cannot listen: %s", problem)
            self._problem = problem
            return
        self._wanted_port, self._problem = port, ""
        logger.info("Listens at port %d", self.port)

    def _listen_at(self, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # two sockets instead of one for both families, which `net.ipv6.bindv6only` and disabled IPv6 would break
        unneeded = (
            contextlib.suppress(OSError) if self._listening and family == socket.AF_INET6 else contextlib.nullcontext()
        )
        with unneeded:
            listening = socket.create_server((address, self.port or port), family=family, backlog=4 * STRANGERS_LIMIT)
            listening.setblocking(False)
            self._listening[listening.fileno()] = listening

    def _stop_listening(self) -> None:
        while self._listening:
            self._listening.popitem()[1].close()

    def _accept(self, listening: socket.socket) -> None:
        try:
            plain, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # of descriptors, for example; those of idle connections come back
            logger.warning("A connection cannot be taken: %s", error.strerror)
            time.sleep(0.1)
            return
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._credentials().context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            # it is closed already
            plain.close()
            return
        self._start(sock)

    def _start(self, sock: ssl.SSLSocket) -> None:
        session = Session(sock, self._services)
        if not self.connections.come(session):
            metrics.REFUSALS.labels(reason="TooManyStrangers").inc()
        try:
            threading.Thread(target=session.run, name="connection", daemon=True).start()
        except RuntimeError:
            # of threads; as few as for descriptors
            self.connections.leave(session)
            sock.close()
