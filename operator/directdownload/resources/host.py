"""Host: one KVM host, made by the controller for each node that a Zone selects; it has its node's name."""

import functools
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import pydantic

from directdownload.resources.base import Model, ObjectName, Resource, Status, Time, defaults, rules
from directdownload.resources.definition import AGE, Column, Definition, Rule, condition_column
from directdownload.resources.peeridentity import PeerIdentity, PeerRequest
from directdownload.resources.reasons import Reason, Word, WordOrUnknown

_ABSOLUTE = (
    "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..') && !self.matches('[[:cntrl:]]')",
    "expected an absolute path without '..' or control characters, for example /etc/cloudstack/agent/cloud.jks",
)


class PasswordSource(Model):
    """File with the password of the keystore, below one of the chart's `agent.keystoreRoots`: one of the two."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.agentProperties) != has(self.file)",
            "expected exactly one of agentProperties and file, for example {file: /etc/cloudstack/agent/keystore.pass}",
        ),
    )

    agent_properties: str | None = pydantic.Field(
        None,
        description="A Java properties file on the host, with the key `keystore.passphrase`.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )
    file: str | None = pydantic.Field(
        None,
        description="A file on the host that holds only the password.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )


class KeystoreSpec(Model):
    """The Java keystore that receives the certificates."""

    path: str = pydantic.Field(
        "/etc/cloudstack/agent/cloud.jks",
        description="Its path on the host, below one of the chart's `agent.keystoreRoots`.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )
    # No default in the schema: it would be in each Host, beside what somebody adds to it.
    password_from: PasswordSource | None = pydantic.Field(
        None,
        description="Source of its password; absent: `keystore.passphrase` in "
        "`/etc/cloudstack/agent/agent.properties`.",
    )
    type: Literal["JKS", "PKCS12"] = pydantic.Field(
        "JKS", description="Type of a keystore that the agent creates; an existing keystore keeps its type."
    )
    create_if_missing: bool = pydantic.Field(
        True, description="true: the agent creates a missing keystore as soon as a certificate must go into it."
    )

    @property
    def password_source(self) -> PasswordSource:
        return self.password_from or PasswordSource(agent_properties="/etc/cloudstack/agent/agent.properties")


_NODE = "label the other node: the controller creates a Host for each node that a Zone selects"


_REACHED = (
    "self.all(a, isIP(a) && ip(a).isGlobalUnicast())",
    "expected addresses at which other hosts reach this one: none of loopback, link-local, multicast or unspecified, "
    "for example 192.0.2.7 or 2001:db8::7",
)
_ONE_OF_EACH_FAMILY = (
    "size(self) < 2 || !self.all(a, isIP(a)) || ip(self[0]).family() != ip(self[1]).family()",
    "expected at most one IPv4 and one IPv6 address, for example [192.0.2.7, '2001:db8::7']",
)


class HostSpec(Model):
    node_name: ObjectName = pydantic.Field(
        description="The Node; it has the same name as the Host.",
        json_schema_extra=rules(expected="the name of the node", example="kvm-1", immutable=_NODE),
    )
    zone: ObjectName = pydantic.Field(description="The Zone that selects the node; the controller keeps it.")
    allocation_state: Literal["Enabled", "Maintenance"] = pydantic.Field(
        "Enabled",
        description="Maintenance: nothing new starts on the host; running downloads continue. A cordoned node has the "
        "same effect.",
    )
    keystore: KeystoreSpec = defaults(KeystoreSpec)
    peer_addresses: tuple[Annotated[str, pydantic.Field(max_length=64)], ...] = pydantic.Field(
        (),
        max_length=2,
        description="Addresses at which other hosts read copies from this one, with the chart's `peers.enabled`: at "
        "most one IPv4 and one IPv6 address; empty: the internal addresses of the Node.",
        json_schema_extra=rules(_REACHED, _ONE_OF_EACH_FAMILY),
    )


class DriftKind(Word):
    ENTRY_MISSING = "EntryMissing"
    ENTRY_REPLACED = "EntryReplaced"
    STORE_MISSING = "StoreMissing"
    UNKNOWN = "Unknown"


class KeystoreType(Word):
    JKS = "JKS"
    PKCS12 = "PKCS12"
    UNKNOWN = "Unknown"


class ProofState(Word):
    UPLOADED = "Uploaded"
    REVOKED = "Revoked"
    FAILED = "Failed"
    PENDING = "Pending"
    UNKNOWN = "Unknown"


class UnplacedState(Word):
    PUBLISHED = "Published"
    PARTIAL = "Partial"
    UNKNOWN = "Unknown"


class HostState(Word):
    UP = "Up"
    DOWN = "Down"
    MAINTENANCE = "Maintenance"
    UNKNOWN = "Unknown"


class Architecture(WordOrUnknown):
    """Processor architecture of a host, in the words of `Template.spec.architecture`."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    S390X = "s390x"
    PPC64LE = "ppc64le"
    RISCV64 = "riscv64"
    UNKNOWN = "Unknown"


