"""What happens to machines, processes and files in a random run; the same shape as the steps of people."""

import random
from collections.abc import Callable

from tests.api.convergence.model import WishedHost
from tests.api.convergence.stage import Stage
from tests.api.convergence.steps import Step, turns

from directdownload.cluster import kinds
from directdownload.resources.reasons import Reason

_HOSTS_LIMIT = 6


def join(stage: Stage, rng: random.Random) -> str | None:
    number = len(stage.wishes.hosts) + 1
    if number > _HOSTS_LIMIT:
        return None
    zone, tier = rng.choice(stage.zones), rng.choice("ab")
    return f"host {stage.add_host(f'kvm-{number}', zone, tier)} joins {zone}, tier {tier}"


def relabel(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node)
    if host is None:
        return None
    tier = "b" if host.tier == "a" else "a"
    stage.wishes.relabel(host.name, tier, stage.unseen())
    stage.simulation.relabel(host.name, tier=tier)
    return f"host {host.name}: tier {tier}"


def move(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node)
    return None if host is None else move_to(stage, host, rng.choice([*stage.zones, ""]))


def move_to(stage: Stage, host: WishedHost, zone: str) -> str:
    """Another zone selects the node, or none does: then it stays where it was, Down."""
    if zone and zone != host.zone:
        stage.wishes.leave(host.name)
        host.zone = zone
    host.selected = bool(zone)
    host.present = host.present or host.selected
    stage.simulation.relabel(host.name, simulated_zone=zone or None)
    # Down, as far as the controller can tell.
    stage.invariants.note_reachable(host.name, host.selected and host.online)
    return f"host {host.name} moves to zone {zone or 'none'}"


def cordon(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node)
    if host is None or not turns(rng, bad=host.cordoned):
        return None
    host.cordoned = not host.cordoned
    stage.simulation.cordon(host.name, host.cordoned)
    return f"host {host.name}: cordoned={host.cordoned}"


def lose(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node and host.online)
    if host is None:
        return None
    host.online = False
    stage.invariants.note_reachable(host.name, False)
    if rng.random() < 0.5:
        stage.simulation.power_off(host.name)
        return f"host {host.name} loses power"
    stage.simulation.unplug(host.name)
    return f"host {host.name} is unplugged"


def restore(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node and not host.online)
    return None if host is None else bring_back(stage, host)


def bring_back(stage: Stage, host: WishedHost) -> str:
    host.online = True
    stage.simulation.restore(host.name)
    stage.invariants.note_reachable(host.name, host.selected)
    return f"host {host.name} is back"


def lose_for_ever(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node)
    if host is None:
        return None
    host.node = host.online = host.selected = False
    stage.invariants.note_reachable(host.name, False)
    stage.simulation.delete_node(host.name)
    return f"node {host.name} is deleted"


def rejoin(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: not host.node)
    return None if host is None else join_again(stage, host, rng.choice(stage.zones))


def join_again(stage: Stage, host: WishedHost, zone: str) -> str:
    stage.add_host(host.name.removeprefix(f"{stage.simulation.prefix}-"), zone, host.tier)
    return f"node {host.name} joins zone {zone} again"


def delete_host(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.present)
    return None if host is None else forget(stage, host)


def forget(stage: Stage, host: WishedHost) -> str:
    """Its Host object is deleted; the controller makes it again where a Zone selects the node."""
    stage.wishes.leave(host.name)
    host.present, host.maintenance = host.selected, False
    stage.kube.delete(kinds.HOSTS, host.name)
    return f"Host object {host.name} is deleted"


def crash_agent(stage: Stage, rng: random.Random) -> str | None:
    host = _some_host(stage, rng, lambda host: host.node)
    if host is None or not turns(rng, bad=not host.agent):
        return None
    host.agent = not host.agent
    stage.simulation.set_agent(host.name, host.agent)
    return f"agent of {host.name}: runs={host.agent}"


def end_controller(stage: Stage, rng: random.Random) -> str:
    """Mostly another one is started at once, as Kubernetes does; sometimes the Lease must run out first."""
    how, draw = rng.choice(["kill", "kill", "stop"]), rng.random()
    soon, another = rng.random() < 0.7, rng.random() < 0.7
    running = stage.running_controllers()
    if running:
        controller = running[int(draw * len(running))]
        stage.stop_controller(controller) if how == "stop" else controller.kill()
    if soon:
        stage.drop_lease()
    if another:
        stage.start_controller()
    return f"{how} a controller, {'without' if soon else 'with'} its Lease, {'start' if another else 'not'} another"


