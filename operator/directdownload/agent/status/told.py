"""The published status of settled copies, kept in the state directory so that a restart repeats no write.

`placements` uses this ledger for that, `pools` to find copies whose records were lost and how a pool was mounted. A
copy is saved before it is published, so that the cluster knows no copy that the ledger does not know. Losing the file
costs one write per copy, and records lost at the same time stay unnoticed until the next verification. So an unreadable
file counts as empty.

While the file cannot be written (a full disk), writes are tried again with growing pauses, and copies that are not on
disk are not published. Nothing depends on these: the controller knows a new copy from its job. Lost and changed copies
are published all the same: they must not wait, and the cluster keeps them. Other reports (pools, progress, the
keystore) need no ledger.
"""

import asyncio
import dataclasses
import enum
import hashlib
import json
import logging
import os
import time
from collections.abc import Container
from typing import Any

import pydantic

from directdownload.agent import retry
from directdownload.agent.copies import Key, Remembered, Wanted
from directdownload.hostfiles import writing
from directdownload.resources.jobs import Document
from directdownload.resources.templateplacement import WORDS

logger = logging.getLogger(__name__)

FILE_NAME = "placements.json"


class Outcome(enum.StrEnum):
    #: about to be published; after a restart it is unknown whether it was
    INTENDED = "intended"
    PUBLISHED = "published"
    #: the placement is gone
    GONE = "gone"
    #: the placement is another host's (shared pools)
    FOREIGN = "foreign"


class _Tolerant(Document):
    """Ignores fields of a newer version, so that they do not void the ledger."""

    model_config = pydantic.ConfigDict(extra="ignore")


class Entry(_Tolerant):
    uid: str
    pool: str
    outcome: Outcome
    #: digest of the intended status
    digest: str
    #: name of the published file in the pool
    file: str = ""
    #: revision of the record of the last comparison
    revision: str = ""


class PoolEntry(_Tolerant):
    """`own_mount`: the pool was a mount of its own, not a directory on the disk of its pool root."""

    path: str
    own_mount: bool = False


