"""ISO images: the descriptor that identifies one.

Called by `images`. ECMA-119 (ISO 9660), section 6.2.1 and 8.1: the first volume descriptor is in sector 16, of 2048
bytes, and has CD001 after its type. ECMA-167 (UDF), section 2/9.1: there it may have BEA01 instead.
"""

from directdownload.download.images.reader import Reader

FORMAT = "ISO"

_IDENTIFIER_OFFSET = 16 * 2048 + 1
_IDENTIFIERS = (b"CD001", b"BEA01")


def is_iso(image: Reader) -> bool:
    """NotInHeadError."""
    return image.peek(_IDENTIFIER_OFFSET, 5) in _IDENTIFIERS
