"""The child process that touches one pool, so that a hung file system freezes only this process.

Started by `worker` as `python -m directdownload.agent.prober PATH`. Requests are lines of JSON on standard input,
answers JSON after four bytes of length on standard output. It ends with its parent (end of input). Everything read is
bounded; no link is followed below the pool's own path. Imports little: it must start fast and stay small.

The agent has one memory for all pools, and whoever may write a pool decides what lies in it. So a work directory that
holds more than its `Budget` is not looked at, and its pool is not usable until somebody has cleared it.

A pool that is unmounted shows an empty directory under the same path. So every request but `facts` says on which device
the pool was found, and is refused when another one lies there now: what is missing below a mount point is not lost.
"""

import errno
import fcntl
import json
import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from directdownload.download import files

LENGTH = struct.Struct(">I")
#: Of names in a pool's work directory; what lies beyond is not looked at.
ENTRY_LIMIT = 5000
#: A copy has a record, and while it is made up to five files more: 20,000 are ten for each of 2,000 copies.
NAMES_LIMIT = 20_000
#: Of journals and records together: 2 KiB for each of 2,000 copies, of which a usual record takes a third.
CONTENT_LIMIT_BYTES = 4 * 1024 * 1024
#: Files that a download holds locked while it is at work.
PART_SUFFIX, LOCK_SUFFIX = ".part", ".lock"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Of the pool itself, which may be a link, and closed to root without capabilities but for passing through.
_POOL = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class OverBudgetError(Exception):
    """The work directory holds more than is looked at."""


class Budget(NamedTuple):
    """What the work directory of one pool may hold. Bytes count as they go to the agent, in JSON."""

    names: int = NAMES_LIMIT
    content_bytes: int = CONTENT_LIMIT_BYTES

    @property
    def name_bytes(self) -> int:
        return self.content_bytes // 2


def facts(path: str, work_directory: str, record_suffix: str) -> dict[str, Any]:
    """The fields of `storage.Facts`."""
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
        # so full a directory is none that the pool's mount hides
        return True
    except OSError:
        return False
    finally:
        os.close(pool)


class Scanner:
    """Small files of a pool's work directory: all names, and the content of those that changed since the last scan."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, int]] = {}
        #: of the content, as it was sent
        self._sizes: dict[str, int] = {}

    def scan(
        self, pool: int, work_directory: str, suffixes: list[str], budget: Sequence[int] = Budget()
    ) -> dict[str, Any]:
        """`pool` is the open directory. `complete` is False when there are more than are looked at.

        Raises OverBudgetError, after which all is told anew.
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
                        # the descriptor in the path: the work directory cannot be exchanged for a link meanwhile
                        data = files.read_small(f"/proc/self/fd/{descriptor}/{name}")
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
    """None while no download has been here. Any other failure is one: what cannot be read is not lost.

    Raises OverBudgetError as soon as there are too many.
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
    """Size, mtime and inode of regular files directly in the pool; None for what is absent or something else."""
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

    Only what was idle for `idle_seconds` is asked for its lock: asking makes a download wait for a moment.
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
    """Also when it cannot be told."""
    try:
        part = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
        try:
            fcntl.flock(part, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(part)
    except OSError:
        return True
    return False


def sweep(pool: int, work_directory: str, leftovers: Sequence[dict[str, Any]], before: float) -> dict[str, Any]:
    """Removes what `leftovers.Leftover` names and what has not changed since `before` (seconds of the epoch).

    Under the lock that a download would hold: one that starts meanwhile waits, and begins anew.
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
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT | os.O_EXCL if made else 0)
    descriptor = os.open(lock, flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(lock, dir_fd=directory, follow_symlinks=False)):
            return []
        removed = _unlink(directory, names) if _idle_since(directory, names, before) else []
        if made:
            _unlink(directory, [lock])
        return removed
    except BlockingIOError:
        return []
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
