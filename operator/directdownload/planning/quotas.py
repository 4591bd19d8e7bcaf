"""How many placements there may be: of one namespace in one zone, and in all. Existing ones are never removed for it.

A few small objects make many placements: 50 Templates and 50 deployments are 250,000 on 5,000 hosts. A placement counts
for the namespace of a deployment that wants it: the one that it was created for, as its label says, or once that one no
longer wants it, the oldest other one. So only its own deployments can use up a namespace's account.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from directdownload.planning.conditions import Verdict
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import Zone

_MIB, _KIB = 2**20, 2**10
# The controller's memory, as measured with rollouts to all hosts going on (docs/install.md, "Sizing the controller"):
# 202 MiB by these figures and 206 measured with 1,000 hosts and 10,000 placements, 413 and 414 with 5,000 and 50,000;
# with fewer certificates than 200 it is less. A placement at rest takes 1 KiB, the rest of its 3 is work on it.
_BASE_BYTES = 150 * _MIB
_HOST_BYTES = 24 * _KIB
_PLACEMENT_BYTES = 3 * _KIB
#: A tenth of the memory is for what no bench has seen: lists that come in under load, larger objects.
_USABLE = 0.9
#: With less memory than the base a controller can still serve a few hosts: these take 3 MiB.
_LEAST = 1000


class Account(NamedTuple):
    """The quotas that placements count for."""

    namespace: str
    zone: str


#: All placements of the cluster count for it as well.
ALL = Account("", "")


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """`counts`: existing placements, and those being created. `most`: in all; 0: no limit."""

    counts: Mapping[Account, int] = dataclasses.field(default_factory=dict)
    most: int = 0


UNLIMITED = Usage()


class Zones(Protocol):
    """The zones by name."""

    def get(self, key: str, /) -> Zone | None: ...


def most_placements(memory_bytes: int, hosts: int) -> int:
    """How many placements a controller with this memory keeps beside `hosts` hosts; 0, no limit, if it has no limit."""
    if not memory_bytes:
        return 0
    left = memory_bytes * _USABLE - _BASE_BYTES - hosts * _HOST_BYTES
    return max(_LEAST, int(left / _PLACEMENT_BYTES))


def limit(account: Account, zones: Zones, usage: Usage) -> int:
    """The limit of `account` in placements; 0: none."""
    if account == ALL:
        return usage.most
    zone = zones.get(account.zone)
    return zone.spec.placements_per_namespace if zone is not None else 0


def has_room(account: Account, zones: Zones, usage: Usage) -> bool:
    most = limit(account, zones, usage)
    return not most or usage.counts.get(account, 0) < most


@dataclasses.dataclass(frozen=True, slots=True)
class Allotment:
    """`namespaces`: for each copy the one that it counts for; None: not created. `full`: accounts that prevent it."""

    namespaces: Sequence[str | None]
    full: frozenset[Account]


def allot(copies: Iterable[tuple[str, Sequence[str]]], zones: Zones, usage: Usage) -> Allotment:
    """`copies` to be created, in order: the zone of each and the namespaces that ask; the first with room pays."""
    left: dict[Account, float] = {}
    found: list[str | None] = []
    full: set[Account] = set()

    def room(account: Account) -> float:
        if account not in left:
            most = limit(account, zones, usage)
            left[account] = most - usage.counts.get(account, 0) if most else float("inf")
        return left[account]

    for zone, namespaces in copies:
        accounts = [Account(namespace, zone) for namespace in namespaces]
        account = next((each for each in accounts if room(each) > 0), None)
        if room(ALL) <= 0:
            full.add(ALL)
            found.append(None)
        elif account is None:
            full.update(accounts)
            found.append(None)
        else:
            left[account] -= 1
            left[ALL] -= 1
            found.append(account.namespace)
    return Allotment(found, frozenset(full))


def shortage(namespace: str, zone: str, zones: Zones, usage: Usage) -> Verdict | None:
    """Why no further placement is created for deployments of `namespace` in `zone`; None: there is room."""
    if not has_room(ALL, zones, usage):
        message = (
            f"the cluster has {usage.counts.get(ALL, 0)} placements, and the controller has memory for {usage.most} at "
            "most; delete deployments, or ask an administrator to raise controller.resources.limits.memory of the chart"
        )
        return Verdict(False, Reason.TOO_MANY_PLACEMENTS, message)
    account = Account(namespace, zone)
    if not has_room(account, zones, usage):
        message = (
            f"namespace {namespace} has {usage.counts.get(account, 0)} placements in Zone {zone}, which allows "
            f"{limit(account, zones, usage)} (its spec.placementsPerNamespace); delete deployments of the namespace, "
            "or ask an administrator to raise it"
        )
        return Verdict(False, Reason.TOO_MANY_PLACEMENTS, message)
    return None
