"""A file system that passes every call through to a directory and fails on command, like a full or dying disk.

Used by the tests of the engine. It runs as FUSE in its own process, which needs /dev/fuse and libfuse. A small file
lists the faults, so that a test can change them while the file system is mounted.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from tests.world import checkout
from tests.world.waiting import until_started

from directdownload.hostfiles import writing

_PUNCH_HOLE = 2


@dataclasses.dataclass(frozen=True)
class Fault:
    """Calls of `operation` on paths that end in `suffix` fail with an errno: `times`, after `skip` successes."""

    operation: str
    number: int
    suffix: str = ""
    skip: int = 0
    times: int = 1_000_000


class FaultyFileSystem:
    """Mounted at `path` from construction until `stop`; the files are in `backing`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path, self.backing = directory / "mounted", directory / "backing"
        self._rules = directory / "rules.json"
        for made in (self.path, self.backing):
            made.mkdir()
        self.fail()
        arguments = [str(path) for path in (self.path, self.backing, self._rules)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.world.faulty_fs", *arguments],
            env=checkout.environment(),
            stderr=subprocess.PIPE,
        )

        def words() -> str:
            self._process.kill()
            return f"it was not mounted: {self._process.communicate()[1].decode()}"

        until_started(self._process, lambda: os.path.ismount(self.path), words)

    def fail(self, *faults: Fault) -> None:
        """Replace the faults by these; counting starts from zero."""
        new = self._rules.with_suffix(".new")
        new.write_text(json.dumps([dataclasses.asdict(fault) for fault in faults]))
        new.replace(self._rules)

    def stop(self) -> None:
        # lazily: a failed test may have left files open
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Rules:
    """The faults of the file, with a count of calls for each."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version = 0
        self._faults: list[Fault] = []
        self._counts: list[int] = []

    def check(self, operation: str, path: str) -> None:
        """Raise OSError if a fault matches."""
        if (version := os.stat(self._path).st_ino) != self._version:
            faults = json.loads(pathlib.Path(self._path).read_text())
            self._version, self._faults = version, [Fault(**fault) for fault in faults]
            self._counts = [0] * len(faults)
        for index, fault in enumerate(self._faults):
            if fault.operation == operation and path.endswith(fault.suffix):
                self._counts[index] += 1
                if fault.skip < self._counts[index] <= fault.skip + fault.times:
                    raise OSError(fault.number, os.strerror(fault.number))


class _PassThrough:
    """The callbacks of FUSE; paths begin with a slash."""

    use_ns = True

    def __init__(self, backing: str, rules: _Rules) -> None:
        self._backing = backing
        self._check = rules.check

    def _real(self, path: str) -> str:
        return self._backing + path

    def access(self, path: str, mode: int) -> int:
        if not os.access(self._real(path), mode):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return 0

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        state = os.lstat(self._real(path)) if fh is None else os.fstat(fh)
        names = ("mode", "nlink", "uid", "gid", "size", "ino", "blocks")
        times = {f"st_{name}": getattr(state, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return {**{f"st_{name}": getattr(state, f"st_{name}") for name in names}, **times}

    def readdir(self, path: str, _fh: int) -> list[tuple[str, dict[str, int], int]]:
        return [(name, self.getattr(os.path.join(path, name)), 0) for name in os.listdir(self._real(path))]

    def statfs(self, path: str) -> dict[str, int]:
        state = os.statvfs(self._real(path))
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "flag", "frsize", "namemax")
        return {f"f_{name}": getattr(state, f"f_{name}") for name in names}

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._real(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._real(path))
        return 0

    def unlink(self, path: str) -> int:
        self._check("unlink", path)
        os.unlink(self._real(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        self._check("rename", new)
        os.rename(self._real(old), self._real(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._real(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._real(path), uid, gid)
        return 0

    def create(self, path: str, mode: int) -> int:
        self._check("create", path)
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        # the binding also reads a file that was opened only for writing
        return os.open(self._real(path), flags & ~(os.O_ACCMODE | os.O_DIRECT) | os.O_RDWR)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._check("read", path)
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._check("write", path)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._check("truncate", path)
        os.truncate(self._real(path) if fh is None else fh, length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._check("fallocate", path)
        if not writing.allocate(fh, offset, size, punch=bool(mode & _PUNCH_HOLE)):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return 0

    def fsync(self, path: str, _datasync: int, _fh: int) -> int:
        # no real sync: no file here must outlive the machine
        self._check("fsync", path)
        return 0

    def fsyncdir(self, path: str, _datasync: int, _fh: int) -> int:
        self._check("fsyncdir", path)
        return 0

    def release(self, _path: str, fh: int) -> int:
        os.close(fh)
        return 0


def _main(mounted: str, backing: str, rules: str) -> None:
    import mfusepy  # type: ignore[import-untyped]

    options: dict[str, Any] = {"use_ino": True, "attr_timeout": 0, "entry_timeout": 0, "nothreads": True}
    if mfusepy.fuse_version_major == 2:
        options["big_writes"] = True
    with contextlib.suppress(KeyboardInterrupt):
        mfusepy.FUSE(_PassThrough(backing, _Rules(rules)), mounted, foreground=True, **options)


if __name__ == "__main__":
    _main(*sys.argv[1:])
