"""Templates with headers on a `Simulation`: their Secret, and the copies of it in the operator's namespace."""

import base64
import pathlib
from typing import Any

from tests.world import steps
from tests.world.controllers import Controller
from tests.world.kube import Object
from tests.world.simulation import Simulation

from directdownload.cluster import kinds

#: What must show up nowhere.
TOKEN = "Bearer very-secret-token"
ORIGIN = "http://images.example.org"
WITH_HEADERS: dict[str, Any] = {"headersSecretRef": {"name": "token"}}


def create_secret(world: Simulation, value: str = TOKEN, *, origins: str = ORIGIN, **fields: Any) -> None:
    body: Object = {
        "metadata": {"name": "token", "annotations": {"directdownload.dev/origins": origins}},
        "type": "directdownload.dev/headers",
        "data": {"Authorization": base64.b64encode(value.encode()).decode()},
        **fields,
    }
    with world.kube() as kube:
        kube.create(kinds.SECRETS, body, tenant(world)).object()


def delete_secret(world: Simulation) -> None:
    with world.kube() as kube:
        kube.delete(kinds.SECRETS, "token", tenant(world)).object()


def tenant(world: Simulation) -> str:
    """The namespace of the Template; the operator's is another."""
    return f"{world.prefix}-tenant"


def copies(world: Simulation) -> list[Object]:
    """The Secrets in the operator's namespace."""
    with world.kube() as kube:
        return list(kube.request("GET", kinds.SECRETS.path(None, world.namespace)).object()["items"])


def begin(
    world: Simulation, hosts: int = 1, *, secret: bool = False, kubeconfig: pathlib.Path | None = None
) -> Controller:
    """A template with headers, deployed on so many hosts; `secret`: the good one is there from the start."""
    steps.hosts_of_a_zone(world, hosts)
    world.create_namespace("tenant")
    if secret:
        create_secret(world)
    controller = world.start_controller(kubeconfig=kubeconfig)
    world.create_template(namespace=tenant(world), allowedNamespaces={}, **WITH_HEADERS)
    world.deploy(templateRef={"name": "debian", "namespace": tenant(world)})
    return controller
