"""What servers send in place of a raw disk is refused, and every disk passes."""

import io
import lzma
import os
import pathlib
import random
import struct
import subprocess
import sys
import zipfile

import pytest
from tests.unit.download.images.support import MIB, create, inspect, inspect_bytes, qemu_img, refusal
from tests.world import checkout

from directdownload.download import images
from directdownload.download.errors import DownloadError
from directdownload.download.images import ImageInfo
from directdownload.resources.reasons import Reason

#: what is packed: a disk that compresses, and is longer than every look at it
DISK = random.Random(1).randbytes(10_000) + bytes(10_000)


def packed(*command: str) -> bytes:
    return subprocess.run(command, input=DISK, capture_output=True, timeout=30, check=True).stdout


def lzma_alone(dictionary_bytes: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary_bytes}]
    return lzma.compress(DISK, lzma.FORMAT_ALONE, filters=filters)


def cpio(magic: bytes) -> bytes:
    """A header of newc, crc or odc; a name follows."""
    digits = 104 if magic in (b"070701", b"070702") else 70
    return magic + b"0" * digits + b"image\0" + DISK


def binary_cpio(order: str, mode: int = 0o100644, name: bytes = b"image\0") -> bytes:
    return struct.pack(order + "13H", 0o70707, 1, 2, mode, 0, 0, 1, 0, 0, 0, len(name), 0, 10) + name + DISK


def ar(directory: pathlib.Path) -> bytes:
    (directory / "debian-binary").write_bytes(b"2.0\n")
    subprocess.run(["ar", "rc", "x.deb", "debian-binary"], cwd=directory, check=True, timeout=30)
    return (directory / "x.deb").read_bytes()


def split_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image", DISK)
    return b"PK\x07\x08" + file.getvalue()[:5000]


PAGE = "<!-- proxy -->\n<html>Sign in</html>"
UTF_16 = ("utf-16", "utf-16-le", "utf-16-be")
NO_DISKS = {
    "a web page": (
        PAGE.encode(),
        b"\n<!DOCTYPE HTML><html><title>Log in</title></html>",
        b"<html>" + "Größe".encode("latin-1") + b"</html>",
        *("<!DOCTYPE html><p>Größe 𝄞".ljust(50_000).encode(codec) for codec in UTF_16),
        "\ufeff \r\n<HTML>".ljust(50_000).encode("utf-16-be"),
    ),
    "an XML document": (
        b"\xef\xbb\xbf<?xml version='1.0'?><Error/>",
        *("<?xml version='1.0' encoding='utf-16'?>".ljust(50_000).encode(codec) for codec in UTF_16),
    ),
    "an XML or HTML document": (
        b"<Error><Code>NoSuchKey</Code></Error>",
        b"  <head><title>404</title></head>",
        # a pair of surrogates across the end of a look
        *(("<Error>" + 2040 * "x" + 20_000 * "𝄞").encode(codec) for codec in UTF_16),
    ),
    "a JSON document": (
        b'{"errors":[{"status":404}]}',
        b"[" + b'{"name": "image"},' * 5000 + b"{}]",
        ("[" + 40_000 * "1,").encode("utf-16"),
    ),
    "a text file": (
        b"0" * 64 + b"  x.img\n",
        b"404 page not found\n",
        b"x",
        "größer als ein Blick, und geteilt 𝄞 ".encode() * 500,
        b"y" * 65536,
        b"\x1b[31mnot found\x1b[0m\r\n",
    ),
    "a git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 12345678\n",
    ),
    "an lz4 file": (packed("lz4", "-c"), packed("lz4", "-l", "-c")),
    "an lzma file": (
        packed("xz", "--format=lzma", "-c"),
        packed("xz", "--format=lzma", "-9", "-c"),
        lzma_alone(12 << 20),
        # 7-zip names the size
        lzma_alone(1 << 16)[:5] + struct.pack("<Q", len(DISK)) + lzma_alone(1 << 16)[13:],
    ),
    "an lzip file": (b"LZIP\1\x14" + DISK,),
    "an lzop file": (b"\x89LZO\0\r\n\x1a\n" + DISK,),
    "a compress (.Z) file": (b"\x1f\x9d\x90" + DISK, b"\x1f\x9d\x8c" + DISK),
    "a cpio archive": (cpio(b"070701"), cpio(b"070702"), cpio(b"070707"), binary_cpio("<"), binary_cpio(">")),
    "an RPM package": (b"\xed\xab\xee\xdb\3\0" + DISK,),
    "a part of a split zip archive": (split_zip(),),
    "a 7z archive": (b"7z\xbc\xaf\x27\x1c" + DISK,),
    "a RAR archive": (b"Rar!\x1a\x07\x01\0" + DISK,),
}


