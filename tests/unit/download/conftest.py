"""Origins for the tests of the engine."""

import pathlib
from collections.abc import Iterator

import pytest
from tests.world.origin import Origin


@pytest.fixture
def served(tmp_path: pathlib.Path) -> pathlib.Path:
    """The directory that `origin` serves."""
    directory = tmp_path / "served"
    directory.mkdir()
    return directory


@pytest.fixture
def origin(served: pathlib.Path) -> Iterator[Origin]:
    with Origin(served) as running:
        yield running


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "pool"
    directory.mkdir()
    return directory
