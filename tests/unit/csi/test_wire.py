"""The encoding of messages: as Protocol Buffers' own library writes it; what is malformed does no harm."""

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from directdownload.csi import messages, wire
from directdownload.csi.messages import (
    Access,
    BoolValue,
    Empty,
    MountVolume,
    NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest,
    PluginInfo,
    ProbeResponse,
    RegistrationStatus,
    VolumeCapability,
)

#: Written by protobuf 7.36.2 (`SerializeToString(deterministic=True)`) with modules that protoc of grpcio-tools 1.85.1
#: made of csi.proto 1.9.0 and of pluginregistration/v1/api.proto of Kubernetes 1.35.
RECORDED: list[tuple[Any, str]] = [
    (
        NodePublishVolumeRequest(
            volume_id="csi-1f",
            publish_context={"a": "b"},
            staging_target_path="/s",
            target_path="/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/image/mount",
            volume_capability=VolumeCapability(
                mount=MountVolume(fs_type="ext4", mount_flags=("ro", "noatime"), volume_mount_group="7"),
                access_mode=Access(3),
            ),
            readonly=True,
            secrets={"k": "v"},
            volume_context={"template": "debian-13", "csi.storage.k8s.io/pod.namespace": "größe"},
        ),
        "0a066373692d316612060a01611201621a022f73223d2f7661722f6c69622f6b7562656c65742f706f64732f752f766f6c756d65732f6b"
        "756265726e657465732e696f7e6373692f696d6167652f6d6f756e742a1c12160a04657874341202726f12076e6f6174696d651a01371a"
        "02080330013a060a016b120176422b0a206373692e73746f726167652e6b38732e696f2f706f642e6e616d65737061636512076772c3b6"
        "c39f6542150a0874656d706c617465120964656269616e2d3133",
    ),
    (
        NodePublishVolumeRequest(
            volume_id="v", volume_capability=VolumeCapability(block=Empty(), access_mode=Access(1))
        ),
        "0a01762a060a001a020801",
    ),
    (NodeUnpublishVolumeRequest(volume_id="v", target_path="/t"), "0a017612022f74"),
    (
        messages.GetPluginInfoResponse(name="directdownload.dev", vendor_version="0.2.0"),
        "0a12646972656374646f776e6c6f61642e6465761205302e322e30",
    ),
    (ProbeResponse(ready=BoolValue(value=True)), "0a020801"),
    (ProbeResponse(ready=BoolValue(value=False)), "0a00"),
    (messages.NodeGetInfoResponse(node_id="kvm-1"), "0a056b766d2d31"),
    (
        PluginInfo(type="CSIPlugin", name="directdownload.dev", endpoint="/e", supported_versions=("1.0.0", "1.1.0")),
        "0a09435349506c7567696e1212646972656374646f776e6c6f61642e6465761a022f652205312e302e302205312e312e30",
    ),
    (RegistrationStatus(plugin_registered=True, error="no"), "080112026e6f"),
    (Empty(), ""),
]


@pytest.mark.parametrize(("message", "recorded"), RECORDED)
def test_messages_are_encoded_as_by_the_library_of_protocol_buffers(message: Any, recorded: str) -> None:
    assert wire.encode(message).hex() == recorded
    assert wire.decode(type(message), bytes.fromhex(recorded)) == message


TEXT = st.text(max_size=20)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=3)
MOUNTS = st.builds(MountVolume, TEXT, st.lists(TEXT, max_size=3).map(tuple), TEXT)
CAPABILITIES = st.builds(
    VolumeCapability,
    st.none() | st.just(Empty()),
    st.none() | MOUNTS,
    st.none() | st.builds(Access, st.integers(0, 2**64 - 1)),
)
REQUESTS = st.builds(
    NodePublishVolumeRequest, TEXT, PAIRS, TEXT, TEXT, st.none() | CAPABILITIES, st.booleans(), PAIRS, PAIRS
)


@hypothesis.given(REQUESTS)
def test_what_is_encoded_is_read_again(request: NodePublishVolumeRequest) -> None:
    assert wire.decode(NodePublishVolumeRequest, wire.encode(request)) == request


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for kind in (NodePublishVolumeRequest, NodeUnpublishVolumeRequest, RegistrationStatus, Empty):
        try:
            wire.decode(kind, data)
        except wire.MalformedError:
            continue


@hypothesis.given(REQUESTS, st.data())
def test_half_a_message_is_a_message_or_malformed(request: NodePublishVolumeRequest, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(request))
    if encoded:
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] = data.draw(st.integers(0, 255))
        try:
            wire.decode(NodePublishVolumeRequest, bytes(encoded))
        except wire.MalformedError:
            return


@pytest.mark.parametrize(
    "unknown",
    [
        "f87f01",  # number 2047, a varint
        "f97f0102030405060708",  # 64 bits
        "fa7f03616263",  # bytes
        "fd7f01020304",  # 32 bits
        "f8ffffff0f00",  # the highest number
    ],
)
def test_fields_of_later_versions_are_skipped(unknown: str) -> None:
    data = bytes.fromhex("0a0176" + unknown + "12022f74" + unknown)
    assert wire.decode(NodeUnpublishVolumeRequest, data) == NodeUnpublishVolumeRequest("v", "/t")


@pytest.mark.parametrize(
    ("malformed", "words"),
    [
        ("0a05", "5 bytes announced, 0 left"),
        ("0affffffffffffffffff01", "bytes announced"),
        ("0a", "a number that does not end"),
        ("0880808080808080808080" + "01", "a number that does not end"),
        ("fa7fffffffffffffffffff02", "too large"),
        ("0a01ff", "field volume_id: expected UTF-8"),
        ("0801", "field volume_id: expected string, found wire type 0"),
        ("00", "field number 0"),
        ("8080808010" + "00", "field number 536870912"),
        ("0b0c", "field 1: wire type 3"),
        ("0c", "field 1: wire type 4"),
        ("0e", "field 1: wire type 6"),
        ("fd7f0102", "4 bytes announced, 2 left"),
    ],
)
def test_malformed_bytes_are_named(malformed: str, words: str) -> None:
    with pytest.raises(wire.MalformedError, match=words):
        wire.decode(NodeUnpublishVolumeRequest, bytes.fromhex(malformed))


def test_the_last_value_of_a_field_wins_and_messages_are_merged() -> None:
    assert wire.decode(NodeUnpublishVolumeRequest, bytes.fromhex("0a01610a0162")).volume_id == "b"
    twice = wire.encode(VolumeCapability(mount=MountVolume(fs_type="a", mount_flags=("x",)))) + wire.encode(
        VolumeCapability(mount=MountVolume(mount_flags=("y",)))
    )
    assert wire.decode(VolumeCapability, twice).mount == MountVolume(fs_type="a", mount_flags=("x", "y"))


def test_any_number_but_0_is_true() -> None:
    assert wire.decode(RegistrationStatus, bytes.fromhex("0802")).plugin_registered
    assert not wire.decode(RegistrationStatus, bytes.fromhex("0800")).plugin_registered
