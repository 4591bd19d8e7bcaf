"""What was published about settled copies, kept in the state directory so that a restart writes nothing again.

Used by `publisher`. Losing it costs one write per copy, nothing else: whatever is unreadable counts as empty.
"""

import asyncio
import dataclasses
import enum
import hashlib
import json
import logging
import os
from typing import Any

import pydantic

from directdownload.agent.copies import Wanted
from directdownload.agent.retry import Complaint
from directdownload.download import files
from directdownload.resources.jobs import Document

logger = logging.getLogger(__name__)

FILE_NAME = "placements.json"


class Outcome(enum.StrEnum):
    PUBLISHED = "published"
    #: there is no placement of that uid any more
    GONE = "gone"
    #: the placement is another host's (shared pools)
    FOREIGN = "foreign"


class Entry(Document):
    uid: str
    pool: str
    outcome: Outcome
    #: of the status that was meant
    digest: str


class _File(Document):
    version: int = 1
    placements: dict[str, Entry] = pydantic.Field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Ledger:
    """Entries by placement, at `path`. Changes are on disk after `save`."""

    path: str
    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)
    _changed: bool = False
    _complaint: Complaint = dataclasses.field(default_factory=lambda: Complaint(logger))

    @classmethod
    def load(cls, state_directory: str) -> "Ledger":
        path = os.path.join(state_directory, FILE_NAME)
        try:
            with open(path, "rb") as file:
                content = _File.model_validate_json(file.read())
        except FileNotFoundError:
            return cls(path)
        except (OSError, pydantic.ValidationError) as error:
            logger.warning("Cannot read %s, beginning anew: %s", path, type(error).__name__)
            return cls(path)
        return cls(path, dict(content.placements) if content.version == 1 else {})

    def outcome(self, wanted: Wanted) -> Outcome | None:
        """What became of exactly this, if it was told before."""
        entry = self.entries.get(wanted.placement)
        known = entry is not None and entry.uid == wanted.uid and entry.digest == digest(wanted.status)
        return entry.outcome if known and entry is not None else None

    def note(self, wanted: Wanted, outcome: Outcome) -> None:
        entry = Entry(uid=wanted.uid, pool=wanted.pool, outcome=outcome, digest=digest(wanted.status))
        if self.entries.get(wanted.placement) != entry:
            self.entries[wanted.placement] = entry
            self._changed = True

    def keep(self, pool: str, placements: set[str]) -> None:
        """Forgets those of `pool` that have no record any more."""
        for name in [name for name, entry in self.entries.items() if entry.pool == pool and name not in placements]:
            del self.entries[name]
            self._changed = True

    async def save(self) -> None:
        """Writes what changed; a state directory that cannot be written is complained about and done without."""
        if not self._changed:
            return
        self._changed = False
        data = _File(placements=self.entries).model_dump_json(by_alias=True).encode()
        try:
            await asyncio.to_thread(files.write_atomically, self.path, data)
        except OSError as error:
            self._complaint.say(
                logging.WARNING, f"Cannot write {self.path}: {error.strerror}; a restart tells all again"
            )


def digest(status: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(status, sort_keys=True).encode()).hexdigest()[:16]
