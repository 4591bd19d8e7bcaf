"""The copies that the deployments of a template want, and the fate of those that exist; `rollouts` has their status.

One copy serves every deployment that wants it, so placements are planned per template, over all its deployments.
"""

import dataclasses
from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from directdownload.planning import pools as pool_planning
from directdownload.planning import quotas, rights, steps
from directdownload.planning.observed import PlacementView
from directdownload.planning.selection import Fleet, Names, Target, select
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase


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
    def of(cls, deployment: TemplateDeployment, standing: rights.Standing, targets: Mapping[str, Target]) -> "_Wish":
        return cls(
            deployment,
            standing,
            targets,
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
            wishes.append(_Wish.of(each, may, select(each, template, fleet, existing, unreadable).wanted))
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
        if host is not None and host.spec.zone != placement.zone and not template.deleting:
            # A host that moves to another zone keeps the files of templates that stay.
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
