"""All failures of a download, each with the stable reason that operators see.

    DownloadError            reason, message for users, optional seconds to wait before the next attempt
    ├── RequestError         the request cannot be met: bad checksum, URL not allowed
    ├── SourceError          this source failed: another source of the same bytes may do better
    │   └── ChangedError     it serves another version than it did when the transfer began
    ├── StorageError         the pool's disk failed: no source can help
    │   └── UnsoundError     another process of the job sent invalid messages: its files must not be used again
    ├── StoppedError         the process must stop, or the deadline has passed
    └── ReleasedError        one of several connections is no longer needed; never leaves the transfer

Raised by every module of the engine; turned into a JobResult once, in `engine.outcome`. Messages never hold
credentials or query strings.
"""

import errno
import os
import re
from collections.abc import Sequence
from typing import Self

from directdownload.resources.reasons import PERMANENT, Reason

_STORAGE_REASONS = {
    errno.ENOSPC: Reason.INSUFFICIENT_SPACE,
    errno.EDQUOT: Reason.INSUFFICIENT_SPACE,
}

#: `[Errno 5] `, `[SSL: WRONG_VERSION_NUMBER] `, `(_ssl.c:1006)`, `Error -3 while decompressing data: `
_NOISE = re.compile(r"^\[[^\]]*\] | ?\(_?\w+\.c:\d+\)|^Error -?\d+ while \w+ data: ")
_CONSTANT = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|^[A-Z]{2,}$")
#: Errors of reading a file whose blocks or file system metadata are damaged.
DAMAGED = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EILSEQ})


class DownloadError(Exception):
    """The root of the tree; `reason` decides what the caller does, `message` is for users.

    `bad_host`: as in JobResult.
    """

    def __init__(
        self, reason: Reason, message: str, *, retry_after_seconds: float | None = None, bad_host: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.bad_host = bad_host

    @property
    def permanent(self) -> bool:
        return self.reason in PERMANENT

    def repeated(self, message: str) -> Self:
        """The same with another message, whatever its class is made from, and without its traceback."""
        found = type(self).__new__(type(self), message)
        found.__dict__.update(self.__dict__, message=message)
        return found


class RequestError(DownloadError):
    """The request cannot be met by any source or disk."""


class SourceError(DownloadError):
    """One source failed; another source of the same bytes may do better."""


class ChangedError(SourceError):
    """A source serves another version than it did when the transfer began."""


class StorageError(DownloadError):
    """The pool cannot take the file; no other source can help."""


class UnsoundError(StorageError):
    """Another process of the job sent invalid messages or does not end: its files are not used again."""


class StoppedError(DownloadError):
    """The process must stop, or the deadline has passed: the bytes on disk stay for the next attempt."""


class ReleasedError(DownloadError):
    """One connection must end; the download goes on."""


def plain(text: str) -> str:
    """`text` of a library for people: constants become words in lower case, error numbers and lines of code go."""
    text = _NOISE.sub("", text)
    return _CONSTANT.sub(lambda match: match[0].replace("_", " ").lower(), text).strip()


def storage_error(error: OSError, path: str, action: str) -> StorageError:
    """The StorageError for a failed system call to `action` (`write`, `publish`, …) `path`."""
    reason = _STORAGE_REASONS.get(error.errno or 0, Reason.WRITE_FAILED)
    detail = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(reason, f"cannot {action} {path}: {detail}")


def chosen_failure(failures: Sequence[DownloadError]) -> DownloadError:
    """The failure to report of several: a transient one first, as then another attempt may succeed."""
    chosen = next((error for error in failures if not error.permanent), failures[0])
    others = ", ".join(error.reason for error in failures if error is not chosen)
    if not others:
        return chosen
    message = f"{chosen.message} (other sources: {others})"
    return chosen.repeated(message)
