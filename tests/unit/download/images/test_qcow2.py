"""QCOW2 images as qemu makes them, and as nobody should."""

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
    qemu_img,
    refusal,
)

from directdownload.download.images import ImageInfo
from directdownload.resources.reasons import Reason

ACCEPTED = {
    "default": (),
    "version 2": ("compat=0.10",),
    "smallest clusters": ("cluster_size=512",),
    "largest clusters": ("cluster_size=2M",),
    "zstd": ("compression_type=zstd",),
    "zlib": ("compression_type=zlib",),
    "lazy refcounts": ("lazy_refcounts=on",),
    "one-bit refcounts": ("refcount_bits=1",),
    "wide refcounts": ("refcount_bits=64",),
    "preallocated": ("preallocation=metadata", "cluster_size=2M"),
}


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    return create(tmp_path / "image", "qcow2")


@pytest.mark.parametrize("options", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("size", ["0", "512", "10M", "1G"])
def test_what_qemu_makes_is_accepted_with_its_size(tmp_path: pathlib.Path, options: tuple[str, ...], size: str) -> None:
    path = create(tmp_path / "image", "qcow2", size, *options)
    found = inspect(path, "QCOW2")
    assert found == inspect(path, "") == inspect_head(path, "QCOW2")
    known = info(path, "qcow2")
    assert known is not None
    assert found == ImageInfo("QCOW2", known["virtual-size"])


def test_snapshots_bitmaps_and_compressed_clusters_are_accepted(tmp_path: pathlib.Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(range(256)) * 4096)
    path = tmp_path / "image"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
    qemu_img("snapshot", "-c", "first", path)
    qemu_img("bitmap", "--add", "-f", "qcow2", path, "changes")
    assert inspect(path, "QCOW2") == ImageInfo("QCOW2", MIB)


def test_an_image_that_once_had_a_backing_file_is_accepted(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    overlay = tmp_path / "overlay"
    qemu_img("create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay)
    assert refusal(overlay, "QCOW2")[0] is Reason.UNSAFE_IMAGE
    qemu_img("rebase", "-b", "", overlay)
    assert inspect(overlay, "QCOW2") == ImageInfo("QCOW2", 10 * MIB)


@pytest.mark.parametrize("declared", ["QCOW2", ""])
@pytest.mark.parametrize("version", ["compat=0.10", "compat=1.1"])
@pytest.mark.parametrize("backing_format", ["qcow2", ""])
def test_a_backing_file_is_unsafe(
    tmp_path: pathlib.Path, image: pathlib.Path, declared: str, version: str, backing_format: str
) -> None:
    overlay = tmp_path / "overlay"
    named = ["-F", backing_format] if backing_format else []
    if backing_format:
        qemu_img("create", "-q", "-f", "qcow2", "-o", version, "-b", image, *named, overlay)
    else:
        create(overlay, "qcow2", "10M", version)
        patch(overlay, 8, struct.pack(">QI", 0x400, 11))
        patch(overlay, 0x400, b"/etc/shadow")
        found = info(overlay, "qcow2")
        assert found is not None
        assert found["backing-filename"] == "/etc/shadow"
    reason, message = refusal(overlay, declared)
    assert reason is Reason.UNSAFE_IMAGE
    assert "backing file" in message


@pytest.mark.parametrize(("offset", "size"), [(0x400, 0), (0, 11)])
def test_half_a_backing_file_is_unsafe(image: pathlib.Path, offset: int, size: int) -> None:
    patch(image, 8, struct.pack(">QI", offset, size))
    assert refusal(image, "QCOW2")[0] is Reason.UNSAFE_IMAGE


@pytest.mark.parametrize("options", [("data_file_raw=off",), ("data_file_raw=on",)])
@pytest.mark.parametrize("declared", ["QCOW2", ""])
def test_an_external_data_file_is_unsafe(tmp_path: pathlib.Path, options: tuple[str, ...], declared: str) -> None:
    path = create(tmp_path / "image", "qcow2", "10M", f"data_file={tmp_path}/data", *options)
    reason, message = refusal(path, declared)
    assert reason is Reason.UNSAFE_IMAGE
    assert "external data file" in message


def test_the_name_of_an_external_data_file_is_unsafe_without_the_feature_too(tmp_path: pathlib.Path) -> None:
    path = create(tmp_path / "image", "qcow2", "10M", f"data_file={tmp_path}/data")
    patch(path, 72, struct.pack(">Q", 0))
    assert refusal(path, "QCOW2") == (
        Reason.UNSAFE_IMAGE,
        "the QCOW2 image names an external data file; make a complete one with `qemu-img convert`",
    )


def test_a_raw_data_file_is_unsafe_by_its_autoclear_bit_alone(image: pathlib.Path) -> None:
    patch(image, 88, struct.pack(">Q", 2))
    assert refusal(image, "QCOW2")[0] is Reason.UNSAFE_IMAGE


def test_the_format_of_a_backing_file_is_unsafe_without_its_name_too(
    tmp_path: pathlib.Path, image: pathlib.Path
) -> None:
    overlay = tmp_path / "overlay"
    qemu_img("create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay)
    patch(overlay, 8, bytes(12))
    reason, message = refusal(overlay, "QCOW2")
    assert reason is Reason.UNSAFE_IMAGE
    assert "format of a backing file" in message


def test_extended_l2_entries_are_refused_with_what_to_do(tmp_path: pathlib.Path) -> None:
    reason, message = refusal(create(tmp_path / "image", "qcow2", "10M", "extended_l2=on"), "QCOW2")
    assert reason is Reason.UNSAFE_IMAGE
    assert "extended_l2=off" in message


@pytest.mark.parametrize("bit", [*range(5, 10), 31, 32, 63])
def test_unknown_incompatible_features_are_refused(image: pathlib.Path, bit: int) -> None:
    patch(image, 72, struct.pack(">Q", 1 << bit))
    reason, message = refusal(image, "QCOW2")
    assert reason is Reason.UNSAFE_IMAGE
    assert hex(1 << bit) in message


@pytest.mark.parametrize("bit", [0, 1])
def test_dirty_and_corrupt_are_accepted_as_cloudstack_does(image: pathlib.Path, bit: int) -> None:
    patch(image, 72, struct.pack(">Q", 1 << bit))
    assert inspect(image, "QCOW2") == ImageInfo("QCOW2", 10 * MIB)


@pytest.mark.parametrize("method", [1, 2])
def test_encryption_is_refused(tmp_path: pathlib.Path, method: int) -> None:
    path = create(tmp_path / "image", "qcow2", "1M", "encrypt.format=aes", "encrypt.key-secret=key")
    # 2 is LUKS, of which the real key would take seconds to make
    patch(path, 32, struct.pack(">I", method))
    reason, message = refusal(path, "QCOW2")
    assert reason is Reason.FORMAT_MISMATCH
    assert "encrypted" in message


DAMAGE = {
    "version 1 is another format": (4, ">I", 1),
    "version 0": (4, ">I", 0),
    "version 4": (4, ">I", 4),
    "clusters too small": (20, ">I", 8),
    "clusters too large": (20, ">I", 22),
    "clusters beyond shifting": (20, ">I", 2**32 - 1),
    "negative size": (24, ">q", -1),
    "more than the L1 table holds": (24, ">Q", 2**40),
    "no L1 table": (36, ">I", 0),
    "L1 table too large": (36, ">I", 2**32 - 1),
    "L1 table outside": (40, ">Q", 2**62),
    "L1 table not aligned": (40, ">Q", 0x30008),
    "refcount table outside": (48, ">Q", 2**63),
    "refcount table not aligned": (48, ">Q", 0x10001),
    "no refcount table": (56, ">I", 0),
    "refcount table too large": (56, ">I", 2**31),
    "too many snapshots": (60, ">I", 65537),
    "snapshots outside": (60, ">IQ", 1, 2**40),
    "refcounts too wide": (96, ">I", 7),
    "header too short": (100, ">I", 96),
    "header not aligned": (100, ">I", 108),
    "header beyond its cluster": (100, ">I", 2**17),
    "compression without its feature": (104, ">B", 1),
    "extension beyond the cluster": (112, ">II", 0x6803F857, 2**31),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_header_is_no_qcow2(image: pathlib.Path, damage: tuple[int, str, int]) -> None:
    offset, layout, *values = damage
    patch(image, offset, struct.pack(layout, *values))
    assert refusal(image, "QCOW2")[0] is Reason.FORMAT_MISMATCH


def test_a_feature_without_its_compression_type_is_no_qcow2(image: pathlib.Path) -> None:
    patch(image, 72, struct.pack(">Q", 1 << 3))
    assert refusal(image, "QCOW2")[0] is Reason.FORMAT_MISMATCH


def test_extensions_without_end_are_refused(tmp_path: pathlib.Path) -> None:
    image = create(tmp_path / "image", "qcow2", "10M", "cluster_size=2M")
    patch(image, 112, struct.pack(">II", 0xABCDEF01, 0) * 100)
    assert refusal(image, "QCOW2")[0] is Reason.FORMAT_MISMATCH
    patch(image, 112, bytes(800))
    patch(image, 112, struct.pack(">II", 0xABCDEF01, 100_000))
    assert refusal(image, "QCOW2")[0] is Reason.FORMAT_MISMATCH


def test_an_image_cut_within_its_tables_is_refused(image: pathlib.Path) -> None:
    size = image.stat().st_size
    for length in (4, 71, 103, 5000, size - 1):
        data = image.read_bytes()[:length]
        cut = image.with_name(f"cut-{length}")
        cut.write_bytes(data)
        assert refusal(cut, "QCOW2")[0] is Reason.FORMAT_MISMATCH


def test_the_largest_disk_is_limited(image: pathlib.Path) -> None:
    assert inspect(image, "QCOW2", max_virtual_size_bytes=10 * MIB).virtual_size_bytes == 10 * MIB
    with pytest.raises(Exception, match=f"{10 * MIB} bytes, at most {10 * MIB - 1}") as raised:
        inspect(image, "QCOW2", max_virtual_size_bytes=10 * MIB - 1)
    assert getattr(raised.value, "reason", None) is Reason.TOO_LARGE
