"""A Template with all its deployments: its status, the placements that they want, then the deployments' status.

In this order, in one place: a deployment's observedGeneration promises that its placements have been planned, and
finalizers go only once removals are marked durably.
"""

import dataclasses
import datetime
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from directdownload import slices
from directdownload.cluster import errors, kinds
from directdownload.controller import creation, job_secrets
from directdownload.controller.context import Context, dump, gather, same_conditions
from directdownload.controller.queue import Key
from directdownload.controller.watches import COUNT_SECONDS, SUMMARY_SECONDS, call_for_room, decided_anew, probe_of
from directdownload.planning import (
    demands,
    digests,
    header_secrets,
    plans,
    probes,
    quotas,
    rights,
    rollouts,
    selection,
    templates,
    waits,
)
from directdownload.planning import deployments as planning
from directdownload.planning.observed import PlacementView
from directdownload.resources import base, naming
from directdownload.resources.checksum import Checksum
from directdownload.resources.reasons import WAITING, Reason
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase, TemplatePlacementStatus

logger = logging.getLogger(__name__)

#: For how many copies one look writes the namespace that they count for.
_PORTION = 200


async def reconcile(context: Context, key: str) -> None:
    """`key` is `namespace/name` of a Template, which need not exist: deployments may name it before it does."""
    context.world.charges.leave(key)
    try:
        await _reconcile(context, key)
    finally:
        # Whether or not it took the room: another one may have some as well.
        call_for_room(context.world, context.queue)


async def _reconcile(context: Context, key: str) -> None:
    world = context.world
    if key in world.templates.unreadable:
        # Its meaning is unknown: nothing is created or removed for it, and its deployments stay as they are.
        return
    template = world.templates.get(key)
    if template is not None:
        now = context.now()
        problem = await job_secrets.problem(context, template, now)
        # It may have been written meanwhile; jobs that ended meanwhile count as well.
        template = world.templates.get(key) or template
        # Its status is planned for this very object: a request that comes while this one is handed on is not served.
        await context.retry_stalled(Key("template", key), template, world.placements_of_template[template.uid], now)
        zones = {zone.name for zone in world.zones}
        probe = world.probe(naming.probe_name(template.name, template.uid), now)
        probed = probes.outcome(template, probe, world.hosts.get(probe.host) if probe is not None else None, now)
        copies = list(world.placements_of_template[template.uid])
        taught = {p.key: found for p in copies if (found := _lesson(context, template, p, now)) is not None}
        status = templates.plan_template(
            template, zones, copies, now, secret=problem, probed=probed, lessons=taught.values()
        )
        counts = status.placements
        settled = counts is None or not (counts.pending or counts.downloading)
        # Without a checksum the digest is all that later copies are held to: they do not wait for the next summary.
        settled = settled or (template.spec.checksum is None and status.digest != template.status.digest)
        await _write_summary(context, kinds.TEMPLATES, template, status, key, settled=settled)
        _follow(context, template, probed)
        template = world.templates.get(key) or template
        if digests.disputed(template) or template.status.digest == status.digest:
            for name in taught:
                # Its job was left until this was written.
                context.queue.add(Key("placement", name))
    planned = list(world.deployments_of_template[key])
    if template is not None and await _place(context, template, planned):
        # The effect of that comes first; the next look writes the status.
        context.queue.add_later(Key("template", key), COUNT_SECONDS)
        return
    await _release_orphans(context, key, template)
    await _finish_deployments(context, key, planned)


def _lesson(context: Context, template: Template, placement: PlacementView, now: datetime.datetime) -> Checksum | None:
    """The digest that an existing job of `placement` teaches."""
    if not context.world.jobs_of_placement[placement.key]:
        return None
    return digests.lesson(template, context.world.job(placement, now))


