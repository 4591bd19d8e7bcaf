"""What journals and records of one pool say about placements, and what is to be published of it. No I/O.

`pools` feeds a `PoolBook` with what the pool's worker found; `publisher` gets the outcome. Journals and records are
hostile until checked: whoever can write the pool can write them.
"""

import dataclasses
import datetime
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pydantic

from directdownload.agent import progress
from directdownload.agent.storage import Target
from directdownload.download import journal, record
from directdownload.resources.templateplacement import Observed, Progress

SUFFIXES = (journal.SUFFIX, record.SUFFIX)
#: A record is written just before its file gets its name: so long, a file that does not match is no finding.
PUBLISHING_SECONDS = 10
_MINIMUM_INTERVAL_SECONDS = 1.0
_ENDED_LIMIT = 1000
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the agent has to say about one placement: all fields of the placement's status that it owns."""

    placement: str
    uid: str
    pool: str
    #: the pool is shared, so the file may be another host's placement
    shared: bool
    progress: Progress | None
    observed: Observed
    #: not to be told more often
    interval_seconds: float = 0
    #: from a record: worth remembering over a restart
    settled: bool = False
    #: the journal went and no record came: whatever progress was told is to be taken back
    ended: bool = False

    @functools.cached_property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = {"observed": self.observed.model_dump(by_alias=True, exclude_none=True, mode="json")}
        if self.progress is not None:
            status["progress"] = self.progress.model_dump(by_alias=True, exclude_none=True, mode="json")
        return status


