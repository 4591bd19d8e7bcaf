"""The XML of metalinks: what a document of version 3 or 4 says, unchecked. See `metalink`."""

import array
import dataclasses
import functools
import re
import xml.parsers.expat
from collections.abc import Callable
from typing import NoReturn

from directdownload.download.errors import SourceError
from directdownload.resources.checksum import Algorithm
from directdownload.resources.reasons import Reason

#: A file of 64 GiB in pieces of 1 MiB: 65,536 hashes, 6 MiB of text with SHA-256 and 11 MiB with SHA-512.
DOCUMENT_LIMIT_BYTES = 16 * 1024 * 1024
_DEPTH_LIMIT = 16
#: Pieces in several algorithms are several lists.
_ELEMENTS_LIMIT = 262_144
_TEXT_LIMIT_CHARACTERS = 8192
#: Of all texts that are kept, each with as much as an object takes besides; pieces aside.
_KEPT_LIMIT_CHARACTERS = 2 * 1024 * 1024
_OBJECT_CHARACTERS = 256
_URLS_LIMIT = 1024
#: of elements, attributes and prefixes, and of namespaces
_NAME_LIMIT_CHARACTERS = 256
#: different ones: expat keeps the names of all elements and attributes
_NAMES_LIMIT = 1024
#: expat holds all attributes of a tag before it calls a handler. Newer versions read an unfinished tag again only when
#: it has doubled: one of half this length is always read.
_TAG_LIMIT_BYTES = 128 * 1024
_STEP_BYTES = 16 * 1024
#: the beginnings of what no handler gets: comments and processing instructions
_SKIPPED = tuple(mark.encode(encoding) for mark in ("<!--", "<?") for encoding in ("utf-8", "utf-16-le", "utf-16-be"))
_MARK_BYTES = max(map(len, _SKIPPED))

#: bound in every document, also to attributes
_BOUND = {"xml": "http://www.w3.org/XML/1998/namespace", "xmlns": "http://www.w3.org/2000/xmlns/"}
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
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]*")
NUMBER = re.compile(r"[0-9]{1,18}")


@dataclasses.dataclass(slots=True)
class RawPieces:
    """Digests of a supported `algorithm`, one after the other. None of another algorithm is kept."""

    algorithm: Algorithm | None
    length: str
    digests: bytearray = dataclasses.field(default_factory=bytearray)
    #: of the pieces, in the order of `digests`
    numbers: "array.array[int]" = dataclasses.field(default_factory=lambda: array.array("q"))
    flaw: str = ""

    def add(self, number: str, digest: str) -> None:
        if self.algorithm is None or self.flaw:
            return
        if number and not NUMBER.fullmatch(number):
            self.flaw = f"it has a piece with the number {number[:32]!r}"
        else:
            self.flaw = flaw_of_digest(self.algorithm, digest)
        if not self.flaw:
            self.numbers.append(int(number) if number else len(self.numbers))
            self.digests += bytes.fromhex(digest)

    def in_order(self) -> bytes | None:
        """The digests by their numbers; None unless these go from 0 without a gap."""
        count = len(self.numbers)
        if self.numbers == array.array("q", range(count)):
            return bytes(self.digests)
        if sorted(self.numbers) != list(range(count)):
            return None
        size = len(self.digests) // count
        ordered = bytearray(len(self.digests))
        for position, number in enumerate(self.numbers):
            ordered[number * size : (number + 1) * size] = self.digests[position * size : (position + 1) * size]
        return bytes(ordered)


