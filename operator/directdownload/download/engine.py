"""Fetch one file: the only door to the engine for whoever has a URL and a place.

Called by the job verbs and by `directdownload fetch`. Steps: what is wanted can be met → the file is there already →
hold the part → for each source: open, preflight, transfer, verify, publish. Failures are DownloadErrors; `outcome`
turns them into a JobResult.
"""

import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Sequence

from directdownload.download import publish, sources, space, transfer
from directdownload.download.checksum import Hasher, first_mismatch
from directdownload.download.errors import DownloadError, RequestError, SourceError, storage_error
from directdownload.download.guard import Guard
from directdownload.download.journal import Journal, read_journal
from directdownload.download.place import Part, Place
from directdownload.download.record import Record
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import FileMode, JobResult, Limits, Policy, Timeouts
from directdownload.resources.reasons import Reason

#: a server that must wait longer than the hashing of this much takes may close the connection
_UNHASHED_LIMIT_BYTES = 1024**3


@dataclasses.dataclass(frozen=True, slots=True)
class FetchRequest:
    """What to fetch, to where, within which limits. `headers` go to the origin of `url` only."""

    url: str
    place: Place
    mirrors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    checksum: str = ""
    expected_digest: str = ""
    image_format: str = ""
    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    limits: Limits = dataclasses.field(default_factory=Limits)
    policy: Policy = dataclasses.field(default_factory=Policy)
    trust_bundle: str = ""
    reserve: str = "0"
    #: None: the caller's own, by umask
    file: FileMode | None = None
    placement: str = ""
    placement_uid: str = ""
    host: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """What has been received so far, told several times a second from another thread."""

    bytes_received: int
    size_bytes: int | None
    bytes_per_second: int
    resumed_from: int
    source: str


ProgressCallback = Callable[[Progress], None]


def fetch(request: FetchRequest, *, stop: threading.Event, progress: ProgressCallback | None = None) -> JobResult:
    """Downloaded or AlreadyPresent; raises DownloadError for everything else."""
    started = time.monotonic()
    guard = Guard.start(stop, request.limits.deadline_seconds)
    expected = expected_checksums(request.checksum, request.expected_digest, request.policy)
    result = _Fetch(request, expected, guard, progress).run()
    return result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def outcome(action: Callable[[], JobResult]) -> JobResult:
    """The result of `action`, with every failure, foreseen or not, turned into one."""
    started = time.monotonic()
    try:
        return action()
    except DownloadError as error:
        failure = JobResult(reason=error.reason, message=error.message, retry_after_seconds=error.retry_after_seconds)
    except Exception as error:  # the last resort: a job without a result is worse
        failure = JobResult(reason=Reason.WRITE_FAILED, message=f"unexpected: {type(error).__name__}: {error}")
    return failure.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def expected_checksums(checksum: str, expected_digest: str, policy: Policy) -> tuple[Checksum, ...]:
    """What the file must hash to, the checksum first; RequestError if it is malformed or not what the policy asks."""
    expected: list[Checksum] = []
    for text in filter(None, (checksum, expected_digest)):
        try:
            expected.append(Checksum.parse(text))
        except ValueError as error:
            raise RequestError(Reason.INVALID_CHECKSUM, str(error)) from None
    if not checksum:
        if policy.require_checksum:
            raise RequestError(
                Reason.CHECKSUM_REQUIRED, "a checksum is required here (sourcePolicy.requireChecksum); give one"
            )
    elif not expected[0].at_least(Algorithm.parse(policy.minimum_checksum)):
        raise RequestError(
            Reason.CHECKSUM_TOO_WEAK,
            f"a checksum of {expected[0].algorithm.title} is too weak, expected {policy.minimum_checksum} or stronger "
            "(sourcePolicy.minimumChecksum)",
        )
    return tuple(expected)


