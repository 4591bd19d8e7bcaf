"""Zone: a set of KVM hosts with its limits, timeouts and source policy; cluster-scoped, written by administrators."""

from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

from directdownload.resources.base import (
    Bytes,
    Connections,
    Count,
    Duration,
    LabelSelector,
    Model,
    ObjectName,
    Resource,
    Status,
    defaults,
    duration,
    rules,
    up_to,
)
from directdownload.resources.definition import AGE, Column, Definition, condition_column
from directdownload.resources.nfsexports import EXAMPLE

_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
#: As `nfsexports.NFSExport.parse` has it. Only IPv6 addresses are in brackets.
_NFS_EXPORTS = (
    r"self.all(e, e.matches(r'^([\[][0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*[\]]|[A-Za-z0-9_]([-A-Za-z0-9._]*[A-Za-z0-9_])?)"
    rf"(:({_PORT}))?:/([^/]|$)') && !e.matches('/[.][.]?(/|$)|[[:cntrl:]]') && "
    r"(!e.startsWith('[') || isIP(e.substring(1, e.indexOf(']')))))"
)
_NFSExports = Annotated[tuple[Annotated[str, pydantic.Field(max_length=256)], ...], pydantic.Field(max_length=32)]
#: A user or group in AUTH_SYS, an unsigned number of 32 bits.
ServerID = Annotated[int, pydantic.Field(ge=0, le=2**32 - 1, json_schema_extra=up_to(2**32 - 1, 65534))]


class ZoneCertificates(Model):
    """How the keystores of the zone's hosts are kept."""

    expiry_warning: Duration = duration(
        "720h", description="How long before its expiry a certificate is reported as Expiring."
    )
    sync_interval: Duration = duration(
        "10m",
        description="How often each host reads its whole keystore back without a cause; `0s`: never; less than a "
        "second counts as one. A change of the file, or of the trust bundle, is noticed within a second in any case.",
    )


def _names(field: str) -> pydantic.AliasChoices:
    name = field.replace("_bytes_per_second", "_rate").removesuffix("_seconds").removesuffix("_bytes")
    return pydantic.AliasChoices(to_camel(name), to_camel(field))


class Measured(Model):
    """A Zone has `deadline: 12h` and `maxSize: 10Gi`; a job document has `deadlineSeconds` and `maxSizeBytes`."""

    model_config = pydantic.ConfigDict(
        alias_generator=pydantic.AliasGenerator(validation_alias=_names, serialization_alias=to_camel)
    )


class Timeouts(Measured):
    """How long a download waits: CloudStack's `direct.download.*` settings. They apply to NFS as well."""

    connect_seconds: Duration = duration(
        "5s", description="Longest time to connect: name resolution, TCP and TLS together."
    )
    socket_seconds: Duration = duration(
        "5s", description="Longest silence while data is expected; it does not limit the whole transfer."
    )
    connection_request_seconds: Duration = duration(
        "5s", description="Longest wait for a free connection to an origin; a job has at most 8 of them."
    )


class Retry(Model):
    """Pauses after attempts that failed with a transient reason."""

    initial: Duration = duration(
        "5s",
        description="Pause after the first failed attempt; each further failure doubles it. Each pause is shortened "
        "by up to a quarter, so that hosts spread out.",
    )
    maximum: Duration = duration(
        "10m", description="Longest pause; the `Retry-After` of a server may lengthen it to an hour at most."
    )


class Shares(Measured):
    """How downloads share a zone, its hosts and the sources."""

    max_parallel: Count = pydantic.Field(20, description="Downloads at once in the zone; 0: no limit.")
    max_parallel_per_host: Count = pydantic.Field(2, description="Downloads at once on one host; 0: no limit.")
    max_parallel_per_source: Count = pydantic.Field(
        16,
        description="Downloads at once, in all zones together, of templates whose `url` names the same host; 0: no "
        "limit.",
    )
    max_parallel_per_namespace: Count = pydantic.Field(
        16,
        description="Downloads at once in the zone of the templates of one namespace; 0: no limit. A value below "
        "`maxParallel` leaves room for other namespaces, however slow the servers of one namespace are.",
    )
    connections_per_source: Connections = pydantic.Field(
        0,
        description="Most connections of one download to each of its sources, at most 8. 0: one, and up to four where "
        "more of them are faster.",
    )
    bandwidth_per_host: Bytes = pydantic.Field(
        0,
        description="Bytes per second of a host. Each download gets this divided by `maxParallelPerHost` (all of it if "
        "that is 0). 0: no limit.",
    )


