"""Eight hosts with links of 100 Mbit/s, and an origin with one: real servers and jobs in network namespaces."""

import os
import pathlib

import pytest
from tests.world import peernet

pytestmark = pytest.mark.long

SIZE = 128 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")
def test_eight_hosts_read_the_origin_once_and_get_the_rest_from_each_other(tmp_path: pathlib.Path) -> None:
    with peernet.network(tmp_path, SIZE, hosts=8) as network:
        ends = network.fetch()
        network.check(ends)
        assert len(ends) == 8
        assert network.origin_bytes <= 1.05 * SIZE
        seed, *others = sorted(ends, key=lambda end: end.result.peer_bytes)
        assert seed.result.origin_bytes <= 1.05 * SIZE
        assert all(end.result.origin_bytes == 0 and end.result.peer_bytes >= SIZE for end in others)
        assert all(end.result.content == network.file.content for end in ends)
