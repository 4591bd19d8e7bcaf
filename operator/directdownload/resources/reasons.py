"""The one list of reasons, and the effect of each on a retry.

A reason is the same word everywhere: in the result of a job, the condition of an object, an event and a metric label.
Used by every other package; `docs/reasons.md` explains each to operators.
"""

import enum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pydantic
    import pydantic_core

UNKNOWN = "Unknown"


class Word(enum.StrEnum):
    """A closed list of words in a status, which may be longer in another version: an unlisted word reads as `Unknown`.

    Every list has the member UNKNOWN. It is in no CustomResourceDefinition, as nobody writes it (`WordOrUnknown`
    apart).
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(UNKNOWN) if isinstance(value, str) and value != UNKNOWN else None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: "pydantic_core.CoreSchema", handler: "pydantic.GetJsonSchemaHandler"
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        words = handler.resolve_ref_schema(schema)
        words["enum"] = [word for word in words["enum"] if word != UNKNOWN]
        return schema


class WordOrUnknown(Word):
    """One whose Unknown is written as well."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: "pydantic_core.CoreSchema", handler: "pydantic.GetJsonSchemaHandler"
    ) -> dict[str, Any]:
        return handler(core_schema)


class Reason(Word):
    """Every reason that a condition, an event, a job result or a metric label may carry."""

    #: of another version, which knows more of them
    UNKNOWN = "Unknown"
    # Any object
    UNREADABLE = "Unreadable"
    # Lease of the controllers
    LEADER_ELECTION = "LeaderElection"
    # Zone
    READY = "Ready"
    DISABLED = "Disabled"
    ZONE_CONFLICT = "ZoneConflict"
    NO_HOSTS = "NoHosts"
    # Host
    UP = "Up"
    NODE_NOT_READY = "NodeNotReady"
    NODE_NOT_FOUND = "NodeNotFound"
    AGENT_NOT_READY = "AgentNotReady"
    MAINTENANCE = "Maintenance"
    # StoragePool
    NOT_MOUNTED = "NotMounted"
    NOT_WRITABLE = "NotWritable"
    PATH_MISSING = "PathMissing"
    PATH_NOT_EXPOSED = "PathNotExposed"
    NO_READY_HOSTS = "NoReadyHosts"
    ZONE_NOT_FOUND = "ZoneNotFound"
    # Template
    REGISTERED = "Registered"
    INVALID_URL = "InvalidURL"
    UNSUPPORTED_PROTOCOL = "UnsupportedProtocol"
    INVALID_CHECKSUM = "InvalidChecksum"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a password
    SECRET_FORBIDDEN = "SecretForbidden"  # noqa: S105 - a reason, not a password
    SOURCE_REACHABLE = "SourceReachable"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    DIGESTS_DIFFER = "DigestsDiffer"
    # TemplateDeployment
    CONVERGED = "Converged"
    DOWNLOADING = "Downloading"
    PAUSED = "Paused"
    TEMPLATE_NOT_FOUND = "TemplateNotFound"
    TEMPLATE_NOT_READY = "TemplateNotReady"
    TEMPLATE_NOT_IN_ZONE = "TemplateNotInZone"
    TEMPLATE_NOT_ALLOWED = "TemplateNotAllowed"
    ZONE_DISABLED = "ZoneDisabled"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    NO_MATCHING_HOSTS = "NoMatchingHosts"
    NO_MATCHING_POOLS = "NoMatchingPools"
    HOST_NOT_FOUND = "HostNotFound"
    POOL_NOT_FOUND = "PoolNotFound"
    PLACEMENTS_FAILED = "PlacementsFailed"
    TOO_MANY_PLACEMENTS = "TooManyPlacements"
    # Volumes
    ON_DEMAND_DISABLED = "OnDemandDisabled"
    TOO_MANY_DEMANDS = "TooManyDemands"
    # Placements and job results: permanent
    URL_NOT_ALLOWED = "URLNotAllowed"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    SOURCE_REFUSED = "SourceRefused"
    TOO_MANY_REDIRECTS = "TooManyRedirects"
    METALINK_INVALID = "MetalinkInvalid"
    UNSAFE_IMAGE = "UnsafeImage"
    FORMAT_MISMATCH = "FormatMismatch"
    DECOMPRESSION_FAILED = "DecompressionFailed"
    TOO_LARGE = "TooLarge"
    CHECKSUM_REQUIRED = "ChecksumRequired"
    CHECKSUM_TOO_WEAK = "ChecksumTooWeak"
    ARCHITECTURE_MISMATCH = "ArchitectureMismatch"
    # Placements and job results: transient
    CONNECT_TIMEOUT = "ConnectTimeout"
    SOCKET_TIMEOUT = "SocketTimeout"
    TLS_VERIFICATION_FAILED = "TLSVerificationFailed"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    SOURCE_CHANGED = "SourceChanged"
    TRUNCATED = "Truncated"
    SOURCE_TOO_SLOW = "SourceTooSlow"
    NFS_ERROR = "NFSError"
    INSUFFICIENT_SPACE = "InsufficientSpace"
    POOL_NOT_READY = "PoolNotReady"
    WRITE_FAILED = "WriteFailed"
    INTERNAL_ERROR = "InternalError"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INTERRUPTED = "Interrupted"
    POD_BLOCKED = "PodBlocked"
    PEERS_UNAVAILABLE = "PeersUnavailable"
    PEERS_DIFFER = "PeersDiffer"
    # Placements: repaired
    ALTERED = "Altered"
    MISSING = "Missing"
    # Placements: waiting
    PREPARING = "Preparing"
    WAITING_FOR_SLOT = "WaitingForSlot"
    WAITING_FOR_SEED = "WaitingForSeed"
    HOST_DOWN = "HostDown"
    IN_USE = "InUse"
    # Placements and job results: done
    DOWNLOADED = "Downloaded"
    ALREADY_PRESENT = "AlreadyPresent"
    VERIFIED = "Verified"
    REMOVED = "Removed"
    # Certificates and keystores
    PROVISIONED = "Provisioned"
    PROVISIONING = "Provisioning"
    PROVISIONING_FAILED = "ProvisioningFailed"
    INVALID_CERTIFICATE = "InvalidCertificate"
    NOT_YET_VALID = "NotYetValid"
    EXPIRED = "Expired"
    EXPIRING_SOON = "ExpiringSoon"
    NOT_EXPIRING = "NotExpiring"
    RESERVED_ALIAS = "ReservedAlias"
    ALIAS_CONFLICT = "AliasConflict"
    REVOKED = "Revoked"
    KEYSTORE_SYNCED = "KeystoreSynced"
    KEYSTORE_UNREADABLE = "KeystoreUnreadable"
    KEYSTORE_PASSWORD_WRONG = "KeystorePasswordWrong"  # noqa: S105 - a reason, not a password
    KEYSTORE_PASSWORD_MISSING = "KeystorePasswordMissing"  # noqa: S105 - a reason, not a password
    KEYSTORE_MISSING = "KeystoreMissing"
    KEYSTORE_WRITE_FAILED = "KeystoreWriteFailed"
    KEYSTORE_REPAIRED = "KeystoreRepaired"


