"""The secrets of a job, and hiding them in its output.

Called by the job for its result, and by the HTTP source for validators. A server may echo a request: in the target of a
redirect, an ETag, a status line. Such an echo is recognised by its value, in the forms in which servers usually repeat
it.
"""

import base64
import contextlib
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

from directdownload.download.errors import DownloadError
from directdownload.download.sources import headers
from directdownload.download.sources.proxy import Proxies
from directdownload.download.sources.urls import in_path

if TYPE_CHECKING:
    from directdownload.download.request import FetchRequest
    from directdownload.resources.jobs import JobDocument, JobResult

MASK = "***"
#: Shorter values would match in ordinary words, and are not secrets.
_SHORTEST = 6
_TEXTS = ("message", "source", "etag", "media_type")


class Secrets:
    """Values that are recognised anywhere in a text."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= _SHORTEST}
        # The longest first: a part of it may be another value.
        self._forms = sorted(forms, key=len, reverse=True)

    @classmethod
    def of_headers(cls, found: Iterable[tuple[str, str]]) -> Self:
        return cls(value for _, value in found)

    @classmethod
    def of_job(cls, document: "JobDocument", environment: Mapping[str, str]) -> Self:
        """The headers for the origin, the queries of its URLs, and the proxies' passwords."""
        found: Iterable[tuple[str, str]] = ()
        # Unreadable headers were never sent.
        with contextlib.suppress(DownloadError):
            found = headers.read(document.headers_directory)
        return cls._of((document.url, *document.mirrors), found, Proxies.from_environment(environment))

    @classmethod
    def of_request(cls, request: "FetchRequest") -> Self:
        """The same, of a request."""
        return cls._of((request.url, *request.mirrors), request.headers, request.proxies)

    @classmethod
    def _of(cls, urls: Iterable[str], found: Iterable[tuple[str, str]], proxies: Proxies) -> Self:
        values = [value for url in urls for value in _of_query(url)]
        values += [value for _, value in found]
        for url in (proxies.http, proxies.https):
            values += _of_user(url)
        return cls(values)

    def hide(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def hide_in(self, result: "JobResult") -> "JobResult":
        return result.model_copy(update={field: self.hide(getattr(result, field)) for field in _TEXTS})


def _forms(value: str) -> Iterable[str]:
    """A value, its part after a scheme (`Bearer …`), its decoded form (`Basic …`); also percent-encoded, in base64."""
    for word in {value, *value.split()[1:]}:
        for plain in {word, *_decoded(word)}:
            # in the host and in the path of a redirect, as it is read
            for read in (plain, plain.replace("\\", "/").replace("\t", "")):
                yield from (read, read.lower(), in_path(read))
            yield urllib.parse.quote(plain, safe="", errors="surrogateescape")
            yield urllib.parse.quote(plain, errors="surrogateescape")
            yield _base64(plain)


def _decoded(word: str) -> Iterable[str]:
    """`user:password` in base64, and the password alone."""
    with contextlib.suppress(ValueError):
        text = base64.b64decode(word, validate=True).decode()
        if ":" in text:
            yield text
            yield text.partition(":")[2]


def _base64(text: str) -> str:
    """Bytes of a command line that are not UTF-8 are surrogates (`surrogateescape`)."""
    return base64.b64encode(text.encode(errors="surrogateescape")).decode()


def _of_query(url: str) -> list[str]:
    """Also of a URL that is malformed."""
    query = url.partition("#")[0].partition("?")[2]
    return [query, *(value for _, value in urllib.parse.parse_qsl(query))]


def _of_user(url: str) -> list[str]:
    match = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?([^/]*)@", url)
    if match is None:
        return []
    user, _, password = match[1].partition(":")
    plain = urllib.parse.unquote(password)
    return [password, plain, _base64(f"{urllib.parse.unquote(user)}:{plain}")]
