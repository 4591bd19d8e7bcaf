"""Headers for a source: which there may be, and whose they are."""

import pytest

from directdownload.resources import headers


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://images.example.org/a", "https://images.example.org"),
        ("HTTPS://Images.Example.ORG:443/a?b#c", "https://images.example.org"),
        ("http://images.example.org:80", "http://images.example.org"),
        ("http://images.example.org:443/", "http://images.example.org:443"),
        ("https://[FD00::1]:8443/a", "https://[fd00::1]:8443"),
        ("https://user:word@images.example.org/a", ""),
        ("nfs://nas/a", ""),
        ("https:///a", ""),
        ("https://images.example.org:99999/a", ""),
        ("https://[::1/a", ""),
        ("images.example.org", ""),
        ("", ""),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert headers.origin(url) == origin


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", b"Bearer abc.def-ghi=="),
        ("X-Auth_Token.v2", b"a b\tc"),
        ("Cookie", b"x"),
        ("N" * headers.NAME_LIMIT, b"v" * headers.VALUE_LIMIT_BYTES),
    ],
)
def test_a_header_is_accepted(name: str, value: bytes) -> None:
    headers.check(name, value)


NAMES = ["", "a b", "a:b", "ä", "a\r\nb", ".hidden", "..data", "a" * (headers.NAME_LIMIT + 1), "a\0"]
OWN = [
    *("Host", "host", "RANGE", "Accept-Encoding", "Content-Length", "Content-Encoding", "Expect"),
    *("If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"),
    *("Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"),
    *("Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate"),
]
VALUES = [b"", b" a", b"a ", b"a\r\nX-Evil: 1", b"a\nb", b"a\rb", b"a\0b", b"\xff", "ä".encode(), b"\x7f"]


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_a_name_is_refused_with_words_that_help(name: str) -> None:
    with pytest.raises(ValueError, match=r"^key .*(expected|remove the key)"):
        headers.check(name, b"v")


@pytest.mark.parametrize("value", [*VALUES, b"v" * (headers.VALUE_LIMIT_BYTES + 1)])
def test_a_value_is_refused_and_not_repeated(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^key 'X-Token': .*expected") as refused:
        headers.check("X-Token", value)
    assert "X-Evil" not in str(refused.value)
    assert len(str(refused.value)) < 300