def start_controller(stage: Stage, _: random.Random) -> str | None:
    if len(stage.running_controllers()) < 2:
        stage.start_controller()
    return "start a controller, if there are not two"


def kill_job(stage: Stage, rng: random.Random) -> str:
    draw, how = rng.random(), rng.choice(["kill", "evict", "delete"])
    running = stage.simulation.kubelets.running()
    if running:
        run = running[int(draw * len(running))]
        if how == "kill":
            stage.simulation.kubelets.kill(run)
        elif how == "evict":
            stage.simulation.kubelets.evict(stage.kube, run)
        else:
            stage.simulation.kubelets.delete_job(stage.kube, run)
    return f"{how} a job"


def cut_origin(stage: Stage, rng: random.Random) -> str | None:
    if not turns(rng, bad=stage.simulation.origin.cut):
        return None
    stage.simulation.origin.cut = not stage.simulation.origin.cut
    return f"origin: cut={stage.simulation.origin.cut}"


def spoil_origin(stage: Stage, rng: random.Random) -> str | None:
    """It serves bad bytes of a template that has a checksum; what has none believes the first copy."""
    urls = sorted(template.url for template in stage.wishes.templates.values() if template.checksum)
    if not urls:
        return None
    url = rng.choice(urls)
    stage.spoilt.add(url)
    stage.simulation.origin.corrupt ^= {url}
    return f"origin: corrupt={sorted(stage.simulation.origin.corrupt)}"


def fill_disk(stage: Stage, rng: random.Random) -> str | None:
    pool, host = rng.choice(stage.wishes.pools), rng.choice(sorted(stage.wishes.hosts))
    disk = stage.simulation.disk(host, pool.name)
    if not turns(rng, bad=disk.full):
        return None
    disk.full = not disk.full
    return f"disk {disk.name}: full={disk.full}"


def break_mount(stage: Stage, rng: random.Random) -> str | None:
    """Of a shared pool on one host: it is gone, does not answer, or is back."""
    host = _some_host(stage, rng, lambda host: host.node)
    if host is None:
        return None
    pool = rng.choice([pool.name for pool in stage.wishes.pools if pool.shared])
    state = rng.choice([None, Reason.NOT_MOUNTED, Reason.POOL_NOT_READY])
    mounts = stage.simulation.kubelets.machines[host.name].mounts
    mounts.pop(pool, None)
    if state is not None:
        mounts[pool] = state
    return f"mount of {pool} on {host.name}: {state or 'fine'}"


def spoil_file(stage: Stage, rng: random.Random) -> str | None:
    place = stage.some_place(rng)
    how = rng.choice(["delete", "delete", "truncate", "alter", "touch", "rot", "drop the record of"])
    if place is None:
        return None
    disk, name = stage.disk(place), place.file[1]
    if how == "delete":
        disk.delete(name)
    elif how == "truncate":
        disk.alter(name, size_bytes=0)
    elif how in ("alter", "rot"):
        disk.alter(name, silently=how == "rot")
    elif how == "touch":
        disk.touch(name)
    else:
        disk.drop_record(name)
    if how in ("rot", "drop the record of"):
        # Only a verification can tell.
        stage.tampered.add(place.file)
    return f"{how} {'/'.join(place.template)} on {place.file[0]}"


def use_files(stage: Stage, rng: random.Random) -> str | None:
    """Virtual machines start that hold some files, or all of them stop."""
    if rng.random() < 0.3:
        for disk in stage.simulation.disks():
            disk.in_use.clear()
        return "no file is in use"
    places = [place for _ in range(4) if (place := stage.some_place(rng)) is not None]
    for place in places:
        stage.disk(place).in_use.add(place.file[1])
    return f"in use: {', '.join(f'{place.template[1]} on {place.file[0]}' for place in places)}" if places else None


ACCIDENTS: list[tuple[int, Step]] = [
    (2, join),
    (6, relabel),
    (2, move),
    (2, cordon),
    (4, lose),
    (6, restore),
    (1, lose_for_ever),
    (2, rejoin),
    (1, delete_host),
    (2, crash_agent),
    (3, end_controller),
    (3, start_controller),
    (5, kill_job),
    (3, cut_origin),
    (2, spoil_origin),
    (3, fill_disk),
    (3, break_mount),
    (8, spoil_file),
    (3, use_files),
]


def _some_host(stage: Stage, rng: random.Random, suitable: Callable[[WishedHost], bool]) -> WishedHost | None:
    found = [stage.wishes.hosts[name] for name in sorted(stage.wishes.hosts) if suitable(stage.wishes.hosts[name])]
    return rng.choice(found) if found else None
