"""The volumes of this host: which ones count, which demands they make, and what the controller has answered. No I/O.

`desk` feeds a `VolumeBook` with the requests of the plugin and the Host's status, and saves the ledger that it changes.

A volume counts while it is mounted, by the plugin's last statement or by a request since, or while the kubelet asks for
it. The kubelet asks again at the latest after 222 s, and does not unpublish a volume that it could never mount; so one
that nobody asked for during 10 minutes is forgotten. Only a statement of the plugin forgets: while the plugin is away,
nobody could ask, and the 10 minutes begin again when it is back.

Nothing looks released by mistake. Until the first statement of this process, `demands` has at least what the Host's
status had. A demand whose last volume went stays, with no volumes, until the controller releases it.
"""

import collections
import dataclasses
import datetime
import enum
import time
from collections.abc import Iterable
from typing import Self

import pydantic

from directdownload.agent.volumes import demands
from directdownload.agent.volumes.ledger import Entry, Key, Ledger, Volume, VolumeName
from directdownload.resources.host import Demand, Served
from directdownload.resources.volumes import MountedVolume

FORGET_SECONDS = 600.0
#: A plugin that has not stated its mounts for this long is away.
CONNECTED_SECONDS = 60.0
#: Of new volumes and demands: pods of a host are a few hundred.
VOLUMES_LIMIT, ENTRIES_LIMIT = 5000, 1000

_NAME: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(VolumeName)


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """`time` is for what is reported, in whole seconds; `monotonic` for what is measured."""

    time: datetime.datetime
    monotonic: float

    @classmethod
    def now(cls) -> Self:
        return cls(datetime.datetime.now(datetime.UTC).replace(microsecond=0), time.monotonic())


class Asked(enum.Enum):
    """What a request for a volume is."""

    FIRST = enum.auto()
    AGAIN = enum.auto()
    #: no object can have this name
    MALFORMED = enum.auto()
    #: the volume is of another Template or namespace
    OTHER = enum.auto()
    #: this host has too many volumes or demands
    FULL = enum.auto()


@dataclasses.dataclass(slots=True)
class _Ask:
    last_monotonic: float
    #: since when the volume waits
    waits_monotonic: float


