"""Proxies: whom they are used for, what they are told, and that their passwords are shown to nobody."""

import base64
import contextlib
import pathlib
import socket
import threading
from typing import Any

import pytest
from tests.unit.download.sourcing import make_source, read, read_error
from tests.unit.download.support import FAST, content, make_request
from tests.world.certificates import Certificate, bundle
from tests.world.http import HostileServer, Received, answer, tls_server
from tests.world.origin import free_port
from tests.world.relay import carry

from directdownload.download.errors import DownloadError, RequestError, SourceError
from directdownload.download.secrets import Secrets
from directdownload.download.sources.proxy import Proxies
from directdownload.download.sources.urls import Url
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

DATA = content(300_000)
SECRET = "s3cret/word"
ENCODED = "s3cret%2Fword"


def through(proxy: HostileServer, credentials: str = "") -> Proxies:
    url = f"http://{credentials}127.0.0.1:{proxy.port}"
    return Proxies(http=url, https=url)


def relay(server: HostileServer) -> HostileServer:
    """A proxy that carries bytes to `server`, wherever its client wants to go."""

    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), 10) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            carry(connection, onward)

    return HostileServer(respond)


@pytest.mark.parametrize(
    ("environment", "http", "https", "exceptions"),
    [
        ({}, "", "", ""),
        ({"HTTP_PROXY": "a", "HTTPS_PROXY": "b", "NO_PROXY": "c"}, "a", "b", "c"),
        ({"http_proxy": "a", "https_proxy": "b", "no_proxy": "c"}, "a", "b", "c"),
        ({"http_proxy": "a", "HTTP_PROXY": "x", "no_proxy": "", "NO_PROXY": "x"}, "a", "", ""),
        # what a CGI server sets from a header of its client
        ({"REQUEST_METHOD": "GET", "HTTP_PROXY": "evil", "HTTPS_PROXY": "b"}, "", "b", ""),
        ({"REQUEST_METHOD": "GET", "HTTP_PROXY": "evil", "http_proxy": "a"}, "a", "", ""),
    ],
)
def test_the_environment(environment: dict[str, str], http: str, https: str, exceptions: str) -> None:
    assert Proxies.from_environment(environment) == Proxies(http, https, exceptions)


@pytest.mark.parametrize(
    ("text", "host", "port", "credentials"),
    [
        ("http://proxy.example.org:3128", "proxy.example.org", 3128, ""),
        ("http://proxy.example.org:3128/", "proxy.example.org", 3128, ""),
        ("proxy.example.org:3128", "proxy.example.org", 3128, ""),
        ("HTTP://proxy.example.org", "proxy.example.org", 80, ""),
        ("http://[fd00::1]:3128", "fd00::1", 3128, ""),
        ("http://user:p%40ss%2F@proxy.example.org:3128", "proxy.example.org", 3128, "user:p@ss/"),
        ("http://us@er:p:w@proxy.example.org", "proxy.example.org", 80, "us@er:p:w"),
        ("http://user@proxy.example.org", "proxy.example.org", 80, "user:"),
    ],
)
def test_urls_of_proxies(text: str, host: str, port: int, credentials: str) -> None:
    proxy = Proxies(http=text).choose(Url.parse("http://images.example.org/"))
    assert proxy is not None
    assert (proxy.host, proxy.port) == (host, port)
    expected = "Basic " + base64.b64encode(credentials.encode()).decode() if credentials else ""
    assert proxy.authorization == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "socks5://proxy.example.org:1080",
            "https://proxy.example.org",
            "http://",
            "http://user:s3cret@",
            "http://a b",
        ),
        *("http://user:s3cret/word@proxy.example.org", "http://user:s3cret@proxy.example.org:x", "http://p/s3cret"),
    ],
)
def test_urls_that_are_no_proxys_are_told_without_their_secrets(text: str) -> None:
    with pytest.raises(SourceError, match="HTTPS_PROXY") as caught:
        Proxies(https=text).choose(Url.parse("https://images.example.org/"))
    assert not caught.value.permanent
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    ("exceptions", "url", "direct"),
    [
        ("", "http://images.example.org/", False),
        ("*", "http://images.example.org/", True),
        ("images.example.org", "http://images.example.org/", True),
        ("IMAGES.Example.org.", "http://images.example.org/", True),
        ("example.org", "http://images.example.org/", True),
        (".example.org", "http://images.example.org/", True),
        ("*.example.org", "http://images.example.org/", True),
        (".example.org", "http://example.org/", True),
        ("example.org", "http://evilexample.org/", False),
        ("images.example.org", "http://example.org/", False),
        ("a, b  example.org,c", "http://images.example.org/", True),
        ("example.org:8080", "http://images.example.org:8080/", True),
        ("example.org:8080", "http://images.example.org/", False),
        ("example.org:80", "http://images.example.org/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.1.2.3", "http://10.1.2.3:8080/", True),
        ("10.1.2.3:8080", "http://10.1.2.3:8080/", True),
        ("10.1.2.3:8080", "http://10.1.2.3/", False),
        ("fd00::/8", "http://[fd00::1]/", True),
        ("fd00::1", "http://[fd00::1]/", True),
        ("[fd00::1]:81", "http://[fd00::1]:81/", True),
        ("[fd00::1]:81", "http://[fd00::1]/", False),
        ("10.0.0.0/8", "http://images.example.org/", False),
        ("10.0.0.0/99, :, :x, ., /", "http://images.example.org/", False),
    ],
)
def test_exceptions(exceptions: str, url: str, direct: bool) -> None:
    proxies = Proxies(http="http://proxy.example.org:3128", exceptions=exceptions)
    assert (proxies.choose(Url.parse(url)) is None) is direct


