"""How long tests with random inputs go on, and with which seeds.

`make test` tries the same inputs in each run, so that a failure is of the change at hand. `make soak` tries new ones,
`ROUNDS` times as many. These tests carry the mark `soak`, and a failure names its seed.
"""

import os
import random

#: 1 in `make test`
ROUNDS = int(os.environ.get("DIRECTDOWNLOAD_ROUNDS", "1"))
SOAKING = ROUNDS > 1


#: For parametrize: all processes of a run must name tests alike, so a test draws its seed by itself.
EACH_ROUND = range(1, ROUNDS + 1)


def seed_of(number: int) -> int:
    """The number of the round itself; in `make soak` a seed that nobody has seen, printed for a failure's sake."""
    seed = random.SystemRandom().randrange(10**9) if SOAKING else number
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return seed
