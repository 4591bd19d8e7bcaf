"""What the tests of planners and of the controller's parts share: small objects of every kind, and times.

Every function gives an ordinary object; keyword arguments change what the test is about. A `spec` is as in YAML.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from tests.world import kstatus

from directdownload.planning.observed import Job, Node, ObservedHost, PlacementView, Views
from directdownload.planning.plans import PlacementPlan, Surroundings
from directdownload.planning.rights import selection
from directdownload.planning.selection import Fleet
from directdownload.resources import base, naming
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host
from directdownload.resources.jobs import JobResult, Verb
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase, TemplatePlacementStatus
from directdownload.resources.zone import Zone

NOW = datetime.datetime(2025, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
ROOT = "/var/lib/libvirt"
POOL_PATH = f"{ROOT}/images"
DIGEST = "sha256:" + "ab" * 32
TEMPLATE_UID = "7d4f7a44-0000-4000-8000-000000000001"

Document = dict[str, Any]
VIEWS = Views()


def seconds(number: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=number)


def stamp(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata(name: str, **fields: Any) -> Document:
    """`deleting=True` and `requested_at=…` in short; all else as in the API."""
    found: Document = {"name": name, "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    found["creationTimestamp"] = stamp(NOW - seconds(86400))
    if fields.pop("deleting", False):
        found["deletionTimestamp"] = stamp(NOW)
    requested_at = fields.pop("requested_at", "")
    if requested_at:
        found["annotations"] = {base.REQUESTED_AT: requested_at}
    return {**found, **fields}


def condition(name: str, value: str, reason: Reason, since: datetime.datetime = NOW) -> Document:
    return {
        "type": name,
        "status": value,
        "reason": reason.value,
        "message": f"because of {reason}",
        "lastTransitionTime": stamp(since),
        "observedGeneration": 1,
    }


def zone(name: str = "zone-1", *, spec: Document | None = None, status: Document | None = None, **meta: Any) -> Zone:
    selector = {"nodeSelector": {"matchLabels": {"zone": name}}}
    document = {"metadata": metadata(name, **meta), "spec": {**selector, **(spec or {})}, "status": status or {}}
    return Zone.model_validate(document)


def node(name: str = "kvm-1", **fields: Any) -> Node:
    return Node(**{"name": name, "labels": {"zone": "zone-1"}, "ready": True, **fields})


def host_document(
    name: str = "kvm-1",
    state: str | None = "Up",
    *,
    zone: str = "zone-1",
    storage: Iterable[Document] = (),
    spec: Document | None = None,
    status: Document | None = None,
    **meta: Any,
) -> Document:
    reported: Document = {"storage": list(storage), **(status or {})}
    if state is not None:
        reported["state"] = state
    return {
        "metadata": metadata(name, **meta),
        "spec": {"nodeName": name, "zone": zone, **(spec or {})},
        "status": reported,
    }


def host(name: str = "kvm-1", state: str | None = "Up", **fields: Any) -> ObservedHost:
    """`fields` as of `host_document`."""
    return VIEWS.host(host_document(name, state, **fields))


def facts(pool: str = "local", **fields: Any) -> Document:
    return {"pool": pool, "capacityBytes": 1000, "availableBytes": 400, "writable": True, "mounted": True, **fields}


def pool(
    name: str = "local",
    *,
    zone: str = "zone-1",
    spec: Document | None = None,
    status: Document | None = None,
    **meta: Any,
) -> StoragePool:
    document = {
        "metadata": metadata(name, **meta),
        "spec": {"zone": zone, "path": POOL_PATH, **(spec or {})},
        "status": status or {},
    }
    return StoragePool.model_validate(document)


def certificate(
    name: str = "my-ca", *, spec: Document | None = None, status: Document | None = None, **meta: Any
) -> DirectDownloadCertificate:
    """Alias `My-CA`, and no `certificate` unless `spec` has one."""
    document = {
        "metadata": metadata(name, **meta),
        "spec": {"zone": "zone-1", "alias": "My-CA", **(spec or {})},
        "status": status or {},
    }
    return DirectDownloadCertificate.model_validate(document)


SHARED = {"type": "NetworkFilesystem"}


def file_status(*, verified: datetime.datetime = NOW, revision: str = "r1", **observed: Any) -> Document:
    """A published file in a placement's status; `observed` is what the agent says of that very revision."""
    file = {"path": f"{POOL_PATH}/{TEMPLATE_UID}", "sizeBytes": 4096, "digest": DIGEST, "verifiedTime": stamp(verified)}
    seen = {"observed": {"revision": revision, "present": True, **observed}} if observed else {}
    return {"file": {**file, "revision": revision}, **seen}


def template(
    name: str = "debian-13",
    *,
    namespace: str = "default",
    ready: bool = True,
    spec: Document | None = None,
    status: Document | None = None,
    **meta: Any,
) -> Template:
    conditions = [condition("Ready", "True" if ready else "False", Reason.REGISTERED if ready else Reason.INVALID_URL)]
    document = {
        "metadata": metadata(name, **{"namespace": namespace, "uid": TEMPLATE_UID, **meta}),
        "spec": {"url": "https://images.example.org/debian-13.qcow2", "format": "QCOW2", **(spec or {})},
        "status": {"conditions": conditions, **(status or {})},
    }
    return Template.model_validate(document)


