"""Hashing in order behind a transfer: from memory, from the file, and back to the beginning of a bad piece."""

import hashlib
import os
import pathlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.download.support import content

from directdownload.download.checksum import Hasher, Pieces
from directdownload.download.errors import StorageError
from directdownload.download.guard import Guard
from directdownload.download.store.writer import new_buffer, open_direct
from directdownload.download.transfer.follower import Follower
from directdownload.resources.checksum import Algorithm

MIB = 1024 * 1024
DATA = content(3 * MIB + 100)
DIGEST = hashlib.sha256(DATA).hexdigest()


def pieces_of(data: bytes, length_bytes: int) -> Pieces:
    parts = (data[start : start + length_bytes] for start in range(0, len(data), length_bytes))
    digests = (hashlib.sha1(part, usedforsecurity=False).digest() for part in parts)
    return Pieces(Algorithm.SHA1, length_bytes, b"".join(digests))


PIECES = pieces_of(DATA, MIB)


@pytest.fixture
def descriptor(tmp_path: pathlib.Path) -> Iterator[int]:
    file = tmp_path / "part"
    file.write_bytes(DATA)
    opened = os.open(file, os.O_RDWR)
    yield opened
    os.close(opened)


def follow(
    descriptor: int,
    released: "queue.SimpleQueue[memoryview] | None" = None,
    stop: threading.Event | None = None,
    hasher: Hasher | None = None,
    **pieces: Any,
) -> Follower:
    return Follower(
        hasher or Hasher(),
        descriptor,
        open_direct(descriptor, os.O_RDONLY),
        Guard(stop or threading.Event()),
        release=(released or queue.SimpleQueue[memoryview]()).put,
        **pieces,
    )


def filled(data: bytes) -> memoryview:
    buffer = new_buffer()
    buffer[: len(data)] = data
    return buffer


def test_what_comes_in_order_is_hashed_from_memory(tmp_path: pathlib.Path) -> None:
    """The file is empty: nothing could be read back."""
    released: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    with (tmp_path / "empty").open("w+b") as file:
        follower = follow(file.fileno(), released)
        for start in range(0, len(DATA), MIB):
            block = DATA[start : start + MIB]
            follower.offer(start, start + len(block), filled(block))
        assert follower.settle()
        assert follower.finish().digests()[Algorithm.SHA256].hexdigest == DIGEST
    assert released.qsize() == 4


def test_what_comes_out_of_order_is_read_back(descriptor: int) -> None:
    released: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    follower = follow(descriptor, released)
    # too far on: its bytes are on disk, and its buffer is wanted elsewhere
    follower.offer(2 * MIB, 3 * MIB, filled(b"not what is on disk"))
    assert released.qsize() == 1
    follower.offer(0, MIB, None)
    follower.offer(MIB, len(DATA), None)
    # again, and from the middle
    follower.offer(MIB, 2 * MIB, filled(DATA[MIB : 2 * MIB]))
    assert follower.settle()
    assert follower.verified_bytes == follower.tail == len(DATA)
    assert follower.finish().digests()[Algorithm.SHA256].hexdigest == DIGEST
    assert released.qsize() == 2


def test_a_bad_piece_goes_back_to_its_beginning(descriptor: int) -> None:
    os.pwrite(descriptor, b"bad", MIB + 7)
    told: list[tuple[int, int]] = []

    def bad_piece(start: int, end: int) -> None:
        told.append((start, end))
        follower.rewind(start)

    follower = follow(
        descriptor, hasher=Hasher([Algorithm.MD5]), pieces=PIECES, size_bytes=len(DATA), bad_piece=bad_piece
    )
    follower.offer(0, len(DATA), None)
    assert not follower.settle()
    assert told == [(MIB, 2 * MIB)]
    assert follower.tail == follower.verified_bytes == MIB
    os.pwrite(descriptor, DATA[MIB : 2 * MIB], MIB)
    follower.offer(MIB, 2 * MIB, None)
    follower.offer(2 * MIB, len(DATA), None)
    assert follower.settle()
    digests = follower.finish().digests()
    assert digests[Algorithm.SHA256].hexdigest == DIGEST
    assert digests[Algorithm.MD5].hexdigest == hashlib.md5(DATA, usedforsecurity=False).hexdigest()


def test_only_whole_good_pieces_are_verified(descriptor: int) -> None:
    follower = follow(descriptor, pieces=PIECES, size_bytes=len(DATA))
    follower.offer(0, MIB + 500_000, None)
    assert follower.settle()
    assert follower.verified_bytes == MIB
    assert follower.wait(0)
    assert not follower.wait(MIB, 0.01)
    follower.cancel()


def test_a_file_that_is_shorter_than_what_was_written_is_told(descriptor: int) -> None:
    follower = follow(descriptor, queue.SimpleQueue())
    follower.offer(0, len(DATA) + 1, None)
    with pytest.raises(StorageError, match="shorter"):
        follower.settle()
    follower.cancel()


def test_buffers_come_back_when_it_is_cancelled(descriptor: int) -> None:
    released: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    follower = follow(descriptor, released)
    follower.offer(0, MIB, None)
    follower.cancel()
    follower.offer(MIB, 2 * MIB, new_buffer())
    assert released.qsize() == 1


def test_many_pieces_take_time_in_proportion(tmp_path: pathlib.Path) -> None:
    """As many as a file of 64 GiB has in pieces of 1 MiB; the bytes of each cost the same."""

    def seconds(count: int) -> float:
        data = content(count * 1024)
        pieces = pieces_of(data, 1024)
        (tmp_path / "part").write_bytes(data)
        opened = os.open(tmp_path / "part", os.O_RDWR)
        try:
            began = time.process_time()
            follower = follow(opened, pieces=pieces, size_bytes=len(data))
            follower.offer(0, len(data), None)
            assert follower.settle()
            follower.finish()
            return time.process_time() - began
        finally:
            os.close(opened)

    assert seconds(65_536) < 3 * seconds(32_768)
