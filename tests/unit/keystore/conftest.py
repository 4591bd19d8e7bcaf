"""The JDKs of the machine, one running reader for each, and a store of each type."""

import pathlib
from collections.abc import Iterator

import pytest
from tests.unit.keystore import support, writing

from directdownload.keystore.entries import StoreType


@pytest.fixture(scope="session", params=support.jdks() or [None], ids=lambda jdk: jdk.name if jdk else "none")
def jdk(request: pytest.FixtureRequest) -> support.Jdk:
    """Each of them in turn."""
    found: support.Jdk | None = request.param
    if found is None:
        pytest.fail("no keytool: the keystore tests need a JDK, on PATH or below /usr/lib/jvm")
    return found


@pytest.fixture(scope="session")
def reader(jdk: support.Jdk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.StoreReader]:
    """What this JDK finds in a store."""
    with support.StoreReader(jdk, tmp_path_factory.mktemp(f"classes-{jdk.name}")) as running:
        yield running


@pytest.fixture(scope="session", params=writing.TYPES)
def store_type(request: pytest.FixtureRequest) -> StoreType:
    """Each of them in turn."""
    found: StoreType = request.param
    return found


@pytest.fixture
def path(tmp_path: pathlib.Path, store_type: StoreType) -> pathlib.Path:
    """A store of keytool's."""
    return writing.make(tmp_path, store_type)
