"""The allowed URLs and addresses: the rules of `Zone.spec.sourcePolicy`.

Called by the sources: `check_url` first, for every URL and every redirect, then `check_addresses` with the addresses
that the host resolved to. Nothing here touches the network. All raise RequestError(URLNotAllowed).
"""

import functools
import ipaddress
from collections.abc import Iterable

from directdownload.download.errors import RequestError
from directdownload.download.settings import Setting
from directdownload.download.sources import exports
from directdownload.download.sources.urls import Url
from directdownload.download.terms import SourcePolicy
from directdownload.resources import urls
from directdownload.resources.reasons import Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Denied unless in `allowedCIDRs`; the first match names the address in messages. Private ranges are not listed, as
#: template servers are there. `make docs` copies the list to the chart.
DENIED: tuple[tuple[str, Network], ...] = tuple(
    (kind, ipaddress.ip_network(text))
    for kind, texts in {
        # RFC 1122, 3.2.1.3: "this" network; Linux connects to itself
        "unspecified": ("0.0.0.0/8", "::/128"),
        "loopback": ("127.0.0.0/8", "::1/128"),
        "link-local": ("169.254.0.0/16", "fe80::/10"),
        "multicast": ("224.0.0.0/4", "ff00::/8"),
        "broadcast": ("255.255.255.255/32",),
        # servers of cloud credentials besides 169.254.0.0/16: Alibaba, Oracle, Azure's WireServer; AWS (instance
        # metadata ::254, credentials of pods ::23) and Google over IPv6
        "cloud metadata": (
            *("100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"),
            *("fd00:ec2::/32", "fd20:ce::254/128"),
        ),
        # IPv6 ranges that represent IPv4 and that no template server has. Denied whole: the position of the IPv4
        # address is the site's choice (RFC 8215 with the lengths of RFC 6052, 2.2), or there are two (Teredo), and no
        # NetworkPolicy can match them.
        "IPv4-compatible": ("::/96",),  # RFC 4291, 2.5.5.1
        "IPv4-translated": ("::ffff:0:0:0/96",),  # RFC 2765, 2.1
        "local NAT64": ("64:ff9b:1::/48",),  # RFC 8215
        "Teredo": ("2001::/32",),  # RFC 4380
        "6to4": ("2002::/16",),  # RFC 3056
    }.items()
    for text in texts
)
#: RFC 6052, 2.1: the last 32 bits are the IPv4 address that is finally reached
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: RFC 5214, 6.1, in any network: the upper half of the interface identifier, with and without the universal bit. The
#: lower half is the IPv4 address that a router of the site sends to.
_ISATAP = (0x00005EFE, 0x02005EFE)


def check_url(url: Url, policy: SourcePolicy) -> None:
    """Check protocol, host and NFS export of `url`, and its address, if the URL has one instead of a name."""
    if url.protocol not in policy.protocols:
        raise RequestError(
            Reason.URL_NOT_ALLOWED,
            f"{url.introduced}: protocol {url.protocol} is not allowed; {Setting.PROTOCOLS} allows "
            f"{', '.join(policy.protocols)}",
        )
    if policy.allowed_hosts and not any(_matches(url.host, pattern) for pattern in policy.allowed_hosts):
        raise RequestError(
            Reason.URL_NOT_ALLOWED,
            f"{url.introduced}: host {url.host} is not allowed; {Setting.ALLOWED_HOSTS} allows "
            f"{', '.join(policy.allowed_hosts[:10])}",
        )
    _networks(policy.allowed_cidrs)
    address = literal_address(url.host)
    if address is not None:
        check_addresses(url, [str(address)], policy)
    if url.scheme == "nfs":
        exports.allowed_root(url, policy)


def check_redirect(previous: Url, following: Url, policy: SourcePolicy) -> None:
    """As `check_url`; also refuses a redirect from https to an unencrypted protocol."""
    if previous.scheme == "https" and following.scheme != "https":
        raise RequestError(
            Reason.URL_NOT_ALLOWED,
            f"{following.introduced}: a redirect from https to {following.scheme} is not followed",
        )
    check_url(following, policy)


def check_addresses(url: Url, addresses: Iterable[str], policy: SourcePolicy) -> frozenset[str]:
    """The allowed ones of `addresses`, to which the host of `url` resolved: at least one.

    `addresses` must not be empty.
    """
    allowed = _networks(policy.allowed_cidrs)
    judged = {text: _denial(_parse(text), allowed) for text in addresses}
    kept = frozenset(text for text, denial in judged.items() if denial is None)
    if kept:
        return kept
    denied = ", ".join(f"{text} ({denial} address)" for text, denial in list(judged.items())[:4])
    raise RequestError(
        Reason.URL_NOT_ALLOWED,
        f"{url.introduced}: host {url.host} is {denied}, which is denied; to allow it, add it to "
        f"{Setting.ALLOWED_CIDRS}",
    )


def denial(address: str, policy: SourcePolicy) -> str | None:
    """The kind of a denied address, `unknown` for a text that is none; None if it is allowed."""
    return _denial(_parse(address), _networks(policy.allowed_cidrs))


def literal_address(host: str) -> Address | None:
    """The address `host`, in any notation that the system's resolver accepts; None for a name."""
    return _parse(host) if ":" in host else urls.ipv4_address(host)


def denied(address: str) -> str | None:
    """The kind of an address that is denied unless a policy allows it; None: it is of no such kind."""
    return _denial(_parse(address), ())


@functools.lru_cache(maxsize=16)
def _networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    networks = []
    for text in cidrs:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise RequestError(
                Reason.URL_NOT_ALLOWED,
                f"{Setting.ALLOWED_CIDRS}: {text[:64]!r} is not an address range; expected for example 10.0.0.0/8 or "
                "fd00::/8",
            ) from None
    return tuple(networks)


def _parse(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _denial(address: Address | None, allowed: tuple[Network, ...]) -> str | None:
    """The kind of a denied address; None if it is allowed."""
    if address is None:
        return "unknown"
    if any(address in network for network in allowed):
        return None
    for form in (address, *_embedded(address)):
        kind = next((kind for kind, network in DENIED if form in network), None)
        if kind is not None and not any(form in network for network in allowed):
            return kind
    return None


def _embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address may lead to, besides those in ranges that are denied whole."""
    if address.version == 4:
        return ()
    # RFC 4291, 2.5.5.2: Linux sends IPv4 there
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in NAT64 or int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern
