"""The copies of this host: the wanted status of their placements, what is remembered of them, and their owners. Pure.

`pools` finds the copies on disk, and `status` writes them into the cluster; both use these words.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from directdownload.resources.templateplacement import Observed, Progress

#: Name and uid of a placement.
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """All fields that the agent owns in one placement's status, as they should be."""

    placement: str
    uid: str
    pool: str
    #: the pool is shared, so the file may be another host's placement
    shared: bool
    progress: Progress | None
    #: None: no file was published yet
    observed: Observed | None
    #: the shortest interval between writes
    interval_seconds: float = 0
    #: from a record: kept in the ledger over a restart
    settled: bool = False
    #: the journal is gone and there is no record: clear the published progress
    ended: bool = False
    #: the host that wrote the journal or record; empty: not known
    writer: str = ""
    #: name of the published file in the pool
    file_name: str = ""
    #: uid of the Template that is being downloaded; empty: no download runs
    template_uid: str = ""

    @property
    def key(self) -> Key:
        return self.placement, self.uid

    @property
    def wrong(self) -> bool:
        """Whether the file is not the one that was verified."""
        return self.observed is not None and (self.observed.present is False or self.observed.changed is True)

    @functools.cached_property
    def status(self) -> dict[str, Any]:
        parts = {"observed": self.observed, "progress": self.progress}
        return {
            name: part.worded().model_dump(by_alias=True, exclude_none=True, mode="json")
            for name, part in parts.items()
            if part is not None
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Remembered:
    """A published copy, as known without its record."""

    placement: str
    uid: str
    file_name: str
    revision: str
    #: as in `Wanted`
    writer: str = ""

    @property
    def key(self) -> Key:
        return self.placement, self.uid


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The state in the cluster of a placement that a file names."""

    exists: bool
    host: str = ""
    phase: str = ""


#: Whether the placement is known to be gone.
Gone = Callable[[Key], bool]
#: The owner; None: not known yet.
OwnerOf = Callable[[Key], Owner | None]
