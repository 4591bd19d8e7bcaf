"""How many placements each namespace has in each zone, and which Templates wait until there may be more.

Counted as the store changes: no walk over fifty thousand placements to create one. `planning/quotas.py` decides what a
placement counts for, and how many there may be.
"""

import contextlib
import types
from collections.abc import Callable, Collection, Iterator

from directdownload.cluster.reflector import Store, Unreadable
from directdownload.planning.observed import PlacementView
from directdownload.planning.quotas import ALL, Account
from directdownload.planning.selection import Target

#: After a report of too many placements, the next one comes only after there were fewer by this share.
_RELIEF = 0.95


class Charges:
    """Keeps `counts` by the changes of the store; placements that are being created count as well."""

    def __init__(self, placements: Store[PlacementView]) -> None:
        self._counts: dict[Account, int] = {}
        #: not to be written to
        self.counts = types.MappingProxyType(self._counts)
        #: placements that are being created, by name
        self._making: dict[str, Account] = {}
        #: keys of Templates in the order in which they started to wait, and for which accounts
        self._line: dict[str, frozenset[Account]] = {}
        self._told = False
        placements.subscribe(self._changed)
        placements.unreadable.subscribe(self._unreadable_changed)

    def _changed(self, key: str, old: PlacementView | None, new: PlacementView | None) -> None:
        if old is not None:
            self._add(_account(old), -1)
        if new is not None:
            self._made(key)
            self._add(_account(new), 1)

    def _unreadable_changed(self, _: str, old: Unreadable | None, new: Unreadable | None) -> None:
        """Its namespace is unknown, but it exists."""
        self._add(ALL, (new is not None) - (old is not None))

    def _made(self, name: str) -> None:
        account = self._making.pop(name, None)
        if account is not None:
            self._add(account, -1)

    def _add(self, account: Account, number: int) -> None:
        for each in {account, ALL}:
            self._counts[each] = self._counts.get(each, 0) + number
            if not self._counts[each]:
                del self._counts[each]

    @contextlib.contextmanager
    def making(self, targets: Collection[Target]) -> Iterator[None]:
        """Counts `targets`, which are created within, from now on: plans made meanwhile do not take their room."""
        for target in targets:
            self._making[target.name] = Account(target.namespace, target.zone)
            self._add(self._making[target.name], 1)
        try:
            yield
        finally:
            for target in targets:
                self._made(target.name)

    def wait(self, template: str, accounts: frozenset[Account]) -> None:
        """`template` has copies to be created once there is room in one of `accounts`."""
        if accounts:
            self._line[template] = accounts

    def leave(self, template: str) -> None:
        self._line.pop(template, None)

    def first(self, has_room: Callable[[Account], bool]) -> Iterator[tuple[str, Account]]:
        """For each account that has room the Template that has waited longest for it."""
        seen: set[Account] = set()
        for template, accounts in self._line.items():
            for account in accounts - seen:
                seen.add(account)
                if has_room(account):
                    yield template, account

    def tell(self, most: int, *, full: bool) -> bool:
        """Whether it is news that the cluster has as many placements as it may have."""
        if self._told and self._counts.get(ALL, 0) < most * _RELIEF:
            self._told = False
        news = full and not self._told
        self._told = self._told or full
        return news


def _account(placement: PlacementView) -> Account:
    return Account(placement.namespace, placement.zone)