def test_http_asks_the_proxy_for_the_whole_url() -> None:
    """The name need not exist here: to find its address is the proxy's duty."""
    with HostileServer(lambda c, r, n: answer(c, DATA)) as proxy:
        url = "http://images.invalid:81/a?b=c"
        assert read(url, proxies=through(proxy, f"user:{ENCODED}@"), headers=(("X-Token", "t"),)) == DATA
    (request,) = proxy.received
    assert request.target == url
    assert request.headers["host"] == "images.invalid:81"
    assert request.headers["x-token"] == "t"
    assert base64.b64decode(request.headers["proxy-authorization"].removeprefix("Basic ")).decode() == f"user:{SECRET}"


def test_https_goes_through_a_tunnel_and_is_verified_by_the_origins_name(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("images.invalid", issuer=(authority := Certificate(authority=True)))
    seen: list[str] = []

    def respond(connection: socket.socket, request: Received, _number: int) -> None:
        seen.append(request.target)
        answer(connection, DATA)

    with tls_server(leaf, tmp_path, respond) as server, relay(server) as proxy:
        options: dict[str, Any] = {
            "proxies": through(proxy, f"user:{ENCODED}@"),
            "trust_bundle": bundle(tmp_path, [authority]),
        }
        assert read("https://images.invalid/a", **options) == DATA
        error = read_error("https://other.invalid/a", **options)
    assert seen == ["/a"]
    # a certificate for another name is looked at twice, as it might be one of the bundle
    assert [request.target for request in proxy.received] == ["images.invalid:443", *["other.invalid:443"] * 2]
    assert all("proxy-authorization" in request.headers for request in proxy.received)
    assert error.reason is Reason.TLS_VERIFICATION_FAILED


def test_an_uploaded_leaf_is_accepted_through_a_tunnel_too(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("elsewhere.invalid")
    with tls_server(leaf, tmp_path, lambda c, r, n: answer(c, DATA)) as server, relay(server) as proxy:
        trusted = bundle(tmp_path, [leaf])
        assert read("https://images.invalid/a", proxies=through(proxy), trust_bundle=trusted) == DATA


def test_the_proxys_password_goes_to_the_proxy_only(tmp_path: pathlib.Path) -> None:
    heads: list[bytes] = []
    leaf = Certificate("images.invalid")
    context = leaf.server_context(tmp_path)

    def serve(connection: socket.socket, _request: Received, _number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            heads.append(secure.recv(65_536))
            answer(secure, DATA)

    with HostileServer(serve, reads_request=False) as server, relay(server) as proxy:
        trusted = bundle(tmp_path, [leaf])
        read("https://images.invalid/a", proxies=through(proxy, f"u:{ENCODED}@"), trust_bundle=trusted)
    assert b"proxy-authorization" not in heads[0].lower()


def test_require_direct_ignores_proxies() -> None:
    policy = SourcePolicy(require_direct=True, allowed_cidrs=("127.0.0.0/8",))
    with HostileServer(lambda c, r, n: answer(c, DATA)) as server, HostileServer(lambda c, r, n: None) as proxy:
        assert read(server.url(), proxies=through(proxy), policy=policy) == DATA
    assert proxy.received == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://2852039166/latest", "https://[::1]/a"])
def test_denied_addresses_are_denied_through_a_proxy_too(url: str) -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as proxy, pytest.raises(RequestError, match="allowedCIDRs"):
        make_source(url, proxies=through(proxy), policy=SourcePolicy())
    assert proxy.received == []


def test_a_redirect_through_a_proxy_is_checked() -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        answer(connection, b"", status="302 Found", headers="Location: http://169.254.169.254/latest\r\n")

    with HostileServer(respond) as proxy:
        error = read_error("http://images.invalid/a", proxies=through(proxy), policy=SourcePolicy())
    assert error.reason is Reason.URL_NOT_ALLOWED
    assert len(proxy.received) == 1


def test_the_proxy_itself_may_have_any_address() -> None:
    with HostileServer(lambda c, r, n: answer(c, DATA)) as proxy:
        assert read("http://images.invalid/a", proxies=through(proxy), policy=SourcePolicy()) == DATA


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (407, Reason.SOURCE_REFUSED),
        (403, Reason.SOURCE_REFUSED),
        (502, Reason.SOURCE_UNAVAILABLE),
        (503, Reason.SOURCE_UNAVAILABLE),
        (504, Reason.SOURCE_UNAVAILABLE),
    ],
)
def test_a_proxy_that_refuses(scheme: str, status: int, reason: Reason) -> None:
    with HostileServer(lambda c, r, n: answer(c, b"no", status=f"{status} No")) as proxy:
        error = read_error(f"{scheme}://images.invalid/a", proxies=through(proxy, f"user:{ENCODED}@"))
    assert error.reason is reason
    assert f"proxy 127.0.0.1:{proxy.port}" in error.message
    assert str(status) in error.message
    assert not any(part in error.message for part in ("user", "s3cret", "word"))
    if status == 407:
        assert f"{scheme.upper()}_PROXY" in error.message


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"", Reason.SOURCE_UNAVAILABLE),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Reason.SOURCE_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\n", Reason.SOURCE_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\n\r\nbytes before the client's", Reason.SOURCE_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\n\r\n", Reason.SOURCE_UNREACHABLE),
    ],
)
def test_a_proxy_that_answers_nonsense(told: bytes, reason: Reason) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(told)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    with HostileServer(respond) as proxy:
        error = read_error("https://images.invalid/a", proxies=through(proxy))
    assert error.reason in (reason, Reason.TLS_VERIFICATION_FAILED if told.endswith(b"OK\r\n\r\n") else reason)


