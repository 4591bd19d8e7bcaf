"""A zone whose hosts serve each other, in simulated time: the product's own choice and offering, and events.

A copy takes one unit of time over an uplink, a downlink, and from the origin. Uploads of a host share its uplink,
and its downloads its downlink. Connections, hashing, disks and deaths cost nothing here.
"""

import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable

from directdownload.peer.choice import Choice
from directdownload.peer.offering import Offering
from directdownload.planning import peers

#: the server's bounds: for one content, and of connections
UPLOADS = 3
STREAMS = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    hosts: int
    pieces: int
    #: pods that start per unit of time; None: all at once
    starts: float | None = None
    #: how long changes of a map are gathered, in pieces' times
    gather_pieces: float = 0.25
    super_seeding: bool = True
    window: int = 64
    #: how much longer or shorter than the others a piece takes
    jitter: float = 0.1
    seed: int = 1
    #: in copies: a swarm that takes longer stands still
    limit: float = 1000.0


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """Times in copies, since the first pod started."""

    last: float
    median: float
    origin_copies: float
    #: that the Seed gave
    seed_copies: float
    #: requests for pieces that were refused, for each that was answered with a piece
    refused: float


class _Transfer:
    """A piece on its way. `left`: of it, in pieces."""

    __pieces__ = ("began", "child", "due", "index", "left", "parent", "rate", "since")

    def __init__(self, parent: "_Host", child: "_Host", index: int, now: float, left: float) -> None:
        self.parent, self.child, self.index = parent, child, index
        self.left, self.rate, self.since, self.due = left, 0.0, now, -1.0
        self.began = now


class _Host:
    __pieces__ = ("choice", "downloads", "ended", "flush_due", "followers", "name", "offering", "uploads")

    def __init__(self, settings: Settings, number: int) -> None:
        self.name = f"host-{number}"
        rng = random.Random(f"{settings.seed}/{number}")
        self.choice: Choice[_Host] = Choice(settings.pieces, rng, settings.window)
        self.offering = Offering(settings.pieces, settings.super_seeding and not number)
        self.followers: list[_Host] = []
        self.uploads: list[_Transfer] = []
        self.downloads: list[_Transfer] = []
        self.ended: float | None = None
        self.flush_due = False


