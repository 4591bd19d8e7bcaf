"""Health and metrics over real HTTP."""

import socket

import aiohttp
import prometheus_client
import pytest

import directdownload
from directdownload.observe import health


async def get(port: int, path: str, host: str = "127.0.0.1", **headers: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def test_checks_are_asked_at_every_request() -> None:
    illness: list[str | None] = [None]

    def broken() -> str | None:
        raise KeyError("x")

    checks = {"healthz": lambda: illness[0], "readyz": broken}
    async with health.HealthServer(0, checks=checks) as server:
        assert (await get(server.port, "/healthz"))[:2] == (200, "ok")
        illness[0] = "/pools/\udcff does not answer"
        assert (await get(server.port, "/healthz"))[:2] == (500, "/pools/\\xff does not answer")
        illness[0] = "nothing was listed for 3000 s"
        assert await get(server.port, "/healthz") == (500, "nothing was listed for 3000 s", "text/plain; charset=utf-8")
        status, text, _ = await get(server.port, "/readyz")
        assert (status, "KeyError" in text) == (500, True)
        assert (await get(server.port, "/other"))[0] == 404


async def test_metrics_tell_the_build_and_the_requests_to_the_api() -> None:
    async with health.HealthServer(0, checks={}) as server:
        health.count_request("apply", "things", 0)
        status, text, kind = await get(server.port, "/metrics")
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        assert f'directdownload_build_info{{version="{directdownload.__version__}"}} 1.0' in text
        assert 'directdownload_api_requests_total{code="0",resource="things",verb="apply"} 1.0' in text
        assert "openmetrics" in (await get(server.port, "/metrics", Accept="application/openmetrics-text"))[2]


async def test_a_registry_of_ones_own_shows_nothing_else() -> None:
    async with health.HealthServer(0, checks={}, registry=prometheus_client.CollectorRegistry()) as server:
        assert (await get(server.port, "/metrics"))[1] == ""


async def test_the_server_listens_until_stopped_and_on_ipv6_where_there_is_any() -> None:
    server = health.HealthServer(0, checks={"healthz": lambda: None})
    await server.start()
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pass  # a machine without IPv6 has nothing to listen on
    else:
        assert (await get(server.port, "/healthz", "[::1]"))[0] == 200
    await server.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(server.port, "/healthz")


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with health.HealthServer(0, checks={}) as server:
        with pytest.raises(OSError, match="in use"):
            await health.HealthServer(server.port, checks={}).start()
