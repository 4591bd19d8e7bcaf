"""How long the event loop is kept at a time: between two looks at what has happened, nothing else gets its turn."""

import asyncio
import dataclasses
import selectors
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Seconds. `cpu` is of the loop's thread: other processes of a busy machine do not count."""

    cpu: float
    wall: float


class TimedSelector(selectors.DefaultSelector):
    """Reports each turn of its loop, from one look to the next, to `on_turn`."""

    def __init__(self, on_turn: Callable[[Turn], None]) -> None:
        super().__init__()
        self._on_turn = on_turn
        self._began: tuple[float, float] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._began is not None:
            cpu, wall = self._began
            self._on_turn(Turn(time.thread_time() - cpu, time.monotonic() - wall))
        found = super().select(timeout)
        self._began = time.thread_time(), time.monotonic()
        return found


class Longest:
    """The longest turn since the last `reset`, by CPU time."""

    def __init__(self) -> None:
        self.turn = Turn(0.0, 0.0)

    def note(self, turn: Turn) -> None:
        self.turn = max(self.turn, turn, key=lambda each: each.cpu)

    def reset(self) -> None:
        self.turn = Turn(0.0, 0.0)

    def loop(self) -> asyncio.SelectorEventLoop:
        return asyncio.SelectorEventLoop(TimedSelector(self.note))
