"""The planners' view of objects that come by the thousand: slotted projections instead of parsed models.

The controller's reflector keeps `PlacementView`s (tens of thousands in a large fleet); planners read them.
"""

import dataclasses
import datetime
import functools
import hashlib
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from directdownload.resources import base, quantities
from directdownload.resources.base import Condition, ObjectMeta
from directdownload.resources.host import Host, HostCertificate
from directdownload.resources.jobs import JobResult, PeerRole, Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import (
    BytesFrom,
    Phase,
    PlacedFile,
    PlacementPeers,
    Role,
    TemplatePlacementStatus,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """The part of a Node that a Host follows."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    unschedulable: bool = False
    uid: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Agent:
    """The agent pod of a host: whether it is ready, and if not, since when."""

    ready: bool
    unready_since: datetime.datetime | None = None
    #: in words, what keeps its pod from starting; empty: nothing is known
    cause: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Happening:
    """An Event of Kubernetes about a job or its pod; its texts fit for a status."""

    reason: str
    message: str
    warning: bool
    #: the API server's order
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """How far the pod of a job that has not started has come (`startup`)."""

    #: in words; empty: nothing is known
    cause: str = ""
    #: it does not start by itself
    blocked: bool = False
    #: for all that is known only its image is missing, which takes as long as it takes
    pulling: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A download job of a placement: one attempt at one verb."""

    name: str
    #: None: of another version, which knows more verbs
    verb: Verb | None
    attempt: int
    created: datetime.datetime
    #: a container of it has run
    started: bool = False
    finished: bool = False
    result: JobResult | None = None
    #: the kubelet's reason if there is no result: OOMKilled, ContainerCreating, …
    hint: str = ""
    deleting: bool = False
    #: the placement's `requested-at` at its creation: the job serves that request, and no later one
    request: str = ""
    #: how far its pod has come, if it has not started
    start: Start = Start()
    #: by the controller's clock: when it saw the job first, and when it asked last for Events about it
    seen: datetime.datetime | None = None
    asked: datetime.datetime | None = None
    #: what it is to other hosts, the content that it shares with them, and the latest Seed's epoch at its creation
    role: PeerRole | None = None
    content: str = ""
    epoch: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class FileView:
    """A `PlacedFile` in a tenth of its memory: there is one for each copy, and no two are equal."""

    path: str
    size_bytes: int | None
    served_bytes: int | None
    digest: str | None
    published_digest: str | None
    format: str | None
    virtual_size_bytes: int | None
    verified_time: datetime.datetime | None
    revision: str | None
    content: str | None
    bytes_from: BytesFrom | None

    def placed(self) -> PlacedFile:
        """The same as a status has it, with its sizes in words."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        sizes = {"size": self.size_bytes, "served": self.served_bytes, "virtual_size": self.virtual_size_bytes}
        return PlacedFile.model_construct(**values, **quantities.in_words(**sizes))


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementView:
    """A TemplatePlacement, small. `conditions` hold the times that a new status must carry on.

    Values that copies have in common (names, paths, times of one second, conditions) are one object for all of them.
    """

    key: str
    uid: str
    resource_version: int
    generation: int
    deleting: bool
    finalized: bool
    requested_at: str
    #: the namespace that it counts for (`quotas`); without one, as from version 0.1.0, it counts for the Template's
    namespace: str
    template_key: str
    template_uid: str
    zone: str
    pool: str
    host: str
    path: str
    created: datetime.datetime | None = None
    # From here to `observed_inputs`: fields of its status that the controller writes, under their names.
    observed_generation: int | None = None
    last_handled_request: str | None = None
    last_handled_request_time: datetime.datetime | None = None
    conditions: tuple[Condition, ...] = ()
    phase: Phase | None = None
    started_time: datetime.datetime | None = None
    file: FileView | None = None
    peers: PlacementPeers | None = None
    attempts: int = 0
    recent_failures: int = 0
    next_attempt_time: datetime.datetime | None = None
    #: hash of the last attempt's inputs
    observed_inputs: str | None = None
    bytes_downloaded: int = 0
    bytes_total: int = 0
    #: when the agent last saw the download make progress
    progressed: datetime.datetime | None = None
    #: what the agent saw under the final name, and the `file.revision` that this is about
    observed_present: bool = True
    observed_changed: bool = False
    observed_revision: str = ""
    #: an administrator has decided that files in its pool that name the copy do not hold it
    remove_mentioned: bool = False

    @property
    def reason(self) -> Reason | None:
        return self.conditions[0].reason if self.conditions else None

    @property
    def message(self) -> str:
        return self.conditions[0].message if self.conditions else ""

    @property
    def counted(self) -> Phase | None:
        """Its phase in counts: a download waits while its host is Down, and holds no slot."""
        lost = self.phase is Phase.DOWNLOADING and self.reason is Reason.HOST_DOWN
        return Phase.PENDING if lost else self.phase

    def fields(self) -> dict[str, Any]:
        """The fields of its status that the controller writes, as arguments of a status."""
        values = {name: getattr(self, name) for name in _CONTROLLERS}
        values["file"] = self.file.placed() if self.file is not None else None
        values["recent_failures"] = self.recent_failures or None
        return values

    def shows(self, status: TemplatePlacementStatus) -> bool:
        """Whether the object already says what `status` would write."""
        return all(getattr(status, name) == value for name, value in self.fields().items())


#: The agent writes the others.
_CONTROLLERS = tuple(name for name in TemplatePlacementStatus.model_fields if name not in ("observed", "progress"))


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace with the labels that selectors look at."""

    key: str
    uid: str
    resource_version: int
    labels: Mapping[str, str]


def project_namespace(document: Mapping[str, Any]) -> Namespace:
    metadata = ObjectMeta.model_validate(document["metadata"])
    return Namespace(metadata.name, metadata.uid, int(metadata.resource_version), metadata.labels)


@dataclasses.dataclass(frozen=True, slots=True)
class Revision:
    """An object whose content is read when it is needed: only that it exists, and its version."""

    key: str
    name: str
    uid: str
    resource_version: int


def project_revision(document: Mapping[str, Any]) -> Revision:
    metadata = document["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    return Revision(f"{namespace}/{name}", name, metadata["uid"], int(metadata["resourceVersion"]))


class Proofs(dict[str, HostCertificate]):
    """A host's report on each certificate, by the certificate's name; hosts with equal reports share it, unchanged."""

    __slots__ = ("__weakref__",)


class ObservedHost(Host):
    """A Host as the controller keeps it: the entries of `status.certificates`, hundreds on thousands of hosts, are
    its `proofs` instead. They have no times: by these hosts would differ, and no decision needs them."""

    proofs: pydantic.SkipValidation[Mapping[str, HostCertificate]] = pydantic.Field(exclude=True)


#: Characters kept of one field of a host's proof: it is hostile, and there are thousands.
MESSAGE_LIMIT = 1024
_PROOF_FIELDS = ("name", "fingerprintSHA256", "state", "reason", "message")


class Views:
    """Projects documents, as the API serves them, into views that are one object in memory where they say the same:
    names, paths, times of one second, conditions, reports. Their owner keeps it as long as the views."""

    def __init__(self) -> None:
        self._moment = functools.lru_cache(maxsize=4096)(datetime.datetime.fromisoformat)
        # Copies that became Ready within one second have equal conditions, times included.
        self._conditions = functools.lru_cache(maxsize=4096)(_conditions)
        # Most copies of a fleet are Peers that nothing has happened to.
        self._peers = functools.lru_cache(maxsize=4096)(_peers)
        self._bytes_from = functools.lru_cache(maxsize=4096)(_bytes_from)
        #: by a digest of the hosts' reports, for as long as a host has that report
        self._reports: weakref.WeakValueDictionary[bytes, Proofs] = weakref.WeakValueDictionary()
        # Hosts that differ in one certificate share their entries for all others.
        self._proof = functools.lru_cache(maxsize=16384)(_proof)

    def placement(self, document: Mapping[str, Any]) -> PlacementView:
        metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
        reference, progress, seen = spec["templateRef"], self._told(status, "progress"), self._told(status, "observed")
        intern = sys.intern
        file = status.get("file")
        return PlacementView(
            key=metadata["name"],
            uid=metadata["uid"],
            resource_version=int(metadata["resourceVersion"]),
            generation=metadata.get("generation", 0),
            deleting="deletionTimestamp" in metadata,
            finalized=base.FINALIZER in metadata.get("finalizers", ()),
            requested_at=base.request_in(metadata.get("annotations", {})),
            namespace=intern(metadata.get("labels", {}).get(base.NAMESPACE_LABEL) or reference["namespace"]),
            template_key=intern(f"{reference['namespace']}/{reference['name']}"),
            template_uid=intern(reference["uid"]),
            zone=intern(spec["zone"]),
            pool=intern(spec["pool"]),
            host=intern(spec["host"]),
            path=intern(spec["path"]),
            created=self._time(metadata.get("creationTimestamp")),
            phase=Phase(status["phase"]) if status.get("phase") else None,
            attempts=status.get("attempts", 0),
            next_attempt_time=self._time(status.get("nextAttemptTime")),
            started_time=self._time(status.get("startedTime")),
            file=self.file(file) if file and "path" in file else None,
            peers=self._peers(*map(peers.get, _PEERS_FIELDS)) if (peers := status.get("peers")) else None,
            observed_generation=status.get("observedGeneration"),
            last_handled_request=status.get("lastHandledRequest"),
            last_handled_request_time=self._time(status.get("lastHandledRequestTime")),
            conditions=self._conditions(
                tuple(tuple(map(c.get, _CONDITION_FIELDS)) for c in status.get("conditions", ()) if c["type"] in _ORDER)
            ),
            bytes_downloaded=progress.get("bytesDownloaded", 0),
            bytes_total=progress.get("bytesTotal", 0),
            progressed=self._time(progress.get("updatedTime")),
            recent_failures=status.get("recentFailures", 0),
            observed_inputs=intern(status.get("observedInputs", "")) or None,
            observed_present=seen.get("present", True),
            observed_changed=seen.get("changed", False),
            observed_revision=seen.get("revision", ""),
            remove_mentioned=metadata.get("annotations", {}).get(base.REMOVE_MENTIONED) == "true",
        )

    def file(self, document: Mapping[str, Any]) -> FileView:
        """`document` is `status.file` of a placement."""
        get, intern = document.get, sys.intern
        return FileView(
            path=intern(document["path"]),
            size_bytes=get("sizeBytes"),
            served_bytes=get("servedBytes"),
            digest=intern(get("digest") or "") or None,
            published_digest=intern(get("publishedDigest") or "") or None,
            format=intern(get("format") or "") or None,
            virtual_size_bytes=get("virtualSizeBytes"),
            verified_time=self._time(get("verifiedTime")),
            revision=get("revision"),
            content=intern(get("content") or "") or None,
            bytes_from=self._bytes_from(told.get("origin"), told.get("peers")) if (told := get("bytesFrom")) else None,
        )

    def host(self, document: Mapping[str, Any]) -> ObservedHost:
        status = dict(document.get("status") or {})
        proofs = self._proofs(status.pop("certificates", ()))
        return ObservedHost.model_validate({**document, "status": status, "proofs": proofs})

    def _time(self, text: str | None) -> datetime.datetime | None:
        return self._moment(text) if text else None

    def _told(self, status: Mapping[str, Any], field: str) -> Mapping[str, Any]:
        """The agent's report in `field`; empty if it cannot be read. The copy's life does not depend on it."""
        told = status.get(field)
        if not isinstance(told, Mapping):
            return {}
        try:
            self._time(told.get("updatedTime"))
        except (TypeError, ValueError):
            return {}
        return told if all(type(told.get(name, kind())) is kind for name, kind in _TOLD) else {}

    def _proofs(self, entries: Sequence[Mapping[str, Any]]) -> Proofs:
        told = [tuple(map(entry.get, _PROOF_FIELDS)) for entry in entries]
        # Not JSON: for hundreds of entries on each of thousands of hosts this takes half the time.
        digest = hashlib.sha256(repr(told).encode()).digest()
        found = self._reports.get(digest)
        if found is None:
            proofs = (self._proof(tuple(text and text[:MESSAGE_LIMIT] for text in values)) for values in told)
            found = self._reports[digest] = Proofs((proof.name, proof) for proof in proofs)
        return found


_ORDER = ("Ready", "Reconciling", "Stalled")
_CONDITION_FIELDS = tuple(field.alias or name for name, field in Condition.model_fields.items())


def _conditions(said: tuple[tuple[object, ...], ...]) -> tuple[Condition, ...]:
    given = ({k: v for k, v in zip(_CONDITION_FIELDS, values, strict=True) if v is not None} for values in said)
    return tuple(sorted(map(Condition.model_validate, given), key=lambda condition: _ORDER.index(condition.type)))


_PEERS_FIELDS = tuple(field.alias or name for name, field in PlacementPeers.model_fields.items())


def _peers(*values: object) -> PlacementPeers:
    given = {name: value for name, value in zip(_PEERS_FIELDS, values, strict=True) if value is not None}
    found = PlacementPeers.model_validate(given)
    # It is only shown; nobody writes what it reads as.
    return PlacementPeers.model_validate({**given, "role": None}) if found.role is Role.UNKNOWN else found


def _bytes_from(origin: int | None, peers: int | None) -> BytesFrom:
    return BytesFrom(origin=origin or 0, peers=peers or 0)


_TOLD: tuple[tuple[str, type], ...] = (
    *(("bytesDownloaded", int), ("bytesTotal", int)),
    *(("present", bool), ("changed", bool), ("revision", str)),
)


def _proof(values: tuple[str | None, ...]) -> HostCertificate:
    return HostCertificate.model_validate(dict(zip(_PROOF_FIELDS, values, strict=True)))
