"""Host: one KVM host, made by the controller for each node that a Zone selects; it has its node's name."""

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
from directdownload.resources.reasons import Reason

_ABSOLUTE = (
    "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..') && !self.matches('[[:cntrl:]]')",
    "expected an absolute path without '..' or control characters, for example /etc/cloudstack/agent/cloud.jks",
)


class PasswordSource(Model):
    """Where the host's agent finds the keystore password: one of the two."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.agentProperties) != has(self.file)",
            "expected exactly one of agentProperties and file, for example {file: /etc/cloudstack/agent/keystore.pass}",
        ),
    )

    agent_properties: str | None = pydantic.Field(
        None,
        description="A Java properties file with the key keystore.passphrase.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )
    file: str | None = pydantic.Field(
        None, description="A file that holds the password alone.", json_schema_extra=rules(_ABSOLUTE, maxLength=4096)
    )


class KeystoreSpec(Model):
    path: str = pydantic.Field(
        "/etc/cloudstack/agent/cloud.jks",
        description="The Java keystore on the host.",
        json_schema_extra=rules(_ABSOLUTE, maxLength=4096),
    )
    # No default in the schema: it would stand in each Host, beside what somebody adds to it.
    password_from: PasswordSource | None = pydantic.Field(
        None, description="Without it: keystore.passphrase of /etc/cloudstack/agent/agent.properties."
    )
    type: Literal["JKS", "PKCS12"] = pydantic.Field(
        "JKS", description="When a missing one is created; an existing one keeps its type."
    )
    create_if_missing: bool = True

    @property
    def password_source(self) -> PasswordSource:
        return self.password_from or PasswordSource(agent_properties="/etc/cloudstack/agent/agent.properties")


class HostSpec(Model):
    node_name: ObjectName = pydantic.Field(
        description="The node, which has the same name.",
        json_schema_extra=rules(expected="the name of the node", example="kvm-1", immutable=True),
    )
    zone: ObjectName = pydantic.Field(description="The Zone that selects the node; kept by the controller.")
    allocation_state: Literal["Enabled", "Maintenance"] = pydantic.Field(
        "Enabled", description="Maintenance: nothing new starts there (also while the node is cordoned)."
    )
    keystore: KeystoreSpec = KeystoreSpec()


class KeystoreDrift(Model):
    """The last time that someone else changed or removed what the agent had imported."""

    kind: Literal["EntryMissing", "EntryReplaced", "StoreMissing"]
    alias: str | None = None
    time: Time


class KeystoreStatus(Model):
    """The keystore as it was last read back."""

    type: Literal["JKS", "PKCS12"] | None = None
    entries: int | None = pydantic.Field(None, description="All that it holds, keys too.")
    managed: int | None = pydantic.Field(None, description="Those that the agent imported or adopted.")
    sha256: str | None = pydantic.Field(None, description="Of the file, hexadecimal.")
    last_verified_time: Time | None = pydantic.Field(None, description="Renewed at most hourly while nothing changes.")
    last_drift: KeystoreDrift | None = pydantic.Field(None, description="What was repaired last.")


class HostCertificate(Model):
    """The proof for one certificate; the last three fields only when it is not Uploaded."""

    name: str
    fingerprint_sha256: str | None = pydantic.Field(None, alias="fingerprintSHA256")
    state: Literal["Uploaded", "Revoked", "Failed", "Pending"]
    reason: Reason | None = None
    message: str | None = None
    last_transition_time: Time | None = None


#: Entries of `HostStatus.certificates`. Names of 63 characters make them a megabyte; an object may have 1.5 (etcd).
CERTIFICATES_LIMIT = 5000
#: Entries of `HostStorage.unplaced`; the sum of bytes counts all.
UNPLACED_LIMIT = 50


class UnplacedFile(Model):
    """What lies in a pool by our hand and belongs to no placement (any more)."""

    name: str
    size_bytes: int | None = None
    #: Published: a verified file with its record. Partial: what an ended download left
    state: Literal["Published", "Partial"]
    modified_time: Time | None = None


class HostStorage(Model):
    """One pool as this host sees it."""

    pool: str
    path: str | None = None
    capacity_bytes: int | None = None
    available_bytes: int | None = None
    inodes_free: int | None = None
    writable: bool | None = None
    mounted: bool | None = None
    #: why it is not usable, when it is not
    reason: Reason | None = None
    #: at most `UNPLACED_LIMIT`, the largest first; what placements name is not repeated here
    unplaced: tuple[UnplacedFile, ...] = ()
    unplaced_bytes: int | None = None


class HostStatus(Status):
    state: Literal["Up", "Down", "Maintenance"] | None = None
    node_uid: str | None = pydantic.Field(
        None, alias="nodeUID", description="Of the Node; another one of the same name is a machine installed anew."
    )
    agent_version: str | None = None
    keystore: KeystoreStatus | None = None
    certificates: tuple[HostCertificate, ...] = pydantic.Field((), max_length=CERTIFICATES_LIMIT)
    storage: tuple[HostStorage, ...] = pydantic.Field(
        (), json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pool"]}
    )


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
