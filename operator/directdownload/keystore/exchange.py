"""Replaces the file of a keystore while other writers, which know no lock, may write it. Used by `store`.

keytool reads a keystore, and later truncates the file and writes it again. So the file may have changed since it was
read, and a rename over it would destroy that change. Instead, under the lock:

1. The new version is written beside it (`.NAME.directdownload.part`), gets owner, mode and label of the old one, is
   synced, and renamed to `.NAME.directdownload.READ-NEW.swap`, with the digests of the read and of the new content.
2. `renameat2(RENAME_EXCHANGE)` swaps it with the keystore, in one step. The old file is kept, whatever it is.
3. `_resolve` checks the file that now has the name of the swap file:
   - READ: nobody wrote in between. The file becomes the backup.
   - another content, and the keystore is still NEW: somebody wrote in between. The two files are exchanged again at
     once, so that the other writer's file is back, even during its write. The caller merges and tries again.
   - NEW: it was never put in place, or was taken back. It is removed.
   - another content, and the keystore is no longer NEW: a third process wrote at the same instant. The keystore stays,
     and the file is kept as `NAME.directdownload.rescued` (or `.rescued-2`, …: none is overwritten), which is logged.

A kill or a power failure can interrupt this between any two steps: the name always has a whole keystore. The next
holder of the lock finds the `.swap` file. Its name has all that `_resolve` needs, so the same code completes the work.

One case is undetectable: a writer that opens the keystore without truncating it, and writes after step 3, writes into
the backup. keytool and shells truncate on open.

A file system without RENAME_EXCHANGE, such as NFS, is refused with a WriteError: a plain rename would lose writes.
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

from directdownload.hostfiles import attributes, reading, writing
from directdownload.keystore import errors, files

_log = logging.getLogger(__name__)
_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
#: More than two exchanges are needed only while two other writers write at the same instant.
_EXCHANGES = 8


@dataclasses.dataclass(frozen=True)
class Place:
    """A keystore's path, which is no symbolic link, and the product's files beside it."""

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
        """Whether a writer of the product is at work, or was killed during a write."""
        return os.path.lexists(self.part) or bool(self.swaps())

    def swaps(self) -> "list[Swap]":
        """The swap files: at most one, unless somebody has copied it. Raises WriteError."""
        prefix, suffix = re.escape(os.path.basename(self._hidden(""))), r"([0-9a-f]{32})-([0-9a-f]{32})\.swap"
        try:
            names = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise errors.write_error(error, self.directory, "look for files of an earlier writer") from error
        matches = (re.fullmatch(prefix + suffix, name) for name in names)
        return [Swap(os.path.join(self.directory, match[0]), match[1], match[2]) for match in matches if match]

    def _hidden(self, suffix: str) -> str:
        return os.path.join(self.directory, f".{os.path.basename(self.path)}.directdownload.{suffix}")


@dataclasses.dataclass(frozen=True, slots=True)
class Swap:
    """A file that is, or was, exchanged with the keystore, with the digests of the read and of the new content."""

    path: str
    read: str
    new: str


def clean(place: Place) -> None:
    """Completes the work of a killed writer. The lock must be held. Raises WriteError."""
    try:
        writing.remove(place.part)
        for swap in place.swaps():
            _resolve(place, swap)
    except OSError as error:
        raise errors.write_error(error, place.path, "clean up after an earlier writer") from error


def replace(place: Place, read: reading.Content | None, data: bytes) -> None:
    """Replaces `read` (None: there was no keystore) by `data`, unless somebody changed it in between.

    The lock must be held, and `clean` called before. Read the keystore afterwards for the result. Raises WriteError;
    nothing has changed then.
    """
    _check_backup(place)
    swap = place.swap(read.data if read else b"", data)
    dress = functools.partial(attributes.copy, path=place.path, status=read.status) if read is not None else None
    try:
        writing.write_atomically(swap.path, data, temporary=place.part, finish=dress)
        try:
            if read is None:
                _rename(swap.path, place.path, _RENAME_NOREPLACE)
            elif reading.stamp(os.lstat(place.path)) == reading.stamp(read.status):
                _rename(swap.path, place.path, _RENAME_EXCHANGE)
        except (FileExistsError, FileNotFoundError):
            # created or removed by somebody else: the new version is not in place
            pass
        finally:
            _resolve(place, swap)
    except OSError as error:
        raise errors.write_error(error, place.path, "write the new version") from error


def _resolve(place: Place, swap: Swap) -> None:
    """Removes `swap` by the rules in this module's docstring."""
    for _ in range(_EXCHANGES):
        out = _digest_at(swap.path)
        if out == swap.new or not os.path.lexists(swap.path):
            writing.remove(swap.path)
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
    writing.sync_directory(place.directory)


def _rescue(place: Place, swap: Swap) -> str:
    """Keeps the file under a free name, and returns its path."""
    for number in itertools.count(1):
        path = place.rescued if number == 1 else f"{place.rescued}-{number}"
        with contextlib.suppress(FileExistsError):
            _rename(swap.path, path, _RENAME_NOREPLACE)
            break
    return path


def _check_backup(place: Place) -> None:
    """Checks the backup's name before any change. Raises WriteError."""
    try:
        regular = stat.S_ISREG(os.lstat(place.backup).st_mode)
    except OSError:
        return
    if not regular:
        raise errors.WriteError(f"{place.backup} is not a regular file, so no backup can be kept; remove it")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _digest_at(path: str) -> str | None:
    """The digest of the file; None if it is missing or unreadable."""
    try:
        content = files.read(path)
    except errors.UnreadableError:
        return None
    return _digest(content.data) if content is not None else None


def _rename(source: str, target: str, flags: int) -> None:
    """Calls renameat2(2). Raises OSError, and WriteError if the file system does not support it."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            raise errors.WriteError(
                f"{target}: its file system cannot exchange two files in one step (renameat2); "
                "keep it on one that can, such as ext4, xfs, btrfs or tmpfs"
            )
        raise OSError(number, os.strerror(number))
