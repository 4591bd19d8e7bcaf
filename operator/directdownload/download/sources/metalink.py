"""Metalinks: a small XML document that names mirrors, size and hashes of a file (RFC 5854, and version 3 before it).

Called by the engine, which makes a source of every URL found, each checked against the policy like any other. The
document is untrusted: it may have no DTD and no entities, and is bounded in bytes, depth, elements, lengths and in what
is kept of it; a name in it is compared, never used. Every flaw is a SourceError(MetalinkInvalid): the engine may still
have other mirrors.

expat itself parses (`metalinkxml`), while the document arrives: without a document type declaration and without
expanded namespaces XML has no dangerous features left, and no tree is built that a hostile document could fill.
"""

import contextlib
import dataclasses
import time
import urllib.parse

from directdownload.download.checksum import Pieces
from directdownload.download.errors import RequestError, SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources.base import Ask, Source
from directdownload.download.sources.metalinkxml import (
    NUMBER,
    Entry,
    Metalink,
    Parsing,
    algorithm_of,
    flaw_of_digest,
    refuse,
)
from directdownload.download.sources.urls import Url
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason
from directdownload.resources.urls import METALINK_SUFFIXES

MEDIA_TYPES = frozenset({"application/metalink4+xml", "application/metalink+xml"})
#: In which the root element begins.
HEAD_BYTES = 4096
_BLOCK_BYTES = 256 * 1024
_READ_SECONDS = 120
_URLS_USED = 64
_PIECE_LENGTHS = range(1024, 1024**3 + 1)
_SCHEMES = frozenset({"http", "https", "nfs"})


@dataclasses.dataclass(frozen=True, slots=True)
class MetalinkFile:
    """One file: `checksums` strongest first, `urls` best first, at least one."""

    size_bytes: int | None
    checksums: tuple[Checksum, ...]
    pieces: Pieces | None
    urls: tuple[str, ...]


def load(source: Source, guard: Guard) -> MetalinkFile:
    """Download, parse, and choose the file that the URL of `source` is named after."""
    return choose(read(source, guard), wanted_name(source.url))


def read(source: Source, guard: Guard) -> Metalink:
    """The document, parsed while it arrives."""
    parsing = Parsing(str(source.url), guard.check)
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    filled = 0
    end = time.monotonic() + _READ_SECONDS
    stream = source.open(Ask(), guard)
    try:
        while count := stream.readinto(buffer[filled:]):
            guard.check()
            filled += count
            if filled == len(buffer):
                parsing.feed(buffer)
                filled = 0
            if time.monotonic() > end:
                raise SourceError(
                    Reason.SOCKET_TIMEOUT, f"{source.url}: the metalink did not arrive within {_READ_SECONDS} s"
                )
    finally:
        stream.close()
    parsing.feed(buffer[:filled])
    return parsing.finish()


def is_one(head: bytes) -> bool:
    """Whether a file with these first HEAD_BYTES is a metalink, by its root element."""
    parsing = Parsing("the file")
    with contextlib.suppress(SourceError):
        parsing.feed(head)
    return parsing.begun


def wanted_name(url: Url) -> str:
    """The name of the file that a metalink at `url` describes: the metalink's name without its suffix."""
    name = urllib.parse.unquote(url.path.rpartition("/")[2])
    suffix = next((suffix for suffix in METALINK_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def parse(data: bytes, shown: str = "the metalink") -> Metalink:
    """The files that a document of version 3 or 4 describes."""
    parsing = Parsing(shown)
    parsing.feed(data)
    return parsing.finish()


def choose(metalink: Metalink, wanted: str) -> MetalinkFile:
    """The file named `wanted`, or the only one."""
    shown, entries = metalink.shown, metalink.entries
    named = [entry for entry in entries if entry.name == wanted]
    named = named or [entry for entry in entries if entry.name.rpartition("/")[2] == wanted]
    if len(named) > 1:
        refuse(shown, f"it has {len(named)} files named {wanted[:100]!r}")
    if not named and len(entries) != 1:
        refuse(shown, f"it has {len(entries)} files, and none of them is named {wanted[:100]!r} as the metalink is")
    entry = (named or entries)[0]
    size = _size(shown, entry)
    return MetalinkFile(size, _checksums(shown, entry), _pieces(shown, entry, size), _urls(shown, entry))


def _size(shown: str, entry: Entry) -> int | None:
    sizes = set(entry.sizes)
    if not sizes:
        return None
    size = sizes.pop()
    if sizes or not NUMBER.fullmatch(size):
        refuse(shown, f"its size {size[:32]!r} is not one number of bytes")
    return int(size)


def _checksums(shown: str, entry: Entry) -> tuple[Checksum, ...]:
    found: dict[Algorithm, Checksum] = {}
    for kind, digest in entry.hashes:
        algorithm = algorithm_of(kind)
        if algorithm is None:
            continue
        checksum = Checksum(algorithm, _digest(shown, algorithm, digest))
        if found.setdefault(algorithm, checksum) != checksum:
            refuse(shown, f"it has two different hashes of {algorithm.title}")
    return tuple(sorted(found.values(), key=lambda checksum: checksum.algorithm.strength, reverse=True))


def _pieces(shown: str, entry: Entry, size_bytes: int | None) -> Pieces | None:
    """The pieces with the strongest algorithm, None if there are none."""
    supported = [(raw.algorithm, raw) for raw in entry.pieces if raw.algorithm is not None]
    if not supported:
        return None
    algorithm, raw = max(supported, key=lambda item: item[0].strength)
    if not NUMBER.fullmatch(raw.length) or int(raw.length) not in _PIECE_LENGTHS:
        refuse(
            shown,
            f"its pieces have the length {raw.length[:32]!r}; "
            f"expected {_PIECE_LENGTHS.start} to {_PIECE_LENGTHS.stop - 1} bytes",
        )
    if raw.flaw:
        refuse(shown, raw.flaw)
    length, count = int(raw.length), len(raw.numbers)
    if size_bytes is not None and count != -(-size_bytes // length):
        refuse(shown, f"it has {count} pieces of {length} bytes for a file of {size_bytes} bytes")
    if not count:
        return None
    digests = raw.in_order()
    if digests is None:
        refuse(shown, f"its pieces are not numbered from 0 to {count - 1}")
    return Pieces(algorithm, length, digests)


def _urls(shown: str, entry: Entry) -> tuple[str, ...]:
    used: dict[str, None] = {}
    for _, text in sorted(entry.urls, key=lambda item: item[0]):
        if len(used) < _URLS_USED and (usable := _usable(text)) is not None:
            used[usable] = None
    if not used:
        refuse(shown, f"none of its {len(entry.urls)} URLs is an http, https or nfs URL")
    return tuple(used)


def _usable(text: str) -> str | None:
    """The URL in the strict spelling."""
    try:
        url = Url.of_server(text, "")
    except RequestError:
        return None
    # a description of a file is not the file, and a chain of metalinks could be endless
    described = url.is_metalink or url.path.lower().endswith(".torrent")
    return url.text if url.scheme in _SCHEMES and not described else None


def _digest(shown: str, algorithm: Algorithm, text: str) -> str:
    if flaw := flaw_of_digest(algorithm, text):
        refuse(shown, flaw)
    return text.lower()
