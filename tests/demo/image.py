"""Writes a template image for the demo: a valid QCOW2 (version 3) whose guest data is constant noise.

The layout follows docs/interop/qcow2.rst of QEMU: header, refcount table and block, L1 table, L2 tables, data.
"""

import hashlib
import pathlib
import random
import struct

CLUSTER_BITS = 16
CLUSTER_BYTES = 1 << CLUSTER_BITS
_ENTRIES_PER_L2 = CLUSTER_BYTES // 8
#: One refcount block of 16-bit counts must suffice: 2 GiB of file.
MAX_BYTES = (CLUSTER_BYTES // 2 - 64) * CLUSTER_BYTES
#: A cluster that only this table points to.
_COPIED = 1 << 63


def write(path: pathlib.Path, virtual_bytes: int) -> str:
    """Write the image, its guest disk full to the last byte; return the SHA-256 of the file as hex digits."""
    if not 0 < virtual_bytes <= MAX_BYTES or virtual_bytes % CLUSTER_BYTES:
        raise ValueError(f"{virtual_bytes} bytes: expected a multiple of {CLUSTER_BYTES} up to {MAX_BYTES}")
    data_clusters = virtual_bytes // CLUSTER_BYTES
    l2_tables = -(-data_clusters // _ENTRIES_PER_L2)
    first_data = 4 + l2_tables
    digest = hashlib.sha256()
    noise = random.Random(13)  # the same bytes at every run: a Template's checksum is immutable
    with path.open("wb") as file:

        def cluster(content: bytes) -> None:
            padded = content.ljust(CLUSTER_BYTES, b"\0")
            digest.update(padded)
            file.write(padded)

        cluster(_header(virtual_bytes, l2_tables))
        cluster(struct.pack(">Q", 2 * CLUSTER_BYTES))
        cluster(struct.pack(">H", 1) * (first_data + data_clusters))
        cluster(b"".join(struct.pack(">Q", (4 + n) * CLUSTER_BYTES | _COPIED) for n in range(l2_tables)))
        for table in range(l2_tables):
            numbers = range(table * _ENTRIES_PER_L2, min((table + 1) * _ENTRIES_PER_L2, data_clusters))
            cluster(b"".join(struct.pack(">Q", (first_data + n) * CLUSTER_BYTES | _COPIED) for n in numbers))
        for _ in range(data_clusters):
            cluster(noise.randbytes(CLUSTER_BYTES))
    return digest.hexdigest()


def _header(virtual_bytes: int, l2_tables: int) -> bytes:
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", 3, 0, 0, CLUSTER_BITS, virtual_bytes, 0),
        *(l2_tables, 3 * CLUSTER_BYTES, CLUSTER_BYTES, 1, 0, 0),
    )
    # no features, 16-bit refcounts, header length; an empty list of extensions follows
    return fixed + struct.pack(">QQQII", 0, 0, 0, 4, 104) + bytes(8)
