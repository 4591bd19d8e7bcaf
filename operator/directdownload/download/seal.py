"""What this host itself has published or hashed under a final name, kept in a directory of the host's own.

Called by `publish` and `verify`. It spares a job that finds its file there already the reading of it, and says what a
file that was unpacked from an archive should hold. A record in the pool can do neither: whoever writes the pool writes
records. Without a seal the file is hashed, so one that cannot be kept costs no result. Likewise, where no digest proves
what a part holds, a journal in the pool is believed only if it has a seal of its own.
"""

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Iterable
from typing import Self

from directdownload.download import files
from directdownload.download.record import Record
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

SUFFIX = ".seal"


class Seal(Record):
    """A record with the file's change time, which no writer of the file can set."""

    ctime_ns: int

    @classmethod
    def of_record(cls, record: Record, state: os.stat_result) -> Self:
        """`record` is of the file with this state."""
        return cls(**record.model_dump(), ctime_ns=state.st_ctime_ns)

    def record(self) -> Record:
        """As it stands in the pool."""
        return Record(**self.model_dump(exclude={"ctime_ns"}))

    def matches(self, state: os.stat_result) -> bool:
        """Whether nobody has touched the file since. A new owner, mode or label counts as a touch."""
        return super().matches(state) and self.ctime_ns == state.st_ctime_ns


class JournalSeal(Document):
    """`journals` are the SHA-256 of those that may lie in the pool, `inode` is that of their part."""

    journals: tuple[str, ...]
    inode: int


def path_of(directory: str, final: str) -> str:
    """Where in `directory` the seal of the file at `final` is kept; empty where there is no such directory."""
    return os.path.join(directory, hashlib.sha256(os.fsencode(final)).hexdigest()[:32] + SUFFIX) if directory else ""


def read(path: str, final: str) -> Seal | None:
    """The seal of the file at `final`; None if there is none, or others can write where it is kept."""
    seal = files.read_document(path, Seal) if _is_kept_well(path) else None
    return seal if seal is not None and seal.path == final else None


def keep(path: str, record: Record, state: os.stat_result) -> None:
    """Never raises: it only saves work. None of a file that others may write: they need not touch its times."""
    if path and _is_ours(state):
        _write(path, Seal.of_record(record, state))
    elif path:
        with contextlib.suppress(OSError):
            files.remove(path)


def keep_journals(path: str, journals: Iterable[bytes], part: os.stat_result) -> None:
    """That each of `journals` is this host's own word on this part. Never raises."""
    if path:
        _write(path, JournalSeal(journals=tuple(map(_digest, journals)), inode=part.st_ino))


def vouches_for(path: str, journal: bytes | None, part: os.stat_result) -> bool:
    """Whether this host has written just this journal, and of this part."""
    if journal is None or not _is_kept_well(path):
        return False
    found = files.read_document(path, JournalSeal)
    return found is not None and found.inode == part.st_ino and _digest(journal) in found.journals


def drop(path: str) -> None:
    """Nothing vouches for the file any more. Raises OSError: a seal that stays would."""
    if path:
        files.remove(path)


def _write(path: str, document: Document) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if _is_kept_well(path):
            files.write_atomically(path, document.model_dump_json().encode())
    except OSError as error:
        logger.debug("cannot keep %s: %s; the next job works without it", path, error.strerror)


def _is_kept_well(path: str) -> bool:
    """Whether nobody else could have written it."""
    try:
        return bool(path) and _is_ours(os.stat(os.path.dirname(path)))
    except OSError:
        return False


def _digest(journal: bytes) -> str:
    return hashlib.sha256(journal).hexdigest()


def _is_ours(state: os.stat_result) -> bool:
    """Whether nobody else may write what has this state."""
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
