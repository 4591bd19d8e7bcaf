"""The child process that touches one pool, so that a hung file system freezes only this process.

Started by `worker` as `python -m directdownload.agent.pools.prober PATH`. Requests are lines of JSON on standard input,
answers are JSON after four bytes of length on standard output. It ends with its parent (end of input). All reads are
bounded; no link below the pool's path is followed. It imports little, because it must start fast and stay small.

All pools share the agent's memory, and others can write into a pool. So a work directory over its `Budget` is not read,
and its pool is not usable until somebody has cleared it.

An unmounted pool shows an empty directory at the same path. So every request except `facts` names the device of the
pool, and fails if the path has another one now: files missing below a mount point are not lost.
"""

import errno
import json
import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from directdownload.hostfiles import locks, reading

LENGTH = struct.Struct(">I")
#: Names of a pool's work directory that are read; further names are ignored.
ENTRY_LIMIT = 5000
#: A copy has a record and, during its download, up to five more files: 20,000 are ten for each of 2,000 copies.
NAMES_LIMIT = 20_000
#: Limit of journals and records together: 2 KiB for each of 2,000 copies; a usual record takes a third of that.
CONTENT_LIMIT_BYTES = 4 * 1024 * 1024
#: Suffixes of files that a running download holds locked.
PART_SUFFIX, LOCK_SUFFIX = ".part", ".lock"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Flags for the pool itself: it may be a link, and root without capabilities may only pass through it.
_POOL = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class OverBudgetError(Exception):
    """The work directory holds more than its budget."""


class Budget(NamedTuple):
    """The limits of one pool's work directory. Bytes count as sent to the agent, in JSON."""

    names: int = NAMES_LIMIT
    content_bytes: int = CONTENT_LIMIT_BYTES

    @property
    def name_bytes(self) -> int:
        return self.content_bytes // 2


def facts(path: str, work_directory: str, record_suffix: str) -> dict[str, Any]:
    """The fields of `monitor.Facts`."""
    try:
        status = os.stat(path)
        state = os.statvfs(path)
    except OSError as error:
        return {"error_number": error.errno or -1}
    directory = stat.S_ISDIR(status.st_mode)
    return {
        "directory": directory,
        "real_path": os.path.realpath(path),
        "device": status.st_dev,
        "capacity_bytes": state.f_blocks * state.f_frsize,
        "available_bytes": state.f_bavail * state.f_frsize,
        "inodes_free": state.f_favail,
        "recorded": directory and _recorded(path, work_directory, record_suffix),
    }


def _recorded(path: str, work_directory: str, record_suffix: str) -> bool:
    try:
        pool = os.open(path, _POOL)
    except OSError:
        return False
    try:
        return any(name.endswith(record_suffix) for name in _names(pool, work_directory, Budget()))
    except OverBudgetError:
        # a directory this full is not an empty mount point
        return True
    except OSError:
        return False
    finally:
        os.close(pool)


