"""The speed of a download and its remaining time, from consecutive states of its journal. Pure.

Called by `book`. All times are from the journal, so that delays of the agent do not count.
"""

import dataclasses
import datetime
import math
import urllib.parse

from directdownload.download.transfer.journal import Journal
from directdownload.resources.templateplacement import Progress

#: Time constant of the smoothing: after this time a change of speed shows by two thirds.
SMOOTHING_SECONDS = 10
#: A transfer is stalled if its journal does not change for this many of its intervals, and this many seconds.
STALLED_INTERVALS = 3
STALLED_SECONDS = 10
#: Longer estimates are not published.
_ETA_LIMIT_SECONDS = 30 * 86_400
#: Fits a 64-bit field of the API, whatever a journal claims.
_SPEED_LIMIT = 2**62
_SOURCE_LIMIT = 253


@dataclasses.dataclass(frozen=True, slots=True)
class Meter:
    """The smoothed speed at one state of the journal."""

    started: datetime.datetime
    updated: datetime.datetime
    bytes_on_disk: int
    bytes_per_second: float


def advance(meter: Meter | None, journal: Journal) -> Meter:
    """The meter after `journal`; starts again with another attempt, or if a download starts over."""
    started, updated = utc(journal.started_time), utc(journal.updated_time)
    if meter is None or started != meter.started or journal.bytes_on_disk < meter.bytes_on_disk:
        return Meter(started, updated, journal.bytes_on_disk, float(journal.bytes_per_second))
    seconds = (updated - meter.updated).total_seconds()
    if seconds <= 0:
        return meter
    speed = (journal.bytes_on_disk - meter.bytes_on_disk) / seconds
    weight = 1 - math.exp(-seconds / SMOOTHING_SECONDS)
    # the first measured speed counts in full
    smoothed = (
        speed if meter.bytes_per_second <= 0 else meter.bytes_per_second + weight * (speed - meter.bytes_per_second)
    )
    return Meter(started, updated, journal.bytes_on_disk, smoothed)


def progress(meter: Meter, journal: Journal, now: datetime.datetime) -> Progress:
    """The progress to publish; speed 0 and no ETA while the transfer is stalled."""
    speed = 0 if stalled(meter, journal, now) else min(_SPEED_LIMIT, round(meter.bytes_per_second))
    total = journal.size_bytes
    eta, percent = None, None
    if total is not None:
        left = max(0, total - journal.bytes_on_disk)
        percent = min(100, journal.bytes_on_disk * 100 // total) if total else 100
        if speed > 0 and left / speed <= _ETA_LIMIT_SECONDS:
            eta = math.ceil(left / speed)
    return Progress(
        bytes_downloaded=journal.bytes_on_disk,
        bytes_total=total,
        bytes_per_second=speed,
        eta_seconds=eta,
        percent=percent,
        source=source_host(journal.source),
        updated_time=meter.updated,
    )


def stalled(meter: Meter, journal: Journal, now: datetime.datetime) -> bool:
    """Whether the journal has not changed for so long that the speed no longer counts."""
    age_seconds = (now - meter.updated).total_seconds()
    return age_seconds > max(STALLED_SECONDS, STALLED_INTERVALS * journal.progress_interval_seconds)


def complete(size_bytes: int, updated: datetime.datetime) -> Progress:
    """The progress of a complete copy."""
    return Progress(bytes_downloaded=size_bytes, bytes_total=size_bytes, percent=100, updated_time=updated)


def source_host(source: str) -> str | None:
    """Only the host of a URL; None if `source` is no URL."""
    try:
        host = urllib.parse.urlsplit(source).hostname
    except ValueError:
        return None
    return host[:_SOURCE_LIMIT] if host and host.isprintable() else None


def utc(moment: datetime.datetime) -> datetime.datetime:
    """`moment` in UTC. A time without zone, which the product never writes, counts as UTC."""
    try:
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except OverflowError:
        return moment.replace(tzinfo=datetime.UTC)