class DownloadLimits(Measured):
    """Limits that each download obeys by itself."""

    minimum_bytes_per_second: Bytes = pydantic.Field(
        "64Ki",
        description="Bytes per second that a download must receive on average over 2 minutes. Otherwise the attempt "
        "ends with `SourceTooSlow` and is tried again. It is never more than half of the download's share of "
        "`bandwidthPerHost`. Time in which it waits for the host and not for its sources does not count. 0: no "
        "minimum.",
    )  # type: ignore[assignment]
    deadline_seconds: Duration = duration("12h", description="Longest time of one attempt; 0: no limit.")
    max_size_bytes: Bytes = pydantic.Field(0, description="Largest file as served; 0: no limit.")
    max_virtual_size_bytes: Bytes = pydantic.Field(0, description="Largest virtual size of an image; 0: no limit.")


# The bases from right to left are the order of the fields in the API.
class Downloads(DownloadLimits, Shares):
    """Limits on downloads. A download reads them when it starts; a change does not touch running ones."""

    retry: Retry = defaults(Retry)


class NFSUser(Model):
    """The user that reads from NFS servers (AUTH_SYS), without supplementary groups."""

    uid: ServerID = pydantic.Field(
        65534, description="User ID; `0` reads every file of an export without root squashing."
    )
    gid: ServerID = pydantic.Field(65534, description="Group ID.")


class SourcePolicy(Model):
    """Where templates may come from. A download reads it when it starts."""

    # `nfs_exports` and `nfs_user` of None allow every export, and name the user of the process: for `directdownload
    # fetch`, which acts for its own user. No Zone can say that: the API server drops null, and `ZoneSpec` refuses it.

    protocols: tuple[Literal["HTTP", "HTTPS", "NFS"], ...] = pydantic.Field(
        ("HTTP", "HTTPS", "NFS"),
        description="Protocols that URLs, redirects and sources of metalinks may use.",
        max_length=3,
    )
    # Bounded, as all of the policy travels to a job in one environment variable (at most 128 KiB, execve(2)).
    allowed_hosts: tuple[Annotated[str, pydantic.Field(max_length=253)], ...] = pydantic.Field(
        (),
        description="Host names that URLs and redirects may use, exact or as `*.example.org`; empty: any.",
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
        description="Address ranges such as `127.0.0.0/8` or `fd00::/8`: exceptions to the ranges that are always "
        "denied. Those are unspecified, loopback, link-local, multicast, broadcast, the metadata addresses of clouds, "
        "and the IPv6 ranges that stand for IPv4: `64:ff9b:1::/48`, 6to4, Teredo. Private ranges are allowed. The "
        "address is checked after the name is resolved, for every URL, redirect and metalink; the connection goes to "
        "the address that was checked.",
        max_length=256,
        json_schema_extra=rules(
            ("self.all(c, isCIDR(c))", "expected address ranges such as 10.0.0.0/8 or fd00::/8"),
        ),
    )
    nfs_exports: _NFSExports | SkipJsonSchema[None] = pydantic.Field(
        (),
        description="NFS exports, or directories in them, that URLs, mirrors and sources of metalinks may read from, "
        "such as `nfs.example.org:/export/templates`; with a port `nfs.example.org:2050:/export/templates`; an IPv6 "
        'address as `"[fd00::5]:/export"`. Everything below is allowed. Symbolic links that lead out of it are not '
        "followed. Empty: NFS is refused.",
        json_schema_extra=rules(
            (_NFS_EXPORTS, f"expected a host and a directory without . and .., for example {EXAMPLE}")
        ),
    )
    nfs_user: NFSUser | SkipJsonSchema[None] = defaults(NFSUser)
    max_redirects: int = pydantic.Field(
        5, ge=0, le=20, description="Most redirects of one request, 0 to 20.", json_schema_extra=up_to(20, 5)
    )
    require_checksum: bool = pydantic.Field(
        False, description="true: a template without a checksum fails with `ChecksumRequired`."
    )
    require_direct: bool = pydantic.Field(
        False,
        description="true: downloads never use the chart's proxy. Behind a proxy only names and literal addresses can "
        "be checked, because the proxy resolves the names.",
    )
    minimum_checksum: Literal["MD5", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"] = pydantic.Field(
        "MD5", description="Weakest checksum algorithm that is accepted."
    )


