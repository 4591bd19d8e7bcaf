"""An installed chart for all tests of a file, and two of those whom it gives rights."""

from collections.abc import Iterator

import pytest
from tests.cluster import harness
from tests.world.kube import Kube
from tests.world.policies import World, installed


@pytest.fixture(scope="module")
def world(control_plane: harness.ControlPlane) -> Iterator[World]:
    with installed(control_plane) as found:
        yield found


@pytest.fixture(scope="module")
def agent(world: World) -> Iterator[Kube]:
    """The agent of the first host."""
    with world.service_account("agent", world.hosts[0]) as connection:
        yield connection


@pytest.fixture(scope="module")
def controller(world: World) -> Iterator[Kube]:
    with world.service_account("controller") as connection:
        yield connection
