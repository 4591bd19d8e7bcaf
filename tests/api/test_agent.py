"""The agent against a real kube-apiserver: its Host, its pools, and placements with journals on disk."""

import asyncio
import contextlib
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import prometheus_client
import pytest
import pytest_asyncio
from tests.api import kube
from tests.cluster import harness
from tests.unit.agent import support

import directdownload
from directdownload.agent import main
from directdownload.agent.settings import Settings
from directdownload.cluster import client, errors, kinds
from directdownload.resources.base import AGENT, CONTROLLER, GROUP

Object = dict[str, Any]


async def until(what: str, condition: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)
    return found


class World:
    """One host, its pools below one root, and what stands in the cluster about them; names of its own."""

    def __init__(self, api: client.Api, kubeconfig: pathlib.Path, directory: pathlib.Path) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.id = uuid.uuid4().hex[:8]
        self.host = f"kvm-{self.id}"
        self.zone = f"zone-{self.id}"
        self.root = directory / "root"
        self.state = directory / "state"
        self.root.mkdir()
        self.state.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def settings(self, **fields: Any) -> Settings:
        defaults: Object = {
            "node_name": self.host,
            "pool_roots": (f"{self.root}/",),
            "state_directory": str(self.state),
            "health_port": self.port,
            "kubeconfig": str(self.kubeconfig),
            "facts_interval_seconds": 0.5,
            "active_scan_seconds": 0.1,
            "idle_scan_seconds": 0.1,
            "observe_interval_seconds": 0.3,
        }
        return Settings(**{**defaults, **fields})

    async def create_host(self, labels: dict[str, str] | None = None) -> Object:
        body = kube.resource(kinds.HOSTS, self.host, {"nodeName": self.host, "zone": self.zone})
        body["metadata"]["labels"] = labels or {}
        return await self.api.create(kinds.HOSTS, body)

    async def create_pool(self, name: str, *, path: str | None = None, **spec: Any) -> pathlib.Path:
        """The pool's directory; made unless `path` is given."""
        directory = pathlib.Path(path or self.root / name)
        if path is None:
            os.makedirs(directory)
        spec = {"zone": self.zone, "path": str(directory), **spec}
        await self.api.create(kinds.STORAGE_POOLS, kube.resource(kinds.STORAGE_POOLS, f"{name}-{self.id}", spec))
        return directory

    async def create_placement(self, name: str, pool: pathlib.Path, **spec: Any) -> tuple[str, str]:
        """Name and uid; with a status as the controller writes it."""
        template = {"namespace": "default", "name": name, "uid": f"{name}-uid"}
        spec = {
            "templateRef": template,
            "zone": self.zone,
            "pool": f"{pool.name}-{self.id}",
            "host": self.host,
            "path": f"{pool}/{name}",
            **spec,
        }
        body = kube.resource(kinds.TEMPLATE_PLACEMENTS, f"{name}-{self.id}", spec)
        made = (await self.api.create(kinds.TEMPLATE_PLACEMENTS, body))["metadata"]
        status = {"metadata": {"name": made["name"]}, "status": {"phase": "Downloading", "attempts": 1}}
        await self.api.apply(kinds.TEMPLATE_PLACEMENTS, status, manager=CONTROLLER, subresource="status")
        return made["name"], made["uid"]

    async def status(self, placement: str) -> Object:
        status: Object = (await self.api.get(kinds.TEMPLATE_PLACEMENTS, placement)).get("status", {})
        return status

    async def storage(self) -> dict[str, Object]:
        """What the agent said of each pool, by its name here."""
        status = (await self.api.get(kinds.HOSTS, self.host)).get("status", {})
        return {facts["pool"].removesuffix(f"-{self.id}"): facts for facts in status.get("storage", [])}

    async def answer(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/{path}") as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientError as error:
            return 0, str(error)

    async def ready(self) -> bool:
        return (await self.answer("readyz"))[0] == 200

    async def clean(self) -> None:
        for kind in (kinds.TEMPLATE_PLACEMENTS, kinds.STORAGE_POOLS, kinds.HOSTS):
            for item in (await self.api.list(kind))[0]:
                if item["metadata"]["name"].endswith(self.id):
                    await self.api.delete(kind, item["metadata"]["name"])


@pytest.fixture(scope="module")
def definitions(control_plane: harness.ControlPlane) -> harness.ControlPlane:
    kube.install_definitions(control_plane)
    return control_plane


@pytest_asyncio.fixture
async def world(definitions: harness.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[World]:
    api = await client.Api.connect(kubeconfig=str(definitions.kubeconfig()))
    made = World(api, definitions.kubeconfig(), tmp_path)
    yield made
    await made.clean()
    await api.close()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """The agent in this process, told to end as the kubelet does."""
    task = asyncio.create_task(main.run(settings))
    try:
        await asyncio.sleep(0)
        yield
        assert not task.done(), "an agent runs for ever"
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(task, 10) == 0


def applies() -> float:
    """How often an agent of this process asked to write a placement."""
    labels = {"verb": "apply", "resource": "templateplacements"}
    samples = [s for m in prometheus_client.REGISTRY.collect() for s in m.samples]
    return sum(
        s.value for s in samples if s.name == "directdownload_api_requests_total" and labels.items() <= s.labels.items()
    )


async def test_an_agent_without_a_host_is_ready_and_reports_its_storage_once_there_is_one(world: World) -> None:
    await world.create_pool("local")
    await world.create_pool("shared", type="NetworkFilesystem")
    await world.create_pool("absent", path=f"{world.root}/absent")
    await world.create_pool("elsewhere", path="/srv/elsewhere")
    await world.create_pool("unselected", hostSelector={"matchLabels": {"disk": "ssd"}})
    async with running(world.settings()):
        await until("ready without a Host", world.ready)
        created = await world.create_host()
        began = time.monotonic()
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "Up",
            "message": "",
            "lastTransitionTime": support.now(),
        }
        condition["lastTransitionTime"] = created["metadata"]["creationTimestamp"]
        body = {"metadata": {"name": world.host}, "status": {"state": "Up", "conditions": [condition]}}
        await world.api.apply(kinds.HOSTS, body, manager=CONTROLLER, subresource="status")
        storage = await until("storage", world.storage)
        assert time.monotonic() - began < 3
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
        assert (status["state"], status["conditions"]) == ("Up", [condition])

        # what changes in the cluster or on the disk is told by itself
        (world.root / "absent").mkdir()
        await world.api.delete(kinds.STORAGE_POOLS, f"elsewhere-{world.id}")
        label = {"metadata": {"labels": {"disk": "ssd"}}}
        await world.api.merge_patch(kinds.HOSTS, world.host, label)

        async def changed() -> bool:
            now = await world.storage()
            return set(now) == {"local", "shared", "absent", "unselected"} and "reason" not in now["absent"]

        await until("pools that changed", changed)

        # another Host of the same name is told all again
        await world.api.delete(kinds.HOSTS, world.host)
        await world.create_host()
        await until("the new Host's storage", world.storage)


async def test_a_journal_becomes_progress_and_a_record_the_end_of_it(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, uid = await world.create_placement("t1", pool)
    place = support.make_place(pool, "t1", world.host)
    async with running(world.settings()):
        await until("ready", world.ready)
        support.write_journal(place, name, uid, 250, progress_interval_seconds=0.1)
        began = time.monotonic()

        async def downloaded() -> int:
            progress: Object = (await world.status(name)).get("progress", {})
            return int(progress.get("bytesDownloaded", 0))

        await until("progress", downloaded)
        assert time.monotonic() - began < 2
        status = await world.status(name)
        assert status["progress"] | {"updatedTime": ""} == {
            "bytesDownloaded": 250,
            "bytesTotal": 1000,
            "bytesPerSecond": 0,
            "percent": 25,
            "source": "images.example.org",
            "updatedTime": "",
        }
        assert (status["phase"], status["attempts"]) == ("Downloading", 1), "the controller's fields are its own"
        assert status["observed"] == {"present": False}

        known = support.publish(place, name, uid, b"x" * 1000)

        async def complete() -> bool:
            return await downloaded() == 1000

        await until("the end", complete)
        status = await world.status(name)
        assert status["progress"]["percent"] == 100
        assert status["observed"]["present"] is True
        assert status["observed"]["sizeBytes"] == 1000
        assert status["phase"] == "Downloading"

        async def lost() -> bool:
            observed: Object = (await world.status(name))["observed"]
            return observed == {"present": False}

        os.unlink(place.final)
        # the file of a record just written may be about to get its name; this one is old
        known.model_copy(update={"verified_time": support.now().replace(year=2020)}).write(place.record)
        await until("the lost file", lost)
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
    place, other_place = (support.make_place(pool, n, world.host) for n in ("t1", "t2"))
    before = applies()
    async with running(world.settings()):
        support.write_journal(place, name, uid, 100, progress_interval_seconds=3600)
        await until("first progress", lambda: _has(world, name, bytesDownloaded=100))
        support.write_journal(place, name, uid, 200, progress_interval_seconds=3600)
        # told after the journal above was read: by then that one waits for its interval
        support.write_journal(other_place, other, other_uid, 1, progress_interval_seconds=3600)
        await until("progress of the other", lambda: _has(world, other, bytesDownloaded=1))
        assert await _has(world, name, bytesDownloaded=100)
        assert applies() - before == 2
        support.publish(place, name, uid, b"x" * 1000)
        await until("the end", lambda: _has(world, name, bytesDownloaded=1000))
        assert applies() - before == 3


async def _has(world: World, placement: str, **progress: Any) -> bool:
    shown: Object = (await world.status(placement)).get("progress", {})
    return progress.items() <= shown.items()


async def test_a_restarted_agent_writes_nothing_again_and_leaves_alone_what_is_gone(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("local")
    name, uid = await world.create_placement("t1", pool)
    again, _ = await world.create_placement("t2", pool)
    gone = f"gone-{world.id}"
    support.publish(support.make_place(pool, "t1", world.host), name, uid, b"x" * 10)
    support.publish(support.make_place(pool, "t2", world.host), again, str(uuid.uuid4()), b"x" * 10)
    support.publish(support.make_place(pool, "t3", world.host), gone, str(uuid.uuid4()), b"x" * 10)
    ledger = world.state / "placements.json"

    async def remembered() -> bool:
        return ledger.exists() and all(text in ledger.read_text() for text in (name, again, gone))

    before = applies()
    async with running(world.settings()):
        await until("all told", remembered)
    assert applies() - before == 3
    assert await _has(world, name, bytesDownloaded=10)
    assert await _has(world, again, bytesDownloaded=10), "made anew since, it is the same copy: names are derived"
    with pytest.raises(errors.NotFound):
        await world.api.get(kinds.TEMPLATE_PLACEMENTS, gone)

    late, late_uid = await world.create_placement("t4", pool)
    async with running(world.settings()):
        await until("ready", world.ready)
        support.publish(support.make_place(pool, "t4", world.host), late, late_uid, b"x" * 10)
        await until("the new copy", lambda: _has(world, late, bytesDownloaded=10))
        assert applies() - before == 4, "one write for the new copy, none for those known"


async def test_an_agent_that_may_not_write_says_so_once_and_goes_on_when_it_may(
    world: World, definitions: harness.ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    await world.create_host()
    await world.create_pool("local")
    user = f"agent-{world.id}"
    rbac = {"group": "rbac.authorization.k8s.io", "version": "v1", "namespaced": False}
    roles = kinds.Resource(plural="clusterroles", kind="ClusterRole", **rbac)  # type: ignore[arg-type]
    bindings = kinds.Resource(plural="clusterrolebindings", kind="ClusterRoleBinding", **rbac)  # type: ignore[arg-type]
    reading = {"apiGroups": [GROUP], "resources": ["hosts", "storagepools"], "verbs": ["get", "list", "watch"]}
    writing = {"apiGroups": [GROUP], "resources": ["hosts/status"], "verbs": ["patch"]}
    role = {"metadata": {"name": user}, "rules": [reading]}
    binding = {
        "metadata": {"name": user},
        "subjects": [{"apiGroup": rbac["group"], "kind": "User", "name": user}],
        "roleRef": {"apiGroup": rbac["group"], "kind": "ClusterRole", "name": user},
    }
    await world.api.create(roles, role)
    await world.api.create(bindings, binding)
    try:
        world.kubeconfig = definitions.kubeconfig(user, ())
        with caplog.at_level(logging.WARNING):
            async with running(world.settings()):

                async def refused() -> bool:
                    return "cannot write the status of Host" in (await world.answer("readyz"))[1]

                await until("the refusal in the readiness", refused)
                assert (await world.answer("healthz"))[0] == 200

                async def tried_thrice() -> bool:
                    return _count_refused() >= 3

                await until("more tries", tried_thrice)
                await world.api.apply(roles, {**role, "rules": [reading, writing]}, manager="test")
                await until("ready", world.ready)
                assert await world.storage()
        assert caplog.text.count("cannot write the status of Host") == 1
    finally:
        await world.api.delete(bindings, user)
        await world.api.delete(roles, user)


def _count_refused() -> float:
    sample = prometheus_client.REGISTRY.get_sample_value
    labels = {"verb": "apply", "resource": "hosts", "code": "403"}
    return sample("directdownload_api_requests_total", labels) or 0


@contextlib.contextmanager
def process(world: World, *before: str) -> Any:
    """The agent as the pod runs it, by its command line; `before`: a shell script in a mount namespace of its own."""
    arguments = [
        *("agent", "--node-name", world.host, "--pool-root", str(world.root), "--state-directory", str(world.state)),
        *("--kubeconfig", str(world.kubeconfig), "--health-port", str(world.port), "--log-format", "json"),
    ]
    program = "import sys; from directdownload.cli.main import main; sys.exit(main())"
    script = "; ".join([*before, 'exec "$@"'])
    command = ["unshare", "--mount", "sh", "-ec", script, "agent", sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running_process:
        try:
            yield running_process
        finally:
            running_process.kill()


async def test_the_process_answers_probes_and_ends_cleanly_when_told_to(world: World) -> None:
    await world.create_host()
    await world.create_pool("local")
    with process(world) as agent:
        await until("ready", world.ready)
        assert await world.answer("healthz") == (200, "ok")
        metrics = (await world.answer("metrics"))[1]
        assert f'directdownload_build_info{{version="{directdownload.__version__}"}} 1.0' in metrics
        assert 'directdownload_api_requests_total{code="200",resource="hosts",verb="apply"}' in metrics
        agent.send_signal(signal.SIGTERM)
        log = (await asyncio.to_thread(agent.communicate, timeout=10))[1]
        assert agent.returncode == 0, log
        assert '"message": "Agent ends"' in log
        assert "Traceback" not in log


async def test_on_a_shared_pool_each_agent_tells_of_its_own_placements_only(world: World) -> None:
    await world.create_host()
    pool = await world.create_pool("shared", type="SharedMountPoint")
    name, uid = await world.create_placement("t1", pool)
    foreign, foreign_uid = await world.create_placement("t2", pool, host="another-host")
    with process(world, f"mount -t tmpfs -o size=1m pool {pool}") as agent:
        await until("ready", world.ready)
        assert "reason" not in (await world.storage())["shared"]
        # the pool as the agent's mount namespace has it
        inside = pathlib.Path(f"/proc/{agent.pid}/root{pool}")
        for template, owner, owner_uid in (("t2", foreign, foreign_uid), ("t1", name, uid)):
            place = support.make_place(inside, template, world.host)
            support.publish(place, owner, owner_uid, b"x" * 10, path=f"{pool}/{template}")
        await until("our own", lambda: _has(world, name, bytesDownloaded=10))

        async def remembered() -> bool:
            path = world.state / "placements.json"
            return path.exists() and '"foreign"' in path.read_text()

        await until("the other's is left alone", remembered)
        assert set(await world.status(foreign)) == {"phase", "attempts"}
