"""Derives the status of placements from the journals and records of one pool. No I/O.

`monitor` feeds a `PoolBook` with the findings of the pool's worker; `status.placements` gets the result. Journals and
records are hostile until checked: everybody who can write the pool can write them. A copy outlives its record: the book
remembers it until its placement is gone, and `status.told` keeps it over a restart.
"""

import dataclasses
import datetime
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import pydantic

from directdownload import escaping
from directdownload.agent.cluster_view import Target
from directdownload.agent.copies import Gone, Key, Remembered, Wanted
from directdownload.agent.pools import progress
from directdownload.download.store import record
from directdownload.download.transfer import journal
from directdownload.resources.host import UnplacedFile
from directdownload.resources.naming import JOURNAL_SUFFIX, RECORD_SUFFIX
from directdownload.resources.templateplacement import Observed, Progress

SUFFIXES = (JOURNAL_SUFFIX, RECORD_SUFFIX)
#: A record is written just before its file gets its name, and a removal deletes the record before the placement. For
#: this long, neither a file that has never matched its record nor a vanished record is a finding.
SETTLING_SECONDS = 10
_MINIMUM_INTERVAL_SECONDS = 1.0
_ENDED_LIMIT = 1000
#: Limit of copies without record; they are few, unless somebody forges records.
_LOST_LIMIT = 5000
#: Limits of a record's fields that are kept: Linux's NAME_MAX, a host name, twice the longest digest.
_FILE_NAME_LIMIT, _HOST_LIMIT, _DIGEST_LIMIT, _FORMAT_LIMIT = 255, 253, 512, 64
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class FileState:
    """The state of a regular file, to compare with a record. Independent of owner, mode and label."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def mtime(self) -> datetime.datetime | None:
        try:
            return datetime.datetime.fromtimestamp(self.mtime_ns // 1_000_000_000, datetime.UTC)
        except (ValueError, OverflowError, OSError):
            # some file systems accept any number, and everybody who may write the file can set it
            return None


@dataclasses.dataclass(slots=True)
class _Copy:
    known: Remembered
    #: None: it is lost
    record: record.Record | None
    #: when the current record was first seen, or first missing
    since: datetime.datetime | None
    #: the file has matched the record
    matched: bool = False
    #: cached result, because thousands of files are checked and rarely change
    told: tuple[FileState | None, Wanted] | None = None

    def matches(self, state: FileState | None) -> bool:
        known = self.record
        return known is not None and state == FileState(known.size_bytes, known.mtime_ns, known.inode)

    def settling(self, now: datetime.datetime) -> bool:
        if self.matched:
            return False
        return self.since is None or 0 <= (now - self.since).total_seconds() < SETTLING_SECONDS


class PoolBook:
    """The journals, records and published files of one pool at the last scan; starts with `remembered` copies."""

    def __init__(self, target: Target, host: str, remembered: Iterable[Remembered] = ()) -> None:
        self._target = target
        self._host = host
        self._journals: dict[str, journal.Journal] = {}
        #: by the journal's name; on a shared pool also those of other hosts
        self._named: dict[str, Key] = {}
        self._records: dict[str, record.Record] = {}
        self._meters: dict[str, progress.Meter] = {}
        #: by file name; missing: not checked yet
        self._files: dict[str, FileState | None] = {}
        #: by the journal's name
        self._ended: dict[str, Wanted] = {}
        #: by placement
        self._copies = {known.placement: _Copy(known, None, None) for known in remembered if _is_plain(known.file_name)}

    def take(
        self, present: Iterable[str], changed: Mapping[str, str], now: datetime.datetime, *, complete: bool = True
    ) -> None:
        """Takes a scan: all names, and the content of new and changed files.

        `complete` is False if there were more names than are read: a missing name may then still exist.
        """
        for name, text in changed.items():
            self._end(self._journals.pop(name, None), name)
            self._named.pop(name, None)
            if known := self._records.pop(name, None):
                self._files.pop(_file_name(known), None)
            if name.endswith(JOURNAL_SUFFIX):
                self._take_journal(name, text)
            else:
                self._take_record(name, text)
        if complete:
            names = set(present)
            for name in self._journals.keys() - names:
                self._end(self._journals.pop(name), name)
            for entries in (self._named, self._records, self._meters):
                for name in entries.keys() - names:
                    del entries[name]
        self._compare(now, complete=complete)
        wanted = set(self.file_names())
        self._files = {name: state for name, state in self._files.items() if name in wanted}

    def forget(self, gone: Gone) -> None:
        """Drops the copies that have neither record nor placement."""
        lost = {name: copy for name, copy in self._copies.items() if copy.record is None}
        for number, (name, copy) in enumerate(lost.items()):
            if gone(copy.known.key) or number >= _LOST_LIMIT:
                del self._copies[name]

    def file_names(self) -> list[str]:
        """The published files to look at."""
        return sorted({copy.known.file_name for copy in self._copies.values()})

    def unsettled(self, now: datetime.datetime) -> bool:
        """Whether a file was not checked since its record changed, or may get its name soon."""
        return any(
            copy.known.file_name not in self._files or (copy.record is not None and copy.settling(now))
            for copy in self._copies.values()
        )

    def look(self, files: Mapping[str, Sequence[int] | None]) -> None:
        """Takes size, mtime (ns) and inode of `file_names`; None: no such file."""
        for name, state in files.items():
            self._files[name] = FileState(*state) if state is not None else None
        for copy in self._copies.values():
            copy.matched = copy.matched or copy.matches(self._files.get(copy.known.file_name))

    def active(self, now: datetime.datetime) -> bool:
        """Whether a download runs here."""
        return any(not progress.stalled(self._meters[name], running, now) for name, running in self._journals.items())

    def placements(self) -> dict[str, str]:
        """Placements that have, or had, a record: uid by name."""
        return {name: copy.known.uid for name, copy in self._copies.items()}

    def journals(self) -> Mapping[str, Key]:
        """Placements by the journal's name, on a shared pool also those of other hosts."""
        return self._named

    def unplaced(self, gone: Gone) -> list[UnplacedFile]:
        """Published files whose placement is gone."""
        files = {copy.known.file_name: self._files.get(copy.known.file_name) for copy in self._recorded(gone)}
        return [
            UnplacedFile(
                name=escaping.escaped(name, escaping.NAME_LIMIT),
                size_bytes=state.size_bytes,
                state="Published",
                modified_time=state.mtime,
            )
            for name, state in files.items()
            if state is not None
        ]

    def records_without_file(self, gone: Gone) -> set[str]:
        """Names of the records whose file and whose placement are gone."""
        without = {
            id(copy.record)
            for copy in self._recorded(gone)
            if self._files.get(copy.known.file_name, ...) is None  # looked at, and absent
        }
        return {name for name, known in self._records.items() if id(known) in without}

    def wanted(self, now: datetime.datetime) -> list[Wanted]:
        """At most one entry per placement: its record counts unless a download began after it."""
        result = {ended.placement: ended for ended in self._ended.values()}
        for name, copy in self._copies.items():
            if (wanted := self._of_copy(copy, now)) is not None:
                result[name] = wanted
        for name, running in self._journals.items():
            before = self._copies.get(running.placement)
            if before is None or self._began_after(name, running, before, now):
                result[running.placement] = self._of_journal(name, running, before, now)
        return list(result.values())

    def _compare(self, now: datetime.datetime, *, complete: bool) -> None:
        """Compares the copies with the records of this scan."""
        records = {known.placement: known for known in self._records.values()}
        for name, known in records.items():
            before = self._copies.get(name)
            if before is None or before.record is not known:
                remembered = Remembered(name, known.placement_uid, _file_name(known), known.revision, writer=known.host)
                self._copies[name] = _Copy(remembered, known, now)
        for name in self._copies.keys() - records.keys() if complete else ():
            copy = self._copies[name]
            if copy.record is not None or copy.since is None:
                self._copies[name] = _Copy(copy.known, None, now)

    def _recorded(self, gone: Gone) -> list[_Copy]:
        return [copy for copy in self._copies.values() if copy.record is not None and gone(copy.known.key)]

    def _end(self, running: journal.Journal | None, name: str) -> None:
        if running is None:
            return
        while len(self._ended) >= _ENDED_LIMIT:
            del self._ended[next(iter(self._ended))]
        self._ended[name] = Wanted(
            placement=running.placement,
            uid=running.placement_uid,
            pool=self._target.pool,
            shared=self._target.shared,
            progress=None,
            observed=None,
            ended=True,
            writer=self._host,
        )

    def _take_journal(self, name: str, text: str) -> None:
        try:
            parsed = journal.Journal.model_validate_json(text)
        except pydantic.ValidationError:
            return
        if not _names_a_placement(parsed.placement, parsed.placement_uid):
            return
        self._named[name] = parsed.placement, parsed.placement_uid
        # `<template uid>.<host>.journal`: on a shared pool, other hosts publish their own
        if name.removesuffix(JOURNAL_SUFFIX).partition(".")[2] == self._host:
            # only the next attempt needs these; as objects they take ten times their size on disk
            self._journals[name] = parsed.model_copy(update={"sources": (), "ranges": ()})
            self._ended.pop(name, None)
            self._meters[name] = progress.advance(self._meters.get(name), parsed)

    def _take_record(self, name: str, text: str) -> None:
        try:
            parsed = record.Record.model_validate_json(text)
        except pydantic.ValidationError:
            return
        in_pool = os.path.dirname(parsed.path) == self._target.path and _is_plain(_file_name(parsed))
        if in_pool and _is_short(parsed) and _names_a_placement(parsed.placement, parsed.placement_uid):
            self._records[name] = parsed

    def _of_copy(self, copy: _Copy, now: datetime.datetime) -> Wanted | None:
        known = copy.known
        if known.file_name not in self._files or copy.settling(now):
            return None
        state = self._files[known.file_name]
        if copy.told is not None and copy.told[0] == state:
            return copy.told[1]
        done = copy.record if copy.matches(state) else None
        wanted = Wanted(
            placement=known.placement,
            uid=known.uid,
            pool=self._target.pool,
            shared=self._target.shared,
            progress=_complete(done) if done is not None else None,
            observed=_observed(copy, state),
            settled=True,
            writer=known.writer,
            file_name=known.file_name,
        )
        copy.told = state, wanted
        return wanted

    def _began_after(self, name: str, running: journal.Journal, copy: _Copy, now: datetime.datetime) -> bool:
        began = progress.utc(running.started_time)
        if copy.record is not None:
            return began > progress.utc(copy.record.verified_time)
        # the leftover of an earlier download must not hide a lost copy
        missed = copy.since is not None and began >= copy.since
        return missed or not progress.stalled(self._meters[name], running, now)

    def _of_journal(self, name: str, running: journal.Journal, before: _Copy | None, now: datetime.datetime) -> Wanted:
        looked = before is not None and before.record is not None and before.known.file_name in self._files
        return Wanted(
            placement=running.placement,
            uid=running.placement_uid,
            pool=self._target.pool,
            shared=self._target.shared,
            progress=progress.progress(self._meters[name], running, now),
            observed=_observed(before, self._files[before.known.file_name]) if before is not None and looked else None,
            interval_seconds=max(_MINIMUM_INTERVAL_SECONDS, running.progress_interval_seconds),
            # the journal's name says so
            writer=self._host,
            template_uid=name.partition(".")[0],
        )


