"""Parsers of what strangers write: whatever comes in, only our own errors come out."""

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import hypothesis
from hypothesis import strategies as st
from tests.world.soak import ROUNDS

from directdownload.download.errors import RequestError, SourceError
from directdownload.download.sources import metalink, policy
from directdownload.download.sources.proxy import Proxies
from directdownload.download.sources.urls import Url, redact
from directdownload.resources.checksum import Algorithm, Checksum
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
fuzz = hypothesis.settings(max_examples=240 * ROUNDS)

# text that looks like a URL often enough to get past the first check
HOSTS = st.one_of(
    st.sampled_from(
        ["example.org", "127.1", "0x7f.1", "[::1]", "[::ffff:7f00:1]", "2130706433", "b\u00fccher.example"]
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.text(max_size=30),
)
URLS = st.one_of(
    st.text(max_size=200),
    st.builds(
        "{}://{}{}{}/{}".format,
        st.sampled_from(["http", "https", "nfs", "HTTP", "ftp", "file", "", "h t"]),
        st.sampled_from(["", "", "", "u:s3cret@", "@"]),
        HOSTS,
        st.sampled_from(["", "", ":80", ":0", ":99999", ":x", ":"]),
        st.text(max_size=60),
    ),
)
#: pieces of metalinks in any order: more of them are nearly right than random bytes ever are
TOKENS = [
    *('<metalink xmlns="urn:ietf:params:xml:ns:metalink">', '<metalink xmlns="http://www.metalinker.org/">'),
    *("</metalink>", "<files>", "</files>", '<file name="a">', "</file>", "<size>", "</size>", "<verification>"),
    *("</verification>", '<hash type="sha-256">', '<hash type="md5" piece="1">', "</hash>", "<resources>"),
    *('<pieces length="1024" type="sha-1">', '<pieces length="99999999999999999999" type="sha1">', "</pieces>"),
    *("</resources>", '<url priority="1">', '<url preference="100" type="http">', "<url>", "</url>"),
    *("https://a.example/b", "nfs://a/b/c", "5", "a" * 40, "b" * 64, "&amp;", "&#0;", "&x;", "<!DOCTYPE x>", "\u00fc"),
    *("<?xml version='1.0'?>", "<!-- -->", "<![CDATA[x]]>", "]]>", "<x:y xmlns:x='z'/>", "-1", " "),
]
ELEMENTS = st.recursive(
    st.one_of(
        st.sampled_from(["5", "2048", "a" * 32, "b" * 40, "https://a.example/b", "x", ""]), st.text("ab<&1", max_size=5)
    ),
    lambda inner: st.builds(
        "<{0} {1}>{2}</{0}>".format,
        st.sampled_from(["file", "files", "size", "hash", "pieces", "url", "verification", "resources", "other"]),
        st.sampled_from(["", "name='a'", "type='md5'", "type='sha1' length='1024'", "priority='1'", "piece='0'"]),
        st.lists(inner, max_size=4).map("".join),
    ),
    max_leaves=20,
)
DOCUMENTS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(TOKENS), max_size=30).map(lambda tokens: "".join(tokens).encode()),
    st.builds(
        lambda name, inner: f'<metalink xmlns="{name}">{inner}</metalink>'.encode(),
        st.sampled_from(["urn:ietf:params:xml:ns:metalink", "http://www.metalinker.org/"]),
        st.lists(ELEMENTS, max_size=5).map("".join),
    ),
)


def attempt(action: Callable[[], T], expected: type[E]) -> T | E:
    """What `action` returns or, if it is of the expected kind, raises."""
    try:
        return action()
    except expected as error:
        return error