def _follow(context: Context, before: Template, probed: probes.Outcome | None) -> None:
    """Wake others because of the status that was just written, and plan the next look at the Secret."""
    world = context.world
    after = world.templates.get(before.key)
    if after is None or after.uid != before.uid:
        return
    waits, waited = header_secrets.obstacle(after), header_secrets.obstacle(before)
    if (waits is None) != (waited is None):
        for placement in world.placements_of_template[after.uid]:
            context.queue.add(Key("placement", placement.key))
    if waits is not None and (waited is None or waited.reason != waits.reason):
        context.tell(kinds.TEMPLATES, after, "Warning", waits.reason, waits.message)
    reachable, old = after.status.condition(probes.CONDITION), before.status.condition(probes.CONDITION)
    if reachable is not None and reachable.status != "True" and (old is None or old.reason != reachable.reason):
        context.tell(kinds.TEMPLATES, after, "Warning", reachable.reason, reachable.message, "Probe")
    dispute = after.status.condition(digests.CONDITION)
    if dispute is not None and before.status.condition(digests.CONDITION) is None:
        context.tell(kinds.TEMPLATES, after, "Warning", dispute.reason, dispute.message, "Learn")
    requested = after.status.last_handled_request != before.status.last_handled_request
    if probed is not None and after.status.probe != before.status.probe:
        # the status has only what tenants may read of it
        logger.info("Template %s: probe: %s: %s", after.key, probed.result.reason, probed.result.message)
    if requested or after.status.probe != before.status.probe or probes.wanted(after) != probes.wanted(before):
        context.queue.add(probe_of(after))
    if after.spec.headers_secret_ref is not None and (last := world.secrets.get(after.uid)) is not None:
        context.look_again(Key("template", after.key), header_secrets.good_until(after, last, context.now()))


async def _release_orphans(context: Context, key: str, template: Template | None) -> None:
    """Copies of a Template that vanished although its finalizer should have held it: it may not have been a wish.

    Their objects go and the files stay (architecture, rule 12); created again, the Template has another uid.
    """
    present = template.uid if template is not None else None
    orphans = [p for p in context.world.placements_of_template_key[key] if p.template_uid != present]
    orphans = [p for p in orphans if not _leaving(p)]
    if not orphans:
        return
    namespace, _, name = key.partition("/")
    try:
        # Asked from the API, because an unreadable Template is not in the store and yet exists.
        present = (await context.api.get(kinds.TEMPLATES, name, namespace=namespace))["metadata"]["uid"]
    except errors.NotFound:
        present = None
    await gather(
        context.api.delete(kinds.TEMPLATE_PLACEMENTS, p.key, uid=p.uid) for p in orphans if p.template_uid != present
    )


async def _write_summary(
    context: Context, resource: kinds.Resource, item: Any, status: base.Status, key: str, *, settled: bool
) -> None:
    """Writes `status`, but while counts still change at most every `SUMMARY_SECONDS` (architecture, rule 6)."""
    before, written = item.status, context.world.summaries
    # A request that was handed on is served from then: until that is written, the next one would be handed on too.
    settled = settled or before.last_handled_request_time != status.last_handled_request_time
    moving = before.observed_generation == status.observed_generation and not settled
    left = written.get(item.uid, 0.0) + SUMMARY_SECONDS - time.monotonic()
    stage = waits.stage if resource is kinds.TEMPLATE_DEPLOYMENTS else _as_it_is
    if moving and left > 0 and same_conditions(status, before, stage=stage):
        context.queue.add_later(Key("template", key), left)
    elif await context.write_status(resource, item, status):
        written[item.uid] = time.monotonic()
        ready, old = status.condition("Ready"), before.condition("Ready")
        changed = ready is not None and (old is None or stage(old.reason) is not stage(ready.reason))
        if resource is kinds.TEMPLATE_DEPLOYMENTS and ready is not None and changed:
            stalled = status.condition("Stalled")
            warning = stalled is not None and stalled.status == "True"
            context.tell(resource, item, "Warning" if warning else "Normal", ready.reason, ready.message)
        elif resource is kinds.TEMPLATES and (ready is None or ready.reason not in WAITING):
            # A problem of its Secret is reported where it is found.
            context.tell_ready(resource, item, status)


def _as_it_is(reason: Reason) -> Reason:
    return reason


