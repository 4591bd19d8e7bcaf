"""Two agents with one state directory, as of two releases on one node: real processes against a real kube-apiserver."""

import asyncio
import pathlib
import signal
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_world, certificates
from tests.world.agent_world import HealthPort, World
from tests.world.waiting import until_async

from directdownload.resources import pem


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        yield made


class Other(HealthPort):
    """The health port of a second agent."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def waits(self) -> bool:
        status, text = await self.answer("readyz")
        return status == 500 and "another agent" in text


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_second_agent_does_nothing_until_the_first_has_ended(world: World, how: signal.Signals) -> None:
    await world.create_host()
    await world.create_zone()
    await world.create_pool("local")
    other = Other()
    with agent_world.quick_process(world, pod_name="agent-1", pod_namespace="team-a") as first:
        await until_async("the first", world.ready)
        with agent_world.quick_process(
            world, pod_name="agent-2", pod_namespace="team-b", health_port=other.port
        ) as second:
            await until_async("the second to wait", other.waits)
            text = (await other.answer("readyz"))[1]
            whom = f"pod team-a/agent-1 on node {world.host}, process {first.pid};"
            assert f"the state directory {world.state} of this host: {whom}" in text
            assert await other.answer("healthz") == (200, "ok")
            # what one of them has to do, and the other must leave alone
            await world.create_certificate("ca", pem.parse(certificates.pem()))
            await world.prove(ca="Uploaded")
            assert await other.waits()
            assert "directdownload_api_requests_total{" not in (await other.answer("metrics"))[1], "it asks nothing"
            first.send_signal(how)
            await asyncio.to_thread(first.communicate, timeout=120)
            await until_async("the second to go on", other.ready)
            await world.create_pool("another")

            async def reported() -> bool:
                return set(await world.storage()) == {"local", "another"}

            await until_async("its report", reported)
            second.terminate()
            log = (await asyncio.to_thread(second.communicate, timeout=120))[1]
            assert second.returncode == 0
    assert log.count("another agent uses the state directory") == 1, log
    assert "is free: this agent uses it now" in log


async def test_an_agent_that_waits_ends_when_it_is_asked_to(world: World) -> None:
    other = Other()
    with agent_world.quick_process(world):
        await until_async("the first", world.ready)
        with agent_world.quick_process(world, health_port=other.port) as second:
            await until_async("the second to wait", other.waits)
            second.terminate()
            log = (await asyncio.to_thread(second.communicate, timeout=120))[1]
            assert second.returncode == 0, log
            assert await world.ready()
