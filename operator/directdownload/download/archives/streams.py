"""gz, bz2, xz and zst: streams of one content, one after the other.

Called by `archives.create`. An archive is one or more streams (members, frames); its content is their concatenation.

- gz: RFC 1952, section 2.2. Other data may follow, such as a signature or metadata (OpenWrt's fwtool), or the zeros of
  a tape: `gzip` ignores them with a warning.
- bz2: several streams, as from pbzip2 and `cat`. Other data may follow: `bzip2` ignores them with a warning.
- xz: the .xz file format, sections 2 and 2.2: zeros in multiples of four bytes may follow each stream. The most memory
  is that of `xz -9` (a dictionary of 64 MiB).
- zst: RFC 8878, section 3.1, with skippable frames. The largest window is 128 MiB (2^27), the limit of `zstd` itself:
  archives of `zstd --long` and `zstd --ultra -22` unpack, those that need `zstd -d --long=28` or more do not.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from backports import zstd

from directdownload.download.archives.base import PIECE_BYTES, Input, Kind, failed
from directdownload.download.errors import plain

#: 64 MiB of dictionary and ample room for the decoder itself.
_XZ_MEMORY_BYTES = 68 * 1024 * 1024
_ZST_WINDOW_LOG = 27
#: The first piece of each stream; the next ones double. The rest after a short stream is read again for the next.
_FIRST_PIECE_BYTES = 1024

#: The beginning of a further stream. Other data end the archive; the programs of the other kinds refuse them.
_FURTHER = {Kind.GZ: b"\x1f\x8b", Kind.BZ2: b"BZh"}
#: More than any signature or metadata; zeros aside. More data are rather another file, or streams of a damaged archive.
_IGNORED_LIMIT_BYTES = 1024 * 1024
#: The .xz file format, section 2.2.
_XZ_PADDING_UNIT = 4
_AFTER_PADDING = "is followed by other data after its padding"
#: bz2 reports bad data as OSError
_ERRORS = (zlib.error, OSError, lzma.LZMAError, zstd.ZstdError)


class Stream(Protocol):
    """One stream, with the interface of bz2, lzma and zstd."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Inflate:
    """zlib's decompressor with the interface of the others. `wbits` as in zlib: 31 for gzip, -15 for bare deflate."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self._may_have_more = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._may_have_more and not self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        output = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # zlib may hold back output even after it has read everything
        self._may_have_more = bool(self._inner.unconsumed_tail) or len(output) == max_length
        return output


def _gz() -> Stream:
    return Inflate(16 + zlib.MAX_WBITS)


def _xz() -> Stream:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _zst() -> Stream:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZST_WINDOW_LOG})


_STREAMS: dict[Kind, Callable[[], Stream]] = {
    Kind.GZ: _gz,
    Kind.BZ2: bz2.BZ2Decompressor,
    Kind.XZ: _xz,
    Kind.ZST: _zst,
}


class Concatenated:
    """A Decompressor of concatenated streams."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._stream: Stream | None = None
        self._streams = 0
        #: behind the last stream: zeros, then bytes that may begin a further one, or other data with more zeros
        self._padding_bytes = 0
        self._held = b""
        self._other_bytes = 0
        self._input = Input()
        self._piece_bytes = _FIRST_PIECE_BYTES
        self._may_have_more = False

    @property
    def ignored_bytes(self) -> int:
        return self._padding_bytes + self._other_bytes if self._kind in _FURTHER else 0

    @property
    def needs_input(self) -> bool:
        if self._input.left or self._may_have_more:
            return False
        return self._stream is None or self._stream.needs_input

    def decompress(self, data: bytes | memoryview, max_output: int) -> bytes:
        if data:
            self._input.give(data, wanted=self.needs_input)
        self._may_have_more = False
        if self._stream is None:
            if not (self._another_begins() if self._streams else self._input.left):
                return b""
            self._streams += 1
            self._piece_bytes = _FIRST_PIECE_BYTES
            self._stream = _STREAMS[self._kind]()
        piece = b""
        if self._stream.needs_input:
            piece = self._held + self._input.take(self._piece_bytes)
            self._held = b""
            self._piece_bytes = min(2 * self._piece_bytes, PIECE_BYTES)
        try:
            output = self._stream.decompress(piece, max_output)
        except _ERRORS as error:
            raise failed(self._kind, _describe(self._kind, error)) from error
        if self._stream.eof:
            self._input.give_back(len(self._stream.unused_data))
            self._stream = None
        else:
            # bz2 reports that it needs input while it still holds the rest of a block
            self._may_have_more = len(output) == max_output
        return output

    def _another_begins(self) -> bool:
        """Skip what is between streams; whether one more begins here. There may be input left if not."""
        further = _FURTHER.get(self._kind)
        if self._kind is Kind.ZST:
            return bool(self._input.left)
        if not (self._held or self._other_bytes):
            zeros = self._input.skip_zeros(PIECE_BYTES)
            self._padding_bytes += zeros
            if zeros == PIECE_BYTES or not self._input.left:
                return False
        if further is None:
            if self._padding_bytes % _XZ_PADDING_UNIT:
                raise failed(self._kind, _AFTER_PADDING)
            self._padding_bytes = 0
            return True
        if not self._other_bytes:
            self._held += self._input.take(len(further) - len(self._held))
            if self._held == further and self._padding_bytes:
                # the programs ignore it, and with it a part of the content
                raise failed(self._kind, _AFTER_PADDING)
            if further.startswith(self._held):
                return self._held == further
        data = self._held + self._input.take(PIECE_BYTES)
        self._held = b""
        self._padding_bytes += data.count(0)
        self._other_bytes += len(data) - data.count(0)
        if self._other_bytes > _IGNORED_LIMIT_BYTES:
            raise failed(self._kind, f"is followed by more than {_IGNORED_LIMIT_BYTES} bytes of other data")
        return False

    def finish(self) -> None:
        if self._stream is not None or self._held or not self._streams:
            raise failed(self._kind, "ends too early: it is truncated")
        if self._kind is Kind.XZ and self._padding_bytes % _XZ_PADDING_UNIT:
            raise failed(self._kind, f"is followed by {self._padding_bytes} zeros, expected a multiple of four")


def _describe(kind: Kind, error: Exception) -> str:
    text = str(error)
    if kind is Kind.XZ and "Memory usage limit" in text:
        return "needs a dictionary of more than 64 MiB to unpack; make it with `xz -9` or less"
    if kind is Kind.ZST and ("memory" in text.lower() or "window" in text.lower()):
        return "needs a window of more than 128 MiB to unpack; make it without `--long` or with `--long=27`"
    return f"is damaged, or other data follows it: {plain(text) or 'no more is known'}"
