"""Whatever hosts of a small swarm do, die of or lie about: nothing unverified is kept, published or attested, and every
piece is offered until all have it.

One host is the Seed and never dies; time is the machine's own. Whoever receives a piece checks it as a job does.
"""

import dataclasses
import hashlib
import random

import hypothesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import stateful, strategies
from tests.world.soak import ROUNDS

from directdownload.peer import statements
from directdownload.peer.choice import Choice
from directdownload.peer.offering import REST_PIECES, Offering
from directdownload.peer.statements import Proof, StatementError, Warrant

PIECES = 10
CONTENT = hashlib.sha256(b"a swarm").hexdigest()
FILE = [bytes([index]) * 4 for index in range(PIECES)]
_KEY, _FORGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
WARRANT = Warrant(CONTENT, "zone-1", 1 << 20, _KEY.public_key().public_bytes_raw(), 1, 2**40)
#: An upload takes this long, and so a piece that was given rests eight times as long.
PIECE_SECONDS = 1.0
REST_SECONDS = REST_PIECES * PIECE_SECONDS
NUMBERS = strategies.integers(0, 10**6)


def proof_of(index: int, data: bytes, key: Ed25519PrivateKey = _KEY) -> Proof:
    return statements.sign_proof(key, CONTENT, 1, index, hashlib.sha256(data).digest())


PROOFS = [proof_of(index, data) for index, data in enumerate(FILE)]


class Host:
    """What it keeps, what it chooses, what it offers."""

    def __init__(self, name: str, *, seed: bool = False, liar: bool = False) -> None:
        self.name, self.seed, self.liar = name, seed, liar
        self.choice = Choice[str](PIECES, random.Random(name), window=4)
        self.offering = Offering(PIECES, super_seeding=seed)
        self.offering.piece_seconds(PIECE_SECONDS)
        #: piece -> bytes on disk, and the proof beside them
        self.kept: dict[int, tuple[bytes, Proof]] = {}
        self.followers: list[Host] = []
        #: a bad digest bans for this job
        self.banned: set[str] = set()

    def receive(self, index: int, data: bytes, proof: Proof) -> None:
        """Raises StatementError unless the Seed vouches for the bytes."""
        statements.check_proof(WARRANT, index, proof)
        if hashlib.sha256(data).digest() != proof.digest:
            raise StatementError("other bytes than the proof's")
        self.keep(index, data, proof)

    def keep(self, index: int, data: bytes, proof: Proof) -> None:
        self.kept[index] = data, proof
        self.choice.have(index)
        self.choice.follow(next(each for each in range(PIECES + 1) if each not in self.kept))
        self.offering.add(index)

    def checked(self, index: int) -> tuple[bytes, Proof] | None:
        """As a server: it hashes before it sends, and forgets what is not right any more."""
        data, proof = self.kept.get(index, (b"", PROOFS[index]))
        if index in self.kept and hashlib.sha256(data).digest() == proof.digest:
            return data, proof
        self.offering.remove(index)
        if self.kept.pop(index, None) is not None:
            self.choice.lost(index)
        return None


@dataclasses.dataclass(eq=False)
class Flight:
    child: Host
    parent: Host
    index: int


