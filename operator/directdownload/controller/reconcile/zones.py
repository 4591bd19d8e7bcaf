"""The status of a Zone."""

from directdownload.cluster import kinds
from directdownload.controller.context import Context
from directdownload.controller.queue import Key
from directdownload.planning import peers, zones
from directdownload.planning.conditions import listed
from directdownload.resources.reasons import Reason


async def reconcile(context: Context, name: str) -> None:
    world = context.world
    zone = world.zones.get(name)
    if zone is None or zone.deleting:
        return
    contested = [
        node.name
        for node in world.nodes
        if zone.spec.node_selector.matches(node.labels)
        and (host := world.hosts.get(node.name)) is not None
        and host.spec.zone != name
    ]
    now = context.now()
    unreached = peers.unreached(world.placements_of_zone[name]) if context.swarms is not None else None
    unavailable = len(unreached) if unreached is not None else None
    status = zones.plan_zone(zone, list(world.hosts_of_zone[name]), contested, now, unavailable)
    await context.retry_stalled(Key("zone", name), zone, world.placements_of_zone[name], now)
    if await context.write_status(kinds.ZONES, zone, status):
        context.tell_ready(kinds.ZONES, zone, status)
        before = zone.status.peers.unavailable if zone.status.peers is not None else 0
        if unreached and not before:
            hosts = listed(sorted(set(unreached)), 3)
            message = (
                f"{unavailable} copies read the source, as their hosts reach no other host: {hosts}; open the port"
            )
            context.tell(kinds.ZONES, zone, "Warning", Reason.PEERS_UNAVAILABLE, message, "ReadPeers")
