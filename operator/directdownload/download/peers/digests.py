"""The digests of a file's pieces, computed beside the digests of the whole file. Pure."""

import hashlib
from collections.abc import Iterable

from directdownload.download.checksum import Hasher
from directdownload.resources.checksum import Algorithm


class PieceHasher(Hasher):
    """Also the SHA-256 of each piece of `piece_bytes`, in their order."""

    def __init__(self, algorithms: Iterable[Algorithm], piece_bytes: int) -> None:
        super().__init__(algorithms)
        self._piece_bytes = piece_bytes
        self._piece = hashlib.sha256()
        #: ended and not yet taken: index and digest
        self._ended: list[tuple[int, bytes]] = []

    def copy(self) -> "PieceHasher":
        copy = PieceHasher((), self._piece_bytes)
        copy.bytes_hashed = self.bytes_hashed
        copy._hashes = {algorithm: digest.copy() for algorithm, digest in self._hashes.items()}
        copy._piece, copy._ended = self._piece.copy(), self._ended.copy()
        return copy

    def update(self, data: memoryview) -> None:
        position = self.bytes_hashed
        super().update(data)
        while data:
            count = min(len(data), self._piece_bytes - position % self._piece_bytes)
            self._piece.update(data[:count])
            position, data = position + count, data[count:]
            if position % self._piece_bytes == 0:
                self._end(position // self._piece_bytes - 1)

    def take(self, verified_bytes: int) -> list[tuple[int, bytes]]:
        """Index and digest of the pieces that ended at or before `verified_bytes`; each is returned once."""
        count = sum((index + 1) * self._piece_bytes <= verified_bytes for index, _ in self._ended)
        taken, self._ended = self._ended[:count], self._ended[count:]
        return taken

    def take_all(self) -> list[tuple[int, bytes]]:
        """The rest at the end of the file, with a last piece that may be shorter."""
        if self.bytes_hashed % self._piece_bytes:
            self._end(self.bytes_hashed // self._piece_bytes)
        taken, self._ended = self._ended, []
        return taken

    def _end(self, index: int) -> None:
        self._ended.append((index, self._piece.digest()))
        self._piece = hashlib.sha256()
