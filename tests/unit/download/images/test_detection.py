"""What a file is, whatever it is called: every format against every other, and what is served by mistake."""

import bz2
import errno
import gzip
import io
import lzma
import os
import pathlib
import struct
import tarfile
import zipfile

import pytest
from backports import zstd
from tests.unit.download.images.support import HEAD_BYTES, MIB, create, info, inspect, inspect_bytes, refusal

from directdownload.download import images
from directdownload.download.errors import DownloadError, StorageError
from directdownload.download.images import ImageInfo, reader
from directdownload.resources.reasons import Reason

ISO_MARK_AT = 32769


def iso(mark: bytes = b"CD001", beginning: bytes = b"") -> bytes:
    data = bytearray(MIB)
    data[: len(beginning)] = beginning
    data[ISO_MARK_AT - 1 : ISO_MARK_AT + 5] = b"\1" + mark
    return bytes(data)


def tar(*names: str, layout: int = tarfile.USTAR_FORMAT, mtime: float = 0, link: bool = False) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.mtime = mtime
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
                archive.addfile(member)
            else:
                member.size = 1000
                archive.addfile(member, io.BytesIO(bytes(1000)))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image", bytes(MIB))
    return file.getvalue()


def partitioned() -> bytes:
    """A master boot record with one partition."""
    data = bytearray(MIB)
    data[446:462] = struct.pack("<8B2I", 0x80, 0, 2, 0, 0x83, 0, 3, 0, 1, 2047)
    data[510:512] = b"\x55\xaa"
    return bytes(data)


