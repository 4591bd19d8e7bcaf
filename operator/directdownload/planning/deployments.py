"""The copies that the deployments of a template want, the fate of those that exist, and a deployment's status.

One copy serves every deployment that wants it, so placements are planned per template, over all its deployments.
"""

import dataclasses
import datetime
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from directdownload.planning import disclosure, quotas, requests, rights, sharing, steps
from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.observed import PlacementView
from directdownload.planning.templates import count
from directdownload.resources import naming, quantities
from directdownload.resources.host import Host
from directdownload.resources.reasons import DONE, WAITING, Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import (
    DeploymentBytes,
    PlacementFailure,
    TemplateDeployment,
    TemplateDeploymentStatus,
)
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import Zone

FAILURE_SAMPLES = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A wanted copy: the spec of a placement."""

    name: str
    template: Template
    zone: str
    pool: str
    host: str
    path: str
    #: the namespace that it counts for; empty until that is known
    namespace: str = ""


def _no_objection(_: Template, __: Zone) -> Verdict | None:
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Fleet:
    """The objects that a deployment is planned against. `namespaces` maps each to its labels.

    `judge`: the objection of a Zone's policy to every source of a Template, or to its checksum; the engine supplies it.
    """

    zones: Mapping[str, Zone]
    hosts: Collection[Host]
    pools: Collection[StoragePool]
    namespaces: Mapping[str, Mapping[str, str]]
    pool_roots: tuple[str, ...] = ()
    usage: quotas.Usage = quotas.UNLIMITED
    judge: Callable[[Template, Zone], Verdict | None] = _no_objection


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementChanges:
    """`restore`: was to be removed, and is wanted again. `remove`: the file goes. `release`: only the placement goes.

    `charge`: stays, and counts for that namespace from now on. `full`: the accounts for which wanted copies are not
    created.
    """

    create: tuple[Target, ...] = ()
    restore: tuple[PlacementView, ...] = ()
    remove: tuple[PlacementView, ...] = ()
    release: tuple[PlacementView, ...] = ()
    charge: tuple[tuple[PlacementView, str], ...] = ()
    full: frozenset[quotas.Account] = frozenset()


def targets(deployment: TemplateDeployment, template: Template, fleet: Fleet) -> dict[str, Target]:
    """The copies that the deployment wants on the fleet as it is, by placement name."""
    spec = deployment.spec
    hosts = [
        host for host in fleet.hosts if host.spec.zone == spec.zone and spec.selects(host.name, host.metadata.labels)
    ]
    found: dict[str, Target] = {}
    for pool in fleet.pools:
        if pool.spec.zone != spec.zone or pool.deleting or (spec.pools and pool.name not in spec.pools):
            continue
        members = pool_planning.hosts_of(pool, hosts)
        if pool.spec.shared:
            members = _fetching_host(template, pool, members, fleet)
        for host in members:
            target = _target(template, pool, host)
            found[target.name] = target
    return found


def _target(template: Template, pool: StoragePool, host: Host) -> Target:
    name = naming.placement_name(template.name, template.uid, pool.name, None if pool.spec.shared else host.name)
    path = f"{pool.spec.path}/{naming.file_name(template.uid, template.spec.format)}"
    return Target(name, template, pool.spec.zone, pool.name, host.name, path)


def _fetching_host(template: Template, pool: StoragePool, members: list[Host], fleet: Fleet) -> list[Host]:
    """The one host that is to fetch a new copy of a shared pool; `sharing` decides when another one takes it over."""
    chosen = sharing.choose(pool, members, fleet.pool_roots)
    return [host for host in members if host.name == chosen] or sorted(members, key=lambda host: host.name)[:1]


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """The fleet by name, for lookups for each of thousands of copies."""

    hosts: Mapping[str, Host]
    pools: Mapping[str, StoragePool]

    @classmethod
    def of(cls, fleet: Fleet) -> "Names":
        return cls({host.name: host for host in fleet.hosts}, {pool.name: pool for pool in fleet.pools})


@dataclasses.dataclass(frozen=True, slots=True)
class _Wish:
    """A deployment that decides, and what is computed of it once, for each of thousands of copies.

    `changed`: its selection differs from the one by which its placements were last planned. `narrowed`: it may decide
    about copies that it no longer selects.
    """

    deployment: TemplateDeployment
    standing: rights.Standing
    targets: Mapping[str, Target]
    changed: bool
    narrowed: bool

    @classmethod
    def of(cls, deployment: TemplateDeployment, standing: rights.Standing, template: Template, fleet: Fleet) -> "_Wish":
        return cls(
            deployment,
            standing,
            targets(deployment, template, fleet),
            changed=deployment.status.observed_selection != rights.selection(deployment),
            narrowed=standing.votes and rights.edited(deployment),
        )


def _covers(wish: _Wish, placement: PlacementView, names: Names) -> bool:
    """Whether the deployment still wants `placement`.

    The zone, pools and hosts that it names decide. Selectors decide only if the deployment itself has changed since it
    was last observed: a label or an object that vanishes is no order to remove (architecture, rule 12).
    """
    spec = wish.deployment.spec
    if placement.key in wish.targets:
        return True
    if spec.zone != placement.zone or (spec.pools and placement.pool not in spec.pools):
        return False
    pool, host = names.pools.get(placement.pool), names.hosts.get(placement.host)
    if pool is None or pool.spec.shared:
        # A shared copy belongs to no host. Without its pool nobody knows whether this copy is shared.
        return True
    if not spec.names(placement.host):
        return False
    if not wish.changed:
        return True
    observable = host is not None and host.spec.zone == spec.zone
    return not observable or (host is not None and spec.host_selector.matches(host.metadata.labels))


def plan_placements(
    template: Template,
    deployments: Iterable[TemplateDeployment],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    *,
    held: bool = False,
    unreadable: Container[str] = (),
) -> PlacementChanges:
    """`deployments` are all that name the template, including those being deleted; `existing` its placements by name.

    `held`: a deployment that cannot be read may want any of them. `unreadable`: names of placements that exist and
    cannot be read.
    """
    return steps.finish(place_in_steps(template, deployments, fleet, existing, held=held, unreadable=unreadable))


def place_in_steps(
    template: Template,
    deployments: Iterable[TemplateDeployment],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    *,
    held: bool = False,
    unreadable: Container[str] = (),
) -> steps.Steps[PlacementChanges]:
    """The same in steps. The last one allots the room for new placements, by the usage at that moment."""
    wishes: list[_Wish] = []
    for each in deployments:
        may = rights.standing(each, template, fleet)
        # A refused wish decides nothing (architecture, rule 15), and costs nothing.
        if may.decides:
            wishes.append(_Wish.of(each, may, template, fleet))
        yield
    wishes.sort(key=lambda wish: (wish.deployment.seniority, wish.deployment.key))
    wanted: dict[str, Target] = {}
    asking = [wish for wish in wishes if not wish.deployment.deleting and wish.standing.refused is None]
    for wish in asking:
        wanted.update(wish.targets)
        yield
    create = [target for name, target in wanted.items() if name not in existing and name not in unreadable]
    names = Names.of(fleet)
    restore: list[PlacementView] = []
    remove: list[PlacementView] = []
    release: list[PlacementView] = []
    charge: list[tuple[PlacementView, str]] = []
    for number, placement in enumerate(existing.values()):
        if not number % steps.OBJECTS:
            yield
        if placement.deleting or placement.phase is Phase.UNKNOWN:
            continue
        if placement.phase is Phase.REMOVING:
            if placement.key in wanted:
                restore.append(placement)
            continue
        if held:
            continue
        host = names.hosts.get(placement.host)
        if host is not None and host.spec.zone != placement.zone:
            # A host that moves to another zone keeps its files.
            release.append(placement)
            continue
        covering = [wish for wish in wishes if _covers(wish, placement, names)]
        having = [
            wish.deployment.metadata.namespace
            for wish in covering
            if not wish.deployment.deleting and wish.standing.has(placement)
        ]
        if having and not template.deleting:
            if placement.namespace not in having:
                charge.append((placement, having[0]))
            continue
        last = [wish.deployment for wish in covering if wish.standing.votes]
        last += [wish.deployment for wish in wishes if wish.narrowed and wish.deployment.spec.zone == placement.zone]
        (remove if _removes(template, last) else release).append(placement)
    yield
    ordered = _by_space(create, names)
    yield
    allotted = quotas.allot(((t.zone, _namespaces(asking, t)) for t in ordered), fleet.zones, fleet.usage)
    made = zip(ordered, allotted.namespaces, strict=True)
    return PlacementChanges(
        create=tuple(dataclasses.replace(target, namespace=name) for target, name in made if name is not None),
        restore=tuple(restore),
        remove=tuple(remove),
        release=tuple(release),
        charge=tuple(charge),
        full=allotted.full,
    )


def _namespaces(asking: Iterable[_Wish], target: Target) -> Sequence[str]:
    """The namespaces of the deployments that want `target`, oldest deployment first."""
    return tuple(dict.fromkeys(w.deployment.metadata.namespace for w in asking if target.name in w.targets))


def _removes(template: Template, last: Collection[TemplateDeployment]) -> bool:
    """Whether the file of a copy that no deployment wants any more is removed.

    `last`: the deployments that wanted it last and may decide, as they are being deleted or have just been narrowed.
    One Retain among them wins. If there is none, only the deletion of its Template is an order to remove the file.
    """
    return all(d.spec.deletion_policy == "Delete" for d in last) if last else template.deleting


def _by_space(wanted: Iterable[Target], names: Names) -> tuple[Target, ...]:
    """Most space first: where slots are few, a copy that fits comes before one that may not."""
    return tuple(
        sorted(
            wanted,
            key=lambda t: (
                -pool_planning.available_bytes(names.pools[t.pool], names.hosts.get(t.host)),
                t.host,
                t.pool,
            ),
        )
    )


def plan_deployment(
    deployment: TemplateDeployment,
    template: Template | None,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    now: datetime.datetime,
    *,
    held: bool = False,
) -> TemplateDeploymentStatus:
    """The status of one deployment; `existing` are the placements of its template by name.

    `held`: as for `plan_placements`; the copies that it no longer selects are still to be removed.
    """
    before, generation = deployment.status, deployment.metadata.generation
    may = rights.standing(deployment, template, fleet) if template is not None else None
    refused = may.refused if may is not None else rights.refusal(deployment, None, fleet)
    wanted = targets(deployment, template, fleet) if template is not None and may is not None and may.decides else {}
    # A copy that is being removed counts as still to come.
    placements = [p for name in wanted if (p := existing.get(name)) is not None and p.phase is not Phase.REMOVING]
    entitled = refused is None or (may is not None and may.votes)
    if not entitled:
        # It gets no new copies: only those that it has count, and none that others have.
        placements = [p for p in placements if may is not None and may.has(p)]
    desired = len(wanted) if entitled else len(placements)
    there = sum(name in existing for name in wanted) if entitled else desired
    verdict = refused or _verdict(deployment, fleet, desired, placements, desired - there)
    told = conditions(verdict, before.conditions, generation, now)
    status = TemplateDeploymentStatus(
        observed_generation=generation,
        **requests.served(deployment, now).fields(),
        observed_selection=before.observed_selection if refused is not None or held else rights.selection(deployment),
        granted=before.granted,
        conditions=told,
    )
    if may is None or not may.sees:
        return status
    counts = count(placements)
    missing = desired - (counts.total or 0)
    size = template.status.size_bytes or 0 if template is not None else 0
    update: dict[str, Any] = {
        "placements": counts.model_copy(
            update={"total": None, "desired": desired, "pending": counts.pending + missing}
        ),
        "bytes": DeploymentBytes(
            total=quantities.total((*(_total_bytes(p) or size for p in placements), missing * size)),
            downloaded=quantities.total(map(_downloaded_bytes, placements)),
        ),
        "failures": _failures(placements),
    }
    if refused is None and template is not None and not deployment.deleting:
        update["granted"] = rights.grant(
            deployment, template, max((p.created for p in placements if p.created), default=None), now
        )
    return status.model_copy(update=update)


def _total_bytes(placement: PlacementView) -> int:
    """Bytes in all, as the download counts them: of the file as served."""
    file = placement.file
    return ((file.served_bytes or file.size_bytes) if file is not None else None) or placement.bytes_total


def _downloaded_bytes(placement: PlacementView) -> int:
    return _total_bytes(placement) if placement.phase is Phase.READY else placement.bytes_downloaded


def _verdict(
    deployment: TemplateDeployment, fleet: Fleet, desired: int, placements: list[PlacementView], unmade: int
) -> Verdict:
    """`unmade`: wanted copies without a placement."""
    spec = deployment.spec
    if not desired:
        if any(pool.spec.zone == spec.zone and (not spec.pools or pool.name in spec.pools) for pool in fleet.pools):
            return Verdict(
                False, Reason.NO_MATCHING_HOSTS, f"no host of Zone {spec.zone} matches hostSelector and hosts"
            )
        return Verdict(False, Reason.NO_MATCHING_POOLS, f"no StoragePool of Zone {spec.zone} matches spec.pools")
    counts = count(placements)
    if counts.ready == desired:
        return Verdict(True, Reason.CONVERGED, f"{desired} of {desired} copies are verified")
    progress = f"{counts.ready} of {desired} copies are verified"
    short = quotas.shortage(deployment.metadata.namespace, spec.zone, fleet.zones, fleet.usage) if unmade else None
    if short is not None:
        failed = f", {counts.failed} failed (see status.failures)" if counts.failed else ""
        return dataclasses.replace(short, message=f"{progress}{failed}, {unmade} are not created: {short.message}")
    if counts.failed:
        settled = counts.ready + counts.failed == desired
        message = f"{progress}, {counts.failed} failed: see status.failures; to try again set the annotation "
        return Verdict(False, Reason.PLACEMENTS_FAILED, message + "directdownload.dev/requested-at", stalled=settled)
    if not fleet.zones[spec.zone].spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, f"{progress}; Zone {spec.zone} is disabled")
    if spec.rollout.paused:
        return Verdict(False, Reason.PAUSED, f"{progress}; spec.rollout.paused is true")
    return Verdict(False, Reason.DOWNLOADING, progress)


def _has_failed(placement: PlacementView) -> bool:
    """Whether its last attempt failed, or its pod did not start, which is no attempt."""
    reason = placement.reason
    tried = placement.attempts > 0 or reason is Reason.POD_BLOCKED
    return tried and reason is not None and reason not in WAITING | DONE


def _failures(placements: list[PlacementView]) -> tuple[PlacementFailure, ...]:
    """A sample: permanent failures first, then those that are tried again."""
    failing = [p for p in placements if p.phase is Phase.FAILED or (p.phase is Phase.PENDING and _has_failed(p))]
    failing.sort(key=lambda p: (p.phase is not Phase.FAILED, p.host, p.pool))
    return tuple(disclosure.failure(p, p.reason) for p in failing[:FAILURE_SAMPLES] if p.reason is not None)
