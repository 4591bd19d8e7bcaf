"""One copy of this host as the server knows it: its open piece log and file, and what it announces. Thread-safe.

Made by `contents`. Promises: no byte of a piece leaves that was not read and hashed before in this process, and had the
digest of its proof; a piece that did not is announced as dropped. The descriptors are closed when the last thread that
uses the copy lets go of it.
"""

import collections
import hashlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable

from directdownload.peer import metrics, protocol
from directdownload.peer.credentials import Credentials
from directdownload.peer.offering import Offering
from directdownload.peer.table import Opened
from directdownload.peer.vouching import Changed, Claim, Vouching
from directdownload.resources import peers

logger = logging.getLogger(__name__)

#: Read at once, to hash and to send: more is in no cache of a processor.
BLOCK_BYTES = 256 * 1024
#: Of the log, in one look: a signature takes a tenth of a millisecond.
_LOOK_BYTES = 64 * 1024
#: Lines of changes that a slow reader may be behind.
_LINES_LIMIT = 1024


class GoneError(Exception):
    """The copy is not there any more, or its files were exchanged or changed."""


class Copy:
    """`opened` is its own from now on. `clock` gives seconds since 1970. Raises OSError if the files go just now."""

    def __init__(self, content: str, opened: Opened, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._content = content
        self._log, self._data = opened.log, opened.data
        weakref.finalize(self, opened.close)
        self._clock = clock
        self._lock = threading.Lock()
        self._checked = threading.Condition(self._lock)
        config = credentials.config
        self._vouching = Vouching(content, config.zone, credentials.verifier, credentials.signing_key)
        self._offering = Offering(peers.PIECES_LIMIT, super_seeding=False)
        self._size: int | None = None
        self._position = 0
        self._hashed = set[int]()
        self._hashing = set[int]()
        self._lines: collections.deque[bytes] = collections.deque(maxlen=_LINES_LIMIT)
        self._sequence = 0
        self._published = _state(self._data) if opened.published else None
        self._inodes = _inode(self._log), _inode(self._data)

    @property
    def sequence(self) -> int:
        """Counts the lines of changes."""
        return self._sequence

    def continues(self, newer: "Copy") -> bool:
        """Whether a newer answer of the opener is about the very same files, which may be published by now."""
        if newer._inodes != self._inodes:
            return False
        with self._lock:
            self._published = newer._published
        return True

    def look(self) -> bool:
        """Take what the log has gained; return whether there is more. Raises GoneError."""
        with self._lock:
            try:
                return self._look()
            except (OSError, ValueError):
                # also a stale handle of a network file system, and a log that is none
                raise GoneError from None

    def _look(self) -> bool:
        self._is_there()
        status = os.fstat(self._log)
        if status.st_nlink == 0 or status.st_size < self._position:
            raise GoneError
        now = self._clock()
        self._take(self._vouching.expire(now))
        if status.st_size > self._position:
            data = os.pread(self._log, _LOOK_BYTES, self._position)
            self._position += len(data)
            self._take(self._vouching.feed(data, now))
        self._offering.super_seeding = self._vouching.is_seed
        self._announce()
        return self._position < status.st_size

    def _is_there(self) -> None:
        if os.fstat(self._data).st_nlink == 0:
            raise GoneError
        if self._published is not None and _state(self._data) != self._published:
            raise GoneError

    def _take(self, changed: Changed) -> None:
        for index in changed.gone:
            self._offering.remove(index)
        for index in changed.come:
            self._offering.add(index)
        self._hashed -= changed.gone | changed.come

    def _announce(self) -> None:
        """Brings what is announced up to date; what changed is a line for all readers."""
        due = self._offering.due(time.monotonic())
        size = self._vouching.log.size_bytes
        news = None if size == self._size else size
        self._size = size
        if due or news is not None:
            self._lines.append(protocol.changes_line(protocol.Changes(news, due.add, due.drop)))
            self._sequence += 1

    def state(self) -> tuple[protocol.State, int]:
        """What is announced now, and the sequence number that the changes after it have."""
        with self._lock:
            self._announce()
            header, announced = self._vouching.log.header, self._offering.announced
            piece = header.piece_bytes if header is not None else None
            return protocol.State(
                piece, self._size, announced if self._size is not None else frozenset()
            ), self._sequence

    def lines(self, sequence: int) -> tuple[list[bytes], int]:
        """The lines of changes from `sequence` on, and the number of the next. Raises GoneError for a slow reader."""
        with self._lock:
            count = self._sequence - sequence
            if count > len(self._lines):
                raise GoneError
            return (list(self._lines)[-count:] if count else []), self._sequence

    def claim(self, index: int) -> tuple[Claim, int, int] | None:
        """What goes out with a piece, and its range of bytes; None if it is not here. Raises GoneError."""
        with self._lock:
            try:
                self._is_there()
            except OSError:
                raise GoneError from None
            claim, header = self._vouching.claim(index), self._vouching.log.header
            if claim is None or header is None or self._size is None:
                return None
            return claim, *peers.piece_range(index, header.piece_bytes, self._size)

    def check(self, index: int, digest: bytes, start: int, end: int) -> bool:
        """Whether the bytes have the digest: hashed once, whoever asks. A piece that has another one is dropped."""
        with self._lock:
            while index in self._hashing:
                self._checked.wait()
            if self._vouching.digest(index) != digest:
                return False
            if index in self._hashed:
                return True
            self._hashing.add(index)
        right = False
        try:
            right = self._hash(start, end) == digest
        finally:
            with self._lock:
                self._hashing.discard(index)
                self._checked.notify_all()
                # else it was written down anew meanwhile
                if current := self._vouching.digest(index) == digest:
                    if right:
                        self._hashed.add(index)
                    else:
                        self._distrust(index)
        return right and current

    def _distrust(self, index: int) -> None:
        self._vouching.distrust(index)
        self._offering.remove(index)
        metrics.BAD_PIECES.inc()
        logger.warning("Piece %d of %s is not what its piece log says: it is not sent", index, self._content[:8])

    def read(self, buffer: memoryview, position: int) -> int:
        """Raises OSError."""
        return os.preadv(self._data, [buffer], position)

    def given(self, index: int) -> bool:
        """Its upload begins; False if it must not, since a Seed has just given the piece to another host."""
        with self._lock:
            return self._offering.given(index, time.monotonic())

    def sent(self, index: int, seconds: float | None) -> None:
        """Its upload has ended: after `seconds`, or broken off."""
        with self._lock:
            if seconds is None:
                self._offering.failed(index)
            else:
                self._offering.piece_seconds(seconds)

    def _hash(self, start: int, end: int) -> bytes | None:
        digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
        while start < end:
            try:
                count = os.preadv(self._data, [block[: end - start]], start)
            except OSError:
                return None
            if not count:
                return None
            digest.update(block[:count])
            start += count
        return digest.digest()


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _state(descriptor: int) -> tuple[int, ...]:
    """Of a published file, as its record has it: libvirt changes owner and label, which is no other content."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns
