"""A host's own record of a file that it published or hashed, kept in a directory outside the pool.

Called by `publish` and `verify`. With a seal a job need not read a file that is already present, and knows the expected
content of a file unpacked from an archive. A record in the pool can do neither, as every writer of the pool can write
records. Without a seal the file is hashed, so a seal that cannot be written changes no result. Likewise, where no
digest proves the content of a part, a journal in the pool is accepted only if it has its own seal.
"""

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Iterable
from typing import Self

from directdownload.download.store.record import Record
from directdownload.hostfiles import reading, writing
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

SUFFIX = ".seal"


class Seal(Record):
    """A record with the file's ctime, which no writer of the file can set."""

    ctime_ns: int

    @classmethod
    def of_record(cls, record: Record, state: os.stat_result) -> Self:
        """The seal of `record`, for the file with this state."""
        return cls(**record.model_dump(), ctime_ns=state.st_ctime_ns)

    def record(self) -> Record:
        """The record as in the pool."""
        return Record(**self.model_dump(exclude={"ctime_ns"}))

    def matches(self, state: os.stat_result) -> bool:
        """Whether the file is untouched since. A new owner, mode or label counts as a touch."""
        return super().matches(state) and self.ctime_ns == state.st_ctime_ns


class JournalSeal(Document):
    """`journals` are the SHA-256 of those that may be in the pool, `inode` is that of their part."""

    journals: tuple[str, ...]
    inode: int


def path_of(directory: str, final: str) -> str:
    """The path in `directory` of the seal of the file at `final`; empty if `directory` is."""
    return os.path.join(directory, hashlib.sha256(os.fsencode(final)).hexdigest()[:32] + SUFFIX) if directory else ""


def read(path: str, final: str) -> Seal | None:
    """The seal of the file at `final`; None if there is none, or if others can write it."""
    seal = reading.read_document(path, Seal) if _is_kept_well(path) else None
    return seal if seal is not None and seal.path == final else None


def keep(path: str, record: Record, state: os.stat_result) -> None:
    """Write the seal; never raises, as it only saves work. Not for a file that others may write."""
    if path and _is_ours(state):
        _write(path, Seal.of_record(record, state))
    elif path:
        with contextlib.suppress(OSError):
            writing.remove(path)


def keep_journals(path: str, journals: Iterable[bytes], part: os.stat_result) -> None:
    """Seal `journals` as written by this host for this part. Never raises."""
    if path:
        _write(path, JournalSeal(journals=tuple(map(_digest, journals)), inode=part.st_ino))


def vouches_for(path: str, journal: bytes | None, part: os.stat_result) -> bool:
    """Whether this host wrote exactly this journal for this part."""
    if journal is None or not _is_kept_well(path):
        return False
    found = reading.read_document(path, JournalSeal)
    return found is not None and found.inode == part.st_ino and _digest(journal) in found.journals


def drop(path: str) -> None:
    """Remove the seal. Raises OSError, as a remaining seal would still be believed."""
    if path:
        writing.remove(path)


def _write(path: str, document: Document) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if _is_kept_well(path):
            writing.write_atomically(path, document.model_dump_json().encode())
    except OSError as error:
        logger.debug("cannot keep %s: %s; the next job works without it", path, error.strerror)


def _is_kept_well(path: str) -> bool:
    """Whether only this process's user may write in its directory."""
    try:
        return bool(path) and _is_ours(os.stat(os.path.dirname(path)))
    except OSError:
        return False


def _digest(journal: bytes) -> str:
    return hashlib.sha256(journal).hexdigest()


def _is_ours(state: os.stat_result) -> bool:
    """Whether only its owner may write a file with this state."""
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
