"""Which copies read the source, and which read other hosts: the rules, each about one copy.

A *swarm* (`swarms`) is the copies of one Template in one zone. In it one Seed at a time reads the source and records
the pieces of the file; Peers read the pieces from the Seed's host and from each other. A copy without a role (Origin)
reads the source for itself: as all do without peers, where the file cannot be shared, and where other hosts cannot be
reached.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from directdownload.planning.conditions import Verdict
from directdownload.planning.observed import Job, PlacementView
from directdownload.resources import peers, urls
from directdownload.resources.checksum import Checksum
from directdownload.resources.jobs import JobResult, PeerRole
from directdownload.resources.naming import ATTEMPT_LIMIT
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, PlacementPeers, Role

#: After so many failures in a row to reach other hosts a copy reads the source.
PATIENCE = 3
#: So many Seeds that failed for good show that the source, or the Template, is at fault. So many copies that were
#: unpacked show that the source serves an archive.
REFUTED = 2
#: Candidates of a job that run, or have the file; the others are any that want it.
_AHEAD = 6
#: Hosts looked at, at most, to find the candidates among thousands of which some are Down.
_DRAWS = 128
#: An archive that is unpacked while it arrives is not kept as it was served, by the name of its file.
_ARCHIVES = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".zip")
_PIECE_BYTES = tuple(peers.SMALLEST_PIECE_BYTES << shift for shift in range(7))


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """The file of a Template in pieces of `piece_bytes`; `id` as all hosts derive it."""

    id: str
    piece_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The state of a swarm, as the decision about one copy needs it."""

    #: None: the file cannot be shared
    content: Content | None
    #: its host can show who it is, and has a key that signs
    certified: bool = False
    #: a Seed's job exists
    seeding: bool = False
    #: a Seed runs, or a host has the file with the records of its pieces, and can be asked
    served: bool = False
    #: of the latest Seed
    epoch: int = 0
    #: the copy of before peers whose verification is to record its pieces; empty: none
    recorder: str = ""
    #: the copy that is to be the next Seed; empty: any
    next_seed: str = ""
    #: other copies wait for a Seed
    awaited: bool = False
    #: `REFUTED` Seeds have failed for good
    refuted: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """The part that a copy takes if it starts now. Without a `role` it reads the source for itself."""

    content: Content | None = None
    role: PeerRole | None = None
    #: why it does not start now; None: it may
    waits: Verdict | None = None
    #: a copy that is Ready: it is to be verified, as Seed, to record its pieces
    records: bool = False


def checksum_of(template: Template) -> str:
    """The checksum under which the Template's file may be shared, in its canonical notation; empty: it may not."""
    try:
        checksum = Checksum.parse(template.spec.checksum or "")
    except ValueError:
        return ""
    archived = any(map(_names_archive, (template.spec.url, *template.spec.mirrors)))
    return str(checksum) if peers.eligible(checksum) and not archived else ""


def _names_archive(url: str) -> bool:
    try:
        return urls.Url.parse(url).path.lower().endswith(_ARCHIVES)
    except urls.URLError:
        return False


def notations(template_uid: str, checksum: str) -> Mapping[str, Content]:
    """The contents that a file may be shared as, one for each size of pieces, by id."""
    found = (Content(peers.content_id(template_uid, checksum, size), size) for size in _PIECE_BYTES)
    return {content.id: content for content in found}


def content_of(template: Template, notations: Mapping[str, Content], known: Mapping[str, int]) -> Content | None:
    """The content that new jobs share. `known`: how many copies and jobs have each one.

    The size of a Template may become known while it is being shared: what most have goes on, if the file has not too
    many pieces of that size. None: it has more pieces than may be, or none.
    """
    size = template.status.size_bytes
    most = max(notations, key=lambda each: known.get(each, 0))
    by_size = next(each for each in notations.values() if each.piece_bytes == peers.piece_bytes(size))
    offered = (notations[most], by_size) if known.get(most) else (by_size,)

    def fits(content: Content) -> bool:
        return size is None or 0 < peers.pieces(size, content.piece_bytes) <= peers.PIECES_LIMIT

    return next(filter(fits, offered), None)


