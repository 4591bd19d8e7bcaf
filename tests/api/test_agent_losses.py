"""What the agent tells of copies that are lost, changed, left over or another host's, against a real kube-apiserver."""

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import yaml
from tests.cluster import harness
from tests.world import agent_files, agent_world, kube
from tests.world.agent_world import Object, World, remembered, sees, settled, wrote
from tests.world.waiting import until_async

from directdownload.cluster import client, errors, kinds
from directdownload.resources.base import CONTROLLER
from directdownload.resources.naming import WORK_DIRECTORY

DAY_SECONDS = 86_400


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    async with agent_world.one(definitions, tmp_path) as made:
        yield made


async def published(world: World, template: str, pool: pathlib.Path, **fields: Any) -> tuple[str, str]:
    """Name of a placement, and the revision of its copy, which is on disk."""
    name, uid = await world.create_placement(template, pool)
    known = agent_files.publish(agent_files.make_place(pool, template, world.host), name, uid, b"x" * 10, **fields)
    return name, known.revision


async def test_a_pool_that_was_wiped_is_told_once_and_for_good(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    (kept, kept_revision), (lost, lost_revision) = [await published(world, name, pool) for name in ("t1", "t2")]
    async with agent_world.running(world.settings()):
        for name, revision in ((kept, kept_revision), (lost, lost_revision)):
            await until_async("the copies", functools.partial(sees, world, name, present=True, revision=revision))
        before = agent_world.applies()
        shutil.rmtree(pool / WORK_DIRECTORY)
        os.unlink(pool / "t2")
        began = time.monotonic()
        await until_async("the lost file", lambda: sees(world, lost, present=False, revision=lost_revision))
        changed = {"present": True, "changed": True, "revision": kept_revision}
        await until_async("the file without record", lambda: sees(world, kept, **changed))
        assert time.monotonic() - began < 30
        assert "progress" not in await world.status(lost)
        await wrote(before, 2)
        await settled(world, **{kept: "published", lost: "published"})
    before = agent_world.applies()
    late, _ = await world.create_placement("t3", pool)
    async with agent_world.running(world.settings()):
        # told after all that is known from before
        agent_files.publish(agent_files.make_place(pool, "t3", world.host), late, str(uuid.uuid4()), b"x" * 10)
        await until_async("a new copy", lambda: sees(world, late, present=True))
        await wrote(before, 1)
    assert set(remembered(world)) == {kept, lost, late}


async def test_what_was_lost_while_no_agent_ran_is_told_by_the_next(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, revision = await published(world, "t1", pool)
    async with agent_world.running(world.settings()):
        await until_async("the copy", lambda: sees(world, name, present=True))
    shutil.rmtree(pool)
    pool.mkdir()
    before = agent_world.applies()
    async with agent_world.running(world.settings()):
        await until_async("the loss", lambda: sees(world, name, present=False, revision=revision))
        await wrote(before, 1)
        place = agent_files.make_place(pool, "t1", world.host)
        uid = (await world.api.get(kinds.TEMPLATE_PLACEMENTS, name))["metadata"]["uid"]
        again = agent_files.publish(place, name, uid, b"x" * 10)
        await until_async("the repair", lambda: sees(world, name, present=True, revision=again.revision))


async def test_what_was_told_is_remembered_although_the_answer_never_came(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, revision = await published(world, "t1", pool)
    apply = client.Api.apply

    async def unanswered(api: client.Api, kind: kinds.Resource, *arguments: Any, **options: Any) -> Object:
        answer = await apply(api, kind, *arguments, **options)
        if kind == kinds.TEMPLATE_PLACEMENTS:
            await asyncio.Event().wait()
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(client.Api, "apply", unanswered)
        async with agent_world.running(world.settings()):
            await until_async("the copy", lambda: sees(world, name, present=True))
    shutil.rmtree(pool)
    pool.mkdir()
    async with agent_world.running(world.settings()):
        await until_async("the loss", lambda: sees(world, name, present=False, revision=revision))


async def test_a_removed_copy_is_forgotten_with_one_needless_write_at_most(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    (quick, _), (slow, _) = [await published(world, name, pool) for name in ("t1", "t2")]
    async with agent_world.running(world.settings()):
        for name in (quick, slow):
            await until_async("the copies", functools.partial(sees, world, name, present=True))
        before = agent_world.applies()
        for template in ("t1", "t2"):
            os.unlink(pool / template)
            os.unlink(pool / WORK_DIRECTORY / f"{template}.record")
        # the controller is faster than the agent with the one, and slower with the other
        await world.api.delete(kinds.TEMPLATE_PLACEMENTS, quick)
        await until_async("the slow one", lambda: sees(world, slow, present=False))
        await world.api.delete(kinds.TEMPLATE_PLACEMENTS, slow)

        async def forgotten() -> bool:
            return remembered(world) == {}

        await until_async("nothing of them is left", forgotten)
        assert agent_world.applies() - before <= 2
        for name in (quick, slow):
            with pytest.raises(errors.NotFound):
                await world.api.get(kinds.TEMPLATE_PLACEMENTS, name)


@pytest.mark.parametrize("kind", ["Filesystem", "SharedMountPoint"])
async def test_an_unmounted_pool_has_lost_nothing(world: World, kind: str) -> None:
    await world.create_host()
    pool = await world.create_pool("disk", type=kind)
    name, uid = await world.create_placement("t1", pool)
    # facts are asked for seldom: whoever looks for the files in between must see that another file system lies there
    mount = f"mount -t tmpfs -o size=1m disk {pool}"
    with agent_world.quick_process(world, mount, facts_interval_seconds=60) as agent:
        await until_async("ready", world.ready)
        assert "reason" not in (await world.storage())["disk"]
        inside = pathlib.Path(f"/proc/{agent.pid}/root{pool}")
        known = agent_files.publish(
            agent_files.make_place(inside, "t1", world.host), name, uid, b"x" * 10, path=f"{pool}/t1"
        )
        await until_async("the copy", lambda: sees(world, name, present=True, revision=known.revision))
        command = ["nsenter", "-t", str(agent.pid), "-m", "umount", str(pool)]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=120)

        async def unmounted() -> bool:
            return (await world.storage())["disk"].get("reason") == "NotMounted"

        await until_async("the unmounted pool", unmounted)
        await told_more(world, pool)
        assert await sees(world, name, present=True, revision=known.revision)
        agent.send_signal(signal.SIGTERM)
        await asyncio.to_thread(agent.communicate, timeout=120)
    # started on a host that did not mount its disk again
    with agent_world.quick_process(world):
        await until_async("ready", world.ready)
        await until_async("the unmounted pool", unmounted)
        await told_more(world, pool)
        assert (await world.storage())["disk"]["mounted"] is False
        assert await sees(world, name, present=True, revision=known.revision)
        if kind == "Filesystem":
            await world.api.delete(kinds.TEMPLATE_PLACEMENTS, name)

            async def usable() -> bool:
                return "reason" not in (await world.storage())["disk"]

            await until_async("the directory below, as nobody misses anything", usable)


async def test_a_disk_that_goes_before_copies_lay_on_it_is_not_missed(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("disk")
    with agent_world.quick_process(world, f"mount -t tmpfs -o size=1m disk {pool}") as agent:
        await until_async("ready", world.ready)
        assert (await world.storage())["disk"]["capacityBytes"] == 1024**2
        command = ["nsenter", "-t", str(agent.pid), "-m", "umount", str(pool)]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=120)

        async def below() -> bool:
            storage = (await world.storage())["disk"]
            return storage.get("capacityBytes", 0) > 1024**2 and "reason" not in storage

        await until_async("the disk below", below)


async def told_more(world: World, pool: pathlib.Path) -> None:
    """Long enough for a loss to be told, had there been one: another pool shows what the agent does meanwhile."""
    other = await world.create_pool(f"other-{uuid.uuid4().hex[:4]}")
    name, _ = await published(world, f"t-{other.name}", other)
    await until_async("a copy elsewhere", lambda: sees(world, name, present=True))
    shutil.rmtree(other / WORK_DIRECTORY)
    await until_async("a loss elsewhere", lambda: sees(world, name, changed=True))


async def test_a_hung_pool_freezes_itself_only(world: World) -> None:
    await world.create_host()
    hung, fine = [await world.create_pool(name) for name in ("hung", "fine")]
    (stuck, revision), (going, _) = [await published(world, name, pool) for name, pool in (("t1", hung), ("t2", fine))]
    async with agent_world.running(world.settings(pool_timeout_seconds=2)):
        for name in (stuck, going):
            await until_async("the copies", functools.partial(sees, world, name, present=True))
        stopped = child(hung)
        os.kill(stopped, signal.SIGSTOP)
        os.unlink(hung / "t1")
        for number in range(3):
            os.utime(fine / "t2", ns=(0, (number + 1) * 10**18))
            mtime = mtime_of(fine / "t2")
            await until_async("changes of the other pool", functools.partial(sees, world, going, mtime=mtime))
        assert (await world.answer("healthz"))[0] == 200
        await until_async(
            "the pool is back, and what it lost", lambda: sees(world, stuck, present=False, revision=revision)
        )
        assert child(hung) != stopped


def mtime_of(path: pathlib.Path) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime))


def child(pool: pathlib.Path) -> int:
    """The process that this one's agent has for `pool`."""
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (found,) = [
        int(pid)
        for pid in children
        if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2:-1] == [os.fsencode(pool)]
    ]
    return found