class OnDemand(Model):
    """Copies for volumes: a pod names a Template, and the host on which it is scheduled fetches it."""

    enabled: bool = pydantic.Field(
        False,
        description="true: pods may ask for templates on the hosts of this zone. false: none is served anew; volumes "
        "that pods have go on, and nothing is removed.",
    )
    namespaces: LabelSelector | None = pydantic.Field(
        None,
        description="Namespaces whose pods may ask; `{}`: all; absent: none. `templateNamespaces` and the Template's "
        "`allowedNamespaces` hold as well.",
    )
    pool: ObjectName | None = pydantic.Field(
        None,
        description="StoragePool for copies that are made for volumes; absent: the first usable one by name. A copy "
        "that is there already is used wherever it is.",
    )
    keep: Duration = duration(
        "1h",
        description="How long a copy stays after its last volume on the host is gone, unless a deployment wants it.",
    )
    max_per_host: Count = pydantic.Field(
        20,
        description="Most templates that the pods of one host may ask for; 0: no limit. At the limit the copy that has "
        "been without a volume for the longest time goes early.",
    )


class ZonePeers(Measured):
    """How hosts read copies from each other, where the chart's `peers.enabled` is set."""

    max_parallel: Count = pydantic.Field(
        0,
        description="Downloads from other hosts at once in the zone; 0: no limit. `downloads.maxParallel`, "
        "`maxParallelPerSource` and `maxParallelPerNamespace` count only downloads that read the source; "
        "`maxParallelPerHost` and `rollout.maxParallel` count all.",
    )


class ZoneSpec(Model):
    enabled: bool = pydantic.Field(
        True, description="false: nothing new starts in the zone. Running downloads continue, and nothing is removed."
    )
    node_selector: LabelSelector = pydantic.Field(
        description="Each node that matches becomes a Host of this zone, now and later. `{}` selects every node.",
        json_schema_extra=rules(
            expected="a label selector over nodes",
            example="{matchLabels: {topology.kubernetes.io/zone: zone-1}}",
        ),
    )
    template_namespaces: LabelSelector = defaults(
        LabelSelector, description="Namespaces whose TemplateDeployments may name this zone; empty: all."
    )
    placements_per_namespace: Count = pydantic.Field(
        10_000,
        description="Most placements in the zone for the TemplateDeployments of one namespace. At the limit no more "
        "are created, and none is removed. 0: no limit.",
    )
    certificates: ZoneCertificates = defaults(ZoneCertificates)
    timeouts: Timeouts = defaults(Timeouts)
    downloads: Downloads = defaults(Downloads)
    source_policy: SourcePolicy = defaults(SourcePolicy)
    on_demand: OnDemand = defaults(OnDemand)
    peers: ZonePeers = defaults(ZonePeers)

    @pydantic.field_validator("source_policy")
    @classmethod
    def _of_a_zone(cls, policy: SourcePolicy) -> SourcePolicy:
        if policy.nfs_exports is None or policy.nfs_user is None:
            raise ValueError("nfsExports and nfsUser: expected a value, not null")
        return policy


class ZoneHosts(Model):
    """Number of Hosts of the zone."""

    total: int = pydantic.Field(0, description="All Hosts.")
    up: int = pydantic.Field(0, description="Hosts that are Up: work may start there.")


class ZonePeersStatus(Model):
    """How hosts of the zone read copies from each other; absent unless the chart's `peers.enabled` is set."""

    unavailable: int = pydantic.Field(
        0,
        description="Copies that read the source although other hosts have them: three times in a row no other host "
        "could be reached.",
    )


class ZoneStatus(Status):
    hosts: ZoneHosts | None = None
    peers: ZonePeersStatus | None = None


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
    status: ZoneStatus = defaults(ZoneStatus)
