"""JKS stores, read and written by pyjks.

Used by `formats`. Promises: keys, their chains, all dates and the order of entries are written as read; keys are never
decrypted, so that they may have their own passwords. pyjks trusts the lengths that it reads, and writes UTF-8 instead
of Java's "modified" UTF-8; `_Store` makes it strict and exact.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Mapping, Set
from typing import Any

import jks
from jks.util import DuplicateAliasException, KeystoreException, KeystoreSignatureException, b2, b4, b8

from directdownload.keystore.entries import Entry, EntryKind, StoreType
from directdownload.keystore.errors import PasswordWrongError, UnreadableError

_VERSION = 2
_TRUSTED = 2
#: Java's certificate types: it opens no keystore with another one.
_TYPES = frozenset({"x.509", "x509"})
_REWRITE = "rewrite it with keytool -importkeystore"
_ENTRY_LIMIT = 5_000
#: Longest alias in a message, in characters.
_SHOWN = 128
_CHAIN_LIMIT = 32
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


class _Store(jks.KeyStore):  # type: ignore[misc]  # pyjks has no types
    """Overrides methods with which pyjks reads and writes; pyjks defines their names and arguments."""

    @classmethod
    def _read_utf(cls, data: bytes, pos: int, kind: str | None = None) -> tuple[str, int]:
        size = b2.unpack_from(data, pos)[0]
        raw, end = _slice(data, pos + 2, size)
        return _text(raw), end

    @classmethod
    def _read_data(cls, data: bytes, pos: int) -> tuple[bytes, int]:
        return _slice(data, pos + 4, b4.unpack_from(data, pos)[0])

    @classmethod
    def _read_private_key(cls, data: bytes, pos: int, store_type: str) -> tuple[jks.PrivateKeyEntry, int]:
        key, end = cls._read_data(data, pos)
        # pyjks treats an empty key as decrypted
        if not key or b4.unpack_from(data, end)[0] > _CHAIN_LIMIT:
            raise UnreadableError(f"damaged: a private key that is empty or has more than {_CHAIN_LIMIT} certificates")
        found: tuple[jks.PrivateKeyEntry, int] = super()._read_private_key(data, pos, store_type)
        return found

    @classmethod
    def _write_utf(cls, text: str) -> bytes:
        encoded = _modified_utf8(text)
        return bytes(b2.pack(len(encoded))) + encoded

    @classmethod
    def _write_trusted_cert(cls, alias: str, item: jks.TrustedCertEntry) -> bytes:
        head = bytes(b4.pack(_TRUSTED)) + cls._write_utf(alias) + bytes(b8.pack(item.timestamp))
        return head + cls._write_utf(item.type) + bytes(cls._write_data(item.cert))


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Content:
    """An open keystore. `stored`: pyjks' entries by alias as stored."""

    data: bytes
    stored: Mapping[str, Any]
    password: str
    type: StoreType = "JKS"

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Entries by alias, without upper-case aliases: Java looks up aliases in lower case, and never finds these."""
        return {alias: _entry(alias, item) for alias, item in self.stored.items() if alias == alias.lower()}

    @property
    def room(self) -> int:
        """How many more entries are within the limits; negative: too many."""
        return _ENTRY_LIMIT - len(self.stored)

    def changed(self, put: Mapping[str, bytes], remove: Set[str], now: datetime.datetime) -> "Content":
        """The keystore with the trusted certificates `put`, created at `now`, and without the aliases `remove`."""
        stored = {alias: item for alias, item in self.stored.items() if alias not in remove}
        for alias, certificate in put.items():
            timestamp = (now - _EPOCH) // _MILLISECOND
            stored[alias] = jks.TrustedCertEntry(alias=alias, timestamp=timestamp, type="X.509", cert=certificate)
        return _content(stored, self.password)


def read(data: bytes, password: str) -> Content:
    """Opens a keystore. Raises UnreadableError, PasswordWrongError."""
    if len(data) >= 8 and (version := int.from_bytes(data[4:8])) != _VERSION:
        raise UnreadableError(f"a JKS store of version {version}, expected {_VERSION}; {_REWRITE}")
    if int.from_bytes(data[8:12]) > _ENTRY_LIMIT:
        raise UnreadableError(f"damaged, or of more than {_ENTRY_LIMIT} entries")
    try:
        store = _Store.loads(data, password, try_decrypt_keys=False)
    except KeystoreSignatureException:
        raise PasswordWrongError(" (or was changed without it)") from None
    except DuplicateAliasException as error:
        # pyjks reports the alias only in the message, which it ends in quotes
        alias = str(error).removeprefix("Found duplicate alias ")[1:-1]
        raise UnreadableError(
            f"two of its entries have the alias {_shown(alias)}, and Java sees only the last one; {_REWRITE}, "
            "which keeps that one"
        ) from None
    except KeystoreException:
        raise UnreadableError("damaged or cut off") from None
    for alias, item in store.entries.items():
        for name in _types(item):
            if name.lower() not in _TYPES:
                raise UnreadableError(
                    f"the entry {_shown(alias)} has a certificate of type {_shown(name)}, expected X.509; Java opens "
                    "no store that has one"
                )
    return Content(data, store.entries, password)


def empty(password: str) -> Content:
    """A keystore without entries."""
    return _content({}, password)


def _content(stored: Mapping[str, Any], password: str) -> Content:
    return Content(_Store("jks", stored).saves(password), stored, password)


def _entry(alias: str, item: Any) -> Entry:
    created = None
    with contextlib.suppress(OverflowError):
        created = _EPOCH + item.timestamp * _MILLISECOND
    if isinstance(item, jks.TrustedCertEntry):
        return Entry(alias, EntryKind.TRUSTED_CERTIFICATE, item.cert, created)
    if not item.cert_chain:
        # keytool calls every key without a chain a SecretKeyEntry
        return Entry(alias, EntryKind.SECRET_KEY, None, created)
    return Entry(alias, EntryKind.PRIVATE_KEY, item.cert_chain[0][1], created)


def _types(item: Any) -> list[str]:
    """The types of the entry's certificates."""
    return [item.type] if isinstance(item, jks.TrustedCertEntry) else [name for name, _ in item.cert_chain]


def _shown(text: str) -> str:
    """Foreign text for a message: on one line, and bounded."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _slice(data: bytes, start: int, size: int) -> tuple[bytes, int]:
    if start + size > len(data):
        raise UnreadableError(f"damaged or cut off: a field of {size} bytes where {len(data) - start} are left")
    return data[start : start + size], start + size


def _text(raw: bytes) -> str:
    """Decodes modified UTF-8 (java.io.DataInput): NUL is two bytes, a character beyond U+FFFF two surrogates."""
    try:
        text = raw.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
        text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        raise UnreadableError("damaged: an alias that is not Unicode") from None
    if _modified_utf8(text) != raw:
        raise UnreadableError("damaged: an alias in an encoding that Java does not write")
    return text


def _modified_utf8(text: str) -> bytes:
    units = text.encode("utf-16-be")
    wide = "".join(chr(int.from_bytes(units[at : at + 2])) for at in range(0, len(units), 2))
    return wide.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
