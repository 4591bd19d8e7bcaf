"""What a resume does while the hashing reads back the bytes of the attempt before.

A network that is slower than reading goes on, and what it brings is read back as well. A faster one waits: what it
brought would be read back beside its own writes, which takes longer than to wait.
"""

import pathlib
import time

import pytest
from tests.unit.download.support import content, fetch, fetch_error, make_request, sha256
from tests.world.http import CutServer, RangeServer

from directdownload.download.transfer.follower import Follower
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason

MIB = 1024 * 1024
#: each half is larger than the ring of buffers
HALF = 40 * MIB
DATA = content(2 * HALF)


@pytest.fixture
def interrupted(pool: pathlib.Path) -> int:
    """The kept bytes: about the first half."""
    with CutServer(DATA, HALF) as server:
        error = fetch_error(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits()))
    assert error.reason is Reason.TRUNCATED
    return HALF


def limits() -> Limits:
    return Limits(progress_interval_seconds=0.05, connections=1)


def read_back(monkeypatch: pytest.MonkeyPatch, bytes_per_second: int) -> list[int]:
    """The positions of blocks that are read back from now on, at this rate."""
    read, positions = Follower._read, list[int]()

    def slowly(follower: Follower, buffer: memoryview, start: int, end: int) -> memoryview:
        time.sleep(len(buffer) / bytes_per_second)
        positions.append(start)
        return read(follower, buffer, start, end)

    monkeypatch.setattr(Follower, "_read", slowly)
    return positions


def test_a_network_that_is_faster_than_reading_waits_for_it(
    pool: pathlib.Path, interrupted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = read_back(monkeypatch, 40 * MIB)
    with RangeServer(DATA) as server:
        result = fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits()))
    assert result.resumed_from
    assert max(positions) < interrupted, "what has come since is hashed from memory"


def test_a_network_that_is_slower_than_reading_goes_on_meanwhile(
    pool: pathlib.Path, interrupted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = read_back(monkeypatch, 25 * MIB)
    with RangeServer(DATA, rate=16 * MIB) as server:
        result = fetch(make_request(pool, server.url(), checksum=sha256(DATA), limits=limits()))
    assert result.resumed_from
    assert max(positions) > interrupted, "more has come than the ring of buffers holds"
