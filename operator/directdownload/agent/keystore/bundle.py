"""The trust bundle: certificates of the host's keystore that downloads trust beside the system's roots.

`sync` writes it; a download job mounts its directory and reads it (`download.sources.tls`). It has all trusted
certificates, also those of others, because CloudStack trusts its whole keystore. It is replaced as a whole, and only
if its content changes.

OpenSSL, the library of the reader, checks each certificate once before it is added. One refused certificate would make
the whole bundle unreadable, so it is left out and logged. Certificates in the bundle are not checked again.
"""

import dataclasses
import logging
import os
import re
import ssl
from collections.abc import Iterable, Set

from directdownload.hostfiles import writing
from directdownload.keystore import der, errors, store
from directdownload.resources import pem

logger = logging.getLogger(__name__)

DIRECTORY, FILE_NAME = "trust", "bundle.pem"
#: equal to that of `download.sources.tls`, plus the end of the line
_BLOCK = re.compile(rb"(-----BEGIN CERTIFICATE-----.{1,65536}?-----END CERTIFICATE-----)\r?\n?", re.DOTALL)
#: equal to that of `download.sources.tls`
_LIMIT_BYTES = 16 * 1024 * 1024
#: The largest DER whose PEM block the reader accepts: four letters for three bytes, line ends and labels.
_DER_LIMIT_BYTES = (pem.TEXT_LIMIT - 64) * 64 // 65 * 3 // 4


class Bundle:
    """The file below `state_directory`. `write` and `drop` raise OSError when it cannot be written."""

    def __init__(self, state_directory: str) -> None:
        self._directory = os.path.join(state_directory, DIRECTORY)
        self.path = os.path.join(self._directory, FILE_NAME)
        #: of the last `write`: each sync passes all certificates again, and a check takes half a millisecond
        self._judged: dict[bytes, _Judged] = {}
        #: fingerprints that were logged
        self._left_out: Set[str] = frozenset()

    def write(self, certificates: Iterable[bytes]) -> None:
        """Replaces the content by these certificates (DER), without those that the reader could not use."""
        judged = {each: self._judged.get(each) or _judge(each) for each in sorted(set(certificates))}
        self._judged = judged
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
        """Removes these, and keeps the rest byte for byte: for a keystore whose content is unknown."""

        def kept(block: re.Match[bytes]) -> bytes:
            return b"" if _fingerprint(block[1]) in fingerprints else block[0]

        if self._replace(_BLOCK.sub(kept, self._read() or b"")):
            logger.info("Trust bundle %s: removed certificates that are no longer trusted", self.path)

    def stamp(self) -> tuple[int, ...] | None:
        """A value that changes with every write. None: the bundle is missing or unreadable."""
        try:
            return store.stamp(self.path)
        except errors.UnreadableError:
            return None

    def _replace(self, content: bytes) -> bool:
        """Writes `content`; returns whether it differs from the old content."""
        if content == self._read():
            return False
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        writing.write_atomically(self.path, content, finish=lambda descriptor: os.fchmod(descriptor, 0o644))
        return True

    def _read(self) -> bytes | None:
        """The content; None if the bundle is missing."""
        try:
            with open(self.path, "rb") as file:
                return file.read(_LIMIT_BYTES)
        except FileNotFoundError:
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Judged:
    """A certificate in PEM, or the problem that makes it unusable for the reader."""

    block: str = ""
    problem: str = ""


def _judge(certificate: bytes) -> _Judged:
    """Checks as `download.sources.tls` reads: all in a row."""
    if len(certificate) > _DER_LIMIT_BYTES:
        return _Judged(problem=f"it has {len(certificate)} bytes, at most {_DER_LIMIT_BYTES} are read")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        # A single one may end with bytes that hide the next in a row: an extra byte, or BER, which has no length.
        der.only(certificate)
    except (ValueError, ssl.SSLError) as error:
        # the text ends with a line number of Python's source
        return _Judged(problem=f"OpenSSL cannot read it: {str(error.args[-1]).partition(' (_ssl.c')[0]}")
    except errors.UnreadableError:
        return _Judged(problem="expected DER and nothing after it; the rest of the bundle would be unreadable")
    return _Judged(pem.Certificate(certificate).pem)


def _fingerprint(block: bytes) -> str | None:
    """The fingerprint of the certificate that the reader gets from a block; None if there is none."""
    try:
        return pem.fingerprint_sha256(ssl.PEM_cert_to_DER_cert(block.decode("ascii")))
    except ValueError:
        return None