class Scanner:
    """Small files of a pool's work directory: all names, and the content of those that changed since the last scan."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, int]] = {}
        #: bytes of each file's content, as sent
        self._sizes: dict[str, int] = {}

    def scan(
        self, pool: int, work_directory: str, suffixes: list[str], budget: Sequence[int] = Budget()
    ) -> dict[str, Any]:
        """`pool` is the open directory. `complete` is False if there are more names than ENTRY_LIMIT.

        Raises OverBudgetError; the next scan then sends everything again.
        """
        try:
            return self._scan(pool, work_directory, tuple(suffixes), Budget(*budget))
        except OverBudgetError:
            self._known, self._sizes = {}, {}
            raise

    def _scan(self, pool: int, work_directory: str, suffixes: tuple[str, ...], budget: Budget) -> dict[str, Any]:
        names = sorted(name for name in _names(pool, work_directory, budget) if name.endswith(suffixes))
        present: dict[str, tuple[int, int, int]] = {}
        changed: dict[str, str] = {}
        sizes: dict[str, int] = {}
        left = budget.content_bytes
        if names:
            descriptor = os.open(work_directory, _DIRECTORY, dir_fd=pool)
            try:
                for name in names[:ENTRY_LIMIT]:
                    try:
                        state = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since it was listed
                    present[name] = (state.st_ino, state.st_mtime_ns, state.st_size)
                    if self._known.get(name) != present[name]:
                        # by descriptor, so that nobody can replace the work directory by a link meanwhile
                        data = reading.read_small(f"/proc/self/fd/{descriptor}/{name}")
                        changed[name] = (data or b"").decode(errors="replace")
                        sizes[name] = len(json.dumps(changed[name]))
                    else:
                        sizes[name] = self._sizes[name]
                    left -= sizes[name]
                    if left < 0:
                        raise OverBudgetError(f"more than {budget.content_bytes} bytes of journals and records")
            finally:
                os.close(descriptor)
        self._known, self._sizes = present, sizes
        return {"present": sorted(present), "changed": changed, "complete": len(names) <= ENTRY_LIMIT}


def _names(pool: int, work_directory: str, budget: Budget) -> list[str]:
    """All names in the work directory; empty before the first download.

    Raises OverBudgetError at too many names, and OSError for other failures: unreadable files are not lost.
    """
    try:
        descriptor = os.open(work_directory, _DIRECTORY, dir_fd=pool)
    except OSError as error:
        # no directory: absent, a link, something else
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    try:
        names: list[str] = []
        left = budget.name_bytes
        with os.scandir(descriptor) as entries:
            for entry in entries:
                left -= len(json.dumps(entry.name))
                if len(names) >= budget.names or left < 0:
                    raise OverBudgetError(f"more than {budget.names} names, or {budget.name_bytes} bytes of names")
                names.append(entry.name)
        return names
    finally:
        os.close(descriptor)


def look(pool: int, names: list[str]) -> dict[str, Any]:
    """Size, mtime (ns) and inode of regular files directly in the pool; None for other kinds and missing files."""
    found: dict[str, list[int] | None] = {}
    for name in names:
        found[name] = None
        try:
            state = os.stat(name, dir_fd=pool, follow_symlinks=False)
        except (FileNotFoundError, ValueError):
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            continue
        if stat.S_ISREG(state.st_mode):
            found[name] = [state.st_size, state.st_mtime_ns, state.st_ino]
    return {"files": found}


def list_leftovers(
    pool: int, work_directory: str, suffixes: list[str], idle_seconds: float, budget: Sequence[int] = Budget()
) -> dict[str, Any]:
    """Regular files of the work directory: allocated size, mtime, and whether a process holds it locked.

    Checks the locks only of files that were idle for `idle_seconds`: a check delays a download for a moment.
    """
    found: dict[str, tuple[int, float, bool]] = {}
    listed = _names(pool, work_directory, Budget(*budget))
    names = sorted(name for name in listed if name.endswith(tuple(suffixes)))[:ENTRY_LIMIT]
    if names:
        descriptor = os.open(work_directory, _DIRECTORY, dir_fd=pool)
        try:
            for name in names:
                try:
                    state = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(state.st_mode):
                    idle = time.time() - state.st_mtime >= idle_seconds
                    held = name.endswith((PART_SUFFIX, LOCK_SUFFIX)) and (not idle or _held(descriptor, name))
                    found[name] = state.st_blocks * 512, state.st_mtime, held
        finally:
            os.close(descriptor)
    return {"leftovers": found}


def _held(directory: int, name: str) -> bool:
    """Whether a process holds the lock; True if that cannot be determined."""
    try:
        part = reading.open_any(name, dir_fd=directory)
        try:
            return not locks.take(part, shared=True)
        finally:
            os.close(part)
    except OSError:
        return True


def sweep(pool: int, work_directory: str, leftovers: Sequence[dict[str, Any]], before: float) -> dict[str, Any]:
    """Removes the files of each leftover that has not changed since `before` (seconds of the epoch).

    Holds the lock of a download meanwhile: a download that starts then waits, and begins anew.
    """
    removed: list[str] = []
    failed = ""
    directory = os.open(work_directory, _DIRECTORY, dir_fd=pool)
    try:
        for each in leftovers:
            try:
                removed += _remove(directory, each["names"], each["lock"], before)
            except (FileNotFoundError, FileExistsError):
                continue  # another host was faster, or a download has begun
            except OSError as error:
                failed = f"{each['names'][0]}: {error.strerror}"
    finally:
        os.close(directory)
    return {"removed": removed, "error": failed}


def _remove(directory: int, names: Sequence[str], lock: str, before: float) -> list[str]:
    if not _idle_since(directory, names, before):
        return []
    made = lock not in names
    access = os.O_RDWR | (os.O_CREAT | os.O_EXCL if made else 0)
    descriptor = reading.open_any(lock, access, dir_fd=directory)
    try:
        if not (locks.take(descriptor) and locks.same_file(descriptor, lock, dir_fd=directory)):
            return []
        removed = _unlink(directory, names) if _idle_since(directory, names, before) else []
        if made:
            _unlink(directory, [lock])
        return removed
    finally:
        os.close(descriptor)


def _idle_since(directory: int, names: Iterable[str], before: float) -> bool:
    for name in names:
        try:
            state = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(state.st_mode) or state.st_mtime > before:
            return False
    return True


def _unlink(directory: int, names: Iterable[str]) -> list[str]:
    removed = []
    for name in names:
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        removed.append(name)
    return removed


def main() -> None:
    path = sys.argv[1]
    scanner = Scanner()
    operations: dict[str, Callable[..., dict[str, Any]]] = {
        "scan": scanner.scan,
        "files": look,
        "leftovers": list_leftovers,
        "sweep": sweep,
    }
    for line in sys.stdin.buffer:
        request = json.loads(line)
        operation = request.pop("operation")
        answer: dict[str, Any]
        try:
            if operation == "facts":
                answer = facts(path, **request)
            else:
                pool = os.open(path, _POOL)
                try:
                    if os.fstat(pool).st_dev == request.pop("device"):
                        answer = operations[operation](pool, **request)
                    else:
                        answer = {"failed": "the path has another file system than before"}
                finally:
                    os.close(pool)
        except OverBudgetError as error:
            answer = {"over_budget": str(error)}
        except OSError as error:
            answer = {"failed": f"{error.strerror}: {error.filename}"}
        data = json.dumps(answer).encode()
        sys.stdout.buffer.write(LENGTH.pack(len(data)) + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
