"""How far a download got, kept beside its part so that the next attempt can continue.

Written by the transfer; read by the next attempt and, for progress, by the agent of the host. What a
journal says is on disk was synced before the journal said so. Whoever reads one must take it as hostile: a file that
is not exactly a journal of this version reads as None.
"""

import datetime
from typing import Annotated, Literal

import pydantic

from directdownload.download import files
from directdownload.resources.jobs import Document

SUFFIX = ".journal"
_Bytes = Annotated[int, pydantic.Field(ge=0, le=2**62)]
_Text = Annotated[str, pydantic.Field(max_length=2048)]


class Journal(Document):
    """`source` is for people and without its query; `source_digest` tells whether a URL is the same."""

    version: Literal[1] = 1
    placement: _Text = ""
    placement_uid: _Text = ""
    source: _Text
    source_digest: _Text
    size_bytes: _Bytes | None = None
    validator: _Text = ""
    #: synced to disk
    bytes_on_disk: _Bytes = 0
    bytes_per_second: _Bytes = 0
    resumed_from: _Bytes = 0
    started_time: datetime.datetime
    updated_time: datetime.datetime
    progress_interval_seconds: Annotated[float, pydantic.Field(ge=0, le=86_400)] = 2

    def write(self, path: str) -> None:
        """Raises OSError."""
        files.write_atomically(path, self.model_dump_json().encode())


def read_journal(path: str) -> Journal | None:
    """The journal at `path`; None if there is none, or what is there is none of this version."""
    return files.read_document(path, Journal)
