"""One copy of a template as the pages need it: a slotted projection of a TemplatePlacement, of which there are tens of
thousands. Pure: no I/O, no clock. `picture` keeps them.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """`phase` is as in the counts of statuses: a download waits while its host is Down."""

    key: str
    uid: str
    resource_version: int
    #: `namespace/name`
    template: str
    zone: str
    pool: str
    host: str
    path: str
    phase: Phase
    reason: str
    message: str
    attempts: int
    #: RFC 3339; empty: no attempt is planned
    next_attempt: str
    downloaded_bytes: int
    #: of the file as served; None: not known
    size_bytes: int | None
    bytes_per_second: int
    #: RFC 3339; empty: never
    verified: str

    @property
    def failing(self) -> bool:
        """It has failed for good, or waits for another try after a failure."""
        return self.phase is Phase.FAILED or self.retrying

    @property
    def retrying(self) -> bool:
        return self.phase is Phase.PENDING and bool(self.next_attempt)

    @property
    def percent(self) -> int | None:
        """Rounded down."""
        if self.phase is Phase.READY:
            return 100
        return min(100, self.downloaded_bytes * 100 // self.size_bytes) if self.size_bytes else None


def project(document: Mapping[str, Any]) -> Copy:
    """Raises any error for a document that this version cannot read: `reflector.Store` takes it as such."""
    metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
    reference, progress, file = spec["templateRef"], status.get("progress") or {}, status.get("file") or {}
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    reason, phase = sys.intern(str(ready.get("reason") or "")), Phase(status.get("phase") or Phase.PENDING)
    if "deletionTimestamp" in metadata:
        phase = Phase.REMOVING
    elif phase is Phase.DOWNLOADING and reason == Reason.HOST_DOWN:
        phase = Phase.PENDING
    size = file.get("servedBytes") or file.get("sizeBytes") or progress.get("bytesTotal")
    downloaded = (size or 0) if phase is Phase.READY else progress.get("bytesDownloaded")
    return Copy(
        key=metadata["name"],
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        template=sys.intern(f"{reference['namespace']}/{reference['name']}"),
        zone=sys.intern(spec["zone"]),
        pool=sys.intern(spec["pool"]),
        host=sys.intern(spec["host"]),
        path=sys.intern(spec["path"]),
        phase=phase,
        reason=reason,
        message=sys.intern(str(ready.get("message") or "")),
        attempts=int(status.get("attempts") or 0),
        next_attempt=status.get("nextAttemptTime") or "",
        downloaded_bytes=int(downloaded or 0),
        size_bytes=int(size) if size else None,
        bytes_per_second=int(progress.get("bytesPerSecond") or 0) if phase is Phase.DOWNLOADING else 0,
        verified=sys.intern(str(file.get("verifiedTime") or "")),
    )


class Tally:
    """The sum over some copies, kept up to date one change at a time: no page counts tens of thousands."""

    __slots__ = ("bytes_per_second", "downloaded_bytes", "failing", "largest_bytes", "phases", "sized", "total_bytes")

    def __init__(self) -> None:
        self.phases: dict[Phase, int] = {}
        #: by reason
        self.failing: dict[str, int] = {}
        self.downloaded_bytes = 0
        self.bytes_per_second = 0
        #: copies of a known size, and their bytes
        self.sized = 0
        self.total_bytes = 0
        #: the largest size that was ever seen
        self.largest_bytes = 0

    def add(self, copy: Copy, number: int = 1) -> None:
        """`number` is -1 for a copy that is no longer as it was."""
        _count(self.phases, copy.phase, number)
        if copy.failing:
            _count(self.failing, copy.reason, number)
        if copy.phase is Phase.REMOVING:
            return
        self.downloaded_bytes += number * copy.downloaded_bytes
        self.bytes_per_second += number * copy.bytes_per_second
        if copy.size_bytes:
            self.sized += number
            self.total_bytes += number * copy.size_bytes
            self.largest_bytes = max(self.largest_bytes, copy.size_bytes)

    @property
    def staying(self) -> int:
        """All but those that are being removed."""
        return sum(self.phases.values()) - self.phases.get(Phase.REMOVING, 0)

    def expected_bytes(self, desired: int) -> int | None:
        """Of `desired` copies of the same bytes: one known size is also that of those that have not begun."""
        return self.total_bytes + self.largest_bytes * max(0, desired - self.sized) if self.sized else None


def tallied(copies: Mapping[str, Copy]) -> Tally:
    tally = Tally()
    for copy in copies.values():
        tally.add(copy)
    return tally


def _count(counts: dict[Any, int], key: Any, number: int) -> None:
    counts[key] = counts.get(key, 0) + number
    if not counts[key]:
        del counts[key]
