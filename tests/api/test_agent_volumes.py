"""The agent with a CSI plugin, against a real kube-apiserver: from a pod's volume to its copy, and to its release."""

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_files, agent_world
from tests.world.agent_world import Object, World
from tests.world.plugin import Plugin, mounted, publish
from tests.world.waiting import until_async

from directdownload.cluster import kinds
from directdownload.resources.base import CONTROLLER
from directdownload.resources.volumes import Answer, Mounted, Unpublish

#: Longer than any test waits: what is answered earlier was answered for another reason.
LONG = 250


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        yield made


def socket_of(world: World) -> pathlib.Path:
    return world.root.parent / "csi.sock"


async def demanded(world: World, **fields: object) -> Object:
    """The one demand, once it is so."""

    async def found() -> Object | None:
        demands: list[Object] = (await world.host_status()).get("demands", [])
        return demands[0] if len(demands) == 1 and fields.items() <= demands[0].items() else None

    demand: Object = await until_async(f"a demand with {fields}", found)
    return demand


async def serve(world: World, demand: Object, state: str, **fields: object) -> None:
    """Answers as the controller does."""
    answer = {key: demand[key] for key in ("namespace", "template", "uid", "since")}
    body = {"metadata": {"name": world.host}, "status": {"served": [{**answer, "state": state, **fields}]}}
    await world.api.apply(kinds.HOSTS, body, manager=CONTROLLER, subresource="status")


async def test_a_volume_waits_for_its_copy_and_its_demand_for_its_release(world: World) -> None:
    pool = await world.create_pool("local")
    await world.create_host()
    plugin = Plugin(socket_of(world))
    async with agent_world.running(world.settings(csi_socket=str(plugin.path), first_answer_seconds=LONG)):
        await until_async("the socket", plugin.path.exists)
        await until_async("ready without a word of the plugin", world.ready)
        assert await plugin.ask(Mounted(())) == Answer()

        first = asyncio.ensure_future(plugin.ask(publish()))
        demand = await demanded(world, namespace="web", template="debian-13", uid="", volumes=1)
        assert "lastUsedTime" not in demand
        uid = "t1"
        placement, placement_uid = await world.create_placement(uid, pool)
        place = agent_files.make_place(pool, uid, world.host)
        agent_files.write_journal(place, placement, placement_uid, 250)
        await until_async("progress", lambda: agent_world.has(world, placement, bytesDownloaded=250))
        await serve(world, demand, "Waiting", templateUID=uid, reason="Downloading", message="downloading")
        assert await first == Answer(
            "Waiting",
            reason="Downloading",
            message="waiting for Template debian-13 (250 of 1000 B): downloading",
        )

        held = asyncio.ensure_future(plugin.ask(publish(hold_seconds=LONG)))
        await serve(world, demand, "Ready", templateUID=uid, path=f"{pool}/{uid}")
        assert await held == Answer("Ready", path=f"{pool}/{uid}", uid=uid)
        demand = await demanded(world, uid=uid, volumes=1)

        assert await plugin.ask(Mounted((mounted(uid=uid),))) == Answer()
        assert await plugin.ask(Unpublish("v1")) == Answer()
        left = await demanded(world, uid=uid, volumes=0)
        assert left["since"] == demand["since"]
        assert left["lastUsedTime"] >= left["since"]
        await serve(world, left, "Released")

        async def released() -> bool:
            demands: list[Object] = (await world.host_status())["demands"]
            return not demands

        await until_async("no demand", released)


async def test_demands_outlive_agent_ledger_and_host(world: World) -> None:
    pool = await world.create_pool("local")
    await world.create_host()
    plugin = Plugin(socket_of(world))
    settings = world.settings(csi_socket=str(plugin.path), first_answer_seconds=LONG)
    async with agent_world.running(settings):
        await until_async("the socket", plugin.path.exists)
        first = asyncio.ensure_future(plugin.ask(publish()))
        demand = await demanded(world, uid="", volumes=1)
        await serve(world, demand, "Ready", templateUID="t1", path=f"{pool}/t1")
        assert (await first).state == "Ready"
        demand = await demanded(world, uid="t1", volumes=1)
    (world.state / "volumes.json").unlink()
    before = agent_world.applies("hosts")
    async with agent_world.running(settings):
        await until_async("ready", world.ready)
        assert agent_world.applies("hosts") > before
        assert await demanded(world) == demand, "as the Host had it, before the plugin speaks"
        assert await plugin.ask(Mounted((mounted(uid="t1"),))) == Answer()
        assert await demanded(world) == demand
        await world.api.delete(kinds.HOSTS, world.host)
        await world.create_host()
        assert await demanded(world, uid="t1", volumes=1) == demand


async def test_an_agent_whose_socket_has_no_directory_works_without_volumes(world: World) -> None:
    await world.create_pool("local")
    await world.create_host()
    absent = world.root.parent / "absent"
    async with agent_world.running(world.settings(csi_socket=str(absent / "csi.sock"))):
        await until_async("ready", world.ready)
        assert (await world.host_status())["demands"] == []
        absent.mkdir()
        plugin = Plugin(absent / "csi.sock")
        await until_async("the socket", plugin.path.exists)
        assert await plugin.ask(Unpublish("v1")) == Answer()


async def test_an_agent_without_a_plugin_reports_no_demands(world: World) -> None:
    await world.create_host()
    async with agent_world.running(world.settings()):
        await until_async("ready", world.ready)
        assert "demands" not in await world.host_status()
