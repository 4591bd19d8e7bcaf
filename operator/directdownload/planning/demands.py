"""Demands: templates that volumes of pods on a host need. Which get a copy, which copies they hold, when they let go.

A demand is one more source of "wanted" beside deployments. Called by `deployments` through the `Demands` of a Template,
and for the answers in `Host.status.served`. The rules:

- A namespace gets what a deployment in it would get, and only where the Zone's `onDemand` names it. Of a template that
  it may not use it reads the same as of one that does not exist.
- A demand that was refused decides nothing. One with a `uid` was served before: its copy is held whatever became of its
  rights, as a pod has it mounted.
- Only evidence lets a copy go: a demand that says of itself that it has no volume, and since when, from a host that is
  Up, once `keep` is over. A demand or a Host that vanishes, a host that is Down, a Zone that is disabled or serves no
  volumes any more order nothing.
"""

import collections
import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence

from directdownload.planning import architectures, rights, selection, steps
from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import PlacementView
from directdownload.planning.selection import Fleet, Target
from directdownload.resources import naming
from directdownload.resources.host import Demand, Host, ServedState
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase
from directdownload.resources.zone import Zone

Judge = Callable[[Template, Zone], Verdict | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Asking:
    """A demand on its host; `labels` are those of its namespace.

    `over`: the host has more templates than the Zone's `maxPerHost`, and this one is too many.
    """

    host: Host
    demand: Demand
    zone: Zone | None
    labels: Mapping[str, str]
    over: bool = False

    @property
    def template_key(self) -> str:
        return key_of(self.demand)

    def means(self, template: Template) -> bool:
        """Whether it is about this very Template: one that is made again under its name is another."""
        return self.template_key == template.key and self.demand.uid in ("", template.uid)

    def spent_at(self, now: datetime.datetime) -> datetime.datetime | None:
        """From when on it lets its copy go, as known `now`; None: not as things are."""
        demand, zone = self.demand, self.zone
        if demand.volumes or demand.last_used_time is None or self.host.status.state != "Up":
            return None
        if zone is None or not zone.spec.enabled or not zone.spec.on_demand.enabled:
            return None
        keep = 0.0 if self.over else zone.spec.on_demand.keep
        # A host may say any time, up to the last that there is: one to come counts as now.
        return min(demand.last_used_time, now) + datetime.timedelta(seconds=keep)

    def spent(self, now: datetime.datetime) -> bool:
        when = self.spent_at(now)
        return when is not None and when <= now


def key_of(demand: Demand) -> str:
    """The key of the Template that a demand names: without a namespace it is in that of the pods."""
    return demand.template if "/" in demand.template else f"{demand.namespace}/{demand.template}"


def keys_of(host: Host) -> frozenset[str]:
    """The keys of all Templates that are demanded on `host`."""
    return frozenset(map(key_of, host.status.demands))


def asked(host: Host, zone: Zone | None, labels_of: Callable[[str], Mapping[str, str]]) -> tuple[Asking, ...]:
    """All demands on `host`, each with whether it is one too many. `labels_of` a namespace."""
    most = zone.spec.on_demand.max_per_host if zone is not None else 0
    over = frozenset(_ranked(host.status.demands)[most:]) if most else frozenset()
    return tuple(
        Asking(host, demand, zone, labels_of(demand.namespace), key_of(demand) in over)
        for demand in host.status.demands
    )


def _ranked(demands: Iterable[Demand]) -> list[str]:
    """Templates in the order in which they have room: mounted ones, those that wait, and unused ones, the longest
    unused last."""
    first: dict[str, tuple[int, float]] = {}
    for demand in demands:
        if demand.volumes:
            rank = (0 if demand.uid else 1, demand.since.timestamp())
        else:
            rank = (2, -demand.last_used_time.timestamp() if demand.last_used_time is not None else float("-inf"))
        key = key_of(demand)
        first[key] = min(first.get(key, rank), rank)
    return sorted(first, key=lambda key: (first[key], key))


def refusal(asking: Asking, template: Template | None, judge: Judge) -> Verdict | None:
    """Why it gets no new copy; None: it does. Stalled: the pods may not have it as things are."""
    demand, zone = asking.demand, asking.zone
    if zone is None:
        return Verdict(False, Reason.ZONE_NOT_FOUND, f"there is no Zone {asking.host.spec.zone}")
    wishes = zone.spec.on_demand
    if not wishes.enabled:
        message = f"Zone {zone.name} serves no volumes; ask an administrator to set its spec.onDemand.enabled"
        return Verdict(False, Reason.ON_DEMAND_DISABLED, message, stalled=True)
    named = wishes.namespaces is not None and wishes.namespaces.matches(asking.labels)
    if not named or not zone.spec.template_namespaces.matches(asking.labels):
        message = (
            f"Zone {zone.name} serves volumes only to namespaces that match its spec.onDemand.namespaces and "
            f"spec.templateNamespaces, and {demand.namespace} does not"
        )
        return Verdict(False, Reason.NAMESPACE_NOT_ALLOWED, message, stalled=True)
    if template is None or template.deleting or (demand.uid and demand.uid != template.uid):
        return _unknown(asking)
    kept = rights.kept_from(template, demand.namespace, asking.labels, zone.name)
    if kept is not None:
        return _unknown(asking) if kept.reason is Reason.TEMPLATE_NOT_ALLOWED else kept
    if asking.over and not demand.uid:
        message = (
            f"the pods of host {asking.host.name} use as many templates as Zone {zone.name} permits: "
            f"{wishes.max_per_host} (spec.onDemand.maxPerHost)"
        )
        return Verdict(False, Reason.TOO_MANY_DEMANDS, message, stalled=True)
    return rights.unready(template) or judge(template, zone)


def _unknown(asking: Asking) -> Verdict:
    message = f"there is no Template {asking.template_key} that pods of namespace {asking.demand.namespace} may use"
    return Verdict(False, Reason.TEMPLATE_NOT_FOUND, message, stalled=True)


def wants(template: Template, askings: Iterable[Asking], judge: Judge) -> bool:
    """Whether volumes of one of `askings`, those of the hosts that see a copy of it, may have it."""
    return any(
        each.demand.volumes and each.means(template) and refusal(each, template, judge) is None for each in askings
    )


def serves(host: Host, demand: Demand, template_uid: str) -> bool:
    """Whether volumes of `demand` use the copy of this Template, or may by now: they were told where it is."""
    if not demand.volumes:
        return False
    if demand.uid:
        return demand.uid == template_uid
    return any(
        each.template_uid == template_uid and each.state is ServedState.READY and each.since == demand.since
        for each in host.status.served
        if each.key == demand.key
    )


def volumes_of(host: Host, template_key: str, template_uid: str) -> int:
    """How many volumes on `host` use this Template, or wait for it."""
    return sum(
        demand.volumes
        for demand in host.status.demands
        if key_of(demand) == template_key and demand.uid in ("", template_uid)
    )


def in_use(placement: PlacementView, hosts: Iterable[Host]) -> Verdict | None:
    """The obstacle to removing the file: volumes on `hosts`, those that see it, use it. None: none does."""
    using = [
        (host.name, demand.volumes)
        for host in hosts
        for demand in host.status.demands
        if serves(host, demand, placement.template_uid)
    ]
    if not using:
        return None
    volumes = sum(number for _, number in using)
    return Verdict(False, Reason.IN_USE, f"{volumes} volumes of pods use it, for example on host {min(using)[0]}")


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """What the volumes of one place say of a copy there: the namespaces that hold it, or that all have let it go."""

    namespaces: tuple[str, ...] = ()
    let_go: bool = False

    @classmethod
    def of(cls, askings: Sequence[Asking], now: datetime.datetime) -> "Hold":
        holding = [each.demand.namespace for each in askings if not each.spent(now)]
        return cls(tuple(dict.fromkeys(holding)), let_go=bool(askings) and not holding)


@dataclasses.dataclass(frozen=True, slots=True)
class Demands:
    """The demands for one Template on the fleet. `namespaces` of each target: those that ask for it."""

    targets: Mapping[str, Target] = dataclasses.field(default_factory=dict)
    namespaces: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    #: when the first of them lets its copy go by time alone
    look_again: datetime.datetime | None = None
    of_hosts: Mapping[str, Hold] = dataclasses.field(default_factory=dict)
    of_zones: Mapping[str, Hold] = dataclasses.field(default_factory=dict)

    def hold(self, placement: PlacementView, pool: StoragePool | None) -> Hold:
        """What volumes say of `placement`, which is in `pool`."""
        # A shared copy belongs to no host. Without its pool nobody knows whether this copy is shared.
        everywhere = pool is None or pool.spec.shared
        found = self.of_zones.get(placement.zone) if everywhere else self.of_hosts.get(placement.host)
        return found or Hold()


NONE = Demands()


def of_template(
    template: Template,
    hosts: Iterable[Host],
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    now: datetime.datetime,
) -> steps.Steps[Demands]:
    """`hosts` on which the template is demanded; `existing` are its placements by name."""
    of_zones: dict[str, list[Asking]] = collections.defaultdict(list)
    of_hosts: dict[str, Hold] = {}
    targets: dict[str, Target] = {}
    namespaces: dict[str, list[str]] = collections.defaultdict(list)
    ends: list[datetime.datetime] = []
    for host in hosts:
        yield
        here: list[Asking] = []
        for asking in asked(host, fleet.zones.get(host.spec.zone), fleet.labels_of):
            if not asking.means(template):
                continue
            refused = refusal(asking, template, fleet.judge)
            if refused is not None and refused.stalled and not asking.demand.uid:
                continue
            here.append(asking)
            if (end := asking.spent_at(now)) is not None and end > now:
                ends.append(end)
            if asking.demand.volumes and refused is None:
                target = choose(asking, template, fleet.pools, existing, fleet.pool_roots)
                if target is not None:
                    targets[target.name] = target
                    namespaces[target.name].append(asking.demand.namespace)
        of_hosts[host.name] = Hold.of(here, now)
        of_zones[host.spec.zone] += here
    whole = {zone: Hold.of(found, now) for zone, found in of_zones.items()}
    return Demands(targets, namespaces, min(ends, default=None), of_hosts, whole)


def choose(
    asking: Asking,
    template: Template,
    pools: Iterable[StoragePool],
    existing: Mapping[str, PlacementView],
    roots: Sequence[str],
) -> Target | None:
    """The copy that serves it: one that is there, the best first, else a new one; None: no pool, or another
    architecture. `existing` are the placements of the template by name; others may be in it."""
    host, zone = asking.host, asking.zone
    mine = [
        (pool, selection.target_of(template, pool, host))
        for pool in sorted(pools, key=lambda pool: pool.name)
        if not pool.deleting and pool_planning.hosts_of(pool, (host,))
    ]
    there = [(_worth(copy, pool, host, roots), target) for pool, target in mine if (copy := existing.get(target.name))]
    if there and (best := max(there, key=lambda each: each[0]))[0]:
        return best[1]
    if architectures.differs(template, host):
        return None
    named = zone.spec.on_demand.pool if zone is not None else None
    fit = [(pool, target) for pool, target in mine if named in (None, pool.name)]
    usable = (target for pool, target in fit if pool_planning.obstacle(pool, host, roots) is None)
    return next(usable, fit[0][1] if fit else None)


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A copy that exists, as one host sees it; `blocked`: why the host cannot use its pool."""

    placement: PlacementView
    blocked: Verdict | None


def copies(
    host: Host,
    template_name: str,
    template_uid: str,
    pools: Iterable[StoragePool],
    find: Callable[[str], PlacementView | None],
    roots: Sequence[str],
) -> list[Copy]:
    """The copies of a Template that `host` sees, the best first; `find` a placement by its name."""
    found: list[tuple[int, str, Copy]] = []
    for pool in pools:
        if not pool_planning.hosts_of(pool, (host,)):
            continue
        shared = pool.spec.shared
        name = naming.placement_name(template_name, template_uid, pool.name, None if shared else host.name)
        placement = find(name)
        if placement is None or placement.template_uid != template_uid:
            continue
        reason = pool_planning.obstacle(pool, host, roots)
        message = f"StoragePool {pool.name} is not usable on host {host.name}: {reason}"
        blocked = Verdict(False, Reason.POOL_NOT_READY, message) if reason is not None else None
        found.append((-_worth(placement, pool, host, roots), pool.name, Copy(placement, blocked)))
    return [copy for _, _, copy in sorted(found, key=lambda each: each[:2])]


def _worth(copy: PlacementView, pool: StoragePool, host: Host, roots: Sequence[str]) -> int:
    """How good a copy that exists is for a volume; 0: no better than a new one."""
    if copy.deleting or copy.phase in (Phase.REMOVING, Phase.UNKNOWN) or pool_planning.obstacle(pool, host, roots):
        return 0
    return 2 if copy.phase is Phase.READY else 1
