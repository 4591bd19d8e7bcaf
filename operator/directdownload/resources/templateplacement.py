"""TemplatePlacement: one copy of a template in a pool; cluster-scoped, written by the controller alone."""

import enum
from typing import ClassVar

import pydantic

from directdownload.resources.base import (
    AGE,
    Column,
    Definition,
    Model,
    ObjectName,
    Resource,
    Status,
    Time,
    condition_column,
    rules,
)


class Phase(enum.StrEnum):
    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    READY = "Ready"
    FAILED = "Failed"
    REMOVING = "Removing"


class PlacedTemplate(Model):
    namespace: ObjectName = pydantic.Field(
        json_schema_extra=rules(expected="the namespace of a Template", example="default")
    )
    name: ObjectName = pydantic.Field(json_schema_extra=rules(expected="the name of a Template", example="debian-13"))
    uid: str = pydantic.Field(
        json_schema_extra=rules(expected="the uid of the Template", example="8f0c…", maxLength=64)
    )

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class TemplatePlacementSpec(Model):
    template_ref: PlacedTemplate = pydantic.Field(
        json_schema_extra=rules(
            expected="the Template that is placed", example="{namespace, name, uid}", immutable=True
        )
    )
    zone: ObjectName = pydantic.Field(
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=True)
    )
    pool: ObjectName = pydantic.Field(
        json_schema_extra=rules(expected="the name of a StoragePool", example="local", immutable=True)
    )
    host: ObjectName = pydantic.Field(
        description="The host that fetches it; may change for shared pools only.",
        json_schema_extra=rules(expected="the name of a Host", example="kvm-1"),
    )
    path: str = pydantic.Field(
        description="The published file.",
        json_schema_extra=rules(
            expected="the published file", example="/var/lib/libvirt/images/8f0c…", immutable=True, maxLength=2048
        ),
    )


class Observed(Model):
    """What the agent of the host sees under the final name."""

    present: bool | None = None
    size_bytes: int | None = None
    mtime: Time | None = None
    changed: bool | None = pydantic.Field(
        None, description="Size, mtime or inode are not those of the file that was verified last."
    )
    revision: str | None = pydantic.Field(
        None, description="The file.revision that was looked for; another one says nothing about the present file."
    )


class Progress(Model):
    bytes_downloaded: int | None = None
    bytes_total: int | None = None
    bytes_per_second: int | None = None
    eta_seconds: int | None = None
    percent: int | None = None
    source: str | None = None
    updated_time: Time | None = None


class PlacedFile(Model):
    path: str
    size_bytes: int | None = None
    served_bytes: int | None = pydantic.Field(
        None, description="Of the file as served, where an archive was unpacked; digest is of that file as well."
    )
    digest: str | None = None
    format: str | None = None
    virtual_size_bytes: int | None = None
    verified_time: Time | None = None
    revision: str | None = pydantic.Field(
        None, description="Opaque name of what was published or verified last; changes with every verification."
    )


class TemplatePlacementStatus(Status):
    phase: Phase | None = None
    observed: Observed | None = None
    started_time: Time | None = None
    progress: Progress | None = None
    file: PlacedFile | None = None
    attempts: int | None = None
    recent_failures: int | None = pydantic.Field(
        None, description="Failed attempts and repairs since the copy was last good for a while; decides the pause."
    )
    next_attempt_time: Time | None = None
    observed_inputs: str | None = pydantic.Field(
        None,
        description="Hash of what the last attempt was told, and what its host trusted; tried again when it changes.",
    )


class TemplatePlacement(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="TemplatePlacement",
        plural="templateplacements",
        short_name="ddplacement",
        namespaced=False,
        columns=(
            Column("Template", ".spec.templateRef.name"),
            Column("Host", ".spec.host"),
            Column("Pool", ".spec.pool"),
            Column("Phase", ".status.phase"),
            Column("Percent", ".status.progress.percent", "integer"),
            Column("Rate", ".status.progress.bytesPerSecond", "integer", description="bytes per second"),
            Column("ETA", ".status.progress.etaSeconds", "integer", description="seconds"),
            AGE,
            Column("Path", ".spec.path", wide=True),
            condition_column("Reason", "Ready", field="reason", wide=True),
        ),
        selectable_fields=(".spec.host", ".spec.zone", ".spec.pool"),
    )

    spec: TemplatePlacementSpec
    status: TemplatePlacementStatus = TemplatePlacementStatus()
