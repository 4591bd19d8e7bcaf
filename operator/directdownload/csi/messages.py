"""The messages of CSI and of kubelet's plugin registration that the plugin reads and writes.

Names and numbers of fields are those of `csi.proto` of CSI 1.9 (container-storage-interface/spec) and of
`pluginregistration/v1/api.proto` (k8s.io/kubelet). Fields that the plugin neither reads nor writes are left out.
"""

import dataclasses
import enum

from directdownload.csi import wire


@dataclasses.dataclass(frozen=True, slots=True)
class Empty:
    """Every message without fields that we use: requests without arguments, answers without content."""


# csi.v1.Identity


@dataclasses.dataclass(frozen=True, slots=True)
class GetPluginInfoResponse:
    name: str = wire.text(1)
    vendor_version: str = wire.text(2)


@dataclasses.dataclass(frozen=True, slots=True)
class BoolValue:
    """google.protobuf.BoolValue"""

    value: bool = wire.flag(1)


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeResponse:
    ready: BoolValue | None = wire.message(1, BoolValue)


# csi.v1.Node


class AccessMode(enum.IntEnum):
    SINGLE_NODE_WRITER = 1
    SINGLE_NODE_READER_ONLY = 2
    MULTI_NODE_READER_ONLY = 3


@dataclasses.dataclass(frozen=True, slots=True)
class MountVolume:
    fs_type: str = wire.text(1)
    mount_flags: tuple[str, ...] = wire.texts(2)
    volume_mount_group: str = wire.text(3)


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """VolumeCapability.AccessMode; `mode` may be a number that AccessMode does not have."""

    mode: int = wire.number(1)


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeCapability:
    block: Empty | None = wire.message(1, Empty)
    mount: MountVolume | None = wire.message(2, MountVolume)
    access_mode: Access | None = wire.message(3, Access)


@dataclasses.dataclass(frozen=True, slots=True)
class NodePublishVolumeRequest:
    volume_id: str = wire.text(1)
    publish_context: dict[str, str] = wire.pairs(2)
    staging_target_path: str = wire.text(3)
    target_path: str = wire.text(4)
    volume_capability: VolumeCapability | None = wire.message(5, VolumeCapability)
    readonly: bool = wire.flag(6)
    secrets: dict[str, str] = wire.pairs(7)
    volume_context: dict[str, str] = wire.pairs(8)


@dataclasses.dataclass(frozen=True, slots=True)
class NodeUnpublishVolumeRequest:
    volume_id: str = wire.text(1)
    target_path: str = wire.text(2)


@dataclasses.dataclass(frozen=True, slots=True)
class NodeGetInfoResponse:
    node_id: str = wire.text(1)


# pluginregistration.Registration


@dataclasses.dataclass(frozen=True, slots=True)
class PluginInfo:
    type: str = wire.text(1)
    name: str = wire.text(2)
    endpoint: str = wire.text(3)
    supported_versions: tuple[str, ...] = wire.texts(4)


@dataclasses.dataclass(frozen=True, slots=True)
class RegistrationStatus:
    plugin_registered: bool = wire.flag(1)
    error: str = wire.text(2)
