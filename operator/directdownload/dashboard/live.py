"""What a browser is sent of a page that it follows: the parts and cells that have changed since what it has. Pure.

Each change of a channel has a number, the id of its event. A browser that comes back says the last one that it has
(`Last-Event-ID`) and gets exactly what has changed since, however long ago that was: every part and cell remembers
the number of its last change, and no event is kept.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from directdownload.dashboard import texts
from directdownload.dashboard.views.heatmap import HeatMap

#: Milliseconds after which a browser that has lost the connection comes back.
RETRY_MILLISECONDS = 2000


@dataclasses.dataclass(slots=True)
class _Told:
    value: Any
    number: int


class Channel:
    """One page as browsers follow it. `run` names the process: numbers of another one mean nothing."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._number = 0
        self._parts: dict[str, _Told] = {}
        self._map = _Told(None, 0)
        self._heat: HeatMap | None = None
        self._cells: dict[str, _Told] = {}

    @property
    def version(self) -> str:
        return f"{self._run}-{self._number}"

    def update(self, parts: Mapping[str, str], heat: HeatMap | None) -> bool:
        """Takes the page as it is now. True if something has changed."""
        number = self._number + 1
        changed = _take(self._parts, parts, number)
        structure = (heat.structure, heat.label) if heat is not None else None
        cells = heat.cells if heat is not None else {}
        if structure != self._map.value:
            self._map, changed = _Told(structure, number), True
        self._heat = heat
        changed |= _take(self._cells, cells, number)
        if changed:
            self._number = number
        return changed

    def event(self, since: str) -> str:
        """The event that brings a browser from version `since` to this one; empty: it has everything.

        All of the page if `since` is none of this channel's.
        """
        run, _, text = since.rpartition("-")
        # int() raises for thousands of digits
        ours = run == self._run and text.isascii() and text.isdigit() and len(text) <= len(str(self._number))
        known = int(text) if ours else -1
        if known > self._number:
            known = -1
        if known == self._number:
            return ""
        change: dict[str, Any] = {"parts": {n: told.value for n, told in self._parts.items() if told.number > known}}
        if self._map.number > known and self._heat is not None:
            change["map"] = self._heat.markup
        else:
            cells: dict[str, list[str]] = {}
            for host, told in self._cells.items():
                if told.number > known:
                    cells.setdefault(told.value, []).append(texts.shown(host))
            change["cells"] = cells
        return f"id: {self.version}\nevent: change\ndata: {json.dumps(change, separators=(',', ':'))}\n\n"


def _take(held: dict[str, _Told], now: Mapping[str, str], number: int) -> bool:
    changed = False
    for gone in held.keys() - now.keys():
        del held[gone]
        changed = True
    for name, value in now.items():
        told = held.get(name)
        if told is None:
            held[name], changed = _Told(value, number), True
        elif told.value != value:
            told.value, told.number, changed = value, number, True
    return changed
