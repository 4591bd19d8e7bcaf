"""What the server shows and believes: its certificate, the CAs of clients, the controller's keys, its own signing key.

The agent renews the files while the server runs. `Loader.refresh` looks at them, and keeps what it has until all of
them fit together: a certificate and its key are replaced one after the other.
"""

import dataclasses
import logging
import os
import ssl
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from directdownload.hostfiles import reading
from directdownload.peer.config import Config, ConfigError
from directdownload.peer.statements import Verifier
from directdownload.resources import peers

logger = logging.getLogger(__name__)

_FILES = (peers.CERTIFICATE, peers.KEY, peers.AUTHORITIES, peers.SIGNING_KEY, peers.CONFIG)
_LIMIT_BYTES = 64 * 1024
_REFRESH_SECONDS = 1.0


class CredentialsError(ValueError):
    """A file is missing, or does not fit the others; the message says which."""


@dataclasses.dataclass(frozen=True)
class Credentials:
    """One consistent set of the files."""

    config: Config
    context: ssl.SSLContext
    verifier: Verifier
    signing_key: Ed25519PrivateKey

    @classmethod
    def load(cls, directory: str) -> "Credentials":
        """Raises CredentialsError."""
        certificate, key, authorities, signing, config = (os.path.join(directory, name) for name in _FILES)
        try:
            told = Config.read(config)
        except ConfigError as error:
            raise CredentialsError(f"{config}: {error}") from None
        return cls(told, _context(certificate, key, authorities), Verifier(told.keys), _signing_key(signing))

    @property
    def public_key(self) -> bytes:
        """That by which others check what `signing_key` signs, raw."""
        return self.signing_key.public_key().public_bytes_raw()

    def vouches_as(self, other: "Credentials") -> bool:
        """Whether both find the same copies and believe the same warrants."""
        mine, theirs = self.config, other.config
        return (mine.host, mine.zone, mine.keys, self.public_key) == (
            theirs.host,
            theirs.zone,
            theirs.keys,
            other.public_key,
        )


class Loader:
    """Holds the last good set. For one thread."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._stamps: list[tuple[int, ...] | None] = []
        self._due_monotonic = float("-inf")
        self.credentials: Credentials | None = None
        #: why the files as they are now are not used; empty if they are
        self.problem = "not looked at yet"

    def refresh(self) -> bool:
        """Look at the files, at most once a second; return whether there is another set. Never raises."""
        now = time.monotonic()
        if now < self._due_monotonic:
            return False
        self._due_monotonic = now + _REFRESH_SECONDS
        stamps = [_stamp(os.path.join(self._directory, name)) for name in _FILES]
        if stamps == self._stamps and not self.problem:
            return False
        try:
            self.credentials = Credentials.load(self._directory)
        except CredentialsError as error:
            if str(error) != self.problem:
                logger.warning("The credentials are not used: %s", error)
            self.problem = str(error)
            return False
        # those of before the load: what changed meanwhile is loaded next time
        self._stamps, self.problem = stamps, ""
        return True


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        return reading.stamp(os.stat(path))
    except OSError:
        return None


def _context(certificate: str, key: str, authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    # resumption would leave out the certificate
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{certificate} and {key}: {_why(error)}") from None
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{authorities}: {_why(error)}") from None
    return context


def _signing_key(path: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(reading.read(path, _LIMIT_BYTES).data, None)
    except (OSError, ValueError, TypeError) as error:
        raise CredentialsError(f"{path}: {_why(error)}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CredentialsError(f"{path}: expected an Ed25519 key")
    return key


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
