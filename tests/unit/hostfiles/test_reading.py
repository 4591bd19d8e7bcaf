"""What somebody put under a name decides nothing: it is read if it is a file of a usual size."""

import os
import pathlib
import subprocess
import sys

import pytest
from tests.world import checkout

from directdownload.hostfiles import reading


def test_a_file_is_read_up_to_the_limit_and_one_byte_more_is_too_much(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    found = reading.read(str(path), 100)
    assert (found.data, reading.stamp(found.status)) == (b"x" * 100, reading.stamp(path.stat()))
    with pytest.raises(reading.TooLargeError):
        reading.read(str(path), 99)


@pytest.mark.parametrize(("size", "is_read"), [(0, True), (65_536, True), (65_537, False)])
def test_a_small_file_has_at_most_64_kib(tmp_path: pathlib.Path, size: int, is_read: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    assert reading.read_small(str(path)) == (bytes(size) if is_read else None)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "device", "missing"])
def test_nothing_but_a_file_is_read_and_none_is_waited_for(tmp_path: pathlib.Path, kind: str) -> None:
    path, descriptors = tmp_path / "file", len(os.listdir("/proc/self/fd"))
    (tmp_path / "secret").write_bytes(b"secret")
    if kind == "link":
        path.symlink_to("secret")
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = pathlib.Path("/dev/zero")
    assert reading.read_small(str(path)) is None
    with pytest.raises(OSError, match=r"not a regular file|No such file|symbolic links"):
        reading.read(str(path), 100)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_child_for_a_pool_loads_no_models() -> None:
    """There is one for each pool, and models take 20 MiB in each."""
    program = "import sys, directdownload.agent.pools.prober; print('pydantic' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=checkout.environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
