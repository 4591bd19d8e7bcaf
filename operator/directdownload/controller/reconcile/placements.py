"""One placement: plan it, start or end its job, write its status."""

import logging
import time
from typing import Any

from directdownload.cluster import errors, kinds
from directdownload.controller import causes, job_secrets, jobs, metrics, surroundings, watches, world
from directdownload.controller.context import Context, dump
from directdownload.controller.queue import Key
from directdownload.controller.swarms import Swarms
from directdownload.planning import header_secrets, peers, placements, plans, pools, slots
from directdownload.planning.header_secrets import Headers
from directdownload.planning.observed import Job, PlacementView
from directdownload.planning.plans import PlacementPlan, Step, Surroundings
from directdownload.planning.selection import select
from directdownload.resources import base, naming
from directdownload.resources.jobs import JobResult, PeerRole, Verb
from directdownload.resources.reasons import DONE, WAITING, Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase, TemplatePlacementStatus

logger = logging.getLogger(__name__)

#: Transitions that are no news to anybody.
_QUIET = frozenset({Reason.DOWNLOADING, Reason.WAITING_FOR_SLOT, Reason.WAITING_FOR_SEED})


async def reconcile(context: Context, name: str) -> None:
    called = context.world.line.answer(name)
    try:
        await _reconcile(context, name)
    finally:
        if called:
            # Whether or not it took the slot: another one may have room as well.
            watches.call_next(context.world, context.queue)


async def _reconcile(context: Context, name: str) -> None:
    await _make_sure(context, name)
    await _ask_for_cause(context, name)
    placement = context.world.placements.get(name)
    context.world.line.leave(name)
    if placement is None:
        return
    now = context.now()
    around = surroundings.of(context.world, placement, now)
    if context.swarms is not None:
        around = context.swarms.placed(placement, around, now)
    job = context.world.job(placement, now)
    plan = placements.plan_placement(placement, around, job, now)
    status = plan.status
    if plan.step is Step.FETCH:
        status = await _fetch(context, placement, around, plan)
    elif plan.step is Step.VERIFY:
        await _verify(context, placement, around, plan)
    elif plan.step is Step.REMOVE:
        await _create_job(context, placement, around, Verb.REMOVE, plan, ())
    if context.swarms is not None:
        _tell_swarm(context.swarms, placement, job, plan, status)
    if status is not None and not placement.shows(status):
        await context.apply(kinds.TEMPLATE_PLACEMENTS, placement, {"status": dump(status)}, subresource="status")
        _tell(context, placement, status, plan.outcome)
        if status.phase != placement.phase:
            # The next step of its new phase: a repair, the time of its next verification.
            context.queue.add(Key("placement", name))
    if plan.outcome is not None and job is not None and job.verb is not None:
        url = around.template.spec.url if around.template is not None else ""
        metrics.attempt(placement.zone, placement.host, url, job.verb, plan.outcome)
        if context.swarms is not None:
            _tell_exchange(context, placement, plan.outcome)
    if plan.step is Step.RELEASE:
        await _release(context, placement)
        if plan.outcome is not None:
            message, host = plan.outcome.message, placement.host
            context.tell(kinds.TEMPLATE_PLACEMENTS, placement, "Normal", Reason.REMOVED, message, host=host)
    if plan.teaches and around.template is not None:
        # The Template records the job's digest, and asks for another look here once that is durable.
        context.queue.add(Key("template", around.template.key))
    if plan.gives_up and _has_begun(context, placement):
        # Its pod has started meanwhile: the job goes on, and the next look says so.
        context.queue.add(Key("placement", name))
    elif plan.drop_job:
        # Last, so that its result is still there if a write before this one fails.
        for view in list(context.world.jobs_of_placement[name]):
            await context.delete_job(view)
    if plan.step is Step.HAND_OVER:
        await _hand_over(context, placement, around.successor)
    if plan.step is Step.NONE and not plan.drop_job and job is not None and not job.started:
        for view in context.world.jobs_of_placement[name]:
            await job_secrets.equip(context, view, around.template)
    for when in (plan.look_again, context.world.result_due(context.world.jobs_of_placement[name])):
        context.look_again(Key("placement", name), when)


def _tell_exchange(context: Context, placement: PlacementView, outcome: JobResult) -> None:
    """Counts the bytes of a job, and reports a host that sent it a bad piece: one job's word, which excludes nobody."""
    metrics.received(placement.zone, outcome)
    bad = context.world.hosts.get(outcome.bad_host)
    if bad is not None and bad.spec.zone == placement.zone:
        message = f"host {bad.name} sent a piece that is not what its Seed signed: look at its memory and disk"
        context.tell(kinds.TEMPLATE_PLACEMENTS, placement, "Warning", Reason.CHECKSUM_MISMATCH, message, "ReadPeers")


def _tell_swarm(
    swarms: Swarms,
    placement: PlacementView,
    job: Job | None,
    plan: PlacementPlan,
    status: TemplatePlacementStatus | None,
) -> None:
    if status is not None and status.conditions[0].reason is Reason.WAITING_FOR_SEED:
        swarms.wait(placement)
    else:
        swarms.stopped(placement)
    if plan.outcome is not None and job is not None and job.verb is Verb.VERIFY and job.role is not None:
        swarms.verified(placement, recorded=peers.recorded(job, plan.outcome) is not None)


