"""Everything that can go wrong while downloading, each with the stable reason that operators see.

    DownloadError            reason, message for people, perhaps seconds to wait before the next attempt
    ├── RequestError         what was asked for cannot be done: bad checksum, URL not allowed
    ├── SourceError          this source failed: another source of the same bytes may do better
    │   └── ChangedError     it serves another version than it did when the transfer began
    ├── StorageError         the pool's disk failed: no source can help
    │   └── UnsoundError     what another process of ours had in its hands is not to be used again
    ├── StoppedError         the process was told to stop, or the deadline has passed
    └── ReleasedError        one of several connections is not needed any more; never leaves the transfer

Raised by every module of the engine; turned into a JobResult once, in `engine.outcome`. Messages never hold
credentials or query strings.
"""

import errno
import os
from collections.abc import Sequence

from directdownload.resources.reasons import PERMANENT, Reason

_STORAGE_REASONS = {
    errno.ENOSPC: Reason.INSUFFICIENT_SPACE,
    errno.EDQUOT: Reason.INSUFFICIENT_SPACE,
}

#: What reading a file ends with when its blocks or the file system's account of them are damaged.
DAMAGED = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EILSEQ})


class DownloadError(Exception):
    """The root of the tree; `reason` decides what the caller does, `message` is for people."""

    def __init__(self, reason: Reason, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def permanent(self) -> bool:
        return self.reason in PERMANENT


class RequestError(DownloadError):
    """What was asked for cannot be done, whatever the source or the disk."""


class SourceError(DownloadError):
    """One source failed; another source of the same bytes may do better."""


class ChangedError(SourceError):
    """A source serves another version than it did when the transfer began."""


class StorageError(DownloadError):
    """The pool cannot take the file; no other source can help."""


class UnsoundError(StorageError):
    """What another process said or did makes no sense: what it had in its hands is not used again."""


class StoppedError(DownloadError):
    """Told to stop, or out of time: what is on disk stays for the next attempt."""


class ReleasedError(DownloadError):
    """One connection is to end; the download goes on."""


def storage_error(error: OSError, path: str, action: str) -> StorageError:
    """An operating system's refusal to `action` (`write`, `publish`, …) `path`, with our reason."""
    reason = _STORAGE_REASONS.get(error.errno or 0, Reason.WRITE_FAILED)
    detail = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(reason, f"cannot {action} {path}: {detail}")


def chosen_failure(failures: Sequence[DownloadError]) -> DownloadError:
    """Of several sources' failures the one to tell: as long as one may still deliver, another attempt is worth it."""
    chosen = next((error for error in failures if not error.permanent), failures[0])
    others = ", ".join(error.reason for error in failures if error is not chosen)
    if not others:
        return chosen
    message = f"{chosen.message} (other sources: {others})"
    return type(chosen)(chosen.reason, message, retry_after_seconds=chosen.retry_after_seconds)