class Swarm(stateful.RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.numbers = iter(range(1, 10**6))
        self.seed = Host("seed", seed=True)
        self.hosts = [self.seed]
        self.flights: list[Flight] = []
        #: when the Seed gave a piece last
        self.given: dict[int, float] = {}

    # what happens

    @stateful.rule()
    def seed_reads_a_piece(self) -> None:
        index = self.seed.choice.first_unoffered()
        if index is not None:
            self.seed.keep(index, FILE[index], PROOFS[index])

    @stateful.precondition(lambda self: len(self.hosts) < 6)
    @stateful.rule(liar=strategies.booleans(), number=NUMBERS)
    def a_host_joins(self, liar: bool, number: int) -> None:
        """It reads from all others, and each other reads from it."""
        host = Host(f"host-{next(self.numbers)}-{number}", liar=liar)
        self._announce()
        for other in self.hosts:
            other.followers.append(host)
            host.choice.announce(other.name, other.offering.announced)
            if not other.seed:
                host.followers.append(other)
                other.choice.announce(host.name, range(-3, 2 * PIECES) if liar else ())
        self.hosts.append(host)

    @stateful.precondition(lambda self: len(self.hosts) > 1)
    @stateful.rule(number=NUMBERS, noticed=strategies.booleans())
    def a_host_dies(self, number: int, noticed: bool) -> None:
        """`noticed`: a server that was sending to it sees the connection break; else the bytes seemed to arrive."""
        self._remove(self.hosts[1 + number % (len(self.hosts) - 1)], noticed)

    @stateful.rule(number=NUMBERS)
    def a_host_fetches(self, number: int) -> None:
        host = self.hosts[number % len(self.hosts)]
        if host.seed or (found := host.choice.next()) is None:
            return
        name, index = found
        parent = next(each for each in self.hosts if each.name == name)
        assert index not in host.kept
        assert all((each.child, each.index) != (host, index) for each in self.flights), "a piece with two writers"
        if parent.liar or (parent.checked(index) is not None and parent.offering.given(index, self.now)):
            if parent.seed:
                self.given[index] = self.now
            self.flights.append(Flight(host, parent, index))
        else:
            self._not_found(host, parent, index)

    @stateful.precondition(lambda self: self.flights)
    @stateful.rule(number=NUMBERS, lie=strategies.sampled_from(["none", "bytes", "proof", "other", "404"]))
    def a_piece_arrives(self, number: int, lie: str) -> None:
        """`lie`: what a liar sends."""
        flight = self.flights[number % len(self.flights)]
        child, parent, index = flight.child, flight.parent, flight.index
        self._end(flight, broken=False)
        if parent.liar:
            self._take_from_liar(child, parent, index, lie)
        elif (found := parent.checked(index)) is None:
            self._not_found(child, parent, index)
        else:
            child.receive(index, *found)

    @stateful.precondition(lambda self: self.flights)
    @stateful.rule(number=NUMBERS)
    def a_connection_breaks(self, number: int) -> None:
        self._end(self.flights[number % len(self.flights)], broken=True)

    @stateful.rule(number=NUMBERS)
    def a_disk_forgets(self, number: int) -> None:
        host = self.hosts[number % len(self.hosts)]
        if host.kept and not host.seed:
            index = sorted(host.kept)[number % len(host.kept)]
            host.kept[index] = b"rot", host.kept[index][1]
            # its server hashes a piece before it is given the first time
            host.checked(index)

    @stateful.rule(seconds=strategies.floats(0.0, 2 * REST_SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self._announce()

    # what must hold

    @stateful.invariant()
    def nothing_unverified_is_kept_or_attested(self) -> None:
        for host in self.hosts:
            for index, (data, proof) in host.kept.items():
                assert data == FILE[index]
                statements.check_proof(WARRANT, index, proof)
            assert {index for index in range(PIECES) if host.offering.has(index)} == set(host.kept)

    @stateful.invariant()
    def nothing_is_published_before_all_is_there(self) -> None:
        for host in self.hosts:
            assert host.choice.missing == PIECES - len(host.kept)
            assert host.choice.complete == (b"".join(d for _, (d, _) in sorted(host.kept.items())) == b"".join(FILE))

    @stateful.invariant()
    def every_piece_is_offered_or_was_given_just_now(self) -> None:
        """By each host that has it; only the Seed keeps back what it has given, for eight piece times."""
        self._announce()
        for host in self.hosts:
            assert host.offering.announced <= set(host.kept)
            for index in set(host.kept) - host.offering.announced:
                assert host.seed
                assert self.now - self.given[index] < REST_SECONDS

    def teardown(self) -> None:
        """All hosts that are left get the file, within the rest of a piece and the time of the pieces themselves."""
        for host in [each for each in self.hosts if each.liar]:
            self._remove(host, noticed=True)
        while not self.seed.choice.complete:
            self.seed_reads_a_piece()
        end = self.now + 2 * REST_SECONDS + PIECES * len(self.hosts) * PIECE_SECONDS
        while not all(host.choice.complete for host in self.hosts):
            assert self.now <= end, "hosts wait for pieces that nobody offers"
            self.time_passes(PIECE_SECONDS)
            for _ in range(len(self.flights)):
                self.a_piece_arrives(0, "none")
            for number in range(len(self.hosts)):
                self.a_host_fetches(number)
        self.nothing_unverified_is_kept_or_attested()

    # how

    def _remove(self, host: Host, noticed: bool) -> None:
        self.hosts.remove(host)
        for flight in [each for each in self.flights if host in (each.child, each.parent)]:
            self._end(flight, broken=noticed or flight.parent is host)
        for other in self.hosts:
            other.choice.forget(host.name)
            if host in other.followers:
                other.followers.remove(host)

    def _announce(self) -> None:
        for host in self.hosts:
            self._tell(host)

    def _tell(self, host: Host) -> None:
        changes = host.offering.due(self.now)
        for follower in host.followers:
            if host.name not in follower.banned:
                follower.choice.announce(host.name, changes.add, changes.drop)

    def _end(self, flight: Flight, *, broken: bool) -> None:
        self.flights.remove(flight)
        flight.child.choice.give_back(flight.index)
        if broken:
            flight.parent.offering.failed(flight.index)

    def _not_found(self, child: Host, parent: Host, index: int) -> None:
        child.choice.give_back(index)
        child.choice.announce(parent.name, drop=[index])

    def _take_from_liar(self, child: Host, parent: Host, index: int, lie: str) -> None:
        if lie == "404":
            self._not_found(child, parent, index)
            return
        wrong = (index + 1) % PIECES
        sent = {
            "none": (FILE[index], PROOFS[index]),
            "bytes": (b"evil", PROOFS[index]),
            "proof": (b"evil", proof_of(index, b"evil", _FORGER)),
            "other": (FILE[wrong], PROOFS[wrong]),
        }[lie]
        try:
            child.receive(index, *sent)
        except StatementError:
            child.banned.add(parent.name)
            child.choice.forget(parent.name)
            assert lie != "none"
        else:
            assert lie == "none"


TestSwarm = Swarm.TestCase
TestSwarm.settings = hypothesis.settings(max_examples=60 * ROUNDS, stateful_step_count=40)