async def _place(context: Context, template: Template, deployments: Sequence[TemplateDeployment]) -> bool:
    """Plans the placements and carries the plan out. True if another look is needed before any status is written."""
    world = context.world
    existing = _existing(context, template)
    fleet, unread = world.fleet(), world.placements.unreadable
    held = world.held(template)
    asking = list(world.hosts_of_demand[template.key])
    wished = await slices.run(
        demands.of_template(template, asking, fleet, existing, context.now()), context.queue.slices
    )
    context.look_again(Key("template", template.key), wished.look_again)
    steps = planning.place_in_steps(
        template, deployments, fleet, existing, demands=wished, held=held, unreadable=unread
    )
    changes = await slices.run(steps, context.queue.slices)
    changes = dataclasses.replace(changes, create=creation.in_order(context, template, changes.create))
    _tell_full(context, fleet.usage, full=quotas.ALL in changes.full and not changes.create)
    world.charges.wait(template.key, changes.full)
    # From here on, before anything else happens.
    with world.charges.making(changes.create[: creation.PORTION]):
        return await _carry_out(context, template, deployments, fleet, existing, changes)


async def _carry_out(
    context: Context,
    template: Template,
    deployments: Sequence[TemplateDeployment],
    fleet: selection.Fleet,
    existing: Mapping[str, PlacementView],
    changes: planning.PlacementChanges,
) -> bool:
    world = context.world
    if (changes.create or existing) and not template.deleting:
        # Also for a deployment that finds its copies made by others: one that vanishes at once could not Retain them.
        standings = [(d, rights.standing(d, template, fleet)) for d in deployments if not d.deleting]
        wanting = [(kinds.TEMPLATE_DEPLOYMENTS, d) for d, may in standings if may.decides]
        finalized = [(kinds.TEMPLATES, template), *wanting]
        if not all(await gather(context.set_finalizer(kind, item, present=True) for kind, item in finalized)):
            # A vanished deployment wants nothing any more, and is not among the deployments of the next look.
            return True
        # Before a copy is created: a deployment that is denied copies later keeps those that it was given.
        creates = bool(changes.create)
        await gather(_grant(context, d.key, template, creates=creates) for d, may in standings if may.refused is None)
    if changes.create:
        await creation.create(context, template, changes.create)
        left = len(changes.create) - creation.PORTION
        if left > 0:
            context.queue.add(Key("template", template.key))
        else:
            for placement in existing.values():
                # A limit that is a percentage has grown with the fleet.
                context.queue.add(Key("placement", placement.key))
        logger.info("Template %s: placements created, %d are left", template.key, max(0, left))
    if changes.remove and await _definitions_leave(context):
        # The objects go with their definition: nobody has asked to remove files (architecture, rule 12).
        changes = dataclasses.replace(changes, remove=(), release=(*changes.release, *changes.remove))
    now = context.now()
    await gather(_mark(context, p, plans.mark_removing, now) for p in changes.remove)
    await gather(_mark(context, p, plans.mark_wanted, now) for p in changes.restore)
    # Without our mark a deleted placement is released and its file stays.
    await gather(context.api.delete(kinds.TEMPLATE_PLACEMENTS, p.key, uid=p.uid) for p in changes.release)
    await _charge(context, template, changes.charge)
    template = world.templates.get(template.key) or template
    unknown = world.held(template) or any(world.unread_placements[template.uid])
    if template.deleting and not unknown and all(_leaving(p) for p in _existing(context, template).values()):
        await context.set_finalizer(kinds.TEMPLATES, template, present=False)
    return bool(changes.create)


async def _mark(
    context: Context,
    planned: PlacementView,
    mark: Callable[[PlacementView, datetime.datetime], TemplatePlacementStatus],
    now: datetime.datetime,
) -> None:
    """Writes the mark into the placement as it is by now: thousands are marked, one after the other."""
    present = context.world.placements.get(planned.key)
    placement = present if present is not None and present.uid == planned.uid else planned
    status = dump(mark(placement, now))
    await context.apply(kinds.TEMPLATE_PLACEMENTS, placement, {"status": status}, subresource="status")


