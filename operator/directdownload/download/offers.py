"""The sources of a request in order of preference: its URL, its mirrors, and the URLs in metalinks among them.

Called by fetch and probe. A metalink (RFC 5854) is recognised by its name, with any scheme: CloudStack's rule.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from directdownload.download import metalink
from directdownload.download.checksum import Pieces
from directdownload.download.errors import DownloadError, RequestError, SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources import Source
from directdownload.resources.checksum import Checksum
from directdownload.resources.reasons import Reason

_SOURCES_LIMIT = 64


class Create(Protocol):
    def __call__(self, url: str, *, first: bool, named_by: str = "") -> Source:
        """The source of a URL; `first` for the request's own URL, the only one that gets its headers. `named_by`: see
        `Url`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """`failures` are of unusable sources; size, checksums and pieces are those of the first readable metalink."""

    sources: Sequence[Source]
    failures: Sequence[DownloadError]
    checksums: Sequence[Checksum] = ()
    size_bytes: int | None = None
    pieces: Pieces | None = None


def collect(url: str, mirrors: Sequence[str], create: Create, guard: Guard) -> Offer:
    """Collect the sources; this fetches metalinks. Raises only StoppedError."""
    found: list[Source] = []
    failures: list[DownloadError] = []
    promised: metalink.MetalinkFile | None = None
    for index, text in enumerate((url, *mirrors)):
        try:
            source = create(text, first=index == 0)
            if not source.url.is_metalink:
                found.append(source)
                continue
            file = metalink.load(source, guard)
        except (SourceError, RequestError) as error:
            failures.append(error)
            continue
        promised = promised or file
        usable = len(found)
        for mirror in file.urls:
            try:
                found.append(create(mirror, first=False, named_by=f"the metalink {source.url} names "))
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
