"""The format of a file by its first bytes (a VHD by its last ones), as the programs that might open it detect it.

Called by `images`. The marks of disk images are those of qemu's block drivers (bdrv_probe) and of libvirt
(virstoragefile.c), which probe for them when they open an image without a given format. The others are the files that
are most often served by mistake (`foreign`).
"""

from directdownload.download import archives
from directdownload.download.images import foreign, iso, qcow2, tar, vhd, vhdx, vmdk
from directdownload.download.images.foreign import Foreign
from directdownload.download.images.reader import Reader

RAW = "RAW"

#: enough for every mark at the beginning and for the first lines of a VMDK descriptor
_HEAD_BYTES = 2048


def detect(image: Reader) -> str | Foreign:
    """A supported format, RAW if it has no mark; or a file that is none. Raises NotInHeadError.

    A file that begins with the mark of a disk image counts as that image: some program would open it as such.
    """
    head = image.peek(0, _HEAD_BYTES)
    if found := foreign.recognise(head):
        return found
    if head.startswith(qcow2.MAGIC):
        return qcow2.FORMAT
    if head[:4] in (vmdk.MAGIC, vmdk.EXTENT_MAGIC) or vmdk.is_descriptor(head):
        return vmdk.FORMAT
    if head.startswith(vhdx.MAGIC):
        return vhdx.FORMAT
    if head.startswith(vhd.MAGIC):
        return vhd.FORMAT
    if kind := archives.recognise(head[: archives.HEAD_BYTES]):
        return Foreign(f"a {kind} archive", "serve the image itself")
    if name := tar.recognise(image):
        return name
    if iso.is_iso(image):
        return iso.FORMAT
    if vhd.is_fixed(image):
        return vhd.FORMAT
    return foreign.recognise_document(image) or RAW
