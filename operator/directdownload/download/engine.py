"""Fetch one file: the only entry to the engine for a URL and a place.

Called by the job verbs and by `directdownload fetch`. Steps: check that the request can be met → find a file that is
present → lock the part → gather the bytes, in a confined process if the request says so → check the result → publish.
Failures are DownloadErrors; `outcome` turns them into a JobResult.

Models, and all that comes after the first request, are imported after it (`tests/unit/cli/test_start`): pydantic takes
longer to load than everything else.
"""

import datetime
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from directdownload.download import defects, gathering, images
from directdownload.download.checksum import expected_checksums
from directdownload.download.errors import DownloadError, UnsoundError
from directdownload.download.gathering import ProgressCallback
from directdownload.download.guard import Guard
from directdownload.download.request import FetchRequest
from directdownload.download.store.place import Part
from directdownload.download.store.staging import Staging
from directdownload.resources.checksum import Checksum
from directdownload.resources.reasons import Reason

if TYPE_CHECKING:
    from directdownload.download.gathered import Gathered
    from directdownload.download.store.record import Record
    from directdownload.resources.jobs import JobResult

logger = logging.getLogger(__name__)


def fetch(request: FetchRequest, *, stop: threading.Event, progress: ProgressCallback | None = None) -> "JobResult":
    """Downloaded or AlreadyPresent; raises DownloadError for everything else. A confined fetch reports no progress."""
    started = time.monotonic()
    guard = Guard.start(stop, request.limits.deadline_seconds)
    expected = expected_checksums(request.checksum, request.expected_digest, request.policy)
    result = _Fetch(request, expected, guard, progress).run()
    return result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def outcome(action: "Callable[[], JobResult]", hide: defects.Hide) -> "JobResult":
    """The result of `action`; every failure, expected or not, becomes a result.

    `hide` removes secrets from the text of an unexpected failure, which is logged.
    """
    started = time.monotonic()
    try:
        return action()
    except DownloadError as error:
        failure = error
    except Exception as error:  # the last resort: a job without a result is worse
        failure = defects.report(error, hide)
    from directdownload.resources.jobs import JobResult

    return JobResult(
        reason=failure.reason,
        message=failure.message,
        retry_after_seconds=failure.retry_after_seconds,
        bad_host=failure.bad_host,
        seconds=round(time.monotonic() - started, 3),
    )


def exit_status(result: "JobResult") -> int:
    """0 done, 1 transient, 3 permanent."""
    return 0 if result.done else 3 if result.permanent else 1


