"""Images: the format of a downloaded file, its safety, and the size of its disk, from its header alone.

Called by the engine: `inspect` before a file gets its name, `inspect_head` in a probe. Promises: at most 4 MiB are
read, regardless of the header; every number in it is checked before use; every failure is a DownloadError. The module
of each format says what is checked.

    UnsafeImage      a virtual machine would take content from other files of the host
    FormatMismatch   not the requested format, or not a valid one
    TooLarge         its disk is larger than allowed

They are SourceErrors: without a checksum another source may serve better bytes.

RAW is the plain content of a disk, so it must not carry the mark of another format: a program that probes would open it
as that. A partition table or a file system is not such a mark. An ISO is, even one that can be written to a disk
("hybrid"): register it as ISO. Nor may it be what servers send in place of a disk (`foreign`), such as a page.
"""

import dataclasses
from collections.abc import Callable, Mapping

from directdownload.download import archives
from directdownload.download.errors import RequestError, SourceError
from directdownload.download.images import foreign, iso, qcow2, tar, vhd, vhdx, vmdk
from directdownload.download.images.detect import RAW, detect
from directdownload.download.images.foreign import Foreign
from directdownload.download.images.reader import FileReader, HeadReader, NotInHeadError, Reader, mismatch, unsafe
from directdownload.download.settings import Setting
from directdownload.resources.reasons import Reason

__all__ = ["FORMATS", "RAW", "ImageInfo", "inspect", "inspect_head", "odd_size"]

_SECTOR_BYTES = 512


@dataclasses.dataclass(frozen=True, slots=True)
class ImageInfo:
    """`virtual_size_bytes` is the disk size that a virtual machine sees; None for archives, and if unknown."""

    format: str
    virtual_size_bytes: int | None


def _same_size(image: Reader) -> int | None:
    return image.size_bytes


def _no_size(_: Reader) -> int | None:
    return None


_PARSERS: Mapping[str, Callable[[Reader], int | None]] = {
    qcow2.FORMAT: qcow2.inspect,
    RAW: _same_size,
    iso.FORMAT: _same_size,
    vmdk.FORMAT: vmdk.inspect,
    vhd.FORMAT: vhd.inspect,
    vhdx.FORMAT: vhdx.inspect,
    tar.APPLIANCE: _no_size,
    tar.FORMAT: _no_size,
}


#: Every format that `inspect` may find.
FORMATS = frozenset(_PARSERS)


def inspect(
    descriptor: int,
    size_bytes: int,
    image_format: str,
    *,
    max_virtual_size_bytes: int = 0,
    media_type: str | None = None,
) -> ImageInfo:
    """Inspect the first `size_bytes` of an open file; raises DownloadError unless they are a safe `image_format`.

    An empty `image_format` accepts a valid image of any supported format, and everything else as RAW. A maximum of 0
    means no limit. `media_type` is what the server calls bytes that no digest vouches for (perhaps ""); None: one does.
    """
    found = _inspect(FileReader(descriptor, size_bytes), image_format, media_type)
    size = found.virtual_size_bytes or 0
    if max_virtual_size_bytes and size > max_virtual_size_bytes:
        raise SourceError(
            Reason.TOO_LARGE,
            f"the disk in the {found.format} image has {size} bytes, at most {max_virtual_size_bytes} are allowed "
            f"({Setting.MAX_VIRTUAL_SIZE})",
        )
    return found


def inspect_head(
    head: bytes, total_size_bytes: int | None, image_format: str, *, media_type: str | None = None
) -> ImageInfo | None:
    """As `inspect`, from the first bytes (64 KiB or more) of a file whose total size the server reports.

    None if they do not suffice: an archive, a VHDX, a fixed VHD. For information, not for safety: the end of the file
    is not checked.
    """
    if archives.recognise(head[: archives.HEAD_BYTES]):
        return None
    try:
        return _inspect(HeadReader(head, total_size_bytes), image_format, media_type)
    except NotInHeadError:
        return None


def odd_size(size_bytes: int) -> str:
    """For the result of a RAW image, which is made of sectors; empty if the size is that of a disk."""
    if not size_bytes % _SECTOR_BYTES:
        return ""
    return f"its size, {size_bytes} bytes, is no multiple of {_SECTOR_BYTES}, as that of a disk is: is it complete?"


def _inspect(image: Reader, image_format: str, media_type: str | None) -> ImageInfo:
    if image_format and image_format not in _PARSERS:
        raise RequestError(
            Reason.FORMAT_MISMATCH, f"image format {image_format!r}; expected one of {', '.join(sorted(_PARSERS))}"
        )
    if image_format and image.size_bytes == 0:
        raise mismatch(f"the file is empty, expected a {image_format} image")
    found = detect(image)
    if found == RAW and media_type is not None:
        found = foreign.PAGE if media_type in foreign.PAGES else foreign.recognise_note(image) or RAW
    if not image_format:
        if isinstance(found, Foreign) and foreign.has_backing_file(image.peek(0, _SECTOR_BYTES)):
            raise unsafe(
                f"the file is {found.name} with a backing file: its content would come from another file of the host; "
                f"{found.advice}"
            )
        image_format = RAW if isinstance(found, Foreign) else found
    elif image_format == vhd.FORMAT and found == RAW and not image.complete:
        raise NotInHeadError
    elif found != image_format and (image_format, found) != (tar.FORMAT, tar.APPLIANCE):
        raise mismatch(_explain(image_format, found))
    return ImageInfo(image_format, _PARSERS[image_format](image))


def _explain(expected: str, found: str | Foreign) -> str:
    if isinstance(found, Foreign):
        return f"the file seems to be {found.name}, expected {expected}; {found.advice}"
    if found == RAW:
        return f"the file is not a {expected} image: it has no mark of that format, or of any other"
    return f"the file is a {found} image, expected {expected}; register it with format {found}"
