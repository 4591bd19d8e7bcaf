"""Which piece a client fetches next, and from which parent. Pure: no clock, no threads, no I/O.

The client calls it under its lock, and tells it each piece that it has checked and each change that a parent announces.
It chooses a random piece from a random parent, since hosts that choose alike have nothing to give each other, and first
of all a piece that one parent alone has: the Seed's uplink must never wait. The piece is among the first missing ones
only, since the file's hash follows in order and reads from disk what is far ahead.

It promises:

- A piece has one writer: a piece in flight is chosen by nobody else until `give_back`, `have` or `lost`.
- A parent has one piece in flight, and all parents together at most `in_flight`.
- What a parent announces is only its word. A lie about pieces costs one request each, and a piece that does not exist
  is never chosen.
"""

import random
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from directdownload.peer import maps

WINDOW = 64
#: as many as a server gives at once: each uplink then has as much to do as each downlink
IN_FLIGHT = 3
#: The pieces after the last hashed one that may be fetched, in windows: how much the hash may have to read back.
_AHEAD = 4

Parent = TypeVar("Parent", bound=Hashable)


class Choice(Generic[Parent]):
    """The missing pieces of one file, those in flight, and what each parent has."""

    def __init__(self, pieces: int, rng: random.Random, window: int = WINDOW, in_flight: int = IN_FLIGHT) -> None:
        """`pieces`: of the file, or the most that it may have while its size is not known (see `end`)."""
        self.pieces = pieces
        self.in_flight = in_flight
        self._rng = rng
        self._window = window
        self._follow = 0
        self._missing = maps.full(pieces)
        self._maps: dict[Parent, int] = {}
        self._aside: set[Parent] = set()
        self._flights: dict[int, Parent] = {}
        self._flying = 0
        self._seen = 0
        #: the pieces that may be chosen, but for those in flight; None: not known yet
        self._next: int | None = None

    @property
    def complete(self) -> bool:
        return not self._missing

    @property
    def missing(self) -> int:
        """The number of pieces that are not verified."""
        return self._missing.bit_count()

    @property
    def offered(self) -> int:
        """The number of missing pieces that some parent announces now."""
        return (self._union() & self._missing).bit_count()

    @property
    def known(self) -> int:
        """The number of pieces that were ever verified here or announced by any parent: it never falls.

        One lie lets it stand still for ever, so progress is also each piece that is verified.
        """
        return (self._seen & maps.full(self.pieces)).bit_count()

    def first_missing(self) -> int | None:
        return None if self.complete else maps.first(self._missing)

    def first_unoffered(self) -> int | None:
        """The first missing piece that no parent announces and nobody fetches: a Seed reads it from the origin."""
        found = self._missing & ~self._flying & ~self._union()
        return maps.first(found) if found else None

    def end(self, pieces: int) -> None:
        """The size of the file is known now, and with it the number of pieces, which may only be lower."""
        self.pieces = min(self.pieces, pieces)
        self._missing &= maps.full(self.pieces)
        self._next = None

    def have(self, index: int) -> None:
        """A piece is on disk and verified, wherever it came from."""
        if 0 <= index < self.pieces:
            self.give_back(index)
            self._missing &= ~(1 << index)
            self._seen |= 1 << index
            self._next = None

    def lost(self, index: int) -> None:
        """A piece that was verified is not right any more: it is missing again."""
        if 0 <= index < self.pieces:
            self.give_back(index)
            self._missing |= 1 << index
            self._next = None

    def follow(self, index: int) -> None:
        """`index`: the first piece that the file's hash has not passed. It must be told as the hash goes on."""
        if index != self._follow:
            self._follow = index
            self._next = None

    def announce(self, parent: Parent, add: Iterable[int] = (), drop: Iterable[int] = ()) -> None:
        """A parent has these pieces, and no longer those. An empty announcement makes a parent known."""
        added = maps.of(add, self.pieces)
        self._seen |= added
        self._maps[parent] = (self._maps.get(parent, 0) & ~maps.of(drop, self.pieces)) | added

    def forget(self, parent: Parent) -> None:
        """A parent is gone with all that it announced. Its piece in flight is for the caller to give back."""
        self._maps.pop(parent, None)
        self._aside.discard(parent)

    def set_aside(self, parent: Parent) -> None:
        """Choose nothing from a parent, which is slow or asked us to wait; its announcements still count."""
        self._aside.add(parent)

    def take_up(self, parent: Parent) -> None:
        """The end of `set_aside`."""
        self._aside.discard(parent)

    def next(self) -> tuple[Parent, int] | None:
        """A random parent that is idle, and a random piece of it, which is in flight from now; None: nothing to do."""
        found = self._choosable()
        if not found:
            return None
        busy = self._aside.union(self._flights.values())
        able = [parent for parent, has in self._maps.items() if has & found and parent not in busy]
        if not able:
            return None
        rare = self._rare(found)
        first = [parent for parent in able if self._maps[parent] & rare]
        if first:
            able, found = first, rare
        parent = able[int(self._rng.random() * len(able))]
        return parent, self._fly(parent, self._maps[parent] & found)

    def take(self, parent: Parent) -> int | None:
        """A random piece of this parent, which is in flight from now; None if there is none or it is not idle."""
        found = self._choosable()
        has = self._maps.get(parent, 0) & found
        return self._fly(parent, (has & self._rare(found)) or has) if has and self._idle(parent) else None

    def give_back(self, index: int) -> None:
        """A piece is not fetched any more, and its connection is closed: anybody may take it."""
        if self._flights.pop(index, None) is not None:
            self._flying &= ~(1 << index)

    def _fly(self, parent: Parent, found: int) -> int:
        index = maps.nth(found, int(self._rng.random() * found.bit_count()))
        self._flights[index] = parent
        self._flying |= 1 << index
        return index

    def _rare(self, found: int) -> int:
        """Of these pieces those that one parent alone announces."""
        once = more = 0
        for has in self._maps.values():
            near = has & found
            more |= once & near
            once |= near
        return once & ~more

    def _idle(self, parent: Parent) -> bool:
        return parent not in self._aside and parent not in self._flights.values()

    def _choosable(self) -> int:
        if len(self._flights) >= self.in_flight:
            return 0
        if self._next is None:
            near = self._missing & maps.full(min(self.pieces, self._follow + _AHEAD * self._window))
            self._next = maps.first_of(near, self._window)
        return self._next & ~self._flying

    def _union(self) -> int:
        found = 0
        for has in self._maps.values():
            found |= has
        return found