class _File(_Tolerant):
    version: int = 1
    placements: dict[str, Entry] = pydantic.Field(default_factory=dict)
    pools: dict[str, PoolEntry] = pydantic.Field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Told:
    """Entries by placement and by pool, in the file `path`. Changes are on disk once `save` returns True."""

    path: str
    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)
    pools: dict[str, PoolEntry] = dataclasses.field(default_factory=dict)
    #: when `save` tries again after it failed
    retry_monotonic: float = 0.0
    #: counts the changes
    _revision: int = 0
    #: the last one that is on disk
    _saved_revision: int = 0
    #: as they are on disk
    _saved: dict[str, Entry] = dataclasses.field(default_factory=dict)
    #: in a row
    _failures: int = 0
    _complaint: retry.Complaint = dataclasses.field(default_factory=lambda: retry.Complaint(logger))

    @classmethod
    def load(cls, state_directory: str) -> "Told":
        path = os.path.join(state_directory, FILE_NAME)
        try:
            with open(path, "rb") as file:
                content = _File.model_validate_json(file.read())
        except FileNotFoundError:
            return cls(path)
        except (OSError, pydantic.ValidationError) as error:
            logger.warning("Cannot read %s, starting with an empty ledger: %s", path, type(error).__name__)
            return cls(path)
        if content.version != 1:
            return cls(path)
        return cls(path, dict(content.placements), dict(content.pools), _saved=dict(content.placements))

    def outcome(self, wanted: Wanted) -> Outcome | None:
        """The outcome of exactly this status; None: it was not published before."""
        entry = self.entries.get(wanted.placement)
        return entry.outcome if entry is not None and _is_of(entry, wanted) else None

    def durable(self, wanted: Wanted) -> bool:
        """Whether exactly this status is on disk, so that it can be published."""
        entry = self._saved.get(wanted.placement)
        return entry is not None and _is_of(entry, wanted)

    def intend(self, wanted: Wanted) -> None:
        """Notes that `wanted` is about to be published; an earlier outcome of the same status stays."""
        if self.outcome(wanted) is None:
            self.note(wanted, Outcome.INTENDED)

    def note(self, wanted: Wanted, outcome: Outcome) -> None:
        entry = Entry(
            uid=wanted.uid,
            pool=wanted.pool,
            outcome=outcome,
            digest=digest(wanted.status),
            file=wanted.file_name,
            revision=(wanted.observed.revision if wanted.observed is not None else None) or "",
        )
        if self.entries.get(wanted.placement) != entry:
            self.entries[wanted.placement] = entry
            self._revision += 1

    def gone(self, key: Key) -> bool:
        """Whether the placement was found to be gone."""
        entry = self.entries.get(key[0])
        return entry is not None and entry.uid == key[1] and entry.outcome is Outcome.GONE

    def note_gone(self, key: Key, gone: bool) -> None:
        """Notes whether the placement is gone. One that exists again has no published status yet."""
        entry = self.entries.get(key[0])
        if entry is None or entry.uid != key[1] or (entry.outcome is Outcome.GONE) == gone:
            return
        self._revision += 1
        if gone:
            self.entries[key[0]] = entry.model_copy(update={"outcome": Outcome.GONE})
        else:
            del self.entries[key[0]]

    def remembered(self, pool: str, path: str) -> list[Remembered]:
        """The copies that were in `pool` at `path`."""
        entry = self.pools.get(pool)
        if entry is None or entry.path != path:
            return []
        return [
            Remembered(name, copy.uid, copy.file, copy.revision)
            for name, copy in self.entries.items()
            if copy.pool == pool and copy.outcome is not Outcome.GONE and copy.revision
        ]

    def own_mount(self, pool: str, path: str) -> bool:
        entry = self.pools.get(pool)
        return entry is not None and entry.path == path and entry.own_mount

    def note_pool(self, pool: str, path: str, *, own_mount: bool) -> None:
        entry = PoolEntry(path=path, own_mount=own_mount)
        if self.pools.get(pool) != entry:
            self.pools[pool] = entry
            self._revision += 1

    def keep(self, pool: str, placements: Container[str]) -> None:
        """Forgets entries of `pool` that are not among `placements`."""
        for name in [name for name, entry in self.entries.items() if entry.pool == pool and name not in placements]:
            del self.entries[name]
            self._revision += 1

    async def save(self) -> bool:
        """Writes changes durably; after a failure, not before `retry_monotonic`. Returns whether all is on disk."""
        revision, entries = self._revision, dict(self.entries)
        if revision == self._saved_revision:
            return True
        if time.monotonic() < self.retry_monotonic:
            return False
        data = _File(placements=entries, pools=self.pools).model_dump_json(by_alias=True).encode()
        try:
            await asyncio.to_thread(self._write, data)
        except OSError as error:
            self._failures += 1
            self.retry_monotonic = time.monotonic() + retry.pause_seconds(self._failures, error)
            text = f"Cannot write {self.path}: {error.strerror}; copies are not reported before it can be written"
            self._complaint.say(logging.WARNING, text)
            return False
        self._saved_revision, self._saved = revision, entries
        self._failures = 0
        self._complaint.clear(f"Wrote {self.path} again")
        return True

    def _write(self, data: bytes) -> None:
        writing.write_atomically(self.path, data)
        writing.sync_directory(os.path.dirname(self.path))


def _is_of(entry: Entry, wanted: Wanted) -> bool:
    return entry.uid == wanted.uid and entry.digest == digest(wanted.status)


def digest(status: dict[str, Any]) -> str:
    """Without the words for people: what version 0.1.0 published need not be published again for them."""
    facts = {name: {key: part[key] for key in part if key not in WORDS} for name, part in status.items()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
