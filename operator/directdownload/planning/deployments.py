"""Which copies the deployments of a template want, what becomes of those that exist, and a deployment's status.

One copy serves every deployment that wants it, so placements are planned per template, over all its deployments.
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping

from directdownload.planning import pools as pool_planning
from directdownload.planning import sharing
from directdownload.planning.conditions import Verdict, conditions
from directdownload.planning.observed import PlacementView
from directdownload.planning.templates import count
from directdownload.resources import naming
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
    """A copy that is wanted: the spec of a placement."""

    name: str
    template: Template
    zone: str
    pool: str
    host: str
    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fleet:
    """What a deployment is planned against. `namespaces` maps each to its labels."""

    zones: Mapping[str, Zone]
    hosts: Collection[Host]
    pools: Collection[StoragePool]
    namespaces: Mapping[str, Mapping[str, str]]
    pool_roots: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementChanges:
    """`restore`: was to be removed, wanted again. `remove`: the file goes. `release`: only the placement goes."""

    create: tuple[Target, ...] = ()
    restore: tuple[PlacementView, ...] = ()
    remove: tuple[PlacementView, ...] = ()
    release: tuple[PlacementView, ...] = ()


def refusal(deployment: TemplateDeployment, template: Template | None, fleet: Fleet) -> Verdict | None:
    """Why the deployment gets no new copies, or None. A refusal never takes away copies that exist."""
    spec = deployment.spec
    if template is None or template.deleting:
        return Verdict(False, Reason.TEMPLATE_NOT_FOUND, f"there is no Template {deployment.template_key}")
    zone = fleet.zones.get(spec.zone)
    if zone is None:
        return Verdict(False, Reason.ZONE_NOT_FOUND, f"spec.zone: there is no Zone {spec.zone}")
    namespace = deployment.metadata.namespace
    labels = fleet.namespaces.get(namespace, {})
    if not zone.spec.template_namespaces.matches(labels):
        message = f"Zone {zone.name} takes deployments of namespaces that match its spec.templateNamespaces only"
        return Verdict(False, Reason.NAMESPACE_NOT_ALLOWED, message, stalled=True)
    allowed = template.spec.allowed_namespaces
    if template.metadata.namespace != namespace and (allowed is None or not allowed.matches(labels)):
        message = f"Template {template.key} does not list namespace {namespace} in spec.allowedNamespaces"
        return Verdict(False, Reason.TEMPLATE_NOT_ALLOWED, message, stalled=True)
    if template.spec.zones and spec.zone not in template.spec.zones:
        message = f"Template {template.key} may be deployed in {', '.join(template.spec.zones)} only (its spec.zones)"
        return Verdict(False, Reason.TEMPLATE_NOT_IN_ZONE, message, stalled=True)
    ready = template.status.condition("Ready")
    if ready is None or ready.status != "True":
        message = (
            f"Template {template.key} is not Ready: {ready.message if ready else 'not seen by the controller yet'}"
        )
        return Verdict(False, Reason.TEMPLATE_NOT_READY, message)
    return None


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
    """The one host that is to fetch a new copy of a shared pool; `sharing` says when another one takes it over."""
    chosen = sharing.choose(pool, members, fleet.pool_roots)
    return [host for host in members if host.name == chosen] or sorted(members, key=lambda host: host.name)[:1]


def _covers(
    deployment: TemplateDeployment, placement: PlacementView, wanted: Mapping[str, Target], fleet: Fleet
) -> bool:
    """Whether `deployment` still wants `placement`.

    What it names decides (zone, pools, hosts). Selectors decide only when the deployment itself has changed since it
    was last observed: a label or an object that vanishes is no order to remove (architecture, rule 12).
    """
    spec = deployment.spec
    if placement.key in wanted:
        return True
    if spec.zone != placement.zone or (spec.pools and placement.pool not in spec.pools):
        return False
    pool = next((pool for pool in fleet.pools if pool.name == placement.pool), None)
    host = next((host for host in fleet.hosts if host.name == placement.host), None)
    if pool is None or pool.spec.shared:
        # A shared copy belongs to no host; without its pool nobody can tell whether this is one.
        return True
    if not spec.names(placement.host):
        return False
    if not _changed(deployment):
        return True
    observable = host is not None and host.spec.zone == spec.zone
    return not observable or (host is not None and spec.host_selector.matches(host.metadata.labels))


def selection(deployment: TemplateDeployment) -> str:
    """A hash of what the deployment selects its copies by: only another one can be a narrowing."""
    spec = deployment.spec
    chosen = [spec.zone, spec.hosts, spec.pools, spec.host_selector.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:10]


def _changed(deployment: TemplateDeployment) -> bool:
    """Whether it selects otherwise than when its placements were last planned."""
    return deployment.status.observed_selection != selection(deployment)


def plan_placements(
    template: Template,
    deployments: Iterable[TemplateDeployment],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
) -> PlacementChanges:
    """`deployments` are all that name the template, those being deleted too; `existing` its placements by name."""
    deployments = list(deployments)
    zone_of_host = {host.name: host.spec.zone for host in fleet.hosts}
    wishes = {d.key: targets(d, template, fleet) for d in deployments}
    granted: dict[str, Target] = {}
    for deployment in deployments:
        if not deployment.deleting and refusal(deployment, template, fleet) is None:
            granted.update(wishes[deployment.key])
    create = [target for name, target in granted.items() if name not in existing]
    # a hash of each, and there may be thousands of placements
    changed_keys = {d.key for d in deployments if _changed(d)}
    restore: list[PlacementView] = []
    remove: list[PlacementView] = []
    release: list[PlacementView] = []
    for placement in existing.values():
        if placement.deleting:
            continue
        if placement.phase is Phase.REMOVING:
            if placement.key in granted:
                restore.append(placement)
            continue
        if zone_of_host.get(placement.host, placement.zone) != placement.zone:
            # A host that moves to another zone keeps its files.
            release.append(placement)
            continue
        covering = [d for d in deployments if _covers(d, placement, wishes[d.key], fleet)]
        if not template.deleting and any(not d.deleting for d in covering):
            continue
        # It was wanted last by those that are being deleted and by whoever has just been narrowed; if unknown, by any.
        of_zone = [d for d in deployments if d.spec.zone == placement.zone]
        changed = [d for d in of_zone if d.key in changed_keys]
        narrowed = [d for d in changed if d.status.observed_selection]
        wanted_last = [*covering, *narrowed] or changed or of_zone
        retained = any(d.spec.deletion_policy == "Retain" for d in wanted_last)
        (release if retained else remove).append(placement)
    return PlacementChanges(_by_space(create, fleet), tuple(restore), tuple(remove), tuple(release))


def _by_space(wanted: Iterable[Target], fleet: Fleet) -> tuple[Target, ...]:
    """Those with the most space first: where slots are few, a copy that fits comes before one that may not."""
    hosts, pools = {host.name: host for host in fleet.hosts}, {pool.name: pool for pool in fleet.pools}
    return tuple(
        sorted(
            wanted,
            key=lambda t: (-pool_planning.available_bytes(pools[t.pool], hosts.get(t.host)), t.host, t.pool),
        )
    )


def plan_deployment(
    deployment: TemplateDeployment,
    template: Template | None,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    now: datetime.datetime,
) -> TemplateDeploymentStatus:
    """The status of one deployment; `existing` are the placements of its template by name."""
    refused = refusal(deployment, template, fleet)
    wanted = targets(deployment, template, fleet) if template is not None else {}
    # A copy that is going counts as one that is still to come.
    placements = [p for name in wanted if (p := existing.get(name)) is not None and p.phase is not Phase.REMOVING]
    counts = count(placements)
    missing = len(wanted) - (counts.total or 0)
    size = template.status.size_bytes or 0 if template is not None else 0
    generation = deployment.metadata.generation
    return TemplateDeploymentStatus(
        observed_generation=generation,
        placements=counts.model_copy(
            update={"total": None, "desired": len(wanted), "pending": counts.pending + missing}
        ),
        bytes=DeploymentBytes(
            total=sum(_total_bytes(p) or size for p in placements) + missing * size,
            downloaded=sum(_downloaded_bytes(p) for p in placements),
        ),
        failures=_failures(placements),
        observed_selection=selection(deployment),
        last_handled_request=deployment.metadata.requested_at or None,
        conditions=conditions(
            refused or _verdict(deployment, fleet, len(wanted), placements),
            deployment.status.conditions,
            generation,
            now,
        ),
    )


def _total_bytes(placement: PlacementView) -> int:
    """As the download counts: of the file as served."""
    file = placement.file
    return ((file.served_bytes or file.size_bytes) if file is not None else None) or placement.bytes_total


def _downloaded_bytes(placement: PlacementView) -> int:
    return _total_bytes(placement) if placement.phase is Phase.READY else placement.bytes_downloaded


def _verdict(deployment: TemplateDeployment, fleet: Fleet, desired: int, placements: list[PlacementView]) -> Verdict:
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
    if counts.failed:
        settled = counts.ready + counts.failed == desired
        message = f"{progress}, {counts.failed} failed: see status.failures; to try again set the annotation "
        return Verdict(False, Reason.PLACEMENTS_FAILED, message + "directdownload.dev/requested-at", stalled=settled)
    if not fleet.zones[spec.zone].spec.enabled:
        return Verdict(False, Reason.ZONE_DISABLED, f"{progress}; Zone {spec.zone} is disabled")
    if spec.rollout.paused:
        return Verdict(False, Reason.PAUSED, f"{progress}; spec.rollout.paused is true")
    return Verdict(False, Reason.DOWNLOADING, progress)


def _failures(placements: list[PlacementView]) -> tuple[PlacementFailure, ...]:
    """A sample: what has failed for good first, then what is being tried again."""
    failing = [
        p
        for p in placements
        if p.phase is Phase.FAILED
        or (p.phase is Phase.PENDING and p.attempts and p.reason is not None and p.reason not in WAITING | DONE)
    ]
    failing.sort(key=lambda p: (p.phase is not Phase.FAILED, p.host, p.pool))
    return tuple(
        PlacementFailure(host=p.host, pool=p.pool, reason=p.reason, message=p.message[:500])
        for p in failing[:FAILURE_SAMPLES]
        if p.reason is not None
    )
