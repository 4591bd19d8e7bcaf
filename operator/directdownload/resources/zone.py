"""Zone: a set of KVM hosts with its limits, timeouts and source policy; cluster-scoped, written by administrators."""

from typing import Annotated, ClassVar, Literal

import pydantic

from directdownload.resources.base import (
    AGE,
    Bytes,
    Column,
    Count,
    Definition,
    Duration,
    LabelSelector,
    Model,
    Resource,
    Status,
    condition_column,
    rules,
)


class ZoneCertificates(Model):
    """How the keystores of the zone's hosts are kept."""

    expiry_warning: Duration = pydantic.Field(
        "720h", description="How long before its end a certificate is told as Expiring."
    )  # type: ignore[assignment]
    sync_interval: Duration = pydantic.Field(
        "10m", description="How often each host re-checks its whole keystore without being told; 0s: never."
    )  # type: ignore[assignment]


class ZoneTimeouts(Model):
    """CloudStack's `direct.download.*` settings."""

    connect: Duration = pydantic.Field("5s", description="Establishing a connection.")  # type: ignore[assignment]
    socket: Duration = pydantic.Field("5s", description="Silence between two packets, not the whole transfer.")  # type: ignore[assignment]
    connection_request: Duration = pydantic.Field("5s", description="Waiting for a connection of the pool.")  # type: ignore[assignment]


class Retry(Model):
    initial: Duration = pydantic.Field(
        "5s", description="Pause after the first failure; doubles with each further one."
    )  # type: ignore[assignment]
    maximum: Duration = pydantic.Field("10m", description="Longest pause between two attempts.")  # type: ignore[assignment]


class Downloads(Model):
    """Limits on downloads; 0 means none."""

    max_parallel: Count = pydantic.Field(20, description="Downloads at once in the zone; 0: no limit.")
    max_parallel_per_host: Count = pydantic.Field(2, description="Downloads at once on one host; 0: no limit.")
    max_parallel_per_source: Count = pydantic.Field(
        0, description="Downloads at once from one origin host; 0: no limit."
    )
    bandwidth_per_host: Bytes = pydantic.Field(
        0, description="Bytes per second, shared by the downloads of a host; 0: no limit."
    )
    deadline: Duration = pydantic.Field("12h", description="Longest time for one attempt; 0: no limit.")  # type: ignore[assignment]
    max_size: Bytes = pydantic.Field(0, description="Bytes of a template as served; 0: no limit.")
    max_virtual_size: Bytes = pydantic.Field(0, description="Bytes that an image claims to hold; 0: no limit.")
    retry: Retry = Retry()


class SourcePolicy(Model):
    """Where templates may come from."""

    protocols: tuple[Literal["HTTP", "HTTPS", "NFS"], ...] = pydantic.Field(
        ("HTTP", "HTTPS", "NFS"), description="Allowed protocols; a metalink expands to these.", max_length=3
    )
    # Bounded, as all of the policy travels to a job in one environment variable (at most 128 KiB, execve(2)).
    allowed_hosts: tuple[Annotated[str, pydantic.Field(max_length=253)], ...] = pydantic.Field(
        (),
        description="Exact host names or *.example.org; empty: any.",
        max_length=256,
        json_schema_extra=rules(
            (
                "self.all(h, isIP(h) || h.matches('^([*][.])?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$'))",
                "expected host names without scheme and port, for example images.example.org or *.example.org",
            ),
        ),
    )
    allowed_cidrs: tuple[Annotated[str, pydantic.Field(max_length=64)], ...] = pydantic.Field(
        (),
        alias="allowedCIDRs",
        description="Exceptions to the denied address ranges.",
        max_length=256,
        json_schema_extra=rules(
            ("self.all(c, isCIDR(c))", "expected address ranges such as 10.0.0.0/8 or fd00::/8"),
        ),
    )
    max_redirects: int = pydantic.Field(
        5,
        ge=0,
        le=20,
        description="Redirects followed for one request.",
        json_schema_extra=rules(("self >= 0 && self <= 20", "expected a number from 0 to 20, for example 5")),
    )
    require_checksum: bool = pydantic.Field(False, description="Refuse templates without a checksum.")
    require_direct: bool = pydantic.Field(False, description="Never download through a proxy.")
    minimum_checksum: Literal["MD5", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"] = pydantic.Field(
        "MD5", description="Weakest checksum algorithm accepted."
    )


class ZoneSpec(Model):
    enabled: bool = pydantic.Field(True, description="false: nothing new is provisioned or downloaded there.")
    node_selector: LabelSelector = pydantic.Field(
        description="Nodes that become Hosts of this zone.",
        json_schema_extra=rules(
            expected="a label selector over nodes",
            example="{matchLabels: {topology.kubernetes.io/zone: zone-1}}",
        ),
    )
    template_namespaces: LabelSelector = pydantic.Field(
        LabelSelector(), description="Namespaces that may deploy here; empty: all."
    )
    certificates: ZoneCertificates = ZoneCertificates()
    timeouts: ZoneTimeouts = ZoneTimeouts()
    downloads: Downloads = Downloads()
    source_policy: SourcePolicy = SourcePolicy()


class ZoneHosts(Model):
    total: int = 0
    up: int = 0


class ZoneStatus(Status):
    hosts: ZoneHosts | None = None


class Zone(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="Zone",
        plural="zones",
        short_name="ddzone",
        namespaced=False,
        columns=(
            Column("Enabled", ".spec.enabled", "boolean"),
            Column("Hosts", ".status.hosts.total", "integer"),
            Column("Up", ".status.hosts.up", "integer"),
            condition_column("Ready", "Ready"),
            condition_column("Reason", "Ready", field="reason"),
            AGE,
        ),
    )

    spec: ZoneSpec
    status: ZoneStatus = ZoneStatus()
