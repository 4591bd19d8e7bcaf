"""The chart's RBAC and admission policies on a real API server: the node fence, and who may make a template SYSTEM."""

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from tests.cluster import harness
from tests.world import kube
from tests.world.kube import Answer, Kube, Object, resource
from tests.world.waiting import until

from directdownload.agent import copies, hostreport, proof
from directdownload.cluster.kinds import (
    CERTIFICATES,
    HOSTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    STORAGE_POOLS,
    TEMPLATE_DEPLOYMENTS,
    TEMPLATE_PLACEMENTS,
    TEMPLATES,
    ZONES,
    Resource,
)
from directdownload.resources import base, crd, host

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", namespaced=False
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", namespaced=True)
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", namespaced=True)
ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
OURS = [ZONES, HOSTS, STORAGE_POOLS, TEMPLATES, TEMPLATE_DEPLOYMENTS, TEMPLATE_PLACEMENTS, CERTIFICATES]
#: What a role of a namespace may hold about templates.
ALL_VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
TEMPLATE = {"url": "https://images.example.org/debian-13.qcow2", "format": "QCOW2"}
TIME = "2026-01-01T00:00:00Z"
READY = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": TIME}
SYNCED = {**READY, "type": "KeystoreSynced", "reason": "KeystoreSynced"}
#: All that an agent may write, as it writes it.
OWN: dict[Resource, Object] = {
    HOSTS: {
        "agentVersion": "1.2.3",
        "storage": [{"pool": "local", "availableBytes": 7}],
        "keystore": {"type": "JKS", "entries": 1},
        "certificates": [{"name": "ca", "state": "Uploaded", "fingerprintSHA256": "00"}],
        "conditions": [SYNCED],
    },
    TEMPLATE_PLACEMENTS: {"progress": {"percent": 50}, "observed": {"present": True, "revision": "r"}},
}
#: What the controller has written, so that there is something to change and to take away.
CONTROLLERS: dict[Resource, Object] = {
    HOSTS: {"state": "Up", "nodeUID": "u", "observedGeneration": 1, "conditions": [READY]},
    TEMPLATE_PLACEMENTS: {
        "phase": "Ready",
        "attempts": 1,
        "conditions": [READY],
        "file": {"path": "/p", "digest": "sha256:" + 64 * "0"},
    },
}
#: Of another version.
TOMORROW = "ofTomorrow"


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """An installed chart, two hosts with a placement each, and connections of those who act."""

    control_plane: harness.ControlPlane
    admin: Kube
    release: str
    namespace: str
    hosts: tuple[str, str]
    placements: tuple[str, str]

    @property
    def prefix(self) -> str:
        return f"{self.release}-direct-download-operator"

    def service_account(self, component: str, node: str | None = None) -> Kube:
        """A connection with a token of the chart's service account, bound to `node` as the kubelet's tokens are."""
        token = self.control_plane.service_account_token(f"{self.prefix}-{component}", self.namespace, node=node)
        return Kube(self.control_plane.token_kubeconfig(token, unique(component)))


def install(control_plane: harness.ControlPlane, without: str | None = None) -> tuple[str, str, str]:
    """Applies the chart's output, but objects with `without` in their name; returns release, namespace, manifests."""
    kube.install_definitions(control_plane)
    release, namespace = unique("r"), unique("operator")
    control_plane.kubectl("create", "namespace", namespace, check=True)
    documents = [each for each in yaml.safe_load_all(kube.rendered(release, namespace)) if each]
    manifests = yaml.safe_dump_all(
        each for each in documents if without is None or without not in each["metadata"]["name"]
    )
    control_plane.kubectl("apply", "-f", "-", input=manifests, check=True)
    return release, namespace, manifests


def denied_by(answer: Answer, policy: str) -> bool:
    return answer.code in (403, 422) and f"ValidatingAdmissionPolicy '{policy}'" in answer.message


