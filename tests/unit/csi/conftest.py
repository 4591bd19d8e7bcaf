"""Each test has a host with directories of its own."""

import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from tests.world.csi_world import Host


@pytest.fixture
def host() -> Iterator[Host]:
    # pytest's own directories have names that are too long for sockets
    directory = pathlib.Path(tempfile.mkdtemp(prefix="csi-", dir="/tmp"))
    found = Host(directory)
    found.prepare()
    yield found
    shutil.rmtree(directory)
