"""Host: one KVM host, made by the controller for each node that a Zone selects; it has its node's name."""

import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

import pydantic

from directdownload.resources.base import (
    AGE,
    Column,
    Definition,
    Model,
    ObjectName,
    Resource,
    Rule,
    Status,
    Time,
    condition_column,
    rules,
)
from directdownload.resources.reasons import Reason, Word

_ABSOLUTE = (
    "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..') && !self.matches('[[:cntrl:]]')",
    "expected an absolute path without '..' or control characters, for example /etc/cloudstack/agent/cloud.jks",
)


class PasswordSource(Model):
    """Where the agent finds the keystore's password, below one of the chart's `agent.keystoreRoots`: one of the two."""

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
        description="A file on the host that holds the password alone.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )


class KeystoreSpec(Model):
    """The Java keystore that certificates are put into."""

    path: str = pydantic.Field(
        "/etc/cloudstack/agent/cloud.jks",
        description="Where it is on the host, below one of the chart's `agent.keystoreRoots`.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )
    # No default in the schema: it would be in each Host, beside what somebody adds to it.
    password_from: PasswordSource | None = pydantic.Field(
        None,
        description="Where its password is; absent: `keystore.passphrase` of `/etc/cloudstack/agent/agent.properties`.",
    )
    type: Literal["JKS", "PKCS12"] = pydantic.Field(
        "JKS", description="Of a missing one, when it is made; one that is there keeps its type."
    )
    create_if_missing: bool = pydantic.Field(
        True, description="Whether a missing one is made, once a certificate is to be put into it."
    )

    @property
    def password_source(self) -> PasswordSource:
        return self.password_from or PasswordSource(agent_properties="/etc/cloudstack/agent/agent.properties")


class HostSpec(Model):
    node_name: ObjectName = pydantic.Field(
        description="The node; the same as `metadata.name`.",
        json_schema_extra=rules(expected="the name of the node", example="kvm-1", immutable=True),
    )
    zone: ObjectName = pydantic.Field(description="The Zone that selects the node; kept by the controller.")
    allocation_state: Literal["Enabled", "Maintenance"] = pydantic.Field(
        "Enabled",
        description="Maintenance: nothing new starts on the host; running downloads go on. A cordoned node is the "
        "same.",
    )
    keystore: KeystoreSpec = KeystoreSpec()


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


class KeystoreDrift(Model):
    """The last time that someone else changed or removed what the agent had imported."""

    kind: DriftKind = pydantic.Field(description="What was found.")
    alias: str | None = pydantic.Field(None, description="Of the entry.")
    time: Time = pydantic.Field(description="When it was found.")


class KeystoreStatus(Model):
    """The keystore as it was last read back. Written by the agent."""

    type: KeystoreType | None = pydantic.Field(None, description="By its content, whatever its name.")
    entries: int | None = pydantic.Field(None, description="How many it holds, keys too.")
    managed: int | None = pydantic.Field(None, description="How many of them the agent imported or adopted.")
    sha256: str | None = pydantic.Field(None, description="Digest of the file, hexadecimal.")
    last_verified_time: Time | None = pydantic.Field(
        None, description="When it was read back; renewed at most hourly while nothing changes."
    )
    last_drift: KeystoreDrift | None = pydantic.Field(None, description="What was repaired last.")


class HostCertificate(Model):
    """The proof for one certificate of the zone."""

    name: str = pydantic.Field(description="The DirectDownloadCertificate.")
    fingerprint_sha256: str | None = pydantic.Field(
        None, alias="fingerprintSHA256", description="What was read back from the keystore, when Uploaded."
    )
    state: ProofState = pydantic.Field(
        description="What the host has proved: it is there, or it is gone; or why neither."
    )
    reason: Reason | None = pydantic.Field(None, description="Why, when it is not Uploaded.")
    message: str | None = pydantic.Field(None, description="The same in words.")
    last_transition_time: Time | None = pydantic.Field(None, description="Since when it is not Uploaded.")


#: Entries of `HostStatus.certificates`. Names of 63 characters make them a megabyte; an object may have 1.5 (etcd).
CERTIFICATES_LIMIT = 5000
#: Entries of `HostStorage.unplaced`; the sum of bytes counts all.
UNPLACED_LIMIT = 50


class UnplacedFile(Model):
    """What lies in a pool by the product's hand and belongs to no placement (any more)."""

    name: str = pydantic.Field(
        description="Relative to the pool; what cannot be shown stands there as `\\xff` or `\\u202e`."
    )
    size_bytes: int | None = pydantic.Field(None, description="Of a Partial one: what it takes on the disk.")
    state: UnplacedState = pydantic.Field(
        description="Published: a verified file whose placement is gone. Partial: what an ended download left."
    )
    modified_time: Time | None = pydantic.Field(None, description="When it was written last.")


class HostStorage(Model):
    """One pool as this host sees it."""

    pool: str = pydantic.Field(description="The StoragePool.")
    path: str | None = pydantic.Field(None, description="Its directory.")
    capacity_bytes: int | None = pydantic.Field(None, description="Of the file system.")
    available_bytes: int | None = pydantic.Field(None, description="Free space of the file system.")
    inodes_free: int | None = pydantic.Field(None, description="Inodes that are free.")
    writable: bool | None = pydantic.Field(None, description="Whether the file system is mounted for writing.")
    mounted: bool | None = pydantic.Field(None, description="Whether the path is a mount point of its own.")
    reason: Reason | None = pydantic.Field(None, description="Why it is not usable, when it is not.")
    missing_mount_options: tuple[str, ...] = pydantic.Field(
        (),
        json_schema_extra=rules(maxItems=8),
        description="Mount options that a pool should have and its mount has not: guests and servers write what lies "
        "there, and no file of it is to be a program with rights or a device of the host.",
    )
    unplaced: tuple[UnplacedFile, ...] = pydantic.Field(
        (),
        description="What lies there and belongs to no placement: at most 50 files, the largest first.",
        json_schema_extra=rules(maxItems=UNPLACED_LIMIT),
    )
    unplaced_bytes: int | None = pydantic.Field(None, description="The sum of all of them, also of those not listed.")


class HostStatus(Status):
    state: HostState | None = pydantic.Field(None, description="Up: work may start there.")
    node_uid: str | None = pydantic.Field(
        None,
        alias="nodeUID",
        description="Of the Node; another one of the same name is a machine installed anew: its Ready copies are "
        "verified.",
    )
    agent_version: str | None = pydantic.Field(
        None, description="Of the agent that reported last. Written by the agent."
    )
    keystore: KeystoreStatus | None = None
    certificates: tuple[HostCertificate, ...] = pydantic.Field(
        (),
        max_length=CERTIFICATES_LIMIT,
        description="The proof: an entry for each published certificate of the zone. Written by the agent.",
    )
    storage: tuple[HostStorage, ...] = pydantic.Field(
        (),
        description="Each pool of the host as it sees it. Written by the agent.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pool"]},
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
    status: HostStatus = HostStatus()
