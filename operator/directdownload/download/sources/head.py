"""The head of an HTTP/1.1 answer, read to its end or not at all (RFC 9112, 2 to 5).

Called by the HTTP source. A line that is no header ends the answer: Python's own parser stops there without a word and
drops every header behind it, the length of the body too. Bounded by `LIMIT_BYTES`, not by a number of headers.
"""

import dataclasses
import io
import re

from directdownload.download.errors import SourceError
from directdownload.download.sources.urls import redact
from directdownload.resources.reasons import Reason

#: of all interim answers and the final one together
LIMIT_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 80
#: an alert or a handshake (RFC 8446, 5.1)
_TLS = ("\x15\x03", "\x16\x03")
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: .*)?")
#: RFC 9110, 5.6.2 and 5.5
_FIELD_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Headers:
    """Name and value in the order of their arrival; names are found in any case."""

    items: tuple[tuple[str, str], ...]

    def get_all(self, name: str) -> list[str]:
        return [value for found, value in self.items if found.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The first value; empty if there is none."""
        return next(iter(self.get_all(name)), "")

    @property
    def media_type(self) -> str:
        """Without parameters, in lower case; empty without a Content-Type, text/plain for one that is none."""
        found = self.get_all("Content-Type")
        if not found:
            return ""
        media_type = found[0].partition(";")[0].strip().lower()
        return media_type if media_type.count("/") == 1 else "text/plain"


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Headers


class MalformedError(SourceError):
    """A line of the head is not what it must be."""

    def __init__(self, url: object, expected: str, line: str) -> None:
        shown = redact(line)[:_SHOWN_CHARACTERS]
        message = f"{url}: the answer is not HTTP: expected {expected}, found '{shown}'"
        super().__init__(Reason.SOURCE_UNAVAILABLE, message)


def read(reader: io.BufferedReader, url: object) -> Head:
    """The final head that comes next; interim answers (1xx) before it are left out.

    Raises SourceError: SourceUnavailable for a malformed head, SourceRefused for one that is too long,
    UnsupportedProtocol for another protocol, SourceUnreachable where it is cut.
    """
    lines = _Lines(reader, url)
    while True:
        first = lines.next()
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise _malformed_status_line(url, first)
        head = Head(int(match[1]), _fields(lines, url))
        # RFC 9110, 15.2: any number of interim answers may come first; 101 is the end of HTTP
        if head.status >= 200 or head.status == 101:
            return head


def _malformed_status_line(url: object, line: str) -> SourceError:
    error = MalformedError(url, "a status line (HTTP/1.1 200 OK)", line)
    if line.startswith(_TLS):
        return SourceError(Reason.SOURCE_UNREACHABLE, f"{url}: the server speaks TLS at this port; use an https URL")
    # "HTT" may have been cut
    if not line.startswith("HTTP/"[: len(line)]):
        return SourceError(Reason.SOURCE_UNREACHABLE, error.message)
    return error


def _fields(lines: "_Lines", url: object) -> Headers:
    found: list[tuple[str, list[str]]] = []
    while line := lines.next():
        if line[0] in " \t" and found:
            # RFC 9112, 5.2: a line that is folded goes on
            name, values = found[-1]
            match = _FIELD_LINE.fullmatch(f"{name}:{line}")
        else:
            match, values = _FIELD_LINE.fullmatch(line), []
        if match is None:
            raise MalformedError(url, "a header (Name: value)", line)
        if not values:
            found.append((match[1], values))
        values.append(match[2])
    return Headers(tuple((name, " ".join(values)) for name, values in found))


class _Lines:
    def __init__(self, reader: io.BufferedReader, url: object) -> None:
        self._reader = reader
        self._url = url
        self._left = LIMIT_BYTES
        self._began = False

    def next(self) -> str:
        """Without its end; empty at the end of a head. The first may be all that there is."""
        line = self._reader.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            message = f"{self._url}: expected a head of at most {LIMIT_BYTES} bytes; is it an HTTP server?"
            raise SourceError(Reason.SOURCE_REFUSED, message)
        if line and not line.endswith(b"\n") and not self._began:
            return line.decode("latin-1")
        if not line.endswith(b"\n"):
            where = "within the head of its answer" if self._began or line else "without an answer"
            message = f"{self._url}: the server closed the connection {where}"
            raise SourceError(Reason.SOURCE_UNREACHABLE, message)
        self._began = True
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("latin-1")
