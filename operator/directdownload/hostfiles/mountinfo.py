"""The mount of a path, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

Used by the job and by the agent, which must agree on what a mounted pool is. Lookups follow parent and child mounts, as
the kernel resolves paths: the table also lists hidden mounts, which a comparison of path prefixes would find.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

MOUNTINFO = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """`options` are those of this mount, `super_options` those of the file system behind all its mounts.

    What is mounted below a `shared` one appears in other mount namespaces as well.
    """

    id: int
    parent: int
    root: str
    point: str
    options: frozenset[str]
    type: str
    source: str
    super_options: frozenset[str]
    shared: bool


def read() -> tuple[Mount, ...]:
    """The mounts of this process. Never waits for a file system: the kernel answers from memory."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return parse(file)


def parse(lines: Iterable[str]) -> tuple[Mount, ...]:
    """Parse the table; lines that are not of the documented form are left out."""
    mounts = (_parse_line(line) for line in lines)
    return tuple(mount for mount in mounts if mount is not None)


def covering(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The mount that `path` (absolute, without links) is looked up on; None if the table has no root."""
    ids = {mount.id for mount in mounts}
    tops = [mount for mount in mounts if mount.point == "/" and (mount.parent not in ids or mount.parent == mount.id)]
    if not tops:
        return None
    current, seen = tops[-1], set[int]()
    while current.id not in seen:
        seen.add(current.id)
        children = [m for m in mounts if m.parent == current.id and m.id not in seen and below(path, m.point)]
        if not children:
            return current
        # A path is resolved from the left: the first mount point in it is entered, and hides all mounts after it.
        current = min(children, key=lambda mount: len(mount.point))
    return current


def below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def root_of(path: str, roots: Iterable[str]) -> str | None:
    """The innermost of `roots` that `path` equals or is below."""
    return max((root for root in roots if below(path, root)), key=len, default=None)


def is_pool_mount(mount: Mount | None, path: str, root: str | None) -> bool:
    """Whether `mount`, on which `path` (without links) is looked up, is a separate mount for a pool below `root`.

    The root's own mount does not count: every pod has it, even if the host has mounted nothing. None allows any root.
    """
    return (
        mount is not None
        and mount.point == path
        and mount.type != "autofs"
        and (root is None or (path != root and below(path, root)))
    )


def _parse_line(line: str) -> Mount | None:
    before, separator, after = line.rstrip("\n").partition(" - ")
    first, last = before.split(" "), after.split(" ")
    if not separator or len(first) < 6 or len(last) < 3 or not (first[0].isdecimal() and first[1].isdecimal()):
        return None
    return Mount(
        id=int(first[0]),
        parent=int(first[1]),
        root=_unescape(first[3]),
        point=_unescape(first[4]),
        options=frozenset(first[5].split(",")),
        type=last[0],
        source=_unescape(last[1]),
        super_options=frozenset(last[2].split(",")),
        shared=any(field.startswith("shared:") for field in first[6:]),
    )


def _unescape(text: str) -> str:
    """Decode the octal escapes of space, tab, line feed and backslash."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
