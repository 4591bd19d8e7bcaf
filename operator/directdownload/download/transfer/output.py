"""The file that an archive becomes: written and hashed while more of it is unpacked.

Called by the unpacking, whose thread fills blocks. The queue of writes and the hashing take them over.
"""

import queue

from directdownload.download.checksum import Hasher
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.store.staging import StagedFile
from directdownload.download.store.writequeue import WriteQueue
from directdownload.download.store.writer import Writer, new_buffer
from directdownload.download.transfer.follower import Follower
from directdownload.download.transfer.schedule import BLOCK_BYTES

_BUFFERS = 6


class Output:
    """Fills `file` from its beginning. Always `close` it."""

    def __init__(self, file: StagedFile, guard: Guard) -> None:
        self.size_bytes = 0
        self._guard = guard
        self._writer = Writer(file.descriptor, file.path, file.reopen())
        self._writes = WriteQueue(self._writer.write)
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(new_buffer())
        self._follower = Follower(Hasher(), file.descriptor, file.reopen(), guard, release=self._free.put)
        self._block: memoryview | None = None

    def put(self, data: bytes) -> None:
        """Append `data`. Raises StorageError of an earlier block too, and what the guard does."""
        rest = memoryview(data)
        while rest:
            filled = self.size_bytes % BLOCK_BYTES
            block = self._block or self._lend()
            count = min(len(rest), BLOCK_BYTES - filled)
            block[filled : filled + count] = rest[:count]
            self.size_bytes += count
            rest = rest[count:]
            self._block = block
            if filled + count == BLOCK_BYTES:
                self._write(block)

    def finish(self) -> Hasher:
        """Wait until all is written and hashed; the digests."""
        if self._block is not None:
            self._write(self._block)
        self._writes.drain(self._guard)
        self._follower.settle()
        return self._follower.finish()

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._writes.close()
        self._follower.cancel()
        self._writer.close()

    def _write(self, block: memoryview) -> None:
        self._block = None
        end = self.size_bytes
        start = (end - 1) // BLOCK_BYTES * BLOCK_BYTES

        def report(written: bool) -> None:
            if written:
                self._follower.offer(start, end, block)
            else:
                self._free.put(block)

        self._writes.put(block[: end - start], start, report)

    def _lend(self) -> memoryview:
        while True:
            self._guard.check()
            self._writes.check()
            self._follower.raise_failure()
            try:
                return self._free.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
