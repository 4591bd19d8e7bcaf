"""One host for the tests of the agent: its pools and keystore on disk, what stands in the cluster, and the agent."""

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import aiohttp
from tests.cluster import harness
from tests.world import checkout, kube
from tests.world.stores import HostFiles
from tests.world.waiting import until_async

from directdownload.agent import main
from directdownload.agent.settings import Settings
from directdownload.cluster import client, kinds
from directdownload.resources.base import CONTROLLER, GROUP
from directdownload.resources.pem import Certificate

Object = dict[str, Any]
#: by plural of the resource: what agents of this process have asked to write
_asked: collections.Counter[str] = collections.Counter()


class HealthPort:
    """What answers at the health port of an agent, `port`."""

    port: int

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


class World(HealthPort):
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
        self.files = HostFiles(directory / "agent")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def settings(self, **fields: Any) -> Settings:
        defaults: Object = {
            "node_name": self.host,
            "pool_roots": (f"{self.root}/",),
            "keystore_roots": (f"{self.files.directory}/",),
            "state_directory": str(self.state),
            "health_port": self.port,
            "kubeconfig": str(self.kubeconfig),
            "facts_interval_seconds": 0.5,
            "active_scan_seconds": 0.1,
            "idle_scan_seconds": 0.1,
            "observe_interval_seconds": 0.3,
            "check_interval_seconds": 0.3,
            "foreign_interval_seconds": 0.5,
            "keystore_poll_seconds": 0.1,
        }
        return Settings(**{**defaults, **fields})

    async def create_host(self, labels: dict[str, str] | None = None, **keystore: Any) -> Object:
        spec = {"nodeName": self.host, "zone": self.zone, "keystore": {**self.files.spec, **keystore}}
        body = kube.resource(kinds.HOSTS, self.host, spec)
        body["metadata"]["labels"] = labels or {}
        return await self.api.create(kinds.HOSTS, body)

    async def create_zone(self, name: str = "", **spec: Any) -> None:
        """The host's, unless `name` is given."""
        spec = {"nodeSelector": {"matchLabels": {"zone": self.id}}, **spec}
        await self.api.create(kinds.ZONES, kube.resource(kinds.ZONES, name or self.zone, spec))

    async def create_certificate(self, alias: str, certificate: Certificate, **spec: Any) -> str:
        """Its name; published as by the controller."""
        name = f"{alias}-{self.id}".lower()
        spec = {"zone": self.zone, "alias": alias, "certificate": certificate.pem, **spec}
        await self.api.create(kinds.CERTIFICATES, kube.resource(kinds.CERTIFICATES, name, spec))
        await self.publish(name, certificate)
        return name

    async def publish(
        self, name: str, certificate: Certificate, previous: Certificate | None = None, until: str = "", **status: Any
    ) -> None:
        status = {"certificate": certificate.pem, "fingerprintSHA256": certificate.fingerprint_sha256, **status}
        if previous is not None:
            before = {"certificate": previous.pem, "fingerprintSHA256": previous.fingerprint_sha256, "until": until}
            status["previous"] = before
        generation = (await self.api.get(kinds.CERTIFICATES, name))["metadata"]["generation"]
        body = {"metadata": {"name": name}, "status": {**status, "observedGeneration": generation}}
        await self.api.apply(kinds.CERTIFICATES, body, manager=CONTROLLER, subresource="status")

    async def change(self, name: str, *, looked_at: bool = True, **spec: Any) -> None:
        """The spec of a certificate; `looked_at` by the controller, which publishes nothing else."""
        await self.api.merge_patch(kinds.CERTIFICATES, name, {"spec": spec})
        if looked_at:
            found = await self.api.get(kinds.CERTIFICATES, name)
            status = {**found["status"], "observedGeneration": found["metadata"]["generation"]}
            body = {"metadata": {"name": name}, "status": status}
            await self.api.apply(kinds.CERTIFICATES, body, manager=CONTROLLER, subresource="status")

    async def change_keystore(self, **keystore: Any) -> None:
        await self.api.merge_patch(kinds.HOSTS, self.host, {"spec": {"keystore": keystore}})

    async def host_status(self) -> Object:
        status: Object = (await self.api.get(kinds.HOSTS, self.host)).get("status", {})
        return status

    async def proofs(self) -> dict[str, str]:
        """State by alias; a failure or a wait with its reason."""
        certificates = (await self.host_status()).get("certificates", [])
        return {
            each["name"].removesuffix(f"-{self.id}"): " ".join(
                [each["state"], *([each["reason"]] if "reason" in each else [])]
            )
            for each in certificates
        }

    async def prove(self, seconds: float = 120, **states: str) -> None:
        """Waits until `proofs` says just this, with `_` for `-`."""
        wanted = {alias.replace("_", "-"): state for alias, state in states.items()}
        shown: dict[str, str] = {}

        async def proven() -> bool:
            nonlocal shown
            shown = await self.proofs()
            return shown == wanted

        try:
            await until_async("the proof", proven, seconds)
        except AssertionError:
            raise AssertionError(f"expected {wanted}, found {shown}: {await self.synced()}") from None

    async def synced(self) -> Object:
        """The condition KeystoreSynced."""
        conditions = (await self.host_status()).get("conditions", [])
        return next((each for each in conditions if each["type"] == "KeystoreSynced"), {})

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
        status = await self.host_status()
        return {facts["pool"].removesuffix(f"-{self.id}"): facts for facts in status.get("storage", [])}

    async def clean(self) -> None:
        all_kinds = (kinds.TEMPLATE_PLACEMENTS, kinds.STORAGE_POOLS, kinds.HOSTS, kinds.CERTIFICATES, kinds.ZONES)
        for kind in all_kinds:
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
    with mock.patch.object(client.Api, "connect", _counting(client.Api.connect)):
        task = asyncio.create_task(main.run(settings))
        try:
            await asyncio.sleep(0)
            yield
            assert not task.done(), "an agent runs for ever"
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(task, 10) == 0


