"""URLs that servers name: read as browsers do (the cases are those of web-platform-tests), then held to the rule."""

import pathlib

import pytest
from tests.unit.download.support import LOCAL_CIDRS, job_document, run_job
from tests.world.http import HostileServer

from directdownload.download.errors import RequestError
from directdownload.download.sources.urls import Url, location
from directdownload.resources.reasons import Reason

BASE = Url.parse("http://example.org:81/foo/bar?x=1")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        # a reference
        ("", "http://example.org:81/foo/bar?x=1"),
        ("#part", "http://example.org:81/foo/bar?x=1"),
        ("?y", "http://example.org:81/foo/bar?y"),
        ("?", "http://example.org:81/foo/bar?"),
        ("a", "http://example.org:81/foo/a"),
        ("a:1/b", None),
        ("./a:1/b", "http://example.org:81/foo/a:1/b"),
        ("/a", "http://example.org:81/a"),
        ("\\a\\b", "http://example.org:81/a/b"),
        ("//h/a", "http://h/a"),
        ("\\\\h\\a", "http://h/a"),
        ("/\\h/a", "http://h/a"),
        ("///h///a", "http://h///a"),
        ("http:a", "http://example.org:81/foo/a"),
        ("http:/a", "http://example.org:81/a"),
        ("http:u@h", "http://example.org:81/foo/u@h"),
        ("http://a\\@h@b/", "http://a/@h@b/"),
        ("HTTP:\\\\h", "http://h/"),
        # another scheme: slashes may be missing
        ("https:h/a", "https://h/a"),
        ("https:/h/a", "https://h/a"),
        ("https:////h/a", "https://h/a"),
        ("https:\\h\\a?\\b", "https://h/a?%5Cb"),
        # dots
        ("../../../a", "http://example.org:81/a"),
        ("/a/b/../c/./d", "http://example.org:81/a/c/d"),
        ("/a/%2e%2E/b/%2e", "http://example.org:81/b/"),
        ("/a/b/..", "http://example.org:81/a/"),
        ("/a/.%2e", "http://example.org:81/"),
        ("/a/..b/...", "http://example.org:81/a/..b/..."),
        # characters
        ("  http://h/a b \t", "http://h/a%20b"),
        ("ht\ntp://h\r/a\tb", "http://h/ab"),
        ("/\u00e9?\u00e9#\u00e9", "http://example.org:81/%C3%A9?%C3%A9"),
        ("/\u3042\u202e", "http://example.org:81/%E3%81%82%E2%80%AE"),
        ("/a%20b%2Fc%zz%", "http://example.org:81/a%20b%2Fc%zz%"),
        ('/"<>^`{}|\x01\x7f', "http://example.org:81/%22%3C%3E%5E%60%7B%7D|%01%7F"),
        ("?\"<>'^`{}|", "http://example.org:81/foo/bar?%22%3C%3E%27^`{}|"),
        ("?a=http://x/y?z&b=c/../d", "http://example.org:81/foo/bar?a=http://x/y?z&b=c/../d"),
        # hosts
        ("//stra\u00dfe.example/", "http://stra\u00dfe.example/"),
        ("//B\u00dcCHER\u3002example:8080", "http://B\u00dcCHER\u3002example:8080/"),
        ("nfs://h/e/a b", "nfs://h/e/a%20b"),
    ],
)
def test_a_location_is_read_as_browsers_do(text: str, read: str | None) -> None:
    if read is None:
        with pytest.raises(RequestError):
            Url.of_server(text, "", BASE)
        return
    assert Url.of_server(text, "", BASE).text == read


@pytest.mark.parametrize(
    ("value", "target"),
    [
        (b"/caf\xc3\xa9 1.img", "/caf%C3%A9%201.img"),
        (b"/caf\xe9.img?\xff", "/caf%E9.img?%FF"),
        (b"/\xef\xbb\xbf", "/%EF%BB%BF"),
    ],
)
def test_the_bytes_of_a_location_are_sent_back(value: bytes, target: str) -> None:
    """Where they are not UTF-8, too: as Chrome does."""
    assert Url.of_server(location(value.decode("latin-1")), "", BASE).target == target


def test_a_location_in_utf_8_names_its_host() -> None:
    value = "//b\u00fccher.example/".encode().decode("latin-1")
    assert Url.of_server(location(value), "", BASE).host == "xn--bcher-kva.example"


def test_a_job_that_can_open_no_files_reads_it_too(tmp_path: pathlib.Path) -> None:
    to = "http://stra\u00dfe.example/a b".encode().decode("latin-1")
    with HostileServer(
        lambda c, r, n: c.sendall(f"HTTP/1.1 302 F\r\nLocation: {to}\r\n\r\n".encode("latin-1"))
    ) as server:
        policy = {"allowedCIDRs": LOCAL_CIDRS, "allowedHosts": ["127.0.0.1"]}
        _, result = run_job(job_document(tmp_path / "pool", url=server.url(), policy=policy))
    assert result.reason is Reason.URL_NOT_ALLOWED
    assert "host xn--strae-oqa.example is not allowed" in result.message


@pytest.mark.parametrize(
    "text",
    [
        *("http://u:s3cret@h/", "http://@h/", "//s3cret@h", "https:u@h", "https:\\\\u:s3cret@h\\a"),
        *(
            "http://a b/",
            "http://a%20b/",
            "http://ex%61mple.org/",
            "//a\u00a0b/",
            "//a\x01b/",
            "//a\x7f/",
            "//\xe2\x98/",
        ),
        *("http://h:0/", "http://h:65536/", "http://h:x/", "http://h:8\u0661/", "http://1.2.3.4.5/", "http://h.08/"),
        *("http://[::1/", "http://[fe80::1%25eth0]/", "http://a\u2100b/", "http://-o/", "//a\u200d.example/", "//h../"),
        *(
            "//\udce9.example/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "mailto:a@b",
            "https:",
            "https://",
            "nfs:/a/b",
        ),
        *("nfs://h/e/%2e%2e%2fa", "nfs://h/e/a\\b", "nfs://h/e/a?b", "x" * 9000),
    ],
)
def test_ambiguous_and_dangerous_locations_are_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Url.of_server(text, "http://a/b redirects to ", BASE)
    message = caught.value.message
    assert caught.value.reason is Reason.INVALID_URL
    assert message.startswith("http://a/b redirects to '")
    assert ", which is not a valid URL: " in message
    assert message.isprintable()
    assert "s3cret" not in message
    # it is not the user who can change it
    assert "Secret" not in message
    assert "for example" not in message


@pytest.mark.parametrize("text", ["/a", "a", "", "//h/a", "\\\\h\\a"])
def test_a_url_without_base_has_its_scheme(text: str) -> None:
    with pytest.raises(RequestError):
        Url.of_server(text, "")
    assert Url.of_server("https:h\\a", "").text == "https://h/a"
