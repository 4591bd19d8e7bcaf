"""A heat map: one cell per host, grouped by a label of the hosts, readable at 5,000 of them. Pure.

A cell is a word, a sign and a colour: the sign tells it without the colour, the word without either. Cells change one
by one on a live page; only a change of hosts or groups makes a new map (`structure`).
"""

import collections
import dataclasses
import functools
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from directdownload.dashboard import texts
from directdownload.dashboard.copies import Copy
from directdownload.planning.observed import ObservedHost
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase

#: A label with more values groups nothing.
MOST_GROUPS = 200
#: Of the name: the label that groups if the reader has chosen none, the first that there is.
_USUAL = ("rack", "topology.kubernetes.io/zone")
_NO_LABEL = "(without the label)"


class Look(NamedTuple):
    sign: str
    word: str
    #: class of the cell: its colour
    style: str


#: code → how it looks; the codes are what a live page is sent
LOOKS: dict[str, Look] = {
    "f": Look("✕", "Failed", "failed"),
    "t": Look("!", "Failed, to be tried again", "retrying"),
    **{f"d{tenth}": Look(str(tenth), f"Downloading, {tenth} of 10", "active") for tenth in range(10)},
    "d": Look("↓", "Downloading", "active"),
    "w": Look("▽", "Host is Down", "down"),
    "p": Look("·", "Pending", "waiting"),
    "m": Look("-", "Removing", "waiting"),
    "u": Look("?", "Unknown", "unknown"),
    "l": Look("…", "Not loaded yet", "unknown"),
    "n": Look("○", "No copy of its own", "none"),
    "r": Look("✓", "Ready", "done"),
    # hosts
    "up": Look("✓", "Up", "done"),
    "dn": Look("▽", "Down", "down"),
    "mt": Look("‖", "Maintenance", "waiting"),
    # proofs of a certificate
    "cu": Look("✓", "Uploaded", "done"),
    "cr": Look("-", "Revoked", "done"),
    "cf": Look("✕", "Failed", "failed"),
    "cs": Look("▽", "Skipped: the host is Down", "down"),
    "cp": Look("·", "Pending", "waiting"),
}
#: Of several copies on one host the first of these is shown.
_WORST = {code: rank for rank, code in enumerate(LOOKS)}
_OF_PHASE = {
    Phase.READY: "r",
    Phase.FAILED: "f",
    Phase.PENDING: "p",
    Phase.REMOVING: "m",
    Phase.DOWNLOADING: "d",
    Phase.UNKNOWN: "u",
}


class Group(NamedTuple):
    name: str
    hosts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """`cells`: code by host; `label` groups, of `choices`; empty: one group."""

    groups: tuple[Group, ...]
    cells: Mapping[str, str]
    label: str
    choices: tuple[str, ...]

    @property
    def structure(self) -> tuple[Group, ...]:
        return self.groups

    @functools.cached_property
    def legend(self) -> list[tuple[Look, int]]:
        """Each look with its number of cells; downloads are one."""
        counts = collections.Counter(
            code[0] if code[0] == "d" and code != "dn" else code for code in self.cells.values()
        )
        return [(LOOKS[code], counts[code]) for code in LOOKS if counts[code]]

    @functools.cached_property
    def markup(self) -> str:
        """The map as HTML; names of hosts and groups are hostile. Not by a template: there are thousands of cells."""
        return "".join(map(self._group, self.groups))

    def _group(self, group: Group) -> str:
        cells = "".join(cell(host, self.cells[host]) for host in group.hosts)
        name = html.escape(texts.shown(group.name))
        heading = f'<h3>{name} <span class="quiet">{len(group.hosts)}</span></h3>' if self.label else ""
        return f'<section class="rack">{heading}<ul class="cells">{cells}</ul></section>'


@functools.lru_cache(maxsize=16384)
def _named(host: str) -> tuple[str, str]:
    """Its name and the address of its page, as HTML."""
    return html.escape(texts.shown(host)), html.escape(texts.path("hosts", host))


def cell(host: str, code: str) -> str:
    (name, address), look = _named(host), LOOKS[code]
    return (
        f'<li><a class="cell {look.style}" href="{address}" data-host="{name}" aria-label="{name}: {look.word}" '
        f'title="{name}: {look.word}">{look.sign}</a></li>'
    )


def build(
    cells: Mapping[str, str],
    hosts: Mapping[str, ObservedHost] | None,
    labels: Mapping[str, collections.Counter[str]],
    by: str | None,
) -> HeatMap:
    """`hosts`: those whose labels are known; `by`: the label that groups; None: the usual one; empty: none."""
    choices = tuple(sorted(key for key, values in labels.items() if 2 <= len(values) <= MOST_GROUPS))
    label = _usual(choices) if by is None else by if by in choices else ""
    groups: dict[str, list[str]] = {}
    for host in sorted(cells):
        known = hosts.get(host) if hosts is not None and label else None
        group = known.metadata.labels.get(label, _NO_LABEL) if known is not None else _NO_LABEL
        groups.setdefault(group, []).append(host)
    ordered = tuple(Group(name, tuple(groups[name])) for name in sorted(groups))
    return HeatMap(ordered, cells, label, choices)


def of_copies(copies: Iterable[Copy], expected: Iterable[str], loading: bool) -> dict[str, str]:
    """Code by host: of the worst of its copies. `expected` hosts should have one; `loading`: copies still come in."""
    cells = dict.fromkeys(expected, "l" if loading else "n")
    for copy in copies:
        code, held = code_of(copy), cells.get(copy.host, "n")
        if held in ("n", "l") or _WORST[code] < _WORST[held]:
            cells[copy.host] = code
    return cells


def code_of(copy: Copy) -> str:
    if copy.retrying:
        return "t"
    if copy.phase is Phase.PENDING and copy.reason == Reason.HOST_DOWN:
        return "w"
    if copy.phase is Phase.DOWNLOADING and copy.percent is not None:
        return f"d{min(9, copy.percent // 10)}"
    return _OF_PHASE[copy.phase]


def _usual(choices: Sequence[str]) -> str:
    return next((key for usual in _USUAL for key in choices if key.endswith(usual)), "")
