"""Getting the bytes: find the sources, transfer from them, verify, unpack, inspect. All steps handle foreign bytes.

Called by the engine, which passes open files and checks the result. No path of the pool is opened here, so it also runs
in a process that can open no files (`sandbox`).
"""

import dataclasses
import datetime
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from directdownload.download import images, sources
from directdownload.download.checksum import first_mismatch
from directdownload.download.errors import ChangedError, RequestError, SourceError, chosen_failure, storage_error
from directdownload.download.guard import Guard
from directdownload.download.images.reader import FileReader
from directdownload.download.request import FetchRequest
from directdownload.download.sources import metalink, metalinkxml, offers
from directdownload.download.store.staging import StagedFile, Staging
from directdownload.download.transfer import assembly, transfer
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.unpack import Unpack, never_unpacked
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason

if TYPE_CHECKING:
    from directdownload.download.gathered import Gathered

#: failures of bytes with the expected checksum: another source of the same bytes does not help
_NO_GOOD_ANYWHERE = frozenset({Reason.UNSAFE_IMAGE, Reason.FORMAT_MISMATCH, Reason.DECOMPRESSION_FAILED})


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """The bytes received so far, reported several times a second from another thread."""

    bytes_received: int
    size_bytes: int | None
    bytes_per_second: int
    resumed_from: int
    source: str


ProgressCallback = Callable[[Progress], None]


class _MismatchError(SourceError):
    """The bytes are not what was expected: those of `sources`, or perhaps only their mixture with others."""

    def __init__(self, reason: Reason, message: str, running: transfer.Transfer) -> None:
        super().__init__(reason, message)
        self.sources = [supplier.source for supplier in running.contributors or [running.active]]
        #: whether bytes of several versions came together
        self.mixed = running.mixed or bool(running.resumed_from)
        #: those that had failed before
        self.failed = [(s.source, s.failure) for s in running.suppliers if s.failure is not None]


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """Where the bytes came from: `sources` and `source` are for messages; see `Gathered`."""

    sources: str
    source: str
    resumed_from: int
    origin_bytes: int = 0
    peer_bytes: int = 0
    bad_host: str = ""


