"""The swarms of the world: kept as the stores change, and asked when a copy is about to start.

`planning/swarms.py` and `planning/peers.py` decide. Here is what they need to know of hosts, jobs and slots, the looks
that a change of a swarm asks for, and the part of a job's document that other hosts believe, as it is signed here.
There are swarms only where hosts read from each other.
"""

import dataclasses
import datetime
from collections.abc import Callable, Iterator
from typing import Protocol

from directdownload import sourcing
from directdownload.cluster.objects import JobView, PodView
from directdownload.controller import surroundings, watches, world
from directdownload.controller.peer_identity import Peers
from directdownload.controller.queue import Key, WorkQueue
from directdownload.peer import statements
from directdownload.planning import peers, placements, slots
from directdownload.planning.observed import ObservedHost, PlacementView
from directdownload.planning.plans import Surroundings
from directdownload.planning.swarms import Swarm
from directdownload.resources import jobs
from directdownload.resources.host import Host
from directdownload.resources.jobs import PeerRole
from directdownload.resources.peers import ADDRESSES_LIMIT
from directdownload.resources.templateplacement import Phase

#: The longest permission to read, and the time for which it outlives its job.
_DAY, _HOUR = datetime.timedelta(days=1), datetime.timedelta(hours=1)
#: The proofs of a Seed stay beside its file, for hosts that come later.
_WARRANT = datetime.timedelta(days=3650)


class Signing(Protocol):
    """Which key signs: `peer_identity.Registrar`."""

    #: None: nobody can sign, and every copy reads its source
    peers: Peers | None


