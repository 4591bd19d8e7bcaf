"""What goes wrong between the threads of one download: nothing is lost, mixed, or said too early."""

import gzip
import hashlib
import os
import pathlib
import socket
import threading
from typing import Any

import pytest
from tests.unit.download.support import content, deliver, fetch, leftovers, make_request, sha256
from tests.world.http import HostileServer, Received
from tests.world.origin import Origin
from tests.world.waiting import closely

from directdownload.download import archives, engine
from directdownload.download.checksum import Hasher, Pieces
from directdownload.download.errors import SourceError, chosen_failure
from directdownload.download.gathering import Progress
from directdownload.download.guard import Guard
from directdownload.download.store.sync import Sync
from directdownload.download.store.writer import Writer, open_direct
from directdownload.download.transfer.follower import Follower
from directdownload.download.transfer.journal import SOURCES_LIMIT
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.schedule import Board
from directdownload.resources.checksum import Algorithm
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
DATA = content(6 * MIB)


def test_what_is_being_written_is_nobody_elses_even_when_its_claim_is_taken_over() -> None:
    """A disk that stands still looks as a source that does: two writers of one place would leave either's bytes."""
    board = Board(20 * MIB, Ranges())
    stalled = board.take(0, 0, alone=True)
    assert stalled is not None
    assert board.receive(stalled, 0, MIB) == MIB
    for second in range(1, 8):
        stalled.rate.at(second, stalled.position)
    other = board.take(10, MIB, alone=False)
    assert other is not None
    assert (other.position, stalled.exhausted) == (MIB, True)
    assert board.receive(stalled, 10, MIB) == 0, "what comes later is not wanted"
    board.give_back(other)
    again = board.take(20, 0, alone=True)
    assert again is not None
    assert again.position == MIB
    board.advance(0, MIB)
    assert list(board.done) == [(0, MIB)]


def test_a_claim_that_was_taken_over_hides_no_other() -> None:
    board = Board(60 * MIB, Ranges())
    first, second = board.take(0, 0, alone=True), board.take(0, 0, alone=True)
    assert first is not None
    assert second is None or second.position
    first.end = first.position
    rest = board.take(0, 0, alone=True)
    assert rest is not None
    assert board.take(0.1, MIB, alone=False) is not None, "the rest is divided"


@pytest.mark.parametrize(
    ("theirs", "mine", "taken"), [(10_000, 10 * MIB, True), (10_000, 0, False), (10_000, 20_000, False)]
)
def test_the_little_that_a_slow_one_holds_is_for_a_much_faster_one(theirs: int, mine: int, taken: bool) -> None:
    board = Board(MIB, Ranges())
    slow = board.take(0, 0, alone=True)
    assert slow is not None
    deliver(board, slow, 4, 4 * theirs)
    fast = board.take(4, mine, alone=False)
    assert (fast is not None) is taken
    assert slow.exhausted is taken
    if fast is not None:
        assert (fast.position, fast.end) == (4 * theirs, MIB)
        assert board.take(4, mine, alone=False) is None, "nobody takes it away again"


def test_a_descriptor_is_not_closed_while_others_may_write_to_it(tmp_path: pathlib.Path) -> None:
    """Its number would be that of another file by then."""
    path = tmp_path / "part"
    with path.open("w+b") as file:
        before = set(os.listdir("/proc/self/fd"))
        writer = Writer(file.fileno(), str(path), open_direct(file.fileno(), os.O_WRONLY))
        opened = set(os.listdir("/proc/self/fd")) - before
        if not opened:
            pytest.skip("no direct writing on this file system")
        writer.use_page_cache()
        assert opened <= set(os.listdir("/proc/self/fd"))
        writer.write(memoryview(DATA[:MIB]), 0)
        writer.close()
        writer.close()
        assert not opened & set(os.listdir("/proc/self/fd"))
    assert path.read_bytes() == DATA[:MIB]


class BrokenHasher(Hasher):
    def update(self, data: memoryview) -> None:
        raise ValueError("not foreseen")


def test_what_nobody_foresaw_in_the_hashing_is_raised(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "part").open("w+b") as file:
        file.write(DATA)
        file.flush()
        follower = Follower(BrokenHasher(), file.fileno(), None, Guard(threading.Event()), release=lambda _buffer: None)
        follower.offer(0, len(DATA), None)
        with pytest.raises(ValueError, match="not foreseen"):
            follower.settle()
        follower.cancel()


def test_nothing_is_complete_before_its_last_piece_was_compared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told = threading.Event(), threading.Event()
    compare = Follower._piece_is_good

    def compare_late(follower: Follower, pieces: Pieces, position: int) -> bool:
        told.set()
        asked.wait(10)
        return compare(follower, pieces, position)

    class Watched(threading.Event):
        """Whoever waits for the hashing looks at its guard when it has waited for a moment."""

        def is_set(self) -> bool:
            asked.set()
            return False

    monkeypatch.setattr(Follower, "_piece_is_good", compare_late)
    pieces = Pieces(Algorithm.SHA256, len(DATA), bytes(32))
    with (tmp_path / "part").open("w+b") as file:
        file.write(DATA)
        file.flush()
        follower = Follower(
            Hasher(),
            file.fileno(),
            None,
            Guard(Watched()),
            release=lambda _buffer: None,
            pieces=pieces,
            size_bytes=len(DATA),
            bad_piece=lambda start, _end: follower.rewind(start),
        )
        follower.offer(0, len(DATA), None)
        assert told.wait(10)
        assert not follower.settle()
        follower.cancel()