def _tell_full(context: Context, usage: quotas.Usage, *, full: bool) -> None:
    """Logs it, once; each deployment that waits reports it as well."""
    if context.world.charges.tell(usage.most, full=full):
        logger.warning(
            "No more placements are created: there are %d, and the controller has memory for %d at most. Raise "
            "controller.resources.limits.memory of the chart, or delete deployments",
            usage.counts.get(quotas.ALL, 0),
            usage.most,
        )


async def _charge(context: Context, template: Template, charges: Sequence[tuple[PlacementView, str]]) -> None:
    """Writes for which namespaces copies count from now on, a portion at a time."""

    async def charge(placement: PlacementView, namespace: str) -> None:
        patch = {"metadata": {"uid": placement.uid, "labels": {base.NAMESPACE_LABEL: namespace}}}
        answer = await context.api.merge_patch(kinds.TEMPLATE_PLACEMENTS, placement.key, patch)
        context.observe(kinds.TEMPLATE_PLACEMENTS, answer)

    await gather(charge(placement, namespace) for placement, namespace in charges[:_PORTION])
    if len(charges) > _PORTION:
        context.queue.add(Key("template", template.key))


async def _grant(context: Context, key: str, template: Template, *, creates: bool) -> None:
    """Writes, durably, that the deployment was permitted copies of this Template, unless it is written already."""
    deployment = context.world.deployments.get(key)
    if deployment is None or deployment.deleting:
        return
    granted = rights.renewed(deployment, template, context.now(), creates=creates)
    if granted is not None:
        status = deployment.status.model_copy(update={"granted": granted})
        await context.apply(kinds.TEMPLATE_DEPLOYMENTS, deployment, {"status": dump(status)}, subresource="status")


async def _definitions_leave(context: Context) -> bool:
    """Whether the definition of Templates or of their deployments is gone or being deleted."""
    for resource in (kinds.TEMPLATES, kinds.TEMPLATE_DEPLOYMENTS):
        try:
            found = await context.api.get(kinds.DEFINITIONS, f"{resource.plural}.{resource.group}")
        except errors.NotFound:
            return True
        if "deletionTimestamp" in found["metadata"]:
            return True
    return False


async def _finish_deployments(context: Context, key: str, planned: Sequence[TemplateDeployment]) -> None:
    """Writes their status, and lets those go that are being deleted."""
    world, now = context.world, context.now()
    template = world.templates.get(key)
    existing = _existing(context, template) if template is not None else {}
    fleet = world.fleet()
    held = template is not None and world.held(template)
    for before in planned:
        await context.queue.slices.give_way()
        deployment = world.deployments.get(before.key)
        if deployment is None or decided_anew(before, deployment):
            # Its placements are planned in the look that this change asked for. Until then it must neither count as
            # observed nor go: its wish for its files would be lost.
            continue
        if deployment.deleting:
            if not held:
                await context.set_finalizer(kinds.TEMPLATE_DEPLOYMENTS, deployment, present=False)
            continue
        # Searched only on request: whether a copy is wanted is a question per copy.
        copies = (p for p in existing.values() if any(deployment.key == d.key for d in world.wanting(p)))
        await context.retry_stalled(Key("template", key), deployment, copies, now)
        status = rollouts.plan_deployment(
            deployment, template, fleet, existing, now, held=held, unreadable=world.placements.unreadable
        )
        reconciling, counts = status.condition("Reconciling"), status.placements
        settled = reconciling is None or reconciling.status == "False"
        settled = settled and not (counts is not None and (counts.pending or counts.downloading))
        await _write_summary(context, kinds.TEMPLATE_DEPLOYMENTS, deployment, status, key, settled=settled)


def _existing(context: Context, template: Template) -> dict[str, PlacementView]:
    return {placement.key: placement for placement in context.world.placements_of_template[template.uid]}


def _leaving(placement: PlacementView) -> bool:
    return placement.phase is Phase.REMOVING or placement.deleting
