"""Unpacking an archive during the download: behind the hashing, from the part into a file beside it.

Called by the engine; the transfer passes the follower to read behind. The part keeps the bytes as served, so that a
resume works and the checksum is of them; a resumed attempt unpacks the present bytes again.
"""

import os
import threading

from directdownload.download import archives
from directdownload.download.checksum import Hasher
from directdownload.download.errors import DownloadError, SourceError, StoppedError, StorageError, storage_error
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.settings import Setting
from directdownload.download.store import space
from directdownload.download.store.staging import Staging
from directdownload.download.store.writer import Writer, new_buffer
from directdownload.download.transfer.follower import Follower
from directdownload.download.transfer.output import Output
from directdownload.download.transfer.schedule import BLOCK_BYTES
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason

_SPACE_CHECK_BYTES = 64 * BLOCK_BYTES
#: the longest wait for advice
_ADVICE_SECONDS = 10.0


class Unpack:
    """One thread per follower; a file that is not an archive is left alone. Always `close` it."""

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
        self._product = 0, Hasher().digests()[Algorithm.SHA256]
        #: for the result, after `finish`; may be empty
        self.note = ""

    def follow(self, follower: Follower, writer: Writer) -> None:
        """Start again, behind `follower`; `writer` writes the part."""
        self.close()
        self._cancelled, self._complete = threading.Event(), threading.Event()
        self._failure, self._began = None, False
        guard = self._caller.for_connection(self._cancelled)
        self._thread = threading.Thread(target=self._run, args=(follower, writer, guard), name="unpack", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a failure that ends the download: of the disk or a limit. For a bad archive see `finish`."""
        if isinstance(self._failure, StorageError):
            raise self._failure

    def finish(self) -> bool:
        """Call when the part is complete and verified; return whether it was an archive and is unpacked."""
        return self._finish(self._caller)

    def _finish(self, guard: Guard) -> bool:
        self._complete.set()
        if self._thread is not None:
            while self._thread.is_alive():
                self._thread.join(TICK_SECONDS)
                guard.check()
        if self._failure is not None:
            raise self._failure
        return self._began

    def product(self) -> tuple[int, Checksum]:
        """Size and SHA-256 of the unpacked file, after `finish` returned True."""
        return self._product

    def holds(self, wanted: Checksum) -> bool:
        """Whether the archive, which has another checksum, holds a file with this one.

        For advice only: what keeps it from being unpacked is not the failure to report, and it waits for 10 s at most.
        """
        guard = Guard.start(self._caller.stop, _ADVICE_SECONDS)
        try:
            if not self._finish(guard):
                return False
            size, found = self.product()
            if wanted.algorithm is not Algorithm.SHA256:
                hasher = Hasher([wanted.algorithm])
                hasher.hash_file(self._staging.unpacked().descriptor, size, guard)
                found = hasher.digests()[wanted.algorithm]
        except (SourceError, StorageError, StoppedError, OSError):
            self._caller.check()
            return False
        return found == wanted

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
            # the part is read back at once
            writer.use_page_cache()
            decompressor = archives.create(kind)
            self._unpack(decompressor, follower, guard)
            if ignored := decompressor.ignored_bytes:
                self.note = f"{ignored} bytes behind the end of the {kind} archive are ignored"
        except DownloadError as error:
            self._failure = error
        except OSError as error:
            self._failure = storage_error(error, self._staging.out_path, "unpack into")
        except Exception as error:  # the thread that waits for this one raises it again
            self._failure = error

    def _unpack(self, decompressor: archives.Decompressor, follower: Follower, guard: Guard) -> None:
        self._began = True
        self.note = ""
        file = self._staging.unpacked()
        os.ftruncate(file.descriptor, 0)
        output = Output(file, guard)
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
                    self._put(output, block)
                    if decompressor.needs_input:
                        break
            decompressor.finish()
            self._product = output.size_bytes, output.finish().digests()[Algorithm.SHA256]
            os.ftruncate(file.descriptor, output.size_bytes)
        finally:
            output.close()

    def _put(self, output: Output, block: bytes) -> None:
        if not block:
            return
        end = output.size_bytes + len(block)
        if self._limit_bytes and end > self._limit_bytes:
            raise StorageError(
                Reason.TOO_LARGE,
                f"the content of the archive has {end} bytes or more, an image of at most "
                f"{self._max_virtual_size_bytes} is allowed ({Setting.MAX_VIRTUAL_SIZE})",
            )
        if output.size_bytes % _SPACE_CHECK_BYTES + len(block) >= _SPACE_CHECK_BYTES or not output.size_bytes:
            space.check_space(self._staging.part.descriptor, self._staging.directory, len(block), self._reserve)
        output.put(block)

    def _available(self, follower: Follower, position: int, guard: Guard) -> int:
        """Wait for and return the number of verified bytes: more than `position` unless the file ends there."""
        while True:
            guard.check()
            if follower.wait(position):
                return follower.verified_bytes
            if self._complete.wait(TICK_SECONDS / 10):
                return follower.verified_bytes


def limit_of_unpacked(max_virtual_size_bytes: int) -> int:
    """The size limit of a file with such a disk: larger by the tables of its format. 0: no limit."""
    return max_virtual_size_bytes and max_virtual_size_bytes * 65 // 64 + 16 * BLOCK_BYTES


def never_unpacked(image_format: str) -> bool:
    """Whether archives stay packed: without a format, and for an ISO (CloudStack's rule)."""
    return image_format in ("", "ISO")
