"""zip: one file, unpacked from front to back.

Called by `archives.create`. Follows PKWARE's APPNOTE.TXT 6.3 (section numbers below are its own): of each member the
local header, the data, an optional data descriptor; then the central directory, which must list just these members,
with the CRC-32 and the sizes found. ZIP64 is supported. Folders, and what a Mac adds, are read and left out: they are
few and small. Refused: more than one file besides, encryption, methods other than deflate and none, a stored member
whose length is unknown before its data (nothing shows where it ends), any data between or after the parts. A name only
decides whether a member is left out; comments are skipped.
"""

import dataclasses
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

_ONE_FILE = "holds more than one file; expected exactly one, the image: pack it alone"
#: Of the members that are left out. A Mac adds a few kilobytes to each file.
_LEFT_OUT_LIMIT = 1000
_LEFT_OUT_LIMIT_BYTES = 1024 * 1024

#: Yields output; b"" when it needs input or has no output yet.
_Steps = Generator[bytes, None, None]
_Taking = Generator[bytes, None, bytes]


@dataclasses.dataclass(slots=True)
class _Member:
    """As found in the data. One that is `left_out` is not the image."""

    left_out: bool
    method: int
    crc: int = 0
    compressed_bytes: int = 0
    bytes: int = 0


class Unzip:
    """A Decompressor for zip."""

    ignored_bytes = 0

    def __init__(self) -> None:
        self._input = Input()
        self._waits = True
        self._complete = False
        self._max_output = 0
        #: by the offset of the local header
        self._members: dict[int, _Member] = {}
        self._left_out = 0
        self._left_out_bytes = 0
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
        offset = 0
        while (signature := (yield from self._take(4))) == _LOCAL_HEADER:
            yield from self._member(offset)
            offset = self._input.used_bytes
        if not self._members and signature != _END:
            raise failed(Kind.ZIP, "does not begin with a member")
        if len(self._members) == self._left_out:
            raise failed(Kind.ZIP, "holds no file; expected one, the image")
        listed = dict(self._members)
        while listed:
            if signature != _CENTRAL_HEADER:
                raise failed(Kind.ZIP, "has no complete central directory behind its members")
            yield from self._central_header(listed)
            signature = yield from self._take(4)
        yield from self._end(signature, offset)
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

    def _member(self, offset: int) -> _Steps:
        """Unpack a member, from behind the signature of its local header (section 4.3.7) to its data descriptor."""
        header = yield from self._take(26)
        _, flags, method, _, _, crc, packed, size, name_length, extra_length = struct.unpack("<HHHHHIIIHH", header)
        name = yield from self._take(name_length)
        extra = yield from self._take(extra_length)
        member = self._members[offset] = _Member(_is_left_out(name), method)
        self._left_out += member.left_out
        if len(self._members) > self._left_out + 1:
            raise failed(Kind.ZIP, _ONE_FILE)
        if self._left_out > _LEFT_OUT_LIMIT:
            raise failed(Kind.ZIP, f"holds more than {_LEFT_OUT_LIMIT} folders and files that a Mac adds")
        if flags & _ENCRYPTED:
            raise failed(Kind.ZIP, "is encrypted; pack the image without a password")
        if method == _DEFLATED:
            yield from self._inflate(member)
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
            yield from self._copy(member, packed)
        if flags & _HAS_DESCRIPTOR:
            yield from self._data_descriptor(member)
        else:
            _compare(member, crc, *_zip64(extra, size, packed))

    def _inflate(self, member: _Member) -> _Steps:
        stream = Inflate(-zlib.MAX_WBITS)
        while not stream.eof:
            piece = b""
            if stream.needs_input and not (piece := self._input.take(PIECE_BYTES)):
                self._waits = True
                yield b""
                continue
            try:
                output = stream.decompress(piece, self._max_output)
            except zlib.error as error:
                raise failed(Kind.ZIP, f"is damaged: {plain(str(error))}") from error
            unused = len(stream.unused_data) if stream.eof else 0
            self._input.give_back(unused)
            yield self._count(member, len(piece) - unused, output)

    def _copy(self, member: _Member, count: int) -> _Steps:
        while member.compressed_bytes < count:
            piece = self._input.take(min(count - member.compressed_bytes, PIECE_BYTES, self._max_output))
            self._waits = not piece
            yield self._count(member, len(piece), piece)

    def _count(self, member: _Member, compressed_bytes: int, output: bytes) -> bytes:
        """What is yielded of the output: nothing of a member that is left out."""
        member.compressed_bytes += compressed_bytes
        member.crc = zlib.crc32(output, member.crc)
        member.bytes += len(output)
        if not member.left_out:
            return output
        self._left_out_bytes += len(output)
        if self._left_out_bytes > _LEFT_OUT_LIMIT_BYTES:
            raise failed(Kind.ZIP, f"holds more than {_LEFT_OUT_LIMIT_BYTES} bytes that are not of the image")
        return b""

    def _data_descriptor(self, member: _Member) -> _Steps:
        """Section 4.3.9: with or without a signature, lengths of 4 or (ZIP64) 8 bytes: whichever are the right ones."""
        crc = yield from self._take(4)
        if crc == _DESCRIPTOR:
            crc = yield from self._take(4)
        packed, size = struct.unpack("<II", (lengths := (yield from self._take(8))))
        if (packed, size) != (member.compressed_bytes, member.bytes):
            packed, size = struct.unpack("<QQ", lengths + (yield from self._take(8)))
        _compare(member, int.from_bytes(crc, "little"), size, packed)

    def _central_header(self, listed: dict[int, _Member]) -> _Steps:
        """Section 4.3.12, without the signature; takes its member out of `listed`."""
        header = yield from self._take(42)
        (made_by, _, _, method, _, _, crc, packed, size, name_length, extra_length, comment_length) = struct.unpack(
            "<HHHHHHIIIHHH", header[:30]
        )
        disk, _, attributes, offset = struct.unpack("<HHII", header[30:])
        name = yield from self._take(name_length)
        extra = yield from self._take(extra_length)
        yield from self._take(comment_length)
        size, packed, offset = _zip64(extra, size, packed, offset)
        member = listed.pop(offset, None)
        if member is None or member.method != method or disk or _is_left_out(name) != member.left_out:
            raise failed(Kind.ZIP, "is damaged: its central directory describes another member than the archive holds")
        _compare(member, crc, size, packed)
        # a member packed from a pipe is marked as a pipe, and accepted
        kind = stat.S_IFMT(attributes >> 16) if made_by >> 8 == _MADE_ON_UNIX else 0
        if not member.left_out and (kind in (stat.S_IFLNK, stat.S_IFDIR) or attributes & _DOS_DIRECTORY):
            raise failed(Kind.ZIP, "holds a link or a directory; expected one file, the image")

    def _end(self, signature: bytes, directory_offset: int) -> _Steps:
        """Sections 4.3.14 to 4.3.16: the ZIP64 end record and its locator, if any, and the end record."""
        if signature == _CENTRAL_HEADER:
            raise failed(Kind.ZIP, _ONE_FILE)
        end_offset, count = self._input.used_bytes - 4, len(self._members)
        expected = (0, 0, count, count, end_offset - directory_offset, directory_offset)
        zip64 = signature == _END_64
        if zip64:
            length = int.from_bytes((yield from self._take(8)), "little")
            if not _END_64_BYTES <= length <= _END_64_MAX_BYTES:
                raise failed(Kind.ZIP, f"is damaged: a ZIP64 end record of {length} bytes")
            record = struct.unpack("<IIQQQQ", (yield from self._take(length))[4:_END_64_BYTES])
            if record != expected:
                raise failed(Kind.ZIP, "is damaged: its ZIP64 end record is not that of its members")
            locator = struct.unpack("<4sIQI", (yield from self._take(20)))
            if locator != (_LOCATOR_64, 0, end_offset, 1):
                raise failed(Kind.ZIP, "is damaged: its ZIP64 locator is wrong")
            signature = yield from self._take(4)
        if signature != _END:
            raise failed(Kind.ZIP, "is damaged: its central directory has no end")
        *found, comment_length = struct.unpack("<HHHHIIH", (yield from self._take(18)))
        in_zip64 = (*[_IN_ZIP64_16] * 4, *[_IN_ZIP64_32] * 2)
        for value, right, elsewhere in zip(found, expected, in_zip64, strict=True):
            if value != right and not (zip64 and value == elsewhere):
                raise failed(Kind.ZIP, "is damaged: its end record is not that of its members")
        yield from self._take(comment_length)


def _is_left_out(name: bytes) -> bool:
    """A folder, or what a Mac adds to files: resource forks, and the Finder's view of a folder."""
    return name.endswith(b"/") or name.startswith(b"__MACOSX/") or name.rpartition(b"/")[2] == b".DS_Store"


def _compare(member: _Member, crc: int, size: int, packed: int) -> None:
    if (size, packed) != (member.bytes, member.compressed_bytes):
        raise failed(
            Kind.ZIP,
            f"says that its member has {size} bytes, {packed} compressed; "
            f"found {member.bytes} and {member.compressed_bytes}",
        )
    if crc != member.crc:
        raise failed(Kind.ZIP, f"is damaged: CRC-32 {member.crc:08x}, expected {crc:08x}")


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
