"""Hosts follow their nodes: created when a Zone selects one, then kept Up, Down or in Maintenance."""

import datetime
import logging
from collections.abc import Sequence

from directdownload import sourcing
from directdownload.cluster import errors, kinds
from directdownload.controller import causes
from directdownload.controller.context import Context
from directdownload.controller.queue import Key
from directdownload.planning import demands, hosts, quotas, served
from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import ObservedHost, PlacementView
from directdownload.resources.host import DriftKind, Host, Served
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool

logger = logging.getLogger(__name__)

#: While an agent's pod does not start.
_AGENT_LOOK_SECONDS = 10.0
_DRIFTS = {
    DriftKind.ENTRY_MISSING: "someone else had removed an entry",
    DriftKind.ENTRY_REPLACED: "someone else had replaced an entry",
    DriftKind.STORE_MISSING: "the keystore was gone",
    DriftKind.UNKNOWN: "in a way that this version does not know",
}


async def reconcile(context: Context, name: str) -> None:
    """`name` is the node's and the Host's."""
    await _ask_about_agent(context, name)
    world, now = context.world, context.now()
    host = world.hosts.get(name)
    if name in world.hosts.unreadable:
        return
    agent, unread = world.agent(name, now), world.zones.unreadable
    answers, next_answer = _answers(context, host, now) if host is not None else ((), None)
    peer, next_peer = context.registrar.answer(host, now) if host is not None and context.registrar else (None, None)
    plan = hosts.plan_host(
        host, world.node(name), world.zones, agent, now, served=answers, peer=peer, unreadable=unread
    )
    if plan.zone is None or (host is not None and host.deleting):
        return
    spec = {"nodeName": name, "zone": plan.zone}
    if host is None:
        body = {
            "apiVersion": kinds.HOSTS.api_version,
            "kind": kinds.HOSTS.kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        try:
            # Create and not apply, which would bring back a Host that someone has just deleted. The labels follow by
            # apply: a later apply could not remove those of a create by leaving them out.
            context.observe(kinds.HOSTS, await context.api.create(kinds.HOSTS, body))
        except errors.AlreadyExists:
            context.observe(kinds.HOSTS, await context.api.get(kinds.HOSTS, name))
        host = world.hosts.get(name)
        if host is None:
            return
        logger.info("Host %s: created for zone %s", name, plan.zone)
    if host.spec.zone != plan.zone or dict(plan.labels) != host.metadata.labels:
        # Also if someone added labels: the apply changes nothing then, and only it can know who owns them.
        await context.apply(kinds.HOSTS, host, {"metadata": {"labels": dict(plan.labels)}, "spec": spec})
        host = world.hosts.get(name) or host
    await context.retry_stalled(Key("host", name), host, world.placements_of_host[name], now)
    if plan.renewed:
        # Before the status forgets the earlier node: a request that is repeated is served once.
        logger.info("Host %s: its node has rejoined; its copies will be verified", name)
        await context.ask(f"node-{plan.status.node_uid}", world.placements_of_host[name])
    if await context.write_status(kinds.HOSTS, host, plan.status) and plan.status.state != host.status.state:
        ready = plan.status.conditions[0]
        down = plan.status.state == "Down"
        context.tell(kinds.HOSTS, host, "Warning" if down else "Normal", ready.reason, ready.message, host=host.name)
    _tell_drift(context, host)
    for when in (plan.look_again, next_answer, next_peer):
        context.look_again(Key("host", name), when)


def _answers(
    context: Context, host: ObservedHost, now: datetime.datetime
) -> tuple[tuple[Served, ...], datetime.datetime | None]:
    """The answers to the demands of `host`, and when the first of them changes by time alone."""
    world = context.world
    zone = world.zones.get(host.spec.zone)
    pools = [pool for pool in world.pools if pool.spec.zone == host.spec.zone]
    found: list[Served] = []
    ends: list[datetime.datetime] = []
    for asking in demands.asked(host, zone, world.labels_of):
        template = world.templates.get(asking.template_key)
        if asking.template_key in world.templates.unreadable and not asking.demand.uid:
            # Whether its pods may have it is not known.
            found.append(served.unread(asking))
            continue
        uid = asking.demand.uid or (template.uid if template is not None else "")
        name = asking.template_key.partition("/")[2]
        copies = demands.copies(host, name, uid, pools, world.placements.get, world.pool_roots)
        kept = not asking.demand.volumes and any(_kept(context, host, copy.placement) for copy in copies)
        obstacle = _obstacle(context, asking, pools)
        found.append(served.answer(asking, template, copies, sourcing.refusal, now, kept=kept, obstacle=obstacle))
        if (end := asking.spent_at(now)) is not None and end > now:
            ends.append(end)
    return tuple(found), min(ends, default=None)


def _kept(context: Context, host: ObservedHost, placement: PlacementView) -> bool:
    """Whether a deployment has the copy: not one that names the Template for other hosts only."""
    wanting, pool = context.world.wanting(placement), context.world.pools.get(placement.pool)
    shared = pool is not None and pool.spec.shared
    return any(shared or d.spec.selects(host.name, host.metadata.labels) for d in wanting)


def _obstacle(context: Context, asking: demands.Asking, pools: Sequence[StoragePool]) -> Verdict | None:
    """Why no copy is made for a demand that may have one; None: nothing is in the way."""
    world, host = context.world, asking.host
    named = asking.zone.spec.on_demand.pool if asking.zone is not None else None
    if not any(named in (None, pool.name) and pool_planning.hosts_of(pool, (host,)) for pool in pools):
        wanted = f"StoragePool {named} (spec.onDemand.pool of its Zone)" if named else "StoragePool"
        return Verdict(False, Reason.NO_MATCHING_POOLS, f"host {host.name} has no {wanted}")
    return quotas.shortage(asking.demand.namespace, host.spec.zone, world.zones, world.usage())


def _tell_drift(context: Context, host: Host) -> None:
    """Reports the agent's repair of the keystore: once, and not one from before this controller."""
    drift = host.status.keystore.last_drift if host.status.keystore is not None else None
    drifts = context.world.drifts
    if drift is None or drift == drifts.get(host.key, drift):
        return
    drifts[host.key] = drift
    what = f"{_DRIFTS[drift.kind]}: {drift.alias}" if drift.alias is not None else _DRIFTS[drift.kind]
    message = f"{drift.kind}: {what}"
    context.tell(kinds.HOSTS, host, "Warning", Reason.KEYSTORE_REPAIRED, message, drift.kind, host=host.name)


async def _ask_about_agent(context: Context, node: str) -> None:
    """Asks for the Events of an agent's pod that does not start. Before anything is decided."""
    world, now = context.world, context.now()
    for pod in list(world.agents_of_node[node]):
        if not pod.started and not pod.deleting:
            await causes.ask_about_agent(context, pod, now)
            context.queue.add_later(Key("host", node), _AGENT_LOOK_SECONDS)