def test_a_proxy_whose_answer_has_no_end_is_cut_off() -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not proxy.ended.is_set():
            connection.sendall(b"X: y\r\n" * 1000)

    with HostileServer(respond) as proxy:
        error = read_error("https://images.invalid/a", proxies=through(proxy), timeouts=FAST)
    assert error.reason is Reason.SOURCE_UNAVAILABLE


@pytest.mark.parametrize("drip", [False, True])
def test_a_tunnel_that_is_never_made_is_a_connect_timeout(drip: bool) -> None:
    def respond(connection: socket.socket, _request: Received, _number: int) -> None:
        while not server_ended.wait(0.05):
            if drip:
                connection.sendall(b"X")

    server_ended = threading.Event()
    with HostileServer(respond) as proxy:
        error = read_error("https://images.invalid/a", proxies=through(proxy), timeouts=FAST)
        server_ended.set()
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert "proxy 127.0.0.1" in error.message


def test_a_proxy_that_is_not_there() -> None:
    proxies = Proxies(http=f"http://user:{ENCODED}@127.0.0.1:{free_port()}")
    error: DownloadError = read_error("http://images.invalid/a", proxies=proxies)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "proxy 127.0.0.1" in error.message
    assert "s3cret" not in error.message
    assert "s3cret" not in repr(proxies)


def test_secure_servers_are_reached_directly_if_they_are_excepted(tmp_path: pathlib.Path) -> None:
    leaf = Certificate("127.0.0.1")
    with (
        tls_server(leaf, tmp_path, lambda c, r, n: answer(c, DATA)) as server,
        HostileServer(lambda c, r, n: None) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.port}"
        proxies = Proxies(url, url, "127.0.0.0/8")
        assert read(server.secure_url(), proxies=proxies, trust_bundle=bundle(tmp_path, [leaf])) == DATA
    assert proxy.received == []


def test_credentials_may_have_bytes_that_are_not_utf_8(tmp_path: pathlib.Path) -> None:
    proxies = Proxies(http="http://user:\udcff\udcfe@proxy.example.org:3128")
    proxy = proxies.choose(Url.parse("http://images.example.org/"))
    assert proxy is not None
    assert proxy.authorization == "Basic " + base64.b64encode(b"user:\xff\xfe").decode()
    hidden = Secrets.of_request(make_request(tmp_path / "pool", "http://images.example.org/", proxies=proxies))
    assert hidden.hide(proxy.authorization) == "Basic ***"
