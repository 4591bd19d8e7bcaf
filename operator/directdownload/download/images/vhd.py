"""VHD (in qemu: vpc): the footer, and the header of a dynamic disk.

Called by `images`. Follows Microsoft's "Virtual Hard Disk Image Format Specification" 1.0; all numbers are big-endian.
A fixed disk is the raw content followed by a footer of 512 bytes; a dynamic one also begins with a copy of the footer.
A differencing disk takes content from its parent, another file: UnsafeImage.

The virtual size is the one that qemu gives a virtual machine (block/vpc.c, vpc_open): for images of some programs the
field "Current Size", for all others the geometry, as in Virtual PC, unless the geometry is at its maximum.
"""

import math
import struct

from directdownload.download.images.reader import Reader, check_inside, malformed, read, unsafe

FORMAT = "VHD"
MAGIC = b"conectix"

_FOOTER_BYTES = 512
#: cookie, features, version, data offset, (time stamp), creator, (its version and system, original size), current size,
#: cylinders, heads, sectors per track, type, checksum
_FOOTER = struct.Struct(">8sIIQ4x4s16xQHBBII")
_CHECKSUM_AT = 64
_VERSION = 0x00010000
_FIXED = 2
_DYNAMIC = 3
_DIFFERENCING = 4

_HEADER_BYTES = 1024
_HEADER_MAGIC = b"cxsparse"
#: cookie, data offset, table offset, version, table entries, block size, checksum
_HEADER = struct.Struct(">8sQQIIII")
_HEADER_CHECKSUM_AT = 36
#: parent UUID, time stamp and name; parent locators
_PARENT = slice(40, 768)

_SECTOR = 512
#: qemu with force_size, Hyper-V, Disk2vhd, XenServer, XenConverter, Azure (qemu 10 and later)
_SIZE_COUNTS = (b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0")
_MAX_GEOMETRY = (65535, 16, 255)
#: the limit of qemu: VHD_MAX_SECTORS
_MAX_BYTES = 0xFF000000 * _SECTOR


def is_fixed(image: Reader) -> bool:
    """Whether the file ends with the footer of a disk; false where the end cannot be read."""
    if not image.complete or image.size_bytes is None:
        return False
    return image.peek(image.size_bytes - _FOOTER_BYTES, len(MAGIC)) == MAGIC


def inspect(image: Reader) -> int:
    """The virtual size in bytes. Raises UnsafeImage or FormatMismatch."""
    if image.peek(0, len(MAGIC)) == MAGIC:
        return _inspect_dynamic(image)
    size = image.size_bytes or 0
    kind, _, _, virtual_bytes = _read_footer(image, size - _FOOTER_BYTES)
    if kind != _FIXED:
        raise malformed(FORMAT, f"a disk of type {kind} without a header; expected type {_FIXED}, fixed")
    if virtual_bytes > size - _FOOTER_BYTES:
        raise malformed(FORMAT, f"a disk of {virtual_bytes} bytes in {size}: it is truncated")
    return virtual_bytes


def _inspect_dynamic(image: Reader) -> int:
    footer = kind, header_offset, _, virtual_bytes = _read_footer(image, 0)
    if kind != _DYNAMIC:
        raise malformed(FORMAT, f"a disk of type {kind} with a header; expected type {_DYNAMIC}, dynamic")
    if image.complete and image.size_bytes is not None:
        if not is_fixed(image):
            raise malformed(FORMAT, "it does not end with its footer: it is truncated or damaged")
        if _read_footer(image, image.size_bytes - _FOOTER_BYTES) != footer:
            raise unsafe("the VHD image has two footers that differ: programs would see different disks")
    header = read(image, header_offset, _HEADER_BYTES, FORMAT, "its dynamic disk header")
    magic, _, table_offset, version, entries, block_bytes, checksum = _HEADER.unpack_from(header)
    if magic != _HEADER_MAGIC or version != _VERSION or checksum != _sum(header, _HEADER_CHECKSUM_AT):
        raise malformed(FORMAT, "its dynamic disk header is damaged")
    if any(header[_PARENT]):
        raise unsafe("the VHD image names a parent, another file of the host; convert it to a complete image")
    if block_bytes < _SECTOR or block_bytes & (block_bytes - 1):
        raise malformed(FORMAT, f"blocks of {block_bytes} bytes")
    if not virtual_bytes <= entries * block_bytes <= _MAX_BYTES + block_bytes:
        raise malformed(FORMAT, f"{entries} blocks of {block_bytes} bytes for a disk of {virtual_bytes}")
    check_inside(image, table_offset, entries * 4, FORMAT, "its block allocation table")
    return virtual_bytes


def _read_footer(image: Reader, offset: int) -> tuple[int, int, int, int]:
    """Type, offset of the dynamic disk header, Current Size, virtual size."""
    footer = read(image, offset, _FOOTER_BYTES, FORMAT, "its footer")
    magic, _, version, header_offset, creator, size, *geometry, kind, checksum = _FOOTER.unpack_from(footer)
    if magic != MAGIC or version != _VERSION or checksum != _sum(footer, _CHECKSUM_AT):
        raise malformed(FORMAT, "its footer is damaged")
    if kind == _DIFFERENCING:
        raise unsafe(
            "the VHD image is a differencing disk: its content would come from another file of the host; "
            "merge it with its parent"
        )
    virtual_bytes = size - size % _SECTOR
    if creator not in _SIZE_COUNTS and math.prod(geometry) != math.prod(_MAX_GEOMETRY):
        virtual_bytes = math.prod(geometry) * _SECTOR
    if max(size, virtual_bytes) > _MAX_BYTES:
        raise malformed(FORMAT, f"a disk of {max(size, virtual_bytes)} bytes; expected at most {_MAX_BYTES}")
    return kind, header_offset, size, virtual_bytes


def _sum(block: bytes, checksum_at: int) -> int:
    """One's complement of the sum of all bytes except the checksum field."""
    return ~(sum(block) - sum(block[checksum_at : checksum_at + 4])) & 0xFFFFFFFF
