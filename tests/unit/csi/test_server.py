"""The socket and its protocol: what kubelet asks first, and what a caller that is none gets."""

import asyncio
import logging
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from tests.world.csi_world import Host, plugin

import directdownload
from directdownload.csi import messages, server, wire
from directdownload.csi.messages import Empty
from directdownload.csi.publishing import Publishing
from directdownload.csi.reports import Reports

REGISTRATION, IDENTITY, NODE = "/pluginregistration.Registration/", "/csi.v1.Identity/", "/csi.v1.Node/"


@pytest.mark.parametrize(
    ("method", "kind", "expected"),
    [
        (
            # no endpoint: kubelet calls CSI on the same socket
            f"{REGISTRATION}GetInfo",
            messages.PluginInfo,
            messages.PluginInfo(type="CSIPlugin", name="directdownload.dev", supported_versions=("1.0.0",)),
        ),
        (
            f"{IDENTITY}GetPluginInfo",
            messages.GetPluginInfoResponse,
            messages.GetPluginInfoResponse(name="directdownload.dev", vendor_version=directdownload.__version__),
        ),
        (f"{IDENTITY}GetPluginCapabilities", Empty, Empty()),
        (f"{IDENTITY}Probe", messages.ProbeResponse, messages.ProbeResponse(ready=messages.BoolValue(value=True))),
        (f"{NODE}NodeGetInfo", messages.NodeGetInfoResponse, messages.NodeGetInfoResponse(node_id="kvm-1")),
        (f"{NODE}NodeGetCapabilities", Empty, Empty()),
    ],
)
async def test_kubelet_learns_which_plugin_it_is(host: Host, method: str, kind: type, expected: Any) -> None:
    async with plugin(host.settings()) as kubelet:
        assert await kubelet.call(method, Empty(), kind) == expected


async def test_the_outcome_of_the_registration_is_logged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    method = f"{REGISTRATION}NotifyRegistrationStatus"
    with caplog.at_level(logging.INFO):
        async with plugin(host.settings()) as kubelet:
            await kubelet.call(method, messages.RegistrationStatus(plugin_registered=True))
            await kubelet.call(method, messages.RegistrationStatus(error="another driver"))
    assert "kubelet has registered the plugin" in caplog.messages
    assert "kubelet does not register the plugin: another driver" in caplog.messages


@pytest.mark.parametrize("method", [f"{NODE}NodeStageVolume", "/csi.v1.Controller/CreateVolume", "/x", "/"])
async def test_an_unknown_method_is_unimplemented_in_an_answer_that_go_accepts(host: Host, method: str) -> None:
    async with plugin(host.settings()) as kubelet:
        # grpclib's client insists on the content type, as Go's does
        with pytest.raises(GRPCError) as refused:
            await kubelet.call(method, Empty())
        assert refused.value.status is Status.UNIMPLEMENTED
        assert "content-type" not in (refused.value.message or "")


class _Raw(CodecBase):
    """Bytes as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


async def _raw(host: Host, frame: bytes) -> GRPCError:
    """The answer to a request of these bytes, with gRPC's prefix."""
    channel = Channel(path=host.settings().socket, codec=_Raw())
    try:
        with pytest.raises(GRPCError) as refused:
            await _send(channel, frame)
        return refused.value
    finally:
        channel.close()


async def _send(channel: Channel, frame: bytes) -> None:
    method = (f"{NODE}NodePublishVolume", Cardinality.UNARY_UNARY, bytes, bytes)
    async with channel.request(*method, timeout=60) as stream:
        await stream.send_request()
        await stream._stream.send_data(frame, end_stream=True)
        await stream.recv_message()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\0\0\0\0\1\xff", "the request is malformed: a number that does not end"),
        (b"\0\0\0\0\5\x0a", "the request is malformed: Received less data"),
        (b"\0\0", "the request is malformed"),
        (b"\1\0\0\0\0", "expected at most 262144 bytes, not compressed"),
        (b"\0\xff\xff\xff\xff", "expected at most 262144 bytes, not compressed"),
        (b"", "expected at most 262144 bytes, not compressed"),
    ],
)
async def test_a_request_that_is_none_is_refused(
    host: Host, caplog: pytest.LogCaptureFixture, frame: bytes, words: str
) -> None:
    async with plugin(host.settings()):
        refused = await _raw(host, frame)
        assert (refused.status, words in (refused.message or "")) == (Status.INVALID_ARGUMENT, True), refused
    assert not [each for each in caplog.records if each.exc_info]


async def test_a_request_of_the_greatest_size_is_read(host: Host) -> None:
    request = host.request(volume_id="v" * (server.REQUEST_BYTES - 600))
    assert len(wire.encode(request)) <= server.REQUEST_BYTES
    async with plugin(host.settings()) as kubelet:
        with pytest.raises(GRPCError, match="volume_id: expected"):
            await kubelet.publish(request)
        with pytest.raises(GRPCError, match="expected at most 262144 bytes"):
            await kubelet.publish(host.request(volume_id="v" * server.REQUEST_BYTES))


async def test_a_caller_that_speaks_no_http2_harms_nobody(host: Host) -> None:
    async with plugin(host.settings()) as kubelet:
        _, writer = await asyncio.open_unix_connection(host.settings().socket)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
        await writer.drain()
        assert await kubelet.call(f"{NODE}NodeGetInfo", Empty(), messages.NodeGetInfoResponse)
        writer.close()


async def test_a_defect_is_logged_and_answered(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Publishing, "publish", broken)
    async with plugin(host.settings()) as kubelet:
        with pytest.raises(GRPCError, match="a defect of the CSI plugin") as refused:
            await kubelet.publish(host.request())
        # the volume may be half there
        assert refused.value.status is Status.UNAVAILABLE
    assert [each.exc_info for each in caplog.records if "NodePublishVolume failed" in each.getMessage()]


def new_server(host: Host) -> server.Server:
    settings = host.settings()
    return server.Server(settings, Publishing(settings, Reports(settings.agent_socket, settings.pods)))


async def test_only_root_can_open_the_socket_which_goes_with_the_plugin(host: Host) -> None:
    socket = pathlib.Path(host.settings().socket)
    async with plugin(host.settings()):
        status = os.stat(socket)
        assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, 0o600)
    assert os.listdir(socket.parent) == []


async def test_a_stale_socket_is_replaced_and_that_of_a_successor_stays(host: Host) -> None:
    first, second = new_server(host), new_server(host)
    await first.start()
    await second.start()
    await first.close()
    registry = host.kubelet / "plugins_registry"
    assert os.listdir(registry) == ["directdownload.dev.sock"]
    await second.close()
    assert os.listdir(registry) == []


def _file(path: pathlib.Path) -> None:
    path.touch()


def _directory(path: pathlib.Path) -> None:
    path.mkdir()


def _link(path: pathlib.Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [_file, _directory, _link])
async def test_what_is_no_socket_is_not_removed(host: Host, make: Callable[[pathlib.Path], None]) -> None:
    socket = pathlib.Path(host.settings().socket)
    make(socket)
    with pytest.raises(FileExistsError, match="expected a socket or nothing"):
        await new_server(host).start()
    assert os.listdir(socket.parent) == [socket.name]
