"""Reads a keystore file, and changes entries of it while others may do the same. The door of this package.

Called by the agent and by `directdownload keystore`. Promises: one writer of the product at a time (`files.locked`);
concurrent writes of others are merged, never lost (see `exchange`, also for the files after a kill); after an
interruption at any point the old or the new keystore is in place, never a part of one; all entries that a change does
not name stay, which is verified before the new version gets the name; a keystore that needs no change keeps its bytes
and mtime.

Files beside `NAME`: `NAME.directdownload.backup`, the version before the last change; `.NAME.directdownload.lock`,
which stays; two more hidden files during a write. A keystore that is a symbolic link stays one; these files are beside
its target.
"""

import dataclasses
import datetime
import hashlib
import os
import time
from collections.abc import Callable, Mapping

from directdownload.hostfiles import reading
from directdownload.keystore import errors, exchange, files, formats
from directdownload.keystore.entries import Changes, Entry, Keystore, StoreType

Decide = Callable[[Mapping[str, Entry]], Changes]

#: keytool truncates a keystore before it writes it. One that is damaged this long after its last write stays so.
_SETTLED_SECONDS = 1.0
_POLL_SECONDS = 0.02
#: Attempts; each one fails only because of another writer.
_ROUNDS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A keystore as read from disk; `sha256` is that of the file, in hexadecimal."""

    type: StoreType
    entries: Mapping[str, Entry]
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    #: None: there is no keystore, and none was needed
    snapshot: Snapshot | None
    written: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    content: reading.Content
    keystore: Keystore

    @property
    def snapshot(self) -> Snapshot:
        digest = hashlib.sha256(self.content.data).hexdigest()
        return Snapshot(self.keystore.type, self.keystore.entries, digest)


def read(path: str, password: str) -> Snapshot:
    """Reads a keystore. Raises MissingError, UnreadableError, PasswordWrongError."""
    place = files.real(path)
    found = _find(place, formats.Opener(password))
    if found is None:
        raise _missing(place)
    return found.snapshot


def update(path: str, password: str, decide: Decide, *, create: StoreType | None, lock_seconds: float = 30) -> Result:
    """Makes the changes that `decide` returns for the current entries (empty for a missing keystore).

    `decide` is called again for each new content: after the lock is taken, and after a write by somebody else. Changes
    that are already made do not count. A missing keystore is created with mode 0600 if `create` names its type and
    there is a certificate to put. Raises KeystoreError, also after `lock_seconds` without the lock (WriteError).
    """
    place = exchange.Place(files.real(path))
    opener = formats.Opener(password)
    if not place.in_use():
        found = _find(place.path, opener)
        if not _wanted(place.path, found, decide, create):
            return _unchanged(found)
    with files.locked(place.lock, lock_seconds):
        exchange.clean(place)
        for _ in range(_ROUNDS):
            found = _find(place.path, opener)
            changes = _wanted(place.path, found, decide, create)
            if not changes:
                return _unchanged(found)
            before = found.keystore if found is not None else formats.empty(create or "JKS", password)
            data = before.changed(changes, datetime.datetime.now(datetime.UTC))
            after = opener.load(data, name=f"the new version of {place.path}")
            _verify(place.path, before, changes, after)
            exchange.replace(place, found.content if found is not None else None, data)
            content = files.read(place.path)
            if content is not None and content.data == data:
                return Result(_Found(content, after).snapshot, written=True)
    raise errors.WriteError(f"{place.path} was changed by others {_ROUNDS} times in a row; find out what writes to it")


def sha256(path: str) -> str | None:
    """SHA-256 of the file, in hexadecimal, as in Snapshot. None: the file does not exist.

    Raises UnreadableError.
    """
    content = files.read(files.real(path))
    return hashlib.sha256(content.data).hexdigest() if content is not None else None


def stamp(path: str) -> tuple[int, ...] | None:
    """Device, inode, size, mtime_ns and ctime_ns, which change with every write. None: the file does not exist.

    Raises UnreadableError.
    """
    try:
        return reading.stamp(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise errors.unreadable(error, path) from error


def _find(path: str, opener: formats.Opener) -> _Found | None:
    """The keystore when nobody is writing it; None if it does not exist."""
    end = time.monotonic() + 2 * _SETTLED_SECONDS
    while (content := files.read(path)) is not None:
        try:
            return _Found(content, opener.load(content.data, name=path))
        except errors.UnreadableError:
            age_seconds = time.time() - content.status.st_mtime
            if not 0 <= age_seconds < _SETTLED_SECONDS or time.monotonic() > end:
                raise
        time.sleep(_POLL_SECONDS)
    return None


def _wanted(path: str, found: _Found | None, decide: Decide, create: StoreType | None) -> Changes:
    """The changes of `decide` that are not made yet. Raises MissingError if they need a keystore that may not be
    created."""
    entries = found.keystore.entries if found is not None else {}
    changes = decide(entries)
    effective = Changes(
        put={
            alias: der for alias, der in changes.put.items() if alias not in entries or not entries[alias].trusts(der)
        },
        remove=[alias for alias in changes.remove if alias in entries],
    )
    if effective and found is None and create is None:
        raise _missing(path)
    return effective


def _missing(path: str) -> errors.MissingError:
    return errors.MissingError(f"{path} does not exist; check the path, or permit its creation")


def _unchanged(found: _Found | None) -> Result:
    return Result(found.snapshot if found is not None else None, written=False)


def _verify(path: str, before: Keystore, changes: Changes, after: Keystore) -> None:
    """Checks that the parsed new version has exactly the planned entries. Raises WriteError otherwise."""
    touched = {*changes.put, *changes.remove}
    kept = {alias: entry for alias, entry in before.entries.items() if alias not in touched}
    found = {alias: entry for alias, entry in after.entries.items() if alias not in changes.put}
    put = all(alias in after.entries and after.entries[alias].trusts(der) for alias, der in changes.put.items())
    if not put or kept != found or before.type != after.type:
        raise errors.WriteError(
            f"{path}: the new version is not as planned, so the store was not changed; "
            "this is a defect: please report it with the output of `keytool -list`"
        )