def refusal_of(data: bytes, image_format: str = "RAW") -> str:
    with pytest.raises(DownloadError) as raised:
        inspect_bytes(data, image_format)
    assert raised.value.reason is Reason.FORMAT_MISMATCH
    return raised.value.message


@pytest.mark.parametrize("name", NO_DISKS)
def test_what_is_no_disk_is_refused_as_what_it_seems_to_be(name: str) -> None:
    for data in NO_DISKS[name]:
        for image_format in ("RAW", "QCOW2"):
            message = refusal_of(data, image_format)
            assert message.startswith(f"the file seems to be {name}")
            assert f", expected {image_format}; " in message
        assert inspect_bytes(data, "").format == "RAW", "without a format it is kept as it is"


def test_a_debian_package_is_no_disk(tmp_path: pathlib.Path) -> None:
    assert "an ar archive, such as a Debian package" in refusal_of(ar(tmp_path))


def sector(beginning: bytes, *, signature: bool = True) -> bytes:
    return beginning[:510].ljust(510, b"\0") + (b"\x55\xaa" if signature else b"\0\0") + DISK


GPT = sector(bytes(446) + struct.pack("<8B2I", 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 2047)) + b"EFI PART"
DISKS = {
    "zeros": bytes(MIB),
    "ones, as erased flash has them": b"\xff" * MIB,
    "random data, as an encrypted disk": random.Random(2).randbytes(MIB),
    "boot code of GRUB": sector(b"\xeb\x63\x90\x10\x8e\xd0\xbc\x00\xb0\xb8\0\0\x8e\xd8"),
    "boot code of Windows": sector(b"\x33\xc0\x8e\xd0\xbc\x00\x7c\x8e\xc0\x8e\xd8\xbe\x00\x7c"),
    "boot code that begins as compress does (pop, popf, nop)": sector(b"\x1f\x9d\x90\xfa\x33\xc0"),
    "boot code that begins as lzma does (pop)": sector(b"\x5d\0\0\x80\0" + bytes(9)),
    "a GPT": GPT,
    "FAT": sector(b"\xeb\x3c\x90MSDOS5.0\0\2\4"),
    "XFS": b"XFSB\0\0\x10\0" + bytes(4096),
    "LVM": bytes(512) + b"LABELONE\1\0\0\0" + bytes(4096),
    "a name of LUKS without its mark": b"LUKS is not here" + bytes(4096),
    "zipl of s390, SCSI": sector(b"zIPL\0\0\0\1"),
    "IPL of s390, DASD": "IPL1".encode("cp037") + bytes(4096),
    "squashfs": b"hsqs\7\0\0\0" + bytes(4096),
    "a disk label of Sun, which is text": b"SUN72G cyl 14087 alt 2 hd 24 sec 424".ljust(508, b"\0") + b"\xda\xbe\0\0",
    "code that begins as markup in UTF-16 does (cmp)": sector(b"<\0\x74\x02"),
    "numbers that begin as markup in UTF-16 does": b"\0<" + bytes(4096),
    "a byte order mark and random data": b"\xff\xfe<\0" + random.Random(3).randbytes(80_000),
    "random data that begin as an array of JSON does": b"[{" + random.Random(4).randbytes(80_000),
    "a descriptor of Amiga": b"RDSK\0\0\0\x40" + bytes(4096),
    "numbers that begin as lzma does": struct.pack("<BIQB", 0x5D, 5000, 10, 0) + bytes(4096),
    "numbers that begin as compress does": b"\x1f\x9d\x10" + bytes(4096),
    "numbers that begin as cpio does": struct.pack("<13H", 0o70707, *range(12)) + bytes(4096),
    "text in the first sector only": b"a label of somebody ".ljust(512, b".") + bytes(4096),
    "text up to the last byte of a look": b"y\n" * 2047 + b"y\0" + bytes(4096),
}


