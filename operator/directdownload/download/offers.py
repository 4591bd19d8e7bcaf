"""The sources of a request in order of preference: its URL, its mirrors, and the URLs in metalinks among them.

Called by fetch and probe. A metalink (RFC 5854) is recognised by its name, with any scheme: CloudStack's rule. One with
another name (`/image.iso?meta4`, `/metalink?path=…`) shows only when it is opened, by its media type, or when it has
arrived, by its content: then `use` begins again with the sources in it. It costs other downloads no request.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from directdownload.download import metalink
from directdownload.download.checksum import Pieces
from directdownload.download.errors import DownloadError, RequestError, SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, Source, Stream
from directdownload.download.urls import Url
from directdownload.resources.checksum import Checksum
from directdownload.resources.reasons import Reason

_SOURCES_LIMIT = 64
T = TypeVar("T")


class FoundMetalinkError(SourceError):
    """A source is a metalink, though not by its name."""


class PlainSource:
    """A source that must be the file itself. It notices a metalink by its media type."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self.url = inner.url
        self.is_metalink = False

    def open(self, ask: Ask, guard: Guard) -> Stream:
        stream = self._inner.open(ask, guard)
        if stream.media_type in metalink.MEDIA_TYPES:
            stream.close()
            raise self.found()
        return stream

    def look(self, guard: Guard) -> None:
        """Raise FoundMetalinkError if it is a metalink by its first bytes."""
        head, buffer = b"", memoryview(bytearray(metalink.HEAD_BYTES))
        with contextlib.closing(self.open(Ask(0, len(buffer)), guard)) as stream:
            while len(head) < len(buffer) and (count := stream.readinto(buffer[len(head) :])):
                head = bytes(buffer[: len(head) + count])
        if metalink.is_one(head):
            raise self.found()

    def found(self) -> FoundMetalinkError:
        """The error for a metalink in place of the file."""
        self.is_metalink = True
        return FoundMetalinkError(
            Reason.METALINK_INVALID, f"{self.url} is a metalink, which is not followed from within a metalink"
        )


class Create(Protocol):
    def __call__(self, url: str, *, first: bool) -> Source:
        """The source of a URL; `first` for the request's own URL, the only one that gets its headers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """`failures` are of unusable sources; size, checksums and pieces are those of the first readable metalink."""

    sources: Sequence[PlainSource]
    failures: Sequence[DownloadError]
    checksums: Sequence[Checksum] = ()
    size_bytes: int | None = None
    pieces: Pieces | None = None


def use(url: str, mirrors: Sequence[str], create: Create, guard: Guard, action: Callable[[Offer], T]) -> T:
    """The result of `action` with an offer; it may be called again. Raises DownloadError."""
    texts = frozenset((url, *mirrors))
    known: set[str] = set()
    while True:
        offer = collect(url, mirrors, create, guard, known)
        try:
            return action(offer)
        except (SourceError, RequestError) as error:
            found = {source.url.text for source in offer.sources if source.is_metalink} & texts - known
            if found:
                known |= found
                continue
            if not known:
                raise
            shown = ", ".join(str(Url.parse(text)) for text in sorted(known))
            message = f"{error.message} (from the metalink {shown})"
            raise SourceError(error.reason, message, retry_after_seconds=error.retry_after_seconds) from error


def collect(url: str, mirrors: Sequence[str], create: Create, guard: Guard, metalinks: Collection[str] = ()) -> Offer:
    """Collect the sources; this fetches metalinks: `metalinks` and those with the name of one. Raises StoppedError."""
    found: list[PlainSource] = []
    failures: list[DownloadError] = []
    promised: metalink.MetalinkFile | None = None
    for index, text in enumerate((url, *mirrors)):
        try:
            source = create(text, first=index == 0)
            if not (source.url.is_metalink or text in metalinks):
                found.append(PlainSource(source))
                continue
            file = metalink.load(source, guard)
        except (SourceError, RequestError) as error:
            failures.append(error)
            continue
        promised = promised or file
        usable = len(found)
        for mirror in file.urls:
            try:
                found.append(PlainSource(create(mirror, first=False)))
            except RequestError as error:
                failures.append(error)
        if len(found) == usable:
            failures.append(SourceError(Reason.METALINK_INVALID, f"{source.url}: it names no usable source"))
    unique = list({source.url.text: source for source in reversed(found)}.values())[::-1]
    if promised is None:
        return Offer(unique[:_SOURCES_LIMIT], failures)
    # the last piece ends where the file does
    pieces = promised.pieces if promised.size_bytes is not None else None
    return Offer(unique[:_SOURCES_LIMIT], failures, promised.checksums, promised.size_bytes, pieces)
