"""VHD and VHDX images as qemu makes them, and differencing ones made of them."""

import pathlib
import struct

import pytest
from tests.unit.download.images.support import (
    MIB,
    create,
    info,
    inspect,
    inspect_head,
    patch,
    refusal,
    seal_vhd,
    seal_vhdx,
)

from directdownload.download.images import ImageInfo
from directdownload.resources.reasons import Reason

FOOTER = 512
KIB = 1024
METADATA_AT = 192 * KIB


def seal(path: pathlib.Path, offset: int, length: int, checksum_at: int = 0) -> None:
    """Correct a checksum after a change; `checksum_at` is of a VHD, a VHDX has it in one place."""
    data = bytearray(path.read_bytes())
    if checksum_at:
        seal_vhd(data, offset, length, checksum_at)
    else:
        seal_vhdx(data, offset, length)
    path.write_bytes(data)


def patch_footers(path: pathlib.Path, field: int, data: bytes) -> None:
    size = path.stat().st_size
    for offset in (0, size - FOOTER) if path.read_bytes()[:8] == b"conectix" else (size - FOOTER,):
        patch(path, offset + field, data)
        seal(path, offset, FOOTER, 64)


@pytest.fixture
def dynamic(tmp_path: pathlib.Path) -> pathlib.Path:
    return create(tmp_path / "dynamic", "vpc")


@pytest.fixture
def fixed(tmp_path: pathlib.Path) -> pathlib.Path:
    return create(tmp_path / "fixed", "vpc", "10M", "subformat=fixed")


@pytest.fixture
def vhdx(tmp_path: pathlib.Path) -> pathlib.Path:
    return create(tmp_path / "image", "vhdx")


@pytest.mark.parametrize("size", ["512K", "10M", "3G", "1T"])
@pytest.mark.parametrize("options", [(), ("force_size=on",), ("subformat=fixed",)])
def test_vhd_of_qemu_is_accepted_with_its_size(tmp_path: pathlib.Path, options: tuple[str, ...], size: str) -> None:
    path = create(tmp_path / "image", "vpc", size, *options)
    known = info(path, "vpc")
    assert known is not None
    expected = ImageInfo("VHD", known["virtual-size"])
    assert inspect(path, "VHD") == inspect(path, "") == expected
    # the footer of a fixed disk is at its end
    assert inspect_head(path, "VHD") == (None if "subformat=fixed" in options else expected)


