"""Tar archives, and OVA appliances, which are tar archives that begin with their descriptor.

Called by `images`. POSIX.1-2001 pax, "ustar Interchange Format": a header of 512 bytes with a checksum; the formats of
GNU tar and the old tar differ only in fields that are not read here. DMTF DSP0243 (OVF), section 5.3: the first file of
an OVA is the `.ovf` descriptor. Nothing is unpacked and no other member is read.
"""

import re

from directdownload.download.images.reader import Reader

FORMAT = "TAR"
APPLIANCE = "OVA"

_BLOCK_BYTES = 512
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb"[ \0]*([0-7]{1,12})[ \0]*")
#: headers that only extend the next one: pax 'x' and 'g', GNU tar's long names 'L' and 'K'
_EXTENSIONS = b"xgLK"
_REGULAR = (b"0", b"\0")
_MAX_EXTENSIONS = 4
_MAX_EXTENSION_BYTES = 32 * 1024
_PAX_PATH = re.compile(rb"^[0-9]+ path=([^\n]*)$", re.MULTILINE)


def recognise(image: Reader) -> str:
    """TAR, OVA, or empty if it is neither. Raises NotInHeadError if a head is too short."""
    offset = 0
    name = b""
    for _ in range(_MAX_EXTENSIONS + 1):
        header = image.peek(offset, _BLOCK_BYTES)
        if not _is_header(header):
            return FORMAT if offset else ""
        kind = header[156:157]
        if kind not in _EXTENSIONS:
            name = name or header[:100].partition(b"\0")[0]
            return APPLIANCE if kind in _REGULAR and name.lower().endswith(b".ovf") else FORMAT
        length = _number(header[124:136])
        if length is None or length > _MAX_EXTENSION_BYTES:
            return FORMAT
        body = image.peek(offset + _BLOCK_BYTES, length)
        if kind == b"L":
            name = body.partition(b"\0")[0]
        elif kind == b"x" and (path := _PAX_PATH.search(body)):
            name = path[1]
        offset += _BLOCK_BYTES + -(-length // _BLOCK_BYTES) * _BLOCK_BYTES
    return FORMAT


def _is_header(header: bytes) -> bool:
    if len(header) < _BLOCK_BYTES or not header[0]:
        return False
    expected = _number(header[_CHECKSUM])
    # the sum of all bytes, with the checksum field as spaces
    return expected == sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")


def _number(field: bytes) -> int | None:
    digits = _OCTAL.fullmatch(field)
    return int(digits[1], 8) if digits else None
