"""Fetching pieces from parents, each thread one at a time. Called by the transfer.

A piece counts once its bytes are on disk and have the digest of a proof that the judge accepts: only then the board,
the journal and the piece log have it, and its bytes are not written again. Each piece has one writer at a time: it is
given back when its connection is closed and its last block is written.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Mapping

from directdownload.download.errors import ReleasedError, SourceError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.peers.flight import Flight
from directdownload.download.peers.links import Access, Link, length_of, refusal
from directdownload.download.peers.logwriter import LogWriter
from directdownload.download.peers.proofs import ExpiredError, Judge
from directdownload.download.peers.swarm import REST_SECONDS, Swarm
from directdownload.download.sources import head
from directdownload.download.transfer.assembly import Assembly
from directdownload.download.transfer.bandwidth import Bandwidth
from directdownload.download.transfer.schedule import BLOCK_BYTES
from directdownload.peer import protocol
from directdownload.peer.protocol import Target
from directdownload.peer.statements import Proof
from directdownload.resources import peers
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

#: The longest silence while a piece comes.
_SILENCE_SECONDS = 10.0
#: A server ends an upload after 10 s, whatever the limit of this download's rate is.
_PIECE_SECONDS = 5.0
_LEAST_PAUSE_SECONDS, _PAUSE_SECONDS = 0.05, 1.0


class _WrongError(Exception):
    """A parent has sent what no honest one does."""


class Fetcher:
    """Fills `assembly` with pieces of the parents in `swarm`, under the assembly's lock. `doubts`: as in transfer."""

    def __init__(
        self,
        access: Access,
        swarm: Swarm,
        assembly: Assembly,
        bandwidth: Bandwidth,
        guard: Guard,
        over: threading.Event,
        log: LogWriter | None,
        doubts: Mapping[int, Proof],
    ) -> None:
        self._access = access
        self._parents = {parent.host: parent for parent in access.terms.parents}
        self._content, self._piece_bytes = access.terms.content, access.terms.piece_bytes
        self._swarm = swarm
        self._assembly = assembly
        self._changed = assembly.changed
        self._bandwidth = bandwidth
        self._guard = guard
        self._over = over
        self._log = log
        self._judge = Judge(access.terms)
        self._doubts = dict(doubts)
        #: doubted pieces whose bytes on disk may have changed
        self._overwritten: set[int] = set()
        self._links: dict[str, tuple[Link, threading.Event]] = {}
        self.flights: list[Flight] = []
        #: threads that wait for the limit of the rate, before a piece
        self.pausing = 0
        #: of the pieces that it fetched
        self.proofs: dict[int, Proof] = {}
        self.received_bytes = 0

    def run(self) -> None:
        """Fetch one piece after the other until the end. Raises ReleasedError, StoppedError, StorageError."""
        guard = self._guard.for_connection(self._over)
        while True:
            with self._changed:
                self.pausing += 1
            # what the last pieces came too fast
            guard.wait(self._bandwidth.charge(0))
            with self._changed:
                self.pausing -= 1
                while (flight := self._next()) is None:
                    if self._over.is_set() or self._assembly.board.complete:
                        return
                    self._changed.wait(TICK_SECONDS)
                self.flights.append(flight)
            try:
                self._fetch(flight)
            finally:
                self._land(flight)

    def release(self) -> None:
        """Let all flights end. Under the lock."""
        for flight in self.flights:
            flight.released.set()

    def close(self) -> None:
        """After the end of all threads."""
        for link, _ in self._links.values():
            link.close()

    def _next(self) -> Flight | None:
        if self._over.is_set() or self._assembly.board.size_bytes is None:
            return None
        self._swarm.choice.follow(self._assembly.verified_bytes // self._piece_bytes)
        found = self._swarm.next(time.monotonic())
        if found is None:
            return None
        start, end = peers.piece_range(found[1], self._piece_bytes, self._assembly.board.size_bytes)
        return Flight(*found, start, end)

    def _land(self, flight: Flight) -> None:
        """Give the piece back. Its last block must be written before anybody else gets it."""
        with self._changed:
            while flight.unwritten:
                self._changed.wait(TICK_SECONDS)
            self.flights.remove(flight)
            self._swarm.choice.give_back(flight.index)
            self._changed.notify_all()

    def _fetch(self, flight: Flight) -> None:
        """Fetch one piece; whatever the parent does is noted here."""
        host, now = flight.host, time.monotonic
        link: Link | None = None
        try:
            link, answer = self._ask(flight)
            reusable = self._take(flight, link, answer)
            with self._changed:
                # the next piece of this host may have begun as soon as this one counted
                if reusable and host not in self._links and not self._over.is_set():
                    self._links[host] = link, flight.released
                    link = None
        except ReleasedError:
            if not flight.slow:
                raise
            logger.info("%s: piece %d is slow: another host is asked", host, flight.index)
            with self._changed:
                self._swarm.rest(host, REST_SECONDS, now())
        except SourceError as error:
            with self._changed:
                self._swarm.failed(host, error.message, now())
        except _WrongError as error:
            logger.warning("%s: piece %d: %s; it is asked for nothing more", host, flight.index, error)
            with self._changed:
                self._swarm.ban(host, f"{host}: {error}", lied=True)
        finally:
            if link is not None:
                link.close()

    def _ask(self, flight: Flight) -> tuple[Link, head.Head]:
        target = Target(self._content, flight.index)
        with self._changed:
            link, released = self._links.pop(flight.host, (None, flight.released))
            flight.released, fresh = released, flight.released
            if fresh.is_set():
                released.set()
        if link is not None:
            try:
                return link, link.get(target)
            except BaseException as error:
                link.close()
                if not isinstance(error, (SourceError, ReleasedError)):
                    raise
                # the server may have closed it meanwhile
                with self._changed:
                    flight.released = fresh
                    if self._over.is_set() or flight.slow:
                        fresh.set()
        silence = min(_SILENCE_SECONDS, self._access.timeouts.socket_seconds)
        guard = self._guard.for_connection(flight.released)
        link = self._access.dial(self._parents[flight.host], silence, guard)
        try:
            return link, link.get(target)
        except BaseException:
            link.close()
            raise

    def _take(self, flight: Flight, link: Link, answer: head.Head) -> bool:
        """Take the piece from an answer; return whether the connection is good for another. Raises _WrongError."""
        host, index, length = flight.host, flight.index, length_of(answer)
        if answer.status == 503:
            with self._changed:
                self._swarm.rest(host, _seconds(answer), time.monotonic())
            return length == 0
        if answer.status == 404:
            with self._changed:
                self._swarm.absent(host, index, time.monotonic())
            return length == 0
        if answer.status != 200:
            raise SourceError(Reason.PEERS_UNAVAILABLE, f"{host}: {refusal(answer)}")
        if length != flight.end - flight.start:
            raise SourceError(Reason.PEERS_UNAVAILABLE, f"{host}: piece {index} has {length} bytes")
        token = answer.headers.get(protocol.WARRANT)
        try:
            proof = protocol.read_proof(answer.headers.get(protocol.PROOF))
            with self._changed:
                self._judge.check(index, proof, token, time.time())
        except ExpiredError:
            proof = None
        except ValueError as error:
            raise _WrongError(str(error)) from None
        doubted = self._doubts.get(index)
        if proof is None or (doubted is not None and proof.epoch <= doubted.epoch):
            with self._changed:
                self._swarm.stale(host, index)
            return False
        fetch = doubted is None or doubted.digest != proof.digest or index in self._overwritten
        if fetch:
            if doubted is not None:
                self._overwritten.add(index)
                # others read it until now
                if self._log is not None:
                    self._log.lost([index])
            if self._receive(flight, link, length) != proof.digest:
                raise _WrongError("its bytes are not what its proof says")
        self._accept(flight, proof, token, fetched=fetch)
        return fetch

    def _receive(self, flight: Flight, link: Link, length: int) -> bytes:
        """The digest of the bytes of the piece, which are on disk then."""
        guard = self._guard.for_connection(flight.released)
        body, hasher, position = link.body(length), hashlib.sha256(), flight.start
        while position < flight.end:
            with flight.holding():
                buffer = self._assembly.free_buffer(guard)
            want = min(BLOCK_BYTES - position % BLOCK_BYTES, self._bandwidth.block_bytes, flight.end - position)
            filled = 0
            try:
                with flight.receiving():
                    while filled < want:
                        guard.check()
                        filled += body.readinto(buffer[filled:want])
            except BaseException:
                self._assembly.give(buffer)
                raise
            hasher.update(buffer[:filled])
            with self._changed:
                flight.unwritten += 1
                self.received_bytes += filled
                self._swarm.progress(time.monotonic())
            self._assembly.write(buffer, filled, position, lambda: self._written(flight))
            position += filled
            pause = min(self._bandwidth.charge(filled), _PIECE_SECONDS * filled / length)
            if pause > 0:
                with flight.holding():
                    guard.wait(pause)
        with flight.holding(), self._changed:
            while flight.unwritten:
                self._changed.wait(TICK_SECONDS)
        self._assembly.check_writes()
        return hasher.digest()

    def _written(self, flight: Flight) -> None:
        with self._changed:
            flight.unwritten -= 1
            self._changed.notify_all()

    def _accept(self, flight: Flight, proof: Proof, token: str, *, fetched: bool) -> None:
        index, now = flight.index, time.monotonic()
        seconds = flight.receiving_seconds(now) if fetched else None
        with self._changed:
            self._doubts.pop(index, None)
            self.proofs[index] = proof
            self._swarm.accepted(flight.host, index, seconds, now)
            self._assembly.accept(flight.start, flight.end)
        if self._log is not None:
            self._log.warrant(token)
            self._log.piece(index, proof.digest, proof)


def _seconds(answer: head.Head) -> float:
    """The pause that a busy server asks for; a short one if it names none."""
    try:
        return max(_LEAST_PAUSE_SECONDS, float(answer.headers.get(protocol.RETRY_AFTER)[:16]))
    except ValueError:
        return _PAUSE_SECONDS