def part_of(placement: PlacementView, facts: Facts) -> Part:
    """The part of `placement`, which is Ready, or wants to start."""
    content = facts.content
    if content is None or not facts.certified:
        return Part()
    if placement.phase is Phase.READY:
        return Part(content, records=facts.awaited and facts.recorder == placement.key)
    if facts.refuted:
        return Part(content)
    told = placement.peers or PlacementPeers()
    if (told.unavailable or 0) >= PATIENCE:
        # Whoever has the file does not serve it: the first such copy reads it for the others as well.
        return Part(content, None if facts.seeding else PeerRole.SEED)
    distrusts = told.distrusted_epoch is not None and facts.epoch <= told.distrusted_epoch
    if facts.served and not distrusts:
        return Part(content, PeerRole.PEER)
    if facts.seeding:
        return Part(content, waits=waiting())
    if distrusts:
        return Part(content, PeerRole.SEED)
    if facts.recorder:
        return Part(
            content, waits=waiting(f"TemplatePlacement {facts.recorder} is verified first, to be read by others")
        )
    if facts.next_seed not in ("", placement.key):
        return Part(content, waits=waiting(f"TemplatePlacement {facts.next_seed} is to read the source for all"))
    return Part(content, PeerRole.SEED)


def waiting(whom: str = "another host is about to read the source for all hosts of the zone") -> Verdict:
    """Why a copy waits; `whom`: for which Seed."""
    return Verdict(False, Reason.WAITING_FOR_SEED, whom)


def shown(placement: PlacementView, role: PeerRole | None) -> PlacementPeers:
    """`status.peers` once a job with `role` exists."""
    told = placement.peers or PlacementPeers()
    return _told(Role.ORIGIN if role is None else Role(role), told.unavailable, told.distrusted_epoch)


def after(placement: PlacementView, job: Job, result: JobResult) -> PlacementPeers:
    """`status.peers` once `job`, a download, has ended with `result`."""
    told = placement.peers or PlacementPeers()
    role, unavailable = Role.ORIGIN if job.role is None else Role(job.role), told.unavailable or 0
    if result.done:
        return _told(role, None, None)
    if result.reason is Reason.PEERS_UNAVAILABLE:
        unavailable = min(unavailable + 1, ATTEMPT_LIMIT)
    elif job.role is PeerRole.PEER and result.reason is not Reason.POD_BLOCKED:
        unavailable = 0
    elif job.role is not PeerRole.PEER:
        # The source does not serve either: other hosts get one more chance, then the source again.
        unavailable = min(unavailable, PATIENCE - 1)
    distrusted = job.epoch if distrusts(job, result) else told.distrusted_epoch
    return _told(role, unavailable or None, distrusted)


def recorded(job: Job, result: JobResult) -> str | None:
    """The content that the host can serve after `job`. A job is believed about that only which it was given."""
    return job.content if job.content and result.content == job.content else None


def distrusts(job: Job, result: JobResult) -> bool:
    """Whether other hosts served a wrong file: another Seed may help."""
    return job.role is PeerRole.PEER and result.reason is Reason.PEERS_DIFFER


def _told(role: Role, unavailable: int | None, distrusted: int | None) -> PlacementPeers:
    values = {"role": role, "unavailable": unavailable, "distrusted_epoch": distrusted}
    return PlacementPeers(**{name: value for name, value in values.items() if value is not None})


def turn(template_uid: str, host: str) -> int:
    """The place of `host` in the order in which hosts become Seed: the same always, another for each Template."""
    return int.from_bytes(hashlib.sha256(f"{template_uid}/{host}".encode()).digest()[:8])


def unreached(placements: Iterable[PlacementView]) -> list[str]:
    """The hosts of copies that read the source, or have, because other hosts could not be reached."""
    return [p.host for p in placements if p.peers is not None and (p.peers.unavailable or 0) >= PATIENCE]


def next_epoch(last: int, now: float) -> int:
    """Of the next Seed. `now`: seconds since 1970; `last`: the highest epoch that is known."""
    return max(int(now), last + 1)


def candidates(
    content: str, host: str, ahead: Sequence[str], wanting: Sequence[str], usable: Callable[[str], bool]
) -> list[str]:
    """The hosts that a job on `host` may ask: always the same ones in the same swarm.

    `ahead`: hosts that run or have the file; `wanting`: all that want it. Only among those that are ahead, hosts that
    start over time would all ask the first ones.
    """
    # No secret: hosts must only differ in whom they ask.
    rng = random.Random(f"{content}/{host}")  # noqa: S311
    taken = {host}
    found = _drawn(rng, ahead, _AHEAD, taken, usable)
    return found + _drawn(rng, wanting, peers.PARENTS_LIMIT - len(found), taken, usable)


def _drawn(
    rng: random.Random, hosts: Sequence[str], most: int, taken: set[str], usable: Callable[[str], bool]
) -> list[str]:
    found: list[str] = []
    for index in _indexes(rng, len(hosts)):
        name = hosts[index]
        if name not in taken and usable(name):
            taken.add(name)
            found.append(name)
            if len(found) == most:
                break
    return found


def _indexes(rng: random.Random, number: int) -> Iterator[int]:
    """In random order; of many a few, perhaps repeated."""
    if number <= _DRAWS:
        return iter(rng.sample(range(number), number))
    return (rng.randrange(number) for _ in range(_DRAWS))
