"""Metalinks: a small XML document that names mirrors, size and hashes of a file (RFC 5854, and version 3 before it).

Called by the engine, which makes a source of every URL found, each checked against the policy like any other. The
document is untrusted: it may have no DTD and no entities, and is bounded in bytes, depth, elements and lengths; a name
in it is compared, never used. Every flaw is a SourceError(MetalinkInvalid): the engine may still have other mirrors.

expat itself parses: without a document type declaration XML has no dangerous features left, and no tree is built that a
hostile document could fill.
"""

import dataclasses
import functools
import re
import time
import urllib.parse
import xml.parsers.expat
from typing import NoReturn

from directdownload.download.checksum import Pieces
from directdownload.download.errors import RequestError, SourceError
from directdownload.download.guard import Guard
from directdownload.download.sources.base import Ask, Source
from directdownload.download.urls import Url
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.jobs import METALINK_SUFFIXES
from directdownload.resources.reasons import Reason

DOCUMENT_LIMIT_BYTES = 4 * 1024 * 1024
_READ_SECONDS = 120
_DEPTH_LIMIT = 16
_ELEMENTS_LIMIT = 131_072
_TEXT_LIMIT_CHARACTERS = 8192
_URLS_LIMIT = 1024
_URLS_USED = 64
_PIECE_LENGTHS = range(1024, 1024**3 + 1)

_NAMESPACES = {"urn:ietf:params:xml:ns:metalink": 4, "http://www.metalinker.org/": 3}
#: the paths of the elements in each version, and their roles
_PATHS = {
    4: {
        "file": "file",
        "file/size": "size",
        "file/hash": "hash",
        "file/pieces": "pieces",
        "file/pieces/hash": "piece",
        "file/url": "url",
    },
    3: {
        "files/file": "file",
        "files/file/size": "size",
        "files/file/verification/hash": "hash",
        "files/file/verification/pieces": "pieces",
        "files/file/verification/pieces/hash": "piece",
        "files/file/resources/url": "url",
    },
}
#: RFC 5854, 4.2.16.1: 1 is the best; without a priority a URL has this, the lowest
_LAST_PRIORITY = 999_999
_HEXADECIMAL = re.compile(r"[0-9a-f]*")
_NUMBER = re.compile(r"[0-9]{1,18}")
_SCHEMES = frozenset({"http", "https", "nfs"})


@dataclasses.dataclass(frozen=True, slots=True)
class MetalinkFile:
    """One file: `checksums` strongest first, `urls` best first, at least one."""

    size_bytes: int | None
    checksums: tuple[Checksum, ...]
    pieces: Pieces | None
    urls: tuple[str, ...]