def _complete(done: record.Record) -> Progress:
    """Of an archive its own bytes, as while it was downloaded, and not those of the file that was unpacked from it."""
    return progress.complete(done.served_bytes or done.size_bytes, progress.utc(done.verified_time))


def _observed(copy: _Copy, state: FileState | None) -> Observed:
    if state is None:
        return Observed(present=False, revision=copy.known.revision)
    return Observed(
        present=True,
        size_bytes=state.size_bytes,
        mtime=state.mtime,
        changed=None if copy.matches(state) else True,
        revision=copy.known.revision,
    )


def _file_name(known: record.Record) -> str:
    return os.path.basename(known.path)


def _is_plain(name: str) -> bool:
    """Whether it names a file directly in the pool."""
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name)


def _is_short(known: record.Record) -> bool:
    """Whether all kept fields are within their limits. The book keeps thousands of records; others can write them."""
    digests = max(len(known.digest), len(known.checksum), len(known.served_digest))
    return (
        len(_file_name(known)) <= _FILE_NAME_LIMIT
        and len(known.host) <= _HOST_LIMIT
        and digests <= _DIGEST_LIMIT
        and len(known.format) <= _FORMAT_LIMIT
    )


def _names_a_placement(placement: str, uid: str) -> bool:
    """Whether name and uid are valid. Without a uid, an apply would create a missing placement."""
    return bool(_NAME.fullmatch(placement) and _UID.fullmatch(uid))
