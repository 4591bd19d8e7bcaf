"""The child process that touches one pool, so that a hung file system freezes only this process.

Started by `worker` as `python -m directdownload.agent.prober PATH`. Requests are lines of JSON on standard input,
answers JSON after four bytes of length on standard output. It ends with its parent (end of input). Everything read is
bounded; no link is followed below the pool's own path. Imports little: it must start fast and stay small.
"""

import errno
import json
import os
import stat
import struct
import sys
from collections.abc import Iterable
from typing import Any

from directdownload.download import files

LENGTH = struct.Struct(">I")
#: Of journals and records in one pool; what lies beyond is not looked at.
ENTRY_LIMIT = 5000


def facts(path: str) -> dict[str, Any]:
    """The fields of `storage.Facts`."""
    try:
        directory = stat.S_ISDIR(os.stat(path).st_mode)
        state = os.statvfs(path)
    except OSError as error:
        return {"error_number": error.errno or -1}
    return {
        "directory": directory,
        "real_path": os.path.realpath(path),
        "capacity_bytes": state.f_blocks * state.f_frsize,
        "available_bytes": state.f_bavail * state.f_frsize,
        "inodes_free": state.f_favail,
    }


class Scanner:
    """Small files of a pool's work directory: all names, and the content of those that changed since the last scan."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[str, tuple[int, int, int]] = {}

    def scan(self, work_directory: str, suffixes: list[str]) -> dict[str, Any]:
        present: dict[str, tuple[int, int, int]] = {}
        changed: dict[str, str] = {}
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(os.path.join(self._path, work_directory), flags)
        except OSError:
            # no download has been here yet; a pool that is gone shows in the facts
            descriptor = -1
        if descriptor >= 0:
            try:
                for name in self._names(descriptor, tuple(suffixes)):
                    try:
                        state = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since it was listed
                    present[name] = (state.st_ino, state.st_mtime_ns, state.st_size)
                    if self._known.get(name) != present[name]:
                        # the descriptor in the path: the work directory cannot be exchanged for a link meanwhile
                        data = files.read_small(f"/proc/self/fd/{descriptor}/{name}")
                        changed[name] = (data or b"").decode(errors="replace")
            finally:
                os.close(descriptor)
        self._known = present
        return {"present": sorted(present), "changed": changed}

    def _names(self, descriptor: int, suffixes: tuple[str, ...]) -> Iterable[str]:
        return sorted(name for name in os.listdir(descriptor) if name.endswith(suffixes))[:ENTRY_LIMIT]


def look(path: str, names: list[str]) -> dict[str, list[int] | None]:
    """Size, mtime and inode of regular files directly in the pool; None for what is absent or something else."""
    found: dict[str, list[int] | None] = {}
    for name in names:
        found[name] = None
        try:
            state = os.lstat(os.path.join(path, name))
        except (FileNotFoundError, ValueError):
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            continue
        if stat.S_ISREG(state.st_mode):
            found[name] = [state.st_size, state.st_mtime_ns, state.st_ino]
    return found


def main() -> None:
    path = sys.argv[1]
    scanner = Scanner(path)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            match request.pop("operation"):
                case "facts":
                    answer = facts(path)
                case "scan":
                    answer = scanner.scan(**request)
                case _:
                    answer = {"files": look(path, **request)}
        except OSError as error:
            answer = {"failed": f"{error.strerror}: {error.filename}"}
        data = json.dumps(answer).encode()
        sys.stdout.buffer.write(LENGTH.pack(len(data)) + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
