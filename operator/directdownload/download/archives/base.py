"""The common parts of all kinds of archives: names, first bytes, the interface, the one kind of failure."""

import enum
from typing import Protocol

from directdownload.download.errors import SourceError
from directdownload.resources.reasons import Reason

#: The number of first bytes that `recognise` needs.
HEAD_BYTES = 6
#: The most that one call passes to a library. The rest after a stream is copied: less is better with tiny streams.
PIECE_BYTES = 64 * 1024


class Kind(enum.StrEnum):
    """The value is the usual suffix."""

    GZ = "gz"
    BZ2 = "bz2"
    XZ = "xz"
    ZST = "zst"
    ZIP = "zip"


_MAGIC = {
    # RFC 1952, section 2.3.1: ID1, ID2, CM = deflate
    b"\x1f\x8b\x08": Kind.GZ,
    # the .xz file format, section 2.1.1.1
    b"\xfd7zXZ\0": Kind.XZ,
    # RFC 8878, section 3.1.1: the magic number, little-endian
    b"\x28\xb5\x2f\xfd": Kind.ZST,
    # PKWARE's APPNOTE, sections 4.3.7 and 4.3.16: a local file header; the end of an empty archive
    b"PK\x03\x04": Kind.ZIP,
    b"PK\x05\x06": Kind.ZIP,
}


def recognise(head: bytes) -> Kind | None:
    """The kind of an archive by its first HEAD_BYTES bytes (fewer if the file is shorter), None if it is not one."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    # RFC 8878, section 3.1.2: pzstd begins with a skippable frame, 0x184D2A50 to 0x184D2A5F
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return Kind.ZST
    # `BZh`, the block size, then the first bytes of a block (pi) or of the end of the stream (its square root)
    if head[:3] == b"BZh" and b"1" <= head[3:4] <= b"9" and head[4:6] in (b"1A", b"\x17r"):
        return Kind.BZ2
    return None


class Decompressor(Protocol):
    """One archive, from its first byte to its last."""

    @property
    def ignored_bytes(self) -> int:
        """The number of bytes so far that follow the archive and are not of it; its own program only warns of them."""

    @property
    def needs_input(self) -> bool:
        """Whether there is no more output until `decompress` gets more data."""

    def decompress(self, data: bytes | memoryview, max_output: int) -> bytes:
        """At most `max_output` (1 or more) bytes of the content; `data` is b"" unless needs_input.

        `data` is copied: its buffer may be reused. Empty output does not mean that input is needed; see `needs_input`.
        """

    def finish(self) -> None:
        """State that no more data follows; raises if the archive does not end here. Only while `needs_input`."""


class Input:
    """The data of the last call that is not used up yet."""

    def __init__(self) -> None:
        self._data = b""
        self._position = 0
        self._earlier_bytes = 0

    @property
    def used_bytes(self) -> int:
        """The number of bytes of the whole archive that were used up."""
        return self._earlier_bytes + self._position

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def give(self, data: bytes | memoryview, *, wanted: bool) -> None:
        """Add data. Raises ValueError if the caller gives more before the earlier data is used up."""
        if not wanted:
            raise ValueError("more data were given before the earlier ones were used up")
        self._earlier_bytes = self.used_bytes
        self._data, self._position = bytes(data), 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._position : self._position + count]
        self._position += len(piece)
        return piece

    def give_back(self, count: int) -> None:
        """Return the last `count` bytes taken, which were not needed."""
        self._position -= count

    def skip_zeros(self, limit: int) -> int:
        """Skip zeros among the next `limit` bytes; return how many."""
        piece = self._data[self._position : self._position + limit]
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        self._position += zeros
        return zeros


def failed(kind: Kind, problem: str) -> SourceError:
    """The error for a bad archive: `problem` completes "the … archive …"."""
    return SourceError(Reason.DECOMPRESSION_FAILED, f"the {kind} archive {problem}")
