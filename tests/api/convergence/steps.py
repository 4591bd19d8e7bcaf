"""What people do in a random run: each step draws from `rng`, tells the model, and writes objects.

A step returns its words for the trace, or None when there is nothing to do it to. `STEPS` holds their weights.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping

from tests.api.convergence.model import Key, WishedDeployment, WishedTemplate
from tests.api.convergence.stage import TEAM, Stage
from tests.world.disks import digest_of

from directdownload.cluster import kinds

Step = Callable[[Stage, random.Random], str | None]
_TEMPLATES = ("alma", "debian", "fedora", "ubuntu")
_DEPLOYMENTS = ("one", "two", "three", "four")


def create_template(stage: Stage, rng: random.Random) -> str | None:
    names = [(stage.main, name) for name in _TEMPLATES] + [(stage.tenant, _TEMPLATES[0])]
    free = [key for key in names if key not in stage.wishes.templates]
    if not free:
        return None
    return _create_template(stage, rng, rng.choice(free))


def _create_template(stage: Stage, rng: random.Random, key: Key) -> str:
    namespace, name = key
    url = f"http://{rng.choice(['images', 'mirror'])}.example.org/{name}-{rng.randrange(10**6)}.qcow2"
    template = WishedTemplate(
        namespace,
        name,
        url,
        checksum=digest_of(url) if rng.random() < 0.5 else "",
        iso=rng.random() < 0.3,
        allowed_team=rng.choice([None, "", TEAM]),
        zones=tuple(stage.zones[:1]) if rng.random() < 0.1 else (),
    )
    stage.wishes.templates[key] = template
    stage.wishes.note_rights()
    return f"create template {_name(key)} checksum={bool(template.checksum)} allowed={template.allowed_team}"


def delete_template(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.templates)
    if key is None:
        return None
    return _delete_template(stage, key)


def _delete_template(stage: Stage, key: Key) -> str:
    made = bool(stage.wishes.templates[key].uid)
    stage.wishes.delete_template(key)
    if made:
        stage.kube.delete(kinds.TEMPLATES, key[1], key[0]).object()
    return f"delete template {_name(key)}"


def recreate_template(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.templates)
    if key is None:
        return None
    return f"{_delete_template(stage, key)} and {_create_template(stage, rng, key)}"


def edit_template(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.templates)
    if key is None:
        return None
    template = stage.wishes.templates[key]
    stage.wishes.note_rights()
    if rng.random() < 0.7:
        template.allowed_team = rng.choice([None, "", TEAM])
    else:
        template.zones = rng.choice([(), (stage.zones[0],), (stage.zones[1],)])
    stage.wishes.note_rights()
    stage.write_template(template)
    return f"edit template {_name(key)}: allowed={template.allowed_team} zones={template.zones}"


def create_deployment(stage: Stage, rng: random.Random) -> str | None:
    templates = sorted(stage.wishes.templates) or [(stage.main, _TEMPLATES[0])]
    template = rng.choice(templates) if rng.random() < 0.9 else (stage.main, rng.choice(_TEMPLATES))
    namespaces = [template[0]] if rng.random() < 0.6 else [stage.main, stage.tenant]
    names = [(namespace, name) for namespace in namespaces for name in _DEPLOYMENTS]
    free = [key for key in names if key not in stage.wishes.deployments]
    if not free:
        return None
    key = rng.choice(free)
    namespace, name = key
    deployment = WishedDeployment(
        namespace,
        name,
        template,
        rng.choice([stage.zones[0], *stage.zones]),
        policy=rng.choice(["Delete", "Delete", "Retain"]),
        paused=rng.random() < 0.1,
        max_parallel=rng.choice(["0", "0", "1", "50%"]),
    )
    deployment = _select(stage, rng, deployment)
    stage.wishes.deployments[key] = deployment
    return f"create deployment {_words(deployment)}"


def delete_deployment(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.deployments)
    if key is None:
        return None
    made = stage.wishes.deployments[key].made
    stage.wishes.delete_deployment(key, unseen=key in stage.unseen())
    if made:
        stage.kube.delete(kinds.TEMPLATE_DEPLOYMENTS, key[1], key[0]).object()
    return f"delete deployment {_name(key)}"


def reselect(stage: Stage, rng: random.Random) -> str | None:
    """Narrows or widens a deployment."""
    key = _pick(rng, stage.wishes.deployments)
    if key is None:
        return None
    after = _select(stage, rng, stage.wishes.deployments[key])
    stage.wishes.narrow(key, after)
    stage.write_deployment(after)
    return f"select anew: deployment {_words(after)}"


def pause(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.deployments)
    if key is None:
        return None
    deployment = stage.wishes.deployments[key]
    if not turns(rng, bad=deployment.paused):
        return None
    deployment.paused = not deployment.paused
    stage.write_deployment(deployment)
    return f"deployment {_name(key)}: paused={deployment.paused}"


def change_policy(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.deployments)
    if key is None:
        return None
    policy = rng.choice(["Delete", "Retain"])
    stage.wishes.change_policy(key, policy)
    stage.write_deployment(stage.wishes.deployments[key])
    return f"deployment {_name(key)}: deletionPolicy={policy}"


def change_rollout(stage: Stage, rng: random.Random) -> str | None:
    key = _pick(rng, stage.wishes.deployments)
    if key is None:
        return None
    deployment = stage.wishes.deployments[key]
    deployment.max_parallel = rng.choice(["0", "1", "2", "30%", "100%"])
    stage.write_deployment(deployment)
    return f"deployment {_name(key)}: maxParallel={deployment.max_parallel}"


def switch_zone(stage: Stage, rng: random.Random) -> str | None:
    zone = rng.choice(stage.zones)
    if not turns(rng, bad=not stage.enabled[zone]):
        return None
    stage.enabled[zone] = not stage.enabled[zone]
    stage.kube.patch(kinds.ZONES, zone, {"spec": {"enabled": stage.enabled[zone]}}).object()
    return f"zone {zone}: enabled={stage.enabled[zone]}"


def change_limits(stage: Stage, rng: random.Random) -> str:
    zone = rng.choice(stage.zones)
    limits = {
        "maxParallel": rng.choice([0, 1, 2, 4]),
        "maxParallelPerHost": rng.choice([0, 1, 2]),
        "maxParallelPerSource": rng.choice([0, 0, 1, 2]),
        "maxParallelPerNamespace": rng.choice([0, 0, 1, 2]),
    }
    stage.invariants.note_limits(zone, limits)
    stage.kube.patch(kinds.ZONES, zone, {"spec": {"downloads": limits}}).object()
    return f"zone {zone}: {limits}"


def change_verification(stage: Stage, rng: random.Random) -> str:
    pool, interval = rng.choice(stage.wishes.pools).name, rng.choice(["2s", "10s", "168h"])
    stage.kube.patch(kinds.STORAGE_POOLS, pool, {"spec": {"verifyInterval": interval}}).object()
    return f"pool {pool}: verifyInterval={interval}"


def change_namespace(stage: Stage, rng: random.Random) -> str:
    stage.wishes.note_rights()
    team = stage.wishes.teams[stage.tenant] = rng.choice([TEAM, "red"])
    stage.wishes.note_rights()
    stage.kube.patch(kinds.NAMESPACES, stage.tenant, {"metadata": {"labels": {"team": team}}}).object()
    return f"namespace {stage.tenant}: team={team}"


def maintain(stage: Stage, rng: random.Random) -> str | None:
    host = stage.wishes.hosts[rng.choice(sorted(stage.wishes.hosts))]
    if not host.present or not turns(rng, bad=host.maintenance):
        return None
    host.maintenance = not host.maintenance
    state = "Maintenance" if host.maintenance else "Enabled"
    # A Host that the controller has yet to make is none to write to.
    stage.kube.patch(kinds.HOSTS, host.name, {"spec": {"allocationState": state}})
    return f"host {host.name}: allocationState={state}"


def request(stage: Stage, rng: random.Random) -> str | None:
    """Asks for another try, or for a verification."""
    choices: list[tuple[kinds.Resource, Key]] = [
        *((kinds.TEMPLATES, key) for key in sorted(stage.wishes.templates)),
        *((kinds.TEMPLATE_DEPLOYMENTS, key) for key in sorted(stage.wishes.deployments)),
        *((kinds.HOSTS, ("", name)) for name in sorted(stage.wishes.hosts)),
        *((kinds.ZONES, ("", name)) for name in stage.zones),
    ]
    kind, (namespace, name) = rng.choice(choices)
    stage.request(kind, name, namespace or None)
    return f"request at {kind.kind} {namespace}/{name}"


def request_copy(stage: Stage, rng: random.Random) -> str | None:
    place = stage.some_place(rng)
    placement = stage.placement_of(place) if place is not None else None
    if place is None:
        return None
    if placement is not None:
        stage.request(kinds.TEMPLATE_PLACEMENTS, placement["metadata"]["name"])
    return f"request at the placement of {_name(place.template)} on {place.file[0]}"


def delete_placement(stage: Stage, rng: random.Random) -> str | None:
    place = stage.some_place(rng)
    if place is None:
        return None
    stage.wishes.release(place.file)
    placement = stage.placement_of(place)
    if placement is not None:
        stage.kube.delete(kinds.TEMPLATE_PLACEMENTS, placement["metadata"]["name"])
    return f"delete the placement of {_name(place.template)} on {place.file[0]}"


#: What a run begins with, so that there is something to lose.
OPENING: list[Step] = [create_template, create_template, create_deployment, create_deployment, create_deployment]
STEPS: list[tuple[int, Step]] = [
    (5, create_template),
    (1, delete_template),
    (2, recreate_template),
    (2, edit_template),
    (10, create_deployment),
    (4, delete_deployment),
    (7, reselect),
    (2, pause),
    (2, change_policy),
    (2, change_rollout),
    (2, switch_zone),
    (2, change_limits),
    (2, change_verification),
    (1, change_namespace),
    (2, maintain),
    (3, request),
    (2, request_copy),
    (2, delete_placement),
]


def turns(rng: random.Random, *, bad: bool) -> bool:
    """Whether a switch is turned: out of what hinders the fleet always, into it only sometimes."""
    return rng.random() < (1.0 if bad else 0.4)


def _select(stage: Stage, rng: random.Random, deployment: WishedDeployment) -> WishedDeployment:
    hosts = sorted(stage.wishes.hosts)
    pools = [pool.name for pool in stage.wishes.pools if pool.zone == deployment.zone]
    return dataclasses.replace(
        deployment,
        hosts=tuple(rng.sample(hosts, rng.randint(1, len(hosts)))) if rng.random() < 0.2 else (),
        tier=rng.choice("ab") if rng.random() < 0.35 else "",
        pools=(rng.choice(pools),) if rng.random() < 0.2 else (),
    )


def _pick(rng: random.Random, wishes: Mapping[Key, object]) -> Key | None:
    return rng.choice(sorted(wishes)) if wishes else None


def _name(key: Key) -> str:
    return "/".join(key)


def _words(deployment: WishedDeployment) -> str:
    chosen = [deployment.zone, ",".join(deployment.hosts), deployment.tier, ",".join(deployment.pools)]
    return f"{_name(deployment.key)} of {_name(deployment.template)} ({deployment.policy}) on {chosen}"
