"""What holds for all tests: how hypothesis draws, which tests are for `make soak`, and what the collector skips."""

import gc

import hypothesis
import pytest
from tests.world.soak import ROUNDS, SOAKING

hypothesis.settings.register_profile(
    "project", max_examples=60 * ROUNDS, derandomize=not SOAKING, deadline=None, database=None
)
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "function", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.soak)


def pytest_collection_finish() -> None:
    # Modules and thousands of tests stay to the end: each full collection would walk through all of them.
    gc.collect()
    gc.freeze()