@fuzz
@hypothesis.given(DOCUMENTS, st.text("ab", max_size=2))
def test_any_metalink_is_understood_or_refused(document: bytes, wanted: str) -> None:
    found = attempt(lambda: metalink.choose(metalink.parse(document), wanted), SourceError)
    if isinstance(found, SourceError):
        assert found.reason is Reason.METALINK_INVALID
        assert len(found.message) < 1000
        return
    assert 1 <= len(found.urls) <= 64
    assert all(Url.parse(url).scheme in ("http", "https", "nfs") for url in found.urls)
    assert found.size_bytes is None or 0 <= found.size_bytes < 10**18
    assert list(found.checksums) == sorted(found.checksums, key=lambda checksum: -checksum.algorithm.strength)
    if found.pieces is not None:
        assert 1024 <= found.pieces.length_bytes <= 1024**3
        count, rest = divmod(2 * len(found.pieces.digests), found.pieces.algorithm.hex_length)
        assert (count > 0, rest) == (True, 0)
        if found.size_bytes is not None:
            assert count == -(-found.size_bytes // found.pieces.length_bytes)


@fuzz
@hypothesis.given(URLS, URLS)
def test_any_url_is_understood_or_refused(text: str, reference: str) -> None:
    url = attempt(lambda: Url.parse(text), RequestError)
    if isinstance(url, RequestError):
        assert url.reason is Reason.INVALID_URL
        assert "s3cret" not in url.message
        assert url.message.isprintable()
        return
    assert re.fullmatch(r"/[!-~]*", url.target)
    assert re.fullmatch(r"[a-z0-9._:-]+", url.host)
    assert 0 <= url.port <= 65_535
    assert Url.parse(f"{url.scheme}://{url.authority}{url.target}").origin == url.origin
    assert "s3cret" not in str(url)
    error = attempt(lambda: policy.check_redirect(url, Url.of_server(reference, "", url), SourcePolicy()), RequestError)
    assert error is None or error.reason in (Reason.URL_NOT_ALLOWED, Reason.INVALID_URL)


@fuzz
@hypothesis.given(st.text(max_size=300))
def test_anything_can_be_shown(text: str) -> None:
    shown = redact(text)
    assert shown.isprintable()
    assert not set("?#") & set(redact(re.sub(r"[^ -~]", "", text)))


@fuzz
@hypothesis.given(st.one_of(st.ip_addresses().map(str), st.text("0123456789abcdefx.:%", max_size=40)))
def test_any_address_is_judged(text: str) -> None:
    """Never both free and, written as the resolver writes it, denied."""
    url = Url.parse("http://example.org/")
    address = policy.literal_address(text)
    verdicts = []
    for form in {text, str(address)} if address is not None and ":" in text else {str(address)}:
        judged = attempt(partial(policy.check_addresses, url, [form], SourcePolicy()), RequestError)
        verdicts.append(isinstance(judged, RequestError))
    assert len(set(verdicts)) == 1


@fuzz
@hypothesis.given(
    st.one_of(
        st.text(max_size=200),
        st.builds(
            "{}{}{}{}".format,
            st.sampled_from(["", "{", "{}", "{sha-256}", "{MD5}", "sha512:", "md5:", "SHA-1:", ":"]),
            st.text("0123456789abcdefABCDEF", max_size=130),
            st.sampled_from(["", "a" * 32, "b" * 64]),
            st.sampled_from(["", "\n", " ", "XXXX", "\u0660"]),
        ),
    )
)
def test_any_checksum_is_understood_or_refused(text: str) -> None:
    checksum = attempt(lambda: Checksum.parse(text), ValueError)
    if isinstance(checksum, ValueError):
        assert len(str(checksum)) < 1000
        return
    assert re.fullmatch(r"[0-9a-f]+", checksum.hexdigest)
    assert len(checksum.hexdigest) == checksum.algorithm.hex_length
    assert checksum.algorithm in Algorithm
    assert Checksum.parse(str(checksum)) == checksum


@fuzz
@hypothesis.given(st.one_of(URLS, st.text("http:/@p.8%s3cret", max_size=40)), st.text("ae.g:*/0123, []", max_size=30))
def test_any_setting_of_a_proxy_is_understood_or_refused(text: str, exceptions: str) -> None:
    url = Url.parse("http://a.example/")
    proxy = attempt(lambda: Proxies(http=text, exceptions=exceptions).choose(url), SourceError)
    if isinstance(proxy, SourceError):
        assert "s3cret" not in proxy.message
    elif proxy is not None:
        assert "s3cret" not in str(proxy) or "s3cret" in proxy.host
        assert re.fullmatch(r"(Basic [A-Za-z0-9+/=]+)?", proxy.authorization)
