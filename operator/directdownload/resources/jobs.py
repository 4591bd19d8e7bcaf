"""The input document of a download job, and its result.

The controller puts a `JobDocument` as JSON into the environment variable `DIRECTDOWNLOAD_JOB` of the job's container;
the job prints a `JobResult` as JSON and leaves it in the termination message, at most `RESULT_LIMIT_BYTES` long.
`directdownload fetch --json` prints the same result. Neither ever holds a secret: those are mounted files.
"""

import enum
from collections.abc import Mapping
from typing import Self

import pydantic

from directdownload.resources import peers
from directdownload.resources.base import Bytes, Duration, Model, defaults
from directdownload.resources.naming import MOST_CONNECTIONS
from directdownload.resources.reasons import DONE, PERMANENT, Reason
from directdownload.resources.storagepool import PoolFile
from directdownload.resources.zone import DownloadLimits, SourcePolicy, Timeouts

JOB_ENVIRONMENT_VARIABLE = "DIRECTDOWNLOAD_JOB"
RESULT_LIMIT_BYTES = 3000
#: The host's directory of records on files that it published or hashed itself, out of reach of writers of a pool.
SEAL_DIRECTORY = "/var/lib/directdownload/seals"


class Document(Model):
    """Unknown keys are refused, so that versions cannot drift apart silently."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Verb(enum.StrEnum):
    FETCH = "fetch"
    VERIFY = "verify"
    REMOVE = "remove"
    PROBE = "probe"


#: The successful results of each verb.
SUCCESSES: Mapping[Verb, frozenset[Reason]] = {
    Verb.FETCH: frozenset({Reason.DOWNLOADED, Reason.ALREADY_PRESENT}),
    Verb.VERIFY: frozenset({Reason.VERIFIED}),
    Verb.REMOVE: frozenset({Reason.REMOVED}),
    Verb.PROBE: frozenset({Reason.SOURCE_REACHABLE}),
}


class Limits(DownloadLimits):
    """Those of one job. 0 means no limit everywhere, and is what a document means that does not have one."""

    bandwidth_bytes_per_second: int = 0
    minimum_bytes_per_second: Bytes = 0
    deadline_seconds: Duration = 0
    progress_interval_seconds: float = 2
    #: connections to each source at once; 0: one, and up to four if more of them are faster
    connections: int = pydantic.Field(0, ge=0, le=MOST_CONNECTIONS)


class JobPool(Document):
    """The pool directory as the job sees it (the same path as on the host). `reserve` is a percentage or a quantity.

    A `shared` pool must be a mount of its own, below one of `roots`: the directories that the pod mounts.
    """

    name: str
    path: str
    shared: bool = False
    roots: tuple[str, ...] = ()
    reserve: str = "5%"
    file: PoolFile = defaults(PoolFile)


class PeerRole(enum.StrEnum):
    """What a job is to the other hosts; one without a role reads its source alone."""

    #: reads the source, and records the pieces of the file for the others
    SEED = "Seed"
    #: reads the pieces from other hosts only
    PEER = "Peer"


class JobParent(Document):
    """A host that may have pieces. `addresses`: at most one of each IP family, tried in turn."""

    host: str
    addresses: tuple[str, ...] = pydantic.Field((), max_length=peers.ADDRESSES_LIMIT)


class JobPeers(Document):
    """What a job needs to share a content (`resources.peers`) with other hosts. The signed texts are `peer.statements`.

    `warrant` is that of this host, which a Seed has. `keys` are the controller's public keys, base64 of the raw 32
    bytes; any of them may have signed.
    """

    role: PeerRole
    content: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    zone: str
    piece_bytes: int = pydantic.Field(ge=peers.SMALLEST_PIECE_BYTES, le=peers.LARGEST_PIECE_BYTES)
    grant: str = ""
    warrant: str = ""
    keys: tuple[str, ...] = pydantic.Field((), max_length=peers.KEYS_LIMIT)
    trust_domain: str = ""
    parents: tuple[JobParent, ...] = pydantic.Field((), max_length=peers.PARENTS_LIMIT)
    port: int = pydantic.Field(peers.DEFAULT_PORT, ge=1, le=65535)
    #: where the host's certificate, its key and the CAs of the other hosts are
    directory: str = peers.CLIENT_DIRECTORY


class JobDocument(Document):
    """One verb on one template in one pool. `file_name` is the published name below `pool.path`.

    A probe touches no pool and belongs to no placement: it alone has neither `placement`, `pool` nor `file_name`.
    """

    version: int = 1
    verb: Verb
    placement: str = ""
    placement_uid: str = ""
    template_uid: str
    host: str
    pool: JobPool = defaults(lambda: JobPool(name="", path=""))
    file_name: str = ""
    url: str
    mirrors: tuple[str, ...] = ()
    checksum: str = ""
    #: `sha256:<hex>`, learnt from an earlier copy; a copy that differs is `SourceChanged`
    expected_digest: str = ""
    #: verify: `sha256:<hex>` of the file as published, which differs from an unpacked archive's `expected_digest`
    published_digest: str = ""
    #: verify: `JobResult.revision` of the published file, if no `published_digest` is known
    published_revision: str = ""
    #: remove: even while a file in the pool names the published one as its backing file; never while one is locked
    remove_mentioned: bool = False
    format: str = "QCOW2"
    timeouts: Timeouts = defaults(Timeouts)
    limits: Limits = defaults(Limits)
    policy: SourcePolicy = defaults(SourcePolicy)
    #: PEM file of further trusted certificates; used if it exists
    trust_bundle: str = ""
    #: of the host, not of the pool; empty: nothing is kept
    seal_directory: str = SEAL_DIRECTORY
    #: directory with one file per header for the origin of `url`: its name is the header's name, its content the value
    headers_directory: str = ""
    #: fetch, verify: how the job shares the content with other hosts; None: it does not
    peers: JobPeers | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Refuses unknown keys everywhere, also in the types of a kind. Raises pydantic.ValidationError."""
        return cls.model_validate_json(text, extra="forbid")

    @pydantic.model_validator(mode="after")
    def _has_what_its_verb_needs(self) -> Self:
        placed = {
            "placement": self.placement,
            "placementUid": self.placement_uid,
            "pool": self.pool.path,
            "fileName": self.file_name,
        }
        wrong = [name for name, value in placed.items() if bool(value) is (self.verb is Verb.PROBE)]
        if wrong:
            expected = "a probe has none" if self.verb is Verb.PROBE else f"{self.verb} needs it"
            raise ValueError(f"{', '.join(wrong)}: {expected}")
        return self


