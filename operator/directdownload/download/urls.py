"""The engine's URLs: split strictly, compared by origin, and printable without secrets.

Called by the policy and by every source. It refuses every text that two parsers might read differently.
"""

import dataclasses
import hashlib
import ipaddress
import re
import urllib.parse

from directdownload.download.errors import RequestError
from directdownload.download.settings import Setting
from directdownload.resources.jobs import METALINK_SUFFIXES
from directdownload.resources.reasons import Reason

DEFAULT_PORTS = {"http": 80, "https": 443, "nfs": 2049}
_EXAMPLE = "for example https://images.example.org/debian-13.qcow2"
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_NAME = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,62})(\.[a-z0-9_][-a-z0-9_]{0,62})*", re.ASCII)
_ADDRESS6 = re.compile(r"[0-9a-f:.]{2,45}", re.ASCII)
_LIMIT_CHARACTERS = 8192


@dataclasses.dataclass(frozen=True, slots=True)
class Url:
    """`target` is the text for a request line: path and query, percent-encoded."""

    text: str
    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> "Url":
        """Split `text`. Raises RequestError(InvalidURL)."""
        if len(text) > _LIMIT_CHARACTERS:
            raise _invalid(text[:100], f"it has {len(text)} characters, at most {_LIMIT_CHARACTERS} are allowed")
        if _UNSAFE.search(text):
            raise _invalid(redact(text), "it has spaces, control characters or a backslash")
        try:
            parts = urllib.parse.urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise _invalid(redact(text), str(error)) from None
        if not parts.scheme or not parts.hostname:
            raise _invalid(redact(text), "expected a scheme and a host")
        if "@" in parts.netloc:
            raise _invalid(redact(text), f"it holds credentials: give them by {Setting.HEADERS} instead")
        if "[" in parts.netloc and ":" not in parts.hostname:
            raise _invalid(redact(text), "the text in brackets is not an IPv6 address")
        scheme = parts.scheme.lower()
        host = _host(parts.hostname, text)
        target = urllib.parse.quote(parts.path or "/", safe="/%:=&~+!$,;'@()*")
        if parts.query:
            target += "?" + urllib.parse.quote(parts.query, safe="/%:=&?~+!$,;'@()*[]")
        return cls(text, scheme, host, port or DEFAULT_PORTS.get(scheme, 0), target)

    def join(self, reference: str) -> "Url":
        """Resolve `reference`, which may be relative, against this URL."""
        try:
            joined = urllib.parse.urljoin(self.text, reference)
        except ValueError as error:
            raise _invalid(redact(reference), str(error)) from None
        return Url.parse(joined)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def protocol(self) -> str:
        """The protocol in the notation of `sourcePolicy.protocols`."""
        return self.scheme.upper()

    @property
    def path(self) -> str:
        """Percent-encoded, without the query."""
        return self.target.partition("?")[0]

    @property
    def is_metalink(self) -> bool:
        return self.path.lower().endswith(METALINK_SUFFIXES)

    @property
    def authority(self) -> str:
        """The value of a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def digest(self) -> str:
        """A digest that distinguishes URLs without keeping the secrets that a query may contain."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        return redact(self.text)


def redact(text: str) -> str:
    """`text` without user info, query and fragment, printable on one line."""
    head = re.split(r"[?#]", text, maxsplit=1)[0]
    head = re.sub(r"^([^/?#]*//)[^/?#]*@", r"\1", head)
    return "".join(character if character.isprintable() else "?" for character in head[:1024])


def _host(name: str, text: str) -> str:
    if ":" in name:
        # the pattern excludes zones (fe80::1%eth0), which are valid on one machine only
        try:
            if _ADDRESS6.fullmatch(name):
                return str(ipaddress.IPv6Address(name))
        except ipaddress.AddressValueError:
            pass
        raise _invalid(redact(text), f"{name[:64]!r} is not an IPv6 address")
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        raise _invalid(redact(text), "its host name cannot be written in ASCII") from None
    ascii_name = ascii_name.lower().rstrip(".")
    if not _NAME.fullmatch(ascii_name) or len(ascii_name) > 253:
        raise _invalid(redact(text), f"{ascii_name[:64]!r} is not a host name")
    return ascii_name


def _invalid(shown: str, problem: str) -> RequestError:
    return RequestError(Reason.INVALID_URL, f"URL {shown!r} is not valid: {problem}; {_EXAMPLE}")