@pytest.mark.parametrize("name", DISKS)
def test_a_disk_is_raw_however_it_begins(name: str) -> None:
    assert inspect_bytes(DISKS[name], "RAW") == ImageInfo("RAW", len(DISKS[name]))


def test_a_file_system_without_a_partition_table_is_raw(tmp_path: pathlib.Path) -> None:
    path = create(tmp_path / "image", "raw", "2M")
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, timeout=60)
    assert inspect_bytes(path.read_bytes(), "RAW") == ImageInfo("RAW", 2 * MIB)


@pytest.mark.parametrize("media_type", ["text/html", "application/xhtml+xml"])
def test_what_its_server_calls_a_page_is_no_raw_disk(tmp_path: pathlib.Path, media_type: str) -> None:
    data = DISKS["boot code of GRUB"]
    descriptor = os.memfd_create("image")
    try:
        os.write(descriptor, data)
        with pytest.raises(DownloadError, match="seems to be a web page, expected RAW"):
            images.inspect(descriptor, len(data), "RAW", media_type=media_type)
        assert images.inspect(descriptor, len(data), "", media_type=media_type).format == "RAW"
        assert images.inspect(descriptor, len(data), "RAW", media_type="text/plain").format == "RAW"
    finally:
        os.close(descriptor)
    marked = create(tmp_path / "image", "qcow2").read_bytes()
    assert images.inspect_head(marked, len(marked), "QCOW2", media_type=media_type), "a mark counts more"


def test_a_long_text_may_be_a_disk() -> None:
    assert inspect_bytes(b"y" * 65537, "RAW") == ImageInfo("RAW", 65537)


def test_a_text_is_raw_if_a_digest_vouches_for_it_but_a_document_never_is() -> None:
    assert inspect_bytes(b"0123456789" * 8 + b"\n", "RAW", media_type=None).format == "RAW"
    for document in (b'{"errors":[{"status":404}]}', b"<Error><Code>NoSuchKey</Code></Error>", b"<html>"):
        with pytest.raises(DownloadError, match="seems to be"):
            inspect_bytes(document, "RAW", media_type=None)


def test_a_size_that_is_no_disks_is_mentioned() -> None:
    assert images.odd_size(MIB) == images.odd_size(0) == ""
    assert "1048577 bytes, is no multiple of 512" in images.odd_size(MIB + 1)


def test_nothing_is_imported_to_read_utf_16() -> None:
    """A confined job can open no files."""
    program = "import codecs, sys; from directdownload.download.sandbox import sandbox; "
    program += "from directdownload.download.images import foreign; "
    program += "[codecs.lookup(each) for each in sandbox._CODECS]; sys.meta_path.clear(); "
    program += "print(*(foreign.recognise('<html>'.encode(each)).name for each in ('utf-16-le', 'utf-16-be')))"
    done = subprocess.run([sys.executable, "-c", program], env=checkout.environment(), capture_output=True, check=False)
    assert done.stdout == b"a web page a web page\n", done.stderr


@pytest.mark.parametrize("driver", ["qcow", "qed"])
def test_without_a_format_an_unsupported_image_must_have_no_backing_file(tmp_path: pathlib.Path, driver: str) -> None:
    whole, overlay = create(tmp_path / "whole", driver), tmp_path / "overlay"
    qemu_img("create", "-q", "-f", driver, "-b", whole, "-F", driver, overlay)
    assert inspect(whole, "").format == "RAW"
    reason, message = refusal(overlay, "")
    assert (reason, "with a backing file" in message) == (Reason.UNSAFE_IMAGE, True)
    for image in (whole, overlay):
        assert refusal(image, "RAW")[0] is Reason.FORMAT_MISMATCH
    for magic in (b"QED\0", b"QFI\xfb\0\0\0\1"):
        assert inspect_bytes(magic, "").format == "RAW", "cut"