class JobResult(Document):
    """The outcome of a job. `reason` decides everything; `message` is for people."""

    model_config = pydantic.ConfigDict(extra="ignore")

    reason: Reason
    message: str = ""
    path: str = ""
    #: of the published file; a probe: of the file as served
    size_bytes: int | None = None
    #: of the file as served, if the published file differs: an archive was unpacked
    served_bytes: int | None = None
    #: `sha256:<hex>` (or the algorithm that the checksum named) of the file as served
    digest: str = ""
    #: `sha256:<hex>` of the published file; empty if the job did not hash it
    published_digest: str = ""
    format: str = ""
    virtual_size_bytes: int | None = None
    source: str = ""
    seconds: float | None = None
    resumed_from: int = 0
    #: received by this attempt, from sources and from other hosts
    origin_bytes: int = 0
    peer_bytes: int = 0
    #: the content of which all pieces of the published file are recorded, for other hosts
    content: str = pydantic.Field("", max_length=64)
    #: a host whose piece was not what its proof says
    bad_host: str = pydantic.Field("", max_length=253)
    retry_after_seconds: float | None = None
    #: AlreadyPresent: when the file was hashed last, as its record says
    verified_time: pydantic.AwareDatetime | None = None
    #: of the record (`Record.revision`) of the file that was published, found or verified
    revision: str = pydantic.Field("", max_length=64)
    #: a probe: the server's name for this version of the file (ETag), its media type, whether it serves ranges
    etag: str = ""
    media_type: str = ""
    ranges: bool | None = None

    @property
    def done(self) -> bool:
        return self.reason in DONE

    @property
    def permanent(self) -> bool:
        return self.reason in PERMANENT

    def to_message(self) -> str:
        """JSON of at most `RESULT_LIMIT_BYTES` bytes: the message, then the source, are shortened to fit."""
        result = self
        for field in ("message", "source"):
            text = result.model_dump_json(exclude_defaults=True)
            excess = len(text.encode()) - RESULT_LIMIT_BYTES
            if excess <= 0:
                return text
            value: str = getattr(result, field)
            # one character is at most 12 bytes of JSON (an escaped surrogate pair), so halving converges quickly
            while excess > 0 and value:
                value = value[: max(0, len(value) - max(1, excess // 2))]
                result = result.model_copy(update={field: value})
                excess = len(result.model_dump_json(exclude_defaults=True).encode()) - RESULT_LIMIT_BYTES
        return result.model_dump_json(exclude_defaults=True)
