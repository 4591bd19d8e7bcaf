"""Metrics only for those whom the API server permits them: over TLS, with a bearer token.

Controller and agent start it if `--metrics-port` is given; `health` then serves no metrics. The rule is that of
controller-runtime's metrics filter and of kube-rbac-proxy: the cluster must accept the token, and its user must have
the right to `get` the non-resource URL `/metrics`.

Promises: a token is neither logged nor kept (its access is kept under its hash, for a minute at most); a caller
without a token costs no request; requests to the API server go one after the other, and few wait for them.
"""

import asyncio
import collections
import contextlib
import enum
import hashlib
import logging
import pathlib
import time
from collections.abc import Awaitable, Callable

import prometheus_client
from aiohttp import web

from directdownload.cluster import client, errors, reviews
from directdownload.observe import health
from directdownload.observe.servingcertificate import ServingCertificate

logger = logging.getLogger(__name__)

#: Also how long a withdrawn token or right still counts.
ALLOWED_SECONDS = 60.0
#: A new right counts soon.
REFUSED_SECONDS = 5.0
REMEMBERED = 256
#: Requests that wait for the API server's answer; more are refused.
WAITING = 16


class Access(enum.Enum):
    ALLOWED = 200
    UNAUTHENTICATED = 401
    FORBIDDEN = 403


#: For a token of which nothing is remembered.
Review = Callable[[str], Awaitable[Access]]


class BusyError(Exception):
    """Too many requests wait already."""


class Gate:
    """Remembers the access that `review` finds for a token. Refused tokens take no place from allowed ones."""

    def __init__(self, review: Review, clock: Callable[[], float] = time.monotonic) -> None:
        self._review = review
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0
        self._allowed: collections.OrderedDict[bytes, tuple[float, Access]] = collections.OrderedDict()
        self._refused: collections.OrderedDict[bytes, tuple[float, Access]] = collections.OrderedDict()

    async def judge(self, token: str) -> Access:
        """Raises BusyError, or an error of `review`: then nothing is remembered."""
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        access = self._remembered(key)
        if access is not None:
            return access
        if self._waiting >= WAITING:
            raise BusyError
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                # Another request with the same token may have asked meanwhile.
                access = self._remembered(key)
                if access is None:
                    access = await self._review(token)
                    self._remember(key, access)
        finally:
            self._waiting -= 1
        return access

    def _remembered(self, key: bytes) -> Access | None:
        for known in (self._allowed, self._refused):
            until, access = known.get(key, (0.0, Access.UNAUTHENTICATED))
            if self._clock() < until:
                return access
        return None

    def _remember(self, key: bytes, access: Access) -> None:
        allowed = access is Access.ALLOWED
        known, seconds = (self._allowed, ALLOWED_SECONDS) if allowed else (self._refused, REFUSED_SECONDS)
        known[key] = (self._clock() + seconds, access)
        known.move_to_end(key)
        while len(known) > REMEMBERED:
            known.popitem(last=False)


def asks(api: client.Api) -> Review:
    """The review by the API server."""

    async def review(token: str) -> Access:
        user = await reviews.user_of(api, token)
        if user is None:
            return Access.UNAUTHENTICATED
        return Access.ALLOWED if await reviews.may_get(api, user, "/metrics") else Access.FORBIDDEN

    return review


class ScrapeServer(health.Server):
    """Serves `GET /metrics` at `port` (0: a free one, in `port` once started) to callers that `gate` lets in.

    Raises OSError from `start` if the port is taken or the certificate cannot be used.
    """

    def __init__(
        self,
        port: int,
        *,
        gate: Gate,
        certificate: ServingCertificate,
        registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY,
    ) -> None:
        super().__init__(port)
        self._gate = gate
        self._certificate = certificate
        self._registry = registry
        self._following: asyncio.Task[None] | None = None
        self.application.router.add_get("/metrics", self._metrics, allow_head=False)

    async def start(self) -> None:
        self.tls = self._certificate.context
        self._certificate.refresh()
        await super().start()
        self._following = asyncio.create_task(self._certificate.follow())

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        await super().stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return _refusal(Access.UNAUTHENTICATED)
        try:
            access = await self._gate.judge(token)
        except BusyError:
            return web.Response(
                status=503, text="too many requests wait for the API server", headers={"Retry-After": "5"}
            )
        except errors.ApiError as error:
            logger.warning("Cannot ask the API server who may read metrics: %s", error)
            return web.Response(status=503, text="the API server cannot be asked", headers={"Retry-After": "5"})
        return await health.exposition_for(request, self._registry) if access is Access.ALLOWED else _refusal(access)


def _refusal(access: Access) -> web.Response:
    if access is Access.FORBIDDEN:
        return web.Response(status=403, text="this user may not get the non-resource URL /metrics")
    return web.Response(
        status=401, text="expected a bearer token that the cluster accepts", headers={"WWW-Authenticate": "Bearer"}
    )


@contextlib.asynccontextmanager
async def serving(
    api: client.Api, port: int | None, directory: pathlib.Path | None
) -> collections.abc.AsyncIterator[None]:
    """A ScrapeServer for as long as the block runs, or none if no `port` is given.

    `directory` holds `tls.crt` and `tls.key`; without it the certificate is self-signed.
    """
    if port is None:
        yield
        return
    server = ScrapeServer(port, gate=Gate(asks(api)), certificate=ServingCertificate(directory))
    async with server:
        logger.info("Serving metrics on port %d over TLS to users who may get /metrics", server.port)
        yield
