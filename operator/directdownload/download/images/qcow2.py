"""QCOW2: the header and its extensions.

Called by `images`. Layout and limits are those of qemu's docs/interop/qcow2.txt (called "spec" below) and of what
qemu's block/qcow2.c opens. The safety rules are Apache CloudStack's for CVE-2024-50386: no backing file, no external
data file, of the incompatible features only bits 0 (dirty), 1 (corrupt) and 3 (compression type). Bit 4 (extended L2
entries) is refused as in CloudStack: qemu supports it since 5.2, so a host with an older qemu cannot open the image.

Encrypted images are refused too, although they are not dangerous: no host has their key, so the virtual machine would
never start.
"""

import struct

from directdownload.download.images.reader import Reader, check_inside, malformed, read, unsafe

FORMAT = "QCOW2"
MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_V3_BYTES = _HEADER.size + _FEATURES.size
_EXTENSION = struct.Struct(">II")

_DATA_FILE = 1 << 2
_COMPRESSION_TYPE = 1 << 3
_EXTENDED_L2 = 1 << 4
_ALLOWED_FEATURES = 1 << 0 | 1 << 1 | _COMPRESSION_TYPE
_RAW_DATA_FILE = 1 << 1

_END_OF_EXTENSIONS = 0
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE_NAME = 0x44415441

# the limits of qemu: block/qcow2.h
_CLUSTER_BITS = range(9, 22)
_MAX_L1_BYTES = 32 * 1024 * 1024
_MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024
_MAX_SNAPSHOTS = 65536
_MAX_REFCOUNT_ORDER = 6
_MAX_VIRTUAL_BYTES = 2**63 - 1
#: Images have about five extensions, of some hundred bytes; an image beyond these limits is refused.
_MAX_EXTENSIONS = 64
_MAX_EXTENSIONS_BYTES = 32 * 1024


def inspect(image: Reader) -> int:
    """The virtual size in bytes; UnsafeImage or FormatMismatch."""
    (_, version, backing_offset, backing_bytes, cluster_bits, virtual_bytes, encryption, l1_entries, l1_offset) = (
        _HEADER.unpack(fixed := _read(image, 0, _HEADER.size, "its header"))[:9]
    )
    refcount_offset, refcount_clusters, snapshots, snapshots_offset = _HEADER.unpack(fixed)[9:]
    if version not in (2, 3):
        raise malformed(FORMAT, f"version {version}; expected 2 or 3")
    if backing_offset or backing_bytes:
        raise unsafe(
            "the QCOW2 image has a backing file: its content would come from another file of the host; "
            "make a complete image with `qemu-img convert -O qcow2`"
        )
    if cluster_bits not in _CLUSTER_BITS:
        raise malformed(FORMAT, f"clusters of 2^{cluster_bits} bytes; expected 2^9 to 2^21")
    cluster_bytes = 1 << cluster_bits
    header_bytes = _HEADER.size if version == 2 else _check_features(image, cluster_bytes)
    if encryption:
        raise malformed(FORMAT, "it is encrypted, and no host has its key; publish it without encryption")
    _check_extensions(image, header_bytes, cluster_bytes)
    if virtual_bytes > _MAX_VIRTUAL_BYTES:
        raise malformed(FORMAT, f"a virtual size of {virtual_bytes} bytes")
    # an L1 entry points to an L2 table of one cluster, with eight bytes per cluster
    if l1_entries * 8 > _MAX_L1_BYTES or l1_entries < -(-virtual_bytes // (cluster_bytes * cluster_bytes // 8)):
        raise malformed(FORMAT, f"an L1 table of {l1_entries} entries for {virtual_bytes} bytes")
    if not 0 < refcount_clusters * cluster_bytes <= _MAX_REFCOUNT_TABLE_BYTES:
        raise malformed(FORMAT, f"a refcount table of {refcount_clusters} clusters")
    if snapshots > _MAX_SNAPSHOTS:
        raise malformed(FORMAT, f"{snapshots} snapshots")
    for offset, count, what in (
        (l1_offset, l1_entries * 8, "its L1 table"),
        (refcount_offset, refcount_clusters * cluster_bytes, "its refcount table"),
        (snapshots_offset, snapshots, "its snapshot table"),
    ):
        if count and offset % cluster_bytes:
            raise malformed(FORMAT, f"{what} at byte {offset} does not begin at a cluster")
        if count:
            check_inside(image, offset, count, FORMAT, what)
    return int(virtual_bytes)


def _read(image: Reader, offset: int, count: int, what: str) -> bytes:
    return read(image, offset, count, FORMAT, what)


def _check_features(image: Reader, cluster_bytes: int) -> int:
    """Check the features of version 3; return the length of the header in bytes."""
    features = _read(image, _HEADER.size, _FEATURES.size, "its header")
    incompatible, _, autoclear, refcount_order, header_bytes = _FEATURES.unpack(features)
    if incompatible & _DATA_FILE or autoclear & _RAW_DATA_FILE:
        raise unsafe(
            "the QCOW2 image has an external data file: its content would come from another file of the host; "
            "make a complete image with `qemu-img convert -O qcow2`"
        )
    if incompatible & ~_ALLOWED_FEATURES:
        hint = ""
        if incompatible & ~_ALLOWED_FEATURES == _EXTENDED_L2:
            hint = "; make one without extended L2 entries: `qemu-img convert -O qcow2 -o extended_l2=off`"
        raise unsafe(
            f"the QCOW2 image needs features that are not allowed: incompatible feature bits {incompatible:#x}, "
            f"allowed are {_ALLOWED_FEATURES:#x}{hint}"
        )
    if not _V3_BYTES <= header_bytes <= cluster_bytes or header_bytes % 8:
        raise malformed(FORMAT, f"a header of {header_bytes} bytes")
    if refcount_order > _MAX_REFCOUNT_ORDER:
        raise malformed(FORMAT, f"refcounts of 2^{refcount_order} bits")
    compression = 0
    if header_bytes > _V3_BYTES:
        compression = _read(image, _V3_BYTES, 1, "its header")[0]
    # spec, "Additional fields": zstd is the only type other than zlib, and has the bit set
    if compression != (1 if incompatible & _COMPRESSION_TYPE else 0):
        raise malformed(FORMAT, f"compression type {compression} with feature bits {incompatible:#x}")
    return int(header_bytes)


def _check_extensions(image: Reader, header_bytes: int, cluster_bytes: int) -> None:
    """Refuse header extensions that name other files (spec, "Header extensions")."""
    end = min(cluster_bytes, header_bytes + _MAX_EXTENSIONS_BYTES)
    area = image.peek(header_bytes, end - header_bytes)
    position = 0
    for _ in range(_MAX_EXTENSIONS):
        if position + _EXTENSION.size > len(area):
            break
        kind, length = _EXTENSION.unpack_from(area, position)
        if kind == _END_OF_EXTENSIONS:
            return
        position += _EXTENSION.size
        if length > len(area) - position:
            raise malformed(FORMAT, f"a header extension of {length} bytes")
        if kind == _DATA_FILE_NAME:
            raise unsafe("the QCOW2 image names an external data file; make a complete one with `qemu-img convert`")
        if kind == _BACKING_FORMAT:
            raise unsafe(
                "the QCOW2 image names the format of a backing file; make a complete one with `qemu-img convert`"
            )
        position += -(-length // 8) * 8
    if header_bytes + position < cluster_bytes:
        raise malformed(FORMAT, f"more than {_MAX_EXTENSIONS} header extensions, or {_MAX_EXTENSIONS_BYTES} bytes")
