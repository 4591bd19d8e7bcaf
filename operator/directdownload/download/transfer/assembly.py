"""Assembling the part: writing, hashing and the journal.

Called by the transfer. Several threads put bytes in; `changed` is the lock of everything that they share, including the
board of the schedule. A ring of buffers bounds the memory, regardless of the size of the file.
"""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from directdownload.download.checksum import Hasher, Pieces
from directdownload.download.errors import DownloadError, StorageError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.settings import Setting
from directdownload.download.store import space
from directdownload.download.store.staging import Staging
from directdownload.download.store.sync import Sync
from directdownload.download.store.writequeue import WriteQueue
from directdownload.download.store.writer import Writer, new_buffer
from directdownload.download.terms import Limits
from directdownload.download.transfer import schedule
from directdownload.download.transfer.follower import Follower
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.unpack import Unpack
from directdownload.resources.checksum import Algorithm
from directdownload.resources.reasons import Reason

_BUFFERS = 12
_READ_BACK_BYTES = 4 * 1024 * 1024


class Recorder(Protocol):
    """Records the pieces of the file for other hosts (`peers.recorder`). It raises nothing."""

    def hasher(self, algorithms: Iterable[Algorithm]) -> Hasher:
        """That of the whole file, which goes over its pieces as well."""

    def resume(self, done: Ranges) -> None:
        """Only these bytes of an earlier attempt are there."""

    def size(self, size_bytes: int) -> None:
        """The size of the file is known."""

    def passed(self, hasher: Hasher, verified_bytes: int) -> None:
        """The hash has passed further bytes, which are on disk."""

    def end(self, hasher: Hasher) -> None:
        """The hash has passed the whole file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """Terms of a transfer from any sources; `size_bytes` and `pieces` are those of a metalink."""

    algorithms: tuple[Algorithm, ...]
    limits: Limits
    reserve: str
    size_bytes: int | None = None
    pieces: Pieces | None = None
    recorder: Recorder | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """The result of an earlier attempt: ranges, size of the file, and each source's version by the URL's digest."""

    done: Ranges = dataclasses.field(default_factory=Ranges)
    size_bytes: int | None = None
    validators: dict[str, str] = dataclasses.field(default_factory=dict)

    def fits(self, size_bytes: int | None) -> bool:
        """Whether it fits a file of this size (from a metalink); without a known size only a beginning fits."""
        size = self.size_bytes if size_bytes is None else size_bytes
        ranges = list(self.done)
        if size is None:
            return len(ranges) == 1 and ranges[0][0] == 0
        return bool(ranges) and ranges[-1][1] <= size and self.size_bytes in (None, size)


class Assembly:
    """Open from construction until `end`. `keep` and `report` are as for Sync; `bad_piece` as for Follower."""

    def __init__(
        self,
        staging: Staging,
        state: State,
        terms: Terms,
        guard: Guard,
        *,
        unpack: Unpack | None,
        bad_piece: Callable[[int, int], None],
        keep: Callable[[Ranges, int], None],
        report: Callable[[int, int], None],
    ) -> None:
        self.changed = threading.Condition()
        size = state.size_bytes if terms.size_bytes is None else terms.size_bytes
        self.board = schedule.Board(size, state.done.copy())
        self.resumed_from = state.done.total_bytes
        #: whether there is room for the file, so that its bytes may come
        self.prepared = False
        self._staging = staging
        self._terms = terms
        self._guard = guard
        self._unpack = unpack
        self._bad_piece = bad_piece
        self._writer = Writer(staging.part.descriptor, staging.part.path, staging.part.reopen())
        self._writes = WriteQueue(self._write)
        #: buffers are not kept for the hashing, which is busy with reading back
        self._spilling = False
        #: the size of the file was not known before its bytes came
        self._unmeasured = False
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(new_buffer())
        self._recorder = terms.recorder
        if self._recorder is not None:
            self._recorder.resume(state.done)
        self._follower = self._follow()
        interval = terms.limits.progress_interval_seconds
        self._sync = Sync(staging.part.descriptor, staging.part.path, interval, self._written, keep, report)

    def check(self) -> None:
        """Raise a failure of the background threads."""
        self._writes.check()
        self._sync.check()
        self._follower.raise_failure()
        if self._unpack is not None:
            self._unpack.check()

    def settle(self) -> bool:
        """Wait until all bytes that are present in order are hashed; False if a bad piece must be fetched again."""
        return self._follower.settle()

    def end(self, *, complete: bool) -> Hasher:
        """End, after the last `put`; return the digests if the file is complete. Idempotent."""
        self._writes.close()
        try:
            # publishing syncs a complete file
            self._sync.end(sync=not complete)
            hasher = self._follower.finish()
            if complete and self._recorder is not None:
                self._recorder.end(hasher)
            return hasher
        finally:
            self._follower.cancel()
            self._writer.close()
            # a stored error references all of this
            while not self._free.empty():
                self._free.get()

    @property
    def verified_bytes(self) -> int:
        """The first byte that the hash of the file has not passed."""
        return self._follower.verified_bytes

    def prepare(self, size: int | None, *, keep: bool = False) -> None:
        """Make room for a file of `size` bytes before its bytes come; None if unknown. Not under the lock.

        With `keep` the part has bytes that the caller will `accept`.
        """
        limits, staging = self._terms.limits, self._staging
        if size is not None and limits.max_size_bytes and size > limits.max_size_bytes:
            raise too_large(size, limits.max_size_bytes)
        if not (self.board.begun or keep):
            staging.empty()
        self._check_space(max(0, (size or 0) - staging.allocated_bytes))
        space.preallocate(staging.part.descriptor, size or 0, staging.part.path)
        self._unmeasured = size is None
        with self.changed:
            if size is not None:
                self.board.set_size(size)
            self.prepared = True
        if size is not None and self._recorder is not None:
            self._recorder.size(size)
        self._sync.begin()

    def begin_anew(self) -> None:
        """Forget all bytes. Not under the lock, and no other thread may put any."""
        self._writes.drain(self._guard)
        self._follower.cancel()
        with self._sync.paused():
            self._staging.empty()
            with self.changed:
                self.resumed_from = 0
                self.board = schedule.Board(self._terms.size_bytes, Ranges())
                self._follower = self._follow()

    def free_buffer(self, guard: Guard) -> memoryview:
        """Lend a buffer; waits while writing or hashing is behind by the whole ring. `put` returns it."""
        while True:
            self._writes.check()
            try:
                return self._free.get(timeout=TICK_SECONDS)
            except queue.Empty:
                guard.check()
                self._follower.raise_failure()
                self._choose()

    def _choose(self) -> None:
        """Whether connections go on while the hashing reads back the bytes of an earlier attempt.

        A slower network does: meanwhile it brings what is read back later, which costs less than waiting. A faster one
        waits: what it brought would have to be read back, beside its own writes.
        """
        with self.changed:
            follower = self._follower
            slower = self.board.bytes_per_second < follower.read_bytes_per_second
            if slower and follower.unread_bytes > _READ_BACK_BYTES:
                self._spilling = True
                follower.spill()

    def put(self, claim: schedule.Claim, buffer: memoryview, filled: int, delivered: Ranges) -> None:
        """Take the first `filled` bytes of a buffer for the claim's position, and add their range to `delivered`."""
        with self.changed:
            start = claim.position
            end = start + self.board.receive(claim, time.monotonic(), filled)
            delivered.add(start, end)

        def report(written: bool) -> None:
            if written:
                self._advance(start, end, buffer)
            else:
                self._free.put(buffer)
                with self.changed:
                    self.changed.notify_all()

        self._writes.put(buffer[: end - start], start, report)
        limit = self._terms.limits.max_size_bytes
        if limit and end > limit:
            raise too_large(end, limit)

    def write(self, buffer: memoryview, filled: int, position: int, report: Callable[[], None]) -> None:
        """Write the first `filled` bytes of a buffer; they count only once they are accepted.

        `report` is called from another thread as soon as they are written, or will not be.
        """

        def written(_done: bool) -> None:
            self._free.put(buffer)
            report()

        self._writes.put(buffer[:filled], position, written)

    def give(self, buffer: memoryview) -> None:
        """Take back a buffer of which nothing is to be written."""
        self._free.put(buffer)

    def accept(self, start: int, end: int) -> None:
        """Count bytes that are on disk and verified. Under the lock."""
        self.board.advance(start, end)
        tail = self._follower.tail
        self._follower.offer(tail, self.board.done.end_from(tail), None)
        self.changed.notify_all()

    def check_writes(self) -> None:
        """Raise a failure of writing."""
        self._writes.check()

    def _write(self, data: memoryview, position: int) -> None:
        self._writer.write(data, position)
        if self._unmeasured:
            self._check_space(0)

    def _advance(self, start: int, end: int, buffer: memoryview) -> None:
        with self.changed:
            self.board.advance(start, end)
            self._spilling = self._spilling and self._follower.unread_bytes > _READ_BACK_BYTES
            if self._spilling:
                self._free.put(buffer)
                self._follower.offer(start, end, None)
            else:
                self._follower.offer(start, end, buffer)
            # bytes that others wrote further on may now be next
            tail = self._follower.tail
            self._follower.offer(tail, self.board.done.end_from(tail), None)
            if self.board.complete:
                self.changed.notify_all()

    def forget_piece(self, start: int, end: int) -> None:
        """Mark these bytes as missing again. Under the lock, from within `bad_piece`."""
        self.board.done.remove(start, end)
        self._follower.rewind(start)
        self.changed.notify_all()

    def _check_space(self, needed_bytes: int) -> None:
        space.check_space(self._staging.part.descriptor, self._staging.directory, needed_bytes, self._terms.reserve)

    def _written(self) -> Ranges:
        with self.changed:
            return self.board.done.copy()

    def _follow(self) -> Follower:
        recorder, algorithms = self._recorder, self._terms.algorithms
        follower = Follower(
            recorder.hasher(algorithms) if recorder is not None else Hasher(algorithms),
            self._staging.part.descriptor,
            self._staging.part.reopen(),
            self._guard,
            release=self._free.put,
            pieces=self._terms.pieces,
            size_bytes=self._terms.size_bytes or 0,
            bad_piece=self._bad_piece,
            passed=recorder.passed if recorder is not None else None,
        )
        follower.offer(0, self.board.done.end_from(0), None)
        if self._unpack is not None:
            self._unpack.follow(follower, self._writer)
        return follower


def too_large(size_bytes: int, max_size_bytes: int) -> DownloadError:
    return StorageError(
        Reason.TOO_LARGE,
        f"the file has {size_bytes} bytes or more, at most {max_size_bytes} are allowed ({Setting.MAX_SIZE})",
    )
