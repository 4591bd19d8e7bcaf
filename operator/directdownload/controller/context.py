"""The world, queue and API that every reconciler gets, and the writes that several of them share."""

import asyncio
import dataclasses
import datetime
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from directdownload.cluster import client, errors, kinds
from directdownload.cluster.objects import JobView, project_job
from directdownload.controller import events, peer_identity, settings, world
from directdownload.controller.queue import Key, WorkQueue
from directdownload.controller.swarms import Swarms
from directdownload.observe import logs
from directdownload.planning import plans, requests
from directdownload.planning.observed import PlacementView, Views
from directdownload.resources import base, certificate, storagepool, template, templatedeployment, zone
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase

logger = logging.getLogger(__name__)

#: The controller's fields of a Host's status.
_OF_HOSTS = frozenset(
    {
        *("state", "nodeUID", "architecture", "served", "peer", "conditions"),
        *("observedGeneration", "lastHandledRequest", "lastHandledRequestTime"),
    }
)
#: Limit on concurrent requests of one reconcile.
_PARALLEL_REQUESTS = 16
#: Not ready, and no problem: every zone and every pool starts with it.
_EXPECTED = frozenset({Reason.NO_HOSTS, Reason.NO_READY_HOSTS})

_PROJECTIONS: Mapping[kinds.Resource, Any] = {
    kinds.ZONES: zone.Zone.model_validate,
    kinds.STORAGE_POOLS: storagepool.StoragePool.model_validate,
    kinds.TEMPLATES: template.Template.model_validate,
    kinds.TEMPLATE_DEPLOYMENTS: templatedeployment.TemplateDeployment.model_validate,
    kinds.CERTIFICATES: certificate.DirectDownloadCertificate.model_validate,
    kinds.JOBS: project_job,
}

T = TypeVar("T")


def projections(views: Views) -> Mapping[kinds.Resource, Any]:
    """How the stores hold the objects of each kind that this process writes."""
    return {**_PROJECTIONS, kinds.HOSTS: views.host, kinds.TEMPLATE_PLACEMENTS: views.placement}


