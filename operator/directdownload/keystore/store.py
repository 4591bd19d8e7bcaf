"""A keystore file: read it, and change entries of it while others may do the same. The door of this package.

Called by the agent and by `directdownload keystore`. Promises: one writer of ours at a time (`lock`); what others write
in between is never lost, but merged (`exchange`, which explains how, and what is left after a kill); interrupted at any
point, the old or the new store is there, never half of one; all entries that the change does not name are those from
before, which is verified before the new version gets the name; content that needs no change keeps its bytes and mtime.

Beside `NAME` lie: `NAME.directdownload.backup`, the version before the last change; `.NAME.directdownload.lock`, which
stays; two more hidden files while something is written. A keystore that is a symbolic link stays one: all this lies
beside the file that it leads to.
"""

import dataclasses
import datetime
import hashlib
import os
import time
from collections.abc import Callable, Mapping

from directdownload.keystore import errors, exchange, files, formats, lock
from directdownload.keystore.entries import Changes, Entry, Keystore, StoreType

Decide = Callable[[Mapping[str, Entry]], Changes]

#: keytool empties a store before it writes it anew. One that is damaged is so for good when nothing writes any more.
_SETTLED_SECONDS = 1.0
_POLL_SECONDS = 0.02
#: Each is lost to another writer who came in between.
_ROUNDS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A store as read from disk; `sha256` of the file, hexadecimal."""

    type: StoreType
    entries: Mapping[str, Entry]
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    #: None: there is no store, and none was needed
    snapshot: Snapshot | None
    written: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    content: files.Content
    keystore: Keystore

    @property
    def snapshot(self) -> Snapshot:
        digest = hashlib.sha256(self.content.data).hexdigest()
        return Snapshot(self.keystore.type, self.keystore.entries, digest)


def read(path: str, password: str) -> Snapshot:
    """Raises MissingError, UnreadableError, PasswordWrongError."""
    place = files.real(path)
    found = _find(place, formats.Opener(password))
    if found is None:
        raise _missing(place)
    return found.snapshot


def update(path: str, password: str, decide: Decide, *, create: StoreType | None, lock_seconds: float = 30) -> Result:
    """Make the changes that `decide` wants of the entries as found (none for a missing store).

    `decide` is called again whenever the store is another one than before: when the lock was got, when somebody else
    wrote in between. What is so already is no change. A missing store is made, with mode 0600, when `create` says of
    which type and there is something to put. Raises KeystoreError; WriteError too after so long a wait for the lock.
    """
    place = exchange.Place(files.real(path))
    opener = formats.Opener(password)
    if not place.in_use():
        found = _find(place.path, opener)
        if not _wanted(place.path, found, decide, create):
            return _unchanged(found)
    with lock.held(place.lock, lock_seconds):
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
    """Of the file now, hexadecimal: the same as a Snapshot's as long as it is unchanged. None: there is no such file.

    Raises UnreadableError.
    """
    content = files.read(files.real(path))
    return hashlib.sha256(content.data).hexdigest() if content is not None else None


def stamp(path: str) -> tuple[int, ...] | None:
    """Device, inode, size, mtime_ns and ctime_ns: the same as long as nobody has written. None: there is no such file.

    Raises UnreadableError.
    """
    try:
        return files.stamp(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise files.unreadable(error, path) from error


def _find(path: str, opener: formats.Opener) -> _Found | None:
    """The store as it is when no one is in the middle of writing it; None if there is none."""
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
    """What `decide` wants and is not so yet. Raises MissingError where that needs a store that is not to be made."""
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
    """That the new version, as parsed, has just what it should: it must not get the name otherwise."""
    touched = {*changes.put, *changes.remove}
    kept = {alias: entry for alias, entry in before.entries.items() if alias not in touched}
    found = {alias: entry for alias, entry in after.entries.items() if alias not in changes.put}
    put = all(alias in after.entries and after.entries[alias].trusts(der) for alias, der in changes.put.items())
    if not put or kept != found or before.type != after.type:
        raise errors.WriteError(
            f"{path}: the new version is not as planned, so the store was not changed; "
            "this is a defect: please report it with the output of `keytool -list`"
        )
