"""Disks of simulated hosts, an origin, and what a job's verb does to them: the download engine in miniature.

`test_disks.py` compares it with the engine itself. A `Disk` holds what lies in the directory of a pool: published
files, the records beside them, parts of downloads. All calls may come from any thread.
"""

import dataclasses
import datetime
import hashlib
import itertools
import threading
from collections.abc import Callable

from directdownload.resources.jobs import JobDocument, JobResult, Verb
from directdownload.resources.reasons import Reason

SIZE_BYTES = 4096
CAPACITY_BYTES = 1 << 30
_stamps = itertools.count(1)


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Origin:
    """Serves the same bytes for a URL each time, other bytes for another, until told otherwise."""

    def __init__(self) -> None:
        #: nobody can connect
        self.cut = False
        #: URLs under which it serves other bytes than it should
        self.corrupt: set[str] = set()

    def digest(self, url: str) -> str:
        return digest_of(f"{url} corrupt" if url in self.corrupt else url)


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A published file. `stamp` changes whenever mtime or inode would, `change` with every write, as ctime does."""

    digest: str
    size_bytes: int
    stamp: int = dataclasses.field(default_factory=lambda: next(_stamps))
    change: int = dataclasses.field(default_factory=lambda: next(_stamps))
    mtime: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What was published or verified last."""

    placement: str
    placement_uid: str
    host: str
    digest: str
    size_bytes: int
    #: None: a check found other bytes than these, so it vouches for no file
    stamp: int | None
    #: which publishing or verification this is of
    number: int = dataclasses.field(default_factory=lambda: next(_stamps))

    @property
    def revision(self) -> str:
        return digest_of(f"{self.placement_uid} {self.host} {self.number}")[7:19]

    def distrusted(self) -> "Record":
        """The same one, still, but no file matches it."""
        return dataclasses.replace(self, stamp=None)

    def matches(self, file: File | None) -> bool:
        return file is not None and (self.size_bytes, self.stamp) == (file.size_bytes, file.stamp)


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """What a host keeps for itself of a file that it has published or hashed."""

    record: Record
    change: int