def dump(model: base.Model) -> dict[str, Any]:
    """The model as the API expects it: only fields that were set, without nulls."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """The world, the queue and the API of one leading controller."""

    api: client.Api
    world: world.World
    queue: WorkQueue
    settings: settings.Settings
    job_template: Mapping[str, Any]
    recorder: events.Recorder
    #: None: hosts do not serve each other
    registrar: peer_identity.Registrar | None = None
    #: None: hosts do not read from each other
    swarms: Swarms | None = None
    #: of `world.views`
    projections: Mapping[kinds.Resource, Any] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "projections", projections(self.world.views))

    @property
    def peers(self) -> peer_identity.Peers | None:
        """What jobs need for reading from other hosts; None: they do not, or the authority is missing."""
        return self.registrar.peers if self.registrar is not None else None

    @staticmethod
    def now() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def store(self, resource: kinds.Resource) -> Any:
        return self.world.jobs if resource is kinds.JOBS else self.world.ours[resource]

    def observe(self, resource: kinds.Resource, document: dict[str, Any]) -> None:
        """Takes a document from the API, or the result of a write, into the store, so that the next plan sees it."""
        self.store(resource).take(resource, self.projections[resource], document)

    def look_again(self, key: Key, when: datetime.datetime | None) -> None:
        if when is not None:
            self.queue.add_later(key, (when - self.now()).total_seconds())

    async def apply(
        self, resource: kinds.Resource, item: Any, body: Mapping[str, Any], *, subresource: str | None = None
    ) -> None:
        """Server-side apply to `item`, by uid. A deleted object is not created again; for a status the API server
        compares no uids, and only the next reconcile notices another object of that name."""
        namespace, _, name = item.key.rpartition("/")
        metadata = {"name": name, "uid": item.uid, **body.get("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        document = {**body, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        try:
            answer = await self.api.apply(
                resource, document, manager=base.CONTROLLER, subresource=subresource, namespace=namespace or None
            )
        except errors.NotFound:
            # It is gone or another one has its name. A conflict with other writers is different: what is written here
            # (how a job ended) may be known nowhere else.
            self._gone(resource, item.key, item.resource_version)
            return
        self.observe(resource, answer)

    async def write_status(self, resource: kinds.Resource, item: Any, status: base.Status) -> bool:
        """Applies `status` to `item` unless it has it already. True if written."""
        wanted, present = dump(status), dump(item.status)
        own = _OF_HOSTS if resource is kinds.HOSTS else wanted.keys() | present.keys()
        if all(wanted.get(field) == present.get(field) for field in own - {"conditions"}) and same_conditions(
            status, item.status
        ):
            return False
        await self.apply(resource, item, {"status": wanted}, subresource="status")
        return True

    def tell(
        self,
        resource: kinds.Resource,
        item: events.Regarded,
        event_type: events.EventType,
        reason: Reason,
        message: str,
        action: str = "Reconcile",
        **fields: Any,
    ) -> None:
        """Reports a transition of `item` once: an Event, and a line in the log with the further `fields`."""
        level = logging.WARNING if event_type == "Warning" else logging.INFO
        about = logs.about(resource.kind, item.key, reason=str(reason), **fields)
        logger.log(level, "%s %s: %s: %s", resource.kind, item.key, reason, message, extra=about)
        self.recorder.tell(resource, item, event_type, reason, message, action)

    def tell_ready(self, resource: kinds.Resource, item: Any, status: base.Status) -> None:
        """Reports it if the reason of Ready in `status`, just written, differs from that in `item`."""
        ready, old = status.condition("Ready"), item.status.condition("Ready")
        if ready is None or (old is not None and old.reason == ready.reason):
            return
        trouble = ready.status != base.ConditionStatus.TRUE and ready.reason not in _EXPECTED
        self.tell(resource, item, "Warning" if trouble else "Normal", ready.reason, ready.message)

    async def set_finalizer(self, resource: kinds.Resource, item: base.Resource, *, present: bool) -> bool:
        """Puts our finalizer on `item`, or takes it off; those of others stay. False if `item` is gone."""
        finalizers = [name for name in item.metadata.finalizers if name != base.FINALIZER]
        if present:
            finalizers.append(base.FINALIZER)
        if tuple(finalizers) == item.metadata.finalizers:
            return True
        return await self.patch_finalizers(resource, item.key, item.metadata.resource_version, finalizers)

    async def patch_finalizers(
        self, resource: kinds.Resource, key: str, resource_version: str, finalizers: list[str]
    ) -> bool:
        """False if there is no such object. Conflict if it has changed since `resource_version`: it is tried again."""
        namespace, _, name = key.rpartition("/")
        patch = {"metadata": {"resourceVersion": resource_version, "finalizers": finalizers}}
        try:
            answer = await self.api.merge_patch(resource, name, patch, namespace=namespace or None)
        except errors.NotFound:
            self._gone(resource, key, int(resource_version))
            return False
        if "deletionTimestamp" not in answer["metadata"] or finalizers:
            self.observe(resource, answer)
        return True

    async def delete_job(self, view: JobView) -> None:
        """Deletes it once: the next plan does not see it, also if it changed while the API server was asked."""
        if not view.deleting:
            await self.api.delete(kinds.JOBS, view.name, namespace=view.namespace, uid=view.uid)
        self.forget_deleted(kinds.JOBS, view, view.resource_version)

    def forget_deleted(self, resource: kinds.Resource, item: Any, resource_version: int) -> None:
        """Before its event arrives, no reconcile may find `item`, which was deleted at this version or a later one that
        its watch has reported meanwhile. Another object of its name stays."""
        store = self.store(resource)
        held = store.get(item.key)
        if held is not None and held.uid == item.uid:
            resource_version = max(resource_version, held.resource_version)
        store.forget(item.key, resource_version)

    def _gone(self, resource: kinds.Resource, key: str, resource_version: int) -> None:
        """The API server reports it as gone. Its watch may not: kopf does not report every deletion (`kopf_source`)."""
        store = self.store(resource)
        if key in store or key in store.unreadable:
            store.forget(key, resource_version)

    async def retry_stalled(
        self, key: Key, item: requests.Requested, copies: Iterable[PlacementView], now: datetime.datetime
    ) -> None:
        """Hands a due request on `item` on to those of its `copies` that failed or wait for something.

        If it is not due yet, `key`, whose reconcile calls this, is looked at again when it is. The status that is
        planned at the same `now` for the same `item` reports it as served.
        """
        due = requests.due_of(item, now)
        if requests.is_due(due, now):
            request = item.metadata.requested_at
            await self.ask(request, (p for p in copies if p.phase not in (Phase.READY, Phase.UNKNOWN)))
        else:
            self.look_again(key, due)

    async def ask(self, request: str, copies: Iterable[PlacementView]) -> None:
        """Verifies those of `copies` that are Ready, and tries the others again, once for each `request`.

        A copy with an earlier request that it has not started to serve serves both at once: otherwise each of fifty
        deployments would write to each copy.
        """
        patch = {"metadata": {"annotations": {base.REQUESTED_AT: request}}}
        unasked = list[PlacementView]()
        for each in copies:
            if each.requested_at != request and not self._is_asked(each):
                unasked.append(each)
            await self.queue.slices.give_way()

        async def ask(placement: PlacementView) -> None:
            answer = await self.api.merge_patch(kinds.TEMPLATE_PLACEMENTS, placement.key, patch)
            self.observe(kinds.TEMPLATE_PLACEMENTS, answer)

        await gather(ask(each) for each in unasked)

    def _is_asked(self, placement: PlacementView) -> bool:
        """Whether an attempt is still to start for the request on `placement`."""
        if plans.request_due(placement, self.now()) is None:
            return False
        jobs = self.world.jobs_of_placement[placement.key]
        return all(job.annotations.get(base.REQUESTED_AT) != placement.requested_at for job in jobs)


def same_conditions(
    wanted: base.Status, present: base.Status, *, stage: Callable[[Reason], Reason] | None = None
) -> bool:
    """Whether `present` has the conditions of `wanted`; with `stage`, but for messages and reasons of one stage."""

    def compared(condition: base.Condition) -> base.Condition:
        if stage is None:
            return condition
        return condition.model_copy(update={"message": "", "reason": stage(condition.reason)})

    found = {condition.type: condition for condition in present.conditions}
    return all(
        condition.type in found and compared(found[condition.type]) == compared(condition)
        for condition in wanted.conditions
    )


async def gather(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results, a bounded number of calls at once; every call is made, then the first error is raised.

    `calls` is iterated as they are made: thousands are never there at once.
    """
    numbered = enumerate(calls)
    results: dict[int, T] = {}
    failures: dict[int, Exception] = {}

    async def work(number: int, call: Awaitable[T]) -> None:
        for each, awaited in itertools.chain(((number, call),), numbered):
            try:
                results[each] = await awaited
            except Exception as error:
                failures[each] = error

    first = list(itertools.islice(numbered, _PARALLEL_REQUESTS))
    await asyncio.gather(*(work(number, call) for number, call in first))
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in sorted(results)]
