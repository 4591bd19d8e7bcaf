"""What a keystore holds, whatever its type, and what is to change in it. Pure; used by this package and the agent."""

import dataclasses
import datetime
import enum
import functools
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from directdownload.resources import pem

StoreType = Literal["JKS", "PKCS12"]

#: Of a store. One of 300 certificates takes less than half a megabyte.
SIZE_LIMIT_BYTES = 8 << 20


class EntryKind(enum.StrEnum):
    """As keytool names them."""

    TRUSTED_CERTIFICATE = "trustedCertEntry"
    PRIVATE_KEY = "PrivateKeyEntry"
    SECRET_KEY = "SecretKeyEntry"  # noqa: S105 - a kind of entry


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry. `alias` is lower-cased, as by Java; `certificate` is DER: of a private key the first of its chain."""

    alias: str
    kind: EntryKind
    certificate: bytes | None = None
    created: datetime.datetime | None = None

    @functools.cached_property
    def fingerprint_sha256(self) -> str | None:
        return pem.fingerprint_sha256(self.certificate) if self.certificate is not None else None

    def trusts(self, der: bytes) -> bool:
        """Whether this is a trusted certificate of just these bytes."""
        return self.kind is EntryKind.TRUSTED_CERTIFICATE and self.certificate == der


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """Trusted certificates (DER by lower-cased alias) to put, in place of one there already; and aliases to remove."""

    put: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    remove: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.remove)


class Keystore(Protocol):
    """One store, read: made by `formats.load` and `formats.empty`; immutable."""

    @property
    def type(self) -> StoreType: ...

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By lower-cased alias."""

    def changed(self, changes: Changes, now: datetime.datetime) -> bytes:
        """The content of the store after `changes`; all else is kept as it is.

        An alias to remove that is not there is none too many. Raises ForeignEntryError where a change would replace or
        remove anything but a trusted certificate, and WriteError where the store would become larger than any that is
        read.
        """