class Disk:
    """One directory: of one host, or of all hosts that share it. `name` tells it from others."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, File] = {}
        self.records: dict[str, Record] = {}
        #: by host and name of the file
        self.seals: dict[tuple[str, str], Seal] = {}
        #: `<template uid>.<host>` of downloads that were begun and not ended
        self.parts: set[str] = set()
        #: names of files that a virtual machine holds
        self.in_use: set[str] = set()
        self.full = False
        self.lock = threading.RLock()

    @property
    def available_bytes(self) -> int:
        with self.lock:
            return 0 if self.full else CAPACITY_BYTES - sum(file.size_bytes for file in self.files.values())

    def seen(self) -> list[tuple[Record, File | None]]:
        """What an agent finds: each record with the file that it is of."""
        with self.lock:
            return [(record, self.files.get(name)) for name, record in sorted(self.records.items())]

    # --- behind everybody's back

    def delete(self, name: str) -> None:
        with self.lock:
            self.files.pop(name, None)

    def alter(self, name: str, *, size_bytes: int = SIZE_BYTES, silently: bool = False) -> None:
        """Other bytes; `silently`: size, mtime and inode stay, as when a disk rots."""
        with self.lock:
            if (file := self.files.get(name)) is None:
                return
            other = digest_of(f"altered {next(_stamps)}")
            silent = dataclasses.replace(file, digest=other, change=next(_stamps))
            self.files[name] = silent if silently else File(other, size_bytes)

    def touch(self, name: str) -> None:
        """Another mtime, the same bytes."""
        with self.lock:
            if (file := self.files.get(name)) is not None:
                self.files[name] = File(file.digest, file.size_bytes)

    def drop_record(self, name: str) -> None:
        with self.lock:
            self.records.pop(name, None)

    # --- the verbs

    def begin(self, document: JobDocument) -> None:
        if document.verb is Verb.FETCH:
            with self.lock:
                self.parts.add(_part(document))

    def work(self, document: JobDocument, origin: Origin, removed: Callable[[str, str], None]) -> JobResult:
        """Does what the document says; `removed` hears the disk's and the file's name before a job removes a file."""
        verbs = {Verb.FETCH: self._fetch, Verb.VERIFY: self._verify, Verb.PROBE: self._probe}
        with self.lock:
            if document.verb is Verb.REMOVE:
                return self._remove(document, removed)
            return verbs[document.verb](document, origin)

    def _fetch(self, document: JobDocument, origin: Origin) -> JobResult:
        name, expected = document.file_name, _expected(document)
        file, seal = self.files.get(name), self.seals.get((document.host, name))
        sealed = seal is not None and file is not None and seal.change == file.change
        if file is not None and seal is not None and sealed and expected in ("", seal.record.digest):
            self.parts.discard(_part(document))
            return self._done(Reason.ALREADY_PRESENT, document, file, seal.record)
        if file is not None and file.digest == expected:
            self.parts.discard(_part(document))
            return self._done(Reason.ALREADY_PRESENT, document, file)
        if origin.cut:
            return JobResult(reason=Reason.SOURCE_UNREACHABLE, message="simulated: nobody answers")
        if self.full:
            self.parts.discard(_part(document))
            return JobResult(reason=Reason.INSUFFICIENT_SPACE, message="simulated: the disk is full")
        found = origin.digest(document.url)
        if expected not in ("", found):
            self.parts.discard(_part(document))
            reason = Reason.CHECKSUM_MISMATCH if document.checksum else Reason.SOURCE_CHANGED
            return JobResult(reason=reason, message=f"simulated: expected {expected}, found {found}")
        self.parts.discard(_part(document))
        standing = self.records.get(name)
        same = (found, document.placement_uid)
        if file is not None and standing is not None and standing.matches(file) and file.digest == found:
            stays = (standing.digest, standing.placement_uid) == same
            if stays:
                return self._done(Reason.ALREADY_PRESENT, document, file, standing, seals=False)
        self.files[name] = published = File(found, SIZE_BYTES)
        return self._done(Reason.DOWNLOADED, document, published)

    def _verify(self, document: JobDocument, _origin: Origin) -> JobResult:
        name = document.file_name
        file, record, seal = self.files.get(name), self.records.get(name), self.seals.get((document.host, name))
        if file is None:
            return JobResult(reason=Reason.MISSING, message="simulated: there is no such file")
        sealed = seal.record.digest if seal is not None else None
        if file.digest != (document.published_digest or _expected(document) or sealed):
            self.seals.pop((document.host, name), None)
            if record is not None:
                self.records[name] = record.distrusted()
            return JobResult(reason=Reason.ALTERED, message="simulated: other bytes", size_bytes=file.size_bytes)
        return self._done(Reason.VERIFIED, document, file)

    def _probe(self, _document: JobDocument, origin: Origin) -> JobResult:
        if origin.cut:
            return JobResult(reason=Reason.SOURCE_UNREACHABLE, message="simulated: nobody answers")
        return JobResult(
            reason=Reason.SOURCE_REACHABLE, size_bytes=SIZE_BYTES, etag='"simulated"', media_type="text/x", ranges=True
        )

    def _remove(self, document: JobDocument, removed: Callable[[str, str], None]) -> JobResult:
        name = document.file_name
        if name in self.in_use:
            return JobResult(reason=Reason.IN_USE, message="simulated: a virtual machine holds the file")
        if name in self.files:
            removed(self.name, name)
        self.files.pop(name, None)
        self.records.pop(name, None)
        self.seals.pop((document.host, name), None)
        self.parts.discard(_part(document))
        return JobResult(reason=Reason.REMOVED)

    def _done(
        self, reason: Reason, document: JobDocument, file: File, sealed: Record | None = None, *, seals: bool = True
    ) -> JobResult:
        """Writes the record and the seal; what was `sealed` is only given its new owner, if it has one."""
        owner = (document.placement, document.placement_uid)
        record = sealed or Record(*owner, document.host, file.digest, file.size_bytes, file.stamp)
        if (record.placement, record.placement_uid) != owner:
            placement, uid = owner
            record = dataclasses.replace(record, placement=placement, placement_uid=uid, host=document.host)
        self.records[document.file_name] = record
        if seals:
            self.seals[document.host, document.file_name] = Seal(record, file.change)
        path = f"{document.pool.path}/{document.file_name}"
        return JobResult(
            reason=reason,
            path=path,
            size_bytes=file.size_bytes,
            digest=file.digest,
            published_digest=file.digest,
            revision=record.revision,
        )


def _part(document: JobDocument) -> str:
    return f"{document.template_uid}.{document.host}"


def _expected(document: JobDocument) -> str:
    """What the file must hash to, or empty. Templates of simulations have no checksums but SHA-256."""
    return document.checksum or document.expected_digest
