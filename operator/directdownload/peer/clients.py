"""Who a client is, and how many connections it may have.

Called by `server` and `session`. Promises: connections of strangers are few and short, however many come; a host that
makes many takes none from the others.
"""

import collections
import dataclasses
import re
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from directdownload.resources import peers

#: Connections that have not shown a certificate yet: of further ones the oldest goes. Each has so long for it.
STRANGERS_LIMIT = 32
STRANGER_SECONDS = 5.0
#: Connections of known hosts, of all and of one.
CLIENTS_LIMIT, CLIENTS_PER_HOST = 256, 8
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """The host that a certificate names, and when the certificate expires (seconds since 1970)."""

    host: str
    expiry: float

    @classmethod
    def of(cls, certificate: Mapping[str, Any] | None, trust_domain: str) -> "Client | None":
        """Of a certificate that TLS has verified (`SSLSocket.getpeercert`); None if it is not that of a host."""
        names = (certificate or {}).get("subjectAltName", ())
        if len(names) != 1 or names[0][0] != "URI":
            return None
        prefix = peers.spiffe(trust_domain, "")
        uri = names[0][1]
        host = uri.removeprefix(prefix)
        if host == uri or not _HOST.fullmatch(host):
            return None
        try:
            return cls(host, float(ssl.cert_time_to_seconds((certificate or {})["notAfter"])))
        except (KeyError, ValueError):
            return None


class Connection(Protocol):
    """What `Connections` counts."""

    def drop(self) -> None:
        """End it; called by any thread. Never raises."""


class Connections:
    """All that are open. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # in the order of coming
        self._strangers: dict[Connection, None] = {}
        self._clients: dict[Connection, str] = {}
        self._per_host: collections.Counter[str] = collections.Counter()

    @property
    def strangers(self) -> int:
        return len(self._strangers)

    @property
    def clients(self) -> int:
        return len(self._clients)

    def come(self, connection: Connection) -> bool:
        """Count a new one; the oldest stranger is dropped for it if there are too many, and False returned then."""
        oldest = None
        with self._lock:
            if len(self._strangers) >= STRANGERS_LIMIT:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
            self._strangers[connection] = None
        if oldest is not None:
            oldest.drop()
        return oldest is None

    def known(self, connection: Connection, host: str) -> bool:
        """It has shown the certificate of `host`; return whether it may stay."""
        with self._lock:
            if connection not in self._strangers:
                return False
            if len(self._clients) >= CLIENTS_LIMIT or self._per_host[host] >= CLIENTS_PER_HOST:
                return False
            del self._strangers[connection]
            self._clients[connection] = host
            self._per_host[host] += 1
            return True

    def leave(self, connection: Connection) -> None:
        with self._lock:
            self._strangers.pop(connection, None)
            host = self._clients.pop(connection, None)
            if host is not None:
                self._per_host[host] -= 1
                if not self._per_host[host]:
                    del self._per_host[host]

    def drop_all(self) -> None:
        with self._lock:
            everyone = [*self._strangers, *self._clients]
        for connection in everyone:
            connection.drop()
