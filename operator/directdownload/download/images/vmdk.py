"""VMDK: one file that contains its whole disk and names no other file.

Called by `images`. Follows VMware's "Virtual Disk Format 5.0" and qemu's block/vmdk.c. Two kinds are accepted,
monolithicSparse and streamOptimized: a sparse header with the magic KDMV, directly followed by an embedded descriptor.
UnsafeImage is every image that takes content from elsewhere (for the damage see OpenStack's CVE-2024-32498 and
CVE-2022-47951):

- a descriptor file without data, whose extents are other files, and an embedded one that qemu would use as such
  (a capacity of zero);
- more than one extent, one that is not sparse, or one in another directory;
- a parent: qemu looks for `parentFileNameHint` anywhere in the descriptor, comments included.

The descriptor is text in lines; a line of an unknown kind is refused, as readers treat those differently.
"""

import re
import struct

from directdownload.download.images.reader import Reader, check_inside, malformed, read, unsafe

FORMAT = "VMDK"
MAGIC = b"KDMV"
#: an extent of a disk of VMware ESX 2, which is never a whole disk
EXTENT_MAGIC = b"COWD"

_SECTOR = 512
#: magic, version, flags, capacity, granularity, descriptor offset and size, entries per grain table, offsets of the
#: redundant and the first grain directory, and of the grains; all but magic, version, flags and entries in sectors
_HEADER = struct.Struct("<4sIIQQQQIQQQ")
_DIRECTORY_AT_END = 2**64 - 1
_DESCRIPTOR_SECTOR = 1
_MAX_DESCRIPTOR_BYTES = 1024 * 1024
#: value, size, type
_MARKER = struct.Struct("<QII")
_FOOTER = 3
_END_OF_STREAM = 0
_FOOTER_BYTES = 3 * _SECTOR

# the limits of qemu: vmdk_open_vmdk4, vmdk_add_extent
_MAX_ENTRIES = 512
_MAX_GRANULARITY = 0x200000
_MAX_DIRECTORY_ENTRIES = 32 * 1024 * 1024

_CREATE_TYPES = ("monolithicsparse", "streamoptimized")
_NO_PARENT = "ffffffff"
_EXTENT = re.compile(r'(rw|rdonly|noaccess)\s+[0-9]+\s+([a-z]+)\s+"([^"]*)"\s*')
_ASSIGNMENT = re.compile(r"([a-z][a-z0-9._:-]*)\s*=\s*(.*)")
# qemu's vmdk_probe: comments and blank lines, then a version
_TEXT = re.compile(rb"(?:#[^\n]*\n| *\r?\n)*version=[123]\r?\n")
_TEXT_TITLE = b"# disk descriptorfile"


def is_descriptor(head: bytes) -> bool:
    """Whether qemu, or libvirt by the first line, recognises a descriptor file in these first bytes."""
    return head[: len(_TEXT_TITLE)].lower() == _TEXT_TITLE or _TEXT.match(head) is not None


