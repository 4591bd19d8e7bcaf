"""A host that serves, one that reads, and a file that both may have."""

import dataclasses
import pathlib
from collections.abc import Iterator

import pytest
from tests.world.peers import MIB, Fleet, PeerHost, SharedFile


@dataclasses.dataclass(frozen=True)
class Pair:
    """`seed` serves `file`, of which it has no piece yet; `grant` is for `reader`."""

    fleet: Fleet
    seed: PeerHost
    reader: PeerHost
    file: SharedFile
    warrant: str
    grant: str


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> Iterator[Pair]:
    fleet = Fleet(tmp_path)
    seed, reader = fleet.host("kvm-1"), fleet.host("kvm-2.example.org")
    file = SharedFile.of(4 * MIB - 7)
    warrant = fleet.warrant(file, seed)
    seed.begin(file, warrant=warrant)
    with seed.serving():
        yield Pair(fleet, seed, reader, file, warrant, fleet.grant(file, reader))
