"""A swarm: the copies of one Template in one zone, prepared so that a decision about one of them looks at a few.

`controller/swarms.py` fills it from the placements that exist, and asks it; `peers` has the rules. No I/O, no clock.
"""

import bisect
import collections
import datetime
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import overload

from directdownload.planning import peers
from directdownload.planning.observed import FileView, PlacementView
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, Role

#: Failed attempts of a copy before another one is the Seed.
_TRIES = 2
#: The last Seed is the next one as well, as it has most of the file, if its pause ends within this time.
_SHORT = datetime.timedelta(seconds=30)
#: How long a copy that was asked to start may take before it is asked again.
_PATIENCE = datetime.timedelta(seconds=60)
#: Copies looked at, at most, in one search: each look at a host and its slots costs tens of microseconds.
LOOKS = 256
#: After a search through all of them that found nothing.
_REST = datetime.timedelta(seconds=1)
_NEVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

#: Rounds of failures, place in the order of hosts, name.
_Turn = tuple[int, int, str]
Judge = Callable[[PlacementView], bool]


class Hosts(Sequence[str]):
    """The hosts of some copies, in any order; one is added, taken away or drawn at once, however many there are."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str]] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [host for _, host in self._entries[index]]
        return self._entries[index][1]

    def add(self, key: str, host: str) -> None:
        """The copy `key` on `host`; it is not there yet."""
        self._places[key] = len(self._entries)
        self._entries.append((key, host))

    def remove(self, key: str) -> None:
        """It is no error if it is not there."""
        place = self._places.pop(key, None)
        if place is not None:
            last = self._entries.pop()
            if place < len(self._entries):
                self._entries[place] = last
                self._places[last[0]] = place


class _Search:
    """Looks for a copy that suits, at a few at a time: the next time it goes on from there."""

    def __init__(self) -> None:
        self._from = 0
        self._rests_until = _NEVER

    def first(self, keys: Iterable[str], suits: Callable[[str], bool], now: datetime.datetime) -> str:
        """Empty: none was found this time."""
        if now < self._rests_until:
            return ""
        looked = list(itertools.islice(keys, self._from, self._from + LOOKS))
        found = next(filter(suits, looked), "")
        ended = len(looked) < LOOKS
        self._from = 0 if found or ended else self._from + LOOKS
        if ended and not found:
            self._rests_until = now + _REST
        return found


class Swarm:
    """Follows the placements of one Template in one zone."""

    def __init__(self, template_uid: str, zone: str) -> None:
        self.template_uid, self.zone = template_uid, zone
        self._views: dict[str, PlacementView] = {}
        self._turns: dict[str, _Turn] = {}
        #: of the copies that are Pending
        self._line: list[_Turn] = []
        #: copies that are Ready, without records that they could have
        self._unrecorded: dict[str, None] = {}
        #: copies that are Ready, with records
        self._recorded: dict[str, None] = {}
        self._contents: collections.Counter[str] = collections.Counter()
        self._archives = self._refuted = 0
        self._notations: tuple[str, Mapping[str, peers.Content]] = ("", {})
        self._last_seed = self._chosen = self._asked = self._recorder = self._server = ""
        self._rounds = 0
        self._asked_at = _NEVER
        self._recorders, self._seeds = _Search(), _Search()
        #: copies of which a verification has recorded nothing
        self._barren: set[str] = set()
        self.wanting, self.ahead = Hosts(), Hosts()
        #: copies that wait for a Seed
        self.waiting: dict[str, None] = {}
        #: the highest that is known
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._views)

    def take(self, old: PlacementView | None, new: PlacementView | None) -> None:
        """One placement came (no `old`), changed, or is gone (no `new`)."""
        if old is not None:
            self._drop(old)
        if new is not None:
            self._add(new)

    def _drop(self, view: PlacementView) -> None:
        if self._views.pop(view.key, None) is None:
            return
        turn = self._turns.pop(view.key)
        place = bisect.bisect_left(self._line, turn)
        if place < len(self._line) and self._line[place] == turn:
            del self._line[place]
        for copies in (self._unrecorded, self._recorded):
            copies.pop(view.key, None)
        self.wanting.remove(view.key)
        self.ahead.remove(view.key)
        self._count(view, -1)

    def _add(self, view: PlacementView) -> None:
        self._views[view.key] = view
        turn = (view.recent_failures // _TRIES, peers.turn(self.template_uid, view.host), view.key)
        self._turns[view.key] = turn
        self._count(view, 1)
        told = view.peers
        if told is not None:
            self.epoch = max(self.epoch, told.distrusted_epoch or 0)
            if told.role is Role.SEED:
                self._last_seed = view.key
        file = view.file if view.phase is Phase.READY else None
        recorded = file is not None and file.content is not None
        if view.deleting or view.phase in (Phase.REMOVING, Phase.UNKNOWN):
            self.forget(view.key)
            return
        if view.phase in (None, Phase.PENDING):
            bisect.insort(self._line, turn)
        elif recorded:
            self._recorded[view.key] = None
        elif file is not None and not _unpacked(file):
            self._unrecorded[view.key] = None
        if recorded or view.phase not in (Phase.READY, Phase.FAILED):
            self.wanting.add(view.key, view.host)
        shares = told is not None and told.role is not Role.ORIGIN
        if recorded or (view.counted is Phase.DOWNLOADING and shares):
            self.ahead.add(view.key, view.host)

    def _count(self, view: PlacementView, number: int) -> None:
        if view.phase is Phase.READY and view.file is not None:
            self._archives += number * _unpacked(view.file)
            if view.file.content is not None:
                self._contents[view.file.content] += number
        seed = view.peers is not None and view.peers.role is Role.SEED
        self._refuted += number * (view.phase is Phase.FAILED and seed)

    def forget(self, key: str) -> None:
        """The copy no longer waits, nor is it known to record nothing."""
        self.waiting.pop(key, None)
        self._barren.discard(key)

    def barren(self, key: str) -> None:
        """A verification of the copy has recorded nothing: others have their turn."""
        self._barren.add(key)

    @property
    def refuted(self) -> bool:
        return self._refuted >= peers.REFUTED

    @property
    def archived(self) -> bool:
        """Whether copies show that the source serves an archive; one host alone shows it for itself only."""
        return self._archives >= peers.REFUTED and not self._contents.total()

    def view(self, key: str) -> PlacementView | None:
        return self._views.get(key)

    def server(self, usable: Judge) -> str:
        """A copy with records that is `usable`: the same one while it is; empty: none."""
        if self._server not in self._recorded or not usable(self._views[self._server]):
            self._server = next((key for key in self._recorded if usable(self._views[key])), "")
        return self._server

    def content(self, template: Template, jobs: Callable[[str], int] = lambda _: 0) -> peers.Content | None:
        """The content of new jobs; None: the file cannot be shared. `jobs`: how many exist for a content, by its id."""
        checksum = peers.checksum_of(template)
        if not checksum or self.archived:
            return None
        if self._notations[0] != checksum:
            self._notations = checksum, peers.notations(self.template_uid, checksum)
        notations = self._notations[1]
        known = {each: self._contents[each] + jobs(each) for each in notations}
        return peers.content_of(template, notations, known)

    def recorder(self, able: Judge, now: datetime.datetime) -> str:
        """The copy without records that is to be verified for them: the same one while it is `able`; empty: none."""

        def suits(key: str) -> bool:
            view = self._views[key]
            return key not in self._barren and not _paused(view, now) and able(view)

        if self._recorder in self._unrecorded and suits(self._recorder):
            return self._recorder
        self._recorder = self._recorders.first(self._unrecorded, suits, now)
        return self._recorder

    def next_seed(self, able: Judge, now: datetime.datetime) -> str:
        """The copy that is to read the source: the last Seed for a while, then one after the other; empty: none.

        It stays the same while it is `able`, which says whether its job could start now.
        """
        last, chosen = self._pending(self._last_seed), self._pending(self._chosen)
        if last is not None and last.recent_failures < _TRIES and not _paused(last, now + _SHORT) and able(last):
            return last.key
        stays = chosen is not None and self._turns[chosen.key][0] == self._rounds and not _paused(chosen, now)
        if chosen is not None and stays and able(chosen):
            return chosen.key

        def suits(key: str) -> bool:
            view = self._views[key]
            return not _paused(view, now) and able(view)

        self._chosen = self._seeds.first((key for _, _, key in self._line), suits, now)
        self._rounds = self._turns[self._chosen][0] if self._chosen else 0
        return self._chosen

    def _pending(self, key: str) -> PlacementView | None:
        view = self._views.get(key)
        return view if view is not None and view.phase in (None, Phase.PENDING) and not view.deleting else None

    def ask(self, key: str, now: datetime.datetime) -> bool:
        """Whether `key`, the next Seed or recorder, is to be asked to start: not if it was asked a moment ago."""
        if not key or (key == self._asked and now < self._asked_at + _PATIENCE):
            return False
        self._asked, self._asked_at = key, now
        return True

    def asked(self) -> None:
        """A Seed exists: the next one is asked anew."""
        self._asked = ""


def _unpacked(file: FileView) -> bool:
    """Whether it was unpacked from an archive, whose pieces the host does not have."""
    return file.served_bytes is not None


def _paused(view: PlacementView, now: datetime.datetime) -> bool:
    return view.next_attempt_time is not None and view.next_attempt_time > now
