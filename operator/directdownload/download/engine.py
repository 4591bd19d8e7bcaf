"""Fetch one file: the only door to the engine for whoever has a URL and a place.

Called by the job verbs and by `directdownload fetch`. Steps: what is wanted can be met → the file is there already →
hold the part → find the sources → transfer, verify, unpack, inspect, publish. Failures are DownloadErrors; `outcome`
turns them into a JobResult.
"""

import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Sequence

from directdownload.download import assembly, images, journal, offers, publish, sources, transfer
from directdownload.download.checksum import expected_checksums, first_mismatch
from directdownload.download.errors import DownloadError, RequestError, SourceError, storage_error
from directdownload.download.guard import Guard
from directdownload.download.place import Part, Place
from directdownload.download.ranges import Ranges
from directdownload.download.record import Record
from directdownload.download.sources.proxy import Proxies
from directdownload.download.unpack import Unpack, never_unpacked
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import FileMode, JobResult, Limits, Policy, Timeouts
from directdownload.resources.reasons import Reason

#: said of bytes that are what they should be: another source of the same bytes does not help
_NO_GOOD_ANYWHERE = frozenset({Reason.UNSAFE_IMAGE, Reason.FORMAT_MISMATCH, Reason.DECOMPRESSION_FAILED})


@dataclasses.dataclass(frozen=True, slots=True)
class FetchRequest:
    """What to fetch, to where, within which limits. `headers` go to the origin of `url` only."""

    url: str
    place: Place
    mirrors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    checksum: str = ""
    expected_digest: str = ""
    #: empty: whatever it is, kept as it is served
    image_format: str = ""
    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    limits: Limits = dataclasses.field(default_factory=Limits)
    policy: Policy = dataclasses.field(default_factory=Policy)
    trust_bundle: str = ""
    proxies: Proxies = dataclasses.field(default_factory=Proxies)
    reserve: str = "0"
    #: None: the caller's own, by umask
    file: FileMode | None = None
    placement: str = ""
    placement_uid: str = ""
    host: str = ""

    def source(self, url: str, *, first: bool) -> sources.Source:
        """The source of `url` as the request wants it; RequestError if it is not allowed."""
        options = sources.SourceOptions(
            timeouts=self.timeouts,
            policy=self.policy,
            trust_bundle=self.trust_bundle,
            headers=self.headers if first else (),
            proxies=self.proxies,
        )
        return sources.create(url, options)


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


