"""StoragePool: primary storage, a directory on hosts of a zone; cluster-scoped, written by administrators."""

from typing import ClassVar, Literal

import pydantic

from directdownload.resources.base import (
    AGE,
    Column,
    Count,
    Definition,
    Duration,
    LabelSelector,
    Model,
    ObjectName,
    Reserve,
    Resource,
    Status,
    condition_column,
    rules,
)


class PoolFile(Model):
    """Owner and mode of published files."""

    uid: Count = 0
    gid: Count = 0
    mode: str = pydantic.Field(
        "0644",
        json_schema_extra=rules(
            ("self.matches('^0?[0-7]{3}$')", 'expected an octal mode in quotes, for example "0644"'), maxLength=16
        ),
    )


class StoragePoolSpec(Model):
    zone: ObjectName = pydantic.Field(
        description="The Zone whose hosts have it.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=True),
    )
    type: Literal["Filesystem", "NetworkFilesystem", "SharedMountPoint"] = pydantic.Field(
        "Filesystem",
        description="Filesystem: each host has its own copy. NetworkFilesystem, SharedMountPoint: one copy for all, "
        "fetched by one Up host.",
        json_schema_extra=rules(immutable=True),
    )
    path: str = pydantic.Field(
        description="The directory; it must lie under a root that the chart exposes (agent.poolRoots).",
        json_schema_extra=rules(
            (
                "self.matches('^(/[^/[:cntrl:]]+)+$') && !self.matches('(^|/)[.][.]?(/|$)')",
                "expected an absolute path without '.', '..' or a trailing '/', for example /var/lib/libvirt/images",
            ),
            expected="an absolute path",
            example="/var/lib/libvirt/images",
            immutable=True,
            maxLength=1024,
        ),
    )
    host_selector: LabelSelector = pydantic.Field(
        LabelSelector(), description="Hosts of the zone that have it; empty: all."
    )
    verify_interval: Duration = pydantic.Field("168h", description="Full re-verification of what lies there; 0: never.")  # type: ignore[assignment]
    reserve: Reserve = pydantic.Field("5%", description="Free space never used: percent or quantity.")
    file: PoolFile = PoolFile()

    @property
    def shared(self) -> bool:
        return self.type != "Filesystem"


class PoolHosts(Model):
    total: int = 0
    ready: int = 0


class StoragePoolStatus(Status):
    capacity_bytes: int | None = None
    available_bytes: int | None = None
    hosts: PoolHosts | None = None


class StoragePool(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="StoragePool",
        plural="storagepools",
        short_name="ddpool",
        namespaced=False,
        columns=(
            Column("Zone", ".spec.zone"),
            Column("Type", ".spec.type"),
            Column("Path", ".spec.path"),
            Column("Hosts", ".status.hosts.total", "integer"),
            Column("Usable", ".status.hosts.ready", "integer"),
            condition_column("Ready", "Ready"),
            condition_column("Reason", "Ready", field="reason", wide=True),
            AGE,
        ),
        selectable_fields=(".spec.zone",),
    )

    spec: StoragePoolSpec
    status: StoragePoolStatus = StoragePoolStatus()
