"""Plans that take long in a large fleet, as generators: the caller may do something else after each step."""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
#: Of the objects that are planned one by one, so many make one step.
OBJECTS = 100


def finish(steps: Steps[T]) -> T:
    """The plan, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            plan: T = end.value
            return plan
