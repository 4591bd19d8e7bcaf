"""The engine's URLs: those that users write, by the strict rule, and those that servers name, read as browsers do.

Called by the policy and by every source. The location of a redirect and the mirrors of a metalink may be spelled as
browsers accept it (WHATWG URL, 4.4, https://url.spec.whatwg.org). They are written anew in the one spelling that every
parser reads the same, and that is held to the strict rule (`resources.urls`): no other host is asked than a browser
would ask, and an ambiguous one is refused.
"""

import dataclasses
import re
import urllib.parse
from typing import Self

from directdownload.download.errors import RequestError
from directdownload.resources import urls
from directdownload.resources.reasons import Reason
from directdownload.resources.urls import redact

__all__ = ["Url", "redact"]

_AROUND = "".join(map(chr, range(0x21)))
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):", re.ASCII)
#: the ASCII that stays as it is, besides letters, digits and _.-~; browsers keep a backslash in a query
_SAFE_IN_PATH = "!$%&'()*+,/:;=@[]|"
_SAFE_IN_QUERY = "!$%&()*+,/:;=?@[]^`{|}"


@dataclasses.dataclass(frozen=True, slots=True)
class Url(urls.Url):
    """`named_by`: how a message begins that is about a URL of a server, such as `http://a/b redirects to `."""

    named_by: str = dataclasses.field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A URL that a user wrote. Raises RequestError(InvalidURL)."""
        try:
            # without arguments, super() finds the class before it got its slots
            return super(Url, cls).parse(text)
        except urls.URLError as error:
            raise RequestError(Reason.INVALID_URL, str(error)) from None

    @classmethod
    def of_server(cls, text: str, named_by: str, base: "Url | None" = None) -> Self:
        """A URL that a server named, relative to `base`. Bytes that are not UTF-8 are surrogates (`surrogateescape`).

        Raises RequestError(InvalidURL) that blames the server.
        """
        try:
            found = super(Url, cls).parse(_as_browsers(text, base))
        except urls.URLError as error:
            message = f"{named_by}'{error.shown}', which is not a valid URL: {error.problem}"
            raise RequestError(Reason.INVALID_URL, message) from None
        return dataclasses.replace(found, named_by=named_by)

    @property
    def introduced(self) -> str:
        """For the beginning of a message."""
        return f"{self.named_by}{self}"


def location(value: str) -> str:
    """The value of a Location header, whose bytes were read as latin-1: they are usually UTF-8."""
    return value.encode("latin-1").decode("utf-8", "surrogateescape")


def in_path(text: str) -> str:
    """The spelling in which the path of a server's URL has `text`."""
    return urllib.parse.quote(text, safe=_SAFE_IN_PATH, errors="surrogateescape")


def _as_browsers(text: str, base: Url | None) -> str:
    text = re.sub("[\t\n\r]", "", text.strip(_AROUND)).partition("#")[0]
    named = _SCHEME.match(text)
    scheme = named[1].lower() if named else base.scheme if base else ""
    head, question, query = text[named.end() if named else 0 :].partition("?")
    if scheme in ("http", "https"):
        head = head.replace("\\", "/")
        if head.startswith("//") or (named and not (base and base.scheme == scheme)):
            # however many slashes there are, also none
            head = "//" + head.lstrip("/")
    if head.startswith("//"):
        authority, slash, path = head[2:].partition("/")
        path = slash + path
    elif base and base.scheme == scheme:
        authority = base.authority
        path = head if head.startswith("/") else base.path.rpartition("/")[0] + "/" + head
        if not head:
            path = base.path
            question, query = (question, query) if question else base.target.partition("?")[1:]
    else:
        return text
    path = in_path(_without_dots(path))
    query = urllib.parse.quote(query, safe=_SAFE_IN_QUERY, errors="surrogateescape")
    return f"{scheme}://{authority}{path}{question}{query}"


def _without_dots(path: str) -> str:
    found: list[str] = []
    names = path.split("/")[1:]
    for name in names:
        dots = re.sub("%2e", ".", name, flags=re.IGNORECASE)
        if dots == ".." and found:
            found.pop()
        if dots not in (".", ".."):
            found.append(name)
    if names and dots in (".", ".."):
        found.append("")
    return "/" + "/".join(found)
