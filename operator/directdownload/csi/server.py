"""The gRPC server: kubelet's plugin registration, and CSI's services Identity and Node, on one unix socket.

Called by `main`. kubelet finds the socket in `plugins_registry`, asks GetInfo, and as that names no other endpoint,
calls CSI on the same socket (pkg/kubelet/pluginmanager/operationexecutor/operation_generator.go).
"""

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpclib.config
import grpclib.server
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

import directdownload
from directdownload.csi import messages, wire
from directdownload.csi.errors import CallError, InvalidArgumentError
from directdownload.csi.publishing import Publishing
from directdownload.csi.settings import Settings
from directdownload.hostfiles import sockets
from directdownload.resources import naming

logger = logging.getLogger(__name__)

#: The general limits of the CSI specification make requests of some KiB.
REQUEST_BYTES = 256 * 1024
#: What kubelet compares: any 1.x will do.
VERSIONS = ("1.0.0",)
_Stream = grpclib.server.Stream[Any, Any]
_Method = tuple[type, Callable[[Any], Awaitable[Any]]]


class Codec(CodecBase):
    """Messages of `messages`."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return wire.encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return wire.decode(message_type, data)


class Server:
    """Serves from `start` to `close`. `start` raises OSError."""

    def __init__(self, settings: Settings, publishing: Publishing) -> None:
        self._path = settings.socket
        self._inode: tuple[int, int] | None = None
        config = grpclib.config.Configuration(
            http2_connection_window_size=REQUEST_BYTES, http2_stream_window_size=REQUEST_BYTES
        )
        self._server = _Grpc([_Services(settings.node_name, publishing)], codec=Codec(), config=config)

    async def start(self) -> None:
        listening = sockets.bound(self._path)
        status = os.stat(self._path)
        self._inode = (status.st_dev, status.st_ino)
        await self._server.start(sock=listening)

    async def close(self) -> None:
        """Removes the socket, which makes kubelet forget the plugin, and ends all calls. Mounts stay."""
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            # not that of a successor, which listens already
            if (status.st_dev, status.st_ino) == self._inode:
                os.unlink(self._path)
        self._server.close()


class _Services:
    """All methods by their paths."""

    def __init__(self, node_name: str, publishing: Publishing) -> None:
        self._node_name = node_name
        self._publishing = publishing
        empty = messages.Empty
        self._methods: dict[str, _Method] = {
            "/pluginregistration.Registration/GetInfo": (empty, self._info),
            "/pluginregistration.Registration/NotifyRegistrationStatus": (
                messages.RegistrationStatus,
                self._registered,
            ),
            "/csi.v1.Identity/GetPluginInfo": (empty, self._plugin_info),
            # neither a controller nor topology
            "/csi.v1.Identity/GetPluginCapabilities": (empty, _nothing),
            "/csi.v1.Identity/Probe": (empty, self._probe),
            "/csi.v1.Node/NodeGetInfo": (empty, self._node_info),
            # neither staging, statistics nor expansion
            "/csi.v1.Node/NodeGetCapabilities": (empty, _nothing),
            "/csi.v1.Node/NodePublishVolume": (messages.NodePublishVolumeRequest, self._publish),
            "/csi.v1.Node/NodeUnpublishVolume": (messages.NodeUnpublishVolumeRequest, self._unpublish),
        }

    def __mapping__(self) -> dict[str, Handler]:
        return {path: _handler(_serving(path, *method)) for path, method in self._methods.items()}

    async def _info(self, _: messages.Empty) -> messages.PluginInfo:
        return messages.PluginInfo(type="CSIPlugin", name=naming.GROUP, supported_versions=VERSIONS)

    async def _registered(self, status: messages.RegistrationStatus) -> messages.Empty:
        if status.plugin_registered:
            logger.info("kubelet has registered the plugin")
        else:
            logger.error("kubelet does not register the plugin: %s", status.error)
        return messages.Empty()

    async def _plugin_info(self, _: messages.Empty) -> messages.GetPluginInfoResponse:
        return messages.GetPluginInfoResponse(name=naming.GROUP, vendor_version=directdownload.__version__)

    async def _probe(self, _: messages.Empty) -> messages.ProbeResponse:
        return messages.ProbeResponse(ready=messages.BoolValue(value=True))

    async def _node_info(self, _: messages.Empty) -> messages.NodeGetInfoResponse:
        return messages.NodeGetInfoResponse(node_id=self._node_name)

    async def _publish(self, request: messages.NodePublishVolumeRequest) -> messages.Empty:
        await self._publishing.publish(request)
        return messages.Empty()

    async def _unpublish(self, request: messages.NodeUnpublishVolumeRequest) -> messages.Empty:
        await self._publishing.unpublish(request)
        return messages.Empty()


class _Methods(dict[str, Handler]):
    """Has an answer for every path. grpclib's own for an unknown one lacks the content type, which Go insists on."""

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path) or _handler(_unimplemented)


class _Grpc(grpclib.server.Server):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._mapping = _Methods(self._mapping)


async def _nothing(_: messages.Empty) -> messages.Empty:
    return messages.Empty()


async def _unimplemented(_: _Stream) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "the plugin does not have this method")


def _handler(serve: Callable[[_Stream], Awaitable[None]]) -> Handler:
    return Handler(serve, Cardinality.UNARY_UNARY, messages.Empty, messages.Empty)


def _serving(path: str, kind: type, answer: Callable[[Any], Awaitable[Any]]) -> Callable[[_Stream], Awaitable[None]]:
    """`answer` as grpclib calls it: errors become statuses."""

    async def serve(stream: _Stream) -> None:
        try:
            reply = await answer(await _received(stream, kind))
        except CallError as error:
            logger.log(logging.INFO, "%s: %s: %s", path, error.status.name, error.message)
            raise GRPCError(error.status, error.message) from None
        except Exception:
            # grpclib would answer that too, in other words
            logger.exception("%s failed", path)
            raise GRPCError(Status.UNAVAILABLE, "a defect of the CSI plugin: see its logs on this host") from None
        await stream.send_message(reply)

    return serve


async def _received(stream: _Stream, kind: type) -> Any:
    """The request. grpclib's own `recv_message` takes any length, and fails on half a message."""
    try:
        head = await stream._stream.recv_data(5)
        length = int.from_bytes(head[1:])
        if head[:1] != b"\0" or length > REQUEST_BYTES:
            raise InvalidArgumentError(f"the request: expected at most {REQUEST_BYTES} bytes, not compressed")
        return wire.decode(kind, await stream._stream.recv_data(length))
    except (AssertionError, wire.MalformedError) as error:
        raise InvalidArgumentError(f"the request is malformed: {error}") from None
