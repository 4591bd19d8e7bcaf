"""Fixtures of the tests that need a real Kubernetes API but no nodes."""

import collections.abc

import pytest
from tests.cluster import harness


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the control plane runs before the first test: a build of minutes would exceed a test's time limit."""
    if session.config.option.collectonly:
        return
    if any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items):
        harness.ensure_tools()


@pytest.fixture(scope="session")
def control_plane() -> collections.abc.Iterator[harness.ControlPlane]:
    """A real etcd and kube-apiserver, shared by the whole session: tests make namespaces and names of their own."""
    with harness.ControlPlane() as running:
        yield running