class _MismatchError(SourceError):
    """The bytes are not what was expected: those of `sources`, or with `resumed` perhaps an earlier attempt's."""

    def __init__(self, reason: Reason, message: str, running: transfer.Transfer) -> None:
        super().__init__(reason, message)
        self.sources = [supplier.source for supplier in running.contributors or [running.active]]
        self.resumed = bool(running.resumed_from)
        #: those that had failed before
        self.failed = [(s.source, s.failure) for s in running.suppliers if s.failure is not None]


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
        self._started = _now()

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
                    or journal.read_journal(self._place.journal) is None
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
            inspect=self._inspect,
        )
        return self._already_present(record) if record is not None else None

    def _already_present(self, record: Record) -> JobResult:
        return JobResult(
            reason=Reason.ALREADY_PRESENT,
            message="the file was there already, as expected",
            path=self._place.final,
            size_bytes=record.size_bytes,
            served_bytes=record.served_bytes,
            digest=record.served_digest or record.digest,
            format=record.format,
            virtual_size_bytes=record.virtual_size_bytes,
            verified_time=record.verified_time,
            revision=record.revision if self._place.record else "",
        )

    def _from_any_source(self, part: Part) -> JobResult:
        """All sources together where a digest tells whether they serve the same bytes; else one after the other."""
        offer = offers.collect(self._request.url, self._request.mirrors, self._request.source, self._guard)
        expected = (*self._expected, *offer.checksums)
        remaining, failures = list(offer.sources), list(offer.failures)
        together, may_change = bool(expected), True
        while remaining:
            group = remaining if together else remaining[:1]
            state = self._state(part, group, expected)
            try:
                return self._from_group(part, group, state, offer, expected)
            except _MismatchError as error:
                part.empty()
                blamed = error.sources
                if error.resumed or len(blamed) > 1:
                    # an earlier attempt's bytes may be to blame, or any of them: each by itself, from zero
                    together = False
                else:
                    failures.append(error)
                    remaining = [source for source in remaining if source not in blamed]
                failures += [failure for _, failure in error.failed]
                given_up = [source for source, _ in error.failed]
                remaining = [source for source in remaining if source not in given_up]
            except transfer.ChangedError as error:
                part.empty()
                if not may_change:
                    failures.append(error)
                    break
                may_change = False
            except (SourceError, RequestError) as error:
                if expected and error.reason in _NO_GOOD_ANYWHERE:
                    raise
                failures.append(error)
                remaining = [source for source in remaining if source not in group]
        raise transfer.chosen_failure(failures)

    def _state(self, part: Part, group: Sequence[sources.Source], expected: Sequence[Checksum]) -> assembly.State:
        """What an earlier attempt left, if these sources can continue it."""
        kept = journal.read_journal(self._place.journal)
        if kept is None or not kept.ranges or kept.ranges[-1][1] > part.length_bytes:
            return assembly.State()
        validators = {source.digest: source.validator for source in kept.sources}
        # without a digest only the same version of the same source will do
        if not expected and not (len(validators) == 1 and validators.get(group[0].url.digest)):
            return assembly.State()
        return assembly.State(Ranges(kept.ranges), kept.size_bytes, validators)

    def _from_group(
        self,
        part: Part,
        group: Sequence[sources.Source],
        state: assembly.State,
        offer: offers.Offer,
        expected: Sequence[Checksum],
    ) -> JobResult:
        request = self._request
        terms = assembly.Terms(
            tuple(checksum.algorithm for checksum in expected),
            request.limits,
            request.reserve,
            offer.size_bytes,
            offer.pieces,
        )
        unpack = None
        if not never_unpacked(request.image_format):
            limit = request.limits.max_virtual_size_bytes
            unpack = Unpack(part, self._guard, max_virtual_size_bytes=limit, reserve=request.reserve)
        try:
            running = transfer.Transfer(
                part, group, state, terms, self._guard, unpack=unpack, keep=self._keep, report=self._report
            )
            size, hasher = running.run()
            digests = hasher.digests()
            self._verify(running, digests, expected)
            unpacked = unpack is not None and unpack.finish()
            return self._publish(running, part, unpack if unpacked else None, size, digests, expected)
        finally:
            if unpack is not None:
                unpack.close()

    def _keep(self, running: transfer.Transfer, written: Ranges, bytes_per_second: int) -> None:
        """The journal of what is on disk."""
        ranges = tuple(written)[: journal.RANGES_LIMIT]
        kept = journal.Journal(
            placement=self._request.placement,
            placement_uid=self._request.placement_uid,
            source=str(running.active.source.url),
            sources=tuple(
                journal.JournalSource(digest=digest, validator=validator)
                for digest, validator in running.validators().items()
            ),
            size_bytes=running.size_bytes,
            ranges=ranges,
            bytes_on_disk=sum(end - start for start, end in ranges),
            bytes_per_second=bytes_per_second,
            resumed_from=running.resumed_from,
            started_time=self._started,
            updated_time=_now(),
            progress_interval_seconds=self._request.limits.progress_interval_seconds,
        )
        try:
            kept.write(self._place.journal)
        except OSError as error:
            raise storage_error(error, self._place.journal, "write") from error

    def _report(self, running: transfer.Transfer, written_bytes: int, bytes_per_second: int) -> None:
        if self._progress is not None:
            source = str(running.active.source.url)
            size, resumed_from = running.size_bytes, running.resumed_from
            self._progress(Progress(written_bytes, size, bytes_per_second, resumed_from, source))

    def _verify(
        self, running: transfer.Transfer, digests: dict[Algorithm, Checksum], expected: Sequence[Checksum]
    ) -> None:
        mismatch = first_mismatch(digests, expected)
        if mismatch is None:
            return
        wanted, found = mismatch
        shown = ", ".join(str(supplier.source.url) for supplier in running.contributors or [running.active])
        learnt = wanted in self._expected and not (self._request.checksum and wanted is self._expected[0])
        if learnt:
            reason = Reason.SOURCE_CHANGED
            message = (
                f"{shown}: earlier copies had {wanted}, this one has {found}: the source serves other bytes; "
                "register them as another Template"
            )
        else:
            reason, message = Reason.CHECKSUM_MISMATCH, f"{shown}: expected checksum {wanted}, found {found}"
        raise _MismatchError(reason, message, running)

    def _inspect(self, descriptor: int, size_bytes: int) -> images.ImageInfo:
        limit = self._request.limits.max_virtual_size_bytes
        return images.inspect(descriptor, size_bytes, self._request.image_format, max_virtual_size_bytes=limit)

    def _publish(
        self,
        running: transfer.Transfer,
        part: Part,
        unpacked: Unpack | None,
        served_bytes: int,
        digests: dict[Algorithm, Checksum],
        expected: Sequence[Checksum],
    ) -> JobResult:
        request = self._request
        self._guard.check()
        digest = str(digests[Algorithm.SHA256])
        product = (
            unpacked.product() if unpacked else publish.Product(part.descriptor, part.place.part, served_bytes, digest)
        )
        info = self._inspect(product.descriptor, product.size_bytes)
        record = Record(
            placement=request.placement,
            placement_uid=request.placement_uid,
            host=request.host,
            path=self._place.final,
            digest=product.digest,
            checksum=str(self._expected[0]) if self._expected else "",
            served_digest=digest if unpacked else "",
            served_bytes=served_bytes if unpacked else None,
            format=info.format,
            virtual_size_bytes=info.virtual_size_bytes,
            size_bytes=product.size_bytes,
            mtime_ns=0,
            inode=0,
            verified_time=_now(),
        )
        record, ours = publish.publish(part, product, request.file, record, self._guard)
        if not ours:
            return self._already_present(record)
        named = ", ".join(str(supplier.source.url) for supplier in running.contributors)
        return JobResult(
            reason=Reason.DOWNLOADED,
            message=f"downloaded from {named or running.active.source.url}",
            path=self._place.final,
            size_bytes=product.size_bytes,
            served_bytes=record.served_bytes,
            digest=digest,
            format=info.format,
            virtual_size_bytes=info.virtual_size_bytes,
            source=str(running.active.source.url),
            resumed_from=running.resumed_from,
            revision=record.revision if self._place.record else "",
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