def inspect(image: Reader) -> int:
    """The virtual size in bytes. Raises UnsafeImage or FormatMismatch."""
    if image.peek(0, 4) != MAGIC:
        raise unsafe(
            "the VMDK file is only the description of a disk or a part of one: the content would come from other files "
            "of the host; make a single file with `qemu-img convert -O vmdk -o subformat=streamOptimized`"
        )
    header = _HEADER.unpack(read(image, 0, _HEADER.size, FORMAT, "its header"))
    _, version, _, capacity, granularity, descriptor_offset, descriptor_size, entries, _, directory, grains = header
    if version not in (1, 2, 3):
        raise malformed(FORMAT, f"version {version}; expected 1, 2 or 3")
    if not capacity:
        raise unsafe("the VMDK file has no disk of its own: its descriptor would name other files of the host")
    if not 0 < entries <= _MAX_ENTRIES or not 0 < granularity <= _MAX_GRANULARITY:
        raise malformed(FORMAT, f"{entries} entries per grain table, grains of {granularity} sectors")
    directory_entries = -(-capacity // (entries * granularity))
    if directory_entries > _MAX_DIRECTORY_ENTRIES:
        raise malformed(FORMAT, f"a capacity of {capacity} sectors")
    if descriptor_offset != _DESCRIPTOR_SECTOR or not 0 < descriptor_size * _SECTOR <= _MAX_DESCRIPTOR_BYTES:
        raise malformed(
            FORMAT,
            f"a descriptor of {descriptor_size} sectors at sector {descriptor_offset}; expected one right behind the "
            "header (a part of a split disk has none: publish the disk as a single file)",
        )
    _check_descriptor(read(image, _SECTOR, descriptor_size * _SECTOR, FORMAT, "its descriptor"))
    if directory == _DIRECTORY_AT_END and image.complete:
        directory = _read_footer(image, header)
    if directory != _DIRECTORY_AT_END:
        check_inside(image, directory * _SECTOR, directory_entries * 4, FORMAT, "its grain directory")
    check_inside(image, grains * _SECTOR, 0, FORMAT, "its first grain")
    return int(capacity) * _SECTOR


def _read_footer(image: Reader, header: tuple[int, ...]) -> int:
    """The grain directory's sector in the footer, which replaces the header and so must agree with it."""
    size = image.size_bytes or 0
    if size % _SECTOR or size < _FOOTER_BYTES:
        raise malformed(FORMAT, f"{size} bytes; expected whole sectors: it is truncated")
    end = read(image, size - _FOOTER_BYTES, _FOOTER_BYTES, FORMAT, "its footer")
    _, footer_size, footer_type = _MARKER.unpack_from(end)
    if (footer_size, footer_type) != (0, _FOOTER) or _MARKER.unpack_from(end, 2 * _SECTOR) != (0, 0, _END_OF_STREAM):
        raise malformed(FORMAT, "it does not end with its footer: it is truncated or damaged")
    footer = _HEADER.unpack_from(end, _SECTOR)
    directory = int(footer[9])
    same = slice(0, 8)
    if (footer[same], footer[10]) != (header[same], header[10]) or directory == _DIRECTORY_AT_END:
        raise unsafe("the VMDK image has a footer that contradicts its header: programs would see different disks")
    return directory


def _check_descriptor(data: bytes) -> None:
    """Refuse an embedded descriptor that names another file, or that readers may interpret differently."""
    if b"parentfilenamehint" in data.lower():
        raise unsafe(
            "the VMDK image has a parent: its content would come from another file of the host; "
            "make a complete image with `qemu-img convert -O vmdk -o subformat=streamOptimized`"
        )
    end = data.find(b"\0")
    if end < 0:
        raise malformed(FORMAT, "its descriptor does not end with a zero byte")
    extents = 0
    create_types = []
    # strict about the structure, which is ASCII; comments and names may have any encoding
    for number, line in enumerate(data[:end].decode("latin-1").lower().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if extent := _EXTENT.fullmatch(text):
            extents += 1
            _check_extent(extent[2], extent[3])
        elif assignment := _ASSIGNMENT.fullmatch(text):
            key, value = assignment[1], assignment[2].strip('" ')
            if key == "parentcid" and value != _NO_PARENT:
                raise unsafe("the VMDK image has a parent, and is not complete without it")
            if key == "createtype":
                create_types.append(value)
        else:
            raise unsafe(f"line {number} of the VMDK image's descriptor is of an unknown kind")
    if extents > 1:
        raise unsafe(
            f"the VMDK image has {extents} extents; expected one, in the file itself: others would be other files"
        )
    if len(create_types) != 1 or create_types[0] not in _CREATE_TYPES:
        raise unsafe(
            f"the VMDK image is of type {', '.join(create_types)[:80] or 'unknown'}; expected monolithicSparse or "
            "streamOptimized, which need no other files"
        )


def _check_extent(kind: str, name: str) -> None:
    if kind != "sparse" or "/" in name or "\\" in name:
        raise unsafe(f"the VMDK image has an extent of type {kind[:20]} in another file; expected a sparse one inside")
