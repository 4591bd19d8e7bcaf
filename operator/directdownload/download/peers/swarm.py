"""What a Peer knows of its parents, and what it does about them. Pure: no clock, no threads, no I/O.

Called by the transfer, under its lock. `Choice` decides which piece comes from which parent; this decides which parents
are asked at all. It promises:

- A parent that proved wrong is not asked again by this job. One that is slow or fails rests, and others are asked.
- Whatever a parent announces is its word alone. One parent cannot keep this job from ending: it ends when nobody is
  heard, and when nothing comes.
"""

import collections
import dataclasses
import random
import statistics
from collections.abc import Iterable, Sequence

from directdownload.peer import maps
from directdownload.peer.choice import Choice
from directdownload.peer.protocol import Changes, State
from directdownload.resources import peers

#: Without a line from any parent, or without progress.
PATIENCE_SECONDS = 30.0
#: The same in times of a piece, for large pieces on slow networks.
_PATIENCE_PIECES = 12
#: A Seed may read its source as slowly as this, and needs the time of a piece until it has the next one.
_SEED_BYTES_PER_SECOND = 256 * 1024
#: Without a line, where every parent was tried and none has ever answered: as behind a firewall.
_UNREACHED_SECONDS = 10.0
#: All three, where there is another source.
_BRIEF_SECONDS = 3.0
REST_SECONDS = 30.0
#: A parent that failed rests for this long at first, and longer each time.
_FIRST_REST_SECONDS = 0.5
#: A piece that takes longer, and so many times the median, comes from another parent if one has it.
_SLOW_SECONDS, _SLOW_PIECES = 10.0, 8
_SAMPLES = 31
#: Pieces in a row that a parent announced and does not give. A Seed gives each to one host, and others may have been
#: faster; a liar costs as few requests.
_ABSENT, _ABSENT_REST_SECONDS = 8, 1.0
#: Such a piece is asked for again after this time, if the parent still announces it.
_AGAIN_SECONDS = 5.0
_SHOWN = 4


@dataclasses.dataclass(eq=False, slots=True)
class _Parent:
    #: as its last state says
    size_bytes: int | None = None
    have: int = 0
    #: None: it does not rest
    rests_until: float | None = None
    #: why it is not asked any more
    banned: str = ""
    #: of its last failure, for messages
    problem: str = ""
    failures: int = 0
    absent: int = 0
    #: pieces that it did not give -> when it is asked again
    withheld: dict[int, float] = dataclasses.field(default_factory=dict)
    #: it has said something, or cannot be reached
    answered: bool = False
    delivered: bool = False


