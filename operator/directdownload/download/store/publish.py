"""Giving a verified file its final name, and recognising one that has it already.

Called by the engine and by the check of a published file. A file under its final name is always complete and verified:
the name appears by one rename, after everything is on disk. Every change of the file or its record holds the place's
lock, so that they match even when two hosts publish into a shared pool at once.
"""

import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence

from directdownload.download import lock
from directdownload.download.checksum import Hasher, first_mismatch
from directdownload.download.errors import DAMAGED, StorageError, storage_error
from directdownload.download.guard import Guard
from directdownload.download.images import ImageInfo
from directdownload.download.store import seal
from directdownload.download.store.place import Part, Place
from directdownload.download.store.record import Record, read_record
from directdownload.download.terms import PoolFile
from directdownload.hostfiles import locks, reading, writing
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason

#: how often a file that others publish under the same name is read, before it is replaced unread
_LOOKS = 3
_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link"}


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """The file to publish: the part, or the file unpacked from it."""

    descriptor: int
    path: str


def find_present(
    place: Place,
    expected: Sequence[Checksum],
    guard: Guard,
    *,
    owner: Mapping[str, str],
    inspect: Callable[[int, int], ImageInfo],
) -> Record | None:
    """The record of the file under the final name, if it is the wanted one; None if it must be fetched.

    It is accepted at once if this host's seal matches and the file is unchanged since; otherwise it is hashed and
    inspected. Without a checksum to compare with, it is not accepted. `owner` are the record's fields that name the
    owner of the copy. Raises StorageError if the name is not a regular file.
    """
    if regular_file(place.final) is None:
        return None
    try:
        descriptor = reading.open_any(place.final)
    except OSError as error:
        raise storage_error(error, place.final, "read") from error
    try:
        found = _recognise(place, descriptor, expected, guard, inspect)
        if found is None:
            return None
        record, state = found
        if (record.placement, record.placement_uid) != (owner["placement"], owner["placement_uid"]):
            # Retained, and deployed again: the agent finds the placement of the file in the record.
            record = record.model_copy(update=owner)
        record_present(place, record, state, guard)
        return record
    except OSError as error:
        if error.errno in DAMAGED:
            # a fresh copy gets other blocks
            return None
        raise storage_error(error, place.final, "read") from error
    finally:
        os.close(descriptor)


def _recognise(
    place: Place,
    descriptor: int,
    expected: Sequence[Checksum],
    guard: Guard,
    inspect: Callable[[int, int], ImageInfo],
) -> tuple[Record, os.stat_result] | None:
    """The record of the open file, with the state that it describes, if the file is the expected one."""
    known, state = seal.read(place.seal, place.final), os.fstat(descriptor)
    if known is not None and known.matches(state) and known.meets(expected):
        return known.record(), state
    if not expected:
        return None
    if known is None and (recorded := read_record(place.record)) is not None and recorded.served_digest:
        # Unpacked from an archive, so its bytes are not the expected ones. A forged record only causes a download.
        return None
    wanted = known.wanted(expected) if known is not None else expected
    state, digests = hash_open(descriptor, wanted, guard)
    if first_mismatch(digests, wanted) is not None:
        return None
    info = inspect(descriptor, state.st_size)
    if known is not None and wanted is not expected:
        return known.record().verified(state), state
    record = Record.of(state, path=place.final, digest=str(digests[Algorithm.SHA256]), checksum=str(expected[0]))
    return record.model_copy(update={"format": info.format, "virtual_size_bytes": info.virtual_size_bytes}), state


def regular_file(path: str) -> os.stat_result | None:
    """The state of the file at `path`, None if absent. Raises StorageError if it is not a regular file."""
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, "read") from error
    if not stat.S_ISREG(state.st_mode):
        raise StorageError(
            Reason.WRITE_FAILED, f"{path} is {kind(state)}, which this product did not make; move it out of the way"
        )
    return state


def kind(state: os.stat_result) -> str:
    """The kind of a file that is not a regular one, for messages."""
    return _KINDS.get(stat.S_IFMT(state.st_mode), "a special file")


def hash_open(
    descriptor: int,
    expected: Sequence[Checksum],
    guard: Guard,
    new_hasher: Callable[[Iterable[Algorithm]], Hasher] = Hasher,
) -> tuple[os.stat_result, dict[Algorithm, Checksum]]:
    """The state of an open file and its digests, SHA-256 and those that `expected` needs. Raises OSError.

    `new_hasher` makes the hasher, once for each time that it begins.

    It reads past the page cache where the file system can: the bytes on the disk count, and the cache is for the
    virtual machines.
    """
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _hash_open(descriptor, expected, guard, new_hasher)
    try:
        return _hash_open(direct, expected, guard, new_hasher)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(direct)
    return _hash_open(descriptor, expected, guard, new_hasher)


