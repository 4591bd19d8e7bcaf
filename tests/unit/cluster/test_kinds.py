"""Paths of the API for every shape of resource."""

import pytest

from directdownload.cluster import kinds


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (kinds.NODES.path(), "/api/v1/nodes"),
        (kinds.NODES.path("kvm-1"), "/api/v1/nodes/kvm-1"),
        (kinds.NODES.path("kvm-1", "ignored"), "/api/v1/nodes/kvm-1"),
        (kinds.PODS.path(namespace="ns"), "/api/v1/namespaces/ns/pods"),
        (kinds.JOBS.path(), "/apis/batch/v1/jobs"),
        (kinds.JOBS.path("a", "ns"), "/apis/batch/v1/namespaces/ns/jobs/a"),
        (kinds.HOSTS.path("kvm-1", None, "status"), "/apis/directdownload.dev/v1alpha1/hosts/kvm-1/status"),
        (kinds.NODES.path("a/b?c"), "/api/v1/nodes/a%2Fb%3Fc"),
    ],
)
def test_path(path: str, expected: str) -> None:
    assert path == expected


def test_namespaced_object_without_namespace_is_refused() -> None:
    with pytest.raises(ValueError, match="Template 'debian': a namespaced object needs a namespace"):
        kinds.TEMPLATES.path("debian")


def test_api_version() -> None:
    assert kinds.NODES.api_version == "v1"
    assert kinds.TEMPLATES.api_version == "directdownload.dev/v1alpha1"
