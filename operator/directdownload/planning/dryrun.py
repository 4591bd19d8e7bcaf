"""What a deployment would do if it were created now: for `directdownload plan`. Nothing is written, no host is asked.

It calls the controller's planners with a deployment that does not exist: they decide which copies it wants, what each
has to wait for and how many may run at once. A plan does not hold what only the download itself can find out.
"""

import collections
import dataclasses
import datetime
import enum
from collections.abc import Collection, Iterable, Mapping, Sequence

from directdownload.planning import (
    deployments,
    footprints,
    placements,
    quotas,
    readers,
    rights,
    rollouts,
    rounds,
    sharing,
    slots,
    waits,
)
from directdownload.planning import pools as pool_planning
from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import PlacementView
from directdownload.planning.plans import Step, Surroundings
from directdownload.planning.selection import Fleet, Names, Skipped, Target, select
from directdownload.planning.unserved import EVERYTHING_SERVED, Unserved, names_unserved
from directdownload.planning.waits import Wait
from directdownload.resources import quantities
from directdownload.resources.reasons import Reason
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment, WaitingCopies
from directdownload.resources.templateplacement import Phase, Role
from directdownload.resources.zone import Zone


class Action(enum.StrEnum):
    """What happens to one copy."""

    DOWNLOAD = "Download"
    #: an earlier deployment's verified file lies there: it is found, not fetched
    ADOPT = "Adopt"
    #: another deployment has it downloaded
    DOWNLOADING = "Downloading"
    PRESENT = "Present"
    #: nothing happens yet; it goes on by itself once its obstacle is gone
    WAIT = "Wait"
    #: nothing happens until somebody changes something
    REFUSED = "Refused"


BLOCKED = frozenset({Action.WAIT, Action.REFUSED})
#: A placement that is Downloading, and its Template if that is known.
Running = tuple[PlacementView, Template | None]
#: The actions that take a slot.
_STARTING = frozenset({Action.DOWNLOAD, Action.ADOPT, Action.DOWNLOADING})


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One copy. `after_bytes`: free bytes above the reserve once it is there; None if a size is unknown."""

    placement: str
    host: str
    pool: str
    path: str
    action: Action
    #: its placement exists: somebody has wanted it before
    exists: bool = False
    reason: Reason | None = None
    message: str = ""
    #: bytes still to fetch; None: unknown
    fetch_bytes: int | None = None
    available_bytes: int | None = None
    reserve_bytes: int | None = None
    after_bytes: int | None = None
    #: bytes on disk that the part of an ended download holds: some of `fetch_bytes` may be there already
    part_bytes: int = 0
    #: the round in which it starts, from 1; None: it does not start
    round: int | None = None
    #: of its download; None: it does not start, or hosts do not read from each other
    role: Role | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DryRun:
    """`refused`: why the deployment as a whole gets nothing new, or has nothing to do.

    `others`: downloads of other copies that run and hold slots of the first round; None: not known.
    `skipped`: copies that are selected, and not made as their hosts are of another architecture. If the deployment
    names the hosts, they are among `copies` instead.
    """

    copies: Sequence[Copy]
    refused: Verdict | None = None
    others: int | None = None
    skipped: Sequence[Skipped] = ()
    unserved: Unserved = EVERYTHING_SERVED

    @property
    def blocked(self) -> Sequence[WaitingCopies]:
        """The copies that do not start, as a deployment's status counts them."""
        blocked = (copy for copy in self.copies if copy.action in BLOCKED)
        return waits.counted(Wait(copy.reason or Reason.UNKNOWN, copy.host, copy.message) for copy in blocked)

    def count(self, *actions: Action) -> int:
        return sum(copy.action in actions for copy in self.copies)

    @property
    def fetch_bytes(self) -> int | None:
        """Bytes to fetch for all copies that can start; None if the size of the template is unknown."""
        sizes = [copy.fetch_bytes for copy in self.copies if copy.action in _STARTING]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def origin_bytes(self) -> int | None:
        """Of these, the bytes that the source serves."""
        reading = [copy.fetch_bytes for copy in self.copies if copy.action in _STARTING and copy.role is not Role.PEER]
        known = [size for size in reading if size is not None]
        return sum(known) if len(known) == len(reading) else None

    @property
    def rounds(self) -> int:
        return max((copy.round for copy in self.copies if copy.round is not None), default=0)

    @property
    def most_at_once(self) -> int:
        rounds = collections.Counter(copy.round for copy in self.copies if copy.round is not None)
        return max(rounds.values(), default=0)


