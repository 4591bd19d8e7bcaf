"""Damaged headers: nothing but DownloadError is raised, little is read, and qemu sees what was accepted alike."""

import contextlib
import functools
import os
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.download.images.support import HEAD_BYTES, create, info, inspect, seal_vhd, seal_vhdx
from tests.world.soak import ROUNDS

from directdownload.download import images
from directdownload.download.errors import DownloadError
from directdownload.download.images import reader

pytestmark = pytest.mark.long

FORMATS = ["QCOW2", "VMDK", "VHD", "VHDX", "ISO", "TAR", "OVA", "RAW", ""]
DRIVERS = {"QCOW2": "qcow2", "VMDK": "vmdk", "VHD": "vpc", "VHDX": "vhdx"}
#: where the headers are: offset and length
HEADERS = {
    "QCOW2": [(0, 128), (104, 600)],
    "VMDK": [(0, 80), (512, 500)],
    "VHD": [(0, 100), (512, 800), (-512, 100)],
    "VHDX": [(64 * 1024, 80), (192 * 1024, 100), (2 * 1024 * 1024, 300), (2 * 1024 * 1024 + 64 * 1024, 40)],
}
#: what integers go wrong with
VALUES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", b"\x80" + bytes(7)]),
    st.sampled_from([b"parentFileNameHint", b'RW 1 FLAT "/etc/shadow" 0\n', b"\n", b'"', b"\0", b"#"]),
)
MANY = settings(max_examples=120 * ROUNDS)


def edits(name: str) -> st.SearchStrategy[list[tuple[int, bytes]]]:
    places = [place for offset, length in HEADERS[name] for place in range(offset, offset + length)]
    return st.lists(st.tuples(st.sampled_from(places), VALUES), min_size=1, max_size=4)


#: a format and changes of a good image of it
CHANGES = st.sampled_from(list(DRIVERS)).flatmap(lambda name: st.tuples(st.just(name), edits(name)))


@functools.cache
def original(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return create(pathlib.Path(directory) / "image", DRIVERS[name], "4M").read_bytes()


def check(data: bytes, size: int, declared: str) -> None:
    """Inspect a file of `size` bytes that begins with `data`, and its head: nothing but DownloadError, few reads."""
    counts: list[int] = []
    pread = os.pread

    def counting(descriptor: int, count: int, offset: int) -> bytes:
        counts.append(count)
        return pread(descriptor, count, offset)

    descriptor = os.memfd_create("image")
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, size)
        with pytest.MonkeyPatch.context() as patching, contextlib.suppress(DownloadError):
            patching.setattr(os, "pread", counting)
            images.inspect(descriptor, size, declared)
    finally:
        os.close(descriptor)
    assert len(counts) <= 100
    assert sum(counts) <= reader.MAX_READ_BYTES
    for total in (size, None):
        with contextlib.suppress(DownloadError):
            images.inspect_head(data[:HEAD_BYTES], total, declared)


def changed(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    image = bytearray(data)
    for offset, value in changes:
        start = offset % len(image)
        image[start : start + len(value)] = value
    return bytes(image[: len(data)])


def sealed(name: str, image: bytes) -> bytes:
    """The image with its checksums corrected, and its second footer the same as the first."""
    data = bytearray(image)
    if name == "VHD":
        seal_vhd(data, 0, 512, 64)
        seal_vhd(data, 512, 1024, 36)
        data[-512:] = data[:512]
    if name == "VHDX":
        for offset, length in ((64 * 1024, 4096), (128 * 1024, 4096), (192 * 1024, 64 * 1024)):
            seal_vhdx(data, offset, length)
    return bytes(data)


MAGICS = [b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\2", b"KDMV", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n", b""]


@MANY
@given(
    magic=st.sampled_from(MAGICS),
    body=st.binary(max_size=3000),
    size=st.integers(0, 5000) | st.integers(0, 2**40),
    declared=st.sampled_from(FORMATS),
)
def test_random_bytes_behind_a_magic(magic: bytes, body: bytes, size: int, declared: str) -> None:
    check(magic + body, size, declared)


@MANY
@given(change=CHANGES, seal=st.booleans(), cut=st.none() | st.integers(0, 10**7), declare=st.booleans())
def test_a_damaged_image_is_refused_or_inspected(
    change: tuple[str, list[tuple[int, bytes]]], seal: bool, cut: int | None, declare: bool
) -> None:
    name, changes = change
    image = changed(original(name), changes)
    if seal:
        image = sealed(name, image)
    image = image[: len(image) if cut is None else cut % len(image)]
    check(image, len(image), name if declare else "")


@pytest.mark.parametrize("name", DRIVERS)
def test_every_byte_of_the_headers_is_damaged_once(name: str) -> None:
    image = original(name)
    # the checksums of VHDX are slow to compute, and leave few ways through
    step = 9 if name == "VHDX" else 1
    for start, length in HEADERS[name]:
        for offset in range(start, start + length, step):
            check(changed(image, [(offset, bytes([image[offset] ^ 0x81]))]), len(image), name)


@MANY
@given(change=CHANGES)
def test_what_is_accepted_is_for_qemu_the_same_disk_without_other_files(
    change: tuple[str, list[tuple[int, bytes]]],
) -> None:
    name, changes = change
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "image"
        path.write_bytes(sealed(name, changed(original(name), changes)))
        try:
            found = inspect(path, name)
        except DownloadError:
            return
        known = info(path, DRIVERS[name])
        if known is None:
            return
        details = known.get("format-specific", {}).get("data", {})
        assert "backing-filename" not in known
        assert "data-file" not in details
        assert [extent["filename"] for extent in details.get("extents", [])] in ([], [str(path)])
        assert found.virtual_size_bytes is not None
        assert known["virtual-size"] == found.virtual_size_bytes // 512 * 512
