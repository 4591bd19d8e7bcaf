"""URLs and the rules about them, by tables."""

import pytest

from directdownload.download import policy
from directdownload.download.errors import RequestError
from directdownload.download.urls import Url, redact
from directdownload.resources.jobs import Policy
from directdownload.resources.reasons import Reason


@pytest.mark.parametrize(
    ("text", "host", "port", "target", "authority"),
    [
        ("http://Example.ORG", "example.org", 80, "/", "example.org"),
        ("https://example.org:443/a", "example.org", 443, "/a", "example.org"),
        ("HTTP://example.org:8080/a?b=c&d#e", "example.org", 8080, "/a?b=c&d", "example.org:8080"),
        ("http://example.org./a", "example.org", 80, "/a", "example.org"),
        ("http://[fd00::1]:81/a", "fd00::1", 81, "/a", "[fd00::1]:81"),
        ("http://example.org/ä%20b", "example.org", 80, "/%C3%A4%20b", "example.org"),
        ("http://bücher.example/", "xn--bcher-kva.example", 80, "/", "xn--bcher-kva.example"),
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
        "http://exa mple.org/",
        "http://example.org/a\r\nX: y",
        "http://example.org/\x00",
        "http://example.org\\@evil.example/",
        "http://exa$(id).org/",
        "http://-o.example.org/",
        "http://[::1",
        "http://[v1.x]/",
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
    rules = Policy(allowed_hosts=("other.example.net", pattern))
    if allowed:
        policy.check_url(url, rules)
    else:
        with pytest.raises(RequestError, match="allowedHosts") as caught:
            policy.check_url(url, rules)
        assert caught.value.reason is Reason.URL_NOT_ALLOWED


def test_protocols() -> None:
    with pytest.raises(RequestError, match="protocols allows HTTPS"):
        policy.check_url(Url.parse("http://example.org/"), Policy(protocols=("HTTPS",)))


def test_redirects_never_lose_their_encryption() -> None:
    secure, plain = Url.parse("https://example.org/"), Url.parse("http://example.org/")
    policy.check_redirect(plain, secure, Policy())
    with pytest.raises(RequestError, match="https to http") as caught:
        policy.check_redirect(secure, plain, Policy())
    assert caught.value.reason is Reason.URL_NOT_ALLOWED
