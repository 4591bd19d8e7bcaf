"""Slots: how many downloads may run at once in a zone, on a host, from a source, for a namespace, for a deployment.

A Peer reads no source: it has a limit of its own in the zone. One Seed at a time is a limit as well.

`Slots` are filled from the jobs that exist; the caller asks it before it starts another. No I/O, no clock.
"""

import bisect
import collections
import dataclasses
from collections.abc import Iterable, Sequence

from directdownload.planning.observed import PlacementView
from directdownload.planning.templates import source_host
from directdownload.resources.jobs import PeerRole
from directdownload.resources.template import Template
from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.zone import Zone


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """A limit on downloads, for example `zone/zone-1`; a limit of 0 means none."""

    name: str
    limit: int


_OF_HOSTS = ("host/", "verify/host/")
_OF_NAMESPACES = ("namespace/", "verify/namespace/", "peers/namespace/")
#: Of the groups of Seeds.
SEEDS = "seed/"
#: Limit on probes, over all zones and apart from downloads.
PROBES = Group("probes", 4)


def groups_of(
    placement: PlacementView,
    template: Template | None,
    zone: Zone,
    wanting: Iterable[tuple[TemplateDeployment, int]],
    *,
    demanded: bool = False,
    role: PeerRole | None = None,
) -> tuple[Group, ...]:
    """The limits on a download of `placement`. `wanting` are the deployments that want it, with their desired counts;
    `demanded`: so do volumes. Without its `template` the limit of its source is left out.

    The Template's namespace is charged, whoever deploys it: its author has chosen the server.
    A deployment's own limit counts only if every deployment that wants the copy, and is not paused, has one, and no
    volume waits for the copy.
    """
    downloads = zone.spec.downloads
    of_host = Group(f"host/{placement.host}", downloads.max_parallel_per_host)
    found = [seed_group(placement.template_uid, zone.name)] if role is PeerRole.SEED else []
    if role is PeerRole.PEER:
        found += [Group(peers_group(zone.name), zone.spec.peers.max_parallel), of_host]
        found.append(Group(f"peers/namespace/{zone.name}/{_namespace(placement)}", 0))
    else:
        found += [Group(f"zone/{zone.name}", downloads.max_parallel), of_host]
        if template is not None:
            found.append(Group(f"source/{source_host(template.spec.url)}", downloads.max_parallel_per_source))
        found.append(Group(f"namespace/{zone.name}/{_namespace(placement)}", downloads.max_parallel_per_namespace))
    rollouts = [
        Group(f"deployment/{deployment.key}", parallel_limit(deployment.spec.rollout.max_parallel, desired))
        for deployment, desired in wanting
        if not deployment.spec.rollout.paused
    ]
    return (*found, *(rollouts if all(group.limit for group in rollouts) and not demanded else ()))


def seed_group(template_uid: str, zone: str) -> Group:
    """One Seed at a time, of the copies of one Template in one zone."""
    return Group(f"{SEEDS}{zone}/{template_uid}", 1)


def peers_group(zone: str) -> str:
    """The name of the group of all Peers of a zone."""
    return f"peers/zone/{zone}"


def verification_groups(placement: PlacementView, zone: Zone, role: PeerRole | None = None) -> tuple[Group, ...]:
    """The limits on a verification: one at a time per host; per zone as many as downloads, counted apart from them.

    A namespace has no limit, as no server decides how long a verification takes, but its share counts in the line.
    """
    return (
        *((seed_group(placement.template_uid, zone.name),) if role is PeerRole.SEED else ()),
        Group(f"verify/zone/{zone.name}", zone.spec.downloads.max_parallel),
        Group(f"verify/host/{placement.host}", 1),
        Group(f"verify/namespace/{zone.name}/{_namespace(placement)}", 0),
    )


def _namespace(placement: PlacementView) -> str:
    return placement.template_key.partition("/")[0]


#: False if volumes wait for it, failures in a row, minus the bytes of space, name.
_Entry = tuple[bool, int, int, str]