class Swarm:
    """The first host is the Seed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._piece = 1.0 / settings.pieces
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        self._rng = random.Random(settings.seed)
        self._hosts = [_Host(settings, number) for number in range(settings.hosts)]
        self._names = [host.name for host in self._hosts]
        self._named = dict(zip(self._names, self._hosts, strict=True))
        #: names of the hosts whose pods have started
        self._running: list[str] = []
        self._ended = self._read = self._refused = self._given = self._seeded = 0

    def run(self) -> Outcome:
        """Raises RuntimeError if the hosts come to a standstill."""
        for number, host in enumerate(self._hosts):
            starts = self._settings.starts
            self._at(number / starts if starts is not None else 0.0, self._start, host)
        while self._ended < len(self._hosts):
            self._now, _, what, about = heapq.heappop(self._events)
            if self._now > self._settings.limit:
                raise RuntimeError(f"{len(self._hosts) - self._ended} hosts wait for pieces that they do not get")
            what(*about)
        ended = sorted(host.ended for host in self._hosts if host.ended is not None)
        return Outcome(
            last=ended[-1],
            median=ended[len(ended) // 2],
            origin_copies=self._read * self._piece,
            seed_copies=self._seeded * self._piece,
            refused=self._refused / max(1, self._given),
        )

    def _at(self, when: float, what: Callable[..., None], *about: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), what, about))

    def _start(self, host: _Host) -> None:
        if host is self._hosts[0]:
            self._at(self._now + self._piece, self._read_origin, host, 0)
            self._at(self._now, self._flush_seed, host)
        else:
            content = str(self._settings.seed)
            for name in peers.candidates(content, host.name, self._running, self._names, lambda _: True):
                parent = self._named[name]
                if len(parent.followers) < STREAMS:
                    parent.followers.append(host)
                    host.choice.announce(parent, parent.offering.announced)
            self._fetch(host)
        self._running.append(host.name)

    def _read_origin(self, seed: _Host, index: int) -> None:
        self._read += 1
        self._have(seed, index)
        if index + 1 < self._settings.pieces:
            self._at(self._now + self._piece, self._read_origin, seed, index + 1)

    def _flush_seed(self, seed: _Host) -> None:
        """A Seed's server looks at the time too: given pieces return."""
        self._flush(seed)
        self._at(self._now + self._settings.gather_pieces * self._piece, self._flush_seed, seed)

    def _have(self, host: _Host, index: int) -> None:
        host.choice.have(index)
        first = host.choice.first_missing()
        if first is not None:
            # The hash costs no time.
            host.choice.follow(first)
        else:
            host.ended = self._now
            self._ended += 1
        host.offering.add(index)
        if not host.flush_due and host.followers and host is not self._hosts[0]:
            host.flush_due = True
            self._at(self._now + self._settings.gather_pieces * self._piece, self._flush, host)

    def _flush(self, host: _Host) -> None:
        host.flush_due = False
        changes = host.offering.due(self._now)
        if not changes:
            return
        add, drop = changes.add, changes.drop
        for follower in host.followers:
            if follower.ended is None:
                follower.choice.announce(host, add, drop)
                if add and len(follower.downloads) < follower.choice.in_flight:
                    self._fetch(follower)

    def _fetch(self, host: _Host) -> None:
        while (found := host.choice.next()) is not None:
            parent, index = found
            if len(parent.uploads) >= UPLOADS:
                self._refused += 1
                host.choice.give_back(index)
                host.choice.set_aside(parent)
                self._at(self._now + self._piece, self._take_up, host, parent)
                continue
            if not parent.offering.given(index, self._now):
                self._refused += 1
                host.choice.give_back(index)
                host.choice.announce(parent, drop=(index,))
                continue
            self._given += 1
            self._seeded += parent is self._hosts[0]
            jitter = self._settings.jitter
            work = self._rng.uniform(1.0 - jitter, 1.0 + jitter)
            transfer = _Transfer(parent, host, index, self._now, work)
            parent.uploads.append(transfer)
            host.downloads.append(transfer)
            self._share(parent, host)

    def _take_up(self, host: _Host, parent: _Host) -> None:
        host.choice.take_up(parent)
        if host.ended is None:
            self._fetch(host)

    def _share(self, parent: _Host, child: _Host) -> None:
        """The transfers of both have a new rate."""
        for host in {child: None, **{each.child: None for each in parent.uploads}}:
            # Water-filling: a download that its parent slows down leaves the rest to the others.
            room, number = 1.0, len(host.downloads)
            for transfer in sorted(host.downloads, key=lambda each: -len(each.parent.uploads)):
                rate = min(1.0 / len(transfer.parent.uploads), room / number)
                room, number = room - rate, number - 1
                if rate != transfer.rate:
                    self._set_rate(transfer, rate)

    def _set_rate(self, transfer: _Transfer, rate: float) -> None:
        transfer.left -= (self._now - transfer.since) * transfer.rate / self._piece
        transfer.since, transfer.rate = self._now, rate
        transfer.due = self._now + max(0.0, transfer.left) * self._piece / rate
        self._at(transfer.due, self._arrive, transfer, transfer.due)

    def _arrive(self, transfer: _Transfer, due: float) -> None:
        if due != transfer.due:
            return
        transfer.due = -1.0
        parent, child = transfer.parent, transfer.child
        parent.uploads.remove(transfer)
        child.downloads.remove(transfer)
        parent.offering.piece_seconds(self._now - transfer.began)
        self._share(parent, child)
        self._have(child, transfer.index)
        if child.ended is None:
            self._fetch(child)


def simulate(settings: Settings) -> Outcome:
    return Swarm(settings).run()
