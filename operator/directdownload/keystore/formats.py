"""Opens, reads and changes Java keystores as bytes. Pure: reads and writes no file.

Used by `store`. Promises: the content determines the type, not the name; entries are those that Java sees; a change
affects only trusted certificates and keeps the rest byte for byte; the same input gives the same bytes (except the salt
of a new keystore). Any bytes cost bounded time and memory, and give a result or a KeystoreError.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Set
from typing import Protocol

from directdownload.keystore import errors, jks, pbe, pkcs12
from directdownload.keystore.entries import SIZE_LIMIT_BYTES, Changes, Entry, EntryKind, Keystore, StoreType

_CONVERT = "convert it with keytool -importkeystore -srcstoretype JCEKS -deststoretype PKCS12"


class _Content(Protocol):
    """One keystore in its format."""

    @property
    def type(self) -> StoreType: ...

    @property
    def data(self) -> bytes: ...

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    @property
    def room(self) -> int:
        """How many more entries are within the limits; negative: too many."""

    def changed(self, put: Mapping[str, bytes], remove: Set[str], now: datetime.datetime) -> "_Content": ...


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Store:
    """An entries.Keystore, of either format."""

    type: StoreType
    entries: Mapping[str, Entry]
    _content: _Content
    _name: str

    def changed(self, changes: Changes, now: datetime.datetime) -> bytes:
        """See entries.Keystore. An alias in both `put` and `remove` is put. WriteError: the keystore is full."""
        found = self.entries
        put = {alias: der for alias, der in changes.put.items() if alias not in found or not found[alias].trusts(der)}
        remove = {alias for alias in changes.remove if alias in found and alias not in changes.put}
        for alias in sorted(found.keys() & (put.keys() | remove)):
            if found[alias].kind is not EntryKind.TRUSTED_CERTIFICATE:
                raise self._foreign(alias, f"is a {found[alias].kind}")
        if not put and not remove:
            return self._content.data
        changed = self._content.changed(put, remove, now)
        if changed.room < 0 or len(changed.data) > SIZE_LIMIT_BYTES:
            raise errors.WriteError(
                f"keystore {self._name} is full: with this change it would have {len(changed.entries)} entries in "
                f"{len(changed.data)} bytes, more than the limit; remove some"
            )
        wanted = {alias: _seen(entry) for alias, entry in found.items() if alias not in remove}
        wanted |= {alias: (EntryKind.TRUSTED_CERTIFICATE, der) for alias, der in put.items()}
        got = {alias: _seen(entry) for alias, entry in changed.entries.items()}
        for alias in sorted(wanted.keys() | got.keys()):
            if wanted.get(alias) != got.get(alias):
                raise self._foreign(alias, "depends on the place of another entry, or has no alias of its own")
        return changed.data

    def _foreign(self, alias: str, why: str) -> errors.ForeignEntryError:
        return errors.ForeignEntryError(
            f"keystore {self._name}: the entry {alias!r} {why}: it is never changed; choose another alias"
        )


class Opener:
    """Opens several versions of a keystore with one password; derives the keys once, because that is expensive."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._keys = pbe.Keys(password)

    def load(self, data: bytes, *, name: str) -> Keystore:
        """The keystore in `data`; `name` (its path) is for messages. Raises UnreadableError, PasswordWrongError."""
        try:
            content = self._read(data)
        except errors.UnreadableError as error:
            raise errors.UnreadableError(f"keystore {name} cannot be read: {error}") from None
        except errors.PasswordWrongError as error:
            raise errors.PasswordWrongError(f"keystore {name} does not open with this password{error}") from None
        return _Store(content.type, content.entries, content, name)

    def _read(self, data: bytes) -> _Content:
        if len(data) > SIZE_LIMIT_BYTES:
            raise errors.UnreadableError(f"{len(data)} bytes; at most {SIZE_LIMIT_BYTES} are read")
        _check(self._password)
        match data[:4]:
            case b"\xfe\xed\xfe\xed":
                return jks.read(data, self._password)
            case b"\xce\xce\xce\xce":
                raise errors.UnreadableError(f"it is a JCEKS keystore, which is not supported: {_CONVERT}")
            case b"":
                raise errors.UnreadableError("it is empty")
            case magic if magic[0] == 0x30:
                return pkcs12.read(data, self._keys)
            case _:
                raise errors.UnreadableError("it is neither JKS nor PKCS#12")


def load(data: bytes, password: str, *, name: str) -> Keystore:
    """`Opener.load` for one version."""
    return Opener(password).load(data, name=name)


def empty(store_type: StoreType, password: str) -> Keystore:
    """A keystore without entries. Raises PasswordWrongError for a password that is not Unicode text."""
    _check(password)
    content: _Content = (jks if store_type == "JKS" else pkcs12).empty(password)
    return _Store(content.type, content.entries, content, "(new)")


def _check(password: str) -> None:
    """Raises PasswordWrongError for a lone surrogate (a byte that was not UTF-8): no format can encode it."""
    if any("\ud800" <= character <= "\udfff" for character in password):
        raise errors.PasswordWrongError(": it is not Unicode text")


def _seen(entry: Entry) -> tuple[EntryKind, bytes | None]:
    return entry.kind, entry.certificate
