"""A picture of a fleet, as the watches would have filled it."""

import datetime
from collections.abc import Iterable

from tests.world import dashboard as fleet
from tests.world.kube import Object

from directdownload.cluster import kinds
from directdownload.cluster.kinds import Resource
from directdownload.dashboard import watches
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.rendering import Renderer
from directdownload.dashboard.routes import Address, Page, resolve
from directdownload.dashboard.views.hosts import Events

NOW = datetime.datetime(2026, 2, 1, 12, 3, 5, tzinfo=datetime.UTC)
ROLLOUT = f"/rollouts/{fleet.NAMESPACE}/everywhere"
PAGES = (
    *("/", "/rollouts", ROLLOUT, "/templates", f"/templates/{fleet.NAMESPACE}/{fleet.TEMPLATE}", "/hosts"),
    *(f"/hosts/{fleet.host_name(0)}", "/certificates", "/certificates/my-ca", "/search?q=e"),
)


def put(picture: Picture, kind: Resource, document: Object, version: int = 1) -> None:
    """As a watch brings it; a later `version` replaces an earlier one."""
    metadata = {**document["metadata"], "resourceVersion": str(version)}
    store = picture.stores[kind]
    store.take(kind, watches.PROJECTIONS[kind], {**document, "metadata": metadata})
    assert metadata["name"], document


def complete(picture: Picture, *but: Resource) -> Picture:
    """Every kind is live, `but` these."""
    for resource, feed in picture.feeds.items():
        if resource not in but:
            feed.completed(NOW)
    return picture


def pictured(copies: Iterable[Object] = (), hosts: int = 3, **deployment: object) -> Picture:
    """A zone, its hosts, a pool, a template, its rollout, a certificate, and `copies`."""
    picture = Picture()
    put(picture, kinds.ZONES, fleet.zone(hosts=hosts))
    for number in range(hosts):
        put(picture, kinds.HOSTS, fleet.host(number))
    put(picture, kinds.STORAGE_POOLS, fleet.pool())
    put(picture, kinds.TEMPLATES, fleet.template())
    wanted = {"desired": hosts, **deployment}
    put(picture, kinds.TEMPLATE_DEPLOYMENTS, fleet.deployment(**wanted))  # type: ignore[arg-type]
    put(picture, kinds.CERTIFICATES, fleet.certificate(hosts=hosts))
    for each in copies:
        put(picture, kinds.TEMPLATE_PLACEMENTS, each)
    return complete(picture)


def page(picture: Picture, target: str, events: Events | None = None) -> Page:
    found = resolve(picture, Address.parse(target), NOW, events or Events())
    assert found is not None, target
    return found


def document(picture: Picture, target: str, events: Events | None = None) -> str:
    """The whole page as HTML."""
    shown = Renderer().document(page(picture, target, events), "/live?page=x", "run-1", Address.parse(target).query)
    return shown
