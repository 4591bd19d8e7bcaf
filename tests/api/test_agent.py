"""The agent against a real kube-apiserver: its Host, its pools, and placements with journals on disk."""

import asyncio
import logging
import os
import pathlib
import signal
import uuid
from collections.abc import AsyncIterator

import prometheus_client
import pytest
import pytest_asyncio
from tests.cluster import harness
from tests.world import agent_files, agent_world
from tests.world.agent_world import Object, World
from tests.world.waiting import until_async

import directdownload
from directdownload.agent.pools import prober
from directdownload.cluster import errors, kinds
from directdownload.resources.base import AGENT, CONTROLLER


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        yield made


async def test_an_agent_without_a_host_is_ready_and_reports_its_storage_once_there_is_one(world: World) -> None:
    await world.create_pool("local")
    await world.create_pool("shared", type="NetworkFilesystem")
    await world.create_pool("absent", path=f"{world.root}/absent")
    await world.create_pool("elsewhere", path="/srv/elsewhere")
    await world.create_pool("unselected", hostSelector={"matchLabels": {"disk": "ssd"}})
    async with agent_world.running(world.settings()):
        await until_async("ready without a Host", world.ready)
        created = await world.create_host()
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "Up",
            "message": "",
            "lastTransitionTime": agent_files.now(),
        }
        condition["lastTransitionTime"] = created["metadata"]["creationTimestamp"]
        body = {"metadata": {"name": world.host}, "status": {"state": "Up", "conditions": [condition]}}
        await world.api.apply(kinds.HOSTS, body, manager=CONTROLLER, subresource="status")
        storage = await until_async("storage at once, not with the next interval", world.storage)
        assert {name: facts.get("reason") for name, facts in storage.items()} == {
            "local": None,
            "shared": "NotMounted",
            "absent": "PathMissing",
            "elsewhere": "PathNotExposed",
        }
        local, state = storage["local"], os.statvfs(world.root)
        assert local["capacityBytes"] == state.f_blocks * state.f_frsize
        assert local["writable"] is local["mounted"] is True
        assert local["path"] == f"{world.root}/local"
        status = (await world.api.get(kinds.HOSTS, world.host))["status"]
        assert status["agentVersion"] == directdownload.__version__
        assert status["state"] == "Up"
        assert condition in status["conditions"], "the controller's condition stays beside the agent's"
        assert {each["type"] for each in status["conditions"]} == {"Ready", "KeystoreSynced"}

        # what changes in the cluster or on the disk is told by itself
        (world.root / "absent").mkdir()
        await world.api.delete(kinds.STORAGE_POOLS, f"elsewhere-{world.id}")
        label = {"metadata": {"labels": {"disk": "ssd"}}}
        await world.api.merge_patch(kinds.HOSTS, world.host, label)

        async def changed() -> bool:
            now = await world.storage()
            return set(now) == {"local", "shared", "absent", "unselected"} and "reason" not in now["absent"]

        await until_async("pools that changed", changed)

        # another Host of the same name is told all again
        await world.api.delete(kinds.HOSTS, world.host)
        await world.create_host()
        await until_async("the new Host's storage", world.storage)


