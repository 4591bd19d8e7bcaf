"""StoragePool: primary storage, a directory on hosts of a zone; cluster-scoped, written by administrators."""

from typing import Annotated, ClassVar, Literal

import pydantic

from directdownload.resources.base import (
    Duration,
    LabelSelector,
    Model,
    ObjectName,
    Reserve,
    Resource,
    Status,
    Words,
    defaults,
    duration,
    rules,
    up_to,
)
from directdownload.resources.definition import AGE, Column, Definition, condition_column

#: A user or a group; the last number of 32 bits stands for none (chown(2)).
OwnerID = Annotated[int, pydantic.Field(json_schema_extra=up_to(2**32 - 2, 64055))]


class PoolFile(Model):
    """Owner and mode of published files."""

    uid: OwnerID = pydantic.Field(
        0, description="User ID; any but root needs `CHOWN` in the chart's `job.capabilities`, which is the default."
    )
    gid: OwnerID = pydantic.Field(0, description="Group ID; the same condition applies.")
    mode: str = pydantic.Field(
        "0644",
        description="Mode in octal digits, in quotes.",
        json_schema_extra=rules(
            ("self.matches('^0?[0-7]{3}$')", 'expected an octal mode in quotes, for example "0644"'), maxLength=16
        ),
    )


#: A pool of the same name would take over the copies of the old one, which keep their path.
_ANOTHER_POOL = "create another StoragePool, with another name"


class StoragePoolSpec(Model):
    zone: ObjectName = pydantic.Field(
        description="The Zone whose hosts have the pool.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=_ANOTHER_POOL),
    )
    type: Literal["Filesystem", "NetworkFilesystem", "SharedMountPoint"] = pydantic.Field(
        "Filesystem",
        description="Filesystem: each host has its own copy. NetworkFilesystem, SharedMountPoint: all hosts share one "
        "copy, which one Up host fetches; the path must be a mount point on each host.",
        json_schema_extra=rules(immutable=_ANOTHER_POOL),
    )
    path: str = pydantic.Field(
        description="The directory on the host, without links out of the pool roots. It must lie at or below one of "
        "the chart's `agent.poolRoots`; the path of a shared pool must lie strictly below.",
        json_schema_extra=rules(
            (
                "self.matches('^(/[^/[:cntrl:]]+)+$') && !self.matches('(^|/)[.][.]?(/|$)')",
                "expected an absolute path without '.', '..' or a trailing '/', for example /var/lib/libvirt/images",
            ),
            expected="an absolute path",
            example="/var/lib/libvirt/images",
            immutable=_ANOTHER_POOL,
            maxLength=1024,
        ),
    )
    host_selector: LabelSelector = defaults(
        LabelSelector, description="Hosts of the zone that have the pool; empty: all hosts."
    )
    verify_interval: Duration = duration(
        "168h",
        description="Each published file is read and compared with its digest once in this time. Each file has a "
        "moment of its own, so that a fleet is not read at once. The job reads at idle I/O priority, one file at a "
        "time on a host, and a zone verifies no more files at once than its `downloads.maxParallel`. 0: never.",
    )
    reserve: Reserve = pydantic.Field(
        "5%", description="Free space that downloads never use: a percentage of the file system, or a quantity."
    )
    file: PoolFile = defaults(PoolFile)

    @property
    def shared(self) -> bool:
        return self.type != "Filesystem"


class PoolHosts(Model):
    """Number of hosts with the pool."""

    total: int = pydantic.Field(0, description="Hosts that should have the pool.")
    ready: int = pydantic.Field(0, description="Hosts where the pool is usable.")


class StoragePoolStatus(Status):
    capacity_bytes: int | None = pydantic.Field(
        None,
        description="Size of the file systems, summed over the hosts where the pool is usable; a shared pool counts "
        "once.",
    )
    capacity: Words | None = pydantic.Field(None, description="`capacityBytes` for people, such as `1.8 TiB`.")
    available_bytes: int | None = pydantic.Field(None, description="Free space, summed in the same way.")
    available: Words | None = pydantic.Field(None, description="`availableBytes` for people.")
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
            Column("Capacity", ".status.capacity"),
            Column("Available", ".status.available"),
            condition_column("Ready", "Ready"),
            condition_column("Reason", "Ready", field="reason", wide=True),
            AGE,
        ),
        selectable_fields=(".spec.zone",),
    )

    spec: StoragePoolSpec
    status: StoragePoolStatus = defaults(StoragePoolStatus)