class Line:
    """The placements that wait for a slot, each with its groups.

    Those that volumes wait for come first, because their pods do not run. Of these, and of the others, those come first
    whose namespace holds the fewest slots of their zone at the moment, so that no other namespace can crowd it out;
    then those with the fewest failures in a row, so that one that keeps failing keeps no other from its turn; then
    those with the most space, then by name. No slot is kept free for a share: while no other waits, a namespace gets
    all that its limits permit.

    Placements whose groups differ only in the host stand in one queue. A queue is skipped as a whole if one of these
    groups is full: in a rollout thousands wait for their zone. So are those of one host, of which the queue has only
    the first.
    """

    def __init__(self) -> None:
        #: by the groups that are not of a host: the first one of each host
        self._queues: dict[tuple[Group, ...], list[_Entry]] = {}
        #: by all groups
        self._alike: dict[tuple[Group, ...], list[_Entry]] = {}
        self._waiting: dict[str, tuple[_Entry, tuple[Group, ...]]] = {}
        #: those that were called for a slot and have not answered, with the group of their namespace
        self._called: dict[str, str] = {}
        #: how many of these each such group has
        self._calls: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def join(
        self, name: str, groups: tuple[Group, ...], space_bytes: int, failures: int = 0, *, demanded: bool = False
    ) -> None:
        """Puts `name` into the line, after `failures` in a row; joining again replaces. `demanded`: by volumes."""
        self.leave(name)
        entry, alike = (not demanded, failures, -space_bytes, name), self._alike.setdefault(groups, [])
        self._waiting[name] = (entry, groups)
        bisect.insort(alike, entry)
        if alike[0] == entry:
            if len(alike) > 1:
                self._drop(alike[1], groups)
            bisect.insort(self._queues.setdefault(_of_many_hosts(groups), []), entry)

    def leave(self, name: str) -> None:
        """Takes `name` out of the line; it is no error if it is not there."""
        found = self._waiting.pop(name, None)
        if found is not None:
            entry, groups = found
            alike = self._alike[groups]
            place = bisect.bisect_left(alike, entry)
            first = alike.pop(place)
            if not place:
                self._drop(first, groups)
            if not alike:
                del self._alike[groups]
            elif not place:
                bisect.insort(self._queues.setdefault(_of_many_hosts(groups), []), alike[0])

    def _drop(self, first: _Entry, groups: tuple[Group, ...]) -> None:
        shared = _of_many_hosts(groups)
        queue = self._queues[shared]
        del queue[bisect.bisect_left(queue, first)]
        if not queue:
            del self._queues[shared]

    def first(self, slots: "Slots") -> str | None:
        """The first one that has room in all its groups."""
        found: list[tuple[bool, int, _Entry]] = []
        for shared, queue in self._queues.items():
            if slots.full_group(shared) is None:
                first = next((each for each in queue if slots.full_group(self._waiting[each[-1]][1]) is None), None)
                if first is not None:
                    namespace = _namespace_group(shared)
                    found.append((first[0], slots.used(namespace) + self._calls[namespace], first))
        return min(found)[-1][-1] if found else None

    def call(self, slots: "Slots") -> str | None:
        """Takes the first one out of the line for a slot. Until it answers it counts as if it held one."""
        name = self.first(slots)
        if name is not None:
            _, groups = self._waiting[name]
            self.leave(name)
            self.answer(name)
            self._called[name] = _namespace_group(groups)
            self._calls[self._called[name]] += 1
        return name

    def answer(self, name: str) -> bool:
        """Whether `name` was called; afterwards it is not."""
        group = self._called.pop(name, None)
        if group is None:
            return False
        self._calls[group] -= 1
        if not self._calls[group]:
            del self._calls[group]
        return True


def _of_many_hosts(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    return tuple(group for group in groups if not group.name.startswith(_OF_HOSTS))


def _namespace_group(groups: tuple[Group, ...]) -> str:
    return next((group.name for group in groups if group.name.startswith(_OF_NAMESPACES)), "")


class Slots:
    """The groups that each holder occupies. Occupying again replaces; releasing an unknown holder is no error."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[str, ...]] = {}
        self._used: collections.Counter[str] = collections.Counter()

    def occupy(self, holder: str, groups: Sequence[str]) -> None:
        self.release(holder)
        self._groups[holder] = tuple(groups)
        self._used.update(groups)

    def release(self, holder: str) -> bool:
        """Whether `holder` held anything."""
        groups = self._groups.pop(holder, None)
        if groups is None:
            return False
        self._used.subtract(groups)
        for group in groups:
            if not self._used[group]:
                del self._used[group]
        return True

    def used(self, group: str) -> int:
        return self._used[group]

    def holds(self, holder: str) -> bool:
        return holder in self._groups

    def full_group(self, groups: Sequence[Group]) -> Group | None:
        """The first group that has no room; None if all have."""
        return next((group for group in groups if 0 < group.limit <= self._used[group.name]), None)


def parallel_limit(value: str, total: int) -> int:
    """`rollout.maxParallel` as a number: a percentage of `total` rounds up to at least 1; `0` is no limit."""
    if not value.endswith("%"):
        return int(value)
    percent = int(value[:-1])
    return max(1, -(-total * percent // 100)) if percent else 0
