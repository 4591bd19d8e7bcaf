"""Whatever happens in whatever order, the world ends up as the objects say; see `convergence.py`.

`DIRECTDOWNLOAD_SEED` plays one run again, `DIRECTDOWNLOAD_STEPS` makes it shorter or longer, `DIRECTDOWNLOAD_SKIP`
(numbers with commas) leaves steps out to find those that matter.
"""

import os
import sys

import pytest
from tests.api.convergence.run import Run
from tests.cluster import harness
from tests.world.kube import install_definitions
from tests.world.simulation import Simulation
from tests.world.soak import EACH_ROUND, seed_of

STEPS = int(os.environ.get("DIRECTDOWNLOAD_STEPS", "120"))
SEED = os.environ.get("DIRECTDOWNLOAD_SEED", "")
SKIP = frozenset(int(number) for number in os.environ.get("DIRECTDOWNLOAD_SKIP", "").split(",") if number)


@pytest.mark.soak
@pytest.mark.timeout(120 + 3 * STEPS)
@pytest.mark.parametrize("number", EACH_ROUND)
def test_the_world_converges_to_what_the_objects_say(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(SEED) if SEED else seed_of(number)
    with capsys.disabled():
        # Also when the run is cut off and nobody can tell what was wrong.
        sys.stderr.write(f" DIRECTDOWNLOAD_SEED={seed} DIRECTDOWNLOAD_STEPS={STEPS} ")
    with harness.ControlPlane() as control_plane:
        install_definitions(control_plane)
        with Simulation(control_plane, "random", agents=True) as simulation, simulation.kube() as kube:
            Run(simulation, kube, seed, STEPS, SKIP).play()
