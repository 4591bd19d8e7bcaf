"""The trust bundle: what downloads on this host trust beside the system's roots, taken from the host's keystore.

Written by `keystoresync`; a download job mounts its directory and reads it (`download.sources.tls`). Certificates only,
those of others too, as CloudStack trusts all that its keystore does. Replaced whole, only when its content changes.
"""

import contextlib
import functools
import logging
import os
import re
import ssl
from collections.abc import Iterable, Iterator, Set

from directdownload.download import files
from directdownload.keystore import errors, store
from directdownload.resources import pem

logger = logging.getLogger(__name__)

DIRECTORY, FILE_NAME = "trust", "bundle.pem"
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
#: as `download.sources.tls` has it
_LIMIT_BYTES = 16 * 1024 * 1024
#: Of one that `pem.parse` takes: four letters for three bytes, 65 for 64 with the ends of lines, and the two labels.
_DER_LIMIT_BYTES = (pem.TEXT_LIMIT - 64) * 64 // 65 * 3 // 4


class Bundle:
    """The file below `state_directory`. `write` and `drop` raise OSError when it cannot be written."""

    def __init__(self, state_directory: str) -> None:
        self._directory = os.path.join(state_directory, DIRECTORY)
        self.path = os.path.join(self._directory, FILE_NAME)

    def write(self, certificates: Iterable[bytes]) -> None:
        """Makes it hold just these (DER); one that TLS cannot use is left out, as it would spoil the others."""
        blocks = [block for block in map(_block, sorted(set(certificates))) if block]
        content = "".join(blocks).encode()
        if content == self._read():
            return
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        files.write_atomically(self.path, content, mode=0o644)
        logger.info("Trust bundle %s holds %d certificates now", self.path, len(blocks))

    def drop(self, fingerprints: Set[str]) -> None:
        """Takes these out, and adds nothing: for when it is not known what the keystore holds."""
        found = _certificates((self._read() or b"").decode("ascii", "replace"))
        self.write(each.der for each in found if each.fingerprint_sha256 not in fingerprints)

    def stamp(self) -> tuple[int, ...] | None:
        """The same as long as nobody has written it. None: there is none that could be read."""
        try:
            return store.stamp(self.path)
        except errors.UnreadableError:
            return None

    def _read(self) -> bytes | None:
        """None: there is none."""
        try:
            with open(self.path, "rb") as file:
                return file.read(_LIMIT_BYTES)
        except FileNotFoundError:
            return None


@functools.lru_cache(maxsize=4096)
def _block(der: bytes) -> str:
    """In PEM; empty if those who read the bundle could not use it. Cached: each check of the keystore asks for all."""
    if len(der) > _DER_LIMIT_BYTES:
        return ""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ValueError, ssl.SSLError):
        return ""
    return pem.Certificate(der).pem


def _certificates(text: str) -> Iterator[pem.Certificate]:
    for block in _BLOCK.findall(text):
        with contextlib.suppress(pem.CertificateError):
            yield pem.parse(block)
