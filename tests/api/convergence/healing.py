"""What ends a time of accidents in a random run: first everything but the hosts, then the hosts."""

import random

from tests.api.convergence.accidents import bring_back, forget, join_again, move_to
from tests.api.convergence.invariants import LIMITS
from tests.api.convergence.stage import Stage
from tests.world.steps import RETRY

from directdownload.cluster import kinds
from directdownload.resources.reasons import Reason


def heal_all_but_hosts(stage: Stage) -> None:
    """What is lost, cordoned or without its mount stays so."""
    simulation = stage.simulation
    for controller in stage.running_controllers()[1:]:
        controller.kill()
    simulation.origin.cut = False
    simulation.origin.corrupt.clear()
    for disk in simulation.disks():
        disk.full = False
        disk.in_use.clear()
    for name, machine in simulation.kubelets.machines.items():
        # A download on a mount that does not answer is given up after minutes only.
        machine.mounts = {pool: reason for pool, reason in machine.mounts.items() if reason is Reason.NOT_MOUNTED}
        host = stage.wishes.hosts[name]
        if host.node and not host.agent:
            host.agent = True
            simulation.set_agent(name, True)
    for zone in stage.zones:
        limits = dict.fromkeys(LIMITS, 0) | {"maxParallelPerHost": 2}
        stage.invariants.note_limits(zone, limits)
        stage.enabled[zone] = True
        spec = {"enabled": True, "downloads": {**limits, "retry": RETRY}}
        stage.kube.patch(kinds.ZONES, zone, {"spec": spec}).object()
    for pool in stage.wishes.pools:
        stage.kube.patch(kinds.STORAGE_POOLS, pool.name, {"spec": {"verifyInterval": "168h"}}).object()
    for deployment in stage.wishes.deployments.values():
        deployment.paused = False
        stage.write_deployment(deployment)
    for template in stage.wishes.templates.values():
        if template.url in stage.spoilt and template.uid:
            # A copy that stalled is left alone until someone asks.
            stage.request(kinds.TEMPLATES, template.name, template.namespace)
    stage.spoilt.clear()


def heal_hosts(stage: Stage, rng: random.Random) -> None:
    """What is lost comes back, or is given up."""
    for name in sorted(stage.wishes.hosts):
        returns, zone = rng.random() < 0.6, rng.choice(stage.zones)
        for words in _heal_host(stage, name, zone if returns else ""):
            stage.trace.append(f"healed: {words}")


def _heal_host(stage: Stage, name: str, zone: str) -> list[str]:
    """`zone`: where it comes back to if it is of none; empty: its Host is deleted then."""
    host, words = stage.wishes.hosts[name], []
    if not (host.node and host.selected):
        if zone and host.node:
            words.append(move_to(stage, host, zone))
        elif zone:
            words.append(join_again(stage, host, zone))
            host = stage.wishes.hosts[name]
        elif host.present:
            words.append(forget(stage, host))
    if host.node and not host.online:
        words.append(bring_back(stage, host))
    if host.node and host.cordoned:
        host.cordoned = False
        stage.simulation.cordon(name, False)
    if host.maintenance:
        host.maintenance = False
        stage.kube.patch(kinds.HOSTS, name, {"spec": {"allocationState": "Enabled"}})
    stage.simulation.kubelets.machines[name].mounts.clear()
    return words
