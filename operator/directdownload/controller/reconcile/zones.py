"""The status of a Zone."""

from directdownload.cluster import kinds
from directdownload.controller.context import Context
from directdownload.controller.queue import Key
from directdownload.planning import zones


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
    status = zones.plan_zone(zone, list(world.hosts_of_zone[name]), contested, now)
    await context.retry_stalled(Key("zone", name), zone, world.placements_of_zone[name], now)
    if await context.write_status(kinds.ZONES, zone, status):
        context.tell_ready(kinds.ZONES, zone, status)
