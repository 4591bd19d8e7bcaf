"""Hashing the bytes of a running transfer in their order.

Called by the transfer. Bytes written where the hashing continues are passed in memory; all others (of an earlier
attempt, or written further on by another connection) are read back from the file when their turn comes. With the hashes
of pieces (metalink) a bad piece is detected at its end, and hashing goes back to its beginning.
"""

import collections
import dataclasses
import errno
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable

from directdownload.download.checksum import Hasher, Pieces
from directdownload.download.errors import ReleasedError, StorageError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.store.writer import ALIGNMENT_BYTES, new_buffer
from directdownload.resources.checksum import Algorithm
from directdownload.resources.reasons import Reason

_READ_AHEAD = 4


@dataclasses.dataclass(frozen=True, slots=True)
class _Span:
    """The next bytes: in memory, or on disk if there is no buffer."""

    start: int
    end: int
    buffer: memoryview | None = None


class Follower:
    """Hashes `descriptor` in its own thread, up to `verified_bytes`: with `pieces` whole pieces only.

    `direct` is the same file opened past the page cache, which the follower then owns; None where that is impossible.
    `pieces` are those of a file of `size_bytes`. `release` takes back a buffer that was passed in. The follower calls
    `bad_piece(start, end)` for a piece with a wrong hash; the callee must `rewind` to its start, and offer its bytes
    and all after them again. It calls `passed(hasher, verified_bytes)` after each block that it hashed.
    """

    def __init__(
        self,
        hasher: Hasher,
        descriptor: int,
        direct: int | None,
        guard: Guard,
        *,
        release: Callable[[memoryview], None],
        pieces: Pieces | None = None,
        size_bytes: int = 0,
        bad_piece: Callable[[int, int], None] = lambda _start, _end: None,
        passed: Callable[[Hasher, int], None] | None = None,
    ) -> None:
        self._hasher = hasher
        self._descriptor = descriptor
        self._caller = guard
        self._release = release
        self._pieces = pieces
        self._size_bytes = size_bytes
        self._bad_piece = bad_piece
        self._passed = passed
        self._changed = threading.Condition()
        self._queue: collections.deque[_Span] = collections.deque()
        self._tail = 0
        self._ended = False
        self._cancelled = threading.Event()
        self._guard = Guard(self._cancelled)
        self._direct = direct
        self._spares = [new_buffer() for _ in range(_READ_AHEAD)]
        self._failure: Exception | None = None
        self.verified_bytes = 0
        #: offered without a buffer and not yet read back
        self.unread_bytes = 0
        #: of the bytes that are being read back, or were last
        self.read_bytes_per_second = 0.0
        #: hashed, and no bad piece among them
        self._passed_bytes = 0
        self._snapshot = hasher.copy()
        self._piece = self._hash_of_a_piece()
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    @property
    def tail(self) -> int:
        """The offset of the next bytes in order."""
        return self._tail

    def offer(self, start: int, end: int, buffer: memoryview | None) -> None:
        """Offer bytes on disk from `tail` on, the first ones also in `buffer`. Bytes offered before are skipped."""
        with self._changed:
            if self._cancelled.is_set() or end <= self._tail or start > self._tail:
                if buffer is not None:
                    self._release(buffer)
                return
            if start < self._tail and buffer is not None:
                # begins with bytes that were offered before: rare, so it is read back
                self._release(buffer)
                buffer = None
            if buffer is None and self._queue and self._queue[-1].buffer is None:
                # one long span reads faster than many
                self._queue.append(_Span(self._queue.pop().start, end))
            else:
                self._queue.append(_Span(self._tail, end, buffer))
            if buffer is None:
                self.unread_bytes += end - self._tail
            self._tail = end
            self._changed.notify_all()

    def rewind(self, start: int) -> None:
        """Forget all offers at or after `start`."""
        with self._changed:
            self._drop_queue()
            self._tail = min(self._tail, start)
            self._changed.notify_all()

    def spill(self) -> None:
        """Give back the buffers of all that waits: it is read back when its turn comes."""
        with self._changed:
            waiting = list(self._queue)
            self._queue.clear()
            for span in waiting:
                if span.buffer is not None:
                    self._release(span.buffer)
                    self.unread_bytes += span.end - span.start
            if waiting:
                self._queue.append(_Span(waiting[0].start, waiting[-1].end))

    def wait(self, beyond: int, seconds: float = TICK_SECONDS) -> bool:
        """Whether more than `beyond` bytes are verified; waits up to `seconds`. Always False once it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: self.verified_bytes > beyond or self._stopped, seconds) and (
                self.verified_bytes > beyond
            )

    def raise_failure(self) -> None:
        if isinstance(self._failure, OSError):
            raise StorageError(Reason.WRITE_FAILED, f"cannot read back the part: {self._failure.strerror}")
        if self._failure is not None:
            raise self._failure

    def settle(self) -> bool:
        """Wait until all offered bytes are hashed: then True; False if a bad piece was found meanwhile."""
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
        """The digests, after `settle`."""
        self.cancel()
        self.raise_failure()
        return self._hasher

    def cancel(self) -> None:
        """End the thread. Always required; idempotent."""
        self._cancelled.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()
        self._drop_queue()
        self._close_direct()
        self._spares = []

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
        except Exception as error:  # the thread that waits for this one raises it again
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
        """Read `span` back in a thread that stays a few blocks ahead of the hashing."""
        free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        read: queue.SimpleQueue[memoryview | Exception] = queue.SimpleQueue()
        for spare in self._spares:
            free.put(spare)
        reader = threading.Thread(target=self._read_ahead, args=(span, free, read), name="read", daemon=True)
        reader.start()
        try:
            position, turn, began = span.start, 0, time.monotonic()
            while position < span.end and not self._cancelled.is_set():
                block = read.get()
                if isinstance(block, Exception):
                    if self._cancelled.is_set():
                        return
                    raise block
                position += len(block)
                with self._changed:
                    self.unread_bytes -= len(block)
                self.read_bytes_per_second = (position - span.start) / max(1e-6, time.monotonic() - began)
                if not self._consume(block):
                    return
                # they return in the order in which they were lent
                free.put(self._spares[turn])
                turn = (turn + 1) % len(self._spares)
        finally:
            free.put(None)
            reader.join()

    def _read_ahead(
        self,
        span: _Span,
        free: "queue.SimpleQueue[memoryview | None]",
        read: "queue.SimpleQueue[memoryview | Exception]",
    ) -> None:
        position = span.start
        try:
            while position < span.end and (buffer := free.get()) is not None and not self._cancelled.is_set():
                block = self._read(buffer, position, span.end)
                if not block:
                    raise StorageError(Reason.WRITE_FAILED, "the part is shorter than the bytes written to it")
                position += len(block)
                read.put(block)
        except Exception as error:  # the thread that waits for the block raises it again
            read.put(error)
        else:
            if position < span.end:
                # no thread may wait for a block for ever
                read.put(ReleasedError(Reason.INTERRUPTED, "reading back was stopped"))

    def _read(self, buffer: memoryview, start: int, end: int) -> memoryview:
        """The next bytes, at most a block; past the page cache where possible, as they are needed only once."""
        beside = start % ALIGNMENT_BYTES
        if self._direct is not None and not beside:
            try:
                return buffer[: min(os.preadv(self._direct, [buffer], start), end - start)]
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._close_direct()
        block = buffer[: min(ALIGNMENT_BYTES - beside if beside else len(buffer), end - start)]
        return block[: os.preadv(self._descriptor, [block], start)]

    def _close_direct(self) -> None:
        direct, self._direct = self._direct, None
        if direct is not None:
            os.close(direct)

    def _consume(self, data: memoryview) -> bool:
        """Hash `data`; False if a bad piece ended in it and hashing went back."""
        while data:
            position = self._hasher.bytes_hashed
            count = len(data)
            if self._pieces is not None:
                count = min(count, self._end_of_piece(self._pieces, position) - position)
            self._hasher.update(data[:count])
            if self._pieces is not None:
                self._piece.update(data[:count])
                ends = position + count == self._end_of_piece(self._pieces, position)
                if ends and not self._piece_is_good(self._pieces, position):
                    return False
            data = data[count:]
        with self._changed:
            self._passed_bytes = self._hasher.bytes_hashed
            if self._pieces is None:
                self.verified_bytes = self._passed_bytes
            self._changed.notify_all()
        if self._passed is not None:
            self._passed(self._hasher, self.verified_bytes)
        return True

    def _piece_is_good(self, pieces: Pieces, position: int) -> bool:
        found, self._piece = self._piece.digest(), self._hash_of_a_piece()
        index = position // pieces.length_bytes
        if found == pieces.digest(index):
            self._snapshot = self._hasher.copy()
            self.verified_bytes = self._hasher.bytes_hashed
            return True
        start, end = index * pieces.length_bytes, self._end_of_piece(pieces, position)
        self._hasher = self._snapshot.copy()
        self._passed_bytes = min(self._passed_bytes, start)
        self._bad_piece(start, end)
        return False

    def _end_of_piece(self, pieces: Pieces, position: int) -> int:
        """The end of the piece that contains the byte at `position`."""
        return min(self._size_bytes, (position // pieces.length_bytes + 1) * pieces.length_bytes)

    def _hash_of_a_piece(self) -> "hashlib._Hash":
        algorithm = self._pieces.algorithm if self._pieces is not None else Algorithm.SHA256
        return hashlib.new(algorithm.value, usedforsecurity=False)

    def _drop_queue(self) -> None:
        while self._queue:
            span = self._queue.popleft()
            if span.buffer is not None:
                self._release(span.buffer)
        self.unread_bytes = 0
