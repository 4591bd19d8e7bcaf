"""TemplatePlacement: one copy of a template in a pool; cluster-scoped, written by the controller alone."""

from typing import ClassVar, Self

import pydantic

from directdownload.resources import naming, quantities
from directdownload.resources.base import Model, ObjectName, Resource, Status, Time, Words, defaults, rules
from directdownload.resources.definition import AGE, Column, Definition, condition_column
from directdownload.resources.reasons import Word


class Phase(Word):
    """A copy whose phase reads as Unknown is left alone: no Job for it, and nothing of it is removed."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    READY = "Ready"
    FAILED = "Failed"
    REMOVING = "Removing"
    UNKNOWN = "Unknown"


class Role(Word):
    """What a download is to the other hosts of its zone."""

    #: reads the source, for the others as well
    SEED = "Seed"
    #: reads other hosts only
    PEER = "Peer"
    #: reads the source, for itself
    ORIGIN = "Origin"
    UNKNOWN = "Unknown"


class PlacedTemplate(Model):
    namespace: ObjectName = pydantic.Field(
        description="Namespace of the Template.",
        json_schema_extra=rules(expected="the namespace of a Template", example="default"),
    )
    name: ObjectName = pydantic.Field(
        description="Name of the Template.",
        json_schema_extra=rules(expected="the name of a Template", example="debian-13"),
    )
    uid: str = pydantic.Field(
        description="UID of the Template. A Template that is created later under the same name has another.",
        json_schema_extra=rules(expected="the uid of the Template", example="8f0c…", maxLength=64),
    )

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


_PLANNED = "change the deployment: the controller creates and deletes placements"


class TemplatePlacementSpec(Model):
    template_ref: PlacedTemplate = pydantic.Field(
        description="The Template that is placed.",
        json_schema_extra=rules(
            expected="the Template that is placed", example="{namespace, name, uid}", immutable=_PLANNED
        ),
    )
    zone: ObjectName = pydantic.Field(
        description="The Zone of the host.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1", immutable=_PLANNED),
    )
    pool: ObjectName = pydantic.Field(
        description="The StoragePool that holds the copy.",
        json_schema_extra=rules(expected="the name of a StoragePool", example="local", immutable=_PLANNED),
    )
    host: ObjectName = pydantic.Field(
        description="The Host that fetches the copy. It changes only in shared pools.",
        json_schema_extra=rules(expected="the name of a Host", example="kvm-1"),
    )
    path: str = pydantic.Field(
        description="Path of the published file.",
        json_schema_extra=rules(
            (
                "self.matches('^(/[^/[:cntrl:]]+)+$')",
                "expected an absolute path without a trailing '/', for example /var/lib/libvirt/images/8f0c…",
            ),
            expected="the published file",
            example="/var/lib/libvirt/images/8f0c…",
            immutable=_PLANNED,
            maxLength=2048,
        ),
    )


#: Fields of `observed` and `progress` that say in words what others say in numbers.
WORDS = frozenset({"size", "downloaded", "total", "rate", "eta"})


class Observed(Model):
    """The file under the final name. Written by the agent."""

    present: bool | None = pydantic.Field(None, description="Whether the file exists.")
    size_bytes: int | None = pydantic.Field(None, description="Size of the file.")
    size: Words | None = pydantic.Field(None, description="`sizeBytes` for people.")
    mtime: Time | None = pydantic.Field(None, description="Modification time of the file.")
    changed: bool | None = pydantic.Field(
        None, description="true: size, modification time or inode differ from those of the verified file."
    )
    revision: str | None = pydantic.Field(
        None,
        description="The `file.revision` that the file was compared with. If it differs from the present "
        "`file.revision`, the observation does not count.",
    )

    def worded(self) -> Self:
        """With its numbers in words as well."""
        return self.model_copy(update=quantities.in_words(size=self.size_bytes))


class Progress(Model):
    """Progress of the running or the last download. Written by the agent."""

    bytes_downloaded: int | None = pydantic.Field(None, description="Bytes that have arrived.")
    downloaded: Words | None = pydantic.Field(None, description="`bytesDownloaded` for people, such as `45.0 MiB`.")
    bytes_total: int | None = pydantic.Field(None, description="Bytes in all, if the source reports them.")
    total: Words | None = pydantic.Field(None, description="`bytesTotal` for people.")
    bytes_per_second: int | None = pydantic.Field(None, description="Current rate.")
    rate: Words | None = pydantic.Field(None, description="`bytesPerSecond` for people, such as `12.3 MiB/s`.")
    eta_seconds: int | None = pydantic.Field(None, description="Remaining time at this rate.")
    eta: Words | None = pydantic.Field(None, description="`etaSeconds` for people, such as `2m05s`.")
    percent: int | None = pydantic.Field(None, description="Share of the bytes that have arrived.")
    source: str | None = pydantic.Field(None, description="Host name of the source.")
    updated_time: Time | None = pydantic.Field(None, description="Time of this progress.")

    def worded(self) -> Self:
        """With its numbers in words as well."""
        rate, eta = self.bytes_per_second, self.eta_seconds
        return self.model_copy(
            update={
                **quantities.in_words(downloaded=self.bytes_downloaded, total=self.bytes_total),
                "rate": quantities.rate(rate) if rate is not None else None,
                "eta": quantities.span(eta) if eta is not None else None,
            }
        )


class BytesFrom(Model):
    """Bytes that the download received which completed the copy."""

    origin: int = pydantic.Field(0, description="Bytes from the source and its mirrors.")
    peers: int = pydantic.Field(0, description="Bytes from other hosts.")


class PlacedFile(Model):
    """The verified copy."""

    path: str = pydantic.Field(description="Path of the file.")
    size_bytes: int | None = pydantic.Field(None, description="Size of the published file.")
    size: Words | None = pydantic.Field(None, description="`sizeBytes` for people, such as `312.0 MiB`.")
    served_bytes: int | None = pydantic.Field(
        None, description="Size of the archive, if the file was unpacked from one."
    )
    served: Words | None = pydantic.Field(None, description="`servedBytes` for people.")
    digest: str | None = pydantic.Field(None, description="`sha256:<hex>` of the file as served.")
    published_digest: str | None = pydantic.Field(
        None,
        description="`sha256:<hex>` of the published file, which differs from `digest` if an archive was unpacked. A "
        "verification compares with it.",
    )
    format: str | None = pydantic.Field(None, description="Format of the image.")
    virtual_size_bytes: int | None = pydantic.Field(
        None, description="Virtual size of the image, if its header has it."
    )
    virtual_size: Words | None = pydantic.Field(None, description="`virtualSizeBytes` for people.")
    verified_time: Time | None = pydantic.Field(None, description="When the file was last read and found as expected.")
    revision: str | None = pydantic.Field(
        None, description="Opaque name of the last publication or verification; each verification changes it."
    )
    content: str | None = pydantic.Field(
        None,
        max_length=64,
        description="The content that the host can serve to others: all pieces of the file are recorded beside it.",
    )
    bytes_from: BytesFrom | None = None


class PlacementPeers(Model):
    """The copy's part in the exchange between hosts; absent unless the chart's `peers.enabled` is set."""

    role: Role | None = pydantic.Field(
        None,
        description="Role of the running or the last download. Seed: it reads the source for all hosts of the zone. "
        "Peer: it reads other hosts. Origin: it reads the source for itself.",
    )
    unavailable: int | None = pydantic.Field(
        None,
        description="Downloads in a row that could reach no other host; from 3 on the copy reads the source.",
        json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT),
    )
    distrusted_epoch: int | None = pydantic.Field(
        None,
        description="The file from other hosts did not match the checksum: only a Seed of a later epoch counts.",
        json_schema_extra=rules(minimum=0),
    )


class TemplatePlacementStatus(Status):
    phase: Phase | None = pydantic.Field(None, description="Phase of the copy.")
    observed: Observed | None = None
    started_time: Time | None = pydantic.Field(None, description="When its first job was created.")
    progress: Progress | None = None
    file: PlacedFile | None = None
    peers: PlacementPeers | None = None
    attempts: int | None = pydantic.Field(
        None,
        description="Number of jobs so far: downloads, verifications and removals.",
        json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT),
    )
    recent_failures: int | None = pydantic.Field(
        None,
        description="Failed attempts and repairs since the copy was last good for longer than the Zone's "
        "`downloads.retry.maximum`; they decide the next pause.",
        json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT),
    )
    next_attempt_time: Time | None = pydantic.Field(
        None, description="When the next attempt starts, after a transient failure."
    )
    observed_inputs: str | None = pydantic.Field(
        None,
        description="Hash of the inputs of the last download (URLs, checksum, limits, source policy, file owner). A "
        "copy that failed for good is tried again when it changes. A hash of the host's keystore follows after a dot: "
        "after `TLSVerificationFailed` a changed keystore ends the pause.",
    )


class TemplatePlacement(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="TemplatePlacement",
        plural="templateplacements",
        short_name="ddplacement",
        namespaced=False,
        columns=(
            Column("Namespace", ".spec.templateRef.namespace", description="that of the Template"),
            Column("Template", ".spec.templateRef.name"),
            Column("Host", ".spec.host"),
            Column("Pool", ".spec.pool"),
            Column("Phase", ".status.phase"),
            Column("Percent", ".status.progress.percent", "integer"),
            Column("Rate", ".status.progress.rate"),
            Column("ETA", ".status.progress.eta"),
            AGE,
            Column("Size", ".status.file.size", wide=True),
            Column("Path", ".spec.path", wide=True),
            condition_column("Reason", "Ready", field="reason", wide=True),
        ),
        selectable_fields=(".spec.host", ".spec.zone", ".spec.pool", ".status.phase"),
    )

    spec: TemplatePlacementSpec
    status: TemplatePlacementStatus = defaults(TemplatePlacementStatus)
