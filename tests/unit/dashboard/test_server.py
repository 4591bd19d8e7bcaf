"""The server on a real socket: cookies, headers, pages, and live changes."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.unit.dashboard import support
from tests.world import dashboard as fleet

from directdownload.cluster import kinds
from directdownload.dashboard import guard, server
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.routes import Address, Page, resolve
from directdownload.dashboard.server import Server
from directdownload.dashboard.views.hosts import Events


class NoEvents:
    def known(self, host: str) -> Events:
        return Events(pending=False)

    async def refresh(self, host: str) -> None:
        pass


async def at_once(seconds: float) -> None:
    pass


class Served:
    def __init__(self, picture: Picture, server: Server, browser: aiohttp.ClientSession) -> None:
        self.picture, self.server, self.browser = picture, server, browser
        self.origin = f"http://127.0.0.1:{server.port}"

    async def enter(self) -> None:
        async with self.browser.get(self.server.address) as answer:
            assert answer.status == 200


@pytest_asyncio.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(server, "TICK_SECONDS", 0.05)
    picture = support.pictured([fleet.copy(0), fleet.copy(1, "Pending"), fleet.copy(2, "Pending")])
    running = Server(picture, NoEvents(), at_once, lambda: None)
    task = asyncio.create_task(running.run())
    # cookies of an address, which browsers keep as well
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        yield Served(picture, running, browser)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_token_becomes_a_cookie_and_leaves_the_address(served: Served) -> None:
    address = served.server.address
    async with served.browser.get(address, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    async with served.browser.get(served.origin) as answer:
        assert answer.status == 200
        assert "<h1>Fleet</h1>" in await answer.text()
    async with aiohttp.ClientSession() as other, other.get(address) as answer:
        assert answer.status == 403
    assert served.server.address != address


@pytest.mark.parametrize("path", ["/", support.ROLLOUT, "/static/live.js", "/live?page=/", "/nothing", "/?token=x"])
async def test_without_the_cookie_nothing_is_shown(served: Served, path: str) -> None:
    async with served.browser.get(served.origin + path) as answer:
        text = await answer.text()
        assert answer.status == 403
        assert "everywhere" not in text
        assert answer.headers["Content-Security-Policy"] == guard.HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}],
)
async def test_with_the_cookie_other_names_sites_and_origins_are_refused(
    served: Served, headers: dict[str, str]
) -> None:
    await served.enter()
    for path in ("/", "/live?page=/", served.server.address.removeprefix(served.origin)):
        async with served.browser.get(served.origin + path, headers=headers) as answer:
            assert answer.status == 403
            assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_but_reading_is_answered(served: Served, method: str) -> None:
    await served.enter()
    async with served.browser.request(method, served.origin) as answer:
        assert answer.status == 405


@pytest.mark.parametrize("path", [*support.PAGES, "/static/style.css", "/nothing", "/hosts/nothing", "/%2e%2e/etc"])
async def test_every_answer_has_the_headers_of_a_safe_page(served: Served, path: str) -> None:
    await served.enter()
    async with served.browser.get(served.origin + path) as answer:
        assert answer.status in (200, 404)
        assert {name: answer.headers[name] for name in guard.HEADERS} == dict(guard.HEADERS)


async def _event(answer: aiohttp.ClientResponse) -> str:
    """The next change."""
    while True:
        text = (await answer.content.readuntil(b"\n\n")).decode()
        if "event: change" in text:
            return text


async def test_a_change_reaches_an_open_page_and_one_that_comes_back(served: Served) -> None:
    await served.enter()
    async with served.browser.get(served.origin + support.ROLLOUT) as answer:
        text = await answer.text()
    version = text.partition('data-version="')[2].partition('"')[0]
    live = f"{served.origin}/live?page={support.ROLLOUT}&since={version}"
    async with served.browser.get(live) as stream:
        assert stream.content_type == "text/event-stream"
        support.put(served.picture, kinds.TEMPLATE_PLACEMENTS, fleet.copy(1, "Failed", message="broken"), 2)
        event = await _event(stream)
        assert fleet.host_name(1) in event
        assert "broken" in event
        seen = event.partition("id: ")[2].partition("\n")[0]
    support.put(served.picture, kinds.TEMPLATE_PLACEMENTS, fleet.copy(2), 3)
    async with served.browser.get(live, headers={"Last-Event-ID": seen}) as stream:
        event = await _event(stream)
        assert f'"r":["{fleet.host_name(2)}"]' in event
        assert '"broken"' not in event


async def test_two_pages_of_one_address_are_one_channel(served: Served) -> None:
    await served.enter()
    for _ in range(3):
        async with served.browser.get(served.origin + support.ROLLOUT) as answer:
            await answer.read()
    assert list(served.server._followed) == ["/", support.ROLLOUT]


async def test_a_browser_that_leaves_at_once_is_no_defect(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await served.enter()
    left = asyncio.Event()

    async def gone(_: web.StreamResponse, __: web.BaseRequest) -> None:
        left.set()
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(web.StreamResponse, "prepare", gone)
    with pytest.raises(aiohttp.ClientError):
        await served.browser.get(f"{served.origin}/live?page=/")
    assert left.is_set()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_the_server_ends_while_pages_are_open(served: Served) -> None:
    await served.enter()
    stream = await served.browser.get(f"{served.origin}/live?page=/&since=x")
    await _event(stream)
    for task in [each for each in asyncio.all_tasks() if "Server.run" in repr(each)]:
        task.cancel()
        await asyncio.wait_for(asyncio.wait([task]), 10)
    stream.close()


async def test_a_page_that_cannot_be_shown_holds_no_other(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await served.enter()

    def wrong(picture: Picture, address: Address, now: datetime.datetime, events: Events) -> Page | None:
        if address.path == "/hosts":
            raise ZeroDivisionError
        return resolve(picture, address, now, events)

    broken = await served.browser.get(f"{served.origin}/live?page=/hosts&since=x")
    good = await served.browser.get(f"{served.origin}/live?page={support.ROLLOUT}&since=x")
    for stream in (broken, good):
        await _event(stream)
    monkeypatch.setattr(server, "resolve", wrong)
    support.put(served.picture, kinds.TEMPLATE_PLACEMENTS, fleet.copy(1), 2)
    assert "unexpected ZeroDivisionError" in await _event(broken)
    assert "2 of 3 ready" in await _event(good)
    for stream in (broken, good):
        stream.close()
    async with served.browser.get(served.origin + "/hosts") as answer:
        assert answer.status == 500
        assert "unexpected ZeroDivisionError" in await answer.text()
        assert {name: answer.headers[name] for name in guard.HEADERS} == dict(guard.HEADERS)


async def test_a_page_whose_object_goes_says_so(served: Served) -> None:
    await served.enter()
    async with served.browser.get(f"{served.origin}/live?page={support.ROLLOUT}&since=x") as stream:
        await _event(stream)
        served.picture.deployments.forget(f"{fleet.NAMESPACE}/everywhere", 9)
        assert "does not exist any more" in await _event(stream)
