"""The files in a pool, derived from the API alone: placements, templates and the agents' reports. Pure.

`inventory` reads the objects and prints the result.
"""

import dataclasses
import enum
import os.path
from collections.abc import Iterable, Mapping, Sequence

from directdownload.cli import units
from directdownload.planning import pools as pool_planning
from directdownload.resources.host import Host, HostStorage, UnplacedFile
from directdownload.resources.naming import WORK_DIRECTORY
from directdownload.resources.storagepool import StoragePool
from directdownload.resources.template import Template
from directdownload.resources.templateplacement import Phase, TemplatePlacement


class State(enum.StrEnum):
    PLACED = "Placed"
    #: published, no placement names it, its Template exists: deploying the Template again finds the file
    RETAINED = "Retained"
    #: published, its Template is gone
    ORPHANED = "Orphaned"
    PARTIAL = "Partial"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """`file` is relative to the pool's path; `template` is `namespace/name`, or the uid if the Template is gone."""

    host: str
    file: str
    state: State
    size_bytes: int | None
    phase: Phase | None
    template: str


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    entries: Sequence[Entry]
    #: whole sentences on why entries may be missing
    notes: Sequence[str]


def listing(
    pool: StoragePool,
    hosts: Iterable[Host],
    placements: Iterable[TemplatePlacement],
    templates: Iterable[Template],
    only_host: str | None = None,
) -> Listing:
    """The files on all hosts that have `pool`, or on `only_host`. A file in a shared pool is listed once."""
    names = {template.metadata.uid: f"{template.metadata.namespace}/{template.name}" for template in templates}
    members = sorted(pool_planning.hosts_of(pool, hosts), key=lambda host: host.name)
    entries = {
        (entry.host, entry.file): entry
        for placement in placements
        if (entry := _of_placement(placement)) is not None and only_host in (None, entry.host)
    }
    placed = {file for _, file in entries} if pool.spec.shared else set()
    notes = []
    for host in members:
        if only_host not in (None, host.name):
            continue
        facts = pool_planning.facts(pool, host)
        notes += _notes(pool, host, facts)
        for file in facts.unplaced if facts is not None else ():
            if file.name not in placed and (host.name, file.name) not in entries:
                entries[host.name, file.name] = _of_unplaced(host, file, names)
        if pool.spec.shared:
            placed |= {file for _, file in entries}
    return Listing(sorted(entries.values(), key=lambda entry: (entry.host, entry.file)), notes)


def _of_placement(placement: TemplatePlacement) -> Entry | None:
    """The placement's file; None if no file is known."""
    spec, status = placement.spec, placement.status
    template = f"{spec.template_ref.namespace}/{spec.template_ref.name}"
    if status.file is not None and (status.observed is None or status.observed.present is not False):
        size_bytes = status.file.size_bytes
        return Entry(spec.host, os.path.basename(spec.path), State.PLACED, size_bytes, status.phase, template)
    if status.progress is not None and status.progress.bytes_downloaded and status.phase is not Phase.READY:
        part = f"{WORK_DIRECTORY}/{spec.template_ref.uid}.{spec.host}.part"
        return Entry(spec.host, part, State.PARTIAL, status.progress.bytes_downloaded, status.phase, template)
    return None


def _of_unplaced(host: Host, file: UnplacedFile, names: Mapping[str, str]) -> Entry:
    uid = os.path.basename(file.name).partition(".")[0]
    published = State.RETAINED if uid in names else State.ORPHANED
    state = State.PARTIAL if file.state == "Partial" else published
    return Entry(host.name, file.name, state, file.size_bytes, None, names.get(uid, uid))


def _notes(pool: StoragePool, host: Host, facts: HostStorage | None) -> list[str]:
    if facts is not None and facts.reason is not None and facts.unplaced_bytes is None:
        return [f"{host.name}: the pool is not usable ({facts.reason}); its files are not known."]
    if facts is None or facts.unplaced_bytes is None:
        return [f"{host.name}: its agent has not reported its files yet; only placed files are listed."]
    rest = facts.unplaced_bytes - sum(file.size_bytes or 0 for file in facts.unplaced)
    if rest > 0:
        return [
            f"{host.name}: only the {len(facts.unplaced)} largest files without a placement are listed; "
            f"the others take {units.size(rest)}."
        ]
    return []
