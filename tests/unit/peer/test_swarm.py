"""The simulated zone: about one copy's time for all hosts, and one read of the origin."""

import dataclasses

import pytest
from tests.world.swarm import Settings, simulate

SETTINGS = Settings(hosts=60, pieces=64)


def test_all_hosts_have_the_file_in_little_more_than_the_time_of_one_copy() -> None:
    found = simulate(SETTINGS)
    assert found.last < 1.5
    assert found.origin_copies == 1.0
    assert found.seed_copies < 1.35


@pytest.mark.parametrize("hosts", [2, 3, 17])
def test_few_hosts_are_no_slower(hosts: int) -> None:
    found = simulate(dataclasses.replace(SETTINGS, hosts=hosts))
    assert found.last < 1.4
    assert found.origin_copies == 1.0


def test_hosts_that_start_over_time_take_one_copy_longer_than_their_start() -> None:
    found = simulate(dataclasses.replace(SETTINGS, starts=10.0))
    ramp = (SETTINGS.hosts - 1) / 10.0
    assert ramp < found.last < ramp + 1.2
    assert found.origin_copies == 1.0


def test_super_seeding_spares_the_uplink_of_the_seed() -> None:
    with_it, without = (simulate(dataclasses.replace(SETTINGS, super_seeding=each)) for each in (True, False))
    assert with_it.last < without.last
    assert with_it.seed_copies < without.seed_copies