async def _ask_for_cause(context: Context, name: str) -> None:
    """Asks for the Events of a job that is late to start, unless its host is Down. The plan comes after that."""
    world, now = context.world, context.now()
    placement = world.placements.get(name)
    view = world.latest_job(placement) if placement is not None else None
    if placement is None or view is None or view.succeeded or view.failed:
        # One that has ended has run, and `World.job` counts from its first look how long its result is awaited.
        return
    job, host = world.job(placement, now), world.hosts.get(placement.host)
    if job is not None and host is not None and host.status.state != "Down":
        await causes.ask(context, view, job, now)


def _has_begun(context: Context, placement: PlacementView) -> bool:
    job = context.world.job(placement, context.now())
    return job is not None and job.started


def _tell(context: Context, before: PlacementView, status: TemplatePlacementStatus, outcome: JobResult | None) -> None:
    """Log, event and count of a transition, and of a verification that failed: `outcome` of a copy that stays Ready."""
    ready = status.conditions[0]
    fields: dict[str, Any] = {"host": before.host, "phase": str(status.phase), "attempt": status.attempts}
    if status.phase is Phase.READY and outcome is not None and not outcome.done:
        context.tell(kinds.TEMPLATE_PLACEMENTS, before, "Warning", outcome.reason, ready.message, "Verify", **fields)
        return
    if (before.phase, before.reason) == (status.phase, ready.reason) or ready.reason in _QUIET:
        about = {**fields, "reason": str(ready.reason)}
        logger.info("TemplatePlacement %s: %s (%s)", before.key, status.phase, ready.reason, extra=about)
        return
    trouble = status.phase is Phase.FAILED or ready.reason not in WAITING | DONE | {Reason.PAUSED}
    context.tell(
        kinds.TEMPLATE_PLACEMENTS, before, "Warning" if trouble else "Normal", ready.reason, ready.message, **fields
    )
    if ready.reason in (Reason.MISSING, Reason.ALTERED):
        metrics.repair(before.zone, ready.reason)


async def _fetch(
    context: Context, placement: PlacementView, around: Surroundings, plan: PlacementPlan
) -> TemplatePlacementStatus:
    """Starts the fetch if there is a slot; the status reports which of the two."""
    if around.template is None or around.zone is None:
        raise ValueError("plan_placement asks for a fetch only where there are a Template and a Zone")
    wanting = [(d, _desired(context, d, around.template)) for d in context.world.wanting(placement)]
    groups = slots.groups_of(placement, around.template, around.zone, wanting, demanded=around.demanded, role=plan.role)
    found = Headers(None)
    reads = plan.role is not PeerRole.PEER and around.template.spec.headers_secret_ref is not None
    if reads and context.world.slots.full_group(groups) is None:
        found = await job_secrets.read(context, around.template)
        if found.problem is not None:
            # The Template reports it next, and asks for another look here once that has changed, or was not true.
            context.queue.add(Key("template", around.template.key))
            context.queue.add_later(Key("placement", placement.key), header_secrets.FIRST_PAUSE.total_seconds())
            return plans.held_up(placement, Phase.PENDING, found.problem, context.now())
    full = await _in_slot(context, placement, around, Verb.FETCH, plan, groups)
    if full is not None and full.name.startswith(slots.SEEDS):
        # Another one was faster: this copy waits for it to run, and not for it to end.
        context.world.line.leave(placement.key)
        return plans.held_up(placement, Phase.PENDING, peers.waiting(), context.now())
    if full is not None:
        return plans.waiting_for_slot(placement, full.name, full.limit, context.now())
    if found.data:
        for view in context.world.jobs_of_placement[placement.key]:
            if view.name == naming.job_name(placement.key, Verb.FETCH, plan.attempt):
                await job_secrets.give(context, view, found)
    inputs = placements.inputs_of(around)
    shown = peers.shown(placement, plan.role) if around.part is not None else None
    return plans.downloading(placement, plan.attempt, context.now(), inputs=inputs, peers=shown)


async def _verify(context: Context, placement: PlacementView, around: Surroundings, plan: PlacementPlan) -> None:
    """Starts the verification if there is a slot. The copy is Ready meanwhile: its status does not mention it."""
    if around.zone is None:
        raise ValueError("plan_placement asks for a verification only where there is a Zone")
    groups = slots.verification_groups(placement, around.zone, plan.role)
    await _in_slot(context, placement, around, Verb.VERIFY, plan, groups)


