"""What the chart's roles allow agents, jobs and the controller, on a real API server."""

import pytest
from tests.world.kube import Answer, Kube, resource, unique
from tests.world.policies import OURS, ROLE_BINDINGS, RULES_REVIEWS, SERVICE_ACCOUNTS, World

from directdownload.cluster.kinds import (
    HOSTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    TEMPLATE_PLACEMENTS,
    Resource,
)
from directdownload.resources import base

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)


def refused(answer: Answer, verb: str, plural: str) -> None:
    assert answer.code == 403, answer.message
    assert f'cannot {verb} resource "{plural}"' in answer.message


@pytest.mark.parametrize(
    "kind",
    [*OURS, PODS, JOBS, SECRETS, NODES, NAMESPACES, LEASES, ROLE_BINDINGS],
    ids=lambda kind: kind.kind,
)
def test_an_agent_cannot_create_change_or_delete_anything(world: World, agent: Kube, kind: Resource) -> None:
    namespace = world.namespace if kind.namespaced else None
    name = {HOSTS: world.hosts[0], TEMPLATE_PLACEMENTS: world.placements[0]}.get(kind, "any")
    body = resource(kind, name, {}, namespace)
    refused(agent.create(kind, body, namespace), "create", kind.plural)
    refused(agent.patch(kind, name, {"spec": {}}, namespace), "patch", kind.plural)
    refused(agent.apply(kind, body, base.AGENT, namespace), "patch", kind.plural)
    refused(agent.request("PUT", kind.path(name, namespace), body), "update", kind.plural)
    refused(agent.delete(kind, name, namespace), "delete", kind.plural)
    refused(agent.request("DELETE", kind.path(None, namespace)), "deletecollection", kind.plural)


def test_an_agent_cannot_read_secrets_nor_make_tokens(world: World, agent: Kube) -> None:
    refused(agent.get(SECRETS, "any", world.namespace), "get", "secrets")
    refused(agent.request("GET", SECRETS.path()), "list", "secrets")
    path = SERVICE_ACCOUNTS.path(f"{world.prefix}-controller", world.namespace, "token")
    refused(agent.request("POST", path, {}), "create", "serviceaccounts/token")


def rules_of(connection: Kube, namespace: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) that the connection's user may do, beyond what everybody may: ask about itself."""
    body = {"apiVersion": RULES_REVIEWS.api_version, "kind": RULES_REVIEWS.kind, "spec": {"namespace": namespace}}
    status = connection.request("POST", RULES_REVIEWS.path(), body).object()["status"]
    return {
        (group, name, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
        for verb in rule["verbs"]
        if not name.startswith("selfsubject")
    }


def test_the_agent_has_exactly_these_rights(world: World, agent: Kube) -> None:
    expected = {
        "hosts": {"get", "list", "watch"},
        "storagepools": {"get", "list", "watch"},
        "zones": {"get", "list", "watch"},
        "directdownloadcertificates": {"get", "list", "watch"},
        "hosts/status": {"patch"},
        "templateplacements/status": {"get", "patch"},
    }
    assert rules_of(agent, world.namespace) == {
        (base.GROUP, name, verb) for name, verbs in expected.items() for verb in verbs
    }


def test_the_download_job_has_no_rights(world: World) -> None:
    with world.service_account("job") as job:
        assert rules_of(job, world.namespace) == set()
        refused(job.get(HOSTS, world.hosts[0]), "get", "hosts")


def test_the_controller_keeps_to_its_namespace_and_only_reads_secrets_there(world: World, controller: Kube) -> None:
    elsewhere = rules_of(controller, "default")
    here = rules_of(controller, world.namespace)
    own = {"jobs", "pods", "leases", "secrets", "configmaps", "events"}
    assert {name for _, name, _ in here - elsewhere} == own
    # What keeps a pod is asked for here; elsewhere Events are only written.
    assert {(group, verb) for group, name, verb in here - elsewhere if name == "events"} == {("", "list")}
    assert not {"get", "list", "watch"} & {verb for _, name, verb in elsewhere if name == "events"}
    assert not {"secrets", "configmaps", "pods", "jobs", "*"} & {name for _, name, _ in elsewhere}
    # To see whether another installation leads.
    assert {verb for _, name, verb in elsewhere if name == "leases"} == {"list"}
    # for spec.certificateRef
    assert {verb for _, name, verb in here if name in ("secrets", "configmaps")} == {"get", "list", "watch"}
    assert not {"escalate", "bind", "impersonate", "*", "set-system"} & {verb for _, _, verb in here}
    assert controller.get(SECRETS, "any", world.namespace).code == 404
    refused(controller.get(SECRETS, "any", "default"), "get", "secrets")
    refused(controller.request("GET", JOBS.path(None, "default")), "list", "jobs")
    lease = f"{world.prefix}-controller"
    assert controller.get(LEASES, lease, world.namespace).code == 404
    refused(controller.get(LEASES, "another", world.namespace), "get", "leases")
    refused(controller.get(LEASES, lease, "default"), "get", "leases")
    assert controller.request("GET", LEASES.path()).ok


def test_the_controller_does_its_work(world: World, controller: Kube) -> None:
    """Each write that the controller makes, with its own token."""
    body = {"apiVersion": HOSTS.api_version, "kind": "Host", "metadata": {"name": world.hosts[1]}}
    labels = {"metadata": {"name": world.hosts[1], "labels": {"a": "b"}}}
    controller.apply(HOSTS, {**body, **labels, "spec": {"zone": "zone-1"}}, base.CONTROLLER).object()
    controller.apply(HOSTS, {**body, "status": {"state": "Up"}}, base.CONTROLLER, subresource="status").object()
    host, placement = unique("kvm"), unique("debian")
    controller.create(HOSTS, resource(HOSTS, host, {"nodeName": host, "zone": "zone-1"})).object()
    world.admin.delete(HOSTS, host).object()
    spec = world.admin.get(TEMPLATE_PLACEMENTS, world.placements[0]).object()["spec"]
    made = resource(TEMPLATE_PLACEMENTS, placement, spec)
    made["metadata"]["finalizers"] = [base.FINALIZER]
    controller.create(TEMPLATE_PLACEMENTS, made).object()
    controller.delete(TEMPLATE_PLACEMENTS, placement).object()
    controller.patch(TEMPLATE_PLACEMENTS, placement, {"metadata": {"finalizers": None}}).object()
    assert world.admin.get(TEMPLATE_PLACEMENTS, placement).code == 404
