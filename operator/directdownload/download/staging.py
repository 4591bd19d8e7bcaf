"""The open files that a fetch writes before anything gets its name.

Made by `place` for its holder. Whoever moves, unpacks and inspects foreign bytes works on these: a process that can
open nothing in the pool can do so as well (`sandbox`). A path here is for messages only.
"""

import os
from collections.abc import Callable
from typing import Self

from directdownload.download import writer
from directdownload.download.errors import storage_error
from directdownload.download.journal import Journal


class StagedFile:
    """A file open for reading and writing, and perhaps once more past the page cache. `close` closes both."""

    def __init__(self, path: str, descriptor: int, direct: int | None = None) -> None:
        self.path = path
        self.descriptor = descriptor
        self.direct = direct

    @classmethod
    def of(cls, path: str, descriptor: int) -> Self:
        return cls(path, descriptor, writer.open_direct(descriptor, os.O_RDWR))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.descriptor, *((self.direct,) if self.direct is not None else ()))

    def reopen(self) -> int | None:
        """A descriptor of the caller's own past the page cache; None where that cannot be."""
        return os.dup(self.direct) if self.direct is not None else None

    def again(self) -> Self:
        """The same file, opened once more."""
        return type(self).of(self.path, os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR | os.O_CLOEXEC))

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Staging:
    """`part` takes the bytes as served. What an archive holds goes into `unpacked`, which is made when it is asked for.

    `earlier` is the journal of what lies in the part: an earlier attempt's, then that which was kept last. Unless it is
    `proven` others may have written it: then only a digest tells whether the part holds what it says. `forget` removes
    the journal durably, `keep` replaces it; both raise StorageError.
    """

    def __init__(
        self,
        directory: str,
        part: StagedFile,
        out_path: str,
        *,
        make_out: Callable[[], StagedFile],
        earlier: Journal | None,
        proven: bool,
        forget: Callable[[], object],
        keep: Callable[[Journal], object],
    ) -> None:
        self.directory = directory
        self.part = part
        self.out_path = out_path
        self.out: StagedFile | None = None
        self._make_out = make_out
        self.earlier = earlier
        self.proven = proven
        self._forget = forget
        self._keep = keep

    def unpacked(self) -> StagedFile:
        """An empty file at first, the same one each time; raises StorageError."""
        if self.out is None:
            self.out = self._make_out()
        return self.out

    @property
    def allocated_bytes(self) -> int:
        return os.fstat(self.part.descriptor).st_blocks * 512

    @property
    def length_bytes(self) -> int:
        return os.fstat(self.part.descriptor).st_size

    def empty(self) -> None:
        """Begin from zero: first the journal goes, then the bytes that it spoke of."""
        self.forget()
        try:
            os.ftruncate(self.part.descriptor, 0)
        except OSError as error:
            raise storage_error(error, self.part.path, "empty") from error

    def forget(self) -> None:
        """What the journal said is true no longer."""
        self._forget()
        self.earlier = None

    def keep(self, journal: Journal) -> None:
        """What it says is on disk."""
        self._keep(journal)
        self.earlier, self.proven = journal, True

    def close(self) -> None:
        """What was opened for this alone: the part's holder closes the part."""
        if self.part.direct is not None:
            os.close(self.part.direct)
        if self.out is not None:
            self.out.close()