async def _in_slot(
    context: Context,
    placement: PlacementView,
    around: Surroundings,
    verb: Verb,
    plan: PlacementPlan,
    groups: tuple[slots.Group, ...],
) -> slots.Group | None:
    """Creates the job if there is room in all `groups`; else joins the line, and returns the group that is full."""
    world = context.world
    full = world.slots.full_group(groups)
    if full is not None:
        space = pools.available_bytes(around.pool, around.host) if around.pool is not None else 0
        world.line.join(placement.key, groups, space, placement.recent_failures, demanded=around.demanded)
        return full
    job_name = naming.job_name(placement.key, verb, plan.attempt)
    world.slots.occupy(job_name, [group.name for group in groups])
    try:
        await _create_job(context, placement, around, verb, plan, groups)
    except errors.Unreachable:
        # It may exist: the answer was lost. The slot stays taken until the next try, which looks first.
        world.unsure[placement.key] = job_name
        raise
    except BaseException:
        world.slots.release(job_name)
        watches.call_next(world, context.queue)
        raise
    return None


async def _make_sure(context: Context, name: str) -> None:
    """Finds out whether a job exists whose creation got no answer; if it does not, its slot is free."""
    world = context.world
    job_name = world.unsure.get(name)
    if job_name is None:
        return
    try:
        context.observe(kinds.JOBS, await context.api.get(kinds.JOBS, job_name, namespace=context.settings.namespace))
    except errors.NotFound:
        if world.slots.release(job_name):
            watches.call_next(world, context.queue)
    del world.unsure[name]


async def _hand_over(context: Context, placement: PlacementView, successor: str) -> None:
    """Only for shared pools: another host fetches, verifies or removes the copy from now on."""
    patch = {
        "metadata": {
            "uid": placement.uid,
            "labels": {f"{base.GROUP}/host": naming.label_value(successor)},
        },
        "spec": {"host": successor},
    }
    context.observe(
        kinds.TEMPLATE_PLACEMENTS, await context.api.merge_patch(kinds.TEMPLATE_PLACEMENTS, placement.key, patch)
    )
    message = f"{successor} takes over from {placement.host}"
    context.tell(kinds.TEMPLATE_PLACEMENTS, placement, "Normal", Reason.HOST_DOWN, message, "TakeOver", host=successor)
    context.queue.add(Key("placement", placement.key))


def _desired(context: Context, deployment: TemplateDeployment, template: Template) -> int:
    """The number of copies that a percentage refers to; counted only if there is a percentage.

    At most once in `watches.COUNT_SECONDS`: thousands of copies ask, and each count looks at thousands of hosts.
    """
    if not deployment.spec.rollout.max_parallel.endswith("%"):
        return 0
    now, generation, known = time.monotonic(), deployment.metadata.generation, context.world.desired
    before = known.get(deployment.uid)
    if before is not None and before[0] == generation and now - before[1] < watches.COUNT_SECONDS:
        return before[2]
    existing = {placement.key: placement for placement in context.world.placements_of_template[template.uid]}
    number = len(select(deployment, template, context.world.fleet(), existing).wanted)
    known[deployment.uid] = (generation, now, number)
    return number


async def _create_job(
    context: Context,
    placement: PlacementView,
    around: Surroundings,
    verb: Verb,
    plan: PlacementPlan,
    groups: tuple[slots.Group, ...],
) -> None:
    namespace, used = context.settings.namespace, context.world.slots.used
    active = used(f"zone/{placement.zone}") + used(slots.peers_group(placement.zone))
    shared, epoch = None, 0
    if context.swarms is not None and plan.role is not None:
        shared, epoch = context.swarms.document(placement, around, plan.role, context.now())
    document = jobs.document(placement, around, verb, active, shared)
    body = jobs.manifest(context.job_template, namespace, placement, document, plan.attempt, groups, epoch)
    await job_secrets.make_way(context.api, body)
    try:
        answer = await context.api.create(kinds.JOBS, body, namespace=namespace)
    except errors.AlreadyExists:
        # Created before a restart, and adopted; one of an earlier placement of this name is deleted first.
        answer = await context.api.get(kinds.JOBS, body["metadata"]["name"], namespace=namespace)
        # Nor is one that is on its way out: one that was given up has the name of the next.
        metadata = answer["metadata"]
        leaving = "deletionTimestamp" in metadata
        if leaving or metadata.get("annotations", {}).get(world.PLACEMENT_UID_ANNOTATION) != placement.uid:
            await context.api.delete(kinds.JOBS, metadata["name"], namespace=namespace, uid=metadata["uid"])
            raise
    context.observe(kinds.JOBS, answer)


async def _release(context: Context, placement: PlacementView) -> None:
    """Takes our finalizer off and deletes the object."""
    try:
        present = await context.api.get(kinds.TEMPLATE_PLACEMENTS, placement.key)
    except errors.NotFound:
        return
    metadata = present["metadata"]
    if metadata["uid"] != placement.uid:
        return
    finalizers = [name for name in metadata.get("finalizers", ()) if name != base.FINALIZER]
    await context.patch_finalizers(kinds.TEMPLATE_PLACEMENTS, placement.key, metadata["resourceVersion"], finalizers)
    await context.api.delete(kinds.TEMPLATE_PLACEMENTS, placement.key, uid=placement.uid)
    if not finalizers:
        context.forget_deleted(kinds.TEMPLATE_PLACEMENTS, placement, int(metadata["resourceVersion"]))
    logger.info("TemplatePlacement %s: released", placement.key)
