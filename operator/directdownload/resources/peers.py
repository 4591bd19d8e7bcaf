"""What hosts that serve each other agree on: contents, their pieces, and where keys and sockets are.

A *content* is the file of one Template in one notation of pieces. Controller, jobs, agent and the peer server derive
the same id, so no list of contents travels. Imports only the standard library: the peer server stays small.
"""

import hashlib

from directdownload.resources.checksum import Algorithm, Checksum

MEBIBYTE = 1024 * 1024
SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES = MEBIBYTE, 64 * MEBIBYTE
#: Where the size of the file is not known.
_PIECE_BYTES = 16 * MEBIBYTE
#: The number of pieces that is aimed at: more cost requests, fewer cost a longer last piece.
_PIECES = 1024
#: The largest number of pieces of a content.
PIECES_LIMIT = 32768
#: Hosts that one job may ask, addresses of each, and the controller's keys at once.
PARENTS_LIMIT, ADDRESSES_LIMIT, KEYS_LIMIT = 16, 2, 2
DEFAULT_PORT = 10471

#: Of the host. The first only the peer server reads: its keys sign, and prove who it is. The second goes into jobs.
SERVER_DIRECTORY = "/var/lib/directdownload/peer/server"
CLIENT_DIRECTORY = "/var/lib/directdownload/peer/client"
#: The files in them: certificate, its key, the CAs; in the first also the key that signs pieces, and the settings.
CERTIFICATE, KEY, AUTHORITIES, SIGNING_KEY, CONFIG = "tls.crt", "tls.key", "ca.crt", "signing.key", "config.json"
#: The user of the peer server, which owns `SERVER_DIRECTORY`.
SERVER_UID = 65532
#: Of the process that opens files for the server.
OPENER_SOCKET = "/run/directdownload-peer/opener.sock"


def eligible(checksum: Checksum | None) -> bool:
    """Whether a file with this checksum may come from other hosts: only a strong one, that its author gave."""
    return checksum is not None and checksum.algorithm.strength >= Algorithm.SHA256.strength


def piece_bytes(size_bytes: int | None) -> int:
    """The size of a piece of a file of `size_bytes`: a power of two from 1 to 64 MiB, for about a thousand pieces."""
    if size_bytes is None:
        return _PIECE_BYTES
    piece = SMALLEST_PIECE_BYTES
    while piece < LARGEST_PIECE_BYTES and piece * _PIECES < size_bytes:
        piece *= 2
    return piece


def pieces(size_bytes: int, piece_bytes: int) -> int:
    """The number of pieces; more than `PIECES_LIMIT` cannot be shared."""
    return -(-size_bytes // piece_bytes)


def piece_range(index: int, piece_bytes: int, size_bytes: int) -> tuple[int, int]:
    """The bytes of a piece, `[start, end)`; the last one may be shorter."""
    return index * piece_bytes, min((index + 1) * piece_bytes, size_bytes)


def content_id(template_uid: str, checksum: str, piece_bytes: int) -> str:
    """64 hex digits; `checksum` in its canonical notation.

    The Template is in it: whoever knows a checksum must not get another tenant's file by it.
    """
    parts = ("directdownload content 1", template_uid, checksum, str(piece_bytes))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def spiffe(trust_domain: str, host: str) -> str:
    """The name of a host in its certificates (SPIFFE ID)."""
    return f"spiffe://{trust_domain}/host/{host}"
