"""VMDK images as qemu makes them, and descriptors as attackers write them."""

import pathlib
import struct

import pytest
from tests.unit.download.images.support import MIB, create, info, inspect, inspect_head, patch, qemu_img, refusal

from directdownload.download.images import ImageInfo
from directdownload.resources.reasons import Reason

SECTOR = 512
DESCRIPTOR_AT = 512
DESCRIPTOR_BYTES = 20 * SECTOR


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    return create(tmp_path / "image", "vmdk")


@pytest.fixture
def stream(tmp_path: pathlib.Path) -> pathlib.Path:
    """A streamOptimized image, 3 MiB, as qemu writes it."""
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(range(256)) * (3 * MIB // 256))
    path = tmp_path / "image"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    return path


@pytest.fixture
def stream_with_footer(stream: pathlib.Path) -> pathlib.Path:
    """The same as VMware writes it: only the footer knows where the grain directory is."""
    data = stream.read_bytes()
    data += bytes(-len(data) % SECTOR)
    marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
    stream.write_bytes(data + marker + data[:SECTOR] + bytes(SECTOR))
    patch(stream, 56, b"\xff" * 8)
    return stream


def descriptor(path: pathlib.Path) -> str:
    data = path.read_bytes()[DESCRIPTOR_AT : DESCRIPTOR_AT + DESCRIPTOR_BYTES]
    return data.partition(b"\0")[0].decode()


def describe(path: pathlib.Path, text: str) -> None:
    patch(path, DESCRIPTOR_AT, text.encode().ljust(DESCRIPTOR_BYTES, b"\0"))


def virtual_size(path: pathlib.Path) -> int:
    known = info(path, "vmdk")
    assert known is not None
    return int(known["virtual-size"])


@pytest.mark.parametrize("size", ["64K", "10M", "3G", "500G"])
@pytest.mark.parametrize("options", [(), ("compat6=on",), ("adapter_type=lsilogic",), ("zeroed_grain=on",)])
def test_what_qemu_makes_is_accepted_with_its_size(tmp_path: pathlib.Path, options: tuple[str, ...], size: str) -> None:
    path = create(tmp_path / "image", "vmdk", size, *options)
    expected = ImageInfo("VMDK", virtual_size(path))
    assert inspect(path, "VMDK") == inspect(path, "") == inspect_head(path, "VMDK") == expected


def test_stream_optimized_is_accepted(stream: pathlib.Path) -> None:
    assert inspect(stream, "VMDK") == inspect_head(stream, "VMDK") == ImageInfo("VMDK", 3 * MIB)


def test_a_footer_is_read_and_must_agree_with_the_header(stream_with_footer: pathlib.Path) -> None:
    path = stream_with_footer
    assert virtual_size(path) == 3 * MIB
    assert inspect(path, "VMDK") == inspect_head(path, "VMDK") == ImageInfo("VMDK", 3 * MIB)
    whole = path.read_bytes()
    footer = len(whole) - 2 * SECTOR
    # capacity, granularity, descriptor; a footer that names another footer
    for offset in (12, 20, 28, 36):
        path.write_bytes(whole)
        patch(path, footer + offset, struct.pack("<Q", 4096))
        assert refusal(path, "VMDK")[0] is Reason.UNSAFE_IMAGE
    path.write_bytes(whole)
    patch(path, footer + 56, b"\xff" * 8)
    assert refusal(path, "VMDK")[0] is Reason.UNSAFE_IMAGE
    # the marks of the footer and of the end; bytes that are missing
    for length in (len(whole) - 1, len(whole) - SECTOR, footer - SECTOR):
        path.write_bytes(whole[:length])
        reason, message = refusal(path, "VMDK")
        assert reason is Reason.FORMAT_MISMATCH
        assert "truncated" in message


@pytest.mark.parametrize("subformat", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat"])
@pytest.mark.parametrize("declared", ["VMDK", ""])
def test_external_extents_are_unsafe(tmp_path: pathlib.Path, subformat: str, declared: str) -> None:
    path = create(tmp_path / "image.vmdk", "vmdk", "10M", f"subformat={subformat}")
    reason, message = refusal(path, declared)
    assert reason is Reason.UNSAFE_IMAGE
    assert "other files" in message
    if subformat == "twoGbMaxExtentSparse":
        # a part is no disk by itself
        assert refusal(tmp_path / "image-s001.vmdk", declared)[0] is Reason.UNSAFE_IMAGE


def test_a_descriptor_of_a_file_of_the_host_is_unsafe_however_it_begins(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "image"
    body = 'version=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 3 FLAT "/etc/passwd" 0\n'
    for beginning in ("# Disk DescriptorFile\n", "# disk descriptorfile\r\n", "", "#\n#\n", "  \n # no\n", " \r\n"):
        path.write_text(beginning + body, newline="")
        opened = info(path, "vmdk")
        found_by_qemu = '"vmdk"' in qemu_img("info", "-U", "--output=json", path)
        if found_by_qemu:
            assert opened is not None
            assert refusal(path, "")[0] is Reason.UNSAFE_IMAGE
            assert refusal(path, "RAW")[0] is Reason.FORMAT_MISMATCH


@pytest.mark.parametrize("declared", ["VMDK", ""])
def test_a_parent_is_unsafe(image: pathlib.Path, tmp_path: pathlib.Path, declared: str) -> None:
    overlay = tmp_path / "overlay"
    qemu_img("create", "-q", "-f", "vmdk", "-b", image, "-F", "vmdk", overlay)
    reason, message = refusal(overlay, declared)
    assert reason is Reason.UNSAFE_IMAGE
    assert "parent" in message


@pytest.mark.parametrize(
    "line",
    [
        '# parentFileNameHint="/etc/shadow"',
        'parentfilenamehint="/etc/shadow"',
        'ddb.comment = "parentFileNameHint=/etc/shadow"',
    ],
)
def test_a_parent_is_unsafe_wherever_it_stands(image: pathlib.Path, line: str) -> None:
    describe(image, f"{descriptor(image)}\n{line}\n")
    assert refusal(image, "VMDK")[0] is Reason.UNSAFE_IMAGE


def test_a_parent_behind_the_end_of_the_text_is_unsafe(image: pathlib.Path) -> None:
    patch(image, DESCRIPTOR_AT + 9000, b'parentFileNameHint="/etc/shadow"')
    assert refusal(image, "VMDK")[0] is Reason.UNSAFE_IMAGE


REPLACED = {
    "parent CID": ("parentCID=ffffffff", "parentCID=00000001"),
    "no type": ("createType", "createTypo"),
    "type of other files": ("monolithicSparse", "twoGbMaxExtentSparse"),
    "two types": ("version=1", 'createType="monolithicFlat"\nversion=1'),
    "second extent": ("# The Disk Data Base", 'RW 20480 SPARSE "other.vmdk"'),
    "flat extent": ("# The Disk Data Base", 'RW 20480 FLAT "/etc/shadow" 0'),
    "extent elsewhere": ('SPARSE "', 'SPARSE "/srv/'),
    "extent elsewhere on Windows": ('SPARSE "', 'SPARSE "C:\\\\'),
    "extent of another type": ("SPARSE", "VMFSSPARSE"),
    "unknown line": ("# The Disk Data Base", "RW"),
}


@pytest.mark.parametrize("replaced", REPLACED.values(), ids=REPLACED)
def test_a_descriptor_that_is_not_that_of_one_file_is_unsafe(image: pathlib.Path, replaced: tuple[str, str]) -> None:
    text = descriptor(image)
    assert replaced[0] in text
    describe(image, text.replace(*replaced))
    assert refusal(image, "VMDK")[0] is Reason.UNSAFE_IMAGE


def test_spelling_and_comments_of_other_programs_are_accepted(image: pathlib.Path) -> None:
    text = descriptor(image).replace("\n", "\r\n").replace("RW ", "RDONLY ").replace("createType", "CREATETYPE")
    describe(image, f'{text}\r\nencoding="UTF-8"\r\nddb.comment = "für Ünïcode"\r\n# größer\r\n')
    assert inspect(image, "VMDK") == ImageInfo("VMDK", 10 * MIB)


def test_a_disk_without_capacity_is_unsafe(image: pathlib.Path) -> None:
    patch(image, 12, bytes(8))
    reason, message = refusal(image, "VMDK")
    assert reason is Reason.UNSAFE_IMAGE
    assert "no disk of its own" in message


def test_an_esx_extent_is_unsafe(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"COWD" + bytes(4092))
    assert refusal(path, "VMDK")[0] is Reason.UNSAFE_IMAGE


DAMAGE = {
    "version": (4, "<I", 4),
    "capacity": (12, "<Q", 2**63),
    "granularity": (20, "<Q", 0),
    "huge granularity": (20, "<Q", 2**40),
    "no descriptor": (28, "<Q", 0),
    "descriptor elsewhere": (28, "<Q", 2**54 + 1),
    "descriptor empty": (36, "<Q", 0),
    "descriptor huge": (36, "<Q", 2**63),
    "descriptor ends in its text": (36, "<Q", 1),
    "no entries": (44, "<I", 0),
    "entries": (44, "<I", 513),
    "directory outside": (56, "<Q", 2**40),
    "grains outside": (64, "<Q", 2**63),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_header_is_no_vmdk(image: pathlib.Path, damage: tuple[int, str, int]) -> None:
    offset, layout, value = damage
    describe(image, descriptor(image) + "# long\n" * 100)
    patch(image, offset, struct.pack(layout, value))
    assert refusal(image, "VMDK")[0] is Reason.FORMAT_MISMATCH