def _hash_open(
    descriptor: int,
    expected: Sequence[Checksum],
    guard: Guard,
    new_hasher: Callable[[Iterable[Algorithm]], Hasher],
) -> tuple[os.stat_result, dict[Algorithm, Checksum]]:
    state = os.fstat(descriptor)
    hasher = new_hasher(checksum.algorithm for checksum in expected)
    hasher.hash_file(descriptor, state.st_size, guard)
    return state, hasher.digests()


def publish(
    part: Part, product: Product, file: PoolFile | None, record: Record, guard: Guard, *, pieces: bool = False
) -> tuple[Record, bool]:
    """Fsync, owner, mode, record, rename, in this order; `file` None takes the caller's umask.

    With `pieces` the part's piece log stays, as it is one of the published file.

    The file gets its owner only under the lock, as the new owner may write to it. Returns the valid record, and whether
    it is the part's: another host may have published meanwhile; if reading that file shows the same bytes, it stays.
    The record is written first: it names the inode, so it is ignored before the rename and true after it.
    """
    place, descriptor = part.place, product.descriptor
    try:
        os.fsync(descriptor)
        state = os.fstat(descriptor)
        record = record.model_copy(
            update={"size_bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
        )
        for looks_left in reversed(range(_LOOKS)):
            seen = regular_file(place.final)
            standing = _published_by_another(place, record, guard) if seen is not None else None
            with lock.section(place.lock, guard):
                if looks_left and _identity(regular_file(place.final)) != _identity(seen):
                    continue
                if standing is not None:
                    part.discard()
                    return standing, False
                _put_in_place(part, product, file, record)
                break
        part.discard(pieces=not pieces)
        writing.sync_directory(os.path.dirname(place.journal))
    except OSError as error:
        raise storage_error(error, place.final, "publish") from error
    return record, True


def _published_by_another(place: Place, record: Record, guard: Guard) -> Record | None:
    """The record of the published file, if it is of the same placement and has the same bytes."""
    standing = read_record(place.record)
    if standing is None or (standing.digest, standing.placement_uid) != (record.digest, record.placement_uid):
        return None
    try:
        descriptor = reading.open_any(place.final)
        try:
            if not standing.matches(os.fstat(descriptor)):
                return None
            _, digests = hash_open(descriptor, (), guard)
        finally:
            os.close(descriptor)
    except OSError:
        # gone meanwhile, or damaged: the fetched file replaces it
        return None
    return standing if str(digests[Algorithm.SHA256]) == record.digest else None


def _identity(state: os.stat_result | None) -> tuple[int, ...]:
    return reading.stamp(state) if state is not None else ()


def _put_in_place(part: Part, product: Product, file: PoolFile | None, record: Record) -> None:
    """The caller holds the lock. Raises OSError, StorageError."""
    place, descriptor = part.place, product.descriptor
    # a removal takes the part first: a process that still holds it may publish
    if not (locks.same_file(part.descriptor, place.part) and locks.same_file(descriptor, product.path)):
        raise StorageError(
            Reason.WRITE_FAILED, f"another process removed {product.path}; the next attempt starts from zero"
        )
    if os.fstat(descriptor).st_nlink != 1:
        raise StorageError(
            Reason.WRITE_FAILED,
            f"another process made a hard link to {product.path}; the next attempt starts from zero",
        )
    _give_owner_and_mode(descriptor, file)
    os.fsync(descriptor)
    write_record(place, record)
    os.rename(product.path, place.final)
    writing.sync_directory(place.directory)
    seal.keep(place.seal, record, os.fstat(descriptor))


def _give_owner_and_mode(descriptor: int, file: PoolFile | None) -> None:
    if file is None:
        os.fchmod(descriptor, 0o666 & ~_umask())
        return
    os.fchmod(descriptor, int(file.mode, 8))
    state = os.fstat(descriptor)
    if (state.st_uid, state.st_gid) != (file.uid, file.gid):
        os.fchown(descriptor, file.uid, file.gid)


def record_present(place: Place, record: Record, state: os.stat_result, guard: Guard) -> None:
    """Record and seal the file that was read under the final name. Raises StorageError if it was replaced meanwhile.

    `state` is the state of the file before the reading.
    """
    with lock.section(place.lock, guard):
        now = regular_file(place.final)
        if now is None or not record.matches(now):
            raise StorageError(Reason.WRITE_FAILED, f"{place.final} was replaced while it was read; it is read again")
        if place.record and read_record(place.record) != record:
            write_record(place, record)
        seal.keep(place.seal, record, state)


def write_record(place: Place, record: Record) -> None:
    """Write the record, if the place keeps one. Raises StorageError."""
    if not place.record:
        return
    try:
        record.write(place.record)
    except OSError as error:
        raise storage_error(error, place.record, "write") from error


def _umask() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
