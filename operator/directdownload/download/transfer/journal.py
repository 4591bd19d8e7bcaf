"""The progress of a download, kept beside its part so that the next attempt can continue.

Written by the transfer; read by the next attempt and, for progress, by the agent of the host. Bytes are synced to disk
before a journal lists them. Its content is untrusted: a file that is not exactly a journal of this version reads as
None.
"""

import datetime
from typing import Annotated, Literal, Self

import pydantic

from directdownload.hostfiles import reading, writing
from directdownload.resources.jobs import Document

#: further ranges are not kept: their bytes are fetched again
RANGES_LIMIT = 64
SOURCES_LIMIT = 32
_Bytes = Annotated[int, pydantic.Field(ge=0, le=2**62)]
_Text = Annotated[str, pydantic.Field(max_length=2048)]


class JournalSource(Document):
    """A source that bytes of the part came from; `digest` is `Url.digest`, `validator` names the version."""

    digest: _Text
    #: it goes unchanged into a request
    validator: Annotated[str, pydantic.Field(max_length=2048, pattern=r"^[\x20-\x7e]*$")] = ""


class Journal(Document):
    """`source` is the one that delivered last, for messages, without its query."""

    version: Literal[2] = 2
    placement: _Text = ""
    placement_uid: _Text = ""
    source: _Text
    sources: Annotated[tuple[JournalSource, ...], pydantic.Field(max_length=SOURCES_LIMIT)] = ()
    size_bytes: _Bytes | None = None
    #: synced to disk: sorted, disjoint, `[start, end)`
    ranges: Annotated[tuple[tuple[_Bytes, _Bytes], ...], pydantic.Field(max_length=RANGES_LIMIT)] = ()
    #: of all ranges together, for messages
    bytes_on_disk: _Bytes = 0
    bytes_per_second: _Bytes = 0
    resumed_from: _Bytes = 0
    started_time: datetime.datetime
    updated_time: datetime.datetime
    progress_interval_seconds: Annotated[float, pydantic.Field(ge=0, le=86_400)] = 2

    @pydantic.model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        last = -1
        for start, end in self.ranges:
            if not last < start < end:
                raise ValueError("ranges are not sorted and disjoint")
            last = end
        if self.size_bytes is not None and last > self.size_bytes:
            raise ValueError("a range ends behind the end of the file")
        return self

    def encoded(self) -> bytes:
        """The bytes of its file in the pool."""
        return self.model_dump_json().encode()

    def write(self, path: str) -> None:
        """Raises OSError."""
        writing.write_atomically(path, self.encoded())


def read_journal(path: str) -> Journal | None:
    """The journal at `path`; None if there is none of this version."""
    return reading.read_document(path, Journal)


def parse_journal(data: bytes | None) -> Journal | None:
    """`data` as a journal; None if it is not one of this version."""
    return reading.parse_document(data, Journal)
