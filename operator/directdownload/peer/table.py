"""The copies of this host in one pool: which contents they are, and their open files.

Called by `opener`. Every writer of the pool may have made what lies there, so a name only leads to a file: what is in
the file decides. No link is followed, and only regular files with one name are opened.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from directdownload.hostfiles import reading
from directdownload.peer import piecelog
from directdownload.resources.naming import PIECES_SUFFIX, RECORD_SUFFIX, WORK_DIRECTORY

#: Further ones, and further names in the work directory, are not looked at.
LOGS_LIMIT, NAMES_LIMIT = 1024, 65536
_RECORD_LIMIT_BYTES = 64 * 1024
_UID_LIMIT = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """Descriptors for reading, of the piece log and of the file that it describes. The holder closes them."""

    log: int
    data: int
    #: under its final name; else it is still a part
    published: bool

    def close(self) -> None:
        os.close(self.log)
        os.close(self.data)


def scan(pool: str, host: str) -> dict[str, str]:
    """Contents of which the pool has a piece log of `host`, and the uid of the Template of each. Raises OSError."""
    found = dict[str, str]()
    with _directory(pool) as pool_fd, _directory(WORK_DIRECTORY, pool_fd) as work:
        for uid in itertools.islice(_uids(work, host), LOGS_LIMIT):
            with contextlib.suppress(OSError, ValueError):
                log, _ = _open(f"{uid}.{host}{PIECES_SUFFIX}", work)
                try:
                    found[_content(log, uid)] = uid
                finally:
                    os.close(log)
    return found


def open_content(pool: str, host: str, uid: str, content: str) -> Opened | None:
    """The files of a content that `scan` found; None if they are not in order. Raises OSError.

    The part is what the log describes while there is one: a published file may be from an earlier download.
    """
    with _directory(pool) as pool_fd, _directory(WORK_DIRECTORY, pool_fd) as work:
        log, _ = _open(f"{uid}.{host}{PIECES_SUFFIX}", work)
        try:
            if _content(log, uid) != content:
                raise ValueError("it is the log of another content")
            part = _part(f"{uid}.{host}.part", work)
            data = part if part is not None else _published(pool, pool_fd, f"{uid}{RECORD_SUFFIX}", work)
        except ValueError:
            os.close(log)
            return None
        except OSError:
            os.close(log)
            raise
        return Opened(log, data, published=part is None)


@contextlib.contextmanager
def _directory(path: str, dir_fd: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _uids(work: int, host: str) -> Iterator[str]:
    end = f".{host}{PIECES_SUFFIX}"
    with os.scandir(work) as entries:
        for entry in itertools.islice(entries, NAMES_LIMIT):
            uid = entry.name.removesuffix(end)
            if uid and uid != entry.name and len(uid) <= _UID_LIMIT:
                yield uid


def _open(name: str, directory: int) -> tuple[int, os.stat_result]:
    """Raises OSError, ValueError for what is no regular file with one name."""
    descriptor = reading.open_any(name, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ValueError("expected a regular file with one name")
    except (OSError, ValueError):
        os.close(descriptor)
        raise
    return descriptor, status


def _content(log: int, uid: str) -> str:
    """The id that follows from the log's header, of this Template. Raises OSError, ValueError."""
    begun = piecelog.PieceLog()
    line, end, _ = os.pread(log, piecelog.LINE_LIMIT_BYTES, 0).partition(b"\n")
    begun.feed(line + end)
    if begun.header is None or begun.header.template_uid != uid:
        raise ValueError("it is not the log of this Template")
    return begun.header.content


def _part(name: str, work: int) -> int | None:
    """None if there is none with a byte: a job that finds the file published makes an empty one for its lock."""
    try:
        descriptor, status = _open(name, work)
    except FileNotFoundError:
        return None
    if status.st_size:
        return descriptor
    os.close(descriptor)
    return None


def _published(pool: str, pool_fd: int, record: str, work: int) -> int:
    """The file that the record describes. Raises OSError, ValueError."""
    descriptor, _ = _open(record, work)
    try:
        told = _parsed(os.pread(descriptor, _RECORD_LIMIT_BYTES, 0))
    finally:
        os.close(descriptor)
    directory, name = os.path.split(told["path"])
    if directory != pool or name in ("", ".", ".."):
        raise ValueError("the published file does not lie directly in this pool")
    descriptor, status = _open(name, pool_fd)
    # as `download.store.record.Record.matches`
    if (told.get("sizeBytes"), told.get("mtimeNs"), told.get("inode")) != (
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
    ):
        os.close(descriptor)
        raise ValueError("the record is of another file")
    return descriptor


def _parsed(data: bytes) -> Mapping[str, Any]:
    """A record (`download.store.record`); its models would be most of this process's memory. Raises ValueError."""
    try:
        told = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(told, dict) or told.get("version") != 1 or not isinstance(told.get("path"), str):
        raise ValueError("it is no record")
    if "\0" in told["path"]:
        raise ValueError("its path has a NUL")
    return told