@dataclasses.dataclass(frozen=True, slots=True)
class FileState:
    """Of a regular file: what a record is compared with."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def observed(self) -> Observed:
        try:
            mtime = datetime.datetime.fromtimestamp(self.mtime_ns // 1_000_000_000, datetime.UTC)
        except (ValueError, OverflowError, OSError):
            # some file systems take any number, and anyone who may write the file may set it
            mtime = None
        return Observed(present=True, size_bytes=self.size_bytes, mtime=mtime)


class PoolBook:
    """The journals, records and published files of one pool, as last seen."""

    def __init__(self, target: Target, host: str) -> None:
        self._target = target
        self._host = host
        self._journals: dict[str, journal.Journal] = {}
        self._records: dict[str, record.Record] = {}
        self._meters: dict[str, progress.Meter] = {}
        #: by file name; absent: not looked at yet
        self._files: dict[str, FileState | None] = {}
        #: by the journal's name
        self._ended: dict[str, Wanted] = {}
        #: thousands of records are looked at every second, and hardly ever change
        self._settled: dict[str, tuple[record.Record, FileState | None, Wanted]] = {}

    def take(self, present: Iterable[str], changed: Mapping[str, str]) -> None:
        """A scan: the names that exist, and the content of those that are new or changed."""
        for name, text in changed.items():
            self._end(self._journals.pop(name, None), name)
            if known := self._records.pop(name, None):
                self._files.pop(_file_name(known), None)
            if name.endswith(journal.SUFFIX):
                self._take_journal(name, text)
            else:
                self._take_record(name, text)
        names = set(present)
        for name in self._journals.keys() - names:
            self._end(self._journals.pop(name), name)
        for entries in (self._records, self._meters, self._settled):
            for name in entries.keys() - names:
                del entries[name]
        wanted = {_file_name(known) for known in self._records.values()}
        self._files = {name: state for name, state in self._files.items() if name in wanted}

    def file_names(self) -> list[str]:
        """The published files to look at."""
        return sorted({_file_name(known) for known in self._records.values()})

    def unsettled(self, now: datetime.datetime) -> bool:
        """Some file was not looked at since its record changed, or may be about to get its name."""
        return any(
            _file_name(known) not in self._files
            or (_fresh(known, now) and not _matches(self._files[_file_name(known)], known))
            for known in self._records.values()
        )

    def look(self, files: Mapping[str, Sequence[int] | None]) -> None:
        """Size, mtime and inode of `file_names`; None: no such file."""
        for name, state in files.items():
            self._files[name] = FileState(*state) if state is not None else None

    def active(self, now: datetime.datetime) -> bool:
        """Whether a download runs here."""
        return any(not progress.stalled(self._meters[name], running, now) for name, running in self._journals.items())

    def placements(self) -> set[str]:
        """Those that have a record."""
        return {known.placement for known in self._records.values()}

    def wanted(self, now: datetime.datetime) -> list[Wanted]:
        """At most one for each placement: a record counts unless a download began after it."""
        result = {ended.placement: ended for ended in self._ended.values()}
        settled = {known.placement: known for known in self._records.values()}
        for name, known in self._records.items():
            if (wanted := self._of_record(name, known, now)) is not None:
                result[known.placement] = wanted
        for name, running in self._journals.items():
            known_before = settled.get(running.placement)
            if known_before is not None and progress.utc(known_before.verified_time) >= progress.utc(
                running.started_time
            ):
                continue
            result[running.placement] = self._of_journal(name, running, known_before, now)
        return list(result.values())

    def _end(self, running: journal.Journal | None, name: str) -> None:
        if running is None:
            return
        while len(self._ended) >= _ENDED_LIMIT:
            del self._ended[next(iter(self._ended))]
        self._ended[name] = Wanted(
            placement=running.placement,
            uid=running.placement_uid,
            pool=self._target.pool,
            shared=False,
            progress=None,
            observed=Observed(present=False),
            ended=True,
        )

    def _take_journal(self, name: str, text: str) -> None:
        # `<template uid>.<host>.journal`: those of other hosts, on a shared pool, are theirs to tell
        if name.removesuffix(journal.SUFFIX).partition(".")[2] != self._host:
            return
        try:
            parsed = journal.Journal.model_validate_json(text)
        except pydantic.ValidationError:
            return
        if _names_a_placement(parsed.placement, parsed.placement_uid):
            self._journals[name] = parsed
            self._ended.pop(name, None)
            self._meters[name] = progress.advance(self._meters.get(name), parsed)

    def _take_record(self, name: str, text: str) -> None:
        try:
            parsed = record.Record.model_validate_json(text)
        except pydantic.ValidationError:
            return
        in_pool = os.path.dirname(parsed.path) == self._target.path and _file_name(parsed) not in ("", ".", "..")
        if in_pool and "\0" not in parsed.path and _names_a_placement(parsed.placement, parsed.placement_uid):
            self._records[name] = parsed

    def _of_record(self, name: str, known: record.Record, now: datetime.datetime) -> Wanted | None:
        file_name = _file_name(known)
        if file_name not in self._files:
            return None
        state = self._files[file_name]
        matches = _matches(state, known)
        if not matches and _fresh(known, now):
            return None
        before = self._settled.get(name)
        if before is not None and before[0] is known and before[1] == state:
            return before[2]
        wanted = Wanted(
            placement=known.placement,
            uid=known.placement_uid,
            pool=self._target.pool,
            shared=self._target.shared,
            progress=progress.complete(known.size_bytes, progress.utc(known.verified_time)) if matches else None,
            observed=state.observed if state is not None else Observed(present=False),
            settled=True,
        )
        self._settled[name] = known, state, wanted
        return wanted

    def _of_journal(
        self, name: str, running: journal.Journal, known: record.Record | None, now: datetime.datetime
    ) -> Wanted:
        state = self._files.get(_file_name(known)) if known is not None else None
        return Wanted(
            placement=running.placement,
            uid=running.placement_uid,
            pool=self._target.pool,
            # the journal's name says that it is ours
            shared=False,
            progress=progress.progress(self._meters[name], running, now),
            observed=state.observed if state is not None else Observed(present=False),
            interval_seconds=max(_MINIMUM_INTERVAL_SECONDS, running.progress_interval_seconds),
        )


def _file_name(known: record.Record) -> str:
    return os.path.basename(known.path)


def _matches(state: FileState | None, known: record.Record) -> bool:
    return state == FileState(known.size_bytes, known.mtime_ns, known.inode)


def _fresh(known: record.Record, now: datetime.datetime) -> bool:
    return 0 <= (now - progress.utc(known.verified_time)).total_seconds() < PUBLISHING_SECONDS


def _names_a_placement(placement: str, uid: str) -> bool:
    """Without a uid an apply would create what is missing."""
    return bool(_NAME.fullmatch(placement) and _UID.fullmatch(uid))
