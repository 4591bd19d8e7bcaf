"""zip: one member, unpacked from front to back.

Called by `archives.create`. Follows PKWARE's APPNOTE.TXT 6.3 (section numbers below are its own): the local header, the
data, an optional data descriptor, then the central directory, which must list only this member, with the CRC-32 and the
sizes found. ZIP64 is supported. Refused: more than one member, encryption, methods other than deflate and none, a
stored member whose length is unknown before its data (nothing shows where it ends), any data between or after the
parts. Names and comments are skipped.
"""

import stat
import struct
import zlib
from collections.abc import Generator

from directdownload.download.archives.base import PIECE_BYTES, Input, Kind, failed
from directdownload.download.archives.streams import Inflate
from directdownload.download.errors import plain

_LOCAL_HEADER = b"PK\x03\x04"
_DESCRIPTOR = b"PK\x07\x08"
_CENTRAL_HEADER = b"PK\x01\x02"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"
_END = b"PK\x05\x06"

# flags, section 4.4.4
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_HAS_DESCRIPTOR = 1 << 3
# methods, section 4.4.5
_STORED = 0
_DEFLATED = 8

_IN_ZIP64_16 = 0xFFFF
_IN_ZIP64_32 = 0xFFFFFFFF
_ZIP64_EXTRA = 1
_MADE_ON_UNIX = 3
_DOS_DIRECTORY = 0x10
#: of the ZIP64 end record: its fixed fields, and the limit for the fields after them
_END_64_BYTES = 44
_END_64_MAX_BYTES = 64 * 1024

_ONE_MEMBER = "holds more than one member; expected exactly one, the image: pack it alone"

#: Yields output; b"" when it needs input or has no output yet.
_Steps = Generator[bytes, None, None]
_Taking = Generator[bytes, None, bytes]


