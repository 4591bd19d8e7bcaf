"""What the tests of image inspection share: qemu-img, and what our inspection says of a file."""

import json
import os
import pathlib
import struct
import subprocess
from typing import Any

from directdownload.download import images
from directdownload.download.errors import DownloadError
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
HEAD_BYTES = 64 * 1024
SECRET = ("--object", "secret,id=key,data=abc123")


def qemu_img(*arguments: str | pathlib.Path) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def create(path: pathlib.Path, driver: str, size: str = "10M", *options: str) -> pathlib.Path:
    """A new image by qemu; `options` are those of -o."""
    qemu_img("create", "-q", *SECRET, "-f", driver, *(["-o", ",".join(options)] if options else []), path, size)
    return path


def info(path: pathlib.Path, driver: str) -> dict[str, Any] | None:
    """What qemu says of an image; None if it does not open it."""
    done = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", "-f", driver, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        return None
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def inspect(path: pathlib.Path, image_format: str, *, max_virtual_size_bytes: int = 0) -> images.ImageInfo:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        return images.inspect(descriptor, size, image_format, max_virtual_size_bytes=max_virtual_size_bytes)
    finally:
        os.close(descriptor)


def inspect_head(path: pathlib.Path, image_format: str) -> images.ImageInfo | None:
    with path.open("rb") as file:
        return images.inspect_head(file.read(HEAD_BYTES), path.stat().st_size, image_format)


def inspect_bytes(data: bytes, image_format: str, media_type: str | None = "") -> images.ImageInfo:
    descriptor = os.memfd_create("image")
    try:
        os.write(descriptor, data)
        return images.inspect(descriptor, len(data), image_format, media_type=media_type)
    finally:
        os.close(descriptor)


def refusal(path: pathlib.Path, image_format: str) -> tuple[Reason, str]:
    """Why a file is refused: reason and message."""
    try:
        found = inspect(path, image_format)
    except DownloadError as error:
        return error.reason, error.message
    raise AssertionError(f"accepted: {found}")


def patch(path: pathlib.Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def seal_vhd(data: bytearray, offset: int, length: int, checksum_at: int) -> None:
    """Correct the checksum of a footer or a header: the complement of the sum of all its other bytes."""
    block = data[offset : offset + length]
    block[checksum_at : checksum_at + 4] = bytes(4)
    struct.pack_into(">I", data, offset + checksum_at, ~sum(block) & 0xFFFFFFFF)


def seal_vhdx(data: bytearray, offset: int, length: int) -> None:
    """Correct the checksum of a header or a table: CRC-32C, its own four bytes taken as zero."""
    crc = 0xFFFFFFFF
    for byte in data[offset : offset + 4] + bytes(4) + data[offset + 8 : offset + length]:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    struct.pack_into("<I", data, offset + 4, crc ^ 0xFFFFFFFF)


def _crc_of_one(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_of_one(byte) for byte in range(256)]
