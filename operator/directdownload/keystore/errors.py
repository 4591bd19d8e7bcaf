"""Errors of a keystore, each with the reason of its condition, event and metric.

Every module of this package raises them; the keystore is then unchanged. Messages name the file, what was expected and
what to do. They never contain a password or a key of the keystore.
"""

from typing import ClassVar

from directdownload.resources.reasons import Reason


class KeystoreError(Exception):
    """Base; `reason` is one of the `Keystore…` reasons or `AliasConflict`."""

    reason: ClassVar[Reason]


class UnreadableError(KeystoreError):
    """The file is of an unknown type, damaged, too large, or cannot be read."""

    reason = Reason.KEYSTORE_UNREADABLE


class PasswordWrongError(KeystoreError):
    """The keystore does not open with this password."""

    reason = Reason.KEYSTORE_PASSWORD_WRONG


class PasswordMissingError(KeystoreError):
    """The file that should hold the password has none, or cannot be read."""

    reason = Reason.KEYSTORE_PASSWORD_MISSING


class MissingError(KeystoreError):
    """The keystore does not exist, and may not be created."""

    reason = Reason.KEYSTORE_MISSING


class WriteError(KeystoreError):
    """The keystore could not be written or locked; its old version is still in place."""

    reason = Reason.KEYSTORE_WRITE_FAILED


class ForeignEntryError(KeystoreError):
    """A change would replace or remove an entry that is not a trusted certificate, such as a key."""

    reason = Reason.ALIAS_CONFLICT
