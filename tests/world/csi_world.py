"""A host for tests of the CSI plugin: directories, kubelet as a gRPC client, and an agent that answers as asked."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpclib.client
from grpclib.const import Cardinality

from directdownload.csi import messages, server
from directdownload.csi.messages import NodePublishVolumeRequest, NodeUnpublishVolumeRequest
from directdownload.csi.publishing import Publishing
from directdownload.csi.reports import Reports
from directdownload.csi.settings import Settings
from directdownload.resources import volumes
from directdownload.resources.volumes import Answer

UID = "0b8f7c2e-5d0e-4a44-9a75-1f6c2b9b7a10"
VOLUME = "csi-" + "5e" * 32
CONTENT = b"the template's bytes"
CONTEXT = {
    "template": "debian-13",
    "csi.storage.k8s.io/pod.name": "vm-0",
    "csi.storage.k8s.io/pod.namespace": "team-a",
    "csi.storage.k8s.io/pod.uid": UID,
    "csi.storage.k8s.io/serviceAccount.name": "default",
    "csi.storage.k8s.io/ephemeral": "true",
}
#: As kubelet sends it for a volume in a pod's own spec.
CAPABILITY = messages.VolumeCapability(mount=messages.MountVolume(), access_mode=messages.Access(1))
Asked = Callable[[volumes.Request], Answer | bytes | Awaitable[Answer]]


@dataclasses.dataclass(frozen=True)
class Host:
    """`directory` should be short: the path of a socket has at most 107 bytes."""

    directory: pathlib.Path

    def prepare(self) -> None:
        (self.kubelet / "plugins_registry").mkdir(parents=True)
        (self.kubelet / "pods").mkdir()
        self.pool.mkdir(parents=True)
        self.image.write_bytes(CONTENT)
        self.target().parent.mkdir(parents=True)

    @property
    def kubelet(self) -> pathlib.Path:
        return self.directory / "kubelet"

    @property
    def pool(self) -> pathlib.Path:
        return self.directory / "images" / "pool"

    @property
    def image(self) -> pathlib.Path:
        return self.pool / UID

    @property
    def agent_socket(self) -> pathlib.Path:
        return self.directory / "agent.sock"

    def target(self, name: str = "image") -> pathlib.Path:
        return self.kubelet / "pods" / UID / "volumes" / "kubernetes.io~csi" / name / "mount"

    def settings(self, **changed: Any) -> Settings:
        values: dict[str, Any] = {
            "node_name": "kvm-1",
            "pool_roots": (str(self.pool.parent),),
            "kubelet_directory": str(self.kubelet),
            "agent_socket": str(self.agent_socket),
            **changed,
        }
        return Settings(**values)

    def request(self, **changed: Any) -> NodePublishVolumeRequest:
        """As kubelet sends it, but for `changed`."""
        values: dict[str, Any] = {
            "volume_id": VOLUME,
            "target_path": str(self.target()),
            "volume_capability": CAPABILITY,
            "readonly": True,
            "volume_context": CONTEXT,
            **changed,
        }
        return NodePublishVolumeRequest(**values)

    def ready(self) -> Answer:
        return Answer(state="Ready", path=str(self.image), uid=UID)


class Agent:
    """Answers each request with what `asked` returns; `requests` has all but the repeated `Mounted`."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.requests: list[volumes.Request] = []
        self.mounted: list[volumes.Mounted] = []
        #: how many plugins have closed their connection before the answer
        self.left = 0
        self._serving: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def serving(self, path: pathlib.Path) -> AsyncIterator["Agent"]:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.setblocking(False)
            listening.bind(str(path))
            listening.listen()
            loop = asyncio.get_running_loop()
            loop.add_reader(listening, self._accept, listening)
            try:
                yield self
            finally:
                os.unlink(path)
                loop.remove_reader(listening)
                for task in self._serving:
                    task.cancel()
                await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        task = asyncio.create_task(self._serve(connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # also of a task that ends before it begins
        task.add_done_callback(lambda _: connection.close())

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=volumes.LINE_BYTES)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = volumes.read_request(await reader.readline())
            if isinstance(request, volumes.Mounted):
                self.mounted.append(request)
                writer.write(Answer().line())
                return
            self.requests.append(request)
            found = Answer() if isinstance(request, volumes.Unpublish) else self.asked(request)
            if isinstance(found, Awaitable):
                found = await self._unless_it_leaves(reader, found)
            writer.write(found if isinstance(found, bytes) else found.line())
            await writer.drain()
        except ConnectionError:
            self.left += 1

    async def _unless_it_leaves(self, reader: asyncio.StreamReader, answer: Awaitable[Answer]) -> Answer:
        waiting, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(reader.read())
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            leaving.cancel()
            return waiting.result()
        waiting.cancel()
        raise ConnectionResetError


class Kubelet:
    """Calls the plugin as kubelet does, over its socket."""

    def __init__(self, socket: str) -> None:
        self._channel = grpclib.client.Channel(path=socket, codec=server.Codec())

    def close(self) -> None:
        self._channel.close()

    async def call(self, path: str, request: Any, kind: type = messages.Empty, seconds: float | None = 60) -> Any:
        """Raises GRPCError."""
        method = (path, Cardinality.UNARY_UNARY, type(request), kind)
        stream: grpclib.client.Stream[Any, Any]
        async with self._channel.request(*method, timeout=seconds) as stream:
            await stream.send_message(request, end=True)
            return await stream.recv_message()

    async def publish(self, request: NodePublishVolumeRequest, seconds: float | None = 60) -> None:
        await self.call("/csi.v1.Node/NodePublishVolume", request, seconds=seconds)

    async def unpublish(self, target: pathlib.Path, volume: str = VOLUME) -> None:
        request = NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(target))
        await self.call("/csi.v1.Node/NodeUnpublishVolume", request)


@contextlib.asynccontextmanager
async def plugin(settings: Settings) -> AsyncIterator[Kubelet]:
    """The plugin within this process, with its reports, and kubelet that calls it."""
    reports = Reports(settings.agent_socket, settings.pods, settings.mounted_interval_seconds)
    serving = server.Server(settings, Publishing(settings, reports))
    await serving.start()
    reporting = asyncio.create_task(reports.run())
    kubelet = Kubelet(settings.socket)
    try:
        yield kubelet
    finally:
        kubelet.close()
        await serving.close()
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting
