"""Whether a published file is in use, checked before its removal.

A virtual machine's disk is an image that names the template as its backing file, so there are two checks: whether a
process holds a lock on the file, and whether an image in the pool names it. QEMU locks bytes 100 to 203 of every image
it opens (block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE), backing files too; libvirt's lock daemon locks
the first byte of a disk. Every process, container and, on network file systems, host sees such locks without opening
the file for writing. Images are hostile: the user of the virtual machine can write their headers.
"""

import fcntl
import json
import os
import stat
import struct
from collections.abc import Iterator

from directdownload.download.errors import StorageError
from directdownload.download.guard import Guard
from directdownload.hostfiles import mountinfo, reading
from directdownload.resources.naming import WORK_DIRECTORY
from directdownload.resources.reasons import Reason

DEPTH_LIMIT = 32
ENTRY_LIMIT = 1_000_000
LOCKED = "a process has it open and locked, as a virtual machine does with its disks"
_NAMED_LIMIT = 3
#: struct flock with 64-bit offsets: type, whence, start, length (0: to the end), pid
_FLOCK = struct.Struct("@hhqqi4x")
_QCOW = b"QFI\xfb"
_QED = b"QED\0"
_QED_HAS_BACKING_FILE = 1
_HEADER_BYTES = 64
#: qcow2 allows 1023, QED the length of a path
_NAME_LIMIT_BYTES = 4096


def mention(path: str, pool: str, guard: Guard) -> str:
    """A message about the files in the directory `pool` that name the one at `path`; empty if none does.

    Raises StorageError if that cannot be determined: then the file counts as mentioned. A guest can write such a header
    into its RAW disk as easily as qemu-img into an overlay, so an administrator can overrule a mention.
    """
    images = overlays(path, pool, guard)
    if not images:
        return ""
    more = f" and {len(images) - _NAMED_LIMIT} more" if len(images) > _NAMED_LIMIT else ""
    return f"it is the backing file of {', '.join(map(_shown, images[:_NAMED_LIMIT]))}{more}"


def locked(path: str) -> bool:
    """Whether a process has a lock on any byte of the file, on any host whose locks the file system shares."""
    try:
        descriptor = reading.open_any(path)
        try:
            question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _cannot_tell(path, str(error.strerror)) from error
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def overlays(path: str, pool: str, guard: Guard) -> list[str]:
    """The images below `pool` that name the file at `path` as their backing file, sorted."""
    found = []
    for image in _regular_files(pool, guard):
        try:
            name = _read_backing_name(image)
            if name and (mentions(name, os.path.basename(path)) or _leads_to(name, image, pool, path)):
                found.append(image)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _cannot_tell(image, str(error.strerror)) from error
    return sorted(found)


def backing_location(header: bytes, size_bytes: int) -> tuple[int, int] | None:
    """Offset and length in bytes of the backing file's name, from the first bytes of a file; None if it has none.

    Follows docs/interop/qcow2.txt and qed_spec.txt of QEMU. All versions of qcow have it at the same place.
    """
    if header.startswith(_QCOW) and len(header) >= 20:
        offset, length = struct.unpack_from(">QI", header, 8)
    elif header.startswith(_QED) and len(header) >= _HEADER_BYTES:
        if not struct.unpack_from("<Q", header, 16)[0] & _QED_HAS_BACKING_FILE:
            return None
        offset, length = struct.unpack_from("<II", header, 56)
    else:
        return None
    if not offset or not 0 < length <= _NAME_LIMIT_BYTES or offset + length > size_bytes:
        return None
    return offset, length


def mentions(name: str, file_name: str) -> bool:
    """Whether a backing file's name (a path, `file:…`, `json:{…}`) contains `file_name`.

    No other name contains a Template's uid by chance, so this need not parse all notations of a path.
    """
    if file_name in name:
        return True
    if not name.startswith("json:"):
        return False
    try:
        # the same text without JSON's optional escapes
        return json.dumps(file_name)[1:-1] in json.dumps(json.loads(name.removeprefix("json:")))
    except (ValueError, RecursionError):
        return False


def _leads_to(name: str, image: str, pool: str, path: str) -> bool:
    """Whether a plain name, absolute or relative to the image, is another path of the same file."""
    target = os.path.join(os.path.dirname(image), name.removeprefix("file:"))
    # no path outside the pool is touched: a header must not choose the paths that this job looks up
    if not any(mountinfo.below(os.path.normpath(target), directory) for directory in (pool, os.path.realpath(pool))):
        return False
    try:
        return os.path.samestat(os.stat(target), os.lstat(path))
    except (OSError, ValueError):
        return False


def _read_backing_name(path: str) -> str:
    """The name, empty if there is none. Raises OSError."""
    descriptor = reading.open_any(path)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return ""
        location = backing_location(os.pread(descriptor, _HEADER_BYTES, 0), state.st_size)
        if location is None:
            return ""
        offset, length = location
        return os.fsdecode(os.pread(descriptor, length, offset))
    finally:
        os.close(descriptor)


def _regular_files(pool: str, guard: Guard) -> Iterator[str]:
    """All regular files below `pool`, without following links, except the product's work directory."""
    directories = [(pool, 1)]
    count = 0
    while directories:
        directory, depth = directories.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    guard.check()
                    count += 1
                    if count > ENTRY_LIMIT:
                        raise _cannot_tell(pool, f"it holds more than {ENTRY_LIMIT} files")
                    if entry.is_file(follow_symlinks=False):
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False) and entry.name != WORK_DIRECTORY:
                        if depth >= DEPTH_LIMIT:
                            raise _cannot_tell(entry.path, f"it lies more than {DEPTH_LIMIT} directories deep")
                        directories.append((entry.path, depth + 1))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _cannot_tell(directory, str(error.strerror)) from error


def _cannot_tell(path: str, why: str) -> StorageError:
    return StorageError(
        Reason.WRITE_FAILED,
        f"cannot tell whether the file is in use, so it is not removed: cannot look into {_shown(path)}: {why}; "
        "make it readable or move it out of the pool",
    )


def _shown(path: str) -> str:
    """A printable path: a result is JSON, a name on disk any bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")
