"""Garbage collection that does not keep the event loop.

A full collection looks at every object, and stops all else: with 50,000 placements, and a timer for each, for 0.2 s.
What has survived a long one lives long, and is looked at no more. It still goes when nothing refers to it; only a cycle
of such objects would stay.
"""

import gc
import time
from typing import Any

#: A full collection that took longer than this is the last one to look at its survivors.
_LONG_SECONDS = 0.02


class Survivors:
    """Freezes them, from `watch` on, for as long as the process runs."""

    def __init__(self) -> None:
        self._began = 0.0

    def watch(self) -> None:
        gc.callbacks.append(self._called)

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began = time.thread_time()
        elif time.thread_time() - self._began > _LONG_SECONDS:
            gc.freeze()
