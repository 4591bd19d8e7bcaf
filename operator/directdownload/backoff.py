"""The pauses between tries of what failed, and the spread of what begins together. Imports nothing of ours."""

import dataclasses
import random


@dataclasses.dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from `first_seconds` up to `most_seconds`; each is spread by `jitter`."""

    first_seconds: float
    most_seconds: float
    #: the least and the largest factor
    jitter: tuple[float, float]

    def pause_seconds(self, failures: int) -> float:
        """The pause after the last of `failures` in a row."""
        return spread(min(self.most_seconds, self.first_seconds * 2.0 ** min(failures - 1, 32)), *self.jitter)


def spread(seconds: float, least: float, largest: float) -> float:
    """`seconds` times a random factor, so that those who begin together do not go on together."""
    return seconds * random.uniform(least, largest)  # noqa: S311 - guards no secret
