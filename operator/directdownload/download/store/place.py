"""The paths of a file and of everything needed until it is published.

Part and journal are on the same file system as the final name, so that publishing is one rename. Called by the job
verbs (a pool) and by `directdownload fetch` (a single file).
"""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from directdownload.download import lock
from directdownload.download.errors import StorageError, storage_error
from directdownload.download.guard import Guard
from directdownload.download.store import staging
from directdownload.hostfiles import locks, reading, writing
from directdownload.resources.naming import JOURNAL_SUFFIX, PIECES_SUFFIX, RECORD_SUFFIX, WORK_DIRECTORY
from directdownload.resources.reasons import Reason

if TYPE_CHECKING:
    from directdownload.download.peers.shared import Shared
    from directdownload.download.transfer.journal import Journal


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Absolute paths; `record` is empty where no reader needs it, `lock` where no other process writes it."""

    final: str
    part: str
    journal: str
    #: the file that an archive is unpacked into
    out: str
    record: str = ""
    #: held while the file under the final name and its record change
    lock: str = ""
    #: of this host alone, not in the pool; empty where no seal is kept
    seal: str = ""
    #: the same for the journal; None where no other process could have written it
    journal_seal: str | None = None
    #: the piece log, for other hosts; it stays beside the record. Empty where none is kept
    pieces: str = ""

    @classmethod
    def in_pool(cls, pool_path: str, file_name: str, template_uid: str, host: str, *, seals: str = "") -> Self:
        """The place of a template in a pool. Part and journal carry the host: no host writes another's part.

        `seals` is the directory in which this host keeps its seals; empty for none.
        """
        from directdownload.download.store import seal

        work = os.path.join(pool_path, WORK_DIRECTORY)
        stem = os.path.join(work, f"{template_uid}.{host}")
        final = os.path.join(pool_path, file_name)
        return cls(
            final=final,
            part=f"{stem}.part",
            journal=f"{stem}{JOURNAL_SUFFIX}",
            out=f"{stem}.out",
            record=os.path.join(work, f"{template_uid}{RECORD_SUFFIX}"),
            lock=os.path.join(work, f"{template_uid}.lock"),
            seal=seal.path_of(seals, final),
            journal_seal=seal.path_of(seals, f"{stem}{JOURNAL_SUFFIX}"),
            pieces=f"{stem}{PIECES_SUFFIX}",
        )

    @classmethod
    def beside(cls, output: str) -> Self:
        """The place of a single file: hidden names beside it, removed at the end."""
        directory, name = os.path.split(os.path.abspath(output))
        return cls(
            final=os.path.join(directory, name),
            part=os.path.join(directory, f".{name}.part"),
            journal=os.path.join(directory, f".{name}{JOURNAL_SUFFIX}"),
            out=os.path.join(directory, f".{name}.out"),
        )

    @property
    def directory(self) -> str:
        return os.path.dirname(self.final)

    def prepare(self) -> None:
        """Check the directory and make the work directory in it. Raises StorageError(PoolNotReady) if it is absent."""
        if not os.path.isdir(self.directory):
            raise StorageError(
                Reason.POOL_NOT_READY, f"directory {self.directory} does not exist; create it, or mount the pool there"
            )
        work = os.path.dirname(self.part)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(work, 0o700)
            if not stat.S_ISDIR(os.lstat(work).st_mode):
                raise StorageError(Reason.WRITE_FAILED, f"{work} is not a directory; remove it")
        except OSError as error:
            raise storage_error(error, work, "create") from error


class Part:
    """The open, locked part. Its holder is the only writer to this place on this host."""

    def __init__(self, place: Place, descriptor: int, *, waited: bool) -> None:
        self.place = place
        self.descriptor = descriptor
        #: another process held it before and may have published meanwhile
        self.waited = waited
        #: in the order of writing, the last one first
        self._journals: tuple[bytes, ...] = ()

    @classmethod
    def acquire(cls, place: Place, guard: Guard) -> Self:
        """Open or create the part and lock it; waits briefly for another holder (`lock.acquire`)."""
        descriptor, waited = lock.acquire(place.part, guard)
        return cls(place, descriptor, waited=waited)

    @staticmethod
    def tidy(place: Place) -> None:
        """Discard the leftovers of an ended attempt; the files of a running one stay."""
        if any(map(os.path.lexists, (place.part, place.journal, place.out))):
            descriptor = lock.try_acquire(place.part)
            if descriptor is not None:
                with Part(place, descriptor, waited=False) as part:
                    part.discard(pieces=False)
        if place.lock and os.path.lexists(place.lock) and (descriptor := lock.try_acquire(place.lock)) is not None:
            try:
                writing.remove(place.lock)
            except OSError as error:
                raise storage_error(error, place.lock, "remove") from error
            finally:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    @contextlib.contextmanager
    def staged(self, shared: "Shared | None" = None) -> Iterator[staging.Staging]:
        """The files that a fetch writes, within this context; with `shared` also the piece log of that content."""
        place, sealed = self.place, self.place.journal_seal
        data, state = reading.read_small(place.journal), os.fstat(self.descriptor)
        earlier, proven = None, sealed is None
        if data is not None:
            from directdownload.download.store import seal
            from directdownload.download.transfer import journal

            self._journals, earlier = (data,), journal.parse_journal(data)
            proven = sealed is None or seal.vouches_for(sealed, data, state)
        staged = staging.Staging(
            place.directory,
            staging.StagedFile.of(place.part, self.descriptor),
            place.out,
            make_out=self._new_out,
            earlier=earlier,
            proven=proven,
            forget=self._forget,
            keep=self._keep,
        )
        if shared is not None:
            from directdownload.download.peers import logwriter

            staged.pieces = logwriter.open_log(place.pieces, shared.header)
        try:
            yield staged
        finally:
            if staged.out is not None and locks.same_file(staged.out.descriptor, place.out):
                # it was not published, and the next attempt unpacks again
                with contextlib.suppress(OSError):
                    writing.remove(place.out)
            staged.close()

    def _forget(self) -> None:
        path = self.place.journal
        try:
            if writing.remove(path):
                writing.sync_directory(os.path.dirname(path))
        except OSError as error:
            raise storage_error(error, path, "remove") from error

    def _keep(self, kept: "Journal") -> None:
        from directdownload.download.store import seal

        place = self.place
        # first, so that the seal covers either journal that a kill may leave
        self._journals = (kept.encoded(), *self._journals[:1])
        seal.keep_journals(place.journal_seal or "", self._journals, os.fstat(self.descriptor))
        try:
            writing.write_atomically(place.journal, self._journals[0])
        except OSError as error:
            raise storage_error(error, place.journal, "write") from error

    def _new_out(self) -> staging.StagedFile:
        out = self.place.out
        try:
            writing.remove(out)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return staging.StagedFile.of(out, os.open(out, flags, 0o600))
        except OSError as error:
            raise storage_error(error, out, "create") from error

    def discard(self, *, pieces: bool = True) -> None:
        """Remove everything of this download; without `pieces` its piece log stays, which a published file keeps."""
        try:
            if pieces and os.path.lexists(self.place.pieces):
                # of use to other hosts only
                with contextlib.suppress(OSError):
                    writing.remove(self.place.pieces)
            writing.remove(self.place.journal)
            writing.remove(self.place.out)
            if self.place.journal_seal:
                # a remaining seal would still be believed
                writing.remove(self.place.journal_seal)
            if locks.same_file(self.descriptor, self.place.part):
                writing.remove(self.place.part)
        except OSError as error:
            raise storage_error(error, self.place.part, "remove") from error
