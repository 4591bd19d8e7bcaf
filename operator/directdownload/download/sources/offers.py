"""The sources of a request in order of preference: its URL, its mirrors, and the URLs in metalinks among them.

Called by fetch and probe. A metalink (RFC 5854) is recognised by its name, with any scheme: CloudStack's rule. One with
another name (`/image.iso?meta4`, `/metalink?path=…`) shows only when it is opened, by its media type, or when it has
arrived, by its content: then `use` begins again with the sources in it. It costs other downloads no request.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from directdownload.download.checksum import Pieces
from directdownload.download.errors import DownloadError, RequestError, SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources import Ask, Source, Stream, metalink, read_head
from directdownload.download.sources.urls import Url
from directdownload.resources.checksum import Checksum
from directdownload.resources.reasons import Reason

_SOURCES_LIMIT = 64
T = TypeVar("T")


class FoundMetalinkError(SourceError):
    """A URL of the request is a metalink, though not by its name."""


class PlainSource:
    """A source that must be the file itself. It notices a metalink by its media type.

    `within` a metalink none is followed, as a chain of them could be endless.
    """

    def __init__(self, inner: Source, *, within: bool) -> None:
        self._inner = inner
        self._within = within
        self.url = inner.url
        #: and is to be followed
        self.is_metalink = False
        #: of a source that has never answered
        self.failure: DownloadError | None = None
        self._answered = False

    def open(self, ask: Ask, guard: Guard) -> Stream:
        try:
            stream = self._inner.open(ask, guard)
        except (SourceError, RequestError) as error:
            if not self._answered:
                # without its traceback, which holds the buffers of a parser or a transfer
                self.failure = error.repeated(error.message)
            raise
        self._answered, self.failure = True, None
        if stream.media_type in metalink.MEDIA_TYPES:
            stream.close()
            raise self.found()
        return stream

    def look(self, guard: Guard) -> None:
        """Raise FoundMetalinkError if it is a metalink by its first bytes."""
        with contextlib.closing(self.open(Ask(0, metalink.HEAD_BYTES), guard)) as stream:
            head = read_head(stream, metalink.HEAD_BYTES, guard)
        if metalink.is_one(head):
            raise self.found()

    def found(self) -> SourceError:
        """The error for a metalink in place of the file."""
        message = f"{self.url} is a metalink, and is not followed from within a metalink"
        if self._within:
            return SourceError(Reason.METALINK_INVALID, message)
        self.is_metalink = True
        return FoundMetalinkError(Reason.METALINK_INVALID, message)


class Create(Protocol):
    def __call__(self, url: str, *, first: bool, named_by: str = "") -> Source:
        """The source of a URL; `first` for the request's own URL, the only one that gets its headers. `named_by`: see
        `Url`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """`failures` are of unusable sources; size, checksums and pieces are those of the first readable metalink."""

    sources: Sequence[PlainSource]
    failures: Sequence[DownloadError]
    checksums: Sequence[Checksum] = ()
    size_bytes: int | None = None
    pieces: Pieces | None = None


@dataclasses.dataclass(slots=True)
class Known:
    """What earlier offers of the same request showed, by URL: no metalink is read twice, no dead source asked again."""

    #: without the name of one
    metalinks: set[str] = dataclasses.field(default_factory=set)
    files: dict[str, metalink.MetalinkFile | DownloadError] = dataclasses.field(default_factory=dict)
    failures: dict[str, DownloadError] = dataclasses.field(default_factory=dict)


def use(url: str, mirrors: Sequence[str], create: Create, guard: Guard, action: Callable[[Offer], T]) -> T:
    """The result of `action` with an offer; it may be called again. Raises DownloadError."""
    known = Known()
    while True:
        offer = collect(url, mirrors, create, guard, known)
        try:
            return action(offer)
        except (SourceError, RequestError) as error:
            if found := {source.url.text for source in offer.sources if source.is_metalink}:
                known.metalinks |= found
                known.failures.update(
                    (source.url.text, source.failure) for source in offer.sources if source.failure is not None
                )
                continue
            if not known.metalinks:
                raise
            shown = ", ".join(str(Url.parse(text)) for text in sorted(known.metalinks))
            message = f"{error.message} (from the metalink {shown})"
            raise error.repeated(message) from error


def collect(url: str, mirrors: Sequence[str], create: Create, guard: Guard, known: Known) -> Offer:
    """Collect the sources; this fetches the metalinks that `known` has not read yet. Raises StoppedError."""
    found: list[PlainSource] = []
    failures: list[DownloadError] = []
    promised: metalink.MetalinkFile | None = None
    for index, text in enumerate((url, *mirrors)):
        try:
            source = create(text, first=index == 0)
        except (SourceError, RequestError) as error:
            failures.append(error)
            continue
        key = source.url.text
        if not (source.url.is_metalink or key in known.metalinks):
            found.append(PlainSource(source, within=False))
            continue
        file = known.files[key] = known.files.get(key) or _load(source, guard)
        if isinstance(file, DownloadError):
            failures.append(file)
            continue
        promised = promised or file
        if file is not promised:
            # its pieces would only take memory
            known.files[key] = dataclasses.replace(file, pieces=None)
        count = len(found)
        for mirror in file.urls:
            try:
                inner = create(mirror, first=False, named_by=f"the metalink {source.url} names ")
                found.append(PlainSource(inner, within=True))
            except RequestError as error:
                failures.append(error)
        if len(found) == count:
            failures.append(SourceError(Reason.METALINK_INVALID, f"{source.url}: it names no usable source"))
    unique = list({source.url.text: source for source in reversed(found)}.values())[::-1][:_SOURCES_LIMIT]
    failures += [known.failures[source.url.text] for source in unique if source.url.text in known.failures]
    usable = [source for source in unique if source.url.text not in known.failures]
    if promised is None:
        return Offer(usable, failures)
    # the last piece ends where the file does
    pieces = promised.pieces if promised.size_bytes is not None else None
    return Offer(usable, failures, promised.checksums, promised.size_bytes, pieces)


def _load(source: Source, guard: Guard) -> metalink.MetalinkFile | DownloadError:
    try:
        return metalink.load(source, guard)
    except (SourceError, RequestError) as error:
        return error.repeated(error.message)
