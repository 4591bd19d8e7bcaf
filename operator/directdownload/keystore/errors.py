"""Errors of a keystore, each with the reason of its condition, event and metric.

Every module of this package raises them; the keystore is then unchanged. Messages name the file, what was expected and
what to do (`unreadable` and `write_error` make them of a failed system call). They never contain a password or a key of
the keystore.
"""

import errno
from typing import ClassVar

from directdownload.resources.reasons import Reason

_DIRECTORY_ADVICE = "let this process write to its directory, which must not be mounted read-only"
_ADVICE = {
    errno.EROFS: _DIRECTORY_ADVICE,
    errno.EACCES: _DIRECTORY_ADVICE,
    errno.EPERM: (
        "check that neither file nor directory is immutable (lsattr), and that this process may give files away"
    ),
    errno.ENOSPC: "free space on its file system",
    errno.EDQUOT: "raise the quota of its owner",
    errno.ENOENT: "create its directory",
    errno.EIO: "check the kernel's log: the disk may be failing",
}


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


def unreadable(error: OSError | ValueError, path: str) -> UnreadableError:
    """The error for `path`. Python raises ValueError for a path with a NUL character."""
    if isinstance(error, ValueError):
        return UnreadableError(f"{path!r} cannot be read: expected a path without NUL characters")
    return UnreadableError(f"{path} cannot be read: {_text(error)}")


def write_error(error: OSError, path: str, doing: str) -> WriteError:
    """The error for a failed write. `doing` completes "cannot", such as "write the new version"."""
    advice = _ADVICE.get(error.errno or 0, "check the kernel's log and the file system")
    return WriteError(f"{path}: cannot {doing}: {_text(error)}; {advice}")


def _text(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
