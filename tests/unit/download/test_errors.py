"""Errors of the engine: which of several is reported, and that each class can be reported so."""

import pytest

from directdownload.download.errors import DownloadError, SourceError, StoppedError, chosen_failure
from directdownload.download.sources.head import MalformedError
from directdownload.download.sources.nfssession import NFSError
from directdownload.resources.reasons import Reason

REFUSED = SourceError(Reason.SOURCE_REFUSED, "404")
BUSY = SourceError(Reason.SOURCE_UNAVAILABLE, "503", retry_after_seconds=7)


@pytest.mark.parametrize(
    "error",
    [
        BUSY,
        MalformedError("http://h/a", "a header (Name: value)", "X"),
        NFSError(Reason.NFS_ERROR, "nfs://h/e/a", "stale handle", mounting=False, denied=True),
        StoppedError(Reason.INTERRUPTED, "asked to stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_its_class_a_failure_is_reported_beside_others(error: DownloadError) -> None:
    try:
        raise error
    except DownloadError:
        told = chosen_failure([REFUSED, error])
    assert type(told) is type(error)
    assert str(told) == told.message == f"{error.message} (other sources: SourceRefused)"
    assert told.__traceback__ is None
    assert {**vars(told), "message": error.message} == vars(error)
