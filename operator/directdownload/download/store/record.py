"""The record of a published file, kept in the pool's work directory.

Written when a file is published or verified; read by the agents, which compare size, mtime and inode with the file
(never owner, mode or label: libvirt changes those). Untrusted, like a journal: any writer of the pool may have written
it, so it decides nothing in a job. A host keeps a seal of the files that it published or hashed itself (`seal.py`).
"""

import datetime
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

import pydantic

from directdownload.hostfiles import reading, writing
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import Document

_Size = Annotated[int, pydantic.Field(ge=0, le=2**62)]
_Text = Annotated[str, pydantic.Field(max_length=4096)]


class Record(Document):
    """`digest` is `sha256:<hex>` of the file; `checksum` the canonical text of the checksum that matched, may be empty.

    For an unpacked archive `checksum`, `served_digest` and `served_bytes` are of the bytes as served; for other files
    the latter two have no meaning.
    """

    version: Literal[1] = 1
    placement: _Text = ""
    placement_uid: _Text = ""
    #: the host that wrote it; on a shared pool the agents of all hosts read it
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
        """The first record of a just verified file with this state."""
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
        """This record, renewed for the just verified file with this state."""
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
        """An opaque text, different after every publishing and verification. It links an agent's observation to a
        job's result.

        A `distrusted` record keeps it, as it is still about the same file.
        """
        return hashlib.sha256(self.model_dump_json(exclude={"inode"}).encode()).hexdigest()[:12]

    def distrusted(self) -> Self:
        """This record for a file with other content than recorded: no file matches it."""
        return self.model_copy(update={"inode": 0})

    def matches(self, state: os.stat_result) -> bool:
        """Whether a file with this state is the recorded one, by its size, mtime and inode."""
        return (self.size_bytes, self.mtime_ns, self.inode) == (state.st_size, state.st_mtime_ns, state.st_ino)

    def meets(self, expected: Iterable[Checksum]) -> bool:
        """Whether the bytes as served matched `expected`."""
        return all(str(checksum) in (self.served_digest or self.digest, self.checksum) for checksum in expected)

    def wanted(self, expected: Sequence[Checksum]) -> Sequence[Checksum]:
        """The expected checksums of the file itself, where `expected` is of the bytes as served."""
        if not (self.served_digest and self.meets(expected)):
            return expected
        # no digest in it: then the file cannot be verified
        try:
            return (Checksum.parse(self.digest),)
        except ValueError:
            return expected

    def write(self, path: str) -> None:
        """Raises OSError."""
        writing.write_atomically(path, self.model_dump_json().encode())


def read_record(path: str) -> Record | None:
    """The record at `path`; None if there is none of this version."""
    return reading.read_document(path, Record)
