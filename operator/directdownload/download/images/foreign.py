"""What a file is that is no image of a supported format: other disk images, packed files, pages, texts.

Called by `detect`. Each mark is so long, or is checked so far, that no disk begins with it by chance: boot code, a
partition table, a file system and zeros are none of these.
"""

import codecs
import dataclasses
import struct

from directdownload.download.images.reader import Reader

#: the rules for texts look at so many first bytes: the largest sector of a disk
TEXT_BYTES = 4096
#: of an error message, a list of checksums; the smallest disks are longer
_NOTE_LIMIT_BYTES = 64 * 1024
#: media types of an answer that is a page
PAGES = frozenset({"text/html", "application/xhtml+xml"})


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """For messages: `name` with its article, `advice` as a clause."""

    name: str
    advice: str


_CONVERT = "convert it to a supported format with qemu-img"
_UNPACK = "unpack it, or pack the image as gz, bz2, xz, zst or zip"
_NO_IMAGE = "give the URL of the image itself"
_A_PAGE = "open the URL in a browser: the server may ask for a login or report an error"

PAGE = Foreign("a web page", _A_PAGE)
_TEXT = Foreign("a text file", _NO_IMAGE)

_QCOW1, _QED = b"QFI\xfb\0\0\0\1", b"QED\0"
_QED_BACKING_FILE = 1 << 0
_MARKS = {
    _QCOW1: Foreign("a QCOW image of version 1", _CONVERT),
    b"OOOM": Foreign("a COW image", _CONVERT),
    _QED: Foreign("a QED image", _CONVERT),
    b"LUKS\xba\xbe": Foreign("an encrypted LUKS container", "register the image that was encrypted"),
    b"<<< Oracle VM VirtualBox": Foreign("a VDI image of VirtualBox", _CONVERT),
    b"WithoutFreeSpace": Foreign("a Parallels image", _CONVERT),
    b"WithouFreSpacExt": Foreign("a Parallels image", _CONVERT),
    b"Bochs Virtual HD Image": Foreign("a Bochs image", _CONVERT),
    b"#!/bin/sh\n#V2.0 Format\n": Foreign("a cloop image", _CONVERT),
    b"7z\xbc\xaf\x27\x1c": Foreign("a 7z archive, which is not unpacked", _UNPACK),
    b"Rar!\x1a\x07": Foreign("a RAR archive, which is not unpacked", _UNPACK),
    # the frames of lz4: the present ones, and those of `lz4 -l`
    b"\x04\x22\x4d\x18": Foreign("an lz4 file, which is not unpacked", _UNPACK),
    b"\x02\x21\x4c\x18": Foreign("an lz4 file, which is not unpacked", _UNPACK),
    b"LZIP\1": Foreign("an lzip file, which is not unpacked", _UNPACK),
    b"\x89LZO\0\r\n\x1a\n": Foreign("an lzop file, which is not unpacked", _UNPACK),
    # PKWARE's APPNOTE, section 8.5.3
    b"PK\7\x08": Foreign("a part of a split zip archive", _UNPACK),
    # cpio(5): the formats newc, crc and odc
    b"070701": Foreign("a cpio archive", _NO_IMAGE),
    b"070702": Foreign("a cpio archive", _NO_IMAGE),
    b"070707": Foreign("a cpio archive", _NO_IMAGE),
    b"!<arch>\n": Foreign("an ar archive, such as a Debian package", _NO_IMAGE),
    b"\xed\xab\xee\xdb": Foreign("an RPM package", _NO_IMAGE),
    b"version https://git-lfs.github.com/spec/": Foreign(
        "a git-lfs pointer", "give the URL under which the server has the file itself, not its name in the repository"
    ),
}
_VDI_MAGIC_AT = slice(0x40, 0x44)
#: also after white space, and in upper case
_MARKUP = {b"<!doctype html": PAGE, b"<html": PAGE, b"<!--": PAGE, b"<?xml": Foreign("an XML document", _A_PAGE)}
_JSON = Foreign("a JSON document", _A_PAGE)
#: first characters of texts
_TEXTS = {b"<": Foreign("an XML or HTML document", _A_PAGE), b"{": _JSON, b"[": _JSON}
#: first bytes of texts in UTF-16: a byte order mark, or markup without one
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"<\0": "utf-16-le", b"\xfe\xff": "utf-16-be", b"\0<": "utf-16-be"}
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b") | {127}
_BOOT_SIGNATURE = b"\x55\xaa"
_LZMA_DICTIONARIES = frozenset(size for n in range(12, 32) for size in (2**n, 2**n + 2 ** (n - 1)))


