"""TLS over a connection, and the trust in servers.

Called by the HTTP source. A server is trusted if its certificate names the host and is signed by the system's roots or
by a certificate of the trust bundle, or is itself in the bundle. A certificate that is byte for byte in the bundle may
name another host: the administrator who uploaded it knew the server. Dates are always checked.

TLS goes through memory BIOs, fed with large reads: two system calls per record of 16 KiB would cost more than the
decryption.
"""

import contextlib
import functools
import logging
import os
import re
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

from directdownload.download.errors import SourceError
from directdownload.download.sources import tlswords
from directdownload.download.sources.connection import Effort, Wire
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

_READ_BYTES = 256 * 1024
_BUNDLE_LIMIT_BYTES = 16 * 1024 * 1024
_preloaded: dict[str, "Trust"] = {}
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.{1,65536}?-----END CERTIFICATE-----", re.DOTALL)
#: X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL
_OTHER_NAME = frozenset({62, 64})


class Trust:
    """The trust anchors for servers: the system's roots, and `certificates` (DER) of the trust bundle."""

    def __init__(self, certificates: frozenset[bytes] = frozenset()) -> None:
        self.certificates = certificates
        self.context = ssl.create_default_context()
        #: for servers that present a certificate of the bundle, under any name
        self.nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.nameless.check_hostname = False
        self.nameless.verify_mode = ssl.CERT_REQUIRED
        for context in (self.context, self.nameless):
            # the default since Python 3.13; it refuses many private authorities that every other client accepts
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if certificates:
                context.load_verify_locations(cadata=b"".join(sorted(certificates)))
                # a server certificate in the bundle is an anchor by itself, regardless of its issuer
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def trust(bundle: str) -> Trust:
    """The system's roots and, if it exists, the current PEM file `bundle`. Raises SourceError if it is not PEM."""
    try:
        status = os.stat(bundle) if bundle else None
    except FileNotFoundError:
        status = None
    except OSError as error:
        if bundle in _preloaded:
            return _preloaded[bundle]
        raise _unreadable(bundle, f"it cannot be read: {error.strerror}") from error
    if status is None:
        return _trust("", 0, 0, 0)
    return _trust(bundle, status.st_ino, status.st_mtime_ns, status.st_size)


def preload(bundle: str) -> None:
    """Read `bundle` and the system's roots now: a process that drops its rights may be unable to later."""
    with contextlib.suppress(SourceError):
        _preloaded[bundle] = trust(bundle)


def connect(dial: Callable[[], socket.socket], effort: Effort, trusted: Trust) -> "TLSWire":
    """A verified TLS connection over the socket of `dial`. Raises SourceError(TLSVerificationFailed)."""
    try:
        return TLSWire(effort, dial(), trusted.context)
    except _OtherNameError as error:
        if not trusted.certificates:
            raise
        wire = TLSWire(effort, dial(), trusted.nameless)
        if wire.certificate not in trusted.certificates:
            wire.close()
            raise error from None
        return wire


class _OtherNameError(SourceError):
    """The certificate is trusted, but names another host."""


class TLSWire(Wire):
    """The decrypted bytes of a TLS connection; the handshake is done when the constructor returns.

    Owns `connection`, also when the handshake fails.
    """

    def __init__(self, effort: Effort, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = connection
        try:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._encrypted = bytearray(_READ_BYTES)
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=effort.url.host)
            self._handshake(effort, connection)
            super().__init__(effort, connection)
        except BaseException:
            connection.close()
            raise

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs that the server's certificate names."""
        found: Any = self._tls.getpeercert() or {}
        return tuple(name for kind, name in found.get("subjectAltName", ()) if kind == "URI")

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate in DER."""
        return self._tls.getpeercert(binary_form=True)

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        try:
            super().send(self._outgoing.read())
        except SourceError:
            self._raise_alert()
            raise

    def _raise_alert(self) -> None:
        """Raise the alert that the server has sent before it closed the connection, if it is there."""
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._feed(self._socket.recv_into(self._encrypted))
        try:
            self._tls.read(1)
        except (ssl.SSLWantReadError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return
        except ssl.SSLError as error:
            raise tlswords.broken(self._url, error) from error

    def _handshake(self, effort: Effort, connection: socket.socket) -> None:
        problem = "the TLS handshake did not end"
        ended, first = False, True
        while not ended:
            try:
                self._tls.do_handshake()
                ended = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                kind = _OtherNameError if error.verify_code in _OTHER_NAME else SourceError
                raise kind(Reason.TLS_VERIFICATION_FAILED, tlswords.untrusted(effort.url, error)) from error
            except ssl.SSLError as error:
                raise tlswords.handshake_failure(effort.url, error, chosen=self._tls.cipher() is not None) from error
            try:
                if data := self._outgoing.read():
                    effort.wait(connection, select.POLLOUT, problem)
                    connection.sendall(data)
                if not ended:
                    effort.wait(connection, select.POLLIN, problem)
                    received = connection.recv_into(self._encrypted)
                    if received and first:
                        tlswords.check_is_tls(effort.url, self._encrypted[0])
                    first = False
                    self._feed(received)
            except OSError as error:
                raise SourceError(
                    Reason.SOURCE_UNREACHABLE,
                    f"{effort.url}: the connection broke in the TLS handshake: {error.strerror}",
                ) from error

    def _feed(self, received: int) -> None:
        if received:
            self._incoming.write(memoryview(self._encrypted)[:received])
        else:
            self._incoming.write_eof()

    def _read(self, buffer: memoryview) -> int:
        filled = 0
        while True:
            try:
                # the received bytes hold many records: read them all before the next system call
                while filled < len(buffer):
                    # with a buffer it returns a number, unlike typeshed's annotation
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
                raise self._cut("the connection ended without TLS close_notify") from error
            except ssl.SSLError as error:
                raise tlswords.broken(self._url, error) from error
            self._feed(self._receive(self._encrypted))


@functools.lru_cache(maxsize=2)
def _trust(bundle: str, _inode: int, _mtime_ns: int, _size_bytes: int) -> Trust:
    """Read the roots once for all sources: they take milliseconds and megabytes."""
    if not bundle:
        return Trust()
    try:
        return load(bundle)
    except ValueError as error:
        raise _unreadable(bundle, str(error)) from error


def load(bundle: str) -> Trust:
    """The system's roots and the PEM file `bundle`. Raises ValueError that says what is wrong with the file."""
    try:
        with open(bundle, "rb") as file:
            data = file.read(_BUNDLE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(data) > _BUNDLE_LIMIT_BYTES:
        raise ValueError(f"it has more than {_BUNDLE_LIMIT_BYTES} bytes; expected certificates in PEM")
    blocks = _PEM.findall(data)
    if data.strip() and not blocks:
        raise ValueError("it holds no certificate; expected certificates in PEM (-----BEGIN CERTIFICATE-----)")
    try:
        return Trust(frozenset(ssl.PEM_cert_to_DER_cert(block.decode("ascii")) for block in blocks))
    except (ValueError, ssl.SSLError) as error:
        logger.debug("%s: %s", bundle, error)
        raise ValueError("one of its certificates is damaged; expected certificates in PEM") from error


def _unreadable(bundle: str, problem: str) -> SourceError:
    return SourceError(Reason.TLS_VERIFICATION_FAILED, f"trust bundle {bundle}: {problem}")