class VolumeBook:
    """The volumes at `at` and later. It alone changes the entries of `ledger`; who calls it saves them."""

    def __init__(self, ledger: Ledger, at: Moment) -> None:
        self._ledger = ledger
        self._asks = {
            name: _Ask(at.monotonic, at.monotonic - (0.0 if volume.uid else _age(volume.since, at)))
            for name, volume in ledger.volumes.items()
        }
        self._mounted: frozenset[str] = frozenset()
        self._stated_monotonic: float | None = None
        #: by key: as many volumes are reported at least, before the first statement
        self._floor: dict[Key, int] = {}
        self._served: dict[Key, Served] = {}
        self._settle(at)

    def remember(self, told: Iterable[Demand], at: Moment) -> None:
        """Takes the demands in the status of a Host that was not read before: an earlier agent's, or none."""
        for demand in told:
            try:
                entry = _entry(demand, demand.since, demand.last_used_time)
            except pydantic.ValidationError:
                # not one of ours
                continue
            self._ledger.demands.setdefault(entry.key, entry)
            if self._stated_monotonic is None and demand.volumes > 0:
                self._floor[entry.key] = demand.volumes
        self._settle(at)

    def hear(self, served: Iterable[Served]) -> None:
        """Takes the controller's answers, all of them."""
        self._served = {each.key: each for each in served}
        self._release()

    def ask(self, name: str, namespace: str, template: str, at: Moment) -> Asked:
        """Notes that a pod needs the volume, unless it is refused."""
        known = self._ledger.volumes.get(name)
        if known is None:
            try:
                _NAME.validate_python(name)
                wanted = Volume(namespace=namespace, template=template, since=at.time)
            except pydantic.ValidationError:
                return Asked.MALFORMED
            new = wanted.key not in self._ledger.demands and len(self._ledger.demands) >= ENTRIES_LIMIT
            if new or len(self._ledger.volumes) >= VOLUMES_LIMIT:
                return Asked.FULL
            self._ledger.volumes[name] = wanted
            self._asks[name] = _Ask(at.monotonic, at.monotonic)
            self._settle(at)
            return Asked.FIRST
        if (known.namespace, known.template) != (namespace, template):
            return Asked.OTHER
        self._asks.setdefault(name, _Ask(at.monotonic, at.monotonic)).last_monotonic = at.monotonic
        return Asked.AGAIN

    def unpublish(self, name: str, at: Moment) -> None:
        self._forget([name], at)

    def state(self, mounted: Iterable[MountedVolume], at: Moment) -> list[str]:
        """Takes the volumes that are mounted now, all of them; returns the names that it cannot take."""
        if not self.connected(at):
            for ask in self._asks.values():
                ask.last_monotonic = at.monotonic
        self._stated_monotonic, self._floor = at.monotonic, {}
        refused, names = [], set()
        for each in mounted:
            if self._mount(each, at):
                names.add(each.volume)
            else:
                refused.append(each.volume)
        for name in self._mounted - names:
            if name in self._asks:
                self._asks[name].waits_monotonic = at.monotonic
        self._mounted = frozenset(names)
        recently = {name for name, ask in self._asks.items() if at.monotonic - ask.last_monotonic < FORGET_SECONDS}
        self._forget(self._ledger.volumes.keys() - names - recently, at)
        return refused

    def resolve(self, name: str, uid: str, at: Moment) -> None:
        """Gives the volume the Template that it keeps for its life. Its demand goes on under that uid."""
        known = self._ledger.volumes[name]
        if known.uid == uid:
            return
        entry = self._ledger.demands[known.key]
        self._ledger.volumes[name] = given = known.model_copy(update={"uid": uid})
        self._ledger.demands.setdefault(given.key, _entry(given, entry.since))
        if not known.uid and not self._counts[known.key]:
            # its volumes have not gone: they are in the other one
            del self._ledger.demands[known.key]
        self._settle(at)

    def handed_over(self, name: str, at: Moment) -> float:
        """Notes that the plugin gets the copy for the volume, to mount it; returns for how many seconds it waited."""
        self._mounted |= {name}
        ask = self._asks.get(name)
        return at.monotonic - ask.waits_monotonic if ask is not None else 0.0

    def volume(self, name: str) -> Volume | None:
        return self._ledger.volumes.get(name)

    def answer(self, volume: Volume) -> Served | None:
        """The controller's answer to the demand of `volume`; None: there is none yet."""
        return demands.answer_to(self._ledger.demands[volume.key], self._served)

    def demands(self) -> tuple[Demand, ...]:
        """For the Host's status."""
        return demands.report(self._ledger.volumes.values(), self._ledger.demands, self._floor)

    def connected(self, at: Moment) -> bool:
        """Whether the plugin stated its mounts lately."""
        return self._stated_monotonic is not None and at.monotonic - self._stated_monotonic <= CONNECTED_SECONDS

    @property
    def mounted(self) -> int:
        return len(self._mounted)

    def waiting_seconds(self, at: Moment) -> list[float]:
        """For each volume that is not mounted: for how long it has waited."""
        waiting = self._ledger.volumes.keys() - self._mounted
        return [at.monotonic - self._asks[name].waits_monotonic for name in waiting]

    @property
    def _counts(self) -> collections.Counter[Key]:
        return demands.counted(self._ledger.volumes.values(), self._floor)

    def _mount(self, stated: MountedVolume, at: Moment) -> bool:
        """Takes one mounted volume, with the uid of its mount: the mount is what the pod uses."""
        try:
            _NAME.validate_python(stated.volume)
            found = Volume(namespace=stated.namespace, template=stated.template, uid=stated.uid, since=at.time)
        except pydantic.ValidationError:
            return False
        if stated.volume in self._ledger.volumes:
            self.resolve(stated.volume, found.uid, at)
        else:
            self._ledger.volumes[stated.volume] = found
        return True

    def _forget(self, names: Iterable[str], at: Moment) -> None:
        for name in names:
            self._ledger.volumes.pop(name, None)
            self._asks.pop(name, None)
            self._mounted -= {name}
        self._settle(at)

    def _settle(self, at: Moment) -> None:
        """Each volume has a demand, and each demand without a volume the time since when it has none."""
        entries, counts = self._ledger.demands, self._counts
        for volume in self._ledger.volumes.values():
            if volume.key not in entries:
                entries[volume.key] = _entry(volume, volume.since)
        for key, entry in entries.items():
            if counts[key] and entry.last_used_time is not None:
                entries[key] = entry.model_copy(update={"last_used_time": None})
            elif not counts[key] and entry.last_used_time is None:
                entries[key] = entry.model_copy(update={"last_used_time": at.time})
        self._release()

    def _release(self) -> None:
        for key in list(demands.released(self._counts, self._ledger.demands, self._served)):
            del self._ledger.demands[key]


def _entry(needed: Volume | Demand, since: datetime.datetime, last_used_time: datetime.datetime | None = None) -> Entry:
    """The demand for what `needed` names. Raises pydantic.ValidationError for names that no object can have."""
    namespace, template, uid = needed.key
    return Entry(namespace=namespace, template=template, uid=uid, since=since, last_used_time=last_used_time)


def _age(since: datetime.datetime, at: Moment) -> float:
    return max(0.0, (at.time - since).total_seconds())
