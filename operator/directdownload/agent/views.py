"""What the agent keeps of the objects it watches: its own Host and the storage pools.

Projections for `cluster.reflector`; they never fail on an object that the API server accepted, also not on one that a
newer version of the product wrote.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import pydantic

from directdownload.agent.storage import Target
from directdownload.cluster import objects
from directdownload.resources.base import LabelSelector

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class HostView:
    key: str
    uid: str
    resource_version: int
    zone: str
    labels: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolView:
    key: str
    uid: str
    resource_version: int
    zone: str
    path: str
    shared: bool
    #: None: not understood, so no host matches
    host_selector: LabelSelector | None


def project_host(document: Mapping[str, Any]) -> HostView:
    metadata = document["metadata"]
    return HostView(
        key=objects.key_of(metadata),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        zone=document["spec"]["zone"],
        labels=objects.shared(metadata.get("labels")),
    )


def project_pool(document: Mapping[str, Any]) -> PoolView:
    metadata, spec = document["metadata"], document["spec"]
    selector: LabelSelector | None
    try:
        selector = LabelSelector.model_validate(spec.get("hostSelector") or {})
    except pydantic.ValidationError as error:
        logger.warning("StoragePool %s: spec.hostSelector is not understood: %s", metadata["name"], error)
        selector = None
    return PoolView(
        key=objects.key_of(metadata),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        zone=spec["zone"],
        path=spec["path"],
        shared=spec.get("type", "Filesystem") != "Filesystem",
        host_selector=selector,
    )


def target_of(pool: PoolView, host: HostView) -> Target | None:
    """The pool as this host should have it; None if it is none of its pools."""
    if pool.zone != host.zone or pool.host_selector is None or not pool.host_selector.matches(host.labels):
        return None
    return Target(pool=pool.key, path=pool.path, shared=pool.shared)