async def test_a_pool_over_its_budget_is_not_usable_and_the_others_are_served(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.create_host()
    crowded, served = await world.create_pool("crowded"), await world.create_pool("served")
    work = pathlib.Path(agent_files.make_place(crowded, "t0", world.host).record).parent
    names = [work / f"{number}.record" for number in range(50)]
    for path in names:
        path.touch()
    name, uid = await world.create_placement("t1", served)
    agent_files.publish(agent_files.make_place(served, "t1", world.host), name, uid, b"x" * 1000)
    settings = world.settings(pool_budget=prober.Budget(names=49), facts_interval_seconds=0.2)

    async def reasons(expected: dict[str, str | None]) -> bool:
        found = await world.storage()
        return {pool: facts.get("reason") for pool, facts in found.items()} == expected

    with caplog.at_level(logging.INFO, "directdownload"):
        async with agent_world.running(settings):
            over: dict[str, str | None] = {"crowded": "PoolNotReady", "served": None}
            await until_async("the pool over its budget", lambda: reasons(over))
            await until_async("the other's copy", lambda: agent_world.sees(world, name, present=True))
            assert await reasons(over), "it stays so"
            names[0].unlink()
            within: dict[str, str | None] = {"crowded": None, "served": None}
            await until_async("both", lambda: reasons(within))
    pool, said = f"crowded-{world.id}", [record.getMessage() for record in caplog.records]
    assert said.count(f"Pool {pool} is within its budget again") == 1
    (why,) = [text for text in said if text.startswith(f"Pool {pool} is not usable")]
    assert f"{work} holds more than 49 names" in why
    assert "remove files that the product did not create" in why


async def test_a_journal_becomes_progress_and_a_record_the_end_of_it(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, uid = await world.create_placement("t1", pool)
    place = agent_files.make_place(pool, "t1", world.host)
    async with agent_world.running(world.settings()):
        await until_async("ready", world.ready)
        agent_files.write_journal(place, name, uid, 250, progress_interval_seconds=0.1)

        async def downloaded() -> int:
            progress: Object = (await world.status(name)).get("progress", {})
            return int(progress.get("bytesDownloaded", 0))

        await until_async("progress", downloaded)
        status = await world.status(name)
        assert status["progress"] | {"updatedTime": ""} == {
            "bytesDownloaded": 250,
            "downloaded": "250 B",
            "bytesTotal": 1000,
            "total": "1000 B",
            "bytesPerSecond": 0,
            "rate": "0 B/s",
            "percent": 25,
            "source": "images.example.org",
            "updatedTime": "",
        }
        assert (status["phase"], status["attempts"]) == ("Downloading", 1), "the controller's fields are its own"
        assert "observed" not in status

        known = agent_files.publish(place, name, uid, b"x" * 1000)

        async def complete() -> bool:
            return await downloaded() == 1000

        await until_async("the end", complete)
        status = await world.status(name)
        assert status["progress"]["percent"] == 100
        assert status["observed"].items() >= {"present": True, "sizeBytes": 1000, "revision": known.revision}.items()
        assert "changed" not in status["observed"]
        assert status["phase"] == "Downloading"

        os.utime(place.final, ns=(0, 10**18))
        await until_async(
            "the changed file",
            lambda: agent_world.sees(world, name, present=True, changed=True, revision=known.revision),
        )
        verified = known.model_copy(update={"mtime_ns": 10**18, "verified_time": agent_files.now()})
        verified.write(place.record)
        await until_async(
            "the verification", lambda: agent_world.sees(world, name, present=True, revision=verified.revision)
        )
        assert "changed" not in (await world.status(name))["observed"]

        os.unlink(place.final)
        await until_async(
            "the lost file", lambda: agent_world.sees(world, name, present=False, revision=verified.revision)
        )
        assert "progress" not in await world.status(name)
    managers = {
        (entry["manager"], entry.get("subresource"))
        for entry in (await world.api.get(kinds.TEMPLATE_PLACEMENTS, name))["metadata"]["managedFields"]
    }
    assert (AGENT, "status") in managers


async def test_progress_is_written_once_per_interval_of_the_journal_and_the_end_at_once(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    (name, uid), (other, other_uid) = [await world.create_placement(n, pool) for n in ("t1", "t2")]
    place, other_place = (agent_files.make_place(pool, n, world.host) for n in ("t1", "t2"))
    before = agent_world.applies()
    async with agent_world.running(world.settings()):
        agent_files.write_journal(place, name, uid, 100, progress_interval_seconds=3600)
        await until_async("first progress", lambda: agent_world.has(world, name, bytesDownloaded=100))
        agent_files.write_journal(place, name, uid, 200, progress_interval_seconds=3600)
        # told after the journal above was read: by then that one waits for its interval
        agent_files.write_journal(other_place, other, other_uid, 1, progress_interval_seconds=3600)
        await until_async("progress of the other", lambda: agent_world.has(world, other, bytesDownloaded=1))
        assert await agent_world.has(world, name, bytesDownloaded=100)
        await agent_world.wrote(before, 2)
        agent_files.publish(place, name, uid, b"x" * 1000)
        await until_async("the end", lambda: agent_world.has(world, name, bytesDownloaded=1000))
        await agent_world.wrote(before, 3)


async def test_a_restarted_agent_writes_nothing_again_and_leaves_alone_what_is_gone(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, uid = await world.create_placement("t1", pool)
    again, _ = await world.create_placement("t2", pool)
    gone = f"gone-{world.id}"
    agent_files.publish(agent_files.make_place(pool, "t1", world.host), name, uid, b"x" * 10)
    agent_files.publish(agent_files.make_place(pool, "t2", world.host), again, str(uuid.uuid4()), b"x" * 10)
    agent_files.publish(agent_files.make_place(pool, "t3", world.host), gone, str(uuid.uuid4()), b"x" * 10)
    before = agent_world.applies()
    async with agent_world.running(world.settings()):
        await agent_world.settled(world, **{name: "published", again: "published", gone: "gone"})
    await agent_world.wrote(before, 3)
    assert await agent_world.has(world, name, bytesDownloaded=10)
    assert await agent_world.has(world, again, bytesDownloaded=10), (
        "made anew since, it is the same copy: names are derived"
    )
    with pytest.raises(errors.NotFound):
        await world.api.get(kinds.TEMPLATE_PLACEMENTS, gone)

    late, late_uid = await world.create_placement("t4", pool)
    async with agent_world.running(world.settings()):
        await until_async("ready", world.ready)
        agent_files.publish(agent_files.make_place(pool, "t4", world.host), late, late_uid, b"x" * 10)
        await until_async("the new copy", lambda: agent_world.has(world, late, bytesDownloaded=10))
        # one write for the new copy, none for those known
        await agent_world.wrote(before, 4)


async def test_an_agent_that_may_not_write_says_so_once_and_goes_on_when_it_may(
    world: World, definitions: harness.ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    await world.create_host()
    await world.create_pool("local")
    watched = ("hosts", "storagepools", "zones", "directdownloadcertificates")
    reading, writing = agent_world.rule(["get", "list", "watch"], *watched), agent_world.rule(["patch"], "hosts/status")
    async with agent_world.restricted(world, definitions, [reading]) as allow:
        with caplog.at_level(logging.WARNING):
            async with agent_world.running(world.settings()):

                async def refused() -> bool:
                    return "cannot write the status of Host" in (await world.answer("readyz"))[1]

                await until_async("the refusal in the readiness", refused)
                assert (await world.answer("healthz"))[0] == 200

                async def tried_thrice() -> bool:
                    return _count_refused() >= 3

                await until_async("more tries", tried_thrice)
                await allow([reading, writing])
                await until_async("ready", world.ready)
                assert await world.storage()
        assert caplog.text.count("cannot write the status of Host") == 1


def _count_refused() -> float:
    sample = prometheus_client.REGISTRY.get_sample_value
    labels = {"verb": "apply", "resource": "hosts", "code": "403"}
    return sample("directdownload_api_requests_total", labels) or 0


async def test_the_process_answers_probes_and_ends_cleanly_when_told_to(world: World) -> None:
    await world.create_host()
    await world.create_pool("local")
    with agent_world.process(world) as agent:
        await until_async("ready", world.ready)
        assert await world.answer("healthz") == (200, "ok")
        metrics = (await world.answer("metrics"))[1]
        assert f'directdownload_build_info{{version="{directdownload.__version__}"}} 1.0' in metrics
        assert 'directdownload_api_requests_total{code="200",resource="hosts",verb="apply"}' in metrics
        agent.send_signal(signal.SIGTERM)
        log = (await asyncio.to_thread(agent.communicate, timeout=120))[1]
        assert agent.returncode == 0, log
        assert '"message": "Agent ends"' in log
        assert "Traceback" not in log