class Unzip:
    """A Decompressor for zip."""

    def __init__(self) -> None:
        self._input = Input()
        self._waits = True
        self._complete = False
        self._max_output = 0
        # found in the data
        self._crc = 0
        self._compressed_bytes = 0
        self._bytes = 0
        self._steps = self._archive()

    @property
    def needs_input(self) -> bool:
        return self._waits

    def decompress(self, data: bytes | memoryview, max_output: int) -> bytes:
        if data:
            self._input.give(data, wanted=self.needs_input)
        self._max_output = max_output
        self._waits = False
        return next(self._steps)

    def finish(self) -> None:
        if not self._complete:
            raise failed(Kind.ZIP, "ends too early: it is truncated")

    def _archive(self) -> _Steps:
        method = yield from self._member()
        directory_offset = self._input.used_bytes
        if (signature := (yield from self._take(4))) != _CENTRAL_HEADER:
            raise failed(
                Kind.ZIP, _ONE_MEMBER if signature == _LOCAL_HEADER else "has no central directory after its member"
            )
        yield from self._central_header(method)
        yield from self._end(directory_offset, self._input.used_bytes - directory_offset)
        self._complete = True
        while not self._input.left:
            self._waits = True
            yield b""
        raise failed(Kind.ZIP, "is followed by other data")

    def _take(self, count: int) -> _Taking:
        """Exactly `count` bytes of the archive."""
        taken = self._input.take(count)
        while len(taken) < count:
            self._waits = True
            yield b""
            taken += self._input.take(count - len(taken))
        return taken

    def _member(self) -> Generator[bytes, None, int]:
        """Unpack the member, from the local header (section 4.3.7) to the data descriptor; returns the method."""
        if (signature := (yield from self._take(4))) != _LOCAL_HEADER:
            raise failed(Kind.ZIP, "holds nothing" if signature == _END else "does not begin with a member")
        header = yield from self._take(26)
        _, flags, method, _, _, crc, packed, size, name_length, extra_length = struct.unpack("<HHHHHIIIHH", header)
        name = yield from self._take(name_length)
        extra = yield from self._take(extra_length)
        if flags & _ENCRYPTED:
            raise failed(Kind.ZIP, "is encrypted; pack the image without a password")
        if name.endswith(b"/"):
            raise failed(Kind.ZIP, "holds a directory; expected one file, the image")
        if method == _DEFLATED:
            yield from self._inflate()
        elif method != _STORED:
            raise failed(Kind.ZIP, f"uses compression method {method}; expected deflate (8) or none (0)")
        elif flags & _HAS_DESCRIPTOR:
            raise failed(
                Kind.ZIP,
                "stores its member without compression and without its length before it, so nothing shows where it "
                "ends; pack the image with deflate, or into a file rather than a pipe",
            )
        else:
            size, packed = _zip64(extra, size, packed)
            yield from self._copy(packed)
        if flags & _HAS_DESCRIPTOR:
            yield from self._data_descriptor()
        else:
            self._compare(crc, *_zip64(extra, size, packed))
        return int(method)

    def _inflate(self) -> _Steps:
        stream = Inflate(-zlib.MAX_WBITS)
        while True:
            piece = b""
            if stream.needs_input and not (piece := self._input.take(PIECE_BYTES)):
                self._waits = True
                yield b""
                continue
            try:
                output = stream.decompress(piece, self._max_output)
            except zlib.error as error:
                raise failed(Kind.ZIP, f"is damaged: {plain(str(error))}") from error
            self._compressed_bytes += len(piece)
            self._count(output)
            if stream.eof:
                unused = len(stream.unused_data)
                self._compressed_bytes -= unused
                self._input.give_back(unused)
                yield output
                return
            yield output

    def _copy(self, count: int) -> _Steps:
        while self._compressed_bytes < count:
            piece = self._input.take(min(count - self._compressed_bytes, PIECE_BYTES, self._max_output))
            self._compressed_bytes += len(piece)
            self._count(piece)
            self._waits = not piece
            yield piece

    def _count(self, output: bytes) -> None:
        self._crc = zlib.crc32(output, self._crc)
        self._bytes += len(output)

    def _data_descriptor(self) -> _Steps:
        """Section 4.3.9: with or without a signature, lengths of 4 or (ZIP64) 8 bytes: whichever are the right ones."""
        crc = yield from self._take(4)
        if crc == _DESCRIPTOR:
            crc = yield from self._take(4)
        packed, size = struct.unpack("<II", (lengths := (yield from self._take(8))))
        if (packed, size) != (self._compressed_bytes, self._bytes):
            packed, size = struct.unpack("<QQ", lengths + (yield from self._take(8)))
        self._compare(int.from_bytes(crc, "little"), size, packed)

    def _compare(self, crc: int, size: int, packed: int) -> None:
        if (size, packed) != (self._bytes, self._compressed_bytes):
            raise failed(
                Kind.ZIP,
                f"says that its member has {size} bytes, {packed} compressed; "
                f"found {self._bytes} and {self._compressed_bytes}",
            )
        if crc != self._crc:
            raise failed(Kind.ZIP, f"is damaged: CRC-32 {self._crc:08x}, expected {crc:08x}")

    def _central_header(self, method: int) -> _Steps:
        """Section 4.3.12, without the signature."""
        header = yield from self._take(42)
        (made_by, _, _, central_method, _, _, crc, packed, size, name_length, extra_length, comment_length) = (
            struct.unpack("<HHHHHHIIIHHH", header[:30])
        )
        disk, _, attributes, offset = struct.unpack("<HHII", header[30:])
        yield from self._take(name_length)
        extra = yield from self._take(extra_length)
        yield from self._take(comment_length)
        size, packed, offset = _zip64(extra, size, packed, offset)
        self._compare(crc, size, packed)
        if central_method != method or disk or offset:
            raise failed(Kind.ZIP, "is damaged: its central directory describes another member than the archive holds")
        # a member packed from a pipe is marked as a pipe, and accepted
        kind = stat.S_IFMT(attributes >> 16) if made_by >> 8 == _MADE_ON_UNIX else 0
        if kind in (stat.S_IFLNK, stat.S_IFDIR) or attributes & _DOS_DIRECTORY:
            raise failed(Kind.ZIP, "holds a link or a directory; expected one file, the image")

    def _end(self, directory_offset: int, directory_bytes: int) -> _Steps:
        """Sections 4.3.14 to 4.3.16: the ZIP64 end record and its locator, if any, and the end record."""
        end_offset = self._input.used_bytes
        signature = yield from self._take(4)
        if signature == _CENTRAL_HEADER:
            raise failed(Kind.ZIP, _ONE_MEMBER)
        zip64 = signature == _END_64
        if zip64:
            length = int.from_bytes((yield from self._take(8)), "little")
            if not _END_64_BYTES <= length <= _END_64_MAX_BYTES:
                raise failed(Kind.ZIP, f"is damaged: a ZIP64 end record of {length} bytes")
            record = struct.unpack("<IIQQQQ", (yield from self._take(length))[4:_END_64_BYTES])
            if record != (0, 0, 1, 1, directory_bytes, directory_offset):
                raise failed(Kind.ZIP, "is damaged: its ZIP64 end record is not that of one member")
            locator = struct.unpack("<4sIQI", (yield from self._take(20)))
            if locator != (_LOCATOR_64, 0, end_offset, 1):
                raise failed(Kind.ZIP, "is damaged: its ZIP64 locator is wrong")
            signature = yield from self._take(4)
        if signature != _END:
            raise failed(Kind.ZIP, "is damaged: its central directory has no end")
        *found, comment_length = struct.unpack("<HHHHIIH", (yield from self._take(18)))
        expected = (0, 0, 1, 1, directory_bytes, directory_offset)
        in_zip64 = (*[_IN_ZIP64_16] * 4, *[_IN_ZIP64_32] * 2)
        for value, right, elsewhere in zip(found, expected, in_zip64, strict=True):
            if value != right and not (zip64 and value == elsewhere):
                raise failed(Kind.ZIP, "is damaged: its end record is not that of one member")
        yield from self._take(comment_length)


def _zip64(extra: bytes, *fields: int) -> tuple[int, ...]:
    """The values of `fields`, those that are all ones taken from the ZIP64 extra field (section 4.5.3)."""
    values = b""
    while len(extra) >= 4 and not values:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == _ZIP64_EXTRA:
            values = extra[4 : 4 + length]
        extra = extra[4 + length :]
    found = []
    for field in fields:
        if field == _IN_ZIP64_32 and len(values) >= 8:
            found.append(int.from_bytes(values[:8], "little"))
            values = values[8:]
        else:
            found.append(field)
    return tuple(found)
