"""Reading from one source, without the rest of the engine."""

import contextlib
import threading
from typing import Any

from tests.unit.download.support import LOCAL, PATIENT

from directdownload.download import sources
from directdownload.download.errors import DownloadError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, Source, SourceOptions, Stream


def guard(deadline_seconds: float = 0) -> Guard:
    return Guard.start(threading.Event(), deadline_seconds)


def make_source(url: str, **options: Any) -> Source:
    """A source that may connect to this machine."""
    return sources.create(url, SourceOptions(**{"timeouts": PATIENT, "policy": LOCAL, **options}))


def drain(stream: Stream, buffer_bytes: int = 65_536) -> bytes:
    """Everything that a stream has; it is closed then."""
    data, buffer = b"", memoryview(bytearray(buffer_bytes))
    with contextlib.closing(stream):
        while count := stream.readinto(buffer):
            data += buffer[:count]
    return data


def read(url: str, ask: Ask = Ask(), **options: Any) -> bytes:  # noqa: B008 - it is frozen
    return drain(make_source(url, **options).open(ask, guard()))


def read_error(url: str, ask: Ask = Ask(), **options: Any) -> DownloadError:  # noqa: B008 - it is frozen
    try:
        data = read(url, ask, **options)
    except DownloadError as error:
        return error
    raise AssertionError(f"expected a failure, got {len(data)} bytes")
