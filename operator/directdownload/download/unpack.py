"""Unpacking an archive while it is downloaded: behind the hashing, from the part into a file beside it.

Called by the engine; the transfer tells which follower it reads behind. The part keeps the bytes as served, so that
a resume works and the checksum is of them; an attempt that continues unpacks what is there once more.
"""

import os
import threading

from directdownload.download import archives, space
from directdownload.download.checksum import Hasher
from directdownload.download.errors import DownloadError, StorageError, storage_error
from directdownload.download.follower import Follower
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.schedule import BLOCK_BYTES
from directdownload.download.staging import Staging
from directdownload.download.writer import Writer, new_buffer
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason

_SPACE_CHECK_BYTES = 64 * BLOCK_BYTES


class Unpack:
    """One thread per follower; what is no archive is left alone. `close` in every case."""

    def __init__(self, staging: Staging, guard: Guard, *, max_virtual_size_bytes: int, reserve: str) -> None:
        self._staging = staging
        self._caller = guard
        self._limit_bytes = limit_of_unpacked(max_virtual_size_bytes)
        self._max_virtual_size_bytes = max_virtual_size_bytes
        self._reserve = reserve
        self._cancelled = threading.Event()
        self._complete = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._began = False
        self._size_bytes = 0
        self._hasher = Hasher()

    def follow(self, follower: Follower, writer: Writer) -> None:
        """Begin anew, behind `follower`; `writer` writes the part."""
        self.close()
        self._cancelled, self._complete = threading.Event(), threading.Event()
        self._failure, self._began = None, False
        guard = self._caller.for_connection(self._cancelled)
        self._thread = threading.Thread(target=self._run, args=(follower, writer, guard), name="unpack", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what makes going on pointless: the disk or a limit. A bad archive may be a bad download: see finish."""
        if isinstance(self._failure, StorageError):
            raise self._failure

    def finish(self) -> bool:
        """All of the part is there and verified: whether it was an archive and is unpacked now."""
        self._complete.set()
        if self._thread is not None:
            while self._thread.is_alive():
                self._thread.join(TICK_SECONDS)
                self._caller.check()
        if self._failure is not None:
            raise self._failure
        return self._began

    def product(self) -> tuple[int, Checksum]:
        """Size and SHA-256 of what it was unpacked into; after `finish` said so."""
        return self._size_bytes, self._hasher.digests()[Algorithm.SHA256]

    def close(self) -> None:
        self._cancelled.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, follower: Follower, writer: Writer, guard: Guard) -> None:
        try:
            position, kind = 0, None
            while kind is None:
                available = self._available(follower, position, guard)
                if available < archives.HEAD_BYTES and not self._complete.is_set():
                    position = available
                    continue
                kind = archives.recognise(
                    os.pread(self._staging.part.descriptor, min(available, archives.HEAD_BYTES), 0)
                )
                if kind is None:
                    return
            # it is read back at once
            writer.use_page_cache()
            self._unpack(archives.create(kind), follower, guard)
        except DownloadError as error:
            self._failure = error
        except OSError as error:
            self._failure = storage_error(error, self._staging.out_path, "unpack into")
        except Exception as error:  # raised again by whoever waits for this thread
            self._failure = error

    def _unpack(self, decompressor: archives.Decompressor, follower: Follower, guard: Guard) -> None:
        self._began = True
        self._size_bytes, self._hasher = 0, Hasher()
        out = self._staging.unpacked()
        os.ftruncate(out.descriptor, 0)
        writer = Writer(out.descriptor, out.path, out.reopen())
        buffer = new_buffer()
        try:
            position = 0
            while (available := self._available(follower, position, guard)) > position:
                count = os.preadv(
                    self._staging.part.descriptor, [buffer[: min(BLOCK_BYTES, available - position)]], position
                )
                position += count
                data = bytes(buffer[:count])
                while True:
                    guard.check()
                    block = decompressor.decompress(data, BLOCK_BYTES)
                    data = b""
                    self._put(writer, block)
                    if decompressor.needs_input:
                        break
            decompressor.finish()
            os.ftruncate(out.descriptor, self._size_bytes)
        finally:
            writer.close()

    def _put(self, writer: Writer, block: bytes) -> None:
        if not block:
            return
        end = self._size_bytes + len(block)
        if self._limit_bytes and end > self._limit_bytes:
            raise StorageError(
                Reason.TOO_LARGE,
                f"the content of the archive has {end} bytes or more, an image of at most "
                f"{self._max_virtual_size_bytes} is allowed (downloads.maxVirtualSize)",
            )
        if self._size_bytes % _SPACE_CHECK_BYTES + len(block) >= _SPACE_CHECK_BYTES or not self._size_bytes:
            space.check_space(self._staging.part.descriptor, self._staging.directory, len(block), self._reserve)
        writer.write(memoryview(block), self._size_bytes)
        self._hasher.update(memoryview(block))
        self._size_bytes = end

    def _available(self, follower: Follower, position: int, guard: Guard) -> int:
        """How many bytes are verified, more than `position` unless the file ends there."""
        while True:
            guard.check()
            if follower.wait(position):
                return follower.verified_bytes
            if self._complete.wait(TICK_SECONDS / 10):
                return follower.verified_bytes


def limit_of_unpacked(max_virtual_size_bytes: int) -> int:
    """How large a file may be in which such a disk is: larger by the tables of its format. 0: no limit."""
    return max_virtual_size_bytes and max_virtual_size_bytes * 65 // 64 + 16 * BLOCK_BYTES


def never_unpacked(image_format: str) -> bool:
    """Without a format the bytes are kept as served; an ISO is never extracted (CloudStack's rule)."""
    return image_format in ("", "ISO")