@pytest.fixture(scope="module")
def world(control_plane: harness.ControlPlane) -> Iterator[World]:
    release, namespace, manifests = install(control_plane)
    hosts = unique("kvm"), unique("kvm")
    placements = unique("debian"), unique("debian")
    with Kube(control_plane.kubeconfig()) as admin:
        for host, placement in zip(hosts, placements, strict=True):
            admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": host}}).object()
            admin.create(HOSTS, resource(HOSTS, host, {"nodeName": host, "zone": "zone-1"})).object()
            reference = {"namespace": "default", "name": "debian", "uid": "u"}
            spec = {"templateRef": reference, "zone": "zone-1", "pool": "local", "host": host, "path": "/p"}
            admin.create(TEMPLATE_PLACEMENTS, resource(TEMPLATE_PLACEMENTS, placement, spec)).object()
        made = World(control_plane, admin, release, namespace, hosts, placements)
        with made.service_account("agent", hosts[0]) as agent:
            until("the node fence is enforced", lambda: denied_by(report(agent, HOSTS, hosts[1]), fence(made)))
        system = resource(TEMPLATES, unique("t"), {**TEMPLATE, "type": "SYSTEM"}, namespace)
        until(
            "the rules of SYSTEM templates are enforced",
            lambda: denied_by(admin.create(TEMPLATES, system, namespace, dry=True), system_rules(made)),
        )
        yield made
        for host, placement in zip(hosts, placements, strict=True):
            admin.delete(TEMPLATE_PLACEMENTS, placement).object()
            admin.delete(HOSTS, host).object()
            admin.delete(NODES, host).object()
    # cluster-wide rules must not meet the tests of other modules
    control_plane.kubectl("delete", "--wait=false", "-f", "-", input=manifests, check=True)


def fence(world: World) -> str:
    return f"{world.prefix}-node-fence"


def system_rules(world: World) -> str:
    return f"{world.prefix}-system-templates"


@pytest.fixture(scope="module")
def agent(world: World) -> Iterator[Kube]:
    """The agent of the first host."""
    with world.service_account("agent", world.hosts[0]) as connection:
        yield connection


@pytest.fixture(scope="module")
def controller(world: World) -> Iterator[Kube]:
    with world.service_account("controller") as connection:
        yield connection


def report(agent: Kube, kind: Resource, name: str, status: Object | None = None) -> Answer:
    """What an agent does: server-side apply of the status; all that is its own if none is given."""
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
    return agent.apply(kind, {**body, "status": status or OWN[kind]}, base.AGENT, subresource="status")


# --- the node fence


def test_an_agent_reports_its_own_host_and_placements(world: World, agent: Kube) -> None:
    storage = [{"pool": "local", "availableBytes": 7}]
    assert report(agent, HOSTS, world.hosts[0], {"storage": storage}).object()["status"]["storage"] == storage
    progress = {"progress": {"percent": 50}}
    assert report(agent, TEMPLATE_PLACEMENTS, world.placements[0], progress).object()["status"] == progress


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("how", ["apply", "merge patch"])
def test_an_agent_cannot_report_for_another_host(world: World, agent: Kube, kind: Resource, how: str) -> None:
    name = (world.hosts if kind is HOSTS else world.placements)[1]
    before = world.admin.get(kind, name).object()
    if how == "apply":
        answer = report(agent, kind, name)
    else:
        answer = agent.patch(kind, name, {"status": OWN[kind]}, subresource="status")
    assert answer.code == 403
    assert denied_by(answer, fence(world))
    field = "spec.nodeName" if kind is HOSTS else "spec.host"
    assert f'{kind.plural} {name}: {field} is "{world.hosts[1]}": expected "{world.hosts[0]}"' in answer.message
    assert world.admin.get(kind, name).object() == before


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_a_token_without_a_node_is_refused(world: World, kind: Resource) -> None:
    name = (world.hosts if kind is HOSTS else world.placements)[0]
    with world.service_account("agent") as plain:
        answer = report(plain, kind, name)
    assert answer.code == 403
    assert denied_by(answer, fence(world))
    assert "names no node: expected a service account token with the claim" in answer.message


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_a_report_changes_nothing_but_status(world: World, agent: Kube, kind: Resource) -> None:
    name = (world.hosts if kind is HOSTS else world.placements)[0]
    before = world.admin.get(kind, name).object()
    patch: Object = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.org/a"]},
        "spec": {"zone": "zone-2", "host" if kind is TEMPLATE_PLACEMENTS else "allocationState": "Maintenance"},
        "status": OWN[kind],
    }
    after = agent.patch(kind, name, patch, subresource="status").object()
    assert after["status"].items() >= {key: OWN[kind][key] for key in OWN[kind] if key != "conditions"}.items()
    assert after["spec"] == before["spec"]
    assert {"labels", "annotations", "finalizers"} & after["metadata"].keys() == set()


