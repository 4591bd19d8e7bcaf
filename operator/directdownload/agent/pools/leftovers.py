"""The files in a pool's work directory, and which of them belong to no placement. Pure.

`monitor` passes the listing of the pool's worker; `prober.sweep` removes old leftovers. Published files and files
outside the work directory are never removed, because nobody has ordered that.
"""

import dataclasses
import datetime
from collections.abc import Container, Iterable, Mapping, Sequence

from directdownload import escaping
from directdownload.agent.copies import Key, OwnerOf
from directdownload.agent.pools.prober import LOCK_SUFFIX, PART_SUFFIX
from directdownload.resources import quantities
from directdownload.resources.host import UNPLACED_LIMIT, UnplacedFile
from directdownload.resources.naming import JOURNAL_SUFFIX, PIECES_SUFFIX, RECORD_SUFFIX, WORK_DIRECTORY
from directdownload.resources.templateplacement import Phase

#: A template is unpacked into a file with this suffix, before it gets its name.
OUT_SUFFIX = ".out"
_TEMPORARY_SUFFIX = ".tmp"
SUFFIXES = (PART_SUFFIX, OUT_SUFFIX, JOURNAL_SUFFIX, PIECES_SUFFIX, RECORD_SUFFIX, LOCK_SUFFIX, _TEMPORARY_SUFFIX)
#: Suffixes of one attempt's files, in the order of removal: the journal before the bytes that it describes.
_OF_ATTEMPT = (
    *(JOURNAL_SUFFIX, JOURNAL_SUFFIX + _TEMPORARY_SUFFIX),
    *(PIECES_SUFFIX, PIECES_SUFFIX + _TEMPORARY_SUFFIX, OUT_SUFFIX, PART_SUFFIX),
)
_BYTES = (OUT_SUFFIX, PART_SUFFIX)
_OF_RECORD = (RECORD_SUFFIX, RECORD_SUFFIX + _TEMPORARY_SUFFIX, LOCK_SUFFIX)
#: Files that changed within this time may be in use, although no process holds them.
IDLE_SECONDS = 60
#: Leftovers are removed at this age.
SWEEP_SECONDS = 86_400
_NEEDS_PART = (Phase.PENDING, Phase.DOWNLOADING, Phase.FAILED)


@dataclasses.dataclass(frozen=True, slots=True)
class Leftover:
    """Files that belong together: those of one attempt, or a single one."""

    names: tuple[str, ...]
    #: by name; allocated bytes, not the length
    size_bytes: Mapping[str, int]
    #: the youngest change, seconds of the epoch
    modified: float
    #: the file that a download holds locked while it changes them
    lock: str
    held: bool = False
    #: an attempt's host; else empty
    host: str = ""
    #: an attempt's, from its journal; None: there is no readable journal
    placement: Key | None = None
    #: a record whose file or placement still exists
    needed_record: bool = False

    @property
    def of_attempt(self) -> bool:
        return self.lock.endswith(PART_SUFFIX)


def group(
    listed: Mapping[str, Sequence[float]], journals: Mapping[str, Key], empty_records: Container[str]
) -> list[Leftover]:
    """Groups files. `listed`: allocated bytes, mtime and held, by name. `journals`: placements of readable journals.

    A piece log beside a record is one of the published file.
    """
    stems: dict[str, list[str]] = {}
    found = []
    sizes = {name: int(entry[0]) for name, entry in listed.items()}
    for name, (_, modified, held) in listed.items():
        if name.endswith(PIECES_SUFFIX) and name.partition(".")[0] + RECORD_SUFFIX in listed:
            continue
        if (suffix := _suffix(name, _OF_ATTEMPT)) is not None:
            stems.setdefault(name.removesuffix(suffix), []).append(suffix)
        elif (suffix := _suffix(name, _OF_RECORD)) is not None:
            needed = suffix == RECORD_SUFFIX and name not in empty_records
            lock = name.removesuffix(suffix) + LOCK_SUFFIX
            found.append(Leftover((name,), {name: sizes[name]}, modified, lock, bool(held), needed_record=needed))
    for stem, suffixes in stems.items():
        names = tuple(stem + suffix for suffix in sorted(suffixes, key=_OF_ATTEMPT.index))
        found.append(
            Leftover(
                names,
                {name: sizes[name] for name in names},
                max(listed[name][1] for name in names),
                stem + PART_SUFFIX,
                held=any(listed[name][2] for name in names),
                host=stem.partition(".")[2],
                placement=journals.get(stem + JOURNAL_SUFFIX),
            )
        )
    return found


def nobodys(leftover: Leftover, owner_of: OwnerOf) -> bool:
    """Whether the leftover belongs to nobody: no process holds it, and its owner is known not to need it.

    A Ready copy needs no part. On a shared pool the placement may have moved to another host, which has its own part.
    """
    if leftover.held or leftover.needed_record:
        return False
    if leftover.placement is None:
        return True
    owner = owner_of(leftover.placement)
    if owner is None:
        return False
    if not owner.exists or owner.phase == Phase.READY:
        return True
    return owner.host != leftover.host and owner.phase in ("", *_NEEDS_PART)


def partial(leftovers: Iterable[Leftover], owner_of: OwnerOf, now: float) -> list[UnplacedFile]:
    """Leftovers of ended downloads for the Host's status, with printable names."""
    return [
        UnplacedFile(
            name=escaping.escaped(f"{WORK_DIRECTORY}/{name}", escaping.NAME_LIMIT),
            size_bytes=min(leftover.size_bytes[name], quantities.LARGEST_INTEGER),
            state="Partial",
            modified_time=_time(leftover.modified),
        )
        for leftover in leftovers
        if leftover.of_attempt and now - leftover.modified >= IDLE_SECONDS and nobodys(leftover, owner_of)
        for name in leftover.names
        if name.endswith(_BYTES)
    ]


def swept(leftovers: Iterable[Leftover], owner_of: OwnerOf, now: float) -> list[Leftover]:
    """The leftovers to remove."""
    return [each for each in leftovers if now - each.modified >= SWEEP_SECONDS and nobodys(each, owner_of)]


def asked_for(leftovers: Iterable[Leftover], now: float) -> set[Key]:
    """The placements whose existence must be known."""
    return {
        each.placement
        for each in leftovers
        if each.placement is not None and not each.held and now - each.modified >= IDLE_SECONDS
    }


def report(files: Iterable[UnplacedFile]) -> tuple[tuple[UnplacedFile, ...], int]:
    """The largest files, for the Host's status, and the bytes of all."""
    ordered = sorted(files, key=lambda file: (-(file.size_bytes or 0), file.name))
    total = sum(file.size_bytes or 0 for file in ordered)
    return tuple(ordered[:UNPLACED_LIMIT]), min(total, quantities.LARGEST_INTEGER)


def _suffix(name: str, suffixes: Iterable[str]) -> str | None:
    return next((suffix for suffix in suffixes if name.endswith(suffix)), None)


def _time(seconds: float) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        # some file systems accept any number
        return None