class BrokenDecompressor:
    needs_input = True
    ignored_bytes = 0

    def decompress(self, data: bytes, _limit_bytes: int) -> bytes:
        raise RuntimeError(f"not foreseen with {len(data)} bytes")


def test_what_nobody_foresaw_in_the_unpacking_publishes_nothing(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served / "image.gz").write_bytes(gzip.compress(DATA, 1))
    monkeypatch.setattr(archives, "create", lambda _kind: BrokenDecompressor())
    request = make_request(pool, origin.url("image.gz"), image_format="RAW")
    result = engine.outcome(lambda: fetch(request), str)
    assert not result.done
    assert "not foreseen" in result.message
    assert "uid-1" not in leftovers(pool)


def test_whoever_shows_the_progress_and_fails_is_heard(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    (served / "image").write_bytes(DATA)

    shown: list[Progress] = []

    def show(progress: Progress) -> None:
        shown.append(progress)
        if len(shown) == 1:
            raise BrokenPipeError("nobody reads it")

    limits = Limits(progress_interval_seconds=0.05, bandwidth_bytes_per_second=12 * MIB)
    request = make_request(pool, origin.url("image"), limits=limits)
    with pytest.raises(BrokenPipeError):
        engine.fetch(request, stop=threading.Event(), progress=show)
    assert "uid-1" not in leftovers(pool)


def test_what_was_seen_before_a_restart_is_not_said_after_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal of bytes that are gone would be continued."""
    told: list[list[tuple[int, int]]] = []
    written = [Ranges([(0, 5)])]
    syncing, go_on = threading.Event(), threading.Event()

    def slow(_descriptor: int) -> None:
        syncing.set()
        go_on.wait(10)

    monkeypatch.setattr(os, "fdatasync", slow)
    with (tmp_path / "part").open("wb") as file:
        sync = Sync(
            file.fileno(),
            file.name,
            0.001,
            lambda: written[0].copy(),
            lambda ranges, _rate: told.append(list(ranges)),
            lambda _bytes, _rate: None,
        )
        sync.begin()
        assert syncing.wait(10)
        threading.Timer(0.2, go_on.set).start()
        with sync.paused():
            told.clear()
            written[0] = Ranges([(0, 1)])
        closely("it is told", lambda: told)
        sync.end(sync=True)
    assert {tuple(ranges) for ranges in told} == {((0, 1),)}


def test_more_sources_than_a_journal_names(pool: pathlib.Path) -> None:
    """Each gives a little and dies; what they gave is kept."""
    share = 64 * 1024
    count = SOURCES_LIMIT + 8
    data = DATA[: (count + 1) * share]

    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        low = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        status = f"206 Partial Content\r\nContent-Range: bytes {low}-{len(data) - 1}/{len(data)}" if low else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data) - low}\r\nAccept-Ranges: bytes\r\n\r\n"
        connection.sendall(head.encode() + data[low : low + share])

    with HostileServer(respond) as server:
        mirrors = tuple(server.url(f"{number}") for number in range(count))
        result = fetch(make_request(pool, server.url(), mirrors=mirrors, checksum=sha256(data)))
    assert result.done
    assert (pool / "uid-1").read_bytes() == data


def test_a_piece_that_is_bad_from_every_source_comes_to_an_end(
    origin: Origin, served: pathlib.Path, pool: pathlib.Path
) -> None:
    parts = [DATA[start : start + MIB] for start in range(0, len(DATA), MIB)]
    hashes = [hashlib.sha256(part).hexdigest() for part in parts]
    hashes[3] = "0" * 64
    for name in ("one", "two"):
        (served / name).write_bytes(DATA)
    (served / "image.meta4").write_text(
        f'<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="image"><size>{len(DATA)}</size>'
        f'<pieces length="{MIB}" type="sha-256">{"".join(f"<hash>{digest}</hash>" for digest in hashes)}</pieces>'
        f"<url>{origin.url('one')}</url><url>{origin.url('two')}</url></file></metalink>"
    )
    result = engine.outcome(lambda: fetch(make_request(pool, origin.url("image.meta4"))), str)
    assert (result.reason, result.done) == (Reason.CHECKSUM_MISMATCH, False)
    assert "uid-1" not in leftovers(pool)
    asked = [request for request in origin.wait_for_requests(3) if request.path != "/image.meta4"]
    assert len(asked) <= 4


def test_no_descriptor_and_no_thread_stays(origin: Origin, served: pathlib.Path, pool: pathlib.Path) -> None:
    (served / "image.gz").write_bytes(gzip.compress(DATA, 1))

    def run(number: int, **fields: Any) -> None:
        request = make_request(pool / str(number), origin.url("image.gz"), image_format="RAW", **fields)
        engine.outcome(lambda: fetch(request), str)

    run(0)
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    run(1)
    run(2, checksum=f"sha256:{'0' * 64}")
    run(3, mirrors=(origin.url("none"), origin.url("image.gz?again")))
    closely("the threads have ended", lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_the_failure_that_is_told_leaves_those_of_the_sources_as_they_are() -> None:
    failures = [SourceError(Reason.TRUNCATED, "cut off"), SourceError(Reason.SOURCE_REFUSED, "no")]
    for _ in range(2):
        assert chosen_failure(failures).message == "cut off (other sources: SourceRefused)"
    assert [failure.message for failure in failures] == ["cut off", "no"]
