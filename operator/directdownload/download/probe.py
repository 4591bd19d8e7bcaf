"""Asking a source for size, type and head of its file, without fetching it: `job probe` and `fetch --probe`.

With the same policy, headers and trust as a download. It reads at most the head of the image.
"""

import time

from directdownload.download import images, sources
from directdownload.download.checksum import expected_checksums
from directdownload.download.errors import RequestError, SourceError, chosen_failure
from directdownload.download.guard import Guard
from directdownload.download.request import FetchRequest
from directdownload.download.sources import metalink, offers
from directdownload.download.transfer.assembly import too_large
from directdownload.resources.jobs import JobResult
from directdownload.resources.reasons import Reason

#: enough for the header of every format
_HEAD_BYTES = 256 * 1024


def probe(request: FetchRequest, guard: Guard) -> JobResult:
    """SourceReachable with the facts of the first source that answers. Raises DownloadError if none does."""
    started = time.monotonic()
    expected_checksums(request.checksum, request.expected_digest, request.policy)

    def ask(offer: offers.Offer) -> JobResult:
        return _first_answer(request, offer, guard)

    result = offers.use(request.url, request.mirrors, request.source, guard, ask)
    return result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def _first_answer(request: FetchRequest, offer: offers.Offer, guard: Guard) -> JobResult:
    failures = list(offer.failures)
    for source in offer.sources:
        try:
            result = _ask(source, request, offer, guard)
        except offers.FoundMetalinkError:
            raise
        except (SourceError, RequestError) as error:
            failures.append(error)
            continue
        others = f"; other sources: {', '.join(error.reason for error in failures)}" if failures else ""
        return result.model_copy(update={"message": f"{source.url} answers{others}"})
    raise chosen_failure(failures)


def _ask(source: offers.PlainSource, request: FetchRequest, offer: offers.Offer, guard: Guard) -> JobResult:
    stream = source.open(sources.Ask(0, _HEAD_BYTES), guard)
    try:
        head = sources.read_head(stream, _HEAD_BYTES, guard)
        if metalink.is_one(head[: metalink.HEAD_BYTES]):
            raise source.found()
        size = stream.size_bytes if stream.size_bytes is not None else offer.size_bytes
        limit = request.limits.max_size_bytes
        if size is not None and limit and size > limit:
            raise too_large(size, limit)
        vouched = request.checksum or request.expected_digest or offer.checksums
        media_type = None if vouched else stream.media_type
        info = images.inspect_head(head, size, request.image_format, media_type=media_type)
        return JobResult(
            reason=Reason.SOURCE_REACHABLE,
            size_bytes=size,
            format=info.format if info else request.image_format,
            virtual_size_bytes=info.virtual_size_bytes if info else None,
            source=str(source.url),
            # the other kind of validator is a date, in Last-Modified
            etag=stream.validator if stream.validator.startswith('"') else "",
            media_type=stream.media_type,
            ranges=stream.ranges,
        )
    finally:
        stream.close()