def _counting(connect: Callable[..., Awaitable[client.Api]]) -> Callable[..., Awaitable[client.Api]]:
    async def connected(*arguments: Any, **options: Any) -> client.Api:
        api = await connect(*arguments, **options)
        apply = api.apply

        async def counted(resource: kinds.Resource, *more: Any, **fields: Any) -> Object:
            _asked[resource.plural] += 1
            return await apply(resource, *more, **fields)

        api.apply = counted  # type: ignore[method-assign]
        return api

    return connected


@contextlib.asynccontextmanager
async def restricted(
    world: World, control_plane: harness.ControlPlane, rules: list[Object]
) -> AsyncIterator[Callable[[list[Object]], Awaitable[None]]]:
    """Agents of `world` may do what `rules` say, and what the function says that this yields."""
    user = f"agent-{world.id}"
    group = "rbac.authorization.k8s.io"
    roles = kinds.Resource(group, "v1", "clusterroles", "ClusterRole", namespaced=False)
    bindings = kinds.Resource(group, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)

    async def allow(rules: list[Object]) -> None:
        await world.api.apply(roles, {"metadata": {"name": user}, "rules": rules}, manager="test")

    await allow(rules)
    binding = {
        "metadata": {"name": user},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user},
    }
    await world.api.create(bindings, binding)
    everything, world.kubeconfig = world.kubeconfig, control_plane.kubeconfig(user, ())
    try:
        yield allow
    finally:
        world.kubeconfig = everything
        await world.api.delete(bindings, user)
        await world.api.delete(roles, user)


def rule(verbs: list[str], *resources: str) -> Object:
    return {"apiGroups": [GROUP], "resources": list(resources), "verbs": verbs}


def applies(resource: str = "templateplacements") -> int:
    """How often an agent of this process asked to write one: what the cluster shows was counted before."""
    return _asked[resource]


async def wrote(before: int, number: int, resource: str = "templateplacements") -> None:
    """That there were `number` writes since `before`."""
    await until_async(f"{number} writes", lambda: applies(resource) - before >= number)
    assert applies(resource) - before == number


def remembered(world: World) -> dict[str, Object]:
    """What the agent has on disk about placements."""
    path = world.state / "placements.json"
    entries: dict[str, Object] = json.loads(path.read_text())["placements"] if path.exists() else {}
    return entries


async def settled(world: World, **outcomes: str) -> None:
    """Waits until the agent has on disk what became of what it told: a moment after the cluster shows it."""

    async def noted() -> bool:
        entries = remembered(world)
        return all(entries.get(name, {}).get("outcome") == outcome for name, outcome in outcomes.items())

    await until_async(f"{outcomes} on disk", noted)


async def sees(world: World, placement: str, **observed: Any) -> bool:
    shown: Object = (await world.status(placement)).get("observed", {})
    return observed.items() <= shown.items()


async def has(world: World, placement: str, **progress: Any) -> bool:
    shown: Object = (await world.status(placement)).get("progress", {})
    return progress.items() <= shown.items()


@contextlib.contextmanager
def process(world: World, *before: str, options: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """The agent as the pod runs it, by its command line; `before`: a shell script in a mount namespace of its own."""
    arguments = [
        *("agent", "--node-name", world.host, "--pool-root", str(world.root), "--state-directory", str(world.state)),
        *("--keystore-root", str(world.files.directory)),
        *("--kubeconfig", str(world.kubeconfig), "--health-port", str(world.port), "--log-format", "json"),
        *options,
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
    environment = checkout.environment()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running_process:
        try:
            yield running_process
        finally:
            running_process.kill()
