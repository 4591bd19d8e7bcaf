"""A Seed's record of the file that it reads from its source: each piece as the file's hash passes it."""

from collections.abc import Iterable

from directdownload.download.checksum import Hasher
from directdownload.download.peers.digests import PieceHasher
from directdownload.download.peers.logwriter import LogWriter
from directdownload.download.transfer.ranges import Ranges
from directdownload.peer.piecelog import Header
from directdownload.resources import peers
from directdownload.resources.checksum import Algorithm


class Recorder:
    """Called by an assembly; see `assembly.Recorder`."""

    def __init__(self, log: LogWriter, header: Header, warrant: str) -> None:
        self._log = log
        self._piece_bytes = header.piece_bytes
        log.warrant(warrant)

    def hasher(self, algorithms: Iterable[Algorithm]) -> Hasher:
        return PieceHasher(algorithms, self._piece_bytes)

    def resume(self, done: Ranges) -> None:
        size = self._log.size_bytes or 0
        starts_and_ends = {index: peers.piece_range(index, self._piece_bytes, size) for index in self._log.entries}
        self._log.lost(index for index, (start, end) in starts_and_ends.items() if done.end_from(start) < end)

    def size(self, size_bytes: int) -> None:
        self._log.size(size_bytes)

    def passed(self, hasher: Hasher, verified_bytes: int) -> None:
        if isinstance(hasher, PieceHasher):
            self._put(hasher.take(verified_bytes))

    def end(self, hasher: Hasher) -> None:
        self._log.size(hasher.bytes_hashed)
        if isinstance(hasher, PieceHasher):
            self._put(hasher.take_all())

    def _put(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        for index, digest in pieces:
            self._log.piece(index, digest)
