"""What the tests of `directdownload.cluster` share: a kind of their own, waiting, and a TCP proxy that can stall."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from tests.world.waiting import until_async

from directdownload.cluster import client, errors, kinds, lease

GROUP = "clustertest.example.org"
THINGS = kinds.Resource(GROUP, "v1", "things", "Thing", namespaced=True)
DEFINITIONS = kinds.Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
_TEXT = {"type": "string"}
_CONDITIONS = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {"type": "object", "properties": {"type": _TEXT, "reason": _TEXT}, "required": ["type"]},
}
_OBJECT = {
    "type": "object",
    "properties": {"number": {"type": "integer"}, "text": _TEXT, "conditions": _CONDITIONS},
}
_DEFINITION = {
    "metadata": {"name": f"things.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": _OBJECT, "status": _OBJECT}},
                },
            }
        ],
    },
}


def thing(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": THINGS.api_version, "kind": THINGS.kind, "metadata": {"name": name}, "spec": spec}


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that are cancelled at the end of the block."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def lead(election: lease.LeaderElection) -> None:
    """Until it leads no more."""
    await election.acquire()
    await election.hold()


async def until(condition: Callable[[], object]) -> None:
    """Waits closely: what these tests wait for lasts only milliseconds."""
    await until_async("the condition of this line", condition, poll_seconds=0.01)


async def namespace_with_things(api: client.Api) -> str:
    """A fresh namespace, in a cluster that serves `THINGS`."""
    await api.apply(DEFINITIONS, _DEFINITION, manager="test")
    end = time.monotonic() + 20
    while True:
        try:
            await api.list(THINGS)
            break
        except errors.NotFound:
            assert time.monotonic() < end, "the definition is not served"
            await asyncio.sleep(0.05)
    created = await api.create(kinds.NAMESPACES, {"metadata": {"name": f"cluster-{uuid.uuid4().hex[:8]}"}})
    return str(created["metadata"]["name"])


class Proxy:
    """Forwards to the API server; `stall` keeps connections open and silent, `cut` ends and refuses them."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()

    def stall(self) -> None:
        self._flowing.clear()

    def cut(self) -> None:
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        self._refusing = False
        self._flowing.set()

    async def emptied(self) -> None:
        await until(lambda: not self._writers)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        both = {writer, upstream_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxied(kubeconfig: Path, directory: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy before the API server, and a kubeconfig that leads through it."""
    document = _read(kubeconfig)
    cluster = document["clusters"][0]["cluster"]
    address = urlsplit(cluster["server"])
    assert address.hostname
    assert address.port
    proxy = Proxy(address.hostname, address.port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # the server's certificate holds the address that the kubeconfig names
    cluster |= {"server": f"https://127.0.0.1:{port}", "tls-server-name": address.hostname}
    for section, keys in (("cluster", ("certificate-authority",)), ("user", ("client-certificate", "client-key"))):
        for entry in document[f"{section}s"]:
            for key in keys:
                if key in entry[section]:
                    entry[section][key] = str((kubeconfig.parent / entry[section][key]).resolve())
    path = directory / f"proxied-{port}"
    path.write_text(json.dumps(document))
    try:
        yield proxy, path
    finally:
        proxy.heal()
        proxy.cut()
        server.close()
        await server.wait_closed()
        await proxy.emptied()


def _read(kubeconfig: Path) -> Any:
    return yaml.safe_load(kubeconfig.read_text())
