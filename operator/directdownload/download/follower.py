"""Hashing the bytes of a transfer in their order, while it runs.

Called by the transfer. What is written just where the hashing will be next is handed over in memory; everything else
(what an earlier attempt left, what another connection wrote farther on) is read back from the file when its turn comes.
With the hashes of pieces (metalink) a bad piece is noticed at its end, and hashing goes back to its beginning.
"""

import collections
import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable

from directdownload.download.checksum import Hasher
from directdownload.download.errors import StorageError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.writer import new_buffer
from directdownload.resources.checksum import Algorithm
from directdownload.resources.reasons import Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Pieces:
    """The hex digests of all pieces of `length_bytes` bytes each; the last one may be shorter, up to `size_bytes`."""

    algorithm: Algorithm
    length_bytes: int
    digests: tuple[str, ...]
    size_bytes: int

    def end_of(self, position: int) -> int:
        """Where the piece that holds the byte at `position` ends."""
        return min(self.size_bytes, (position // self.length_bytes + 1) * self.length_bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class _Span:
    """Bytes that are next: in memory, or on disk if there is no buffer."""

    start: int
    end: int
    buffer: memoryview | None = None


class Follower:
    """Hashes `descriptor` in a thread of its own; `verified_bytes` says how far, whole pieces only where there are any.

    `release` takes back a buffer that was handed over. `bad_piece(start, end)` is told of a piece that is not as it
    should be, and must `rewind` to its start; then its bytes, and all behind them, are to be offered once more.
    """

    def __init__(
        self,
        hasher: Hasher,
        descriptor: int,
        guard: Guard,
        *,
        release: Callable[[memoryview], None],
        pieces: Pieces | None = None,
        bad_piece: Callable[[int, int], None] = lambda _start, _end: None,
    ) -> None:
        self._hasher = hasher
        self._descriptor = descriptor
        self._caller = guard
        self._release = release
        self._pieces = pieces
        self._bad_piece = bad_piece
        self._changed = threading.Condition()
        self._queue: collections.deque[_Span] = collections.deque()
        self._tail = 0
        self._ended = False
        self._cancelled = threading.Event()
        self._guard = Guard(self._cancelled)
        self._spare = new_buffer()
        self._failure: Exception | None = None
        self.verified_bytes = 0
        #: offered without a buffer, and not read back yet
        self.unread_bytes = 0
        #: hashed, and no bad piece among them
        self._passed_bytes = 0
        self._snapshot = hasher.copy()
        self._piece = self._hash_of_a_piece()
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    @property
    def tail(self) -> int:
        """Where the next bytes in order begin."""
        return self._tail

    def offer(self, start: int, end: int, buffer: memoryview | None) -> None:
        """The bytes from `tail` on are on disk, the first of them still in `buffer`; what was offered is skipped."""
        with self._changed:
            if self._cancelled.is_set() or end <= self._tail or start > self._tail:
                if buffer is not None:
                    self._release(buffer)
                return
            if start < self._tail and buffer is not None:
                # begins with what was offered already: rare, so it is read back
                self._release(buffer)
                buffer = None
            self._queue.append(_Span(self._tail, end, buffer))
            if buffer is None:
                self.unread_bytes += end - self._tail
            self._tail = end
            self._changed.notify_all()

    def rewind(self, start: int) -> None:
        """Nothing at or behind `start` counts as offered any more."""
        with self._changed:
            self._drop_queue()
            self._tail = min(self._tail, start)
            self._changed.notify_all()

    def wait(self, beyond: int, seconds: float = TICK_SECONDS) -> bool:
        """Whether more than `beyond` bytes are verified; waits a moment for it. False for good once it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: self.verified_bytes > beyond or self._stopped, seconds) and (
                self.verified_bytes > beyond
            )

    def raise_failure(self) -> None:
        if isinstance(self._failure, OSError):
            raise StorageError(Reason.WRITE_FAILED, f"cannot read back what is on disk: {self._failure.strerror}")
        if self._failure is not None:
            raise self._failure

    def settle(self) -> bool:
        """Wait until everything that was offered is hashed: True then; False if a bad piece turned up meanwhile."""
        with self._changed:
            tail = self._tail
        while True:
            with self._changed:
                if self._changed.wait_for(
                    lambda: self._stopped or self._tail < tail or self._passed_bytes >= tail, TICK_SECONDS
                ):
                    break
            self._caller.check()
        self.raise_failure()
        return self._passed_bytes >= tail

    def finish(self) -> Hasher:
        """After `settle`: the digests."""
        self.cancel()
        self.raise_failure()
        return self._hasher

    def cancel(self) -> None:
        """End; needed in every case, harmless when done twice."""
        self._cancelled.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()
        self._drop_queue()
        self._spare = memoryview(b"")

    @property
    def _stopped(self) -> bool:
        return self._ended or self._cancelled.is_set()

    def _run(self) -> None:
        try:
            while (span := self._next()) is not None:
                if span.buffer is None:
                    self._read_back(span)
                    continue
                try:
                    self._consume(span.buffer[: span.end - span.start])
                finally:
                    self._release(span.buffer)
        except Exception as error:  # raised again by whoever waits for this thread
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _next(self) -> _Span | None:
        with self._changed:
            while not self._cancelled.is_set():
                if self._queue:
                    return self._queue.popleft()
                self._changed.wait()
        return None

    def _read_back(self, span: _Span) -> None:
        position = span.start
        while position < span.end and not self._cancelled.is_set():
            block = self._spare[: min(len(self._spare), span.end - position)]
            count = os.preadv(self._descriptor, [block], position)
            if not count:
                raise StorageError(Reason.WRITE_FAILED, "the part is shorter than what was written to it")
            position += count
            with self._changed:
                self.unread_bytes -= count
            if not self._consume(block[:count]):
                return

    def _consume(self, data: memoryview) -> bool:
        """Hash; False if a bad piece ended in it, and hashing has gone back."""
        while data:
            position = self._hasher.bytes_hashed
            count = len(data) if self._pieces is None else min(len(data), self._pieces.end_of(position) - position)
            self._hasher.update(data[:count])
            if self._pieces is not None:
                self._piece.update(data[:count])
                ends = position + count == self._pieces.end_of(position)
                if ends and not self._piece_is_good(self._pieces, position):
                    return False
            data = data[count:]
        with self._changed:
            self._passed_bytes = self._hasher.bytes_hashed
            if self._pieces is None:
                self.verified_bytes = self._passed_bytes
            self._changed.notify_all()
        return True

    def _piece_is_good(self, pieces: Pieces, position: int) -> bool:
        found, self._piece = self._piece.hexdigest(), self._hash_of_a_piece()
        index = position // pieces.length_bytes
        if found == pieces.digests[index]:
            self._snapshot = self._hasher.copy()
            self.verified_bytes = self._hasher.bytes_hashed
            return True
        start, end = index * pieces.length_bytes, pieces.end_of(position)
        self._hasher = self._snapshot.copy()
        self._passed_bytes = min(self._passed_bytes, start)
        self._bad_piece(start, end)
        return False

    def _hash_of_a_piece(self) -> "hashlib._Hash":
        algorithm = self._pieces.algorithm if self._pieces is not None else Algorithm.SHA256
        return hashlib.new(algorithm.value, usedforsecurity=False)

    def _drop_queue(self) -> None:
        while self._queue:
            span = self._queue.popleft()
            if span.buffer is not None:
                self._release(span.buffer)
        self.unread_bytes = 0
