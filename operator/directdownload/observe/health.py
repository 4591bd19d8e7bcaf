"""The small HTTP server beside the real work: health for the kubelet, metrics for Prometheus.

Controller and agent start it first and stop it last, so that it answers from process start, leading or not
(architecture, rule 13). Promises: a check that raises counts as a failed one, and is answered; nothing else is served.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

import prometheus_client
from aiohttp import web
from prometheus_client import exposition
from prometheus_client.core import Metric

import directdownload
from directdownload import escaping, slices
from directdownload.observe import catalogue

logger = logging.getLogger(__name__)

#: None: healthy; else the reason, as plain text for people.
Check = Callable[[], str | None]

# The start time of each counter, as a series of its own: nobody uses it, and it doubles their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # theirs
CATALOGUE = catalogue.Catalogue()
BUILD_INFO = CATALOGUE.gauge("build_info", "always 1; the version is the label", "version")
BUILD_INFO.labels(version=directdownload.__version__).set(1)
API_REQUESTS = CATALOGUE.counter(
    "api_requests_total", "requests to the Kubernetes API; code 0: no answer", "verb", "resource", "code"
)


def count_request(verb: str, resource: str, code: int) -> None:
    """`on_request` of `cluster.client.Api`."""
    API_REQUESTS.labels(verb=verb, resource=resource, code=str(code)).inc()


class Server:
    """Serves `application` on every address, IPv4 and (if the machine has it) IPv6, over TLS if `tls` is set.

    `port` 0 takes a free one, which `port` holds once started. Raises OSError from `start` if the port is taken.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.tls: ssl.SSLContext | None = None
        self.application = web.Application()
        self._runner = web.AppRunner(self.application, access_log=None, shutdown_timeout=1)

    async def start(self) -> None:
        sockets = _listen(self.port)
        self.port = sockets[0].getsockname()[1]
        await self._runner.setup()
        for listener in sockets:
            await web.SockSite(self._runner, listener, ssl_context=self.tls).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class HealthServer(Server):
    """Serves `GET /<name>` for each of `checks` (`healthz`, `readyz`), 200 or 500, and `GET /metrics` of `registry`.

    Without a registry it serves no metrics: then `scraping` does.
    """

    def __init__(
        self,
        port: int,
        *,
        checks: Mapping[str, Check],
        registry: prometheus_client.CollectorRegistry | None = prometheus_client.REGISTRY,
    ) -> None:
        super().__init__(port)
        for name, check in checks.items():
            self.application.router.add_get(f"/{name}", _handler(name, check))
        if registry is not None:
            self.application.router.add_get("/metrics", functools.partial(_metrics, registry))


async def _metrics(registry: prometheus_client.CollectorRegistry, request: web.Request) -> web.Response:
    return await exposition_for(request, registry)


class _Families:
    """What was collected, for an encoder that would collect it."""

    def __init__(self) -> None:
        self._found: list[Metric] = []

    def add(self, family: Metric) -> None:
        self._found.append(family)

    def collect(self) -> Iterator[Metric]:
        return iter(self._found)


async def exposition_for(request: web.Request, registry: prometheus_client.CollectorRegistry) -> web.Response:
    """The answer to a scrape, in the format that it asks for.

    Collectors read what belongs to the event loop, so they run in it, in slices: they yield where others may change
    that. The text of a large fleet takes longer, and is written by a thread.
    """
    encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
    families, collected = _Families(), slices.Slices()
    for family in registry.collect():
        families.add(family)
        await collected.give_way()
    body = await asyncio.to_thread(encode, families)
    return web.Response(body=body, headers={"Content-Type": content_type})


def _handler(name: str, check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            illness = check()
        except Exception as error:
            logger.exception("Check %s failed", name)
            illness = f"the check itself failed: {type(error).__name__}"
        return web.Response(status=500 if illness else 200, text=escaping.escaped(illness or "ok"))

    return handle


def _listen(port: int) -> list[socket.socket]:
    """Two sockets instead of one for both families, which `net.ipv6.bindv6only` and disabled IPv6 would break."""
    first = socket.create_server(("0.0.0.0", port), backlog=32)  # noqa: S104 - the kubelet and Prometheus come from outside
    sockets = [first]
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            sockets.append(socket.create_server(("::", first.getsockname()[1]), family=socket.AF_INET6, backlog=32))
    return sockets
