"""The HTTP server on 127.0.0.1: an edge of the room. Pages, their live changes, and the three files that they need.

Every request goes through `guard` first. A page waits a moment for the first view, then shows what is known.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import pathlib
import secrets
import socket
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from directdownload.dashboard import guard, live
from directdownload.dashboard.guard import Guard, Refusal
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.rendering import Renderer
from directdownload.dashboard.routes import Address, Page, resolve
from directdownload.dashboard.views import common
from directdownload.dashboard.views.hosts import Events

#: Changes are gathered for so long.
TICK_SECONDS = 1.0
#: A first page is shown after this, with what is known by then.
FIRST_VIEW_SECONDS = 0.8
#: Events of a host are asked for no longer than this before its page is shown.
_EVENTS_SECONDS = 0.5
_PING_SECONDS = 15.0
#: A page that nobody has followed for so long is forgotten: a browser that comes back later gets all of it.
KEEP_SECONDS = 120.0
#: Pages that are remembered at most.
_MOST_FOLLOWED = 64
_CLOSE_SECONDS = 1.0
_STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
#: Of a view, whatever the cluster serves: none may end the others.
_DEFECTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_GONE = "What this page shows does not exist any more, or may not be read any more."
_HERE = pathlib.Path(__file__).parent


class EventSource(Protocol):
    """The Events of hosts."""

    def known(self, host: str) -> Events: ...
    async def refresh(self, host: str) -> None:
        """Asks for them, unless that was done a moment ago. Raises nothing."""


@dataclasses.dataclass(slots=True)
class _Followed:
    """A page as browsers follow it; `changed` is another one after each change."""

    address: Address
    channel: live.Channel
    version: int = -1
    followers: int = 0
    last_used: float = 0.0
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Server:
    """`first_view` waits for the first lists, for so many seconds at most; `on_entry` hears that a browser has used
    the token. Raises OSError if the port is taken."""

    def __init__(
        self,
        picture: Picture,
        events: EventSource,
        first_view: Callable[[float], Awaitable[None]],
        on_entry: Callable[[], None],
        port: int = 0,
    ) -> None:
        self._picture = picture
        self._events = events
        self._first_view = first_view
        self._on_entry = on_entry
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._guard = Guard(self.port)
        self._renderer = Renderer()
        self._name = secrets.token_hex(4)
        #: version of the picture at the last sample of the history
        self._sampled = -1
        self._followed: dict[str, _Followed] = {}
        self._streams: set[asyncio.Task[object] | None] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._files = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC}

    @property
    def address(self) -> str:
        """For the next browser; good once."""
        return f"http://127.0.0.1:{self.port}/?token={self._guard.token}"

    async def run(self) -> None:
        """Serves until cancelled."""
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            while True:
                await asyncio.sleep(TICK_SECONDS)
                await self._tick()
        finally:
            for task in filter(None, (*self._streams, *self._tasks)):
                task.cancel()
            await runner.cleanup()

    # Changes

    async def _tick(self) -> None:
        """Once a second: what has changed goes to the pages that are followed."""
        if self._sampled != self._picture.version:
            with contextlib.suppress(*_DEFECTS):
                self._sample()
        now = time.monotonic()
        for text, followed in list(self._followed.items()):
            if followed.followers:
                followed.last_used = now
                if (host := followed.address.host) is not None:
                    # In the background: no page waits for the API server.
                    task = asyncio.create_task(self._events.refresh(host))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                if followed.version != self._picture.version:
                    self._refresh(followed)
                # A page of thousands of cells takes a while: others get their turn.
                await asyncio.sleep(0)
            elif now - followed.last_used > KEEP_SECONDS:
                del self._followed[text]

    def _sample(self) -> None:
        rows = ((each.key, common.progress(self._picture, each)) for each in self._picture.rollouts())
        self._picture.sample(_now(), {key: (progress.ready, progress.desired) for key, progress in rows})
        self._sampled = self._picture.version

    def _refresh(self, followed: _Followed) -> None:
        """Brings the channel up to date: one page that cannot be shown holds no other."""
        try:
            self._update(followed, self._page(followed.address))
        except _DEFECTS as error:
            self._told(followed, {"banner": self._renderer.banner(_defect(error))}, None)

    def _update(self, followed: _Followed, page: Page | None) -> None:
        """None: there is no such page (any more)."""
        parts = self._renderer.parts(page) if page is not None else {"banner": self._renderer.banner(_GONE)}
        self._told(followed, parts, page)

    def _told(self, followed: _Followed, parts: dict[str, str], page: Page | None) -> None:
        followed.version = self._picture.version
        if followed.channel.update(parts, page.map if page is not None else None):
            followed.changed.set()
            followed.changed = asyncio.Event()

    def _page(self, address: Address) -> Page | None:
        events = self._events.known(address.host) if address.host is not None else Events()
        return resolve(self._picture, address, _now(), events)

    def _following(self, address: Address) -> _Followed:
        found = self._followed.get(address.text)
        if found is None:
            idle = [text for text, each in self._followed.items() if not each.followers]
            if len(self._followed) >= _MOST_FOLLOWED and idle:
                del self._followed[idle[0]]
            found = self._followed[address.text] = _Followed(address, live.Channel(self._name))
        found.last_used = time.monotonic()
        return found

    # Requests

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        refusal = self._guard.refused(request.method, request.headers)
        if refusal is not None:
            return self._refused(refusal)
        address = Address.parse(request.rel_url.raw_path_qs)
        if address.path == "/" and (cookie := self._guard.redeemed(address.query.get("token"))) is not None:
            self._on_entry()
            # Without the token, which would else stay in the history.
            entered = web.Response(status=303, headers={**guard.HEADERS, "Location": "/"})
            entered.set_cookie(self._guard.cookie, cookie, httponly=True, samesite="Strict", path="/")
            return entered
        if not self._guard.known(request.cookies.get(self._guard.cookie)):
            return self._refused(self._guard.stranger())
        match address.segments:
            case ("static", name) if name in _STATIC:
                return web.Response(body=self._files[name], content_type=_STATIC[name], headers=guard.HEADERS)
            case ("live",):
                return await self._stream(request, address)
        try:
            return await self._document(address)
        except _DEFECTS as error:
            return self._refused(Refusal(500, (_defect(error),)))

    async def _document(self, address: Address) -> web.Response:
        await self._first_view(FIRST_VIEW_SECONDS)
        if address.host is not None and address.host in self._picture.hosts:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._events.refresh(address.host), _EVENTS_SECONDS)
        page = self._page(address)
        if page is None:
            return self._refused(Refusal(404, ("There is nothing here that you may see.", "Search for its name.")))
        followed = self._following(address)
        self._update(followed, page)
        version = followed.channel.version
        # A page of thousands of cells takes a while: others get their turn.
        await asyncio.sleep(0)
        live_address = f"/live?{urllib.parse.urlencode({'page': address.text})}"
        text = self._renderer.document(page, live_address, version, address.query)
        return self._html(200, text)

    async def _stream(self, request: web.Request, address: Address) -> web.StreamResponse:
        """Server-sent events: at once what a browser lacks, then each second what has changed."""
        followed = self._following(Address.parse(address.query.get("page", "/")))
        since = request.headers.get("Last-Event-ID") or address.query.get("since", "")
        response = web.StreamResponse(headers={**guard.HEADERS, "Content-Type": "text/event-stream"})
        task = asyncio.current_task()
        self._streams.add(task)
        followed.followers += 1
        try:
            await response.prepare(request)
            await response.write(f"retry: {live.RETRY_MILLISECONDS}\n\n".encode())
            if followed.version != self._picture.version:
                self._refresh(followed)
            while True:
                changed = followed.changed
                if event := followed.channel.event(since):
                    since = followed.channel.version
                    await response.write(event.encode())
                try:
                    await asyncio.wait_for(changed.wait(), _PING_SECONDS)
                except TimeoutError:
                    await response.write(b"event: ping\ndata:\n\n")
        except ConnectionError:
            # the browser has gone
            return response
        finally:
            followed.followers -= 1
            followed.last_used = time.monotonic()
            self._streams.discard(task)

    def _refused(self, refusal: Refusal) -> web.Response:
        return self._html(refusal.status, self._renderer.message("Not shown", *refusal.sentences))

    def _html(self, status: int, text: str) -> web.Response:
        return web.Response(status=status, text=text, content_type="text/html", headers=guard.HEADERS)


def _defect(error: Exception) -> str:
    return f"This page cannot be shown: unexpected {type(error).__name__}. This is a defect: please report it."


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
