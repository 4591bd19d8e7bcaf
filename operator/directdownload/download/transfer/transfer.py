"""Moving the bytes: connections to one or several sources, each in its own thread, fill one part together.

Called by the engine with an open part and sources of the same bytes. The schedule divides the work; the assembly takes
the bytes. However it ends, the written bytes are synced and the journal lists them.

A connection is optional while others go on: whatever it meets lowers the number of connections to its source, and
costs the transfer nothing.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from directdownload.download import errors, sources
from directdownload.download.checksum import Hasher
from directdownload.download.errors import DownloadError, ReleasedError, RequestError, SourceError
from directdownload.download.guard import TICK_SECONDS, Guard
from directdownload.download.store.staging import Staging
from directdownload.download.transfer import schedule
from directdownload.download.transfer.assembly import Assembly, State, Terms
from directdownload.download.transfer.bandwidth import Bandwidth
from directdownload.download.transfer.pace import Pace
from directdownload.download.transfer.ranges import Ranges
from directdownload.download.transfer.schedule import BLOCK_BYTES
from directdownload.download.transfer.supplier import Busy, Connection, Supplier, blamed_for, sources_waited_for
from directdownload.download.transfer.unpack import Unpack
from directdownload.download.transfer.versions import Versions
from directdownload.resources.naming import MOST_CONNECTIONS
from directdownload.resources.reasons import Reason

logger = logging.getLogger(__name__)

_AUTOMATIC_CONNECTIONS = 4
#: how often, and how long apart, a server that limits the number of connections is asked for the last one
_PATIENCE, _PATIENCE_SECONDS = 3, 1.0
#: the bytes of a slow source are written at least this often
_FILL_SECONDS = 0.25


class Transfer:
    """One run over some sources; `run` once. `keep` and `report` are as for Sync, `mixing` as for Versions."""

    def __init__(
        self,
        staging: Staging,
        offered: Sequence[sources.Source],
        state: State,
        terms: Terms,
        guard: Guard,
        *,
        mixing: bool,
        unpack: Unpack | None,
        keep: Callable[["Transfer", Ranges, int], None],
        report: Callable[["Transfer", int, int], None],
    ) -> None:
        if not state.fits(terms.size_bytes):
            state = State()
        self._guard = guard
        self._versions = Versions(terms.size_bytes, verified=bool(terms.algorithms or terms.pieces), mixing=mixing)
        #: whether a source named several versions
        self.mixed = False
        self._fixed = terms.limits.connections
        each = self._fixed or (1 if terms.limits.bandwidth_bytes_per_second else _AUTOMATIC_CONNECTIONS)
        self.suppliers = [
            Supplier(source, schedule.Candidate(limit=each), state.validators.get(source.url.digest, ""))
            for source in offered
        ]
        #: the source that was opened last
        self.active = self.suppliers[0]
        self._earlier_validators = state.validators
        self._connections: list[Connection] = []
        self._opened = 0
        self._fatal: Exception | None = None
        self._ramp = schedule.Ramp(time.monotonic())
        self._bandwidth = Bandwidth(terms.limits.bandwidth_bytes_per_second)
        self._pace = Pace(terms.limits, time.monotonic())
        #: by connections that have ended
        self.received_bytes = 0
        self._assembly = Assembly(
            staging,
            state,
            terms,
            guard,
            unpack=unpack,
            bad_piece=self._bad_piece,
            keep=lambda written, rate: keep(self, written, rate),
            report=lambda written_bytes, rate: report(self, written_bytes, rate),
        )
        self._changed = self._assembly.changed

    @property
    def size_bytes(self) -> int | None:
        return self._assembly.board.size_bytes

    @property
    def resumed_from(self) -> int:
        """The number of bytes reused from an earlier attempt."""
        return self._assembly.resumed_from

    @property
    def contributors(self) -> list[Supplier]:
        """The sources that delivered bytes in this transfer."""
        return [supplier for supplier in self.suppliers if supplier.delivered]

    def validators(self) -> dict[str, str]:
        """The version of each source in the part, by the URL's digest."""
        named = dict(self._earlier_validators) if self.resumed_from else {}
        for supplier in self.contributors:
            digest, validator = supplier.source.url.digest, supplier.validator
            named[digest] = validator if named.get(digest, validator) == validator else ""
        from directdownload.download.transfer import journal

        return dict(list(named.items())[: journal.SOURCES_LIMIT])

    def run(self) -> tuple[int, Hasher]:
        """The size of the complete file and its digests. Raises DownloadError, SourceError if no source is left."""
        complete = False
        try:
            self._steer()
            complete = True
        finally:
            with self._changed:
                connections = list(self._connections)
                for connection in connections:
                    connection.released.set()
            for connection in connections:
                connection.join()
            # a failure of the hashing was already raised, or another failure ended the transfer
            with contextlib.nullcontext() if complete else contextlib.suppress(DownloadError):
                hasher = self._assembly.end(complete=complete)
        return self._assembly.board.done.total_bytes, hasher

    # The thread of the caller

    def _steer(self) -> None:
        board = self._assembly.board
        rate = schedule.Rate(time.monotonic(), board.done.total_bytes)
        while True:
            self._guard.check()
            self._assembly.check()
            with self._changed:
                if self._fatal is not None:
                    raise self._fatal
                board = self._assembly.board
                if not board.complete:
                    now = time.monotonic()
                    self._look_at_pace(now)
                    if not self._connections:
                        if board.has_gap:
                            self._open_one_or_fail()
                    elif self._assembly.prepared:
                        self._adjust(now, rate.at(now, board.done.total_bytes), board.missing_bytes)
                    self._changed.wait(TICK_SECONDS)
                    continue
                for connection in self._connections:
                    connection.released.set()
            if self._assembly.settle():
                return

    def _adjust(self, now: float, bytes_per_second: float, missing_bytes: int | None) -> None:
        """Open or close a connection, if that is worth it."""
        if missing_bytes is None or len(self._connections) >= MOST_CONNECTIONS:
            return
        if self._fixed:
            while len(self._connections) < MOST_CONNECTIONS and (supplier := self._next_supplier()) is not None:
                self._open(supplier)
            return
        supplier = self._next_supplier()
        step = self._ramp.decide(now, bytes_per_second, missing_bytes) if supplier is not None else 0
        if supplier is not None and step > 0:
            self._open(supplier)
        elif step < 0 and len(self._connections) > 1:
            last = self._connections[-1]
            last.supplier.limit_to(max(1, last.supplier.candidate.connections - 1))
            last.released.set()

    def _look_at_pace(self, now: float) -> None:
        """Drop the sources that together deliver too little; other sources or the next attempt continue from there."""
        waited_for = sources_waited_for(self._connections)
        received = self.received_bytes + sum(connection.received_bytes for connection in self._connections)
        if (rate := self._pace.look(now, received, waiting=bool(waited_for))) is not None:
            for supplier in waited_for:
                self._give_up(supplier, self._pace.failure(supplier.source.url, rate))
            self._pace.begin_anew()

    def _next_supplier(self) -> Supplier | None:
        index = schedule.next_candidate([supplier.candidate for supplier in self.suppliers])
        return None if index is None else self.suppliers[index]

    def _open_one_or_fail(self) -> None:
        # a restart from the beginning is better than a failure
        whole = (s for s in self.suppliers if s.whole_only and s.failure is None)
        supplier = self._next_supplier() or next(whole, None)
        if supplier is None:
            raise errors.chosen_failure([s.failure for s in self.suppliers if s.failure is not None])
        self._open(supplier)

    def _open(self, supplier: Supplier) -> None:
        supplier.candidate.connections += 1
        self._opened += 1
        connection = Connection(supplier, self._opened)
        self._connections.append(connection)
        connection.start(self._work)

    # The threads of the connections

    def _work(self, connection: Connection) -> None:
        guard = self._guard.for_connection(connection.released)
        try:
            while self._claim_and_fetch(connection, guard):
                pass
        except ReleasedError:
            with self._changed:
                if connection.replaced:
                    message = f"{connection.supplier.source.url}: it stalled or was slow, other connections went on"
                    self._note_failure(connection, SourceError(Reason.SOCKET_TIMEOUT, message))
        except Exception as error:  # the thread that waits for this one raises it again
            with self._changed:
                self._fatal = self._fatal or error
        finally:
            with self._changed:
                self._let_go(connection)
                connection.supplier.candidate.connections -= 1
                self.received_bytes += connection.received_bytes
                self._connections.remove(connection)
                self._changed.notify_all()

    def _claim_and_fetch(self, connection: Connection, guard: Guard) -> bool:
        """Fetch one claim; return whether there may be more work for the connection."""
        try:
            claim = self._claim(connection)
            return claim is not None and self._fetch(connection, claim, guard)
        except (SourceError, RequestError) as error:
            with self._changed:
                again = self._note_failure(connection, error)
        if again:
            guard.wait(_PATIENCE_SECONDS)
        return again

    def _claim(self, connection: Connection) -> schedule.Claim | None:
        with self._changed:
            self._let_go(connection)
            if connection.released.is_set():
                return None
            alone = len(self._connections) == 1
            connection.claim = self._assembly.board.take(time.monotonic(), connection.bytes_per_second, alone=alone)
            # the others have stalled, or nearly
            self._release_overtaken(slow=True)
            return connection.claim

    def _release_overtaken(self, *, slow: bool) -> None:
        for connection in self._connections:
            if connection.claim is not None and connection.claim.overtaken and not connection.released.is_set():
                connection.replaced = slow
                connection.released.set()

    def _let_go(self, connection: Connection) -> None:
        claim, connection.claim, connection.busy = connection.claim, None, Busy.OPENING
        if claim is not None:
            connection.bytes_per_second = connection.supplier.bytes_per_second = claim.bytes_per_second
            self._assembly.board.give_back(claim)

    def _fetch(self, connection: Connection, claim: schedule.Claim, guard: Guard) -> bool:
        """Fetch a claim; False if the source cannot deliver it."""
        supplier, start = connection.supplier, claim.start
        with self._changed:
            validator = "" if self._versions.mixing else supplier.validator
            ask = sources.Ask(start, claim.reach, validator, self.size_bytes if start else None)
        with contextlib.closing(supplier.source.open(ask, guard)) as stream:
            accepted = self._accept(supplier, stream, start)
            if accepted is None:
                return False
            if not accepted:
                # a range that begins at 0 may end where it was asked to
                self._begin_anew(connection, whole=not stream.offset_bytes and (start > 0 or claim.reach is None))
            if not self._assembly.prepared:
                self._assembly.prepare(
                    stream.size_bytes if stream.size_bytes is not None else self._versions.promised_bytes
                )
            if connection.claim is not None:
                self._pump(connection, connection.claim, stream, guard)
        return True

    def _accept(self, supplier: Supplier, stream: sources.Stream, start: int) -> bool | None:
        """Whether the stream goes on where `start` is; False: from the beginning; None: it is of no use."""
        size = stream.size_bytes
        with self._changed:
            others = len(self._connections) > 1
            self._versions.check_promise(supplier, stream)
            same_size = size in (None, self.size_bytes)
            same_version = self._versions.is_same(supplier.validator, stream.validator, asked=start > 0)
            if others:
                self._versions.check_further(supplier, stream, self.size_bytes, same=same_version)
            else:
                same_version = same_version and self._versions.is_same_type(supplier, stream)
                self._versions.check_continued(supplier, same=same_version and same_size)
            continues = same_version and (same_size or self.size_bytes is None)
            begins_anew = stream.offset_bytes != start or (self._assembly.board.begun and not continues)
            validator = stream.validator if begins_anew else stream.validator or supplier.validator
            if not stream.ranges or begins_anew or not (self._versions.verified or validator):
                supplier.whole_only = True
                supplier.limit_to(supplier.candidate.connections - 1 if others else 1)
            if others and (begins_anew or size is None):
                return None
            # no other connection starts before there is room for the file
            self._assembly.prepared = self._assembly.prepared and not begins_anew
            self.mixed = self.mixed or (supplier.media_type is not None and validator != supplier.validator)
            supplier.validator = validator
            supplier.media_type = stream.media_type
            self.active = supplier
            return not begins_anew

    def _begin_anew(self, connection: Connection, *, whole: bool) -> None:
        """Restart from zero, with this connection if it brings the whole file: the bytes cannot be continued."""
        self._assembly.begin_anew()
        with self._changed:
            for supplier in self.suppliers:
                supplier.delivered = Ranges()
            connection.claim = self._assembly.board.take(time.monotonic(), 0, alone=True) if whole else None

    def _pump(self, connection: Connection, claim: schedule.Claim, stream: sources.Stream, guard: Guard) -> None:
        """Copy from the stream into the part, up to the end of the claim."""
        supplier, ended = connection.supplier, False
        while not ended and self._goes_on(claim):
            connection.busy = Busy.WRITING
            buffer = self._assembly.free_buffer(guard)
            connection.busy = Busy.RECEIVING
            filled = 0
            try:
                want = min(BLOCK_BYTES - claim.position % BLOCK_BYTES, self._bandwidth.block_bytes)
                if (left := claim.left_bytes) is not None:
                    want = min(want, left)
                end = time.monotonic() + _FILL_SECONDS
                while filled < want and (not filled or time.monotonic() < end):
                    guard.check()
                    count = stream.readinto(buffer[filled:want])
                    if not count:
                        ended = True
                        break
                    filled += count
                    connection.received_bytes += count
            finally:
                connection.busy = Busy.WRITING
                # also after a failure of the source: these bytes are good
                self._assembly.put(claim, buffer, filled, supplier.delivered)
            self._bandwidth.take(filled, guard)
        if not ended:
            return
        with self._changed:
            if claim.end is None:
                self._assembly.board.set_size(claim.position)
            elif not claim.exhausted:
                message = f"{supplier.source.url}: it ended after {claim.position} bytes of {self.size_bytes}"
                raise SourceError(Reason.TRUNCATED, message)

    def _goes_on(self, claim: schedule.Claim) -> bool:
        if not claim.exhausted:
            return True
        with self._changed:
            goes_on = self._assembly.board.go_on(claim)
            self._release_overtaken(slow=False)
            return goes_on

    # Failures; all under the lock

    def _note_failure(self, connection: Connection, error: DownloadError) -> bool:
        """Whether the connection should try once more."""
        supplier = connection.supplier
        if supplier.candidate.connections > 1:
            # it serves others: perhaps it wants no more of them
            supplier.limit_to(supplier.candidate.connections - 1)
            supplier.patience = _PATIENCE
            self._ramp.lost(time.monotonic())
            logger.info("%s; going on with %d connections to it", error, supplier.candidate.limit)
        elif supplier.patience and (supplier.delivered or not error.permanent):
            # perhaps it has not noticed yet that the others are gone
            supplier.patience -= 1
            return True
        elif len(self._connections) == 1 and error.reason is Reason.SOURCE_CHANGED and supplier.delivered:
            self._fatal = self._fatal or error
        else:
            self._give_up(supplier, error)
        return False

    def _give_up(self, supplier: Supplier, error: DownloadError) -> None:
        supplier.fail(error)
        self._ramp.lost(time.monotonic())
        for connection in self._connections:
            if connection.supplier is supplier:
                connection.released.set()

    def _bad_piece(self, start: int, end: int) -> None:
        """Called by the hashing: fetch the piece again, from another source if there is one."""
        with self._changed:
            self._assembly.forget_piece(start, end)
            for supplier in blamed_for(start, end, self.suppliers):
                message = f"{supplier.source.url}: bytes {start} to {end} do not match the hash in the metalink"
                self._give_up(supplier, SourceError(Reason.CHECKSUM_MISMATCH, message))
