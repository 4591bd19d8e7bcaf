"""How far each rollout was, and when: since the command began. Pure: the caller gives the time."""

import datetime
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Samples of one rollout: beyond this every second one is dropped, so that a long one keeps its beginning.
LIMIT = 240


class Sample(NamedTuple):
    time: datetime.datetime
    ready: int
    desired: int


class History:
    """Samples by deployment, at most `LIMIT` each; of deployments that are gone none."""

    def __init__(self) -> None:
        self._samples: dict[str, list[Sample]] = {}

    def of(self, deployment: str) -> Sequence[Sample]:
        return self._samples.get(deployment, ())

    def sample(self, now: datetime.datetime, progress: Mapping[str, tuple[int, int]]) -> bool:
        """Takes ready and desired copies by deployment; True if any of them has changed."""
        for gone in self._samples.keys() - progress.keys():
            del self._samples[gone]
        changed = False
        for deployment, (ready, desired) in progress.items():
            samples = self._samples.setdefault(deployment, [])
            if samples and samples[-1][1:] == (ready, desired):
                continue
            samples.append(Sample(now, ready, desired))
            if len(samples) > LIMIT:
                del samples[1:-1:2]
            changed = True
        return changed