# --- which fields are an agent's


@pytest.fixture
def copy_of(world: World, controller: Kube) -> Callable[[Resource], str]:
    """The first host's object of a kind: what the controller and the agent have written stands in it, nothing else."""

    def made(kind: Resource) -> str:
        name = (world.hosts if kind is HOSTS else world.placements)[0]
        world.admin.patch(kind, name, {"status": None}, subresource="status").object()
        status = {"status": CONTROLLERS[kind]}
        head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
        controller.apply(kind, {**head, **status}, base.CONTROLLER, subresource="status").object()
        return name

    return made


def fields_of(kind: Resource) -> dict[str, Any]:
    """A value, other than those above, for each field of the status of `kind`, as its definition admits it."""
    (model,) = [each for each in crd.KINDS if each.DEFINITION.kind == kind.kind]
    schema = crd.definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return {name: value_of(each) for name, each in schema["properties"].items()}


def value_of(schema: Object) -> Any:
    if "enum" in schema:
        return schema["enum"][-1]
    if schema["type"] == "object":
        return {name: value_of(each) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [value_of(schema["items"])]
    return {"string": TIME if schema.get("format") == "date-time" else "another", "integer": 7, "boolean": True}[
        schema["type"]
    ]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in (HOSTS, TEMPLATE_PLACEMENTS) for field in fields_of(kind)],
    ids=lambda value: value.kind if isinstance(value, Resource) else value,
)
def test_an_agent_changes_fields_of_its_own_and_no_other(
    world: World, agent: Kube, copy_of: Callable[[Resource], str], kind: Resource, field: str
) -> None:
    """Every field of the definition, also one that is added to it later: applied, patched, taken away."""
    name, value = copy_of(kind), fields_of(kind)[field]
    own = field in OWN[kind] and field != "conditions"
    before = world.admin.get(kind, name).object()
    ways: dict[str, Callable[[], Answer]] = {
        "apply": lambda: report(agent, kind, name, {field: value}),
        "patch": lambda: agent.patch(kind, name, {"status": {field: value}}, subresource="status"),
        "removal": lambda: agent.patch(kind, name, {"status": {field: None}}, subresource="status"),
    }
    for way, write in ways.items():
        answer = write()
        if own:
            assert answer.object()["status"].get(field) == (None if way == "removal" else value), way
        elif way == "removal" and field not in before["status"]:
            answer.object()
        else:
            assert denied_by(answer, fence(world)), f"{way}: {answer}"
            assert f"{kind.plural} {name}: an agent may not change status.{field}" in answer.message
            assert "expected a change of status." in answer.message
    if not own:
        assert world.admin.get(kind, name).object() == before


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_an_agent_writes_all_that_is_its_own_into_a_new_object_and_again(
    world: World, agent: Kube, controller: Kube, kind: Resource
) -> None:
    """As the agent does it: before the controller has said anything, after it, less than before, and nothing."""
    name = (world.hosts if kind is HOSTS else world.placements)[0]
    world.admin.patch(kind, name, {"status": None}, subresource="status").object()
    assert report(agent, kind, name).object()["status"] == OWN[kind]
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
    controller.apply(kind, {**head, "status": CONTROLLERS[kind]}, base.CONTROLLER, subresource="status").object()
    less: Object = {"conditions": []} if kind is HOSTS else {"observed": {"present": False}}
    assert report(agent, kind, name, less).object()["status"] == CONTROLLERS[kind] | (
        less if kind is TEMPLATE_PLACEMENTS else {}
    )
    again = report(agent, kind, name).object()["status"]
    assert {key: again[key] for key in again if key != "conditions"} == {
        key: value for key, value in (CONTROLLERS[kind] | OWN[kind]).items() if key != "conditions"
    }
    if kind is HOSTS:
        assert sorted(each["type"] for each in again["conditions"]) == ["KeystoreSynced", "Ready"]


def test_what_these_tests_write_is_what_the_agent_writes() -> None:
    keystore = proof.KeystoreReport(host.KeystoreStatus(), (), base.Condition.model_validate(SYNCED))
    assert hostreport.Report("u", {}, keystore).status.keys() == OWN[HOSTS].keys()
    wanted = {field.name for field in dataclasses.fields(copies.Wanted)} & set(fields_of(TEMPLATE_PLACEMENTS))
    assert wanted == OWN[TEMPLATE_PLACEMENTS].keys()


