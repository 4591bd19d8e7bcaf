"""HTTP headers that a Template gives to the origin of its URL: the Secret that holds them, and its allowed content.

Used by the controller, which checks a Secret and copies it for a Job, and by the readers of the copy's files: one file
per header in `DIRECTORY`. No message here repeats a value.
"""

import re

from directdownload.resources import urls
from directdownload.resources.naming import GROUP

SECRET_TYPE = f"{GROUP}/headers"
#: On the Secret: the origins that may see it, separated by spaces or commas. Without it anybody who may create
#: Templates in its namespace could send any Secret to a server of their own.
ORIGINS_ANNOTATION = f"{GROUP}/origins"
#: Where a Job's pod finds them.
DIRECTORY = "/var/run/directdownload/headers"
COUNT_LIMIT = 16
NAME_LIMIT = 100
VALUE_LIMIT_BYTES = 8192

#: RFC 9110, section 5.6.2. A file of a mounted Secret that begins with a dot is Kubernetes' own.
_NAME = re.compile(r"[!#$%&'*+\-^_`|~0-9A-Za-z][!#$%&'*+\-.^_`|~0-9A-Za-z]*")
#: RFC 9110, section 5.5, without obs-text: visible characters, with spaces and tabs between them.
_VALUE = re.compile(rb"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
#: The engine's own: they say which bytes it wants, and how.
_OF_THE_ENGINE = frozenset(
    {
        *("host", "range", "accept-encoding", "content-length", "content-encoding", "expect"),
        *("if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
    }
)
#: For one connection only (RFC 9110, section 7.6.1), or for a proxy.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-connection", "proxy-authorization", "proxy-authenticate"),
    }
)


def origin(url: str) -> str:
    """Scheme, host and port of an http or https URL (RFC 6454, section 6.1), in lower case and without the default
    port; empty for anything else."""
    try:
        found = urls.Url.parse(url)
    except urls.URLError:
        return ""
    return f"{found.scheme}://{found.authority}" if found.scheme in ("http", "https") else ""


def check(name: str, value: bytes) -> None:
    """Raises ValueError that names the header and says what is wrong with it."""
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        expected = f"expected the name of a header, at most {NAME_LIMIT} characters long, for example Authorization"
        raise ValueError(f"key {name[:NAME_LIMIT]!r}: {expected}")
    if name.lower() in _OF_THE_ENGINE:
        raise ValueError(f"key {name!r}: the download sets this header itself; remove the key")
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(
            f"key {name!r}: this header is not for the origin but for a connection or a proxy; remove the key"
        )
    if len(value) > VALUE_LIMIT_BYTES:
        raise ValueError(f"key {name!r}: the value has {len(value)} bytes, expected at most {VALUE_LIMIT_BYTES}")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"key {name!r}: expected a value of visible ASCII characters on one line, without spaces around it"
        )
