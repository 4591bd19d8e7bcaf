"""A proxy before the API server that makes weather: what an API server, or something on the way to it, may do.

`Proxy` forwards to a real API server with the credentials of one user. Its `kubeconfig` is for the process under test;
the tests themselves, and what they simulate, go to the API server directly. It speaks plain HTTP and runs in a thread
of its own, so that synchronous tests can use it. Weather comes and goes while it runs: `fault` for the requests that a
predicate picks, `away` for a server that is not there at all. `calls` tells what was asked for, and when.
"""

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import random
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

import aiohttp
import yaml
from aiohttp import web
from tests.world import kube

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "host", "accept-encoding")
_ANSWER_SECONDS = 30
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request. `verb` and `resource` are the words of RBAC; `at` is in monotonic seconds."""

    at: float
    verb: str
    resource: str
    name: str
    subresource: str

    @property
    def writes(self) -> bool:
        return self.verb in _VERBS.values()


def _call(request: web.BaseRequest, body: bytes) -> Call:
    parts = request.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    if request.method == "POST":
        name = str(json.loads(body)["metadata"]["name"])
    read = "watch" if "watch" in request.query else "get" if name or not resource else "list"
    return Call(time.monotonic(), _VERBS.get(request.method, read), resource, name, subresource)


Matches = Callable[[Call], bool]


def everything(_: Call) -> bool:
    return True


def but_leases(call: Call) -> bool:
    """All but the leader election: without its Lease a controller leaves, which is weather of its own."""
    return call.resource != "leases"


def writes(call: Call) -> bool:
    return call.writes and but_leases(call)


def watches(call: Call) -> bool:
    return call.verb == "watch"


def of(*resources: str) -> Matches:
    return lambda call: call.resource in resources


def every_other(matches: Matches) -> Matches:
    """Of those that match the first, third, … for each verb and object: the next try goes through."""
    refused: set[tuple[str, str, str, str]] = set()

    def odd(call: Call) -> bool:
        key = (call.verb, call.resource, call.name, call.subresource)
        if matches(call):
            refused.symmetric_difference_update({key})
            return key in refused
        return False

    return odd


def some(share: float, seed: int, matches: Matches = everything) -> Matches:
    """A `share` of those that match, drawn by `seed`."""
    dice = random.Random(seed)
    return lambda call: matches(call) and dice.random() < share


class Exchange:
    """A request that was read, with what a fault may do about it."""

    def __init__(self, call: Call, request: web.BaseRequest, body: bytes, upstream: aiohttp.ClientSession) -> None:
        self.call = call
        self._request = request
        self._body = body
        self._upstream = upstream

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """The real answer, its body unread."""
        headers = {k: v for k, v in self._request.headers.items() if k.lower() not in _HOP_BY_HOP}
        target, body = self._request.path_qs, self._body or None
        async with self._upstream.request(self._request.method, target, headers=headers, data=body) as answer:
            yield answer

    async def begun(self, answer: aiohttp.ClientResponse, length: int | None = None) -> web.StreamResponse:
        """The beginning of our answer; what is written to it goes to the client at once."""
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        for name in ("Retry-After", "Warning"):
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        if length is not None:
            response.content_length = length
        await response.prepare(self._request)
        return response

    async def forward(self) -> web.StreamResponse:
        """What happens in good weather."""
        async with self.asked() as answer:
            if self.call.verb != "watch":
                body = await answer.read()
                response = await self.begun(answer, len(body))
                await response.write(body)
                return response
            response = await self.begun(answer)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        await response.write_eof()
        return response

    def abort(self) -> web.StreamResponse:
        """Ends the connection without another word."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return web.Response()

    async def answer(self, document: kube.Object, headers: dict[str, str]) -> web.StreamResponse:
        text = json.dumps(document)
        return web.Response(status=document["code"], text=text, content_type="application/json", headers=headers)


Fault = Callable[[Exchange], Awaitable[web.StreamResponse]]


def _status(code: int, reason: str, message: str = "weather") -> kube.Object:
    status = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
    return {**status, "reason": reason, "code": code, "message": message}


def refusal(code: int, reason: str, retry_after: int | None = None) -> Fault:
    """Answers with an error instead of asking the API server."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return lambda exchange: exchange.answer(_status(code, reason), headers)


def slow(seconds: float) -> Fault:
    """The API server takes its time to begin an answer."""

    async def wait(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await exchange.forward()

    return wait


async def hang(_: Exchange) -> web.StreamResponse:
    """Takes the request and never answers."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def swallow(seconds: float = 0.0) -> Fault:
    """It is done on the server; the answer is lost on the way back, `seconds` later."""

    async def lose(exchange: Exchange) -> web.StreamResponse:
        async with exchange.asked() as answer:
            await answer.read()
        await asyncio.sleep(seconds)
        return exchange.abort()

    return lose