@pytest.mark.parametrize(
    "conditions",
    [
        [{**READY, "status": "False"}],
        [READY, {**READY, "type": TOMORROW}],
        [{**READY, "type": TOMORROW}, SYNCED],
        [SYNCED],
        [],
    ],
    ids=["changed", "added", "exchanged", "removed", "emptied"],
)
def test_conditions_of_other_types_are_not_an_agents(
    world: World, agent: Kube, copy_of: Callable[[Resource], str], conditions: list[Object]
) -> None:
    name = copy_of(HOSTS)
    before = world.admin.get(HOSTS, name).object()
    answer = agent.patch(HOSTS, name, {"status": {"conditions": conditions}}, subresource="status")
    assert denied_by(answer, fence(world)), answer
    assert "may not change status.conditions of other types than KeystoreSynced" in answer.message
    assert world.admin.get(HOSTS, name).object() == before


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("how", ["forgotten", "emptied", "renamed", "co-owned", "by another name"])
def test_an_agent_cannot_take_a_field_from_the_controllers_hand(
    world: World, agent: Kube, copy_of: Callable[[Resource], str], kind: Resource, how: str
) -> None:
    """Unchanged, and yet the controller could not erase it any more: another holds it as well, or it does not."""
    name = copy_of(kind)
    before = world.admin.get(kind, name).object()
    renamed = [{**each, "manager": "another"} for each in before["metadata"]["managedFields"]]
    managed = {"forgotten": [{}], "emptied": [], "renamed": renamed}
    if how in managed:
        # By way of the status the API server lets nobody change these.
        agent.patch(kind, name, {"metadata": {"managedFields": managed[how]}}, subresource="status")
    else:
        head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
        manager = {"co-owned": base.AGENT, "by another name": "another"}[how]
        for field, value in CONTROLLERS[kind].items():
            answer = agent.apply(kind, {**head, "status": {field: value}}, manager, subresource="status")
            assert denied_by(answer, fence(world)), answer
            assert "may not change metadata.managedFields: fields of the controller held by" in answer.message
    assert world.admin.get(kind, name).object() == before


def test_the_fence_has_room_for_the_proofs_of_thousands_of_certificates(
    world: World, agent: Kube, copy_of: Callable[[Resource], str]
) -> None:
    name = copy_of(HOSTS)
    proof = {"state": "Uploaded", "fingerprintSHA256": bytes(32).hex(":")}
    proofs = [{"name": f"{number:063}", **proof} for number in range(host.CERTIFICATES_LIMIT)]
    for told in (proofs, proofs[1:]):
        answer = report(agent, HOSTS, name, {**OWN[HOSTS], "certificates": told})
        assert answer.object()["status"]["certificates"] == told
    assert denied_by(report(agent, HOSTS, name, {"certificates": proofs, "state": "Down"}), fence(world))


@pytest.mark.parametrize("kind", [HOSTS, TEMPLATE_PLACEMENTS], ids=lambda kind: kind.kind)
def test_a_field_of_a_newer_version_is_not_an_agents(
    control_plane: harness.ControlPlane, world: World, agent: Kube, copy_of: Callable[[Resource], str], kind: Resource
) -> None:
    definition = f"{kind.plural}.{base.GROUP}"
    path = f"/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/{TOMORROW}"

    def alter(*operation: Object) -> None:
        words = ("patch", "crd", definition, "--type=json", "-p", json.dumps(operation))
        control_plane.kubectl(*words, check=True)

    def known() -> bool:
        world.admin.patch(kind, name, {"status": {TOMORROW: "x"}}, subresource="status").object()
        return TOMORROW in world.admin.get(kind, name).object()["status"]

    alter({"op": "add", "path": path, "value": {"type": "string"}})
    try:
        name = copy_of(kind)
        until("the field of tomorrow is served", known)
        for value in ("y", None):
            answer = agent.patch(kind, name, {"status": {TOMORROW: value}}, subresource="status")
            assert denied_by(answer, fence(world)), answer
            assert f"may not change status.{TOMORROW}" in answer.message
        report(agent, kind, name).object()
    finally:
        alter({"op": "remove", "path": path})


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
    assert {name for _, name, _ in here - elsewhere} == {"jobs", "pods", "leases", "secrets", "configmaps"}
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


