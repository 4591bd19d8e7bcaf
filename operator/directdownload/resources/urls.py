"""The one rule for URLs of sources: split strictly, compared by origin, and printable without secrets. Pure: no I/O.

The planner judges a Template's URLs by it, and the download engine every URL that it asks; CEL refuses the plainest
mistakes when a Template is written. It refuses every text that two parsers might read differently.
"""

import dataclasses
import hashlib
import ipaddress
import re
import socket
import urllib.parse
from typing import Self

#: At the end of a URL's path, in any case: a metalink by its name, whatever the scheme (CloudStack's rule). Others show
#: when they are opened.
METALINK_SUFFIXES = (".metalink", ".meta4")
#: of the supported schemes
DEFAULT_PORTS = {"http": 80, "https": 443, "nfs": 2049}
_EXAMPLE = "for example https://images.example.org/debian-13.qcow2"
_NFS_EXAMPLE = "for example nfs://storage.example.org/export/images/debian-13.qcow2"
#: surrogates: bytes of a command line that are not UTF-8
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")
_NAME = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,62})(\.[a-z0-9_][-a-z0-9_]{0,62})*", re.ASCII)
#: the text in the brackets is checked on its own
_BRACKETS = re.compile(r"\[[^\[\]]*:[^\[\]]*\](:[0-9]*)?", re.ASCII)
_ADDRESS6 = re.compile(r"[0-9a-f:.]{2,45}", re.ASCII)
#: WHATWG URL, 3.5: a host that ends in a number is an address, or none
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_LIMIT_CHARACTERS = 8192
#: MNTPATHLEN, RFC 1813, section 5.1.4
_PATH_LIMIT_BYTES = 1024
_NAME_LIMIT_BYTES = 255
_DEPTH_LIMIT = 32
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: useless in the name of an image, and dangerous where a path is passed to a shell
_SHELL = re.compile(r"[;|`\\]|\$\(")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class URLError(ValueError):
    """`shown` is the URL without secrets, `advice` is for the author of the URL."""

    def __init__(self, text: str, problem: str, advice: str = _EXAMPLE) -> None:
        self.shown, self.problem, self.advice = redact(text), problem, advice
        super().__init__(f"URL '{self.shown}' is not valid: {problem}; {advice}")


@dataclasses.dataclass(frozen=True, slots=True)
class Url:
    """`target` is the text for a request line: path and query, percent-encoded."""

    text: str
    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split `text`. Raises URLError. The scheme may be any; an nfs URL names a file."""
        if len(text) > _LIMIT_CHARACTERS:
            raise URLError(text[:100], f"it has {len(text)} characters, at most {_LIMIT_CHARACTERS} are allowed")
        if _UNSAFE.search(text):
            raise URLError(text, "it has spaces, control characters or a backslash")
        try:
            parts = urllib.parse.urlsplit(text)
        except ValueError:
            # its message repeats user and password
            raise URLError(text, "its host is malformed") from None
        if not parts.scheme or not parts.hostname:
            raise URLError(text, "expected a scheme and a host")
        if "@" in parts.netloc:
            advice = "give them by headersSecretRef of the Template instead"
            raise URLError(text, "it holds credentials", advice)
        if re.search(r"[\[\]]", parts.netloc) and not _BRACKETS.fullmatch(parts.netloc):
            raise URLError(text, "the text in brackets is not an IPv6 address")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise URLError(text, "its port is not a number from 1 to 65535")
        scheme = parts.scheme.lower()
        host = _host(parts.hostname, text)
        target = urllib.parse.quote(parts.path or "/", safe="/%:=&~+!$,;'@()*")
        if parts.query:
            target += "?" + urllib.parse.quote(parts.query, safe="/%:=&?~+!$,;'@()*[]")
        if scheme == "nfs":
            _check_nfs(text, target)
        return cls(text, scheme, host, port or DEFAULT_PORTS.get(scheme, 0), target)

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
    def nfs_names(self) -> list[str]:
        """The names on the way to the file of an nfs URL, decoded once."""
        return [name for name in urllib.parse.unquote(self.path).split("/") if name]

    @property
    def is_metalink(self) -> bool:
        return self.path.lower().endswith(METALINK_SUFFIXES)

    @property
    def authority(self) -> str:
        """The value of a Host header."""
        host = bracketed(self.host)
        return host if self.port == DEFAULT_PORTS.get(self.scheme, 0) else f"{host}:{self.port}"

    @property
    def digest(self) -> str:
        """A digest that distinguishes URLs without keeping the secrets that a query may contain."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        return redact(self.text)


