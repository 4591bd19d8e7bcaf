"""What this host itself has published or hashed under a final name, kept in a directory of the host's own.

Called by `publish` and `verify`. It spares a job that finds its file there already the reading of it, and says what a
file that was unpacked from an archive should hold. A record in the pool can do neither: whoever writes the pool writes
records. Without a seal the file is hashed, so one that cannot be kept costs no result.
"""

import hashlib
import logging
import os
import stat
from typing import Self

from directdownload.download import files
from directdownload.download.record import Record

logger = logging.getLogger(__name__)

SUFFIX = ".seal"


class Seal(Record):
    """A record with the file's change time, which no writer of the file can set."""

    ctime_ns: int

    @classmethod
    def of_record(cls, record: Record, state: os.stat_result) -> Self:
        """`record` was true of the file with this state when `record.verified_time` was."""
        told = record.model_dump(exclude={"size_bytes", "mtime_ns", "inode"})
        seen = {"size_bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
        return cls(**told, **seen, ctime_ns=state.st_ctime_ns)

    def record(self) -> Record:
        """As it stands in the pool."""
        return Record(**self.model_dump(exclude={"ctime_ns"}))

    def matches(self, state: os.stat_result) -> bool:
        """Whether nobody has touched the file since. A new owner, mode or label counts as a touch."""
        return super().matches(state) and self.ctime_ns == state.st_ctime_ns


def path_of(directory: str, final: str) -> str:
    """Where in `directory` the seal of the file at `final` is kept; empty where there is no such directory."""
    return os.path.join(directory, hashlib.sha256(os.fsencode(final)).hexdigest()[:32] + SUFFIX) if directory else ""


def read(path: str, final: str) -> Seal | None:
    """The seal of the file at `final`; None if there is none, or others can write where it is kept."""
    if not path or not _is_ours(os.path.dirname(path)):
        return None
    seal = files.read_document(path, Seal)
    return seal if seal is not None and seal.path == final else None


def keep(path: str, record: Record, state: os.stat_result) -> None:
    """Never raises: it only saves work."""
    if not path:
        return
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if _is_ours(directory):
            files.write_atomically(path, Seal.of_record(record, state).model_dump_json().encode())
    except OSError as error:
        logger.debug("cannot keep %s: %s; the next job hashes the file", path, error.strerror)


def drop(path: str) -> None:
    """Nothing vouches for the file any more. Raises OSError: a seal that stays would."""
    if path:
        files.remove(path)


def _is_ours(directory: str) -> bool:
    try:
        state = os.stat(directory)
    except OSError:
        return False
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