class _MismatchError(SourceError):
    """The bytes are not what was expected; `resumed_from` tells whether an earlier attempt may be to blame."""

    resumed_from = 0


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
        self._expected = expected
        self._guard = guard
        self._progress = progress

    def run(self) -> JobResult:
        self._place.prepare()
        if present := self._find_present():
            Part.tidy(self._place)
            return present
        with Part.acquire(self._place, self._guard) as part:
            if part.waited and (present := self._find_present()):
                part.discard()
                return present
            try:
                return self._from_any_source(part)
            except DownloadError as error:
                # a full disk is given back what the part holds; without a journal the part is worth nothing
                if (
                    error.permanent
                    or error.reason is Reason.INSUFFICIENT_SPACE
                    or read_journal(self._place.journal) is None
                ):
                    part.discard()
                raise

    def _find_present(self) -> JobResult | None:
        request = self._request
        record = publish.find_present(
            self._place,
            self._expected,
            self._guard,
            placement=request.placement,
            placement_uid=request.placement_uid,
            host=request.host,
        )
        return self._already_present(record) if record is not None else None

    def _already_present(self, record: Record) -> JobResult:
        return JobResult(
            reason=Reason.ALREADY_PRESENT,
            message="the file was there already, as expected",
            path=self._place.final,
            size_bytes=record.size_bytes,
            digest=record.digest,
            format=self._request.image_format,
            verified_time=record.verified_time,
            revision=record.revision if self._place.record else "",
        )

    def _from_any_source(self, part: Part) -> JobResult:
        request = self._request
        failures: list[DownloadError] = []
        for url in (request.url, *request.mirrors):
            options = sources.SourceOptions(
                timeouts=request.timeouts,
                policy=request.policy,
                trust_bundle=request.trust_bundle,
                headers=request.headers if not failures else (),
            )
            try:
                return self._from_source(sources.create(url, options), part)
            except (SourceError, RequestError) as error:
                failures.append(error)
        # as long as one source may still deliver, another attempt is worth it
        chosen = next((error for error in failures if not error.permanent), failures[0])
        others = ", ".join(error.reason for error in failures if error is not chosen)
        if others:
            chosen.message += f" (other sources: {others})"
        raise chosen

    def _from_source(self, source: sources.Source, part: Part) -> JobResult:
        try:
            return self._attempt(source, part, self._usable_journal(source, part))
        except _MismatchError as error:
            part.empty()
            if not error.resumed_from:
                raise
        try:
            # what an earlier attempt left may have been bad: once more, from zero
            return self._attempt(source, part, None)
        except _MismatchError:
            part.empty()
            raise

    def _usable_journal(self, source: sources.Source, part: Part) -> Journal | None:
        """The journal of the part, if the part can be continued from this source."""
        journal = read_journal(self._place.journal)
        if (
            journal is None
            or journal.source_digest != source.url.digest
            or not 0 < journal.bytes_on_disk <= part.length_bytes
            # nothing would show that the source has changed meanwhile
            or not (journal.validator or self._expected)
        ):
            return None
        return journal

    def _attempt(self, source: sources.Source, part: Part, journal: Journal | None) -> JobResult:
        resumed_from = journal.bytes_on_disk if journal else 0
        hashing = self._start_hashing(part, resumed_from)
        try:
            if journal is not None and journal.size_bytes == resumed_from:
                # everything was received; only the end of the earlier attempt is missing
                size = resumed_from
            else:
                ask = sources.Ask()
                if journal is not None:
                    ask = sources.Ask(resumed_from, None, journal.validator, journal.size_bytes)
                    hashing.wait_for_prefix(_UNHASHED_LIMIT_BYTES)
                stream = source.open(ask, self._guard)
                try:
                    if resumed_from and not stream.offset_bytes:
                        hashing.cancel()
                        hashing = self._start_hashing(part, 0)
                    resumed_from = stream.offset_bytes
                    size = self._receive(source, stream, part, hashing)
                finally:
                    stream.close()
            digests = hashing.finish().digests()
        finally:
            hashing.cancel()
        self._verify(source, digests, resumed_from)
        return self._publish(source, part, size, str(digests[Algorithm.SHA256]), resumed_from)

    def _start_hashing(self, part: Part, prefix_bytes: int) -> transfer.HashThread:
        hasher = Hasher(checksum.algorithm for checksum in self._expected)
        return transfer.HashThread(hasher, part.descriptor, prefix_bytes, self._guard)

    def _receive(self, source: sources.Source, stream: sources.Stream, part: Part, hashing: transfer.HashThread) -> int:
        limits, reserve = self._request.limits, self._request.reserve
        if not stream.offset_bytes:
            part.empty()
        size = stream.size_bytes
        if size is not None and limits.max_size_bytes and size > limits.max_size_bytes:
            raise transfer.too_large(size, limits.max_size_bytes)
        space.check_space(self._place.directory, max(0, (size or 0) - part.allocated_bytes), reserve)
        space.preallocate(part.descriptor, size or 0, self._place.part)
        keep = self._journal_keeper(source, stream)
        try:
            keep(stream.offset_bytes, 0)
        except OSError as error:
            raise storage_error(error, self._place.journal, "write") from error
        sync = transfer.Sync(
            part.descriptor,
            self._place.part,
            stream.offset_bytes,
            limits.progress_interval_seconds,
            keep,
            self._reporter(source, stream),
        )
        complete = False
        try:
            received = transfer.receive(
                stream,
                part.descriptor,
                self._place.part,
                hashing=hashing,
                sync=sync,
                bucket=transfer.TokenBucket(limits.bandwidth_bytes_per_second, self._guard),
                guard=self._guard,
                max_size_bytes=limits.max_size_bytes,
                reserve=reserve,
            )
            complete = True
            return received
        finally:
            # publishing syncs a complete file anyway
            sync.end(sync=not complete)

    def _journal_keeper(self, source: sources.Source, stream: sources.Stream) -> Callable[[int, int], None]:
        journal = Journal(
            placement=self._request.placement,
            placement_uid=self._request.placement_uid,
            source=str(source.url),
            source_digest=source.url.digest,
            size_bytes=stream.size_bytes,
            validator=stream.validator,
            resumed_from=stream.offset_bytes,
            started_time=_now(),
            updated_time=_now(),
            progress_interval_seconds=self._request.limits.progress_interval_seconds,
        )

        def keep(bytes_on_disk: int, bytes_per_second: int) -> None:
            journal.model_copy(
                update={
                    "bytes_on_disk": bytes_on_disk,
                    "bytes_per_second": bytes_per_second,
                    "updated_time": _now(),
                }
            ).write(self._place.journal)

        return keep

    def _reporter(self, source: sources.Source, stream: sources.Stream) -> Callable[[int, int], None]:
        callback = self._progress

        def report(position: int, bytes_per_second: int) -> None:
            if callback is not None:
                callback(Progress(position, stream.size_bytes, bytes_per_second, stream.offset_bytes, str(source.url)))

        return report

    def _verify(self, source: sources.Source, digests: dict[Algorithm, Checksum], resumed_from: int) -> None:
        mismatch = first_mismatch(digests, self._expected)
        if mismatch is None:
            return
        expected, found = mismatch
        learnt = not self._request.checksum or expected is not self._expected[0]
        if learnt:
            error = _MismatchError(
                Reason.SOURCE_CHANGED,
                f"{source.url}: earlier copies had {expected}, this one has {found}: the source serves other bytes; "
                "register them as another Template",
            )
        else:
            error = _MismatchError(
                Reason.CHECKSUM_MISMATCH, f"{source.url}: expected checksum {expected}, found {found}"
            )
        error.resumed_from = resumed_from
        raise error

    def _publish(self, source: sources.Source, part: Part, size: int, digest: str, resumed_from: int) -> JobResult:
        request = self._request
        self._guard.check()
        record = Record(
            placement=request.placement,
            placement_uid=request.placement_uid,
            host=request.host,
            path=self._place.final,
            digest=digest,
            checksum=str(self._expected[0]) if self._expected else "",
            size_bytes=size,
            mtime_ns=0,
            inode=0,
            verified_time=_now(),
        )
        record, ours = publish.publish(part, size, request.file, record, self._guard)
        if not ours:
            return self._already_present(record)
        return JobResult(
            reason=Reason.DOWNLOADED,
            message=f"downloaded from {source.url}",
            path=self._place.final,
            size_bytes=size,
            digest=digest,
            format=request.image_format,
            source=str(source.url),
            resumed_from=resumed_from,
            revision=record.revision if self._place.record else "",
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
