"""Hashing: of files, and of a running transfer.

SHA-256 is always computed, as later copies are compared with it; the algorithm of a checksum is added.
The notations of checksums are in `resources.checksum`.
"""

import dataclasses
import hashlib
import mmap
import os
from collections.abc import Iterable

from directdownload.download.errors import RequestError
from directdownload.download.guard import Guard
from directdownload.download.settings import Setting
from directdownload.download.terms import SourcePolicy
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason

BLOCK_BYTES = 1024 * 1024


class Hasher:
    """Several digests of the same bytes."""

    def __init__(self, algorithms: Iterable[Algorithm] = ()) -> None:
        self.bytes_hashed = 0
        # usedforsecurity=False: some publishers give only MD5 or SHA-1; minimumChecksum can refuse them
        self._hashes = {
            algorithm: hashlib.new(algorithm.value, usedforsecurity=False)
            for algorithm in {Algorithm.SHA256, *algorithms}
        }

    def copy(self) -> "Hasher":
        """An independent copy that continues from here."""
        copy = Hasher()
        copy.bytes_hashed = self.bytes_hashed
        copy._hashes = {algorithm: digest.copy() for algorithm, digest in self._hashes.items()}
        return copy

    def update(self, data: memoryview) -> None:
        self.bytes_hashed += len(data)
        for digest in self._hashes.values():
            digest.update(data)

    def digests(self) -> dict[Algorithm, Checksum]:
        return {algorithm: Checksum(algorithm, digest.hexdigest()) for algorithm, digest in self._hashes.items()}

    def hash_file(self, descriptor: int, size_bytes: int, guard: Guard) -> int:
        """Add the first `size_bytes` of an open file; return how many there were.

        Buffer, offsets and lengths are whole pages, as O_DIRECT requires.
        """
        buffer = memoryview(mmap.mmap(-1, BLOCK_BYTES))
        position = 0
        while position < size_bytes:
            guard.check()
            count = min(os.preadv(descriptor, [buffer], position), size_bytes - position)
            if not count:
                break
            self.update(buffer[:count])
            position += count
        return position


@dataclasses.dataclass(frozen=True, slots=True)
class Pieces:
    """Digests of a file's pieces of `length_bytes` each, one after the other; the last piece may be shorter."""

    algorithm: Algorithm
    length_bytes: int
    digests: bytes

    def digest(self, index: int) -> bytes:
        size = self.algorithm.hex_length // 2
        return self.digests[index * size : (index + 1) * size]


def first_mismatch(
    digests: dict[Algorithm, Checksum], expected: Iterable[Checksum]
) -> tuple[Checksum, Checksum] | None:
    """The first of `expected` that does not match, with the checksum found."""
    for checksum in expected:
        found = digests[checksum.algorithm]
        if found != checksum:
            return checksum, found
    return None


def expected_checksums(checksum: str, expected_digest: str, policy: SourcePolicy) -> tuple[Checksum, ...]:
    """The expected checksums, the given one first. Raises RequestError if one is malformed or against the policy."""
    expected: list[Checksum] = []
    for text in filter(None, (checksum, expected_digest)):
        try:
            expected.append(Checksum.parse(text))
        except ValueError as error:
            raise RequestError(Reason.INVALID_CHECKSUM, str(error)) from None
    if not checksum:
        if policy.require_checksum:
            raise RequestError(
                Reason.CHECKSUM_REQUIRED, f"a checksum is required here ({Setting.REQUIRE_CHECKSUM}); give one"
            )
    elif not expected[0].at_least(Algorithm.parse(policy.minimum_checksum)):
        raise RequestError(
            Reason.CHECKSUM_TOO_WEAK,
            f"a checksum of {expected[0].algorithm.title} is too weak, expected {policy.minimum_checksum} or stronger "
            f"({Setting.MINIMUM_CHECKSUM})",
        )
    return tuple(expected)
