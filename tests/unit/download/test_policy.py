"""URLs and the rules about them, by tables."""

import pytest

from directdownload.download.errors import RequestError
from directdownload.download.sources import policy
from directdownload.download.sources.urls import Url, redact
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy


@pytest.mark.parametrize(
    ("text", "host", "port", "target", "authority"),
    [
        ("http://Example.ORG", "example.org", 80, "/", "example.org"),
        ("https://example.org:443/a", "example.org", 443, "/a", "example.org"),
        ("HTTP://example.org:8080/a?b=c&d#e", "example.org", 8080, "/a?b=c&d", "example.org:8080"),
        ("http://example.org./a", "example.org", 80, "/a", "example.org"),
        ("http://[fd00::1]:81/a", "fd00::1", 81, "/a", "[fd00::1]:81"),
        ("http://[FD00:0:0::0:1]/a", "fd00::1", 80, "/a", "[fd00::1]"),
        ("http://example.org/ä%20b", "example.org", 80, "/%C3%A4%20b", "example.org"),
        ("http://bücher.example/", "xn--bcher-kva.example", 80, "/", "xn--bcher-kva.example"),
        # IDNA 2008 and UTS 46, as browsers: not strasse.example
        ("http://straße.example/", "xn--strae-oqa.example", 80, "/", "xn--strae-oqa.example"),
        ("http://FAẞ.Example/", "xn--fa-hia.example", 80, "/", "xn--fa-hia.example"),
        (
            "http://_a\u3002\uff22Ü\u00adCHER\uff0eexample/",
            "_a.xn--bcher-kva.example",
            80,
            "/",
            "_a.xn--bcher-kva.example",
        ),
    ],
)
def test_urls_that_are(text: str, host: str, port: int, target: str, authority: str) -> None:
    url = Url.parse(text)
    assert (url.host, url.port, url.target, url.authority) == (host, port, target, authority)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/a",
        "http://",
        "http:///a",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://@example.org/",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://example.org:0/",
        "http://example.org../",
        "http://1.2.3.4.5/",
        "http://256.256.256.256/",
        "http://4294967296/",
        "http://images.08/",
        "http://images.0x/",
        "http://a\u200db.example/",
        "http://u:secret@a\u2100b/",
        "http://example.org/\udce9",
        "http://exa mple.org/",
        "http://example.org/a\r\nX: y",
        "http://example.org/\x00",
        "http://example.org\\@evil.example/",
        "http://exa$(id).org/",
        "http://-o.example.org/",
        "http://[::1",
        "http://[v1.x]/",
        "http://[:::1]/",
        "http://[1:2:3:4:5:6:7:8:9]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://" + "a" * 300 + "/",
        "http://example.org/" + "a" * 9000,
    ],
)
def test_urls_that_are_not(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Url.parse(text)
    assert caught.value.reason is Reason.INVALID_URL
    assert "secret" not in caught.value.message
    if "@example" in text:
        assert "headersSecretRef" in caught.value.message


def test_what_is_shown_holds_no_secret() -> None:
    assert redact("https://u:p@example.org/a?token=x#y") == "https://example.org/a"
    assert redact("https://example.org/\n\x1b[31m") == "https://example.org/??[31m"
    assert str(Url.parse("https://example.org/a?token=x")) == "https://example.org/a"


@pytest.mark.parametrize(
    ("host", "pattern", "allowed"),
    [
        ("images.example.org", "images.example.org", True),
        ("IMAGES.example.org.", "Images.Example.Org", True),
        ("images.example.org", "*.example.org", True),
        ("a.b.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("evilexample.org", "*.example.org", False),
        ("images.example.org.evil.net", "images.example.org", False),
        ("images.example.org", "example.org", False),
        ("images.example.org", "*", False),
    ],
)
def test_allowed_hosts(host: str, pattern: str, allowed: bool) -> None:
    url = Url.parse(f"http://{host}/a")
    rules = SourcePolicy(allowed_hosts=("other.example.net", pattern))
    if allowed:
        policy.check_url(url, rules)
    else:
        with pytest.raises(RequestError, match="allowedHosts") as caught:
            policy.check_url(url, rules)
        assert caught.value.reason is Reason.URL_NOT_ALLOWED


def test_protocols() -> None:
    with pytest.raises(RequestError, match="protocols of the Zone allows HTTPS"):
        policy.check_url(Url.parse("http://example.org/"), SourcePolicy(protocols=("HTTPS",)))


def test_redirects_never_lose_their_encryption() -> None:
    secure, plain = Url.parse("https://example.org/"), Url.parse("http://example.org/")
    policy.check_redirect(plain, secure, SourcePolicy())
    with pytest.raises(RequestError, match="https to http") as caught:
        policy.check_redirect(secure, plain, SourcePolicy())
    assert caught.value.reason is Reason.URL_NOT_ALLOWED


DENIED = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"],  # noqa: S104 - nothing is bound
    "loopback": [
        *("127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"),
        # ISATAP, of any network
        *("2001:db8::5efe:7f00:1", "2001:db8::200:5efe:7f00:1", "fd00:1:2:3:0:5efe:127.9.9.9"),
    ],
    "link-local": [
        *("169.254.169.254", "fe80::1", "fe80::1%1", "febf::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
        "2001:db8::5efe:169.254.169.254",
    ],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "broadcast": ["255.255.255.255"],
    "cloud metadata": [
        *("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
        *("::ffff:100.100.100.200", "64:ff9b::a83f:8110"),
    ],
    # whole, whatever IPv4 address is inside
    "IPv4-compatible": ["::2", "::127.0.0.1", "::10.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    # RFC 6052, 2.2: behind 48, 56, 64 and 96 bits, and with the octet of zeros in the middle
    "local NAT64": [
        *("64:ff9b:1:7f00:0:100::", "64:ff9b:1:7f:0:1::", "64:ff9b:1:0:7f:0:100:0", "64:ff9b:1::7f00:1"),
        *("64:ff9b:1:808:8:800::", "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
    ],
    # the client's address is written inverted; the server's is not
    "Teredo": [
        *("2001:0:808:808:0:0:5601:5601", "2001:0:a9fe:a9fe:0:0:f7f7:f7f7", "2001:0:808:808:0:0:f7f7:f7f7"),
    ],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::"],
}
FREE = [
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "128.0.0.1", "126.255.255.255", "1.0.0.0"),
    *("fd00::1", "2001:db8::1", "2606:4700::1111", "::ffff:10.0.0.1", "64:ff9b::a00:1", "::2:0:0"),
    *("64:ff9b:2::7f00:1", "2001:1::1", "2003::1", "::ffff:1:0:0", "2001:db8::5efe:10.0.0.1", "2001:db8::5eff:7f00:1"),
]
URL = Url.parse("http://images.example.org/a")


@pytest.mark.parametrize(("kind", "address"), [(kind, text) for kind, texts in DENIED.items() for text in texts])
def test_addresses_that_are_denied(kind: str, address: str) -> None:
    with pytest.raises(RequestError) as caught:
        policy.check_addresses(URL, [address], SourcePolicy())
    assert caught.value.reason is Reason.URL_NOT_ALLOWED
    assert f"host images.example.org is {address} ({kind} address)" in caught.value.message
    assert "sourcePolicy.allowedCIDRs" in caught.value.message
    everything = SourcePolicy(allowed_cidrs=("0.0.0.0/0", "::/0"))
    assert policy.check_addresses(URL, [address], everything) == {address}


@pytest.mark.parametrize("address", FREE)
def test_addresses_that_are_free(address: str) -> None:
    assert policy.check_addresses(URL, [address], SourcePolicy()) == {address}


def test_of_several_addresses_those_that_are_denied_are_left_out() -> None:
    assert policy.check_addresses(URL, ["127.0.0.1", "10.0.0.1", "::1"], SourcePolicy()) == {"10.0.0.1"}


def test_what_no_parser_knows_is_denied() -> None:
    with pytest.raises(RequestError, match="unknown address"):
        policy.check_addresses(URL, ["nonsense"], SourcePolicy(allowed_cidrs=("0.0.0.0/0", "::/0")))


@pytest.mark.parametrize(
    ("cidr", "allowed", "denied"),
    [
        ("127.0.0.0/8", "127.0.0.1", "::1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
        ("::ffff:7f00:0/104", "::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::/10", "fe80::1", "169.254.0.1"),
        ("169.254.7.9/16", "169.254.1.1", "127.0.0.1"),
        ("127.0.0.0/8", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1"),
        ("127.0.0.0/8", "2001:db8::5efe:7f00:1", "2002:7f00:1::"),
        ("64:ff9b:1:aa::/64", "64:ff9b:1:aa::a00:1", "64:ff9b:1:bb::a00:1"),
        ("10.0.0.0/8", "10.0.0.1", "64:ff9b:1::a00:1"),
        ("64:ff9b:1::/48", "64:ff9b:1:7f00:0:100::", "127.0.0.1"),
    ],
)
def test_exceptions(cidr: str, allowed: str, denied: str) -> None:
    rules = SourcePolicy(allowed_cidrs=(cidr,))
    policy.check_addresses(URL, [allowed], rules)
    with pytest.raises(RequestError):
        policy.check_addresses(URL, [denied], rules)


@pytest.mark.parametrize("cidr", ["", "any", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "images.example.org", "x" * 5000])
def test_exceptions_that_are_none_are_told_before_anything_is_fetched(cidr: str) -> None:
    with pytest.raises(RequestError, match=r"allowedCIDRs of the Zone: .*for example 10\.0\.0\.0/8") as caught:
        policy.check_url(URL, SourcePolicy.model_construct(allowed_cidrs=(cidr,)))
    assert caught.value.permanent
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.01", "0"),
        *("0X7F.0.0.1", "127.0.0.1.", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]"),
        *("169.254.169.254", "2852039166", "[fe80::1]", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"),
    ],
)
def test_an_address_in_a_url_is_judged_in_whatever_spelling(host: str) -> None:
    with pytest.raises(RequestError) as caught:
        policy.check_url(Url.parse(f"http://{host}/a"), SourcePolicy())
    assert caught.value.reason is Reason.URL_NOT_ALLOWED


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost", "dead.beef", "1.example", "0xg.a"])
def test_names_are_left_to_the_resolver(host: str) -> None:
    policy.check_url(Url.parse(f"http://{host}/a"), SourcePolicy())


@pytest.mark.parametrize(
    ("text", "path", "metalink"),
    [
        ("http://example.org/a.METALINK?x=.qcow2", "/a.METALINK", True),
        ("nfs://example.org/export/a.meta4", "/export/a.meta4", True),
        ("http://example.org/a?x=.metalink", "/a", False),
        ("http://example.org/a.metalink.sig", "/a.metalink.sig", False),
    ],
)
def test_metalinks_are_known_by_the_path(text: str, path: str, metalink: bool) -> None:
    url = Url.parse(text)
    assert (url.path, url.is_metalink) == (path, metalink)
