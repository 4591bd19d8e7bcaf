"""Moving the pieces: connections to several parents fill one part together.

Called by the gathering. Threads: one follows the state of each parent (`states`), a few fetch pieces (`fetcher`), one
reads the pieces of an earlier attempt again, and the caller steers. The hash of the file follows in order and reads the
bytes back. Whatever a parent does costs the transfer at most this parent.
"""

import contextlib
import functools
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping

from directdownload.download.checksum import Hasher
from directdownload.download.errors import DownloadError, ReleasedError, SourceError, StoppedError, StorageError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.peers.fetcher import Fetcher
from directdownload.download.peers.links import Access
from directdownload.download.peers.proofs import Judge
from directdownload.download.peers.states import States
from directdownload.download.peers.swarm import Swarm
from directdownload.download.settings import Setting
from directdownload.download.store.staging import Staging
from directdownload.download.store.writer import new_buffer
from directdownload.download.transfer.assembly import Assembly, State, Terms
from directdownload.download.transfer.bandwidth import Bandwidth
from directdownload.download.transfer.pace import Pace
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.unpack import Unpack
from directdownload.peer.statements import Proof
from directdownload.resources import peers
from directdownload.resources.reasons import Reason


class ContestedError(Exception):
    """The size of the file that this transfer began with does not count: the transfer is to begin anew.

    `size_bytes` counts then, as `votes` hosts name it (None: what hosts name), and the hosts `refused` are not asked.
    """

    def __init__(
        self, problem: str, size_bytes: int | None = None, *, votes: int = 0, refused: Collection[str] = ()
    ) -> None:
        super().__init__(problem)
        self.size_bytes, self.votes, self.refused = size_bytes, votes, refused