@dataclasses.dataclass(slots=True)
class _RawPieces:
    kind: str
    length: str
    #: the number of the piece, if given, and its digest
    digests: list[tuple[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Entry:
    """An unchecked `file` element: a flaw in a file that is not wanted does no harm."""

    name: str
    sizes: list[str] = dataclasses.field(default_factory=list)
    hashes: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    pieces: list[_RawPieces] = dataclasses.field(default_factory=list)
    #: rank, the best first, and text
    urls: list[tuple[int, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Metalink:
    """A parsed document; `choose` selects a file of it. `shown` is its name in messages."""

    shown: str
    entries: tuple[_Entry, ...]


def load(source: Source, guard: Guard) -> MetalinkFile:
    """Download, parse, and choose the file that the URL of `source` is named after."""
    return choose(parse(read(source, guard), str(source.url)), wanted_name(source.url))


def read(source: Source, guard: Guard) -> bytes:
    """The whole document, of at most DOCUMENT_LIMIT_BYTES."""
    data = bytearray()
    buffer = memoryview(bytearray(64 * 1024))
    end = time.monotonic() + _READ_SECONDS
    stream = source.open(Ask(), guard)
    try:
        while count := stream.readinto(buffer):
            guard.check()
            data += buffer[:count]
            if len(data) > DOCUMENT_LIMIT_BYTES:
                _refuse(str(source.url), f"it has more than {DOCUMENT_LIMIT_BYTES} bytes; is it an image?")
            if time.monotonic() > end:
                raise SourceError(
                    Reason.SOCKET_TIMEOUT, f"{source.url}: the metalink did not arrive within {_READ_SECONDS} s"
                )
    finally:
        stream.close()
    return bytes(data)


def wanted_name(url: Url) -> str:
    """The name of the file that a metalink at `url` describes: the metalink's name without its suffix."""
    name = urllib.parse.unquote(url.path.rpartition("/")[2])
    suffix = next((suffix for suffix in METALINK_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def parse(data: bytes, shown: str = "the metalink") -> Metalink:
    """The files that a document of version 3 or 4 describes."""
    if len(data) > DOCUMENT_LIMIT_BYTES:
        _refuse(shown, f"it has more than {DOCUMENT_LIMIT_BYTES} bytes; is it an image?")
    handler = _Handler(shown)
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = handler.doctype
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.text
    try:
        parser.Parse(data, True)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
        # the latter two: an encoding without a decoder in Python
        _refuse(shown, f"it is not XML: {str(error)[:200]}")
    return Metalink(shown, tuple(handler.entries))


def choose(metalink: Metalink, wanted: str) -> MetalinkFile:
    """The file named `wanted`, or the only one."""
    shown, entries = metalink.shown, metalink.entries
    named = [entry for entry in entries if entry.name == wanted]
    named = named or [entry for entry in entries if entry.name.rpartition("/")[2] == wanted]
    if len(named) > 1:
        _refuse(shown, f"it has {len(named)} files named {wanted[:100]!r}")
    if not named and len(entries) != 1:
        _refuse(shown, f"it has {len(entries)} files, and none of them is named {wanted[:100]!r} as the metalink is")
    entry = (named or entries)[0]
    size = _size(shown, entry)
    return MetalinkFile(size, _checksums(shown, entry), _pieces(shown, entry, size), _urls(shown, entry))


class _Handler:
    """The callbacks of expat; they keep the elements at the paths of `_PATHS` and skip all others."""

    def __init__(self, shown: str) -> None:
        self.entries: list[_Entry] = []
        self._shown = shown
        self._namespace = ""
        self._paths: dict[str, str] = {}
        self._stack: list[str] = []
        self._elements = 0
        self._attributes: dict[str, str] = {}
        self._text: list[str] | None = None
        self._text_characters = 0

    def doctype(self, *_declaration: object) -> None:
        _refuse(self._shown, "it declares a document type, which is not allowed")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._stack) >= _DEPTH_LIMIT or self._elements > _ELEMENTS_LIMIT:
            _refuse(
                self._shown, f"it has more than {_ELEMENTS_LIMIT} elements or nests them deeper than {_DEPTH_LIMIT}"
            )
        namespace, _, local = name.rpartition(" ")
        if not self._stack:
            if local != "metalink" or namespace not in _NAMESPACES:
                _refuse(self._shown, f"its root is not <metalink> in one of the namespaces {', '.join(_NAMESPACES)}")
            self._namespace, self._paths = namespace, _PATHS[_NAMESPACES[namespace]]
        # an element of another namespace is an extension: no path of `_PATHS` is below it
        self._stack.append(local if namespace == self._namespace else "?")
        self._text = None
        role = self._role()
        if role == "file":
            self.entries.append(_Entry(attributes.get("name", "")[:_TEXT_LIMIT_CHARACTERS]))
        elif role == "pieces":
            pieces = _RawPieces(attributes.get("type", ""), attributes.get("length", ""))
            self.entries[-1].pieces.append(pieces)
        elif role:
            self._attributes, self._text, self._text_characters = attributes, [], 0

    def text(self, data: str) -> None:
        if self._text is not None:
            self._text_characters += len(data)
            if self._text_characters > _TEXT_LIMIT_CHARACTERS:
                _refuse(self._shown, f"a text in it has more than {_TEXT_LIMIT_CHARACTERS} characters")
            self._text.append(data)

    def end(self, _name: str) -> None:
        if self._text is not None:
            self._keep(self._role(), "".join(self._text).strip(), self._attributes)
            self._text = None
        self._stack.pop()

    def _role(self) -> str:
        return self._paths.get("/".join(self._stack[1:]), "")

    def _keep(self, role: str, text: str, attributes: dict[str, str]) -> None:
        entry = self.entries[-1]
        if role == "size":
            entry.sizes.append(text)
        elif role == "hash":
            entry.hashes.append((attributes.get("type", ""), text))
        elif role == "piece":
            entry.pieces[-1].digests.append((attributes.get("piece", ""), text))
        elif role == "url" and attributes.get("type", "").lower() != "bittorrent":
            if len(entry.urls) >= _URLS_LIMIT:
                _refuse(self._shown, f"it has more than {_URLS_LIMIT} URLs for one file")
            entry.urls.append((_rank(attributes), text))


def _rank(attributes: dict[str, str]) -> int:
    """The rank, the lowest is the best: the priority of version 4, else 100 minus the preference of version 3."""
    priority, preference = attributes.get("priority", ""), attributes.get("preference", "")
    if _NUMBER.fullmatch(priority) and 1 <= int(priority) <= _LAST_PRIORITY:
        return int(priority)
    if _NUMBER.fullmatch(preference) and int(preference) <= 100:
        return 100 - int(preference)
    return _LAST_PRIORITY


def _size(shown: str, entry: _Entry) -> int | None:
    sizes = set(entry.sizes)
    if not sizes:
        return None
    size = sizes.pop()
    if sizes or not _NUMBER.fullmatch(size):
        _refuse(shown, f"its size {size[:32]!r} is not one number of bytes")
    return int(size)


def _checksums(shown: str, entry: _Entry) -> tuple[Checksum, ...]:
    found: dict[Algorithm, Checksum] = {}
    for kind, digest in entry.hashes:
        algorithm = _algorithm(kind)
        if algorithm is None:
            continue
        checksum = Checksum(algorithm, _digest(shown, algorithm, digest))
        if found.setdefault(algorithm, checksum) != checksum:
            _refuse(shown, f"it has two different hashes of {algorithm.title}")
    return tuple(sorted(found.values(), key=lambda checksum: checksum.algorithm.strength, reverse=True))


def _pieces(shown: str, entry: _Entry, size_bytes: int | None) -> Pieces | None:
    """The pieces with the strongest algorithm, None if there are none."""
    supported = [(algorithm, raw) for raw in entry.pieces if (algorithm := _algorithm(raw.kind)) is not None]
    if not supported:
        return None
    algorithm, raw = max(supported, key=lambda item: item[0].strength)
    if not _NUMBER.fullmatch(raw.length) or int(raw.length) not in _PIECE_LENGTHS:
        _refuse(
            shown,
            f"its pieces have the length {raw.length[:32]!r}; "
            f"expected {_PIECE_LENGTHS.start} to {_PIECE_LENGTHS.stop - 1} bytes",
        )
    length, count = int(raw.length), len(raw.digests)
    if size_bytes is not None and count != -(-size_bytes // length):
        _refuse(shown, f"it has {count} pieces of {length} bytes for a file of {size_bytes} bytes")
    if not count:
        return None
    digests: dict[int, str] = {}
    for position, (number, digest) in enumerate(raw.digests):
        if number and not _NUMBER.fullmatch(number):
            _refuse(shown, f"it has a piece with the number {number[:32]!r}")
        digests[int(number) if number else position] = _digest(shown, algorithm, digest)
    if digests.keys() != set(range(count)):
        _refuse(shown, f"its pieces are not numbered from 0 to {count - 1}")
    return Pieces(algorithm, length, tuple(digests[number] for number in range(count)))


def _urls(shown: str, entry: _Entry) -> tuple[str, ...]:
    used: dict[str, None] = {}
    for _, text in sorted(entry.urls, key=lambda item: item[0]):
        if len(used) < _URLS_USED and (usable := _usable(text)) is not None:
            used[usable] = None
    if not used:
        _refuse(shown, f"none of its {len(entry.urls)} URLs is an http, https or nfs URL")
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


@functools.lru_cache(maxsize=64)
def _algorithm(kind: str) -> Algorithm | None:
    """None for an unsupported algorithm. Cached, as a document may name it a hundred thousand times."""
    try:
        return Algorithm.parse(kind)
    except ValueError:
        return None


def _digest(shown: str, algorithm: Algorithm, text: str) -> str:
    digest = text.lower()
    if len(digest) != algorithm.hex_length or not _HEXADECIMAL.fullmatch(digest):
        _refuse(shown, f"{text[:140]!r} is not a hash of {algorithm.title}")
    return digest


def _refuse(shown: str, problem: str) -> NoReturn:
    raise SourceError(Reason.METALINK_INVALID, f"{shown} is not a usable metalink: {problem}")