class Gathering:
    """One attempt to fill `staging`; `run` once."""

    def __init__(
        self,
        request: FetchRequest,
        staging: Staging,
        expected: Sequence[Checksum],
        guard: Guard,
        progress: ProgressCallback | None = None,
    ) -> None:
        self._request = request
        self._staging = staging
        self._expected = tuple(expected)
        self._guard = guard
        self._progress = progress
        self._started = _now()
        self._recorder = self._record()
        #: by this attempt, from all sources
        self._received_bytes = 0
        #: from other hosts, before the sources were asked
        self._peer_bytes = 0
        self._bad_host = ""

    def run(self) -> "Gathered":
        """Raises DownloadError."""
        request = self._request
        return offers.use(request.url, request.mirrors, request.source, self._guard, self._from_offer)

    def _record(self) -> assembly.Recorder | None:
        shared, log = self._request.shared, self._staging.pieces
        if shared is None or log is None or not shared.is_seed:
            return None
        from directdownload.download.peers.recorder import Recorder

        return Recorder(log, shared.header, shared.terms.warrant)

    def _from_offer(self, offer: offers.Offer) -> "Gathered":
        """Use all sources together if a digest shows whether they serve the same bytes; else one after the other."""
        self._look_for_metalinks(offer)
        expected = (*self._expected, *offer.checksums)
        remaining, failures = list(offer.sources), list(offer.failures)
        together, may_change = bool(expected), True
        while remaining:
            group = remaining if together else remaining[:1]
            try:
                return self._from_group(group, self._state(group, expected), offer, expected, mixing=together)
            except _MismatchError as error:
                self._staging.empty()
                blamed = error.sources
                if together and (error.mixed or len(blamed) > 1):
                    # an earlier attempt's bytes may be to blame, or any of them: each by itself, from zero
                    together = False
                else:
                    failures.append(error.repeated(error.message))
                    remaining = [source for source in remaining if source not in blamed]
                failures += [failure for _, failure in error.failed]
                given_up = [source for source, _ in error.failed]
                remaining = [source for source in remaining if source not in given_up]
            except ChangedError as error:
                self._staging.empty()
                if not may_change:
                    failures.append(error)
                    break
                may_change = False
            except offers.FoundMetalinkError:
                raise
            except (SourceError, RequestError) as error:
                if expected and error.reason in _NO_GOOD_ANYWHERE:
                    raise
                failures.append(error)
                remaining = [source for source in remaining if source not in group]
        raise chosen_failure(failures)

    def _look_for_metalinks(self, offer: offers.Offer) -> None:
        """Before a transfer discards the bytes of an earlier attempt that came from the sources in a metalink."""
        kept = self._staging.earlier
        known = {source.digest for source in kept.sources} if kept is not None else set()
        if known and known.isdisjoint(source.url.digest for source in offer.sources):
            for source in offer.sources:
                try:
                    source.look(self._guard)
                except offers.FoundMetalinkError:
                    raise
                except (SourceError, RequestError):
                    # the transfer meets it too
                    continue

    def _state(self, group: Sequence[sources.Source], expected: Sequence[Checksum]) -> assembly.State:
        """The state of an earlier attempt, if these sources can continue it."""
        kept = self._staging.earlier
        if kept is None or not kept.ranges or kept.ranges[-1][1] > self._staging.length_bytes:
            return assembly.State()
        validators = {source.digest: source.validator for source in kept.sources}
        # without a digest only the same version of the same source continues it, and only if this host's seal proves it
        same = len(validators) == 1 and bool(validators.get(group[0].url.digest))
        if not expected and not (self._staging.proven and same):
            return assembly.State()
        return assembly.State(Ranges(kept.ranges), kept.size_bytes, validators)

    def _from_group(
        self,
        group: Sequence[offers.PlainSource],
        state: assembly.State,
        offer: offers.Offer,
        expected: Sequence[Checksum],
        *,
        mixing: bool,
    ) -> "Gathered":
        request, staging = self._request, self._staging
        terms = assembly.Terms(
            tuple(checksum.algorithm for checksum in expected),
            request.limits,
            request.reserve,
            offer.size_bytes,
            offer.pieces,
            self._recorder,
        )
        unpack = self._unpack()
        try:
            running = transfer.Transfer(
                staging,
                group,
                state,
                terms,
                self._guard,
                mixing=mixing,
                unpack=unpack,
                keep=self._keep,
                report=self._report,
            )
            try:
                size, hasher = running.run()
            finally:
                self._received_bytes += running.received_bytes
            digests = hasher.digests()
            mismatch = first_mismatch(digests, expected)
            if mismatch is not None or not expected:
                self._check_is_no_metalink(group, running, size)
            if mismatch is not None:
                raise self._mismatch(running, *mismatch, unpack)
            last = str(running.active.source.url)
            delivery = Delivery(
                sources=", ".join(str(supplier.source.url) for supplier in running.contributors) or last,
                source=last,
                resumed_from=max(0, running.resumed_from - self._peer_bytes),
                origin_bytes=self._received_bytes if request.shared is not None else 0,
                peer_bytes=self._peer_bytes,
                bad_host=self._bad_host,
            )
            media_type = None if expected else running.active.media_type or ""
            return self._finish(unpack, delivery, size, digests, media_type=media_type)
        finally:
            if unpack is not None:
                unpack.close()

    def _unpack(self) -> Unpack | None:
        request = self._request
        if never_unpacked(request.image_format):
            return None
        limit = request.limits.max_virtual_size_bytes
        return Unpack(self._staging, self._guard, max_virtual_size_bytes=limit, reserve=request.reserve)

    def _finish(
        self,
        unpack: Unpack | None,
        delivery: Delivery,
        served_bytes: int,
        digests: dict[Algorithm, Checksum],
        *,
        media_type: str | None = None,
    ) -> "Gathered":
        """Unpack and inspect the complete part; `media_type` None: a digest vouches for it."""
        file, product, note = self._staging.part, (served_bytes, digests[Algorithm.SHA256]), ""
        if unpack is not None and unpack.finish():
            file, product, note = self._staging.unpacked(), unpack.product(), unpack.note
            # it is that of the archive
            media_type = None if media_type is None else ""
        return self._gathered(delivery, file, product, served_bytes, digests, media_type=media_type, note=note)

    def _gathered(
        self,
        delivery: Delivery,
        file: StagedFile,
        product: tuple[int, Checksum],
        served_bytes: int,
        digests: dict[Algorithm, Checksum],
        *,
        media_type: str | None,
        note: str = "",
    ) -> "Gathered":
        """The image is in `file`: `product` has its size and digest."""
        from directdownload.download.gathered import TEXT_LIMIT, Gathered

        self._guard.check()
        size, digest = product
        try:
            os.ftruncate(file.descriptor, size)
        except OSError as error:
            raise storage_error(error, file.path, "write") from error
        request = self._request
        limit = request.limits.max_virtual_size_bytes
        info = images.inspect(
            file.descriptor, size, request.image_format, max_virtual_size_bytes=limit, media_type=media_type
        )
        odd = images.odd_size(size) if request.image_format == images.RAW else ""
        return Gathered(
            unpacked=file is not self._staging.part,
            size_bytes=size,
            digest=str(digest),
            served_bytes=served_bytes,
            digests=tuple(str(each) for each in digests.values()),
            format=info.format,
            virtual_size_bytes=info.virtual_size_bytes,
            sources=delivery.sources[:TEXT_LIMIT],
            source=delivery.source[:TEXT_LIMIT],
            resumed_from=delivery.resumed_from,
            origin_bytes=delivery.origin_bytes,
            peer_bytes=delivery.peer_bytes,
            bad_host=delivery.bad_host,
            notes=tuple(filter(None, (note, odd))),
        )

    def _keep(self, running: transfer.Transfer, written: Ranges, bytes_per_second: int) -> None:
        """Write the journal of the bytes on disk."""
        named = tuple(running.validators().items())
        source = str(running.active.source.url)
        self._keep_journal(source, named, running.size_bytes, running.resumed_from, written, bytes_per_second)

    def _keep_journal(
        self,
        source: str,
        validators: Sequence[tuple[str, str]],
        size_bytes: int | None,
        resumed_from: int,
        written: Ranges,
        bytes_per_second: int,
    ) -> None:
        from directdownload.download.transfer import journal

        ranges = tuple(written)[: journal.RANGES_LIMIT]
        kept = journal.Journal(
            placement=self._request.placement,
            placement_uid=self._request.placement_uid,
            source=source,
            sources=tuple(
                journal.JournalSource(digest=digest, validator=validator) for digest, validator in validators
            ),
            size_bytes=size_bytes,
            ranges=ranges,
            bytes_on_disk=sum(end - start for start, end in ranges),
            bytes_per_second=bytes_per_second,
            resumed_from=resumed_from,
            started_time=self._started,
            updated_time=_now(),
            progress_interval_seconds=self._request.limits.progress_interval_seconds,
        )
        self._staging.keep(kept)

    def _report(self, running: transfer.Transfer, written_bytes: int, bytes_per_second: int) -> None:
        if self._progress is not None:
            source = str(running.active.source.url)
            size, resumed_from = running.size_bytes, running.resumed_from
            self._progress(Progress(written_bytes, size, bytes_per_second, resumed_from, source))

    def _check_is_no_metalink(
        self, group: Sequence[offers.PlainSource], running: transfer.Transfer, size_bytes: int
    ) -> None:
        """Raise if the part is a metalink, whose bytes are worthless: FoundMetalinkError if it is to be followed."""
        if size_bytes > metalinkxml.DOCUMENT_LIMIT_BYTES:
            return
        if metalink.is_one(FileReader(self._staging.part.descriptor, size_bytes).peek(0, metalink.HEAD_BYTES)):
            self._staging.empty()
            error = next(source for source in group if source is running.active.source).found()
            if isinstance(error, offers.FoundMetalinkError):
                raise error
            raise _MismatchError(error.reason, error.message, running)

    def _mismatch(
        self, running: transfer.Transfer, wanted: Checksum, found: Checksum, unpack: Unpack | None
    ) -> _MismatchError:
        shown = ", ".join(str(supplier.source.url) for supplier in running.contributors or [running.active])
        learnt = wanted in self._expected and not (self._request.checksum and wanted is self._expected[0])
        if learnt:
            message = (
                f"{shown}: earlier copies had {wanted}, this one has {found}: the source serves other bytes; "
                "register them as another Template"
            )
            return _MismatchError(Reason.SOURCE_CHANGED, message, running)
        message = f"{shown}: expected checksum {wanted}, found {found}"
        if unpack is not None and unpack.holds(wanted):
            message += f"; the expected one is of the unpacked file: give the one of the file as served, {found}"
        return _MismatchError(Reason.CHECKSUM_MISMATCH, message, running)


def of(
    request: FetchRequest,
    staging: Staging,
    expected: Sequence[Checksum],
    guard: Guard,
    progress: ProgressCallback | None = None,
) -> Gathering:
    """The way in which this request gets its bytes: from its sources, or from other hosts only."""
    if request.shared is not None and request.shared.is_peer:
        from directdownload.download.peers.gathering import PeerGathering

        return PeerGathering(request, staging, expected, guard, progress)
    if request.shared is not None and request.shared.terms.parents:
        from directdownload.download.peers.gathering import SeedGathering

        return SeedGathering(request, staging, expected, guard, progress)
    return Gathering(request, staging, expected, guard, progress)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
