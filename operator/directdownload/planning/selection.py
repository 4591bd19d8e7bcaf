"""The copies that a deployment selects on the fleet, and those that are skipped for their hosts' architecture.

Called by `deployments` and `dryrun`, and by the controller where a limit is a percentage of a deployment's copies.
"""

import dataclasses
from collections.abc import Callable, Collection, Container, Mapping

from directdownload.planning import architectures, quotas, sharing
from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import PlacementView
from directdownload.resources import naming
from directdownload.resources.host import Host
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import Phase, PlacedTemplate, TemplatePlacementSpec
from directdownload.resources.zone import Zone


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

    def spec(self) -> TemplatePlacementSpec:
        template = self.template
        placed = PlacedTemplate(namespace=template.metadata.namespace, name=template.name, uid=template.uid)
        return TemplatePlacementSpec(
            template_ref=placed, zone=self.zone, pool=self.pool, host=self.host, path=self.path
        )


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

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        return self.namespaces.get(namespace, {})


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A copy that is not made: it does not exist, and `host` is of another architecture than the Template."""

    target: Target
    host: Host

    @property
    def pool(self) -> str:
        return self.target.pool

    @property
    def message(self) -> str:
        known, wanted = self.host.status.architecture, self.target.template.spec.architecture
        return f"host {self.host.name} is {known}, and the Template's spec.architecture is {wanted}"


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """The copies that a deployment selects on the fleet as it is, by placement name: `wanted` ones, and others."""

    wanted: Mapping[str, Target] = dataclasses.field(default_factory=dict)
    skipped: Mapping[str, Skipped] = dataclasses.field(default_factory=dict)


def select(
    deployment: TemplateDeployment,
    template: Template,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    unreadable: Container[str] = (),
) -> Selection:
    """`existing` are the placements of the template by name, `unreadable` the names of those that cannot be read."""
    spec = deployment.spec
    hosts = [
        host for host in fleet.hosts if host.spec.zone == spec.zone and spec.selects(host.name, host.metadata.labels)
    ]
    wanted: dict[str, Target] = {}
    skipped: dict[str, Skipped] = {}
    for pool in fleet.pools:
        if pool.spec.zone != spec.zone or pool.deleting or (spec.pools and pool.name not in spec.pools):
            continue
        members = pool_planning.hosts_of(pool, hosts)
        if pool.spec.shared:
            # One that takes it is enough: all others that share the pool have the copy as well.
            takers = [host for host in members if architectures.takes(template, host)]
            members = _fetching_host(pool, takers or members, fleet)
        for host in members:
            target = target_of(template, pool, host)
            there = target.name in unreadable or _stays(existing.get(target.name))
            if there or architectures.takes(template, host):
                wanted[target.name] = target
            elif architectures.differs(template, host):
                skipped[target.name] = Skipped(target, host)
    return Selection(wanted, skipped)


def _stays(placement: PlacementView | None) -> bool:
    """Whether the copy exists, whatever its phase; one that is being removed counts as gone."""
    return placement is not None and placement.phase is not Phase.REMOVING


def target_of(template: Template, pool: StoragePool, host: Host) -> Target:
    """The copy of `template` in `pool` on `host`; in a shared pool it is the same one for all hosts."""
    name = naming.placement_name(template.name, template.uid, pool.name, None if pool.spec.shared else host.name)
    path = f"{pool.spec.path}/{naming.file_name(template.uid, template.spec.format)}"
    return Target(name, template, pool.spec.zone, pool.name, host.name, path)


def _fetching_host(pool: StoragePool, members: list[Host], fleet: Fleet) -> list[Host]:
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
