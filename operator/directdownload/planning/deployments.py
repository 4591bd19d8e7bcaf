"""The copies that the deployments and volumes of a template want, and the fate of those that exist. `removal_orders`
decides which files go, `demands` what volumes want; `rollouts` has the deployments' status.

One copy serves every deployment and volume that wants it, so placements are planned per template, over all of them.
"""

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence

from directdownload.planning import pools as pool_planning
from directdownload.planning import quotas, removal_orders, rights, steps
from directdownload.planning.demands import NONE, Demands
from directdownload.planning.observed import PlacementView
from directdownload.planning.removal_orders import Decider
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


class _Fates:
    """The fate of each copy that exists."""

    def __init__(
        self,
        template: Template,
        deciders: Sequence[Decider],
        demands: Demands,
        wanted: Container[str],
        names: Names,
    ) -> None:
        self._template, self._deciders, self._demands = template, deciders, demands
        self._wanted, self._names = wanted, names
        self.restore: list[PlacementView] = []
        self.remove: list[PlacementView] = []
        self.release: list[PlacementView] = []
        self.charge: list[tuple[PlacementView, str]] = []

    def decide(self, placement: PlacementView, *, held: bool) -> None:
        if placement.deleting or placement.phase is Phase.UNKNOWN:
            return
        if placement.phase is Phase.REMOVING:
            if placement.key in self._wanted:
                self.restore.append(placement)
        elif held:
            return
        elif removal_orders.has_moved(placement, self._template, self._names):
            self.release.append(placement)
        else:
            self._keep_or_end(placement)

    def _keep_or_end(self, placement: PlacementView) -> None:
        wanting = [each for each in self._deciders if each.wants(placement, self._names)]
        volumes = self._demands.hold(placement, self._names.pools.get(placement.pool))
        having = [each.deployment.metadata.namespace for each in wanting if each.has(placement)]
        having += volumes.namespaces
        if having and not self._template.deleting:
            if placement.namespace not in having:
                self.charge.append((placement, having[0]))
        elif removal_orders.is_ordered(placement, self._template, wanting, self._deciders, let_go=volumes.let_go):
            self.remove.append(placement)
        else:
            self.release.append(placement)


def plan_placements(
    template: Template,
    deployments: Iterable[TemplateDeployment],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    *,
    demands: Demands = NONE,
    held: bool = False,
    unreadable: Container[str] = (),
) -> PlacementChanges:
    """`deployments` are all that name the template, including those being deleted; `demands` those of volumes for it;
    `existing` its placements by name.

    `held`: a deployment that cannot be read may want any of them. `unreadable`: names of placements that exist and
    cannot be read.
    """
    return steps.finish(
        place_in_steps(template, deployments, fleet, existing, demands=demands, held=held, unreadable=unreadable)
    )


def place_in_steps(
    template: Template,
    deployments: Iterable[TemplateDeployment],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    *,
    demands: Demands = NONE,
    held: bool = False,
    unreadable: Container[str] = (),
) -> steps.Steps[PlacementChanges]:
    """The same in steps. The last one allots the room for new placements, by the usage at that moment."""
    deciders = yield from _deciders(template, deployments, fleet, existing, unreadable)
    asking = [each for each in deciders if each.asks]
    wanted: dict[str, Target] = dict(demands.targets)
    for decider in asking:
        wanted.update(decider.targets)
        yield
    missing = [target for name, target in wanted.items() if name not in existing and name not in unreadable]
    names = Names.of(fleet)
    fates = _Fates(template, deciders, demands, wanted, names)
    for number, placement in enumerate(existing.values()):
        if not number % steps.OBJECTS:
            yield
        fates.decide(placement, held=held)
    yield
    ordered = _by_space(missing, names)
    yield
    allotted = quotas.allot(((t.zone, _namespaces(asking, demands, t)) for t in ordered), fleet.zones, fleet.usage)
    made = zip(ordered, allotted.namespaces, strict=True)
    return PlacementChanges(
        create=tuple(dataclasses.replace(target, namespace=name) for target, name in made if name is not None),
        restore=tuple(fates.restore),
        remove=tuple(fates.remove),
        release=tuple(fates.release),
        charge=tuple(fates.charge),
        full=allotted.full,
    )


def _deciders(
    template: Template,
    deployments: Iterable[TemplateDeployment],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    unreadable: Container[str],
) -> steps.Steps[list[Decider]]:
    """The deployments that decide, oldest first. A refused one decides nothing (rule 15), and costs nothing."""
    found: list[Decider] = []
    for each in deployments:
        may = rights.standing(each, template, fleet)
        if may.decides:
            found.append(Decider.of(each, may, select(each, template, fleet, existing, unreadable).wanted))
        yield
    return sorted(found, key=lambda decider: (decider.deployment.seniority, decider.deployment.key))


def _namespaces(asking: Iterable[Decider], demands: Demands, target: Target) -> Sequence[str]:
    """The namespaces that want `target`: of deployments, the oldest first, then of volumes."""
    namespaces = [d.deployment.metadata.namespace for d in asking if target.name in d.targets]
    return tuple(dict.fromkeys([*namespaces, *demands.namespaces.get(target.name, ())]))


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
