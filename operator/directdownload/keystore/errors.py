"""What can be wrong with a keystore, each with the reason that condition, event and metric carry.

Raised by every module of this package; a store is untouched when one of these was raised. Messages name the file, what
was expected and what to do. They never hold a password or what lies in the store.
"""

from typing import ClassVar

from directdownload.resources.reasons import Reason


class KeystoreError(Exception):
    """Base; `reason` is one of the `Keystore…` reasons or `AliasConflict`."""

    reason: ClassVar[Reason]


class UnreadableError(KeystoreError):
    """Not a keystore that we know, damaged, larger than any, or not readable at all."""

    reason = Reason.KEYSTORE_UNREADABLE


class PasswordWrongError(KeystoreError):
    """The store does not open with this password."""

    reason = Reason.KEYSTORE_PASSWORD_WRONG


class PasswordMissingError(KeystoreError):
    """There is no password where it should be."""

    reason = Reason.KEYSTORE_PASSWORD_MISSING


class MissingError(KeystoreError):
    """There is no such file, and none shall be made."""

    reason = Reason.KEYSTORE_MISSING


class WriteError(KeystoreError):
    """The store could not be written or locked; what was there before still is."""

    reason = Reason.KEYSTORE_WRITE_FAILED


class ForeignEntryError(KeystoreError):
    """A change that would touch an entry that is not a trusted certificate: a key is never replaced or removed."""

    reason = Reason.ALIAS_CONFLICT
