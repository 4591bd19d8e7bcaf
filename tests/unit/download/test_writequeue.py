"""Blocks that are written behind the connections."""

import functools
import os
import pathlib
import threading
from typing import Any

import pytest
from tests.unit.download.support import content, fetch, make_request, sha256
from tests.world.origin import Origin

from directdownload.download.errors import StoppedError, StorageError
from directdownload.download.guard import Guard
from directdownload.download.store.staging import StagedFile
from directdownload.download.store.writequeue import WriteQueue
from directdownload.download.store.writer import Writer
from directdownload.download.transfer.assembly import Assembly
from directdownload.download.transfer.output import Output
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.schedule import Board
from directdownload.download.transfer.supplier import Connection
from directdownload.resources.checksum import Algorithm
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
DATA = content(8 * MIB)
BLOCK = memoryview(b"x")
PATIENCE_SECONDS = 20


def guard() -> Guard:
    return Guard(threading.Event())


def test_several_are_written_at_once_and_reported_in_the_order_in_which_they_came() -> None:
    second_ended, reported = threading.Event(), list[int]()

    def write(_data: memoryview, position: int) -> None:
        if position == 0:
            assert second_ended.wait(PATIENCE_SECONDS), "the second waits for the first"
        else:
            second_ended.set()

    def note(position: int, written: bool) -> None:
        assert written
        reported.append(position)

    queue = WriteQueue(write)
    for position in range(6):
        queue.put(BLOCK, position, functools.partial(note, position))
    queue.drain(guard())
    queue.close()
    assert reported == [0, 1, 2, 3, 4, 5]


def test_after_a_failure_nothing_is_written_and_each_block_is_given_back() -> None:
    begun, failed, written, reported = threading.Event(), threading.Event(), list[int](), list[bool]()
    problem = StorageError(Reason.WRITE_FAILED, "the disk is gone")

    def write(_data: memoryview, position: int) -> None:
        assert begun.wait(PATIENCE_SECONDS)
        if position == 0:
            failed.set()
            raise problem
        assert failed.wait(PATIENCE_SECONDS)
        written.append(position)

    queue = WriteQueue(write)
    for position in range(8):
        queue.put(BLOCK, position, reported.append)
    begun.set()
    with pytest.raises(StorageError, match="the disk is gone"):
        queue.drain(guard())
    queue.close()
    with pytest.raises(StorageError):
        queue.check()
    assert len(reported) == 8
    assert reported.count(True) == len(written) <= 1, "one was on its way beside the first"


def test_a_report_that_fails_is_a_failure_too() -> None:
    def report(_written: bool) -> None:
        raise MemoryError

    queue = WriteQueue(lambda _data, _position: None)
    queue.put(BLOCK, 0, report)
    queue.close()
    with pytest.raises(MemoryError):
        queue.check()


def test_who_waits_for_a_disk_that_stands_still_can_be_stopped() -> None:
    released, stop = threading.Event(), threading.Event()

    def write(_data: memoryview, _position: int) -> None:
        released.wait(PATIENCE_SECONDS)

    queue = WriteQueue(write)
    queue.put(BLOCK, 0, lambda _written: None)
    stop.set()
    with pytest.raises(StoppedError):
        queue.drain(Guard(stop))
    released.set()
    queue.close()


def test_a_queue_without_blocks_ends_at_once() -> None:
    queue = WriteQueue(lambda _data, _position: None)
    queue.drain(guard())
    queue.close()
    queue.close()


class Disk:
    """Writes nothing until so many blocks were taken from connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
        self.opened = 0
        self._wanted, self._moves = blocks, threading.Event()
        write, put, start = Writer.write, Assembly.put, Connection.start

        def held(*arguments: Any) -> None:
            assert self._moves.wait(PATIENCE_SECONDS), "nothing is received while the disk writes"
            write(*arguments)

        def counted(*arguments: Any) -> None:
            put(*arguments)
            self._wanted -= 1
            if not self._wanted:
                self._moves.set()

        def opened(*arguments: Any) -> None:
            self.opened += 1
            start(*arguments)

        monkeypatch.setattr(Writer, "write", held)
        monkeypatch.setattr(Assembly, "put", counted)
        monkeypatch.setattr(Connection, "start", opened)


def test_one_connection_receives_while_earlier_blocks_wait_for_the_disk(
    tmp_path: pathlib.Path, served: pathlib.Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served / "image").write_bytes(DATA)
    disk = Disk(monkeypatch, blocks=len(DATA) // MIB)
    pool = tmp_path / "pool"
    request = make_request(pool, origin.url("image"), checksum=sha256(DATA), limits=Limits(connections=1))
    assert fetch(request).done
    assert (pool / "uid-1").read_bytes() == DATA
    assert disk.opened == 1, "no connection is opened for bytes that are on their way to the disk"


def test_bytes_on_their_way_to_the_disk_are_neither_done_nor_missing() -> None:
    board = Board(2 * MIB, Ranges())
    claim = board.take(0, 0, alone=True)
    assert claim is not None
    assert not board.begun
    board.receive(claim, 1, 2 * MIB)
    board.give_back(claim)
    assert (board.begun, board.has_gap, board.complete, list(board.done)) == (True, False, False, [])
    board.advance(MIB, 2 * MIB)
    assert not board.complete
    board.advance(0, MIB)
    assert board.complete


def test_an_archive_goes_on_being_unpacked_while_its_blocks_wait_for_the_disk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves, write = threading.Event(), Writer.write

    def held(*arguments: Any) -> None:
        assert moves.wait(PATIENCE_SECONDS), "unpacking waits for the disk"
        write(*arguments)

    monkeypatch.setattr(Writer, "write", held)
    path = tmp_path / "out"
    file = StagedFile.of(str(path), os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    output = Output(file, guard())
    data = DATA[: 4 * MIB + 4321]
    for start in range(0, len(data), 300_000):
        output.put(data[start : start + 300_000])
    moves.set()
    assert str(output.finish().digests()[Algorithm.SHA256]) == sha256(data)
    output.close()
    file.close()
    assert path.read_bytes() == data
