"""The status of a StoragePool."""

from directdownload.cluster import kinds
from directdownload.controller.context import Context
from directdownload.controller.queue import Key
from directdownload.planning import pools


async def reconcile(context: Context, name: str) -> None:
    world = context.world
    pool = world.pools.get(name)
    if pool is None or pool.deleting:
        return
    hosts = world.hosts_of_zone[pool.spec.zone]
    now = context.now()
    status = pools.plan_pool(pool, pool.spec.zone in world.zones, hosts, world.pool_roots, now)
    await context.retry_stalled(Key("pool", name), pool, world.placements_of_pool[name], now)
    if await context.write_status(kinds.STORAGE_POOLS, pool, status):
        context.tell_ready(kinds.STORAGE_POOLS, pool, status)