def bind(world: World, role: Object, subjects: list[Object], namespace: str | None = None) -> None:
    """A role of these rules, bound to these subjects."""
    name = unique("role")
    kinds = (ROLES, ROLE_BINDINGS) if namespace else (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS)
    head = {"apiVersion": ROLES.api_version, "metadata": {"name": name}}
    world.admin.create(kinds[0], {**head, "kind": kinds[0].kind, **role}, namespace).object()
    reference = {"apiGroup": ROLES.group, "kind": kinds[0].kind, "name": name}
    binding = {**head, "kind": kinds[1].kind, "roleRef": reference, "subjects": subjects}
    world.admin.create(kinds[1], binding, namespace).object()


def replaced(agent: Kube, kind: Resource, name: str, status: Object) -> Answer:
    """An update of the whole object by way of its status; no role of the chart gives the verb."""
    whole = agent.get(kind, name).object()
    others = [each for each in whole.get("status", {}).get("conditions", []) if each["type"] != "KeystoreSynced"]
    if "conditions" in status:
        status = {**status, "conditions": [*others, *status["conditions"]]}
    whole["status"] = {**whole.get("status", {}), **status}
    return agent.request("PUT", kind.path(name, None, "status"), whole)


def test_the_fence_holds_for_an_agent_with_too_many_rights(control_plane: harness.ControlPlane, world: World) -> None:
    """A role bound to the agents by mistake opens neither other hosts nor creation and deletion."""
    # The agents of another installation: its fence is its own, its rules of SYSTEM templates would speak for both.
    release, namespace, manifests = install(control_plane, without="system-templates")
    other = dataclasses.replace(world, release=release, namespace=namespace)
    subject = {"kind": "ServiceAccount", "name": f"{other.prefix}-agent", "namespace": namespace}
    bind(world, {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}, [subject])
    with other.service_account("agent", world.hosts[0]) as agent:
        until(
            "the fence is enforced",
            lambda: denied_by(agent.patch(HOSTS, world.hosts[1], {"spec": {"zone": "zone-9"}}), fence(other)),
        )
        owner = {"apiVersion": "v1", "kind": "Node", "name": world.hosts[0], "uid": "u"}
        for kind, names in ((HOSTS, world.hosts), (TEMPLATE_PLACEMENTS, world.placements)):
            spec = agent.get(kind, names[0]).object()["spec"]
            made = resource(kind, unique("new"), spec)
            if kind is HOSTS:
                made["metadata"]["name"] = made["spec"]["nodeName"] = unique("kvm")
            answers = {
                "create": agent.create(kind, made),
                "delete": agent.delete(kind, names[0]),
                "collection": agent.request("DELETE", kind.path()),
                "move to own host": agent.patch(
                    kind, names[1], {"spec": {"host": world.hosts[0]} if kind is not HOSTS else {"zone": "zone-2"}}
                ),
                "status": report(agent, kind, names[1]),
                "own spec": agent.patch(
                    kind, names[0], {"spec": {"zone": "zone-2"} if kind is HOSTS else {"host": "x"}}
                ),
                "own labels": agent.patch(kind, names[0], {"metadata": {"labels": {"a": "b"}}}),
                "own annotations": agent.patch(kind, names[0], {"metadata": {"annotations": {"a": "b"}}}),
                "own finalizers": agent.patch(kind, names[0], {"metadata": {"finalizers": ["example.org/a"]}}),
                "own owner": agent.patch(kind, names[0], {"metadata": {"ownerReferences": [owner]}}),
                "own status": replaced(agent, kind, names[0], {"observedGeneration": 9}),
            }
            for what, answer in answers.items():
                assert denied_by(answer, fence(other)), f"{kind.kind}: {what}: {answer}"
            assert all(world.admin.get(kind, name).ok for name in names)
            assert replaced(agent, kind, names[0], OWN[kind]).ok
    control_plane.kubectl("delete", "--wait=false", "-f", "-", input=manifests, check=True)


# --- SYSTEM templates


@dataclasses.dataclass(frozen=True, slots=True)
class Users:
    """All may do anything with templates in `namespace`; `may` has the verb set-system besides."""

    namespace: str
    may: Kube
    may_not: Kube
    one_only: Kube