OURS = {"QCOW2": "qcow2", "VMDK": "vmdk", "VHD": "vpc", "VHDX": "vhdx", "RAW": "raw"}
FOREIGN = {"qcow": "QCOW image of version 1", "qed": "QED", "vdi": "VDI", "parallels": "Parallels"}
BY_BYTES = {
    "ISO": iso(),
    "TAR": tar("image"),
    "OVA": tar("image.ovf", "disk.vmdk"),
    "LUKS": b"LUKS\xba\xbe\0\1" + bytes(MIB),
    "gz": gzip.compress(bytes(MIB)),
    "bz2": bz2.compress(bytes(MIB)),
    "xz": lzma.compress(bytes(MIB)),
    "zst": zstd.compress(bytes(MIB)),
    "zip": zipped(),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "RAR": b"Rar!\x1a\x07\x01\0" + bytes(100),
    "web page": b"\n<!DOCTYPE HTML><html><title>Log in</title></html>",
    "metalink": b"\xef\xbb\xbf<?xml version='1.0'?><metalink/>",
    "web page in short": b"<HTML><body>404</body></HTML>",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """One good image of each of our formats, and one of each that we do not take."""
    directory = tmp_path_factory.mktemp("formats")
    made = {name: create(directory / name, driver) for name, driver in OURS.items()}
    made |= {name: create(directory / name, name) for name in FOREIGN}
    for name, data in BY_BYTES.items():
        made[name] = directory / name
        made[name].write_bytes(data)
    return made


@pytest.mark.parametrize("declared", [*OURS, "ISO", "TAR", "OVA"])
def test_only_the_format_that_was_asked_for_is_accepted(files: dict[str, pathlib.Path], declared: str) -> None:
    accepted = {"TAR", "OVA"} if declared == "TAR" else {declared}
    for name, path in files.items():
        if name in accepted:
            assert inspect(path, declared).format == declared
        else:
            assert refusal(path, declared)[0] is Reason.FORMAT_MISMATCH


def test_without_a_format_it_is_found(files: dict[str, pathlib.Path]) -> None:
    found = {name: inspect(path, "").format for name, path in files.items()}
    ours = {*OURS, "ISO", "TAR", "OVA"}
    assert found == {name: name if name in ours else "RAW" for name in files}


def test_the_message_says_what_the_file_is(files: dict[str, pathlib.Path]) -> None:
    for name, words in {**FOREIGN, "LUKS": "LUKS", "gz": "a gz archive", "web page": "a web page"}.items():
        reason, message = refusal(files[name], "RAW")
        assert reason is Reason.FORMAT_MISMATCH
        assert message.startswith("the file seems to be ")
        assert words in message
        assert ", expected RAW; " in message, "and what to do"
    assert refusal(files["ISO"], "RAW")[1].endswith("register it with format ISO")
    assert "no mark" in refusal(files["RAW"], "QCOW2")[1]


def test_what_qemu_finds_in_a_file_is_no_raw_image(files: dict[str, pathlib.Path]) -> None:
    for name, driver in {**OURS, **{name: name for name in FOREIGN}}.items():
        if name != "RAW":
            assert info(files[name], driver) is not None
            assert refusal(files[name], "RAW")[0] is Reason.FORMAT_MISMATCH


def test_a_fixed_vhd_is_no_raw_image(tmp_path: pathlib.Path) -> None:
    path = create(tmp_path / "image", "vpc", "10M", "subformat=fixed")
    assert refusal(path, "RAW")[0] is Reason.FORMAT_MISMATCH


def test_a_disk_with_partitions_is_raw() -> None:
    assert inspect_bytes(partitioned(), "RAW") == inspect_bytes(partitioned(), "") == ImageInfo("RAW", MIB)


@pytest.mark.parametrize("size", [1, 100, 511, 512, 2048, 32768, 32772, 100_000])
def test_any_other_bytes_are_raw_of_their_size(size: int) -> None:
    assert inspect_bytes(b"\1" * size, "RAW") == ImageInfo("RAW", size)


def test_an_empty_file_is_no_image() -> None:
    assert inspect_bytes(b"", "") == ImageInfo("RAW", 0)
    with pytest.raises(DownloadError, match="empty") as raised:
        inspect_bytes(b"", "RAW")
    assert raised.value.reason is Reason.FORMAT_MISMATCH


def test_an_iso_is_one_in_both_standards_and_as_a_hybrid() -> None:
    for data in (iso(), iso(b"BEA01"), iso(beginning=partitioned()[:512])):
        assert inspect_bytes(data, "ISO") == ImageInfo("ISO", MIB)
        with pytest.raises(DownloadError, match="register it with format ISO"):
            inspect_bytes(data, "RAW")


@pytest.mark.parametrize("beginning", [b"QFI\xfb\0\0\0\3", b"KDMV", b"conectix", b"vhdxfile", b"QED\0"])
def test_an_iso_that_begins_as_a_disk_image_is_none(beginning: bytes) -> None:
    with pytest.raises(DownloadError) as raised:
        inspect_bytes(iso(beginning=beginning), "ISO")
    assert raised.value.reason is Reason.FORMAT_MISMATCH


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.ovf", "A.OVF", "x" * 150 + ".ovf", "größe" * 30 + ".ovf"])
def test_an_appliance_begins_with_its_descriptor(layout: int, name: str) -> None:
    if layout == tarfile.USTAR_FORMAT and len(name) > 100:
        name = "directory/" * 9 + "a.ovf"
    data = tar(name, "disk.vmdk", layout=layout, mtime=0.5 if layout == tarfile.PAX_FORMAT else 0)
    assert inspect_bytes(data, "OVA") == ImageInfo("OVA", None)
    assert inspect_bytes(data, "TAR") == ImageInfo("TAR", None)
    other = tar("disk.vmdk", name, layout=layout)
    assert inspect_bytes(other, "TAR") == ImageInfo("TAR", None)
    with pytest.raises(DownloadError, match="TAR image, expected OVA"):
        inspect_bytes(other, "OVA")


def test_a_link_is_no_descriptor() -> None:
    with pytest.raises(DownloadError, match="TAR image, expected OVA"):
        inspect_bytes(tar("a.ovf", link=True), "OVA")


def test_a_tar_header_with_a_wrong_checksum_is_none() -> None:
    data = bytearray(tar("image"))
    data[20] = 1
    with pytest.raises(DownloadError, match="no mark"):
        inspect_bytes(bytes(data), "TAR")
    with pytest.raises(DownloadError, match="no mark"):
        inspect_bytes(bytes(10_240), "TAR")


def test_many_headers_of_no_file_are_not_followed() -> None:
    header = tar("image")[:512]
    extension = bytearray(header)
    extension[156:157] = b"g"
    extension[124:136] = b"00000000000\0"
    extension[148:156] = b"        "
    extension[148:156] = b"%06o\0 " % sum(extension)
    assert inspect_bytes(bytes(extension) * 3 + tar("a.ovf"), "OVA") == ImageInfo("OVA", None)
    assert inspect_bytes(bytes(extension) * 5000 + tar("a.ovf"), "") == ImageInfo("TAR", None)


def test_a_head_tells_what_it_can(files: dict[str, pathlib.Path]) -> None:
    told = {}
    for name, path in files.items():
        with path.open("rb") as file:
            told[name] = images.inspect_head(file.read(HEAD_BYTES), path.stat().st_size, "")
    for name, path in files.items():
        if name in ("gz", "bz2", "xz", "zst", "zip", "VHDX"):
            assert told[name] is None
        else:
            assert told[name] == inspect(path, "")


def test_a_head_of_unknown_length(files: dict[str, pathlib.Path]) -> None:
    def head(name: str, length: int = HEAD_BYTES) -> bytes:
        with files[name].open("rb") as file:
            return file.read(length)

    assert images.inspect_head(head("QCOW2"), None, "QCOW2") == ImageInfo("QCOW2", 10 * MIB)
    assert images.inspect_head(head("RAW"), None, "RAW") == ImageInfo("RAW", None)
    assert images.inspect_head(head("RAW"), 10 * MIB, "VHD") is None
    assert images.inspect_head(head("RAW", 1000), None, "RAW") is None
    assert images.inspect_head(b"", None, "QCOW2") is None
    with pytest.raises(DownloadError, match="VMDK image, expected QCOW2"):
        images.inspect_head(head("VMDK"), None, "QCOW2")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(DownloadError, match=r"'VDI'; expected one of ISO, OVA, QCOW2"):
        inspect_bytes(b"x", "VDI")


def test_no_header_makes_us_read_without_end() -> None:
    descriptor = os.memfd_create("image")
    try:
        os.truncate(descriptor, 2**40)
        file = reader.FileReader(descriptor, 2**40)
        assert file.peek(2**39, reader.MAX_READ_BYTES - 1) == bytes(reader.MAX_READ_BYTES - 1)
        assert file.peek(2**40 - 1, 100) == bytes(1)
        assert file.peek(2**63, 1) == b""
        with pytest.raises(DownloadError) as raised:
            file.peek(0, 1)
    finally:
        os.close(descriptor)
    assert raised.value.reason is Reason.UNSAFE_IMAGE


def test_a_disk_that_fails_is_not_the_fault_of_the_source(tmp_path: pathlib.Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StorageError, match=os.strerror(errno.EISDIR)) as raised:
            images.inspect(descriptor, 1000, "QCOW2")
    finally:
        os.close(descriptor)
    assert raised.value.reason is Reason.WRITE_FAILED
