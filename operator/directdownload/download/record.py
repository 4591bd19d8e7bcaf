"""What was published under a final name, kept in the pool's work directory.

Written when a file is published or verified; read by the agents, which compare size, mtime and inode with what they see
(never owner, mode or label: libvirt changes those). Hostile until checked, like a journal: whoever writes the pool may
have written it, so it decides nothing in a job. What a host itself has published or hashed it keeps in a seal
(`seal.py`).
"""

import datetime
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

import pydantic

from directdownload.download import files
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import Document

SUFFIX = ".record"
_Size = Annotated[int, pydantic.Field(ge=0, le=2**62)]
_Text = Annotated[str, pydantic.Field(max_length=4096)]


class Record(Document):
    """`digest` is `sha256:<hex>` of the file; `checksum` the canonical text of the one that was met, perhaps empty.

    Of an unpacked archive `checksum`, `served_digest` and `served_bytes` are of the bytes as served; of anything else
    the latter two say nothing.
    """

    version: Literal[1] = 1
    placement: _Text = ""
    placement_uid: _Text = ""
    #: who wrote it; on a shared pool the agents of all hosts read it
    host: _Text = ""
    path: _Text
    digest: _Text
    checksum: _Text = ""
    served_digest: _Text = ""
    served_bytes: _Size | None = None
    format: _Text = ""
    virtual_size_bytes: _Size | None = None
    size_bytes: _Size
    mtime_ns: int
    inode: int
    verified_time: pydantic.AwareDatetime

    @classmethod
    def of(cls, state: os.stat_result, *, path: str, digest: str, checksum: str) -> Self:
        """The record of a file with this state that has just been verified, and of which no record was there."""
        return cls(
            path=path,
            digest=digest,
            checksum=checksum,
            size_bytes=state.st_size,
            mtime_ns=state.st_mtime_ns,
            inode=state.st_ino,
            verified_time=datetime.datetime.now(datetime.UTC),
        )

    def verified(self, state: os.stat_result) -> Self:
        """The record of a file with this state that has just been found to hold what it should."""
        return self.model_copy(
            update={
                "size_bytes": state.st_size,
                "mtime_ns": state.st_mtime_ns,
                "inode": state.st_ino,
                "verified_time": datetime.datetime.now(datetime.UTC),
            }
        )

    @property
    def revision(self) -> str:
        """Opaque and different after every publishing and verification; links what the agent sees to a job's result.

        The same for the record when it is `distrusted`: it still is about the same file.
        """
        return hashlib.sha256(self.model_dump_json(exclude={"inode"}).encode()).hexdigest()[:12]

    def distrusted(self) -> Self:
        """The record of a file that turned out not to be what was recorded: no file matches it."""
        return self.model_copy(update={"inode": 0})

    def matches(self, state: os.stat_result) -> bool:
        """Whether the file with this state is, by all that is cheap to see, the one that was recorded."""
        return (self.size_bytes, self.mtime_ns, self.inode) == (state.st_size, state.st_mtime_ns, state.st_ino)

    def meets(self, expected: Iterable[Checksum]) -> bool:
        """Whether what was served was as expected."""
        return all(str(checksum) in (self.served_digest or self.digest, self.checksum) for checksum in expected)

    def wanted(self, expected: Sequence[Checksum]) -> Sequence[Checksum]:
        """What the file itself must hash to, where `expected` is of the bytes as served."""
        if not (self.served_digest and self.meets(expected)):
            return expected
        # no digest in it: then nothing vouches for the file
        try:
            return (Checksum.parse(self.digest),)
        except ValueError:
            return expected

    def write(self, path: str) -> None:
        """Raises OSError."""
        files.write_atomically(path, self.model_dump_json().encode())


def read_record(path: str) -> Record | None:
    """The record at `path`; None if there is none, or what is there is none of this version."""
    return files.read_document(path, Record)