class KeystoreDrift(Model):
    """The last time that someone else changed or removed what the agent had imported."""

    kind: DriftKind = pydantic.Field(description="The difference that the agent found.")
    alias: str | None = pydantic.Field(None, description="Alias of the entry.")
    time: Time = pydantic.Field(description="When the agent found it.")


class KeystoreStatus(Model):
    """The keystore as the agent last read it back. Written by the agent."""

    type: KeystoreType | None = pydantic.Field(None, description="Type by its content, whatever its name.")
    entries: int | None = pydantic.Field(None, description="Number of entries, keys included.")
    managed: int | None = pydantic.Field(None, description="Number of entries that the agent imported or adopted.")
    sha256: str | None = pydantic.Field(None, description="SHA-256 of the file, hexadecimal.")
    last_verified_time: Time | None = pydantic.Field(
        None, description="When the agent read it back; renewed at most hourly while nothing changes."
    )
    last_drift: KeystoreDrift | None = pydantic.Field(None, description="The last repair.")


class HostCertificate(Model):
    """The proof for one certificate of the zone."""

    name: str = pydantic.Field(description="The DirectDownloadCertificate.")
    fingerprint_sha256: str | None = pydantic.Field(
        None,
        alias="fingerprintSHA256",
        description="Fingerprint that the agent read back from the keystore, if Uploaded.",
    )
    state: ProofState = pydantic.Field(
        description="Uploaded: the host has proved that the certificate is there. Revoked: that it is gone. Failed, "
        "Pending: neither."
    )
    reason: Reason | None = pydantic.Field(None, description="Reason, if it is not Uploaded.")
    message: str | None = pydantic.Field(None, description="The reason in words.")
    last_transition_time: Time | None = pydantic.Field(None, description="Time since when it is not Uploaded.")


#: Entries of `HostStatus.certificates`. Names of 63 characters make them a megabyte; an object may have 1.5 (etcd).
CERTIFICATES_LIMIT = 5000
#: Entries of `HostStorage.unplaced`; the sum of bytes counts all.
UNPLACED_LIMIT = 50


class UnplacedFile(Model):
    """Files in a pool that the product made and that belong to no placement (any more)."""

    name: str = pydantic.Field(
        description="Path relative to the pool; characters that cannot be shown are escaped, such as `\\xff` or "
        "`\\u202e`."
    )
    size_bytes: int | None = pydantic.Field(
        None, description="Size; of a Partial file: the space that it takes on the disk."
    )
    state: UnplacedState = pydantic.Field(
        description="Published: a verified file whose placement is gone. Partial: the rest of an ended download."
    )
    modified_time: Time | None = pydantic.Field(None, description="Time of the last write.")


class HostStorage(Model):
    """One pool as this host sees it."""

    pool: str = pydantic.Field(description="The StoragePool.")
    path: str | None = pydantic.Field(None, description="Directory of the pool.")
    capacity_bytes: int | None = pydantic.Field(None, description="Size of the file system.")
    available_bytes: int | None = pydantic.Field(None, description="Free space of the file system.")
    inodes_free: int | None = pydantic.Field(None, description="Free inodes of the file system.")
    writable: bool | None = pydantic.Field(None, description="Whether the file system is mounted for writing.")
    mounted: bool | None = pydantic.Field(None, description="Whether the path is a mount point of its own.")
    reason: Reason | None = pydantic.Field(None, description="Reason, if the pool is not usable.")
    missing_mount_options: tuple[str, ...] = pydantic.Field(
        (),
        json_schema_extra=rules(maxItems=8),
        description="Mount options that a pool should have and its mount lacks. Guests and servers write the files of "
        "a pool, and no such file may be a privileged program or a device of the host.",
    )
    unplaced: tuple[UnplacedFile, ...] = pydantic.Field(
        (),
        description="Files that belong to no placement: at most 50, the largest first.",
        json_schema_extra=rules(maxItems=UNPLACED_LIMIT),
    )
    unplaced_bytes: int | None = pydantic.Field(
        None, description="Size of all files that belong to no placement, including those that are not listed."
    )


#: Entries of `HostStatus.demands` and of `HostStatus.served`.
DEMANDS_LIMIT = 100
#: Characters of `ServedVolumes.message`.
SERVED_MESSAGE_LENGTH = 300


