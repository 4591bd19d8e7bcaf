"""One host for the tests of the agent: its pools on disk, what stands in the cluster about them, and the agent."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import prometheus_client
from tests.api import kube
from tests.cluster import harness

from directdownload.agent import main
from directdownload.agent.settings import Settings
from directdownload.cluster import client, kinds
from directdownload.resources.base import CONTROLLER

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
            "check_interval_seconds": 0.3,
            "foreign_interval_seconds": 0.5,
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


@contextlib.asynccontextmanager
async def one(definitions: harness.ControlPlane, directory: pathlib.Path) -> AsyncIterator[World]:
    api = await client.Api.connect(kubeconfig=str(definitions.kubeconfig()))
    made = World(api, definitions.kubeconfig(), directory)
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


async def sees(world: World, placement: str, **observed: Any) -> bool:
    shown: Object = (await world.status(placement)).get("observed", {})
    return observed.items() <= shown.items()


async def has(world: World, placement: str, **progress: Any) -> bool:
    shown: Object = (await world.status(placement)).get("progress", {})
    return progress.items() <= shown.items()


@contextlib.contextmanager
def process(world: World, *before: str) -> Iterator[subprocess.Popen[str]]:
    """The agent as the pod runs it, by its command line; `before`: a shell script in a mount namespace of its own."""
    arguments = [
        *("agent", "--node-name", world.host, "--pool-root", str(world.root), "--state-directory", str(world.state)),
        *("--kubeconfig", str(world.kubeconfig), "--health-port", str(world.port), "--log-format", "json"),
    ]
    program = "import sys; from directdownload.cli.main import main; sys.exit(main())"
    with _in_namespace(before, program, *arguments) as started:
        yield started


@contextlib.contextmanager
def quick_process(world: World, *before: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """The same, with the short intervals of the tests."""
    program = (
        "import json, sys; from directdownload.agent import main; from directdownload.agent.settings import Settings; "
        "sys.exit(main.main(Settings(**json.loads(sys.argv[1]))))"
    )
    with _in_namespace(before, program, json.dumps(dataclasses.asdict(world.settings(**settings)))) as started:
        yield started


@contextlib.contextmanager
def _in_namespace(before: tuple[str, ...], program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    script = "; ".join([*before, 'exec "$@"'])
    command = ["unshare", "--mount", "sh", "-ec", script, "agent", sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running_process:
        try:
            yield running_process
        finally:
            running_process.kill()
