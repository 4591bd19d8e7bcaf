"""An agent whose state directory is full: what it must remember first waits, all else is reported."""

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_files, agent_world
from tests.world.agent_world import World, sees
from tests.world.waiting import until_async

COMPLAINT = "copies are not reported before it can be written"


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        yield made


async def test_copies_wait_for_the_ledger_and_nothing_else_does(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    (known, known_uid), (new, new_uid) = [await world.create_placement(name, pool) for name in ("t1", "t2")]
    record = agent_files.publish(agent_files.make_place(pool, "t1", world.host), known, known_uid, b"x" * 10)
    with agent_world.quick_process(
        world, f"mount -t tmpfs -o size=32k state {world.state}", numbers_interval_seconds=0.5
    ) as agent:
        await until_async("the first copy", lambda: sees(world, known, present=True, revision=record.revision))
        state = pathlib.Path(f"/proc/{agent.pid}/root{world.state}")
        await until_async("it to be noted", lambda: _saved(world, 1))
        filler = state / "filler"
        fill(filler)
        place = agent_files.make_place(pool, "t2", world.host)
        agent_files.write_journal(place, new, new_uid, 250, progress_interval_seconds=0.1)
        await until_async("progress", lambda: agent_world.has(world, new, bytesDownloaded=250))
        fresh = agent_files.publish(place, new, new_uid, b"x" * 1000)
        await until_async("the gauge", lambda: _saved(world, 0))
        # findings are told, and what is known of the pool
        (pool / "t1").unlink()
        await until_async("the lost file", lambda: sees(world, known, present=False, revision=record.revision))
        await world.create_pool("another")

        async def reported() -> bool:
            return set(await world.storage()) == {"local", "another"}

        await until_async("the facts of another pool", reported)
        assert await world.ready()
        assert "observed" not in await world.status(new)
        filler.unlink()
        await until_async("the copy", lambda: sees(world, new, present=True, revision=fresh.revision))
        await until_async("the gauge", lambda: _saved(world, 1))
        agent.terminate()
        log = (await asyncio.to_thread(agent.communicate, timeout=120))[1]
    assert log.count(COMPLAINT) == 1, log
    assert log.count("placements.json again") == 1, log


def fill(path: pathlib.Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            return


async def _saved(world: World, value: int) -> bool:
    return f'directdownload_ledger_saved{{host="{world.host}"}} {value}.0' in (await world.answer("metrics"))[1]