def recognise(head: bytes) -> Foreign | None:
    """By marks in the first 2 KiB of a file."""
    text = _in_utf_8(head[:128]).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, found in _MARKUP.items():
        if text.startswith(magic):
            return found
    for magic, found in _MARKS.items():
        if head.startswith(magic):
            return found
    if head[_VDI_MAGIC_AT] == b"\x7f\x10\xda\xbe":
        return Foreign("a VDI image of VirtualBox", _CONVERT)
    if head[510:512] == _BOOT_SIGNATURE:
        # the marks below are short, and a boot sector begins with code
        return None
    if _is_lzma(head):
        return Foreign("an lzma file, which is not unpacked", _UNPACK)
    if _is_compress(head):
        return Foreign("a compress (.Z) file, which is not unpacked", _UNPACK)
    return Foreign("a cpio archive", _NO_IMAGE) if _is_binary_cpio(head) else None


def recognise_document(image: Reader) -> Foreign | None:
    """XML, HTML or JSON: a text that begins like one."""
    head = _in_utf_8(image.peek(0, TEXT_BYTES))
    found = _TEXTS.get(head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1])
    return found if found is not None and _is_text(head) else None


def recognise_note(image: Reader) -> Foreign | None:
    """A short text, of any kind."""
    short = image.size_bytes is not None and image.size_bytes <= _NOTE_LIMIT_BYTES
    return _TEXT if short and _is_text(image.peek(0, TEXT_BYTES)) else None


def has_backing_file(head: bytes) -> bool:
    """Whether it is an image of QCOW version 1 or QED that names one (qemu's block/qcow.c, docs/interop/qed_spec)."""
    if head.startswith(_QED):
        return bool(head[16:17]) and bool(head[16] & _QED_BACKING_FILE)
    return head.startswith(_QCOW1) and any(head[8:16])


def _in_utf_8(head: bytes) -> bytes:
    """What begins like a text in UTF-16 and is one, in UTF-8; anything else as it is."""
    codec = _UTF_16.get(head[:2])
    if codec is None:
        return head
    try:
        return codecs.getincrementaldecoder(codec)().decode(head).encode()
    except UnicodeDecodeError:
        return head


def _is_text(head: bytes) -> bool:
    """A text if the first 4 KiB, or all of a shorter file, are UTF-8 without control characters.

    No disk is one: boot sectors, partition tables and file systems have zeros or other controls there.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < TEXT_BYTES)
    except UnicodeDecodeError:
        return False
    return bool(head) and _CONTROLS.isdisjoint(head)


def _is_lzma(head: bytes) -> bool:
    """The header of `xz --format=lzma` (liblzma, lzma-file-format.txt): properties, dictionary, size, first byte.

    Held to what liblzma itself takes for one, and to the properties that practically every file has.
    """
    if len(head) < 14 or head[0] != 0x5D or head[13]:
        return False
    dictionary, size = struct.unpack_from("<IQ", head, 1)
    # the size is unknown, or below 256 GiB
    return dictionary in _LZMA_DICTIONARIES and (size == 2**64 - 1 or size < 2**38)


def _is_compress(head: bytes) -> bool:
    """ncompress: the magic, then block mode with codes of at most 9 to 16 bits, the reserved bits unset."""
    return head[:2] == b"\x1f\x9d" and len(head) > 2 and head[2] - 0x80 in range(9, 17)


def _is_binary_cpio(head: bytes) -> bool:
    """cpio(5), the old binary format of either byte order: a file type, and a name that ends where it says."""
    if len(head) < 26 or head[:2] not in (b"\xc7\x71", b"\x71\xc7"):
        return False
    order = "<" if head[:2] == b"\xc7\x71" else ">"
    (mode,), (length,) = struct.unpack_from(order + "H", head, 6), struct.unpack_from(order + "H", head, 20)
    name = head[26 : 26 + length]
    return mode >> 12 in (1, 2, 4, 6, 8, 10, 12) and length > 1 and name.find(b"\0") == length - 1
