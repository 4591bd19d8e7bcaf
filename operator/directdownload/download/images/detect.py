"""The format of a file by its first bytes (a VHD by its last ones), as the programs that might open it detect it.

Called by `images`. The marks of disk images are those of qemu's block drivers (bdrv_probe) and of libvirt
(virstoragefile.c), which probe for them when they open an image without a given format. The others are the files that
are most often served by mistake.
"""

from directdownload.download import archives
from directdownload.download.images import iso, qcow2, tar, vhd, vhdx, vmdk
from directdownload.download.images.reader import Reader

RAW = "RAW"

#: enough for every mark at the beginning and for the first lines of a VMDK descriptor
_HEAD_BYTES = 2048
_VDI_MAGIC_AT = slice(0x40, 0x44)

#: other formats, as described in messages
_OTHERS = {
    qcow2.MAGIC + b"\0\0\0\1": "a QCOW image of version 1",
    b"OOOM": "a COW image",
    b"QED\0": "a QED image",
    b"LUKS\xba\xbe": "an encrypted LUKS container",
    b"<<< Oracle VM VirtualBox": "a VDI image of VirtualBox",
    b"WithoutFreeSpace": "a Parallels image",
    b"WithouFreSpacExt": "a Parallels image",
    b"Bochs Virtual HD Image": "a Bochs image",
    b"#!/bin/sh\n#V2.0 Format\n": "a cloop image",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive, which is not unpacked",
    b"Rar!\x1a\x07": "a RAR archive, which is not unpacked",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML document",
}
#: also after white space, and in upper case
_MARKUP = (b"<!doctype html", b"<html", b"<?xml")


def detect(image: Reader) -> str:
    """A supported format, else a description of the file, RAW if it has no mark. Raises NotInHeadError.

    A file that begins with the mark of a disk image counts as that image: some program would open it as such.
    """
    head = image.peek(0, _HEAD_BYTES)
    text = head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, name in _OTHERS.items():
        if head.startswith(magic) or (magic in _MARKUP and text.startswith(magic)):
            return name
    if head[_VDI_MAGIC_AT] == b"\x7f\x10\xda\xbe":
        return "a VDI image of VirtualBox"
    if head.startswith(qcow2.MAGIC):
        return qcow2.FORMAT
    if head[:4] in (vmdk.MAGIC, vmdk.EXTENT_MAGIC) or vmdk.is_descriptor(head):
        return vmdk.FORMAT
    if head.startswith(vhdx.MAGIC):
        return vhdx.FORMAT
    if head.startswith(vhd.MAGIC):
        return vhd.FORMAT
    if kind := archives.recognise(head[: archives.HEAD_BYTES]):
        return f"a {kind} archive"
    if name := tar.recognise(image):
        return name
    if iso.is_iso(image):
        return iso.FORMAT
    return vhd.FORMAT if vhd.is_fixed(image) else RAW