class _Fetch:
    def __init__(
        self,
        request: FetchRequest,
        expected: Sequence[Checksum],
        guard: Guard,
        progress: ProgressCallback | None,
    ) -> None:
        self._request = request
        self._place = request.place
        self._expected = tuple(expected)
        self._guard = guard
        self._progress = progress

    def run(self) -> "JobResult":
        self._place.prepare()
        if present := self._find_present():
            Part.tidy(self._place)
            return present
        with Part.acquire(self._place, self._guard) as part:
            if part.waited and (present := self._find_present()):
                part.discard()
                return present
            try:
                with part.staged(self._request.shared) as staging:
                    gathered = self._gather(staging)
                    return self._publish(part, staging, gathered)
            except DownloadError as error:
                from directdownload.download.transfer import journal

                # a full disk gets the part's space back; a part without a journal is useless; and a part is not used
                # again once the process that wrote it sent invalid messages
                if (
                    isinstance(error, UnsoundError)
                    or error.permanent
                    or error.reason is Reason.INSUFFICIENT_SPACE
                    or journal.read_journal(self._place.journal) is None
                ):
                    part.discard()
                raise

    def _find_present(self) -> "JobResult | None":
        try:
            os.lstat(self._place.final)
        except FileNotFoundError:
            return None
        except OSError:
            # which `publish` reports
            pass
        from directdownload.download.store import publish

        request = self._request
        owner = {"placement": request.placement, "placement_uid": request.placement_uid, "host": request.host}
        record = publish.find_present(self._place, self._expected, self._guard, owner=owner, inspect=self._inspect)
        return self._already_present(record) if record is not None else None

    def _already_present(self, record: "Record") -> "JobResult":
        from directdownload.resources.jobs import JobResult

        return JobResult(
            reason=Reason.ALREADY_PRESENT,
            message="the file is already present, with the expected content",
            path=self._place.final,
            size_bytes=record.size_bytes,
            served_bytes=record.served_bytes,
            digest=record.served_digest or record.digest,
            published_digest=record.digest,
            content=self._recorded(record),
            format=record.format,
            virtual_size_bytes=record.virtual_size_bytes,
            verified_time=record.verified_time,
            revision=record.revision if self._place.record else "",
        )

    def _recorded(self, record: "Record") -> str:
        """The id of the content of which the file that is present has all pieces recorded; else empty."""
        shared = self._request.shared
        if shared is None or record.served_digest:
            return ""
        from directdownload.download.peers import logwriter

        told = logwriter.read_complete(self._place.pieces, shared.header, record.size_bytes)
        return shared.terms.content if told is not None else ""

    def _inspect(self, descriptor: int, size_bytes: int) -> images.ImageInfo:
        request = self._request
        limit = request.limits.max_virtual_size_bytes
        if request.confined:
            from directdownload.download.sandbox import sandbox

            return sandbox.inspect(descriptor, size_bytes, request.image_format, limit, self._guard)
        return images.inspect(descriptor, size_bytes, request.image_format, max_virtual_size_bytes=limit)

    def _gather(self, staging: Staging) -> "Gathered":
        if self._request.confined:
            from directdownload.download.sandbox import sandbox

            return sandbox.gather(self._request, staging, self._expected, self._guard)
        return gathering.of(self._request, staging, self._expected, self._guard, self._progress).run()

    def _publish(self, part: Part, staging: Staging, gathered: "Gathered") -> "JobResult":
        from directdownload.download.store import publish
        from directdownload.download.store.record import Record
        from directdownload.resources.jobs import JobResult

        request = self._request
        self._guard.check()
        file = staging.out if gathered.unpacked else staging.part
        missing = [str(each) for each in self._expected if str(each) not in gathered.digests]
        fits = gathered.meets(request.image_format, request.limits)
        if file is None or missing or not fits or os.fstat(file.descriptor).st_size != gathered.size_bytes:
            what = ", ".join(missing) or "its size or format"
            raise UnsoundError(
                Reason.WRITE_FAILED,
                f"{staging.part.path} differs from the report of the fetching process ({what}); the next attempt "
                "starts from zero",
            )
        record = Record(
            placement=request.placement,
            placement_uid=request.placement_uid,
            host=request.host,
            path=self._place.final,
            digest=gathered.digest,
            checksum=str(self._expected[0]) if self._expected else "",
            served_digest=gathered.served_digest if gathered.unpacked else "",
            served_bytes=gathered.served_bytes if gathered.unpacked else None,
            format=gathered.format,
            virtual_size_bytes=gathered.virtual_size_bytes,
            size_bytes=gathered.size_bytes,
            mtime_ns=0,
            inode=0,
            verified_time=datetime.datetime.now(datetime.UTC),
        )
        product = publish.Product(file.descriptor, file.path)
        pieces, content = staging.pieces, ""
        if request.shared is not None and pieces is not None and not gathered.unpacked:
            content = request.shared.terms.content if pieces.complete(gathered.size_bytes) else ""
        record, ours = publish.publish(part, product, request.file, record, self._guard, pieces=bool(content))
        if not ours:
            return self._already_present(record)
        for note in gathered.notes:
            logger.warning("%s: %s", self._place.final, note)
        return JobResult(
            reason=Reason.DOWNLOADED,
            message="; ".join((f"downloaded from {gathered.sources}", *gathered.notes)),
            path=self._place.final,
            size_bytes=gathered.size_bytes,
            served_bytes=record.served_bytes,
            digest=gathered.served_digest,
            published_digest=gathered.digest,
            format=gathered.format,
            virtual_size_bytes=gathered.virtual_size_bytes,
            source=gathered.source,
            resumed_from=gathered.resumed_from,
            origin_bytes=gathered.origin_bytes,
            peer_bytes=gathered.peer_bytes,
            content=content,
            bad_host=gathered.bad_host,
            revision=record.revision if self._place.record else "",
        )
