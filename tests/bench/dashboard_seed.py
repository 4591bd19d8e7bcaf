"""A fleet for the bench of the dashboard, written into etcd: the API server would take a quarter of an hour."""

import functools
import json
from collections.abc import Iterable, Iterator

from tests.bench.seeding import Etcd
from tests.cluster import harness
from tests.world import dashboard as fleet
from tests.world.kube import Kube, Object
from tests.world.waiting import until

from directdownload.cluster import kinds


def seed(control_plane: harness.ControlPlane, hosts: int, templates: int) -> None:
    """`templates` copies on each of `hosts`; the first template's rollout is where a rollout is after a minute."""
    with Etcd(control_plane.etcd_url) as etcd:
        etcd.put(_stored(objects(hosts, templates)))
    with Kube(control_plane.kubeconfig()) as kube:
        for kind, number in ((kinds.HOSTS, hosts), (kinds.TEMPLATE_PLACEMENTS, hosts * templates)):
            until(f"the API server to have all {kind.plural}", functools.partial(_has, kube, kind, number), 600)


def objects(hosts: int, templates: int) -> Iterator[tuple[kinds.Resource, Object]]:
    yield kinds.ZONES, fleet.zone(hosts=hosts)
    yield kinds.STORAGE_POOLS, fleet.pool()
    yield kinds.CERTIFICATES, fleet.certificate(hosts=hosts)
    for number in range(hosts):
        yield kinds.HOSTS, fleet.host(number)
    for each in range(templates):
        name = f"template-{each}"
        yield kinds.TEMPLATES, fleet.template(name)
        yield (
            kinds.TEMPLATE_DEPLOYMENTS,
            fleet.deployment(f"everywhere-{each}", of=name, desired=hosts, ready=hosts if each else hosts // 3),
        )
        for number in range(hosts):
            yield kinds.TEMPLATE_PLACEMENTS, fleet.copy(number, _phase(each, number), of=name)


def _phase(template: int, number: int) -> str:
    """Of the first template every third copy is Ready, one in fifty has failed, and a few hundred are under way."""
    if template:
        return "Ready"
    if number % 50 == 7:
        return "Failed"
    return ("Ready", "Pending", "Downloading" if number % 25 == 2 else "Pending")[number % 3]


def _stored(found: Iterable[tuple[kinds.Resource, Object]]) -> Iterator[tuple[str, bytes]]:
    for kind, document in found:
        metadata = {key: value for key, value in document["metadata"].items() if key != "resourceVersion"}
        scope = f"{metadata['namespace']}/" if kind.namespaced else ""
        key = f"/registry/{kind.group}/{kind.plural}/{scope}{metadata['name']}"
        yield key, json.dumps({**document, "metadata": metadata}).encode()


def _has(kube: Kube, kind: kinds.Resource, count: int) -> bool:
    answer = kube.request("GET", kind.path(), query={"limit": "1"})
    return answer.ok and 1 + int(answer.body["metadata"].get("remainingItemCount", 0)) >= count
