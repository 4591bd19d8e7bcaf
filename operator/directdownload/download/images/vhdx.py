"""VHDX: headers, region table and metadata.

Called by `images`. Follows Microsoft's [MS-VHDX] (section numbers below); all numbers are little-endian. A differencing
disk takes content from its parent, another file: UnsafeImage. So is an image with a log to replay, as the replay may
change every checked field.
"""

import functools
import struct
from collections.abc import Iterator

from directdownload.download.errors import SourceError
from directdownload.download.images.reader import Reader, check_inside, malformed, read, unsafe

FORMAT = "VHDX"
MAGIC = b"vhdxfile"

_KIB = 1024
_MIB = 1024 * 1024
_TABLE_BYTES = 64 * _KIB
# section 2.2.2
_HEADER_OFFSETS = (64 * _KIB, 128 * _KIB)
_HEADER_BYTES = 4 * _KIB
#: signature, checksum, sequence number, (file and data write GUIDs), log GUID, log version, version
_HEADER = struct.Struct("<4sIQ32x16sHH")
# section 2.2.3
_REGIONS_OFFSET = 192 * _KIB
_REGION_HEADER = struct.Struct("<4sII4x")
_REGION = struct.Struct("<16sQII")
_METADATA_REGION = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_BLOCKS_REGION = bytes.fromhex("6677c22d23f600429d64115e9bfd4a08")
_REGION_REQUIRED = 1
# section 2.6.1
_METADATA_HEADER = struct.Struct("<8s2xH20x")
_ITEM = struct.Struct("<16sIII4x")
_ITEM_REQUIRED = 4
_MAX_ITEMS = 2047
_MAX_ITEM_OFFSET = 64 * _MIB
# section 2.6.2
_FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_VIRTUAL_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
_PAGE_83 = bytes.fromhex("ab12cabee6b2234593efc309e000c746")
_LOGICAL_SECTOR = bytes.fromhex("1dbf41816fa90947ba47f233a8faab5f")
_PHYSICAL_SECTOR = bytes.fromhex("c748a3cd5d4471449cc9e9885251c556")
_PARENT_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
_KNOWN_ITEMS = {_FILE_PARAMETERS, _VIRTUAL_SIZE, _PAGE_83, _LOGICAL_SECTOR, _PHYSICAL_SECTOR, _PARENT_LOCATOR}
_HAS_PARENT = 2
_MAX_VIRTUAL_BYTES = 64 * 1024 * 1024 * _MIB
_MAX_BLOCK_BYTES = 256 * _MIB


def inspect(image: Reader) -> int:
    """The virtual size in bytes. Raises UnsafeImage or FormatMismatch."""
    _check_log(image)
    metadata_offset = _find_metadata(image)
    items = _read_items(image, metadata_offset)
    if _PARENT_LOCATOR in items:
        raise _differencing()
    block_bytes, flags = struct.unpack("<II", _item(image, metadata_offset, items, _FILE_PARAMETERS, 8))
    if flags & _HAS_PARENT:
        raise _differencing()
    (virtual_bytes,) = struct.unpack("<Q", _item(image, metadata_offset, items, _VIRTUAL_SIZE, 8))
    (sector_bytes,) = struct.unpack("<I", _item(image, metadata_offset, items, _LOGICAL_SECTOR, 4))
    if (
        not _MIB <= block_bytes <= _MAX_BLOCK_BYTES
        or block_bytes & (block_bytes - 1)
        or sector_bytes not in (512, 4096)
    ):
        raise malformed(FORMAT, f"blocks of {block_bytes} bytes, sectors of {sector_bytes}")
    if virtual_bytes > _MAX_VIRTUAL_BYTES or virtual_bytes % sector_bytes:
        raise malformed(FORMAT, f"a disk of {virtual_bytes} bytes")
    return int(virtual_bytes)


def _differencing() -> SourceError:
    return unsafe(
        "the VHDX image is a differencing disk: its content would come from another file of the host; "
        "merge it with its parent"
    )


def _check_log(image: Reader) -> None:
    """Refuse a log to replay. The valid header with the highest sequence number is current (section 2.2.2)."""
    valid = []
    for offset in _HEADER_OFFSETS:
        block = read(image, offset, _HEADER_BYTES, FORMAT, "its header")
        signature, _, sequence, log, _, version = _HEADER.unpack_from(block)
        if signature == b"head" and version == 1 and _is_intact(block):
            valid.append((sequence, log))
    if not valid:
        raise malformed(FORMAT, "its headers are damaged")
    if any(max(valid)[1]):
        raise unsafe("the VHDX image was not closed cleanly: its log must be replayed; open and close it once")


def _find_metadata(image: Reader) -> int:
    """The offset of the metadata region in the first region table, which is the one that qemu reads."""
    table = read(image, _REGIONS_OFFSET, _TABLE_BYTES, FORMAT, "its region table")
    signature, _, count = _REGION_HEADER.unpack_from(table)
    if signature != b"regi" or count > _MAX_ITEMS or not _is_intact(table):
        raise malformed(FORMAT, "its region table is damaged")
    offsets = {}
    for guid, offset, length, flags in _entries(table, _REGION, _REGION_HEADER.size, count):
        if guid in offsets or (guid not in (_METADATA_REGION, _BLOCKS_REGION) and flags & _REGION_REQUIRED):
            raise malformed(FORMAT, "it has a duplicate region, or an unknown region that it requires")
        if offset < _MIB or offset % _MIB:
            raise malformed(FORMAT, f"a region at byte {offset}")
        check_inside(image, offset, length, FORMAT, "a region")
        offsets[guid] = offset
    if _METADATA_REGION not in offsets or _BLOCKS_REGION not in offsets:
        raise malformed(FORMAT, "it has no metadata, or no block table")
    return int(offsets[_METADATA_REGION])


def _read_items(image: Reader, metadata_offset: int) -> dict[bytes, int]:
    """The offsets in the metadata region, by the GUID of the item."""
    table = read(image, metadata_offset, _TABLE_BYTES, FORMAT, "its metadata")
    signature, count = _METADATA_HEADER.unpack_from(table)
    if signature != b"metadata" or count > _MAX_ITEMS:
        raise malformed(FORMAT, "its metadata are damaged")
    items: dict[bytes, int] = {}
    for guid, offset, _, flags in _entries(table, _ITEM, _METADATA_HEADER.size, count):
        if guid in items or (guid not in _KNOWN_ITEMS and flags & _ITEM_REQUIRED):
            raise malformed(FORMAT, "it has a duplicate metadata item, or an unknown item that it requires")
        items[guid] = offset
    return items


def _entries(table: bytes, entry: struct.Struct, start: int, count: int) -> Iterator[tuple[bytes, int, int, int]]:
    return entry.iter_unpack(table[start : start + count * entry.size])


def _item(image: Reader, metadata_offset: int, items: dict[bytes, int], guid: bytes, count: int) -> bytes:
    if not _TABLE_BYTES <= items.get(guid, 0) <= _MAX_ITEM_OFFSET:
        raise malformed(FORMAT, "a metadata item is missing")
    return read(image, metadata_offset + items[guid], count, FORMAT, "a metadata item")


def _is_intact(block: bytes) -> bool:
    """Check the CRC-32C of the whole block, with the checksum field (bytes 4 to 7) as zero."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in block[:4] + bytes(4) + block[8:]:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF == int.from_bytes(block[4:8], "little")


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """Castagnoli's polynomial, reflected (RFC 3720, appendix B.4)."""
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)
