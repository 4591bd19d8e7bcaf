"""Names that are no text, in a pool that others write to: the Host is reported all the same, against a real API."""

import asyncio
import os
import pathlib
import time
from collections.abc import AsyncIterator

import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_world
from tests.world.agent_world import World
from tests.world.cli_world import directdownload
from tests.world.waiting import until_async

from directdownload.resources.naming import WORK_DIRECTORY

#: No UTF-8, a control sequence, a character beyond U+FFFF, and one that turns the line around.
NAMES = (b"\xff.part", b"a\x1b[2J\n.part", "😀.part".encode(), "\u202egnp.part".encode())
SHOWN = ("\\xff.part", "a\\x1b[2J\\n.part", "😀.part", "\\u202egnp.part")
HOUR, DAY = 3600, 86_400


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        yield made


def leave(pool: pathlib.Path, *names: bytes, age_seconds: int = HOUR) -> None:
    work = os.fsencode(pool / WORK_DIRECTORY)
    os.makedirs(work, exist_ok=True)
    for name in names:
        path = os.path.join(work, name)
        with open(path, "wb") as file:
            file.write(b"x" * 5000)
        os.utime(path, (time.time() - age_seconds,) * 2)


async def unplaced(world: World, pool: str) -> set[str]:
    return {file["name"] for file in (await world.storage()).get(pool, {}).get("unplaced", ())}


async def pool_files(world: World, pool: str) -> str:
    command = ("--kubeconfig", str(world.kubeconfig), "pool", "files", f"{pool}-{world.id}")
    done = await asyncio.to_thread(directdownload, *command)
    assert done.returncode == 0, done
    return done.stdout


async def test_names_that_are_no_text_are_listed_escaped_and_keep_no_host_from_being_reported(world: World) -> None:
    await world.create_host()
    shared = await world.create_pool("shared", type="SharedMountPoint")
    local = await world.create_pool("local")
    leave(local, *NAMES)
    before = f"mount -t tmpfs -o size=1m pool {shared}"
    with agent_world.quick_process(world, before, numbers_interval_seconds=0.5) as agent:
        await until_async("ready: the Host was written", world.ready)
        listed = {f"{WORK_DIRECTORY}/{name}" for name in SHOWN}

        async def of(pool: str) -> bool:
            return await unplaced(world, pool) == listed

        await until_async("the files of the local pool", lambda: of("local"))
        # in the mount namespace of the agent, as another host leaves them there
        leave(pathlib.Path(f"/proc/{agent.pid}/root{shared}"), *NAMES)
        await until_async("the files of the shared pool", lambda: of("shared"))
        for pool in ("local", "shared"):
            text = await pool_files(world, pool)
            assert text.isascii() or text.replace("😀", "").isascii()
            for name in SHOWN[:3]:
                assert f"{WORK_DIRECTORY}/{name}" in text
        # what is done to a file is done by its true name
        os.utime(os.path.join(os.fsencode(local / WORK_DIRECTORY), NAMES[0]), (time.time() - 2 * DAY,) * 2)
        left = {f"{WORK_DIRECTORY}/{name}" for name in SHOWN[1:]}

        async def swept() -> bool:
            return await unplaced(world, "local") == left

        await until_async("the oldest to be removed", swept)
        assert NAMES[0] not in os.listdir(os.fsencode(local / WORK_DIRECTORY))
        agent.terminate()
        log = (await asyncio.to_thread(agent.communicate, timeout=120))[1]
    assert all(line.isprintable() for line in log.splitlines())
    assert "Cannot write" not in log, log
    assert "cannot write" not in log, log
    assert "removed files that belonged to no placement for a day: \\xff.part" in log
