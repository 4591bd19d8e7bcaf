"""Blocks of bytes at their place in a file, with holes for zeros."""

import errno
import os
import pathlib
import random

import pytest
from tests.unit.download.support import content

from directdownload.download.errors import StorageError
from directdownload.download.store import space
from directdownload.download.store.writer import Writer, new_buffer, open_direct
from directdownload.hostfiles import writing
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
HOLE = 64 * 1024


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "part"


def opened(path: pathlib.Path) -> tuple[int, Writer]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    return descriptor, Writer(descriptor, str(path), open_direct(descriptor, os.O_WRONLY))


def write_all(path: pathlib.Path, data: bytes, sizes: list[int]) -> None:
    descriptor, file = opened(path)
    buffer = new_buffer()
    position = 0
    for size in sizes:
        block = data[position : position + size]
        buffer[: len(block)] = block
        file.write(buffer[: len(block)], position)
        position += len(block)
    os.ftruncate(descriptor, len(data))
    file.close()
    os.close(descriptor)


@pytest.mark.parametrize("seed", range(10))
def test_what_was_written_is_what_is_read(path: pathlib.Path, seed: int) -> None:
    """Blocks of any length, aligned and not, full of bytes, of zeros, and of both."""
    chance = random.Random(seed)
    data = b"".join(
        chance.choice([bytes(size), chance.randbytes(size)])
        for size in [chance.choice([100, 4096, HOLE, 3 * HOLE, MIB]) for _ in range(20)]
    )
    sizes: list[int] = []
    while sum(sizes) < len(data):
        sizes.append(chance.choice([1, 4096, 5000, HOLE, MIB, MIB]))
    write_all(path, data, sizes)
    assert path.read_bytes() == data


def test_long_runs_of_zeros_are_holes_also_where_blocks_were_claimed(path: pathlib.Path) -> None:
    data = content(MIB) + bytes(3 * MIB) + content(MIB)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    space.preallocate(descriptor, len(data), str(path))
    os.close(descriptor)
    write_all(path, data, [MIB] * 5)
    assert path.read_bytes() == data
    assert path.stat().st_blocks * 512 <= 2 * MIB + HOLE


def test_zeros_replace_what_was_there(path: pathlib.Path) -> None:
    path.write_bytes(content(MIB))
    write_all(path, bytes(MIB), [MIB])
    assert path.read_bytes() == bytes(MIB)


def test_where_no_holes_can_be_zeros_are_written(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(content(MIB))
    monkeypatch.setattr(writing, "allocate", lambda *_arguments, **_options: False)
    write_all(path, bytes(MIB), [MIB])
    assert path.read_bytes() == bytes(MIB)
    assert path.stat().st_blocks * 512 >= MIB


def test_where_writing_past_the_page_cache_cannot_be_it_is_ordinary(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that wants more than 4 KiB of alignment."""
    data = content(2 * MIB)
    pwrite = os.pwrite

    def picky(descriptor: int, block: memoryview, position: int) -> int:
        if _is_direct(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, block, position)

    monkeypatch.setattr(os, "pwrite", picky)
    write_all(path, data, [MIB, MIB])
    assert path.read_bytes() == data


def _is_direct(descriptor: int) -> bool:
    flags = int(pathlib.Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0], 8)
    return bool(flags & os.O_DIRECT)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open("/dev/full", os.O_RDWR)
    try:
        with pytest.raises(StorageError) as caught:
            Writer(descriptor, "/dev/full", None).write(memoryview(content(1000)), 0)
    finally:
        os.close(descriptor)
    assert caught.value.reason is Reason.INSUFFICIENT_SPACE
