"""The JDKs of the machine, and one running reader for each."""

from collections.abc import Iterator

import pytest
from tests.unit.keystore import support


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
