"""Writing a copy's piece log (`peer.piecelog`).

An optional help for other hosts: its first failure ends the writing, with one line in the log of this process, and
never the download. The process that owns the pool opens it; a confined one appends by the descriptor.
"""

import logging
import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence

from directdownload.hostfiles import reading, writing
from directdownload.peer import piecelog
from directdownload.peer.statements import Proof
from directdownload.resources import peers

logger = logging.getLogger(__name__)

_READ_BYTES = 1024 * 1024


class LogWriter:
    """Owns `descriptor`, open for reading and appending. Any thread may call it; nothing raises."""

    def __init__(self, descriptor: int, path: str, told: piecelog.PieceLog) -> None:
        self.descriptor = descriptor
        self._path = path
        self._told = told
        self._lock = threading.Lock()
        self._failed = False
        #: digests of pieces of a file whose size is not known yet
        self._early: dict[int, bytes] = {}

    @property
    def entries(self) -> Mapping[int, piecelog.Entry]:
        """The pieces that it lists now."""
        with self._lock:
            return dict(self._told.entries)

    @property
    def warrants(self) -> tuple[str, ...]:
        return tuple(self._told.warrants)

    @property
    def size_bytes(self) -> int | None:
        return self._told.size_bytes

    def size(self, size_bytes: int) -> None:
        """The size of the file is known; pieces count only from now on."""
        with self._lock:
            if self._told.size_bytes != size_bytes:
                self._append(piecelog.size_line(size_bytes))
            early, self._early = self._early, {}
            for index, digest in early.items():
                self._piece(index, digest, None)

    def warrant(self, token: str) -> None:
        with self._lock:
            if token and token not in self._told.warrants:
                self._append(piecelog.warrant_line(token))

    def piece(self, index: int, digest: bytes, proof: Proof | None = None) -> None:
        """The piece is on disk, and its bytes have this digest."""
        with self._lock:
            if self._told.size_bytes is None:
                self._early[index] = digest
            else:
                self._piece(index, digest, proof)

    def lost(self, indices: Iterable[int]) -> None:
        """These pieces are not on disk any more, or are about to be written again."""
        with self._lock:
            for index in indices:
                self._early.pop(index, None)
                if index in self._told.entries:
                    self._append(piecelog.lost_line(index))

    def lost_all(self) -> None:
        """The file is empty."""
        self.lost(sorted({*self.entries, *self._early}))

    def complete(self, size_bytes: int) -> bool:
        """Whether it lists every piece of a file of `size_bytes`, as the file on disk says: others may have written."""
        told = _read(self.descriptor)
        return told is not None and told.complete and (told.header, told.size_bytes) == (self._told.header, size_bytes)

    def close(self) -> None:
        os.close(self.descriptor)

    def _piece(self, index: int, digest: bytes, proof: Proof | None) -> None:
        entry = self._told.entries.get(index)
        if entry == piecelog.Entry(digest, proof):
            return
        lost = [piecelog.lost_line(index)] if entry is not None and entry.digest != digest else []
        self._append(*lost, piecelog.piece_line(index, digest, proof))

    def _append(self, *lines: bytes) -> None:
        if self._failed:
            return
        data = b"".join(lines)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self.descriptor, view) :]
            self._told.feed(data)
        except (OSError, ValueError) as error:
            self._failed = True
            logger.warning("%s: %s; other hosts get no further pieces from here", self._path, error)


def open_log(path: str, header: piecelog.Header) -> LogWriter | None:
    """The log of `header` at `path`, which goes on; any other file there is replaced. None if that is impossible."""
    try:
        found = _open_again(path, header)
        if found is None:
            # by a rename, so that it has another inode than the one that it replaces
            new = f"{path}.tmp"
            writing.remove(new)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
            found = LogWriter(reading.open_any(new, flags), path, piecelog.PieceLog())
            found._append(piecelog.header_line(header))
            os.rename(new, path)
        return found
    except OSError as error:
        logger.warning("%s: %s; other hosts get no pieces from here", path, error)
        return None


def read_complete(path: str, header: piecelog.Header, size_bytes: int) -> piecelog.PieceLog | None:
    """The log at `path` if it lists every piece of the file of `header`, of `size_bytes`; else None."""
    try:
        descriptor, _ = reading.open_regular(path)
    except OSError:
        return None
    try:
        told = _read(descriptor)
    finally:
        os.close(descriptor)
    fits = told is not None and told.complete and (told.header, told.size_bytes) == (header, size_bytes)
    return told if fits else None


def write_complete(
    path: str, header: piecelog.Header, warrant: str, size_bytes: int, digests: Sequence[tuple[int, bytes]]
) -> bool:
    """Write a Seed's log of a whole file, by index and digest of its pieces; return whether it is there.

    One that is there and says the same stays.
    """
    told = read_complete(path, header, size_bytes)
    entries = {index: piecelog.Entry(digest, None) for index, digest in digests}
    if told is not None and warrant in told.warrants and told.entries == entries:
        return True
    if peers.pieces(size_bytes, header.piece_bytes) > peers.PIECES_LIMIT:
        return False
    lines = [piecelog.header_line(header), piecelog.size_line(size_bytes)]
    lines.append(piecelog.warrant_line(warrant))
    lines += [piecelog.piece_line(index, digest) for index, digest in digests]
    try:
        writing.write_atomically(path, b"".join(lines))
    except OSError as error:
        logger.warning("%s: %s; other hosts get no pieces from here", path, error)
        return False
    return True


def _open_again(path: str, header: piecelog.Header) -> LogWriter | None:
    """The log of an earlier attempt; None if it is not one of `header` that only this product could write."""
    try:
        descriptor = reading.open_any(path, os.O_RDWR | os.O_APPEND)
    except OSError:
        return None
    state = os.fstat(descriptor)
    ours = stat.S_ISREG(state.st_mode) and state.st_nlink == 1 and stat.S_IMODE(state.st_mode) == 0o600
    told = _read(descriptor) if ours and state.st_uid == os.geteuid() else None
    # one that is half full leaves no room for this attempt
    if told is None or told.header != header or told.length_bytes > piecelog.LIMIT_BYTES // 2:
        os.close(descriptor)
        return None
    found = LogWriter(descriptor, path, told)
    found._append(piecelog.FRESH_LINE)
    return found


def _read(descriptor: int) -> piecelog.PieceLog | None:
    told, position = piecelog.PieceLog(), 0
    try:
        while data := os.pread(descriptor, _READ_BYTES, position):
            position += len(data)
            told.feed(data)
    except (OSError, ValueError):
        return None
    return told