def scheme(text: str) -> str:
    """In lower case, also of a text that is not a valid URL; for a text without a colon, all of it."""
    return text.partition(":")[0].lower()


def bracketed(host: str) -> str:
    """`host` as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def redact(text: str) -> str:
    """`text` without user info, query and fragment, printable on one line."""
    head = re.split(r"[?#]", text, maxsplit=1)[0]
    head = re.sub(r"^([^/?#]*//)[^/?#]*@", r"\1", head)
    return "".join(character if character.isprintable() else "?" for character in head[:1024])


def ipv4_address(host: str) -> ipaddress.IPv4Address | None:
    """The address `host`, in any notation that the system's resolver accepts (127.1, 0x7f.1, 2130706433); or None."""
    if not _NUMBER.fullmatch(host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _host(name: str, text: str) -> str:
    if ":" in name:
        # the pattern excludes zones (fe80::1%eth0), which are valid on one machine only
        try:
            if _ADDRESS6.fullmatch(name):
                return str(ipaddress.IPv6Address(name))
        except ipaddress.AddressValueError:
            pass
        raise URLError(text, f"'{redact(name[:64])}' is not an IPv6 address")
    ascii_name = name.lower()
    if not name.isascii():
        import idna

        # as browsers: IDNA 2008 after the mapping of UTS 46, non-transitional
        try:
            labels = idna.uts46_remap(name, std3_rules=False).split(".")
            ascii_name = ".".join(each if each.isascii() else idna.alabel(each).decode() for each in labels)
        except UnicodeError:
            raise URLError(text, "its host name cannot be written in ASCII") from None
    ascii_name = ascii_name.removesuffix(".")
    if not _NAME.fullmatch(ascii_name) or len(ascii_name) > 253:
        raise URLError(text, f"'{redact(ascii_name[:64])}' is not a host name")
    if _NUMBER.fullmatch(ascii_name) and ipv4_address(ascii_name) is None:
        raise URLError(text, f"'{redact(ascii_name[:64])}' is neither a host name nor an IPv4 address")
    return ascii_name


def _check_nfs(text: str, target: str) -> None:
    """Raises URLError if the path names no file or is dangerous."""

    def refused(problem: str) -> URLError:
        return URLError(text, problem, _NFS_EXAMPLE)

    if "?" in text or "#" in text:
        raise refused("an nfs URL has no query and no fragment (write ? as %3F and # as %23)")
    if _BAD_ESCAPE.search(target):
        raise refused("its path has a % that is not followed by two hexadecimal digits")
    try:
        path = urllib.parse.unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        raise refused("its path is not UTF-8") from None
    if re.search("%2f", target, re.IGNORECASE):
        raise refused("its path has an encoded slash")
    if _CONTROL.search(path):
        raise refused("its path has control characters")
    if found := _SHELL.search(path):
        raise refused(f"its path has '{found[0]}', which is not allowed")
    names = [name for name in path.split("/") if name]
    if "." in names or ".." in names:
        raise refused("its path has . or .. in it")
    if not names or path.endswith("/"):
        raise refused("it names no file")
    encoded = [name.encode() for name in names]
    too_long = len(b"/".join(encoded)) >= _PATH_LIMIT_BYTES or max(map(len, encoded)) > _NAME_LIMIT_BYTES
    if too_long or len(names) > _DEPTH_LIMIT:
        raise refused(
            f"its path is too long: allowed are {_PATH_LIMIT_BYTES} bytes, {_DEPTH_LIMIT} names and "
            f"{_NAME_LIMIT_BYTES} bytes in each"
        )