async def truncate(exchange: Exchange) -> web.StreamResponse:
    """It is done on the server; half of the answer arrives."""
    async with exchange.asked() as answer:
        body = await answer.read()
        response = await exchange.begun(answer, len(body))
        await response.write(body[: len(body) // 2])
    return exchange.abort()


async def halve(exchange: Exchange) -> web.StreamResponse:
    """The same, but nothing in HTTP tells that something is missing."""
    async with exchange.asked() as answer:
        body = await answer.read()
        response = await exchange.begun(answer, len(body) // 2)
        await response.write(body[: len(body) // 2])
    return response


def cut(seconds: float, *, politely: bool = False) -> Fault:
    """Ends a watch after `seconds`, in the middle of an event; `politely`: by a proper end of the answer."""

    async def part(exchange: Exchange) -> web.StreamResponse:
        response = await _watched(exchange, seconds)
        await response.write(b'{"type":"MODIFIED","object":{"apiVers')
        return response if politely else exchange.abort()

    return part


def expire(seconds: float = 0.0) -> Fault:
    """Ends a watch after `seconds` with the event that its resourceVersion is too old."""
    event = {"type": "ERROR", "object": _status(410, "Expired", "too old resource version")}

    async def part(exchange: Exchange) -> web.StreamResponse:
        response = await _watched(exchange, seconds)
        await response.write(json.dumps(event).encode() + b"\n")
        return response

    return part


async def _watched(exchange: Exchange, seconds: float) -> web.StreamResponse:
    async with exchange.asked() as answer:
        response = await exchange.begun(answer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for line in answer.content:
                    await response.write(line)
    return response


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    fault: Fault
    matches: Matches
    hit: list[Call]


class Proxy:
    """Use it as a context manager. Where several faults match, the first that was set counts."""

    def __init__(self, kubeconfig: pathlib.Path, directory: pathlib.Path) -> None:
        """Forwards as the user of `kubeconfig`, whose own kubeconfig is made in `directory`."""
        self._config: kube.Object = yaml.safe_load(kubeconfig.read_text())
        #: every request that arrived, in order
        self.calls: list[Call] = []
        self._rules: tuple[_Rule, ...] = ()
        self._watching: set[Exchange] = set()
        self._failures: list[Exception] = []
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="weather", daemon=True)
        # Keeps the port while nothing listens on it: whoever connects then is refused.
        self._holder = _bound(0)
        self._port = self._holder.getsockname()[1]
        self.kubeconfig = directory / f"weather-{self._port}.kubeconfig"

    def __enter__(self) -> Self:
        cluster = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}
        config = {**self._config, "clusters": [cluster], "users": [{"name": "test", "user": {}}]}
        self.kubeconfig.write_text(yaml.safe_dump(config))
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_ANSWER_SECONDS)
        self._loop.close()
        self._holder.close()
        if self._failures:
            raise self._failures[0]

    @contextlib.contextmanager
    def fault(self, fault: Fault, matches: Matches = everything) -> Iterator[list[Call]]:
        """`fault` instead of an answer, for requests that match: those are listed. Running watches go on: see `cut`."""
        rule = _Rule(fault, matches, [])
        # A tuple that is replaced as a whole: the other thread sees the one or the other.
        self._rules += (rule,)
        try:
            yield rule.hit
        finally:
            self._rules = tuple(other for other in self._rules if other is not rule)

    def cut(self) -> None:
        """Ends all watches that run."""
        self._run(self._cut())

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """No API server: connections are reset, new ones refused."""
        self._run(self._leave())
        try:
            yield
        finally:
            self._run(self._listen())

    def count(self, matches: Matches = everything, since: float = 0.0) -> int:
        """Requests that arrived after `since` (monotonic seconds)."""
        return sum(1 for call in list(self.calls) if call.at >= since and matches(call))

    # --- inside the thread

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_ANSWER_SECONDS)

    async def _start(self) -> None:
        server = self._config["clusters"][0]["cluster"]["server"]
        connector = aiohttp.TCPConnector(ssl=kube.tls_context(self._config), limit=0, socket_factory=self._socket)
        # The API server's own time limits are the only ones.
        unbounded = aiohttp.ClientTimeout(total=None)
        self._upstream = aiohttp.ClientSession(server, connector=connector, timeout=unbounded, read_bufsize=2**22)
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        await self._listen()

    async def _stop(self) -> None:
        await self._leave()
        await self._upstream.close()
        # Their TLS farewells take time that nobody has; the loop drops what is shut.
        for sock in self._open_sockets():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        while self._open_sockets() or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - sockets set no event
            await asyncio.sleep(0.01)

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    def _open_sockets(self) -> list[socket.socket]:
        return [sock for sock in self._sockets if sock.fileno() >= 0]

    async def _listen(self) -> None:
        self._listener = await self._loop.create_server(self._server, sock=_bound(self._port))

    async def _leave(self) -> None:
        self._listener.close()
        for connection in list(self._server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._server.shutdown(timeout=1)

    async def _cut(self) -> None:
        for exchange in self._watching:
            exchange.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        call = _call(request, body)
        self.calls.append(call)
        exchange = Exchange(call, request, body, self._upstream)
        rule = next((rule for rule in self._rules if rule.matches(call)), None)
        if rule is not None:
            rule.hit.append(call)
        if watches(call):
            self._watching.add(exchange)
        try:
            return await (rule.fault(exchange) if rule is not None else exchange.forward())
        except (ConnectionError, aiohttp.ClientError):
            # The client has gone, or the API server has.
            return exchange.abort()
        except Exception as error:
            self._failures.append(error)
            return exchange.abort()
        finally:
            self._watching.discard(exchange)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
