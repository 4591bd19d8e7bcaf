"""Who may see a page."""

import pytest

from directdownload.dashboard.guard import HEADERS, Guard

OURS = {"Host": "127.0.0.1:8080"}


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080"])
def test_this_server_is_known_by_its_names(host: str) -> None:
    assert Guard(8080).refused("GET", {"Host": host, "Sec-Fetch-Site": "none"}) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1", "127.0.0.1:8081", "127.0.0.1:8080.evil.example", ""]
)
def test_another_host_header_is_refused(host: str) -> None:
    refusal = Guard(8080).refused("GET", {"Host": host})
    assert refusal is not None
    assert refusal.status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_a_request_that_another_site_caused_is_refused(site: str) -> None:
    assert Guard(8080).refused("GET", {**OURS, "Sec-Fetch-Site": site}) is not None


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8081", "https://127.0.0.1:8080"])
def test_another_origin_is_refused(origin: str) -> None:
    assert Guard(8080).refused("GET", {**OURS, "Origin": origin}) is not None


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"])
def test_what_is_not_reading_is_refused(method: str) -> None:
    refusal = Guard(8080).refused(method, OURS)
    assert refusal is not None
    assert refusal.status == 405


def test_a_token_is_good_once() -> None:
    guard = Guard(8080)
    token = guard.token
    cookie = guard.redeemed(token)
    assert cookie is not None
    assert guard.known(cookie)
    assert guard.redeemed(token) is None
    assert guard.redeemed(guard.token) == cookie
    assert guard.redeemed("") is None
    assert guard.redeemed(None) is None


@pytest.mark.parametrize("cookie", [None, "", "x", "ü"])
def test_without_the_cookie_nobody_is_known(cookie: str | None) -> None:
    assert not Guard(8080).known(cookie)


def test_bytes_that_are_no_text_are_no_cookie_and_no_token() -> None:
    assert not Guard(8080).known("\udcff")
    assert Guard(8080).redeemed("\udcff") is None


def test_two_servers_share_neither_cookie_nor_token() -> None:
    first, second = Guard(8080), Guard(8081)
    assert first.cookie != second.cookie
    assert second.redeemed(first.token) is None


def test_pages_load_only_from_this_server_and_are_not_framed() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