async def test_files_without_a_placement_are_listed_and_only_leftovers_are_swept(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    (placed, _), (retained, _) = [await published(world, name, pool) for name in ("t1", "t2")]
    (pool / "t2").chmod(0o600)
    waiting, waiting_uid = await world.create_placement("t3", pool)
    old = time.time() - 2 * DAY_SECONDS
    work = pool / WORK_DIRECTORY

    def left(template: str, *, seconds: float, journal_of: tuple[str, str] | None = None) -> list[pathlib.Path]:
        """What an ended download of `template` left behind so long ago."""
        place = agent_files.make_place(pool, template, world.host)
        pathlib.Path(place.part).write_bytes(b"x" * 5000)
        made = [pathlib.Path(place.part)]
        if journal_of is not None:
            agent_files.write_journal(place, *journal_of, 10)
            made.append(pathlib.Path(place.journal))
        for path in made:
            os.utime(path, (seconds, seconds))
        return made

    nobodys = left("t4", seconds=old)
    of_gone = left("t5", seconds=old, journal_of=(f"gone-{world.id}", "u5"))
    of_waiting = left("t3", seconds=old, journal_of=(waiting, waiting_uid))
    of_ready = left("t1", seconds=old, journal_of=(placed, "u1"))
    recent = left("t6", seconds=time.time() - 600)
    held = left("t7", seconds=old)
    foreign = [work / "notes.txt", pool / "vm.qcow2", pool / "t2.tmp"]
    temporary = [work / "t9.record.tmp"]
    for path in (*foreign, *temporary):
        path.write_bytes(b"x")
        os.utime(path, (old, old))
    ready = {"metadata": {"name": placed}, "status": {"phase": "Ready"}}
    await world.api.apply(kinds.TEMPLATE_PLACEMENTS, ready, manager=CONTROLLER, subresource="status")

    with held[0].open("rb") as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        async with agent_world.running(world.settings(numbers_interval_seconds=0.5)):

            async def swept() -> bool:
                return not any(path.exists() for path in (*nobodys, *of_gone, *of_ready, *temporary))

            await until_async("the sweep", swept)
            await until_async("nothing of the placed ones", lambda: lists(world))
            await world.api.delete(kinds.TEMPLATE_PLACEMENTS, retained)
            await until_async("the retained file", lambda: lists(world, "t2"))
            entry = next(f for f in (await world.storage())["local"]["unplaced"] if f["name"] == "t2")
            assert (entry["state"], entry["sizeBytes"]) == ("Published", 10)
            unplaced_bytes = (await world.storage())["local"]["unplacedBytes"]
            assert unplaced_bytes == 10 + recent[0].stat().st_blocks * 512
    for path in (*of_waiting, *recent, *held, *foreign, pool / "t1", pool / "t2", work / "t2.record"):
        assert path.exists(), path


async def lists(world: World, *published_files: str) -> bool:
    """Whether these, and the young part that nobody holds, are what belongs to nobody."""
    storage = (await world.storage()).get("local", {})
    found = {(file["name"], file["state"]) for file in storage.get("unplaced", [])}
    part = f"{WORK_DIRECTORY}/t6.{world.host}.part"
    return found == {(part, "Partial"), *((name, "Published") for name in published_files)}


@pytest.fixture(scope="module")
def fence(definitions: harness.ControlPlane) -> Iterator[tuple[str, str]]:
    """Namespace and name of the agent's service account, with the chart's rights and node fence."""
    release, namespace = f"r-{uuid.uuid4().hex[:8]}", f"operator-{uuid.uuid4().hex[:8]}"
    wanted = [
        each
        for each in yaml.safe_load_all(kube.rendered(release, namespace))
        if each and (each["metadata"]["name"].endswith(("-agent", "-node-fence"))) and each["kind"] != "DaemonSet"
    ]
    manifests = yaml.safe_dump_all(wanted)
    definitions.kubectl("create", "namespace", namespace, check=True)
    definitions.kubectl("apply", "-f", "-", input=manifests, check=True)
    yield namespace, f"{release}-direct-download-operator-agent"
    definitions.kubectl("delete", "--wait=false", "-f", "-", input=manifests, check=True)


@contextlib.contextmanager
def node(world: World, definitions: harness.ControlPlane, fence: tuple[str, str]) -> Iterator[None]:
    """The host's node, and a token of the agent that is bound to it."""
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": world.host}}
    definitions.kubectl("create", "-f", "-", input=json.dumps(body), check=True)
    token = definitions.service_account_token(fence[1], fence[0], node=world.host)
    world.kubeconfig = definitions.token_kubeconfig(token, world.host)
    try:
        yield
    finally:
        definitions.kubectl("delete", "node", world.host, check=True)


@pytest.mark.timeout(600)
async def test_on_a_shared_pool_each_agent_tells_of_its_own_placements_only(
    world: World, definitions: harness.ControlPlane, fence: tuple[str, str]
) -> None:
    await world.create_host()
    pool = await world.create_pool("shared", type="SharedMountPoint")
    mine, mine_uid = await world.create_placement("t1", pool)
    theirs, theirs_uid = await world.create_placement("t2", pool, host="another-host")
    moved, moved_uid = await world.create_placement("t3", pool, host="another-host")
    with (
        node(world, definitions, fence),
        agent_world.quick_process(
            world, f"mount -t tmpfs -o size=1m pool {pool}", check_interval_seconds=3600
        ) as agent,
    ):
        await until_async("ready", world.ready)
        assert "reason" not in (await world.storage())["shared"]
        # the pool as the agent's mount namespace has it
        inside = pathlib.Path(f"/proc/{agent.pid}/root{pool}")
        revisions = {}
        for template, name, uid, host in (
            ("t2", theirs, theirs_uid, "another-host"),
            # of the time before it was given to the other host
            ("t3", moved, moved_uid, world.host),
            ("t1", mine, mine_uid, world.host),
        ):
            place = agent_files.make_place(inside, template, host)
            revisions[name] = agent_files.publish(place, name, uid, b"x" * 10, path=f"{pool}/{template}").revision
        await until_async("our own", lambda: sees(world, mine, present=True, revision=revisions[mine]))

        async def left() -> bool:
            return remembered(world).get(moved, {}).get("outcome") == "foreign"

        await until_async("one that moved away is left to the other host", left)
        assert await asked(world, "get") == 0, "as long as nothing is wrong, nobody needs to know whose they are"

        for template in ("t1", "t2", "t3"):
            os.utime(inside / template, ns=(0, 10**18))
        await until_async("our own change", lambda: sees(world, mine, changed=True))

        async def read() -> bool:
            return await asked(world, "get") >= 2

        await until_async("the others are read", read)
        for name in (theirs, moved):
            assert set(await world.status(name)) == {"phase", "attempts"}
        for name in (theirs, moved):
            await world.api.merge_patch(kinds.TEMPLATE_PLACEMENTS, name, {"spec": {"host": world.host}})
        for name in (theirs, moved):
            expected = {"present": True, "changed": True, "revision": revisions[name]}
            await until_async("what was taken over", functools.partial(sees, world, name, **expected))


async def asked(world: World, verb: str) -> float:
    """How often the agent asked about placements."""
    line = f'directdownload_api_requests_total{{code="200",resource="templateplacements",verb="{verb}"}} '
    metrics = (await world.answer("metrics"))[1]
    return sum(float(each.removeprefix(line)) for each in metrics.splitlines() if each.startswith(line))


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_placement_that_is_gone_may_come_back(world: World, restarted: bool) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, _ = await published(world, "t1", pool)
    settings = world.settings(numbers_interval_seconds=0.5)

    async def listed(*names: str) -> bool:
        storage = (await world.storage()).get("local", {})
        return tuple(file["name"] for file in storage.get("unplaced", [])) == names

    async def deployed_again() -> None:
        before = agent_world.applies()
        await until_async("a file of nobody", lambda: listed("t1"))
        await world.create_placement("t1", pool)
        await until_async("not nobody's any more", listed)
        await until_async("told, as if for the first time", lambda: sees(world, name, present=True))
        await wrote(before, 1)

    async with agent_world.running(settings):
        await until_async("the copy", lambda: sees(world, name, present=True))
        await world.api.delete(kinds.TEMPLATE_PLACEMENTS, name)
        await until_async("a file of nobody", lambda: listed("t1"))
        await settled(world, **{name: "gone"})
        if not restarted:
            await deployed_again()
    if restarted:
        async with agent_world.running(settings):
            await deployed_again()