def plan_dry_run(
    deployment: TemplateDeployment,
    template: Template,
    fleet: Fleet,
    existing: Mapping[str, PlacementView],
    now: datetime.datetime,
    running: Iterable[Running] | None = None,
) -> DryRun:
    """`existing` are the placements of the template by name, `running` all that are Downloading in the zone; None: they
    are not known."""
    chosen = select(deployment, template, fleet, existing)
    wanted, skipped = chosen.wanted, tuple(chosen.skipped.values())
    changes = deployments.plan_placements(template, [deployment], fleet, existing)
    restored = frozenset(placement.key for placement in changes.restore)
    # In the controller's order: existing ones first, then those with the most space.
    names = [*(name for name in wanted if name in existing), *(target.name for target in changes.create)]
    refused = rights.refusal(deployment, template, fleet)
    run = _Run(
        template,
        fleet,
        existing,
        now,
        refused,
        _Room.after(deployment, changes.create, fleet),
        names=Names.of(fleet),
        unpacked_bytes=footprints.unpacked_bytes(existing.values()),
    )
    copies = [run.copy(wanted[name], restored, deployment) for name in dict.fromkeys((*names, *wanted))]
    if not wanted and refused is None:
        status = rollouts.plan_deployment(deployment, template, fleet, existing, now)
        refused = Verdict(False, status.conditions[0].reason, status.conditions[0].message)
    zone = fleet.zones.get(deployment.spec.zone)
    others = None if running is None else _others(running, copies, run.names)
    if zone is not None:
        copies = _with_roles(copies, template, zone, run)
        copies = _in_rounds(copies, template, zone, deployment, others or ())
    if deployment.spec.hosts:
        copies += map(_mismatched, skipped)
        skipped = ()
    count = None if others is None else len(others)
    ordered = tuple(sorted(copies, key=lambda copy: (copy.host, copy.pool)))
    return DryRun(ordered, refused, count, skipped, names_unserved(deployment, fleet))