class PeerTransfer:
    """One run; `run` once. `keep` and `report` are as for Sync.

    `doubts` are proofs that led to a wrong file: such a piece counts only by a proof of a higher epoch, and is fetched
    only if that has another digest. `size_bytes`, `votes` and `brief`: as for Swarm.
    """

    def __init__(
        self,
        staging: Staging,
        access: Access,
        terms: Terms,
        guard: Guard,
        *,
        unpack: Unpack | None,
        keep: Callable[["PeerTransfer", Ranges, int], None],
        report: Callable[["PeerTransfer", int, int], None],
        doubts: Mapping[int, Proof],
        size_bytes: int | None = None,
        votes: int = 0,
        brief: bool = False,
    ) -> None:
        now = time.monotonic()
        self._staging = staging
        self._log = staging.pieces
        self._terms = access.terms
        self._piece_bytes = access.terms.piece_bytes
        self._guard = guard
        self._doubting = bool(doubts)
        #: of the pieces of an earlier attempt
        self._proofs: dict[int, Proof] = {}
        limits = terms.limits
        # for spreading load, not for secrets
        rng = random.Random()  # noqa: S311
        hosts = [parent.host for parent in self._terms.parents]
        self.swarm = Swarm(
            hosts,
            self._piece_bytes,
            rng,
            now,
            max_size_bytes=limits.max_size_bytes,
            size_bytes=size_bytes,
            votes=votes,
            brief=brief,
        )
        self.resumed_from = 0
        self._pace = Pace(limits, now)
        self._over = threading.Event()
        self._fatal: Exception | None = None
        self._threads: list[threading.Thread] = []
        #: pieces of an earlier attempt are being read
        self._reading = False
        #: at the last look
        self._hashed_bytes = 0
        self._assembly = Assembly(
            staging,
            State(),
            terms,
            guard,
            unpack=unpack,
            bad_piece=lambda _start, _end: None,
            keep=lambda written, rate: keep(self, written, rate),
            report=lambda written_bytes, rate: report(self, written_bytes, rate),
        )
        self._changed = self._assembly.changed
        bandwidth = Bandwidth(limits.bandwidth_bytes_per_second)
        self._fetcher = Fetcher(access, self.swarm, self._assembly, bandwidth, guard, self._over, self._log, doubts)
        self._states = States(access, self._terms.content, self.swarm, self._changed, guard, self._over)

    @property
    def received_bytes(self) -> int:
        """The number of bytes that came from parents."""
        return self._fetcher.received_bytes

    @property
    def size_bytes(self) -> int | None:
        return self._assembly.board.size_bytes

    def proofs(self) -> dict[int, Proof]:
        """Of the pieces that count."""
        return self._proofs | self._fetcher.proofs

    def run(self) -> tuple[int, Hasher]:
        """The size of the complete file and its digests. Raises DownloadError, ContestedError."""
        complete = False
        try:
            for parent in self._terms.parents:
                self._start(f"parent-{parent.host}", functools.partial(self._states.follow, parent))
            self._steer()
            complete = True
        finally:
            self._over.set()
            with self._changed:
                self._fetcher.release()
                self._changed.notify_all()
            for thread in self._threads:
                thread.join()
            self._fetcher.close()
            # a failure of the hashing was already raised, or another failure ended the transfer
            with contextlib.nullcontext() if complete else contextlib.suppress(DownloadError):
                hasher = self._assembly.end(complete=complete)
            if not complete:
                self._free_reserve()
        return self._assembly.board.done.total_bytes, hasher

    # The thread of the caller

    def _steer(self) -> None:
        while True:
            self._guard.check()
            self._assembly.check()
            with self._changed:
                if self._fatal is not None:
                    raise self._fatal
                size = self.swarm.size_bytes
                if size is None or self._assembly.prepared:
                    if self._assembly.board.complete:
                        break
                    self._look(time.monotonic())
                    self._changed.wait(TICK_SECONDS)
                    continue
            self._prepare(size)
        self._assembly.settle()

    def _prepare(self, size: int) -> None:
        log = self._log
        entries = log.entries if log is not None else {}
        number = peers.pieces(size, self._piece_bytes)
        kept = {index for index, entry in entries.items() if entry.proof is not None and index < number}
        if log is not None:
            log.lost(sorted(entries.keys() - kept))
            log.size(size)
        try:
            self._assembly.prepare(size, keep=bool(kept) or self._doubting)
        except StorageError as error:
            if error.reason is not Reason.INSUFFICIENT_SPACE:
                raise
            with self._changed:
                hosts = self.swarm.naming(size)
            problem = f"{', '.join(hosts) or 'most hosts'}: the file has {size} bytes there; {error.message}"
            if not hosts:
                # they named it before, and may do so again: without a host less this would not end
                raise SourceError(Reason.PEERS_UNAVAILABLE, problem) from error
            raise ContestedError(problem, refused=hosts) from error
        with self._changed:
            if not self._doubting:
                # nobody fetches them before they are read again
                for index in kept:
                    self.swarm.choice.have(index)
                self._reading = bool(kept)
        if self._reading:
            self._start("reread", lambda: self._reread(sorted(kept), size))
        for number in range(self.swarm.choice.in_flight):
            self._start(f"fetch-{number + 1}", self._fetcher.run)

    def _free_reserve(self) -> None:
        """Free what lies behind the last good piece: it was reserved because a host named the size of the file."""
        good = {*self.proofs(), *(self._log.entries if self._log is not None else ())}
        end = (max(good, default=-1) + 1) * self._piece_bytes
        descriptor = self._staging.part.descriptor
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, min(end, os.fstat(descriptor).st_size))

    def _look(self, now: float) -> None:
        """End what does not come. Under the lock."""
        flights, hashed = self._fetcher.flights, self._assembly.verified_bytes
        busy = self._reading or bool(self._fetcher.pausing) or any(flight.held for flight in flights)
        if busy or hashed > self._hashed_bytes:
            # it waits for this host, or for the limit of its rate
            self.swarm.progress(now)
        self._hashed_bytes = hashed
        if (other := self.swarm.other_size_bytes) is not None:
            news = f"most hosts name another size of the file: {other} bytes"
            raise ContestedError(news, other, votes=len(self.swarm.naming(other)))
        if not self._reading and (problem := self.swarm.unavailable(now)) is not None:
            raise SourceError(Reason.PEERS_UNAVAILABLE, problem)
        for flight in flights:
            if not flight.slow and self.swarm.is_slow(flight.host, flight.index, flight.receiving_seconds(now)):
                flight.slow = True
                flight.released.set()
        if (rate := self._pace.look(now, self.received_bytes, waiting=bool(flights) and not busy)) is not None:
            raise SourceError(
                Reason.PEERS_UNAVAILABLE,
                f"other hosts sent {rate:.0f} bytes per second on average over {self._pace.window_seconds:g} s, "
                f"expected at least {self._pace.minimum} ({Setting.MINIMUM_RATE})",
            )

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except (ReleasedError, StoppedError):
                # the caller meets it too
                return
            except Exception as error:  # the caller raises it again
                with self._changed:
                    self._fatal = self._fatal or error
                    self._changed.notify_all()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # The pieces of an earlier attempt

    def _reread(self, kept: list[int], size: int) -> None:
        try:
            warrants = self._log.warrants if self._log is not None else ()
            entries = self._log.entries if self._log is not None else {}
            judge, buffer = Judge(self._terms), new_buffer()
            for index in kept:
                start, end = peers.piece_range(index, self._piece_bytes, size)
                proof = judge.kept(index, entries[index], warrants, time.time())
                good = proof is not None and self._digest(start, end, buffer) == proof.digest
                if not good and self._log is not None:
                    self._log.lost([index])
                with self._changed:
                    if good and proof is not None:
                        self.resumed_from += end - start
                        self._proofs[index] = proof
                        self._assembly.accept(start, end)
                    else:
                        self.swarm.choice.lost(index)
                        self._changed.notify_all()
        finally:
            self._reading = False

    def _digest(self, start: int, end: int, buffer: memoryview) -> bytes:
        """Of bytes on disk; empty if they cannot be read, which is then like any other damage."""
        hasher = hashlib.sha256()
        guard = self._guard.for_connection(self._over)
        while start < end:
            guard.check()
            try:
                count = os.preadv(self._staging.part.descriptor, [buffer[: min(len(buffer), end - start)]], start)
            except OSError:
                return b""
            if not count:
                break
            hasher.update(buffer[:count])
            start += count
        return hasher.digest()
