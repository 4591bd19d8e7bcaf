"""The memory that this process may take, as the kernel tells it."""

import pathlib

import pytest

from directdownload.controller import memory

MEMINFO = "MemTotal:       16303036 kB\nMemFree:  1 kB\n"
TOTAL = 16303036 * 1024


@pytest.mark.parametrize(
    ("files", "meminfo", "expected"),
    [
        ({"memory.max": "536870912\n"}, MEMINFO, 512 * 2**20),
        ({"memory.max": "max\n"}, MEMINFO, TOTAL),
        ({"memory/memory.limit_in_bytes": "268435456\n"}, MEMINFO, 256 * 2**20),
        # No limit, in version 1.
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MEMINFO, TOTAL),
        # More than the machine has.
        ({"memory.max": "99999999999999\n"}, MEMINFO, TOTAL),
        ({}, MEMINFO, TOTAL),
        ({"memory.max": "536870912\n"}, None, 512 * 2**20),
        ({"memory.max": "nonsense"}, None, 0),
        ({}, None, 0),
    ],
)
def test_the_least_limit_counts(
    tmp_path: pathlib.Path, files: dict[str, str], meminfo: str | None, expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    assert memory.limit_bytes(tmp_path, tmp_path / "meminfo") == expected


def test_this_machine_has_some() -> None:
    assert memory.limit_bytes() > 2**20
