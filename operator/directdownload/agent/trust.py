"""The trust bundle: what downloads on this host trust beside the system's roots, taken from the host's keystore.

Written by `keystoresync`; a download job mounts its directory and reads it (`download.sources.tls`). Certificates only,
those of others too, as CloudStack trusts all that its keystore does. Replaced whole, only when its content changes.

A certificate is judged once, when it is put in, by the library that will read it: OpenSSL. One that it refuses would
cost the reader the whole bundle, so it stays out, and the log says which. What is in is not judged again.
"""

import dataclasses
import functools
import logging
import os
import re
import ssl
from collections.abc import Iterable, Set

from directdownload.download import files
from directdownload.keystore import der, errors, store
from directdownload.resources import pem

logger = logging.getLogger(__name__)

DIRECTORY, FILE_NAME = "trust", "bundle.pem"
#: as `download.sources.tls` has it, and the end of the line
_BLOCK = re.compile(rb"(-----BEGIN CERTIFICATE-----.{1,65536}?-----END CERTIFICATE-----)\r?\n?", re.DOTALL)
#: as `download.sources.tls` has it
_LIMIT_BYTES = 16 * 1024 * 1024
#: Of one whose block the reader takes: four letters for three bytes, 65 for 64 with the ends of lines, and the labels.
_DER_LIMIT_BYTES = (pem.TEXT_LIMIT - 64) * 64 // 65 * 3 // 4


class Bundle:
    """The file below `state_directory`. `write` and `drop` raise OSError when it cannot be written."""

    def __init__(self, state_directory: str) -> None:
        self._directory = os.path.join(state_directory, DIRECTORY)
        self.path = os.path.join(self._directory, FILE_NAME)
        #: fingerprints of those that the log has
        self._left_out: Set[str] = frozenset()

    def write(self, certificates: Iterable[bytes]) -> None:
        """Makes it hold just these (DER), but for those that the reader could not use."""
        judged = {each: _judge(each) for each in sorted(set(certificates))}
        left_out = {pem.fingerprint_sha256(each): found.problem for each, found in judged.items() if found.problem}
        for fingerprint in sorted(left_out.keys() - self._left_out):
            logger.warning(
                "Trust bundle %s: left out certificate %s: %s; downloads on this host do not trust it",
                self.path,
                fingerprint,
                left_out[fingerprint],
            )
        self._left_out = left_out.keys()
        blocks = [found.block for found in judged.values() if not found.problem]
        if self._replace("".join(blocks).encode()):
            logger.info("Trust bundle %s holds %d certificates now", self.path, len(blocks))

    def drop(self, fingerprints: Set[str]) -> None:
        """Takes these out, and leaves the rest byte for byte: for when it is not known what the keystore holds."""

        def kept(block: re.Match[bytes]) -> bytes:
            return b"" if _fingerprint(block[1]) in fingerprints else block[0]

        if self._replace(_BLOCK.sub(kept, self._read() or b"")):
            logger.info("Trust bundle %s: removed certificates that are no longer trusted", self.path)

    def stamp(self) -> tuple[int, ...] | None:
        """The same as long as nobody has written it. None: there is none that could be read."""
        try:
            return store.stamp(self.path)
        except errors.UnreadableError:
            return None

    def _replace(self, content: bytes) -> bool:
        """Whether that was another content."""
        if content == self._read():
            return False
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        files.write_atomically(self.path, content, mode=0o644)
        return True

    def _read(self) -> bytes | None:
        """None: there is none."""
        try:
            with open(self.path, "rb") as file:
                return file.read(_LIMIT_BYTES)
        except FileNotFoundError:
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Judged:
    """A certificate in PEM; or why the reader could not use it."""

    block: str = ""
    problem: str = ""


@functools.lru_cache(maxsize=4096)
def _judge(certificate: bytes) -> _Judged:
    """As `download.sources.tls` reads them: all in a row. Cached: each check of the keystore asks for all."""
    if len(certificate) > _DER_LIMIT_BYTES:
        return _Judged(problem=f"it has {len(certificate)} bytes, at most {_DER_LIMIT_BYTES} are read")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        # One alone may end with what would hide the next of a row: a byte too many, or BER, which has no length.
        der.only(certificate)
    except (ValueError, ssl.SSLError) as error:
        # the last words are a line of Python's source
        return _Judged(problem=f"OpenSSL cannot read it: {str(error.args[-1]).partition(' (_ssl.c')[0]}")
    except errors.UnreadableError:
        return _Judged(problem="expected DER and nothing after it; the rest of the bundle would be unreadable")
    return _Judged(pem.Certificate(certificate).pem)


def _fingerprint(block: bytes) -> str | None:
    """Of what the reader makes of a block; None if nothing."""
    try:
        return pem.fingerprint_sha256(ssl.PEM_cert_to_DER_cert(block.decode("ascii")))
    except ValueError:
        return None