#: They stall until the spec changes or a retry is requested: another try cannot help.
PERMANENT = frozenset(
    {
        Reason.INVALID_URL,
        Reason.URL_NOT_ALLOWED,
        Reason.UNSUPPORTED_PROTOCOL,
        Reason.INVALID_CHECKSUM,
        Reason.CHECKSUM_MISMATCH,
        Reason.SOURCE_REFUSED,
        Reason.TOO_MANY_REDIRECTS,
        Reason.METALINK_INVALID,
        Reason.UNSAFE_IMAGE,
        Reason.FORMAT_MISMATCH,
        Reason.DECOMPRESSION_FAILED,
        Reason.TOO_LARGE,
        Reason.CHECKSUM_REQUIRED,
        Reason.CHECKSUM_TOO_WEAK,
        Reason.ARCHITECTURE_MISMATCH,
    }
)

#: Transient failures: they are tried again automatically.
TRANSIENT = frozenset(
    {
        Reason.CONNECT_TIMEOUT,
        Reason.SOCKET_TIMEOUT,
        Reason.TLS_VERIFICATION_FAILED,
        Reason.SOURCE_UNREACHABLE,
        Reason.SOURCE_UNAVAILABLE,
        Reason.SOURCE_TOO_SLOW,
        Reason.SOURCE_CHANGED,
        Reason.TRUNCATED,
        Reason.NFS_ERROR,
        Reason.INSUFFICIENT_SPACE,
        Reason.POOL_NOT_READY,
        Reason.NOT_MOUNTED,
        Reason.WRITE_FAILED,
        Reason.INTERNAL_ERROR,
        Reason.DEADLINE_EXCEEDED,
        Reason.INTERRUPTED,
        Reason.POD_BLOCKED,
        Reason.PEERS_UNAVAILABLE,
        Reason.PEERS_DIFFER,
    }
)

#: The verb succeeded.
DONE = frozenset({Reason.DOWNLOADED, Reason.ALREADY_PRESENT, Reason.VERIFIED, Reason.REMOVED, Reason.SOURCE_REACHABLE})

#: Nothing is wrong with the copy; it waits for something else.
WAITING = frozenset(
    {
        Reason.WAITING_FOR_SLOT,
        Reason.WAITING_FOR_SEED,
        Reason.HOST_DOWN,
        Reason.MAINTENANCE,
        Reason.ZONE_DISABLED,
        Reason.IN_USE,
        Reason.SECRET_NOT_FOUND,
        Reason.SECRET_FORBIDDEN,
    }
)
