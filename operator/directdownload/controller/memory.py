"""How much memory this process may take: by its control group, and by the machine."""

import pathlib
from collections.abc import Iterator

_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_MEMINFO = pathlib.Path("/proc/meminfo")
#: Of version 2 and of version 1. In a container its own group is the root; a group of version 1 without a limit has one
#: of almost 2**63, above that of any machine.
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def limit_bytes(cgroups: pathlib.Path = _CGROUPS, meminfo: pathlib.Path = _MEMINFO) -> int:
    """Bytes: the least of the limits that can be read; 0 if none can."""
    return min([*_cgroup_bytes(cgroups), *_machine_bytes(meminfo)], default=0)


def _cgroup_bytes(cgroups: pathlib.Path) -> Iterator[int]:
    for name in _LIMITS:
        text = _read(cgroups / name).strip()
        # Without a limit version 2 says `max`.
        if text.isascii() and text.isdigit():
            yield int(text)


def _machine_bytes(meminfo: pathlib.Path) -> Iterator[int]:
    for line in _read(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            yield int(value.split()[0]) * 1024


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