def _others(running: Iterable[Running], copies: Iterable[Copy], names: Names) -> list[Running]:
    """Those that hold slots beside `copies`. One on a host that is Down holds none."""
    planned = {copy.placement for copy in copies if copy.action in _STARTING}
    return [
        (view, template)
        for view, template in running
        if view.key not in planned
        and ((host := names.hosts.get(view.host)) is None or host.status.state not in (None, "Down"))
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class _Room:
    """`made`: copies that get a placement. `short`: why no others do."""

    made: Collection[str]
    short: Verdict | None

    @classmethod
    def after(cls, deployment: TemplateDeployment, made: Sequence[Target], fleet: Fleet) -> "_Room":
        namespace, zone = deployment.metadata.namespace, deployment.spec.zone
        counts = dict(fleet.usage.counts)
        for account in (quotas.Account(namespace, zone), quotas.ALL):
            counts[account] = counts.get(account, 0) + len(made)
        usage = dataclasses.replace(fleet.usage, counts=counts)
        return cls(frozenset(t.name for t in made), quotas.shortage(namespace, zone, fleet.zones, usage))


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    template: Template
    fleet: Fleet
    existing: Mapping[str, PlacementView]
    now: datetime.datetime
    refused: Verdict | None
    room: "_Room"
    names: Names
    unpacked_bytes: int | None

    def copy(self, target: Target, restored: Collection[str], deployment: TemplateDeployment) -> Copy:
        view = self.existing.get(target.name)
        pool = self.names.pools[target.pool]
        if view is None:
            view = _unmade(target)
        elif view.key in restored:
            view = dataclasses.replace(view, phase=Phase.PENDING, file=None, next_attempt_time=None, conditions=())
        around = self._around(view, pool, deployment)
        if around.successor:
            view = dataclasses.replace(view, host=around.successor)
            around = dataclasses.replace(around, host=self.names.hosts.get(view.host), successor="")
        return self._with_space(self._decided(target, view, around), view, around)

    def _decided(self, target: Target, view: PlacementView, around: Surroundings) -> Copy:
        def decided(action: Action, reason: Reason | None = None, message: str = "") -> Copy:
            return Copy(
                target.name, view.host, target.pool, view.path, action, target.name in self.existing, reason, message
            )

        if view.deleting or view.phase is Phase.REMOVING:
            return decided(Action.WAIT, view.reason, "an earlier copy is being removed; a new one follows")
        if view.phase is Phase.UNKNOWN:
            return decided(Action.WAIT, Reason.UNKNOWN, "this version does not know its phase, and leaves it alone")
        if view.phase is Phase.DOWNLOADING:
            action = Action.DOWNLOADING if view.counted is Phase.DOWNLOADING else Action.WAIT
            return decided(action, view.reason, view.message)
        plan = placements.plan_placement(view, around, None, self.now)
        status = plan.status
        if view.phase is Phase.READY and (status is None or status.phase is Phase.READY):
            return decided(Action.PRESENT, view.reason)
        if self.refused is not None:
            action = Action.REFUSED if self.refused.stalled else Action.WAIT
            return decided(action, self.refused.reason, self.refused.message)
        if target.name not in self.existing and target.name not in self.room.made and self.room.short is not None:
            return decided(Action.WAIT, self.room.short.reason, self.room.short.message)
        if (large := footprints.too_large(self.template, around.zone)) is not None:
            return decided(Action.REFUSED, large.reason, large.message)
        if plan.step is Step.FETCH:
            lies = footprints.lies_there(self.template, around)
            return decided(Action.ADOPT if lies else Action.DOWNLOAD)
        if view.phase is Phase.FAILED and status is None:
            message = f"{view.message}; to try again set the annotation directdownload.dev/requested-at"
            return decided(Action.REFUSED, view.reason, message)
        if view.phase is Phase.READY and status is not None:
            # The file was lost: it is fetched again, whichever deployment wants it.
            return decided(Action.DOWNLOAD, status.conditions[0].reason, status.conditions[0].message)
        if status is not None:
            return decided(Action.WAIT, status.conditions[0].reason, status.conditions[0].message)
        when = f"; next attempt at {view.next_attempt_time:%Y-%m-%d %H:%M:%S} UTC" if view.next_attempt_time else ""
        return decided(Action.WAIT, view.reason, view.message + when)

    def _with_space(self, copy: Copy, view: PlacementView, around: Surroundings) -> Copy:
        facts = pool_planning.facts(around.pool, around.host) if around.pool and around.host else None
        available = facts.available_bytes if facts is not None else None
        capacity = facts.capacity_bytes if facts is not None else None
        reserve = None
        if around.pool is not None and capacity is not None:
            reserve = quantities.parse_reserve(around.pool.spec.reserve, capacity)
        size, unpacked = self.template.status.size_bytes, self.unpacked_bytes
        fetch: int | None = 0
        taken, peak = 0, 0
        part = footprints.part_bytes(self.template, facts, view.host) if copy.action is Action.DOWNLOAD else 0
        if copy.action not in (Action.PRESENT, Action.ADOPT):
            fetch = None if size is None else max(0, size - view.bytes_downloaded)
            # An archive as served lies there until it has been unpacked. A part takes its space already.
            taken, peak = (unpacked or fetch or 0) - part, (fetch or 0) + (unpacked or 0) - part
        after = None
        if available is not None and reserve is not None and fetch is not None:
            after = available - reserve - taken
            if copy.action is Action.DOWNLOAD and available - reserve < peak:
                copy = dataclasses.replace(
                    copy,
                    action=Action.WAIT,
                    reason=Reason.INSUFFICIENT_SPACE,
                    message=f"{peak} bytes are needed, {available} are free of which {reserve} stay in reserve; "
                    "free some space or lower the pool's reserve",
                )
        return dataclasses.replace(
            copy,
            fetch_bytes=fetch,
            available_bytes=available,
            reserve_bytes=reserve,
            after_bytes=after,
            part_bytes=part,
        )

    def _around(self, view: PlacementView, pool: StoragePool, deployment: TemplateDeployment) -> Surroundings:
        host = self.names.hosts.get(view.host)
        successor = ""
        if pool.spec.shared:
            members = [other for other in self.fleet.hosts if other.spec.zone == view.zone]
            roots = self.fleet.pool_roots
            successor = sharing.successor(pool, host, view, members, [deployment], roots, self.now)
        return Surroundings(
            template=self.template,
            zone=self.fleet.zones.get(view.zone),
            host=host,
            pool=pool,
            pool_roots=self.fleet.pool_roots,
            successor=successor,
        )


def _mismatched(skipped: Skipped) -> Copy:
    target = skipped.target
    refused = Copy(target.name, target.host, target.pool, target.path, Action.REFUSED)
    return dataclasses.replace(refused, reason=Reason.ARCHITECTURE_MISMATCH, message=skipped.message)


def _unmade(target: Target) -> PlacementView:
    """The placement that the controller would create."""
    return PlacementView(
        key=target.name,
        uid="",
        resource_version=0,
        generation=1,
        deleting=False,
        finalized=True,
        requested_at="",
        namespace=target.namespace,
        template_key=target.template.key,
        template_uid=target.template.uid,
        zone=target.zone,
        pool=target.pool,
        host=target.host,
        path=target.path,
    )


def _view(copy: Copy, template: Template, zone: Zone) -> PlacementView:
    return _unmade(Target(copy.placement, template, zone.name, copy.pool, copy.host, copy.path))


def _with_roles(copies: Sequence[Copy], template: Template, zone: Zone, run: _Run) -> list[Copy]:
    """With the roles of those that start, if hosts of the zone read from each other."""
    starting = {
        copy.placement: run.existing.get(copy.placement) or _view(copy, template, zone)
        for copy in copies
        if copy.action in _STARTING
    }
    found = readers.roles(starting, run.existing.values(), template, zone, run.names, run.now)
    return [dataclasses.replace(copy, role=found.get(copy.placement)) for copy in copies]


def _in_rounds(
    copies: Sequence[Copy], template: Template, zone: Zone, deployment: TemplateDeployment, others: Iterable[Running]
) -> list[Copy]:
    """Assigns rounds by the limits, as if every download took equally long. Those that run are in the first one."""

    def groups_of(copy: Copy) -> tuple[slots.Group, ...]:
        wanting = [(deployment, len(copies))]
        return slots.groups_of(_view(copy, template, zone), template, zone, wanting, role=readers.job_role(copy.role))

    def held_by(view: PlacementView, known: Template | None) -> tuple[slots.Group, ...]:
        return slots.groups_of(view, known, zone, (), role=readers.role_of(view))

    begun = [copy for copy in copies if copy.action is Action.DOWNLOADING]
    starting = [copy for copy in copies if copy.action in _STARTING and copy.action is not Action.DOWNLOADING]
    held = [*map(groups_of, begun), *(held_by(view, known) for view, known in others)]
    numbers = [1] * len(begun) + rounds.assigned(held, map(groups_of, starting))
    found = {copy.placement: number for copy, number in zip((*begun, *starting), numbers, strict=True)}
    return [dataclasses.replace(copy, round=found.get(copy.placement)) for copy in copies]
