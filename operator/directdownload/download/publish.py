"""Giving a verified file its final name, and recognising one that has it already.

Called by the engine. A file under its final name is always complete and verified: the name appears by one rename,
after everything is on disk.
"""

import os
import stat
from collections.abc import Sequence

from directdownload.download import files
from directdownload.download.checksum import Hasher, first_mismatch
from directdownload.download.errors import storage_error
from directdownload.download.guard import Guard
from directdownload.download.place import Part, Place
from directdownload.download.record import Record, read_record
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import FileMode


def find_present(
    place: Place, expected: Sequence[Checksum], guard: Guard, *, placement: str, placement_uid: str
) -> Record | None:
    """What lies under the final name, if it is what is wanted; None if it must be fetched.

    Believed at once if the record says so and size, mtime and inode still are as recorded; otherwise hashed. Without
    a record and without anything to compare with, a file is not believed.
    """
    try:
        state = os.lstat(place.final)
    except OSError:
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    record = read_record(place.record) if place.record else None
    if record is not None and record.matches(state) and record.meets(expected):
        if (record.placement, record.placement_uid) != (placement, placement_uid):
            # Retained, and deployed again: the agent tells by the record which placement the file is of.
            record = record.model_copy(update={"placement": placement, "placement_uid": placement_uid})
            write_record(place, record)
        return record
    if not expected:
        return None
    try:
        state, digests = hash_file(place.final, expected, guard)
    except OSError as error:
        raise storage_error(error, place.final, "read") from error
    if first_mismatch(digests, expected) is not None:
        return None
    record = Record.of(
        state,
        path=place.final,
        digest=str(digests[Algorithm.SHA256]),
        checksum=str(expected[0]),
        placement=placement,
        uid=placement_uid,
    )
    write_record(place, record)
    return record


def hash_file(
    path: str, expected: Sequence[Checksum], guard: Guard
) -> tuple[os.stat_result, dict[Algorithm, Checksum]]:
    """The state of a file and its digests, SHA-256 and those that `expected` needs; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        state = os.fstat(descriptor)
        hasher = Hasher(checksum.algorithm for checksum in expected)
        hasher.hash_file(descriptor, state.st_size, guard)
        return state, hasher.digests()
    finally:
        os.close(descriptor)


def publish(part: Part, size_bytes: int, file: FileMode | None, record: Record) -> None:
    """Owner, mode, fsync, record, rename, in this order; `file` None takes the caller's umask.

    The record goes first: it names the inode, so it is true from the moment of the rename and ignored before.
    """
    place, descriptor = part.place, part.descriptor
    try:
        os.ftruncate(descriptor, size_bytes)
        if file is None:
            os.fchmod(descriptor, 0o666 & ~_umask())
        else:
            os.fchmod(descriptor, int(file.mode, 8))
            state = os.fstat(descriptor)
            if (state.st_uid, state.st_gid) != (file.uid, file.gid):
                os.fchown(descriptor, file.uid, file.gid)
        os.fsync(descriptor)
        state = os.fstat(descriptor)
        write_record(
            place,
            record.model_copy(
                update={"size_bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
            ),
        )
        os.rename(place.part, place.final)
        files.sync_directory(place.directory)
        files.remove(place.journal)
        files.sync_directory(os.path.dirname(place.journal))
    except OSError as error:
        raise storage_error(error, place.final, "publish") from error


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
