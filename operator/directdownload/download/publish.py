"""Giving a verified file its final name, and recognising one that has it already.

Called by the engine and by the check of a published file. A file under its final name is always complete and verified:
the name appears by one rename, after everything is on disk. Whoever changes it or its record holds the place's lock,
so that the two belong together even when two hosts publish into a shared pool at once.
"""

import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Sequence

from directdownload.download import files, lock
from directdownload.download.checksum import Hasher, first_mismatch
from directdownload.download.errors import DAMAGED, StorageError, storage_error
from directdownload.download.guard import Guard
from directdownload.download.images import ImageInfo
from directdownload.download.place import Part, Place
from directdownload.download.record import Record, read_record
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import FileMode
from directdownload.resources.reasons import Reason

_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link"}


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """The file that is to get the name: the part, or what was unpacked from it. `digest` is its SHA-256."""

    descriptor: int
    path: str
    size_bytes: int
    digest: str


def find_present(
    place: Place,
    expected: Sequence[Checksum],
    guard: Guard,
    *,
    placement: str,
    placement_uid: str,
    host: str,
    inspect: Callable[[int, int], ImageInfo],
) -> Record | None:
    """What lies under the final name, if it is what is wanted; None if it must be fetched.

    Believed at once if the record says so and size, mtime and inode still are as recorded; otherwise hashed, and
    inspected where no record says that it was. Without a record and without anything to compare with, a file is not
    believed. StorageError if it is none that we publish.
    """
    state = regular_file(place.final)
    if state is None:
        return None
    record = read_record(place.record) if place.record else None
    owner = {"placement": placement, "placement_uid": placement_uid, "host": host}
    if record is not None and record.matches(state) and record.meets(expected):
        if (record.placement, record.placement_uid) == (placement, placement_uid):
            return record
        # Retained, and deployed again: the agent tells by the record which placement the file is of.
        record = record.model_copy(update=owner)
    elif not expected:
        return None
    else:
        wanted = record.wanted(expected) if record is not None else expected
        try:
            state, digests = hash_file(place.final, wanted, guard)
        except OSError as error:
            if error.errno in DAMAGED:
                # a fresh copy comes to lie on other blocks
                return None
            raise storage_error(error, place.final, "read") from error
        if first_mismatch(digests, wanted) is not None:
            return None
        if record is None or wanted is expected:
            info = _inspect_present(place.final, inspect)
            digest = str(digests[Algorithm.SHA256])
            record = Record.of(state, path=place.final, digest=digest, checksum=str(expected[0])).model_copy(
                update={"format": info.format, "virtual_size_bytes": info.virtual_size_bytes}
            )
        record = record.verified(state).model_copy(update=owner)
    record_present(place, record, guard)
    return record


def _inspect_present(path: str, inspect: Callable[[int, int], ImageInfo]) -> ImageInfo:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return inspect(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(error, path, "read") from error


def regular_file(path: str) -> os.stat_result | None:
    """The state of what lies at `path`, None if nothing does; StorageError if it is not a file and so not ours."""
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
    """For people: what it is instead of a regular file."""
    return _KINDS.get(stat.S_IFMT(state.st_mode), "a special file")


def hash_file(
    path: str, expected: Sequence[Checksum], guard: Guard
) -> tuple[os.stat_result, dict[Algorithm, Checksum]]:
    """The state of a file and its digests, SHA-256 and those that `expected` needs; raises OSError.

    Past the page cache where the file system can: what counts is what the disk holds, and the cache belongs to the
    virtual machines.
    """
    try:
        return _hash_file(path, os.O_DIRECT, expected, guard)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _hash_file(path, 0, expected, guard)


def _hash_file(
    path: str, flag: int, expected: Sequence[Checksum], guard: Guard
) -> tuple[os.stat_result, dict[Algorithm, Checksum]]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | flag)
    try:
        state = os.fstat(descriptor)
        hasher = Hasher(checksum.algorithm for checksum in expected)
        hasher.hash_file(descriptor, state.st_size, guard)
        return state, hasher.digests()
    finally:
        os.close(descriptor)


def publish(part: Part, product: Product, file: FileMode | None, record: Record, guard: Guard) -> tuple[Record, bool]:
    """Owner, mode, fsync, record, rename, in this order; `file` None takes the caller's umask.

    The record that now stands, and whether it is the part's: another host may have published the same bytes meanwhile.
    The record goes first: it names the inode, so it is true from the moment of the rename and ignored before.
    """
    place, descriptor = part.place, product.descriptor
    try:
        os.ftruncate(descriptor, product.size_bytes)
        _give_owner_and_mode(descriptor, file)
        os.fsync(descriptor)
        state = os.fstat(descriptor)
        record = record.model_copy(
            update={"size_bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
        )
        with lock.section(place.lock, guard):
            present = regular_file(place.final)
            standing = read_record(place.record) if place.record else None
            if (
                present is not None
                and standing is not None
                and standing.matches(present)
                and (standing.digest, standing.placement_uid) == (record.digest, record.placement_uid)
            ):
                part.discard()
                return standing, False
            # a removal takes the part first: whoever still holds it may publish
            if not (lock.same_file(part.descriptor, place.part) and lock.same_file(descriptor, product.path)):
                raise StorageError(Reason.WRITE_FAILED, f"{product.path} was removed by someone else; it begins anew")
            write_record(place, record)
            os.rename(product.path, place.final)
            files.sync_directory(place.directory)
        part.discard()
        files.sync_directory(os.path.dirname(place.journal))
    except OSError as error:
        raise storage_error(error, place.final, "publish") from error
    return record, True


def _give_owner_and_mode(descriptor: int, file: FileMode | None) -> None:
    if file is None:
        os.fchmod(descriptor, 0o666 & ~_umask())
        return
    os.fchmod(descriptor, int(file.mode, 8))
    state = os.fstat(descriptor)
    if (state.st_uid, state.st_gid) != (file.uid, file.gid):
        os.fchown(descriptor, file.uid, file.gid)


def record_present(place: Place, record: Record, guard: Guard) -> None:
    """Write the record of the file that was found under the final name; StorageError if it is another one by now."""
    with lock.section(place.lock, guard):
        state = regular_file(place.final)
        if state is None or (state.st_ino, state.st_mtime_ns) != (record.inode, record.mtime_ns):
            raise StorageError(Reason.WRITE_FAILED, f"{place.final} was replaced while it was read; it is read again")
        write_record(place, record)


def write_record(place: Place, record: Record) -> None:
    """StorageError if it cannot be written; nothing where the place keeps none."""
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
