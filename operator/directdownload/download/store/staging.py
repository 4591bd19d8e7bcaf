"""The open files that a fetch writes before it publishes.

Made by `place` for its holder. Transfer, unpacking and inspection work on these, so they also run in a process that can
open no files of the pool (`sandbox`). A path here is for messages only.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from directdownload.download.errors import storage_error
from directdownload.download.store import writer

if TYPE_CHECKING:
    from directdownload.download.peers.logwriter import LogWriter
    from directdownload.download.transfer.journal import Journal


class StagedFile:
    """A file open for reading and writing, optionally also past the page cache. `close` closes both."""

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
        """A new descriptor for the caller, past the page cache; None where that is impossible."""
        return os.dup(self.direct) if self.direct is not None else None

    def again(self) -> Self:
        """The same file, opened once more."""
        return type(self).of(self.path, os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR | os.O_CLOEXEC))

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Staging:
    """`part` takes the bytes as served. The content of an archive goes into `unpacked`, which is made on demand.

    `earlier` is the journal of the part: an earlier attempt's, then the last one kept. Unless it is `proven`, others
    may have written it: then only a digest shows whether the part matches it. `forget` removes the journal durably,
    `keep` replaces it; both raise StorageError.
    """

    def __init__(
        self,
        directory: str,
        part: StagedFile,
        out_path: str,
        *,
        make_out: Callable[[], StagedFile],
        earlier: "Journal | None",
        proven: bool,
        forget: Callable[[], object],
        keep: "Callable[[Journal], object]",
    ) -> None:
        self.directory = directory
        self.part = part
        self.out_path = out_path
        self.out: StagedFile | None = None
        self._make_out = make_out
        self.earlier = earlier
        self.proven = proven
        #: the piece log of a download that other hosts share; None if it has none
        self.pieces: LogWriter | None = None
        self._forget = forget
        self._keep = keep

    def unpacked(self) -> StagedFile:
        """The file for the content of an archive, empty at first, the same one each time. Raises StorageError."""
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
        """Start from zero: remove the journal first, then its bytes."""
        self.forget()
        if self.pieces is not None:
            self.pieces.lost_all()
        try:
            os.ftruncate(self.part.descriptor, 0)
        except OSError as error:
            raise storage_error(error, self.part.path, "empty") from error

    def forget(self) -> None:
        """Remove the journal, which is no longer true."""
        self._forget()
        self.earlier = None

    def keep(self, journal: "Journal") -> None:
        """Write the journal; its bytes are on disk."""
        self._keep(journal)
        self.earlier, self.proven = journal, True

    def close(self) -> None:
        """Close the files opened here; the part's holder closes the part."""
        if self.part.direct is not None:
            os.close(self.part.direct)
        if self.out is not None:
            self.out.close()
        if self.pieces is not None:
            self.pieces.close()