@pytest.mark.parametrize("creator", [b"vpc ", b"vbox", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS"])
@pytest.mark.parametrize("geometry", [(100, 4, 17), (65535, 16, 255)])
def test_vhd_of_any_program_has_the_size_that_qemu_shows(
    dynamic: pathlib.Path, creator: bytes, geometry: tuple[int, int, int]
) -> None:
    patch_footers(dynamic, 28, creator)
    patch_footers(dynamic, 56, struct.pack(">HBB", *geometry))
    known = info(dynamic, "vpc")
    assert known is not None
    assert inspect(dynamic, "VHD") == ImageInfo("VHD", known["virtual-size"])


def test_vhd_of_azure_has_the_size_that_qemu_shows_since_version_10(dynamic: pathlib.Path) -> None:
    size = inspect(dynamic, "VHD").virtual_size_bytes
    patch_footers(dynamic, 28, b"wa\0\0")
    patch_footers(dynamic, 56, struct.pack(">HBB", 100, 4, 17))
    assert inspect(dynamic, "VHD").virtual_size_bytes == size


def test_vhd_differencing_is_unsafe(dynamic: pathlib.Path) -> None:
    patch_footers(dynamic, 60, struct.pack(">I", 4))
    for declared in ("VHD", ""):
        reason, message = refusal(dynamic, declared)
        assert reason is Reason.UNSAFE_IMAGE
        assert "differencing" in message


def test_vhd_with_the_name_of_a_parent_is_unsafe(dynamic: pathlib.Path) -> None:
    for field, data in ((64, "parent.vhd".encode("utf-16-be")), (576, b"W2ku")):
        before = dynamic.read_bytes()
        patch(dynamic, FOOTER + field, data)
        seal(dynamic, FOOTER, 1024, 36)
        assert refusal(dynamic, "VHD")[0] is Reason.UNSAFE_IMAGE
        dynamic.write_bytes(before)


def test_vhd_with_two_footers_that_differ_is_unsafe(dynamic: pathlib.Path) -> None:
    patch(dynamic, 48, struct.pack(">Q", 5 * MIB))
    seal(dynamic, 0, FOOTER, 64)
    assert refusal(dynamic, "VHD")[0] is Reason.UNSAFE_IMAGE


@pytest.mark.parametrize(
    ("field", "data"),
    [(12, bytes(4)), (16, struct.pack(">Q", 2**63)), (48, struct.pack(">Q", 2**62)), (60, struct.pack(">I", 9))],
    ids=["version", "header outside", "size", "type"],
)
def test_vhd_with_a_damaged_footer_is_refused(dynamic: pathlib.Path, field: int, data: bytes) -> None:
    patch_footers(dynamic, field, data)
    assert refusal(dynamic, "VHD")[0] is Reason.FORMAT_MISMATCH


@pytest.mark.parametrize(
    ("field", "layout", "value"),
    [(16, ">Q", 2**62), (24, ">I", 2), (28, ">I", 2**32 - 1), (28, ">I", 1), (32, ">I", 3)],
    ids=["table outside", "version", "too many blocks", "too few blocks", "block size"],
)
def test_vhd_with_a_damaged_header_is_refused(dynamic: pathlib.Path, field: int, layout: str, value: int) -> None:
    patch(dynamic, FOOTER + field, struct.pack(layout, value))
    seal(dynamic, FOOTER, 1024, 36)
    assert refusal(dynamic, "VHD")[0] is Reason.FORMAT_MISMATCH


def test_vhd_checksums_are_checked(dynamic: pathlib.Path, fixed: pathlib.Path) -> None:
    for path, offset in ((dynamic, 70), (dynamic, FOOTER + 20), (fixed, fixed.stat().st_size - 300)):
        before = path.read_bytes()
        patch(path, offset, bytes([before[offset] ^ 1]))
        assert refusal(path, "VHD")[0] is Reason.FORMAT_MISMATCH
        path.write_bytes(before)


def test_vhd_that_is_cut_is_refused(dynamic: pathlib.Path, fixed: pathlib.Path) -> None:
    for path in (dynamic, fixed):
        data = path.read_bytes()
        for length in (len(data) - 1, len(data) - FOOTER, 600):
            path.write_bytes(data[:length])
            assert refusal(path, "VHD")[0] is Reason.FORMAT_MISMATCH
    # in front of the footer
    footer = data[-FOOTER:]
    fixed.write_bytes(bytes(5 * MIB) + footer)
    reason, message = refusal(fixed, "VHD")
    assert reason is Reason.FORMAT_MISMATCH
    assert "truncated" in message


@pytest.mark.parametrize("size", ["1M", "10M", "3G", "60T"])
@pytest.mark.parametrize("options", [(), ("block_size=1M",), ("block_size=256M",)])
def test_vhdx_of_qemu_is_accepted_with_its_size(tmp_path: pathlib.Path, options: tuple[str, ...], size: str) -> None:
    if size == "60T":
        options = ("block_size=256M",)
    path = create(tmp_path / "image", "vhdx", size, *options)
    known = info(path, "vhdx")
    assert known is not None
    assert inspect(path, "VHDX") == inspect(path, "") == ImageInfo("VHDX", known["virtual-size"])
    assert inspect_head(path, "VHDX") is None


def metadata(path: pathlib.Path) -> int:
    """Where qemu put the metadata region."""
    table = path.read_bytes()[METADATA_AT : METADATA_AT + 80]
    guid = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
    return int(struct.unpack_from("<Q", table, table.index(guid) + 16)[0])


def test_vhdx_differencing_is_unsafe(vhdx: pathlib.Path) -> None:
    start = metadata(vhdx)
    before = vhdx.read_bytes()
    table = before[start : start + 64 * KIB]
    parameters = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
    (offset,) = struct.unpack_from("<I", table, table.index(parameters) + 16)
    patch(vhdx, start + offset + 4, struct.pack("<I", 2))
    assert refusal(vhdx, "VHDX")[0] is Reason.UNSAFE_IMAGE
    assert refusal(vhdx, "")[0] is Reason.UNSAFE_IMAGE
    # the locator of a parent alone
    vhdx.write_bytes(before)
    (count,) = struct.unpack_from("<H", table, 10)
    locator = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
    patch(vhdx, start + 32 + 32 * count, struct.pack("<16sIII", locator, 64 * KIB, 20, 4))
    patch(vhdx, start + 10, struct.pack("<H", count + 1))
    assert refusal(vhdx, "VHDX")[0] is Reason.UNSAFE_IMAGE


def test_vhdx_with_a_log_to_replay_is_unsafe(vhdx: pathlib.Path) -> None:
    before = vhdx.read_bytes()
    first, second = (struct.unpack_from("<Q", before, offset + 8)[0] for offset in (64 * KIB, 128 * KIB))
    current = (64 if first > second else 128) * KIB
    patch(vhdx, current + 48, b"\1" * 16)
    # without its checksum the other header counts
    assert inspect(vhdx, "VHDX") == ImageInfo("VHDX", 10 * MIB)
    seal(vhdx, current, 4 * KIB)
    assert refusal(vhdx, "VHDX")[0] is Reason.UNSAFE_IMAGE


def test_vhdx_with_damaged_tables_is_refused(vhdx: pathlib.Path) -> None:
    before = vhdx.read_bytes()
    start = metadata(vhdx)
    unknown = struct.pack("<16sIII", b"?" * 16, 64 * KIB, 1, 4)
    (count,) = struct.unpack_from("<H", before, start + 10)
    for offset, data in (
        (METADATA_AT + 5000, b"\1"),
        (METADATA_AT, b"rege"),
        (start, b"metadate"),
        (start + 10, b"\xff\xff"),
        (start + 32, unknown),
        (start + 32 + 16, struct.pack("<I", 2**31)),
        (start + 32 + 32 * count, before[start + 32 : start + 64]),
    ):
        vhdx.write_bytes(before)
        patch(vhdx, offset, data)
        if offset == start + 32 + 32 * count:
            patch(vhdx, start + 10, struct.pack("<H", count + 1))
        assert refusal(vhdx, "VHDX")[0] is Reason.FORMAT_MISMATCH
    vhdx.write_bytes(before)
    for offset in (64 * KIB, 128 * KIB):
        patch(vhdx, offset, b"dead")
    assert refusal(vhdx, "VHDX")[0] is Reason.FORMAT_MISMATCH
    # a region twice, one that is not where it can be, and too many, each with a good checksum
    for offset, data in (
        (METADATA_AT + 16 + 32, before[METADATA_AT + 16 : METADATA_AT + 32]),
        (METADATA_AT + 16 + 16, struct.pack("<Q", 2**62)),
        (METADATA_AT + 16 + 16, struct.pack("<Q", MIB + 1)),
        (METADATA_AT + 8, struct.pack("<I", 2048)),
        (METADATA_AT + 8, struct.pack("<I", 1)),
    ):
        vhdx.write_bytes(before)
        patch(vhdx, offset, data)
        seal(vhdx, METADATA_AT, 64 * KIB)
        assert refusal(vhdx, "VHDX")[0] is Reason.FORMAT_MISMATCH