class Demand(Model):
    """Volumes on this host of one Template, for pods of one namespace."""

    namespace: str = pydantic.Field(max_length=63, description="Namespace of the pods.")
    template: str = pydantic.Field(
        max_length=320, description="The Template as the pods name it: `name`, or `namespace/name`."
    )
    uid: str = pydantic.Field(
        "",
        max_length=64,
        description="UID of the Template of which they have a copy; empty: they wait for their first one. A volume "
        "keeps the UID for its life.",
    )
    since: Time = pydantic.Field(description="When the first of them asked.")
    volumes: int = pydantic.Field(
        description="Volumes that are mounted or wait; 0: the copy is kept for a while.",
        json_schema_extra=rules(minimum=0),
    )
    last_used_time: Time | None = pydantic.Field(None, description="When the last volume went, if there is none.")

    @property
    def key(self) -> tuple[str, str, str]:
        return self.namespace, self.template, self.uid


class ServedState(Word):
    WAITING = "Waiting"
    READY = "Ready"
    REFUSED = "Refused"
    RELEASED = "Released"
    UNKNOWN = "Unknown"


class Served(Model):
    """The controller's answer to the demand of the same `namespace`, `template`, `uid` and `since`."""

    namespace: str = pydantic.Field(max_length=63, description="As in the demand.")
    template: str = pydantic.Field(max_length=320, description="As in the demand.")
    uid: str = pydantic.Field("", max_length=64, description="As in the demand.")
    since: Time = pydantic.Field(description="As in the demand.")
    state: ServedState = pydantic.Field(
        description="Ready: the copy lies at `path`. Waiting: it is being made, or something is in the way. Refused: "
        "the pods may not have it. Released: no volume has needed it for long enough, or the copy is kept otherwise."
    )
    template_uid: str | None = pydantic.Field(
        None, max_length=64, alias="templateUID", description="UID of the Template that is served."
    )
    path: str | None = pydantic.Field(None, max_length=2048, description="Path of the copy on this host, if Ready.")
    reason: Reason | None = pydantic.Field(None, description="Reason, if it is not Ready.")
    message: str | None = pydantic.Field(None, max_length=SERVED_MESSAGE_LENGTH, description="The reason in words.")

    @property
    def key(self) -> tuple[str, str, str]:
        return self.namespace, self.template, self.uid


class HostStatus(Status):
    state: HostState | None = pydantic.Field(None, description="Up: work may start on the host.")
    node_uid: str | None = pydantic.Field(
        None,
        alias="nodeUID",
        description="UID of the Node. A new Node of the same name is a reinstalled machine: its Ready copies are "
        "verified.",
    )
    architecture: Architecture | None = pydantic.Field(
        None,
        description="Processor architecture, from the node's label `kubernetes.io/arch`; Unknown: that names another "
        "one; absent: the node has no such label. A host whose architecture is not known gets the copies of every "
        "Template.",
    )
    agent_version: str | None = pydantic.Field(
        None, description="Version of the agent that reported last. Written by the agent."
    )
    keystore: KeystoreStatus | None = None
    certificates: tuple[HostCertificate, ...] = pydantic.Field(
        (),
        max_length=CERTIFICATES_LIMIT,
        description="The proof: one entry for each published certificate of the zone. Written by the agent.",
    )
    storage: tuple[HostStorage, ...] = pydantic.Field(
        (),
        description="Each pool as the host sees it. Written by the agent.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pool"]},
    )

    demands: tuple[Demand, ...] = pydantic.Field(
        (),
        max_length=DEMANDS_LIMIT,
        description="Templates that volumes of pods on this host need, or needed lately. Written by the agent.",
    )
    served: tuple[Served, ...] = pydantic.Field(
        (), max_length=DEMANDS_LIMIT, description="The answers to `demands`. Written by the controller."
    )
    peer_request: PeerRequest | None = pydantic.Field(
        None, description="With the chart's `peers.enabled`: the host's keys. Written by the agent."
    )
    peer: PeerIdentity | None = pydantic.Field(
        None, description="The answer to `peerRequest`. Written by the controller, and believed by the agent only."
    )

    @functools.cached_property
    def storage_by_pool(self) -> Mapping[str, HostStorage]:
        """Looked up for each of thousands of copies."""
        return {entry.pool: entry for entry in self.storage}


class Host(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="Host",
        plural="hosts",
        short_name="ddhost",
        namespaced=False,
        columns=(
            Column("Zone", ".spec.zone"),
            Column("State", ".status.state"),
            condition_column("Reason", "Ready", field="reason"),
            Column("Agent", ".status.agentVersion"),
            Column("Architecture", ".status.architecture", wide=True),
            AGE,
        ),
        selectable_fields=(".spec.zone", ".spec.nodeName"),
        rules=(
            Rule(
                "self.metadata.name == self.spec.nodeName",
                "expected the same value as metadata.name: a Host has its node's name, for example kvm-1",
                ".spec.nodeName",
            ),
        ),
    )

    spec: HostSpec
    status: HostStatus = defaults(HostStatus)
