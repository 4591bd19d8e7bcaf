"""The entries of a keystore of any type, and changes of them. Pure; used by this package and the agent."""

import dataclasses
import datetime
import enum
import functools
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from directdownload.resources import pem

StoreType = Literal["JKS", "PKCS12"]

#: Limit of a keystore. 300 certificates take less than half a megabyte.
SIZE_LIMIT_BYTES = 8 << 20


class EntryKind(enum.StrEnum):
    """Kinds of entries, with keytool's names."""

    TRUSTED_CERTIFICATE = "trustedCertEntry"
    PRIVATE_KEY = "PrivateKeyEntry"
    SECRET_KEY = "SecretKeyEntry"  # noqa: S105 - a kind of entry


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry. `alias` is in lower case, as in Java. `certificate` is DER; a key has the first of its chain."""

    alias: str
    kind: EntryKind
    certificate: bytes | None = None
    created: datetime.datetime | None = None

    @functools.cached_property
    def fingerprint_sha256(self) -> str | None:
        return pem.fingerprint_sha256(self.certificate) if self.certificate is not None else None

    def trusts(self, der: bytes) -> bool:
        """Whether this is a trusted certificate with exactly these bytes."""
        return self.kind is EntryKind.TRUSTED_CERTIFICATE and self.certificate == der


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """Trusted certificates to put or replace (DER by lower-case alias), and aliases to remove."""

    put: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    remove: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.remove)


class Keystore(Protocol):
    """An immutable keystore, made by `formats.load` and `formats.empty`."""

    @property
    def type(self) -> StoreType: ...

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Entries by lower-case alias."""

    def changed(self, changes: Changes, now: datetime.datetime) -> bytes:
        """The content of the file after `changes`; everything else stays byte for byte.

        A missing alias in `remove` is ignored. Raises ForeignEntryError if a change would replace or remove anything
        but a trusted certificate, and WriteError if the keystore would exceed the limits.
        """
