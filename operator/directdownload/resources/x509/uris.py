"""URIs and host names as Java's certificate parser accepts them: java.net.URI and sun.security.x509.DNSName.

Used by `names`. Promises a Flaw or nothing, in time linear in the length. Java reads every byte of an IA5String that is
not ASCII as U+FFFD, which its URIs allow almost everywhere.
"""

import ipaddress
import re
import urllib.parse

from directdownload.resources.x509.der import Class, Flaw

_UNRESERVED = r"A-Za-z0-9\-_.!~*'()" + "\ufffd"


def _any(more: str) -> str:
    """Any number of these characters, of unreserved ones, and of escapes."""
    return rf"(?:[{_UNRESERVED}{more}]|%[0-9A-Fa-f]{{2}})*"


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*")
_URIC, _PATH, _REGISTRY = (re.compile(_any(more)) for more in (r";/?:@&=+$,\[\]", ":@&=+$,;/", "$,;:@&=+"))
_SERVER = re.compile(rf"(?:{_any(';:&=+$,')}@)?(?:\[([^\]]*)\]|([A-Za-z0-9.\-]+))(?::([0-9]*))?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?")
_DNS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]*(?:\.[A-Za-z0-9][A-Za-z0-9\-]*)*")
_BYTE = r"0*(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4 = re.compile(rf"(?=[0-9.]+$){_BYTE}(?:\.{_BYTE}){{3}}")
_PORT_LIMIT = 1 << 31


def check(uri: str) -> None:
    """Checks a general name: it must have a scheme, and its host, if it has one, must be valid. Raises Flaw."""
    scheme, host, _ = _parse(uri)
    if not scheme:
        raise _flaw(f"the URI {_shown(uri)} has no scheme, such as https://")
    if host is None:
        return
    if host.startswith("["):
        address, _, zone = host[1:-1].partition("%")
        # Python accepts no leading zeros in the IPv4 address at the end
        begin, colon, end = address.rpartition(":")
        if "." in end:
            address = begin + colon + ".".join(number.lstrip("0") or number[:1] for number in end.split("."))
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise _flaw(f"the host of the URI {_shown(uri)} is no IPv6 address") from None
        if zone and not zone.isdigit():
            raise _flaw(f"the host of the URI {_shown(uri)} depends on a network interface")
    elif not _DNS_NAME.fullmatch(host):
        # Java then asks DNS for it, and whether a store opens must not depend on that
        raise _flaw(f"the host of the URI {_shown(uri)} is no host name: it may not end with a dot")


def check_constraint(uri: str) -> None:
    """Checks a name constraint: a host, or a domain that begins with a dot. Raises Flaw."""
    scheme, _, specific = _parse(uri)
    if scheme:
        raise _flaw(
            f"the name constraint {_shown(uri)} has a scheme; expected a host, or a domain such as .example.org"
        )
    if not _DNS_NAME.fullmatch(urllib.parse.unquote(specific.removeprefix("."))):
        raise _flaw(f"the name constraint {_shown(uri)} is no host name")


def _parse(uri: str) -> tuple[str | None, str | None, str]:
    """Scheme, host (none: absent, or a name that is no host) and everything between scheme and fragment."""
    before, colon, after = uri.partition(":")
    scheme, rest = (before, after) if colon and not re.search("[/?#]", before) else (None, uri)
    if scheme is not None and not _SCHEME.fullmatch(scheme):
        raise _malformed(uri)
    specific, hash_sign, fragment = rest.partition("#")
    if not _URIC.fullmatch(fragment):
        raise _malformed(uri)
    if scheme is not None and not rest.startswith("/"):
        if not specific or not _URIC.fullmatch(specific):
            raise _malformed(uri)
        return scheme, None, specific
    path, question_mark, query = specific.partition("?")
    authority = ""
    if path.startswith("//"):
        authority, slash, behind = path[2:].partition("/")
        if not (authority or slash or question_mark or hash_sign):
            raise _malformed(uri)
        path = slash + behind
    if not _PATH.fullmatch(path) or not _URIC.fullmatch(query):
        raise _malformed(uri)
    return scheme, _host(uri, authority) if authority else None, specific


def _host(uri: str, authority: str) -> str | None:
    """None: the authority is no host; it may be a name of some registry."""
    server = _SERVER.fullmatch(authority)
    if server is not None and int(server[3][:11] or 0 if server[3] else 0) < _PORT_LIMIT:
        if server[1] is not None and _is_ipv6(server[1]):
            return f"[{server[1]}]"
        if server[2] is not None and (_IPV4.fullmatch(server[2]) or _is_host(server[2])):
            return server[2]
    if not _REGISTRY.fullmatch(authority):
        raise _malformed(uri)
    return None


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    return bool(address) and (not percent or bool(re.fullmatch(r"[A-Za-z0-9_.]+", zone)))


def _is_host(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return all(_LABEL.fullmatch(label) for label in labels) and (len(labels) == 1 or labels[-1][0].isalpha())


def _malformed(uri: str) -> Flaw:
    return _flaw(f"{_shown(uri)} is no URI")


def _flaw(text: str) -> Flaw:
    return Flaw(Class.CRITICAL_URI, text)


def _shown(uri: str) -> str:
    return repr(uri if len(uri) <= 100 else f"{uri[:99]}…")
