"""Whatever happens in whatever order, the world ends up as the objects say; see `convergence.py`.

`DIRECTDOWNLOAD_SEED` plays one run again, `DIRECTDOWNLOAD_STEPS` makes it shorter or longer, `DIRECTDOWNLOAD_SKIP`
(numbers with commas) leaves steps out to find those that matter.
"""

import os
import random
import sys

import pytest
from tests.api.convergence import Run
from tests.api.kube import install_definitions
from tests.api.simulation import Simulation
from tests.cluster import harness

STEPS = int(os.environ.get("DIRECTDOWNLOAD_STEPS", "120"))
SEED = os.environ.get("DIRECTDOWNLOAD_SEED", "")
SKIP = frozenset(int(number) for number in os.environ.get("DIRECTDOWNLOAD_SKIP", "").split(",") if number)
#: One that was tried before, and one that nobody has seen: the test draws it, as all processes name tests alike.
TRIED, NEW = 1, None


@pytest.mark.timeout(120 + 3 * STEPS)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [TRIED, NEW])
def test_the_world_converges_to_what_the_objects_say(seed: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    if seed is None:
        seed = random.SystemRandom().randrange(10**6)
    with capsys.disabled():
        # Also when the run is cut off and nobody can tell what was wrong.
        sys.stderr.write(f" DIRECTDOWNLOAD_SEED={seed} DIRECTDOWNLOAD_STEPS={STEPS} ")
    with harness.ControlPlane() as control_plane:
        install_definitions(control_plane)
        with Simulation(control_plane, "random", agents=True) as simulation, simulation.kube() as kube:
            Run(simulation, kube, seed, STEPS, SKIP).play()