@pytest.fixture(scope="module")
def users(world: World) -> Iterator[Users]:
    namespace = unique("images")
    world.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).object()
    names = {role: unique(role) for role in ("may", "may-not", "one-only")}
    every = [{"kind": "User", "apiGroup": ROLES.group, "name": name} for name in names.values()]
    rule = {"apiGroups": [base.GROUP], "resources": ["templates"]}
    bind(world, {"rules": [{**rule, "verbs": ALL_VERBS}]}, every, namespace)
    bind(world, {"rules": [{**rule, "verbs": ["set-system"]}]}, every[:1], namespace)
    one = {**rule, "verbs": ["set-system"], "resourceNames": ["the-one"]}
    bind(world, {"rules": [one]}, every[2:], namespace)
    connections = [Kube(world.control_plane.kubeconfig(name, ())) for name in names.values()]
    yield Users(namespace, *connections)
    for connection in connections:
        connection.close()


def template(connection: Kube, namespace: str, type_: str = "USER", name: str | None = None) -> str:
    """Creates a template of that type, by way of a USER template if it has to be SYSTEM; returns its name."""
    name = name or unique("t")
    spec = {**TEMPLATE, "type": "USER" if type_ == "SYSTEM" else type_}
    connection.create(TEMPLATES, resource(TEMPLATES, name, spec, namespace), namespace).object()
    if type_ == "SYSTEM":
        set_type(connection, namespace, name, "SYSTEM").object()
    return name


def set_type(connection: Kube, namespace: str, name: str, type_: str) -> Answer:
    return connection.patch(TEMPLATES, name, {"spec": {"type": type_}}, namespace)


def test_system_is_refused_at_creation_for_everybody(world: World, users: Users) -> None:
    for connection in (users.may, users.may_not, world.admin):
        body = resource(TEMPLATES, unique("t"), {**TEMPLATE, "type": "SYSTEM"}, users.namespace)
        head = {"apiVersion": TEMPLATES.api_version, "kind": "Template"}
        for answer in (
            connection.create(TEMPLATES, body, users.namespace),
            connection.apply(TEMPLATES, {**head, **body}, "test", users.namespace),
        ):
            assert answer.code == 422
            assert denied_by(answer, system_rules(world))
            assert "spec.type: SYSTEM is refused at creation: expected USER or ROUTING, for example" in answer.message


@pytest.mark.parametrize("before", ["USER", "ROUTING"])
def test_a_template_becomes_system_by_who_may_and_not_by_who_may_not(world: World, users: Users, before: str) -> None:
    name = template(users.may_not, users.namespace, before)
    whole = users.may_not.get(TEMPLATES, name, users.namespace).object()
    whole["spec"]["type"] = "SYSTEM"
    for answer in (
        set_type(users.may_not, users.namespace, name, "SYSTEM"),
        users.may_not.request("PUT", TEMPLATES.path(name, users.namespace), whole),
    ):
        assert answer.code == 403
        assert denied_by(answer, system_rules(world))
        assert (
            f"spec.type: {before} to SYSTEM: expected a user with the verb set-system on templates." in answer.message
        )
        assert "ask an administrator" in answer.message
    assert users.may.get(TEMPLATES, name, users.namespace).object()["spec"]["type"] == before
    assert set_type(users.may, users.namespace, name, "SYSTEM").object()["spec"]["type"] == "SYSTEM"


def test_a_template_ceases_to_be_system_only_by_who_may(world: World, users: Users) -> None:
    name = template(users.may, users.namespace, "SYSTEM")
    answer = set_type(users.may_not, users.namespace, name, "USER")
    assert answer.code == 403
    assert "spec.type: SYSTEM to USER: expected a user with the verb set-system" in answer.message
    assert set_type(users.may, users.namespace, name, "USER").object()["spec"]["type"] == "USER"
    users.may_not.delete(TEMPLATES, name, users.namespace).object()


def test_the_verb_can_be_given_for_one_template(world: World, users: Users) -> None:
    template(users.may_not, users.namespace, name="the-one")
    other = template(users.may_not, users.namespace)
    assert set_type(users.one_only, users.namespace, other, "SYSTEM").code == 403
    set_type(users.one_only, users.namespace, "the-one", "SYSTEM").object()