@dataclasses.dataclass(slots=True)
class Entry:
    """An unchecked `file` element: a flaw in a file that is not wanted does no harm."""

    name: str
    sizes: list[str] = dataclasses.field(default_factory=list)
    hashes: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    pieces: list[RawPieces] = dataclasses.field(default_factory=list)
    #: rank, the best first, and text
    urls: list[tuple[int, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Metalink:
    """A parsed document; `choose` selects a file of it. `shown` is its name in messages."""

    shown: str
    entries: tuple[Entry, ...]


class Parsing:
    """One document, fed in parts. It keeps the elements at the paths of `_PATHS` and skips all others.

    It calls `check` after each step. Namespaces are resolved here: expat would write them before every name, and names
    are not interned, as both would let a small document fill the memory.
    """

    def __init__(self, shown: str, check: Callable[[], None] = lambda: None) -> None:
        self._entries: list[Entry] = []
        self._shown = shown
        self._check = check
        self._bytes = 0
        self._step_bytes = _STEP_BYTES
        #: where the token that expat has not finished begins, and its first bytes
        self._token_at = 0
        self._token = b""
        self._parser = xml.parsers.expat.ParserCreate(intern=None)
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._namespace = ""
        self._paths: dict[str, str] = {}
        self._stack: list[str] = []
        self._names: set[str] = set()
        #: by prefix, for the document and each open element; without a prefix: ""
        self._bound: list[dict[str, str]] = [_BOUND]
        self._elements = 0
        self._attributes: dict[str, str] = {}
        self._text: list[str] | None = None
        self._text_characters = 0
        self._kept_characters = 0

    @property
    def begun(self) -> bool:
        """Whether the root element is that of a metalink."""
        return bool(self._namespace)

    def feed(self, data: bytes | memoryview) -> None:
        position = 0
        while position < len(data):
            step = data[position : position + self._step_bytes]
            self._parse(step)
            position += len(step)

    def finish(self) -> Metalink:
        self._parse(b"", last=True)
        return Metalink(self._shown, tuple(self._entries))

    def _parse(self, data: bytes | memoryview, *, last: bool = False) -> None:
        before = self._bytes
        self._bytes += len(data)
        if self._bytes > DOCUMENT_LIMIT_BYTES:
            refuse(self._shown, f"it has more than {DOCUMENT_LIMIT_BYTES} bytes; is it an image?")
        try:
            self._parser.Parse(data, last)
        except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
            # the latter two: an encoding without a decoder in Python
            refuse(self._shown, f"it is not XML: {str(error)[:200]}")
        self._check()
        at = self._parser.CurrentByteIndex
        if at > self._token_at:
            self._token_at, self._token = at, bytes(data[max(at - before, 0) :][:_MARK_BYTES])
        elif len(self._token) < _MARK_BYTES:
            self._token += bytes(data[:_MARK_BYTES])
        unfinished, skipped = self._bytes - self._token_at, self._token.startswith(_SKIPPED)
        if unfinished > _TAG_LIMIT_BYTES and not skipped:
            refuse(self._shown, f"it has a tag of more than {_TAG_LIMIT_BYTES} bytes")
        # expat reads an unfinished token again from its beginning
        self._step_bytes = max(_STEP_BYTES, unfinished) if skipped else _STEP_BYTES

    def _doctype(self, *_declaration: object) -> None:
        refuse(self._shown, "it declares a document type, which is not allowed")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._stack) >= _DEPTH_LIMIT or self._elements > _ELEMENTS_LIMIT:
            refuse(self._shown, f"it has more than {_ELEMENTS_LIMIT} elements or nests them deeper than {_DEPTH_LIMIT}")
        namespace, local = self._resolve(name, attributes)
        if not self._stack:
            if local != "metalink" or namespace not in _NAMESPACES:
                refuse(self._shown, f"its root is not <metalink> in one of the namespaces {', '.join(_NAMESPACES)}")
            self._namespace, self._paths = namespace, _PATHS[_NAMESPACES[namespace]]
        # an element of another namespace is an extension: no path of `_PATHS` is below it
        self._stack.append(local if namespace == self._namespace else "?")
        self._text = None
        role = self._role()
        if role == "file":
            self._entries.append(Entry(self._kept(attributes.get("name", ""))))
        elif role == "pieces":
            algorithm = algorithm_of(attributes.get("type", "")[:_TEXT_LIMIT_CHARACTERS])
            self._entries[-1].pieces.append(RawPieces(algorithm, self._kept(attributes.get("length", ""))))
        elif role:
            self._attributes, self._text, self._text_characters = attributes, [], 0

    def _resolve(self, name: str, attributes: dict[str, str]) -> tuple[str, str]:
        """The namespace and the local name of an element; its own declarations count."""
        bound = self._bound[-1]
        if own := {key[6:]: uri for key, uri in attributes.items() if key == "xmlns" or key.startswith("xmlns:")}:
            bound = {**bound, **own}
        self._bound.append(bound)
        names = (name, *attributes)
        self._names.update(names)
        if len(self._names) > _NAMES_LIMIT or max(map(len, (*names, *own.values()))) > _NAME_LIMIT_CHARACTERS:
            refuse(
                self._shown,
                f"its names, namespaces or prefixes are more than {_NAMES_LIMIT}, or longer than "
                f"{_NAME_LIMIT_CHARACTERS} characters",
            )
        for prefix in (each.rpartition(":")[0] for each in names):
            if prefix and not bound.get(prefix):
                refuse(self._shown, f"it does not declare the prefix {prefix[:32]!r}")
        prefix, _, local = name.rpartition(":")
        return bound.get(prefix, ""), local

    def _characters(self, data: str) -> None:
        if self._text is not None:
            self._text_characters += len(data)
            if self._text_characters > _TEXT_LIMIT_CHARACTERS:
                refuse(self._shown, f"a text in it has more than {_TEXT_LIMIT_CHARACTERS} characters")
            self._text.append(data)

    def _end(self, _name: str) -> None:
        if self._text is not None:
            self._keep(self._role(), "".join(self._text).strip(), self._attributes)
            self._text = None
        self._stack.pop()
        self._bound.pop()

    def _role(self) -> str:
        return self._paths.get("/".join(self._stack[1:]), "")

    def _keep(self, role: str, text: str, attributes: dict[str, str]) -> None:
        entry = self._entries[-1]
        if role == "piece":
            entry.pieces[-1].add(attributes.get("piece", ""), text)
        elif role == "size":
            entry.sizes.append(self._kept(text))
        elif role == "hash":
            entry.hashes.append((self._kept(attributes.get("type", "")), self._kept(text)))
        elif role == "url" and attributes.get("type", "").lower() != "bittorrent":
            if len(entry.urls) >= _URLS_LIMIT:
                refuse(self._shown, f"it has more than {_URLS_LIMIT} URLs for one file")
            entry.urls.append((_rank(attributes), self._kept(text)))

    def _kept(self, text: str) -> str:
        text = text[:_TEXT_LIMIT_CHARACTERS]
        self._kept_characters += len(text) + _OBJECT_CHARACTERS
        if self._kept_characters > _KEPT_LIMIT_CHARACTERS:
            refuse(self._shown, "it describes too much: more than a few thousand files, hashes and URLs")
        return text


def _rank(attributes: dict[str, str]) -> int:
    """The rank, the lowest is the best: the priority of version 4, else 100 minus the preference of version 3."""
    priority, preference = attributes.get("priority", ""), attributes.get("preference", "")
    if NUMBER.fullmatch(priority) and 1 <= int(priority) <= _LAST_PRIORITY:
        return int(priority)
    if NUMBER.fullmatch(preference) and int(preference) <= 100:
        return 100 - int(preference)
    return _LAST_PRIORITY


@functools.lru_cache(maxsize=64)
def algorithm_of(kind: str) -> Algorithm | None:
    """None for an unsupported algorithm. Cached, as a document may name it a hundred thousand times."""
    try:
        return Algorithm.parse(kind)
    except ValueError:
        return None


def flaw_of_digest(algorithm: Algorithm, text: str) -> str:
    if len(text) == algorithm.hex_length and _HEXADECIMAL.fullmatch(text):
        return ""
    return f"{text[:140]!r} is not a hash of {algorithm.title}"


def refuse(shown: str, problem: str) -> NoReturn:
    raise SourceError(Reason.METALINK_INVALID, f"{shown} is not a usable metalink: {problem}")