class Swarms:
    """Subscribes to the stores of `world`, after `watches.Watches`, which frees the slots of a Seed that has ended."""

    def __init__(
        self,
        known: world.World,
        queue: WorkQueue,
        signing: Signing,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._world, self._queue, self._signing, self._now = known, queue, signing, now
        self._swarms: dict[tuple[str, str], Swarm] = {}
        known.placements.subscribe(self._placement)
        known.jobs.subscribe(self._job)
        known.pods.subscribe(self._pod)
        known.hosts.subscribe(self._host)

    def _placement(self, key: str, old: PlacementView | None, new: PlacementView | None) -> None:
        for view in (old, new):
            if view is None:
                continue
            name = view.template_uid, view.zone
            swarm = self._swarms.setdefault(name, Swarm(*name)) if view is new else self._swarms.get(name)
            if swarm is not None:
                swarm.take(*((None, view) if view is new else (view, None)))
                if not swarm:
                    del self._swarms[name]
        if _unreached(old) != _unreached(new):
            for view in filter(None, (old, new)):
                self._queue.add_later(Key("zone", view.zone), watches.COUNT_SECONDS)
        view = new or old
        if view is not None:
            if new is None or new.phase not in (None, Phase.PENDING):
                self.stopped(view)
            self._look(self.of(view))

    def _job(self, _: str, old: JobView | None, new: JobView | None) -> None:
        job = new or old
        placement = self._of_seed(job)
        swarm = self.of(placement) if placement is not None else None
        if job is not None and swarm is not None:
            swarm.epoch = max(swarm.epoch, world.epoch_of(job))
            self._look(swarm)

    def _pod(self, _: str, old: PodView | None, new: PodView | None) -> None:
        pod = new or old
        if pod is None or (old is not None and new is not None and old.started == new.started):
            return
        placement = self._world.placements.get(pod.labels.get(world.PLACEMENT_LABEL, ""))
        if placement is not None:
            self._look(self.of(placement))

    def _host(self, key: str, old: ObservedHost | None, new: ObservedHost | None) -> None:
        if old is not None and new is not None and _peer_facts(old) == _peer_facts(new):
            return
        for placement in self._world.placements_of_host[key]:
            if placement.phase in (None, Phase.PENDING):
                self._queue.add(Key("placement", placement.key))
            self._look(self.of(placement))

    def _of_seed(self, job: JobView | None) -> PlacementView | None:
        if job is None or world.role_of(job) is not PeerRole.SEED:
            return None
        return self._world.placements.get(job.labels.get(world.PLACEMENT_LABEL, ""))

    def of(self, placement: PlacementView) -> Swarm | None:
        return self._swarms.get((placement.template_uid, placement.zone))

    def _look(self, swarm: Swarm | None) -> None:
        """If copies wait for a Seed: lets them start if there is one, else asks for one."""
        if swarm is None or not swarm.waiting:
            return
        now = self._now()
        if self._served(swarm, now):
            called, swarm.waiting = swarm.waiting, {}
            self._queue.add_all(Key("placement", key) for key in called)
            swarm.asked()
        elif self._seeding(swarm):
            swarm.asked()
        else:
            recorder = swarm.recorder(lambda view: self._records(view, now), now)
            self._ask(swarm, recorder or swarm.next_seed(lambda view: self._starts(view, now), now), now)

    def _ask(self, swarm: Swarm, key: str, now: datetime.datetime) -> None:
        if swarm.ask(key, now):
            self._queue.add(Key("placement", key))

    def placed(self, placement: PlacementView, around: Surroundings, now: datetime.datetime) -> Surroundings:
        """`around` with the part of `placement`; also for a copy that shares nothing, as hosts read from each other."""
        swarm, template = self.of(placement), around.template
        startable = placement.phase in (None, Phase.PENDING, Phase.READY)
        if swarm is None or template is None or around.shared or not startable:
            return dataclasses.replace(around, part=peers.Part())
        facts = peers.Facts(
            content=swarm.content(template, self._world.jobs_of_content.count),
            certified=self._certified(around.host, now),
            awaited=bool(swarm.waiting),
            refuted=swarm.refuted,
        )
        if facts.content is not None and facts.certified and (placement.phase is not Phase.READY or facts.awaited):
            facts = self._facts(swarm, facts, now)
        return dataclasses.replace(around, part=peers.part_of(placement, facts))

    def _facts(self, swarm: Swarm, facts: peers.Facts, now: datetime.datetime) -> peers.Facts:
        """`facts` with what costs more to know."""
        seeding, served = self._seeding(swarm), self._served(swarm, now)
        recorder = seed = ""
        if not (seeding or served):
            recorder = swarm.recorder(lambda view: self._records(view, now), now)
            seed = "" if recorder else swarm.next_seed(lambda view: self._starts(view, now), now)
        return dataclasses.replace(
            facts, seeding=seeding, served=served, epoch=swarm.epoch, recorder=recorder, next_seed=seed
        )

    def wait(self, placement: PlacementView) -> None:
        """`placement` waits for a Seed: the one that is to become it is asked."""
        swarm = self.of(placement)
        if swarm is not None:
            swarm.waiting[placement.key] = None
            self._look(swarm)

    def stopped(self, placement: PlacementView) -> None:
        """`placement` waits for no Seed (any more)."""
        swarm = self.of(placement)
        if swarm is not None:
            swarm.waiting.pop(placement.key, None)

    def verified(self, placement: PlacementView, *, recorded: bool) -> None:
        """A Seed's verification of `placement` has ended; `recorded`: with the records of its pieces."""
        swarm = self.of(placement)
        if swarm is not None and not recorded:
            swarm.barren(placement.key)

    def _seeds(self, swarm: Swarm) -> Iterator[JobView]:
        found = self._world.jobs_of_seed[slots.seed_group(swarm.template_uid, swarm.zone).name]
        return (job for job in found if not (job.succeeded or job.failed or job.deleting))

    def _seeding(self, swarm: Swarm) -> bool:
        """A Seed on a host that is Down has given its slot back."""
        return self._world.slots.used(slots.seed_group(swarm.template_uid, swarm.zone).name) > 0

    def _served(self, swarm: Swarm, now: datetime.datetime) -> bool:
        for job in self._seeds(swarm):
            pod, placement = self._world.pod_of(job), self._of_seed(job)
            runs = pod is not None and pod.started and pod.exit_code is None
            # A verification serves once it has ended: the copy is Ready meanwhile.
            fetches = placement is not None and placement.phase is not Phase.READY
            if runs and fetches and placement is not None and self._usable(placement.host, now):
                return True
        return bool(swarm.server(lambda view: self._usable(view.host, now)))

    def _usable(self, name: str, now: datetime.datetime) -> bool:
        """Whether other hosts can read from the host of this name, for all that is known."""
        host = self._world.hosts.get(name)
        return host is not None and host.status.state not in (None, "Down") and self._certified(host, now)

    def _certified(self, host: Host | None, now: datetime.datetime) -> bool:
        if host is None or self._signing.peers is None:
            return False
        told, request = host.status.peer, host.status.peer_request
        return told is not None and request is not None and now < told.not_after and bool(_key_of(request.signing_key))

    def _starts(self, view: PlacementView, now: datetime.datetime) -> bool:
        """Whether a fetch of this copy, which wants to start, could start now as Seed."""
        if not self._certified(self._world.hosts.get(view.host), now):
            return False
        around = surroundings.of(self._world, view, now)
        if around.zone is None or around.shared:
            return False
        of_host = slots.Group(f"host/{view.host}", around.zone.spec.downloads.max_parallel_per_host)
        return placements.startable(around) and self._world.slots.full_group((of_host,)) is None

    def _records(self, view: PlacementView, now: datetime.datetime) -> bool:
        """Whether a verification of this copy could start now as Seed."""
        if not self._certified(self._world.hosts.get(view.host), now):
            return False
        around = surroundings.of(self._world, view, now)
        return not around.shared and placements.verifiable(around)

    def document(
        self, placement: PlacementView, around: Surroundings, role: PeerRole, now: datetime.datetime
    ) -> tuple[jobs.JobPeers, int]:
        """What a job with `role` needs, and the epoch of the latest Seed, which this one may be.

        `around` has the part of `placement`, with a content.
        """
        swarm, signing, part, host = self.of(placement), self._signing.peers, around.part, around.host
        request = host.status.peer_request if host is not None else None
        if swarm is None or signing is None or part is None or part.content is None or request is None:
            raise ValueError("only a copy with a part in a swarm, on a host with certificates, has a role")
        content, warrant = part.content, ""
        if role is PeerRole.SEED:
            swarm.epoch = peers.next_epoch(swarm.epoch, now.timestamp())
            warrant = signing.issuer.warrant(
                statements.Warrant(
                    content=content.id,
                    zone=placement.zone,
                    piece_bytes=content.piece_bytes,
                    signing_key=_key_of(request.signing_key),
                    epoch=swarm.epoch,
                    expiry=int((now + _WARRANT).timestamp()),
                )
            )
        deadline = around.zone.spec.downloads.deadline_seconds if around.zone is not None else 0
        lasting = min(datetime.timedelta(seconds=deadline), _DAY) if deadline else _DAY
        expiry = int((now + lasting + _HOUR).timestamp())
        grant = statements.Grant(content=content.id, zone=placement.zone, host=placement.host, expiry=expiry)
        names = peers.candidates(
            content.id, placement.host, swarm.ahead, swarm.wanting, lambda name: self._addressed(name, now)
        )
        found = jobs.JobPeers(
            role=role,
            content=content.id,
            zone=placement.zone,
            piece_bytes=content.piece_bytes,
            grant=signing.issuer.grant(grant),
            warrant=warrant,
            keys=signing.keys,
            trust_domain=signing.trust_domain,
            parents=tuple(jobs.JobParent(host=name, addresses=self._addresses(name)) for name in names),
            port=signing.port,
        )
        return found, swarm.epoch

    def _addressed(self, name: str, now: datetime.datetime) -> bool:
        return self._usable(name, now) and bool(self._addresses(name))

    def _addresses(self, name: str) -> tuple[str, ...]:
        """By the Host's author, else by the Node: never by the host itself, or a fleet is a port scanner."""
        host, node = self._world.hosts.get(name), self._world.nodes.get(name)
        told = (host.spec.peer_addresses if host is not None else ()) or (node.addresses if node is not None else ())
        return tuple(filter(sourcing.reachable, told))[:ADDRESSES_LIMIT]


def _key_of(text: str) -> bytes:
    """The raw key; empty if it is none: an agent has written it."""
    try:
        return statements.key_of(text)
    except statements.StatementError:
        return b""


def _unreached(placement: PlacementView | None) -> bool:
    return placement is not None and bool(peers.unreached((placement,)))


def _peer_facts(host: Host) -> object:
    """What decides whether a host reads and serves, apart from time."""
    return host.status.state, host.status.peer, host.status.peer_request