def deployment(
    name: str = "everywhere",
    *,
    namespace: str = "default",
    observed: int | None = 1,
    granted: bool = True,
    spec: Document | None = None,
    status: Document | None = None,
    **meta: Any,
) -> TemplateDeployment:
    """Its placements have been planned as it is now, unless another generation was `observed`, or none (None).

    `granted`: with the right to copies, as version 0.1.0 has not written it.
    """
    document = {
        "metadata": metadata(name, **{"namespace": namespace, **meta}),
        "spec": {"templateRef": {"name": "debian-13"}, "zone": "zone-1", **(spec or {})},
        "status": status or {},
    }
    found = TemplateDeployment.model_validate(document)
    if observed is None:
        return found
    planned = selection(found) if observed == found.metadata.generation else "otherwise"
    reported = {"observedGeneration": observed, "observedSelection": planned, **(status or {})}
    if granted:
        right = {"selection": planned, "templateUID": TEMPLATE_UID, "time": stamp(NOW)}
        reported = {"granted": right, **reported}
    return TemplateDeployment.model_validate({**document, "status": reported})


def placement_document(
    *,
    pool: str = "local",
    host: str = "kvm-1",
    zone: str = "zone-1",
    shared: bool = False,
    phase: str | None = None,
    reason: Reason | None = None,
    status: Document | None = None,
    template_uid: str = TEMPLATE_UID,
    **meta: Any,
) -> Document:
    name = naming.placement_name("debian-13", template_uid, pool, None if shared else host)
    reported: Document = {}
    if phase is not None:
        ready, stalled = phase == "Ready", phase == "Failed"
        told = reason or Reason.DOWNLOADED
        truth = {"Ready": ready, "Reconciling": not ready and not stalled, "Stalled": stalled}
        reported = {
            "phase": phase,
            "observedGeneration": 1,
            "attempts": 0,
            "conditions": [condition(name, str(value), told) for name, value in truth.items()],
        }
    return {
        "apiVersion": f"{base.GROUP}/{base.VERSION}",
        "kind": "TemplatePlacement",
        "metadata": metadata(name, **{"finalizers": [base.FINALIZER], **meta}),
        "spec": {
            "templateRef": {"namespace": "default", "name": "debian-13", "uid": template_uid},
            "zone": zone,
            "pool": pool,
            "host": host,
            "path": f"{POOL_PATH}/{template_uid}",
        },
        "status": {**reported, **(status or {})},
    }


def placement(**fields: Any) -> PlacementView:
    return VIEWS.placement(placement_document(**fields))


def applied(view: PlacementView, status: TemplatePlacementStatus) -> PlacementView:
    """`view` as it reads back from the API once `status` has been written to it, through JSON and its whole seconds."""
    document = status_document(view, status)
    document["metadata"]["resourceVersion"] = str(view.resource_version + 1)
    return dataclasses.replace(
        VIEWS.placement(document),
        bytes_downloaded=view.bytes_downloaded,
        bytes_total=view.bytes_total,
        observed_present=view.observed_present,
        observed_changed=view.observed_changed,
        observed_revision=view.observed_revision,
    )


def status_document(view: PlacementView, status: TemplatePlacementStatus) -> Document:
    """The TemplatePlacement `view` with `status`, as the API serves it."""
    document = placement_document(
        pool=view.pool,
        host=view.host,
        zone=view.zone,
        generation=view.generation,
        deleting=view.deleting,
        requested_at=view.requested_at,
        template_uid=view.template_uid,
    )
    document["metadata"]["name"], document["metadata"]["uid"] = view.key, view.uid
    document["status"] = status.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return document


def check_kstatus(view: PlacementView, status: TemplatePlacementStatus) -> None:
    """Raises AssertionError unless `view` with `status` keeps the conventions."""
    kstatus.assert_kstatus(status_document(view, status))


def check_resource(item: base.Resource, status: base.Status) -> Document:
    """Raises AssertionError unless `item` with `status` keeps the conventions; the object as the API would serve it."""
    document: Document = {
        "apiVersion": f"{base.GROUP}/{base.VERSION}",
        "kind": item.DEFINITION.kind,
        "metadata": item.metadata.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "status": status.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True),
    }
    kstatus.assert_kstatus(document)
    return document


def job(verb: str = "fetch", attempt: int = 1, *, result: JobResult | Reason | None = None, **fields: Any) -> Job:
    """A running job; with a `result` one that has ended."""
    said = JobResult(reason=result, message=f"because of {result}") if isinstance(result, Reason) else result
    known: dict[str, Any] = {
        "name": f"job-{verb}-{attempt}",
        "verb": Verb(verb),
        "attempt": attempt,
        "created": NOW - seconds(60),
        "started": True,
        "finished": said is not None,
        "result": said,
    }
    return Job(**{**known, **fields})


def around(**fields: Any) -> Surroundings:
    """Everything there and usable."""
    known: dict[str, Any] = {
        "template": template(),
        "zone": zone(),
        "host": host(storage=[facts()]),
        "pool": pool(),
        "pool_roots": (ROOT,),
    }
    return Surroundings(**{**known, **fields})


def fleet(
    hosts: Iterable[Host] = (),
    pools: Iterable[StoragePool] | None = None,
    zones: Iterable[Zone] | None = None,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    **fields: Any,
) -> Fleet:
    return Fleet(
        zones={each.name: each for each in (zones if zones is not None else [zone()])},
        hosts=tuple(hosts),
        pools=tuple(pools if pools is not None else [pool()]),
        namespaces=namespaces if namespaces is not None else {"default": {}},
        pool_roots=(ROOT,),
        **fields,
    )


def by_key(*views: PlacementView) -> dict[str, PlacementView]:
    return {view.key: view for view in views}


def told(view: PlacementView, plan: PlacementPlan) -> tuple[Phase | None, Reason, list[str]]:
    """Phase, reason and the true conditions of a plan's status, which is checked on the way."""
    assert plan.status is not None
    check_kstatus(view, plan.status)
    true = [condition.type for condition in plan.status.conditions if condition.status == "True"]
    return plan.status.phase, plan.status.conditions[0].reason, true
