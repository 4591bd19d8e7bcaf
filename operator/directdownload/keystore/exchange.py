"""The file of a keystore gets another version, while others may write to it who know of no lock. Used by `store`.

keytool reads a store, and some time later empties the file and writes it anew. So the name could have another content
than was read by the time that ours is put there, and a rename would destroy it. Instead, under our lock:

1. The new version is written beside it (`.NAME.directdownload.part`), gets owner, mode and label of the old one, is
   synced, and renamed to `.NAME.directdownload.READ-NEW.swap`, with the digests of what was read and of what it is.
2. `renameat2(RENAME_EXCHANGE)` swaps it with the store: in one step, and what was there is kept, whatever it is.
3. `resolve` looks at what came out, now under the name of the swap file:
   - what was read (READ): nobody was in between. It becomes the backup.
   - something else, and the store is still NEW: someone wrote in between. The two are exchanged again, at once: the
     other's file is back under its name, even while it is still being written to. The caller merges and tries again.
   - NEW: it was never put in place, or was taken back. It is removed.
   - something else, and the store is no longer NEW: a third one has written within the instant. The store stays as it
     is, and what came out is kept as `NAME.directdownload.rescued` (or `.rescued-2`, …: none is overwritten), which is
     logged.

A process that is killed, or a power failure, can interrupt this between any two steps: the name always has a whole
store. The next one who has the lock finds the `.swap` file, whose name says all that `resolve` needs: the same code
ends what was begun.

What no call can see: a writer that has opened the store without emptying it, and writes after step 3 has looked, writes
into the backup. keytool and shells empty it as they open it.

A file system without RENAME_EXCHANGE (NFS, for one) is refused with a WriteError: a plain rename would lose writes.
"""

import contextlib
import ctypes
import dataclasses
import errno
import functools
import hashlib
import itertools
import logging
import os
import re
import stat

from directdownload.keystore import attributes, errors, files

_log = logging.getLogger(__name__)
_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
#: More than two are needed only while two others write within the same instant.
_EXCHANGES = 8


@dataclasses.dataclass(frozen=True)
class Place:
    """A keystore's path, which is no symbolic link, and the names of ours beside it."""

    path: str

    @functools.cached_property
    def directory(self) -> str:
        return os.path.dirname(self.path)

    @property
    def lock(self) -> str:
        return self._hidden("lock")

    @property
    def part(self) -> str:
        return self._hidden("part")

    @property
    def backup(self) -> str:
        return f"{self.path}.directdownload.backup"

    @property
    def rescued(self) -> str:
        return f"{self.path}.directdownload.rescued"

    def swap(self, read: bytes, new: bytes) -> "Swap":
        digests = _digest(read), _digest(new)
        return Swap(self._hidden("-".join(digests) + ".swap"), *digests)

    def in_use(self) -> bool:
        """Whether one of ours is writing now, or was killed while it did."""
        return os.path.lexists(self.part) or bool(self.swaps())

    def swaps(self) -> "list[Swap]":
        """At most one, unless someone has copied it."""
        prefix, suffix = re.escape(os.path.basename(self._hidden(""))), r"([0-9a-f]{32})-([0-9a-f]{32})\.swap"
        try:
            names = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise files.write_error(error, self.directory, "look for files of an earlier writer") from error
        matches = (re.fullmatch(prefix + suffix, name) for name in names)
        return [Swap(os.path.join(self.directory, match[0]), match[1], match[2]) for match in matches if match]

    def _hidden(self, suffix: str) -> str:
        return os.path.join(self.directory, f".{os.path.basename(self.path)}.directdownload.{suffix}")


@dataclasses.dataclass(frozen=True, slots=True)
class Swap:
    """A file that is, or was, exchanged with the store: the digests of what was read and of what was made of it."""

    path: str
    read: str
    new: str


def clean(place: Place) -> None:
    """End what a writer that was killed had begun. The lock must be held. Raises WriteError."""
    try:
        _remove(place.part)
        for swap in place.swaps():
            _resolve(place, swap)
    except OSError as error:
        raise files.write_error(error, place.path, "clean up after an earlier writer") from error


def replace(place: Place, read: files.Content | None, data: bytes) -> None:
    """Put `data` in place of `read` (None: there was no store), unless someone else changed that in between.

    The lock must be held, and nothing be left over. Read the store to see what it is now. Raises WriteError: nothing
    has changed then.
    """
    _check_backup(place)
    swap = place.swap(read.data if read else b"", data)
    try:
        _write(place, read, data, swap.path)
        try:
            if read is None:
                _rename(swap.path, place.path, _RENAME_NOREPLACE)
            elif files.stamp(os.lstat(place.path)) == files.stamp(read.status):
                _rename(swap.path, place.path, _RENAME_EXCHANGE)
        except (FileExistsError, FileNotFoundError):
            # made or removed by someone else: ours is not in place
            pass
        finally:
            _resolve(place, swap)
    except OSError as error:
        raise files.write_error(error, place.path, "write the new version") from error


def _write(place: Place, read: files.Content | None, data: bytes, path: str) -> None:
    """A whole file at `path`, on disk, with the attributes of the store."""
    _remove(place.part)
    try:
        descriptor = os.open(place.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if read is not None:
                attributes.copy(descriptor, place.path, read.status)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(place.part, path)
    except OSError:
        _remove(place.part)
        raise


def _resolve(place: Place, swap: Swap) -> None:
    """Nothing is left at `swap` afterwards; the table is at the head of this module."""
    for _ in range(_EXCHANGES):
        out = _digest_at(swap.path)
        if out == swap.new or not os.path.lexists(swap.path):
            _remove(swap.path)
        elif out == swap.read:
            os.rename(swap.path, place.backup)
        elif _digest_at(place.path) == swap.new:
            _rename(swap.path, place.path, _RENAME_EXCHANGE)
            continue
        else:
            rescued = _rescue(place, swap)
            _log.warning(
                "%s was written by two others at the same time; one of the versions is in %s", place.path, rescued
            )
        break
    files.sync_directory(place.directory)


def _rescue(place: Place, swap: Swap) -> str:
    """Where the file is kept now; what was rescued before stays."""
    for number in itertools.count(1):
        path = place.rescued if number == 1 else f"{place.rescued}-{number}"
        with contextlib.suppress(FileExistsError):
            _rename(swap.path, path, _RENAME_NOREPLACE)
            break
    return path


def _check_backup(place: Place) -> None:
    """Told before anything is changed, as afterwards it would be too late."""
    try:
        regular = stat.S_ISREG(os.lstat(place.backup).st_mode)
    except OSError:
        return
    if not regular:
        raise errors.WriteError(f"{place.backup} is not a regular file, so no backup can be kept; remove it")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _digest_at(path: str) -> str | None:
    """None where there is nothing, or nothing that can be read."""
    try:
        content = files.read(path)
    except errors.UnreadableError:
        return None
    return _digest(content.data) if content is not None else None


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _rename(source: str, target: str, flags: int) -> None:
    """renameat2(2). Raises OSError, and WriteError where the file system cannot do it."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            raise errors.WriteError(
                f"{target}: its file system cannot exchange two files in one step (renameat2); "
                "keep it on one that can, such as ext4, xfs, btrfs or tmpfs"
            )
        raise OSError(number, os.strerror(number))
