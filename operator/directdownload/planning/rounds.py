"""Which downloads of a plan start together, by the limits, as if all took equally long. Called by `dryrun`."""

import collections
from collections.abc import Iterable, Sequence

from directdownload.planning.slots import Group


def assigned(held: Iterable[Sequence[Group]], waiting: Iterable[Sequence[Group]]) -> list[int]:
    """The round of each download that waits, from 1 on, in its order; those that run hold their slots in round 1.

    `held`, `waiting`: the limits on each download, as `slots.groups_of` gives them.
    """
    taken = collections.Counter((group.name, 1) for groups in held for group in groups)
    #: for a round in which a group is full: a later one, up to which it is full
    after: dict[tuple[str, int], int] = {}

    def with_room(group: Group, number: int) -> int:
        """The first round from `number` in which the group has room."""
        full = []
        while taken[group.name, number] >= group.limit:
            full.append(number)
            number = after.get((group.name, number), number + 1)
        for each in full:
            after[group.name, each] = number
        return number

    found = []
    for groups in waiting:
        limits = [group for group in groups if group.limit]
        number, later = 0, 1
        while later > number:
            number, later = later, max((with_room(group, later) for group in limits), default=later)
        found.append(number)
        for group in limits:
            taken[group.name, number] += 1
    return found
