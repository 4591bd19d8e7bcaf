"""TemplatePlacement: one copy of a template in a pool; cluster-scoped, written by the controller alone."""

from typing import ClassVar

import pydantic

from directdownload.resources import naming
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
from directdownload.resources.reasons import Word


class Phase(Word):
    """A copy whose phase reads as Unknown is left alone: no Job for it, and nothing of it is removed."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    READY = "Ready"
    FAILED = "Failed"
    REMOVING = "Removing"
    UNKNOWN = "Unknown"


class PlacedTemplate(Model):
    namespace: ObjectName = pydantic.Field(
        description="Its namespace.",
        json_schema_extra=rules(expected="the namespace of a Template", example="default"),
    )
    name: ObjectName = pydantic.Field(
        description="Its name.", json_schema_extra=rules(expected="the name of a Template", example="debian-13")
    )
    uid: str = pydantic.Field(
        description="Its uid: one that is made later under the same name is another.",
        json_schema_extra=rules(expected="the uid of the Template", example="8f0c…", maxLength=64),
    )

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class TemplatePlacementSpec(Model):
    template_ref: PlacedTemplate = pydantic.Field(
        description="The Template that is placed.",
        json_schema_extra=rules(
            expected="the Template that is placed", example="{namespace, name, uid}", immutable=True
        ),
    )
    zone: ObjectName = pydantic.Field(
        description="The Zone of the host.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=True),
    )
    pool: ObjectName = pydantic.Field(
        description="The StoragePool that holds the copy.",
        json_schema_extra=rules(expected="the name of a StoragePool", example="local", immutable=True),
    )
    host: ObjectName = pydantic.Field(
        description="The host that fetches the copy; may change for shared pools only.",
        json_schema_extra=rules(expected="the name of a Host", example="kvm-1"),
    )
    path: str = pydantic.Field(
        description="The published file.",
        json_schema_extra=rules(
            (
                "self.matches('^(/[^/[:cntrl:]]+)+$')",
                "expected an absolute path without a trailing '/', for example /var/lib/libvirt/images/8f0c…",
            ),
            expected="the published file",
            example="/var/lib/libvirt/images/8f0c…",
            immutable=True,
            maxLength=2048,
        ),
    )


class Observed(Model):
    """What lies under the final name. Written by the agent."""

    present: bool | None = pydantic.Field(None, description="Whether there is a file.")
    size_bytes: int | None = pydantic.Field(None, description="Its size.")
    mtime: Time | None = pydantic.Field(None, description="Its modification time.")
    changed: bool | None = pydantic.Field(
        None, description="Size, modification time or inode are not those of the verified file."
    )
    revision: str | None = pydantic.Field(
        None,
        description="The `file.revision` that it was compared with; another one says nothing about the present file.",
    )


class Progress(Model):
    """Of the running download, or of the last one. Written by the agent."""

    bytes_downloaded: int | None = pydantic.Field(None, description="How much has arrived.")
    bytes_total: int | None = pydantic.Field(None, description="Of how much, where the source tells.")
    bytes_per_second: int | None = pydantic.Field(None, description="How fast.")
    eta_seconds: int | None = pydantic.Field(None, description="How long it will take at this rate.")
    percent: int | None = pydantic.Field(None, description="Of the bytes in all.")
    source: str | None = pydantic.Field(None, description="Host name of the source.")
    updated_time: Time | None = pydantic.Field(None, description="When this was so.")


class PlacedFile(Model):
    """The verified copy."""

    path: str = pydantic.Field(description="Where it is.")
    size_bytes: int | None = pydantic.Field(None, description="Of the file that was published.")
    served_bytes: int | None = pydantic.Field(None, description="Of the archive that it was unpacked from.")
    digest: str | None = pydantic.Field(None, description="`sha256:<hex>` of the file as served.")
    published_digest: str | None = pydantic.Field(
        None,
        description="`sha256:<hex>` of the published file, which is another one where an archive was unpacked; what a "
        "verification compares with.",
    )
    format: str | None = pydantic.Field(None, description="Of the image.")
    virtual_size_bytes: int | None = pydantic.Field(None, description="Of the disk in it, where its header tells.")
    verified_time: Time | None = pydantic.Field(None, description="When it was last read and found as expected.")
    revision: str | None = pydantic.Field(
        None, description="Opaque name of what was published or verified last; changes with every verification."
    )


class TemplatePlacementStatus(Status):
    phase: Phase | None = pydantic.Field(None, description="Where in its life the copy is.")
    observed: Observed | None = None
    started_time: Time | None = pydantic.Field(None, description="When its first job was made.")
    progress: Progress | None = None
    file: PlacedFile | None = None
    attempts: int | None = pydantic.Field(
        None,
        description="Jobs so far: downloads, verifications and removals.",
        json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT),
    )
    recent_failures: int | None = pydantic.Field(
        None,
        description="Failed attempts and repairs since the copy was last good for longer than the Zone's "
        "`downloads.retry.maximum`; decides the next pause.",
        json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT),
    )
    next_attempt_time: Time | None = pydantic.Field(
        None, description="When the next attempt starts, after one that failed for a reason that may pass."
    )
    observed_inputs: str | None = pydantic.Field(
        None,
        description="Hash of what the last download was told (URLs, checksum, limits, source policy, file owner); a "
        "copy that failed for good is tried again when it changes. After a dot, a hash of the host's keystore: after "
        "`TLSVerificationFailed` another keystore ends the pause.",
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
