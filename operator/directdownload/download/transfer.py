"""Moving the bytes: one thread receives and writes, a second hashes, a third syncs and keeps the journal.

Called by the engine with an open stream and an open part. Memory is bounded by the ring of buffers whatever the size
of the file. When it ends, for whatever reason, what was written is synced and the journal says how far that is.
"""

import os
import queue
import threading
import time
from collections.abc import Callable

from directdownload.download import space
from directdownload.download.checksum import BLOCK_BYTES, Hasher
from directdownload.download.errors import DownloadError, StorageError, storage_error
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.sources import Stream
from directdownload.resources.reasons import Reason

_BUFFERS = 8
#: a slow source's bytes are written at least this often
_FILL_SECONDS = 0.25


class HashThread:
    """Hashes what is on disk already, then the buffers of the ring in the order in which they come."""

    def __init__(self, hasher: Hasher, descriptor: int, prefix_bytes: int, guard: Guard) -> None:
        self._hasher = hasher
        self._prefix_bytes = prefix_bytes
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(BLOCK_BYTES)))
        self._filled: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._guard = Guard(self._cancelled)
        self._caller = guard
        self._failure: OSError | DownloadError | None = None
        self._thread = threading.Thread(target=self._run, args=(descriptor, prefix_bytes), name="hash", daemon=True)
        self._thread.start()

    def wait_for_prefix(self, left_bytes: int) -> None:
        """Until at most `left_bytes` of what is on disk remain to be hashed."""
        while self._thread.is_alive() and self._hasher.bytes_hashed < self._prefix_bytes - left_bytes:
            self._caller.check()
            self._thread.join(TICK_SECONDS / 5)
        self._raise_failure()

    def free_buffer(self) -> memoryview:
        """A buffer to fill; waits while the hash is behind by the whole ring."""
        while True:
            try:
                return self._free.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._caller.check()
                self._raise_failure()

    def put(self, buffer: memoryview, count: int) -> None:
        """Hand over the first `count` bytes of a buffer, and the buffer with them."""
        self._filled.put((buffer, count))

    def finish(self) -> Hasher:
        """Wait until everything is hashed."""
        self._filled.put(None)
        while self._thread.is_alive():
            self._thread.join(TICK_SECONDS)
            self._caller.check()
        self._raise_failure()
        return self._hasher

    def cancel(self) -> None:
        """End without a result; needed in every case, harmless after `finish`."""
        self._cancelled.set()
        self._filled.put(None)
        self._thread.join()

    def _raise_failure(self) -> None:
        if isinstance(self._failure, OSError):
            raise StorageError(Reason.WRITE_FAILED, f"cannot read back what is on disk: {self._failure.strerror}")
        if self._failure is not None:
            raise self._failure

    def _run(self, descriptor: int, prefix_bytes: int) -> None:
        try:
            if self._hasher.hash_file(descriptor, prefix_bytes, self._guard) != prefix_bytes:
                raise StorageError(Reason.WRITE_FAILED, "the part is shorter than its journal says")
            while (item := self._filled.get()) is not None and not self._cancelled.is_set():
                buffer, count = item
                self._hasher.update(buffer[:count])
                self._free.put(buffer)
        except (OSError, DownloadError) as error:
            self._failure = error


class Sync:
    """Every interval: sync the part, then tell `keep` how far that is; more often, tell `report` what was written."""

    def __init__(
        self,
        descriptor: int,
        path: str,
        position: int,
        interval_seconds: float,
        keep: Callable[[int, int], None],
        report: Callable[[int, int], None],
    ) -> None:
        self._descriptor = descriptor
        self._path = path
        self.position = position
        self._interval_seconds = interval_seconds
        self._keep = keep
        self._report = report
        self._ended = threading.Event()
        self._failure: OSError | None = None
        self._rate = 0.0
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._failure is not None:
            raise storage_error(self._failure, self._path, "write")

    def end(self, *, sync: bool) -> None:
        """Stop; with `sync`, once more make everything durable and say so."""
        self._ended.set()
        self._thread.join()
        if sync and self._failure is None:
            self._step()
        self._report(self.position, int(self._rate))

    def _run(self) -> None:
        synced_at = rated_at = time.monotonic()
        rated_position = self.position
        tick = min(TICK_SECONDS, self._interval_seconds) or TICK_SECONDS
        while not self._ended.wait(tick):
            now, position = time.monotonic(), self.position
            current = (position - rated_position) / (now - rated_at)
            # smoothed over some seconds, so that one slow tick does not look like a stall
            self._rate = current if not self._rate else self._rate + (current - self._rate) * min(1.0, tick / 2)
            rated_at, rated_position = now, position
            self._report(position, int(self._rate))
            if now - synced_at >= self._interval_seconds:
                self._step()
                if self._failure is not None:
                    return
                synced_at = time.monotonic()

    def _step(self) -> None:
        position = self.position
        try:
            os.fdatasync(self._descriptor)
            self._keep(position, int(self._rate))
        except OSError as error:
            self._failure = error


class TokenBucket:
    """At most `bytes_per_second` on average, with bursts of a tenth of a second; 0 means no limit."""

    def __init__(self, bytes_per_second: int, guard: Guard) -> None:
        self._rate = bytes_per_second
        self._guard = guard
        self._ready_at = time.monotonic()
        self.block_bytes = BLOCK_BYTES if not bytes_per_second else max(1, min(BLOCK_BYTES, bytes_per_second // 10))

    def take(self, count: int) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        self._ready_at = max(self._ready_at, now - 0.1) + count / self._rate
        if self._ready_at > now:
            self._guard.wait(self._ready_at - now)


def receive(
    stream: Stream,
    descriptor: int,
    path: str,
    *,
    hashing: HashThread,
    sync: Sync,
    bucket: TokenBucket,
    guard: Guard,
    max_size_bytes: int,
    reserve: str,
) -> int:
    """Everything that `stream` has, written behind its offset; returns the size of the whole file."""
    position = stream.offset_bytes
    ended = False
    while not ended:
        buffer = hashing.free_buffer()
        filled = 0
        try:
            end = time.monotonic() + _FILL_SECONDS
            while filled < bucket.block_bytes and (not filled or time.monotonic() < end):
                guard.check()
                count = stream.readinto(buffer[filled : bucket.block_bytes])
                if not count:
                    ended = True
                    break
                filled += count
        finally:
            # also when the source failed: these bytes are good
            _write(descriptor, buffer[:filled], position, path)
            position += filled
            sync.position = position
            hashing.put(buffer, filled)
        sync.check()
        if max_size_bytes and position > max_size_bytes:
            raise too_large(position, max_size_bytes)
        if stream.size_bytes is None:
            space.check_space(os.path.dirname(path), 0, reserve)
        bucket.take(filled)
    return position


def too_large(size_bytes: int, max_size_bytes: int) -> DownloadError:
    return StorageError(
        Reason.TOO_LARGE,
        f"the file has {size_bytes} bytes or more, at most {max_size_bytes} are allowed (downloads.maxSize)",
    )


def _write(descriptor: int, data: memoryview, position: int, path: str) -> None:
    try:
        while data:
            count = os.pwrite(descriptor, data, position)
            data = data[count:]
            position += count
    except OSError as error:
        raise storage_error(error, path, "write") from error