class Swarm:
    """The parents of one content with pieces of `piece_bytes`."""

    def __init__(
        self,
        hosts: Iterable[str],
        piece_bytes: int,
        rng: random.Random,
        now: float,
        *,
        max_size_bytes: int = 0,
        size_bytes: int | None = None,
        votes: int = 0,
        brief: bool = False,
    ) -> None:
        """`size_bytes`: of the file, as `votes` parents said before; else the first one that names it is believed.

        `brief`: there is another source, so nothing is waited for that no parent has now.
        """
        self._brief = brief
        self._patience_seconds = _BRIEF_SECONDS if brief else PATIENCE_SECONDS
        self._began = now
        self._piece_bytes = piece_bytes
        self.choice: Choice[str] = Choice(peers.PIECES_LIMIT, rng)
        #: of the file, as parents say: not verified
        self.size_bytes: int | None = None
        self._votes = votes
        if size_bytes is not None:
            self._believe(size_bytes)
        self.bad_host = ""
        self._max_size_bytes = max_size_bytes
        self._parents = {host: _Parent() for host in hosts}
        self._heard = self._progressed = now
        self._reached = False
        self._known = 0
        self._seconds: collections.deque[float] = collections.deque(maxlen=_SAMPLES)

    # What parents say

    def state(self, host: str, state: State, now: float) -> None:
        """The first line of a stream."""
        parent = self._parents[host]
        if parent.banned:
            return
        if state.piece_bytes not in (None, self._piece_bytes):
            self.ban(host, f"it has pieces of {state.piece_bytes} bytes, expected {self._piece_bytes}")
            return
        parent.have, parent.answered = 0, True
        parent.withheld.clear()
        self.choice.forget(host)
        self._changed(host, Changes(state.size_bytes, tuple(state.have)), now)

    def changes(self, host: str, changes: Changes, now: float) -> None:
        """A later line."""
        if not self._parents[host].banned:
            self._changed(host, changes, now)

    def silent(self, host: str, problem: str) -> None:
        """Its stream has ended."""
        parent = self._parents[host]
        parent.problem, parent.answered = problem, True
        parent.have, parent.size_bytes = 0, None
        self.choice.forget(host)

    def _changed(self, host: str, changes: Changes, now: float) -> None:
        parent = self._parents[host]
        if changes.size_bytes is not None:
            if self._max_size_bytes and changes.size_bytes > self._max_size_bytes:
                self.ban(host, f"its file has {changes.size_bytes} bytes, at most {self._max_size_bytes} are allowed")
                return
            if peers.pieces(changes.size_bytes, self._piece_bytes) > peers.PIECES_LIMIT:
                self.ban(host, "its file has more pieces than there can be")
                return
            parent.size_bytes = changes.size_bytes
        self._heard, self._reached = now, True
        parent.problem = ""
        if self.size_bytes is None and parent.size_bytes is not None:
            self._believe(parent.size_bytes)
        if parent.size_bytes is None or parent.size_bytes != self.size_bytes:
            # of another file: what it has counts for nothing
            return
        parent.have = (parent.have | maps.of(changes.add, self.choice.pieces)) & ~maps.of(
            changes.drop, self.choice.pieces
        )
        for index in (*changes.add, *changes.drop):
            parent.withheld.pop(index, None)
        self.choice.announce(host, changes.add, changes.drop)
        if parent.rests_until is not None:
            self.choice.set_aside(host)
        if self.choice.known > self._known:
            self._known = self.choice.known
            self._progressed = now

    def _believe(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.choice.end(peers.pieces(size_bytes, self._piece_bytes))

    @property
    def other_size_bytes(self) -> int | None:
        """A size of the file that more parents name than the one that is believed; None if there is none."""
        votes = collections.Counter(
            parent.size_bytes for parent in self._parents.values() if parent.size_bytes is not None
        )
        most = max(votes, key=lambda size: votes[size], default=None)
        if most is None or self.size_bytes is None:
            return None
        # more than ever: else a parent that is quick to lie would have each transfer begun anew
        return most if votes[most] > max(votes[self.size_bytes], self._votes) else None

    def naming(self, size_bytes: int) -> Sequence[str]:
        """The parents that name this size of the file."""
        return [host for host, parent in self._parents.items() if parent.size_bytes == size_bytes]

    # What happens with pieces

    def next(self, now: float) -> tuple[str, int] | None:
        """Parent and piece to fetch next; the piece is in flight from now."""
        for host, parent in self._parents.items():
            if parent.rests_until is not None and parent.rests_until <= now:
                parent.rests_until = None
                self.choice.take_up(host)
            again = [index for index, moment in parent.withheld.items() if moment <= now]
            for index in again:
                del parent.withheld[index]
            if again and not parent.banned:
                self.choice.announce(host, (index for index in again if parent.have >> index & 1))
        return self.choice.next()

    def progress(self, now: float) -> None:
        """Bytes came, from a parent or from the disk."""
        self._progressed = now

    def accepted(self, host: str, index: int, seconds: float | None, now: float) -> None:
        """A piece is verified and on disk; it was received within so many seconds, None: it was there already."""
        parent = self._parents[host]
        parent.failures = parent.absent = 0
        parent.delivered = True
        if seconds is not None:
            self._seconds.append(seconds)
        self.choice.have(index)
        self._progressed = now

    def absent(self, host: str, index: int, now: float) -> None:
        """It announced a piece that it does not have."""
        parent = self._parents[host]
        if not parent.banned:
            self.choice.announce(host, drop=(index,))
        parent.withheld[index] = now + _AGAIN_SECONDS
        parent.absent += 1
        if parent.absent >= _ABSENT:
            parent.absent = 0
            self.rest(host, _ABSENT_REST_SECONDS, now)

    def stale(self, host: str, index: int) -> None:
        """Its proof of a piece is of no use any more."""
        parent = self._parents[host]
        parent.have &= ~(1 << index)
        if not parent.banned:
            self.choice.announce(host, drop=(index,))

    def failed(self, host: str, problem: str, now: float) -> None:
        parent = self._parents[host]
        parent.problem = problem
        parent.failures += 1
        self.rest(host, min(REST_SECONDS, _FIRST_REST_SECONDS * 2**parent.failures), now)

    def rest(self, host: str, seconds: float, now: float) -> None:
        """Ask it for nothing for a while: it is slow, or wants that."""
        parent = self._parents[host]
        # any comparison with what is no number is false
        seconds = min(seconds, REST_SECONDS) if seconds > 0 else 0.0
        parent.rests_until = max(parent.rests_until or 0.0, now + seconds)
        self.choice.set_aside(host)

    def ban(self, host: str, problem: str, *, lied: bool = False) -> None:
        """Ask it for nothing in this job; `lied`: it sent what its proof does not say."""
        parent = self._parents[host]
        parent.banned = parent.problem = problem
        parent.have, parent.size_bytes = 0, None
        self.choice.forget(host)
        if lied:
            self.bad_host = self.bad_host or host

    def is_banned(self, host: str) -> bool:
        return bool(self._parents[host].banned)

    # Judgements

    def is_slow(self, host: str, index: int, seconds: float) -> bool:
        """Whether a piece that has been coming for so many seconds should come from another parent."""
        if seconds <= max(_SLOW_SECONDS, _SLOW_PIECES * self._slot_seconds()):
            return False
        return any(
            each.have >> index & 1 and each.rests_until is None
            for other, each in self._parents.items()
            if other != host
        )

    def unavailable(self, now: float) -> str | None:
        """Why the rest will not come from these parents now; None while it may."""
        least = patience = self._patience_seconds
        if not self._reached and self._all_answered:
            least = min(least, _UNREACHED_SECONDS)
        if not self._brief:
            patience = max(
                patience, _PATIENCE_PIECES * self._slot_seconds(), self._piece_bytes / _SEED_BYTES_PER_SECOND
            )
        if all(parent.banned for parent in self._parents.values()):
            what = "no host is left to ask"
        elif now - self._heard > least:
            what = f"no host has answered for {least:g} s"
        elif now - self._progressed > patience:
            what = f"no host has had a further piece for {patience:.0f} s"
        elif self._brief and self._exhausted(now):
            what = "no host has a further piece now"
        else:
            return None
        problems = [parent.problem for parent in self._parents.values() if parent.problem]
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        return f"{what} ({'; '.join(problems[:_SHOWN])}{more})" if problems else what

    @property
    def _all_answered(self) -> bool:
        return all(parent.answered or parent.banned for parent in self._parents.values())

    def _exhausted(self, now: float) -> bool:
        return self.choice.offered == 0 and (self._all_answered or now - self._began > _BRIEF_SECONDS)

    @property
    def delivered(self) -> Sequence[str]:
        """The parents that pieces came from."""
        return [host for host, parent in self._parents.items() if parent.delivered]

    def _slot_seconds(self) -> float:
        return statistics.median(self._seconds) if self._seconds else 0.0