def test_user_and_routing_change_freely(users: Users) -> None:
    name = template(users.may_not, users.namespace)
    for type_ in ("ROUTING", "USER"):
        set_type(users.may_not, users.namespace, name, type_).object()
    users.may_not.delete(TEMPLATES, name, users.namespace).object()


def test_a_system_template_is_edited_like_any_other(world: World, users: Users, controller: Kube) -> None:
    """Also by the controller, which has no set-system: finalizers and status."""
    name = template(users.may, users.namespace, "SYSTEM")
    patch: Object = {"spec": {"displayText": "new"}, "metadata": {"labels": {"a": "b"}}}
    assert users.may_not.patch(TEMPLATES, name, patch, users.namespace).object()["spec"]["displayText"] == "new"
    for finalizers in ([base.FINALIZER], None):
        patch = {"metadata": {"finalizers": finalizers}}
        kept = controller.patch(TEMPLATES, name, patch, users.namespace).object()["metadata"]
        assert kept.get("finalizers") == finalizers
    body = {"apiVersion": TEMPLATES.api_version, "kind": "Template", "metadata": {"name": name}}
    status: dict[str, Any] = {"status": {"protocol": "HTTPS"}}
    answer = controller.apply(TEMPLATES, {**body, **status}, base.CONTROLLER, users.namespace, subresource="status")
    assert answer.object()["status"]["protocol"] == "HTTPS"


def test_a_system_template_cannot_be_deleted_by_anybody(world: World, users: Users) -> None:
    system, user = template(users.may, users.namespace, "SYSTEM"), template(users.may, users.namespace)
    for connection in (users.may, users.may_not, world.admin):
        answer = connection.delete(TEMPLATES, system, users.namespace)
        assert answer.code == 403
        assert denied_by(answer, system_rules(world))
        assert "spec.type: a SYSTEM template cannot be deleted: expected USER or ROUTING" in answer.message
        assert "for example to type: USER" in answer.message
    collection = users.may.request("DELETE", TEMPLATES.path(None, users.namespace))
    assert denied_by(collection, system_rules(world))
    assert users.may.get(TEMPLATES, system, users.namespace).ok
    if users.may.get(TEMPLATES, user, users.namespace).ok:
        users.may_not.delete(TEMPLATES, user, users.namespace).object()


def test_a_template_that_is_being_deleted_can_be_let_go(world: World, users: Users, controller: Kube) -> None:
    """It became SYSTEM too late: removing the finalizer is an update, which the rules leave alone."""
    name = template(users.may, users.namespace)
    controller.patch(TEMPLATES, name, {"metadata": {"finalizers": [base.FINALIZER]}}, users.namespace).object()
    users.may_not.delete(TEMPLATES, name, users.namespace).object()
    set_type(users.may, users.namespace, name, "SYSTEM").object()
    controller.patch(TEMPLATES, name, {"metadata": {"finalizers": None}}, users.namespace).object()
    assert users.may.get(TEMPLATES, name, users.namespace).code == 404


def test_a_namespace_that_goes_takes_its_system_templates_along() -> None:
    """With Kubernetes' own namespace controller, which deletes what the namespace holds, one kind after the other."""
    with harness.ControlPlane(controller_manager=True) as control_plane:
        release, namespace, _ = install(control_plane)
        with Kube(control_plane.kubeconfig()) as admin:
            world = World(control_plane, admin, release, namespace, ("", ""), ("", ""))
            images = unique("images")
            head = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": images}}
            admin.create(NAMESPACES, head).object()
            name = template(admin, images, "SYSTEM")
            until(
                "a SYSTEM template is safe",
                lambda: denied_by(
                    admin.request("DELETE", TEMPLATES.path(name, images), query={"dryRun": "All"}), system_rules(world)
                ),
            )
            admin.delete(NAMESPACES, images).object()
            until("the namespace is gone", lambda: admin.get(NAMESPACES, images).code == 404, seconds=120)
            assert admin.get(TEMPLATES, name, images).code == 404
            for policy in (fence(world), system_rules(world)):
                checked = until(
                    f"Kubernetes has checked the types of {policy}",
                    lambda policy=policy: admin.get(ADMISSION_POLICIES, policy).object().get("status"),  # type: ignore[misc]
                )
                assert checked["typeChecking"] == {}, policy
