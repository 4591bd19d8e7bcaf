"""How far what is known of each kind can be trusted: being loaded, live, lost, forbidden, not installed. Pure: the
caller gives the time. `watches` reports to it, pages say what it says.
"""

import dataclasses
import datetime
import enum

from directdownload.cluster import errors, kinds

#: A watch that has not failed for so long counts as open.
OPEN_SECONDS = 1.0


class State(enum.Enum):
    LOADING = enum.auto()
    LIVE = enum.auto()
    LOST = enum.auto()
    #: the user may not list or watch it
    FORBIDDEN = enum.auto()
    #: its definition is not installed
    MISSING = enum.auto()


@dataclasses.dataclass(slots=True)
class Feed:
    """What is known of one kind. `namespace`: the only one that is watched; None: all, or a cluster-scoped kind."""

    resource: kinds.Resource
    namespace: str | None = None
    state: State = State.LOADING
    #: when what is known was last seen to be current
    as_of: datetime.datetime | None = None
    #: a complete list has come in
    complete: bool = False
    #: another namespace's objects exist perhaps, and may not be read
    narrowed: bool = False
    #: HTTP status of the refusal, if it is forbidden
    refusal: int = 0
    _trying_since: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is something to show: all of it, or what has come in so far."""
        return self.as_of is not None

    @property
    def settled(self) -> bool:
        """Nothing more is to be waited for before a first page."""
        return self.complete or self.state is not State.LOADING

    def begin(self, now_monotonic: float) -> None:
        """A list or watch begins."""
        self._trying_since = now_monotonic

    def fail(self, error: errors.ApiError) -> None:
        self._trying_since = None
        if isinstance(error, errors.Forbidden):
            self.state, self.refusal = State.FORBIDDEN, error.status
            # what was known may not be shown any more
            self.as_of, self.complete = None, False
        elif isinstance(error, errors.NotFound):
            self.state = State.MISSING
        elif isinstance(error, errors.Unreachable):
            self.doubt()

    def doubt(self) -> None:
        """The API server does not answer: what is known may have changed. That a kind is forbidden stays true."""
        if self.state in (State.LOADING, State.LIVE):
            self.state = State.LOST

    def receive(self, now: datetime.datetime) -> None:
        """Something of it has come in."""
        self.as_of = now
        if self.state is not State.LIVE:
            self.state = State.LIVE if self.complete else State.LOADING

    def completed(self, now: datetime.datetime) -> None:
        self.complete = True
        self.receive(now)

    def answered(self, now: datetime.datetime, now_monotonic: float) -> None:
        """The API server has just answered something else: an open watch would have brought every change."""
        since = self._trying_since
        if self.complete and since is not None and now_monotonic - since >= OPEN_SECONDS:
            self.receive(now)


def lost_since(feeds: list[Feed]) -> datetime.datetime | None:
    """The oldest moment of which a page tells; None: all that may be read is live, or nothing was ever known."""
    return min((feed.as_of for feed in feeds if feed.state is State.LOST and feed.as_of is not None), default=None)


def unreachable(feeds: list[Feed]) -> bool:
    return any(feed.state is State.LOST for feed in feeds)


def notes(feeds: list[Feed]) -> list[str]:
    """What a reader has to know about what is not shown: one sentence for each kind."""
    found = []
    for feed in feeds:
        plural = feed.resource.plural
        where = f" in namespace {feed.namespace}" if feed.namespace else ""
        if feed.state is State.FORBIDDEN and feed.refusal == 401:
            found.append(f"The cluster does not accept your credentials (401): no {plural} are shown.")
        elif feed.state is State.FORBIDDEN:
            found.append(f"You may not list and watch {plural}{where} (403): none of them is shown.")
        elif feed.state is State.MISSING:
            found.append(f"The cluster serves no {plural}: the operator's definitions are not installed.")
        elif feed.narrowed:
            found.append(f"You may read {plural}{where} only: those of other namespaces are not shown.")
        elif feed.state is State.LOADING:
            found.append(f"{plural} are being loaded: the numbers still grow.")
    return found
