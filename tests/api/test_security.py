"""A hostile tenant against the real API server and controller: someone who has the chart's role for editors in one
namespace, and may write Secrets there that they cannot read back.

Which threat is tested where (SECURITY.md says what each of them means):

- a stolen agent token: `policies/test_node_fence.py` (also with too many rights), `tests/e2e/test_security.py` (a real
  one)
- a SYSTEM template without the verb: `policies/test_system_templates.py`
- Secrets through headersSecretRef: type, origins, line breaks in `test_headers.py`; redirects, mirrors and metalinks in
  `tests/unit/download/` (`test_fetch`, `test_hostile_sources`, `test_http_source`, `test_metalink_fetch`,
  `test_probe`), the whole way in `tests/e2e/test_sources.py`; here: other namespaces, and what becomes of copies
- zones and templates of others: `tests/unit/planning/test_deployments.py`, `test_wishes.py`, and here
- paths on hosts: `test_resources.py` (what the kinds refuse), `tests/unit/agent/pools/test_monitor.py` (pool roots,
  links), `tests/unit/download/test_job.py` (what a job refuses), and here
- hostile sources, images and pools: `tests/unit/download/`
"""

import dataclasses
import functools
import posixpath
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster import harness
from tests.world import steps
from tests.world.header_secrets import WITH_HEADERS, begin, copies, delete_secret
from tests.world.header_secrets import tenant as namespace_of_headers
from tests.world.kube import Kube, Object, rendered, resource
from tests.world.simulation import POOL_PATH, Simulation, fail, succeed
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

ROLES = kinds.Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", namespaced=True)
BINDINGS = kinds.Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", namespaced=True)
INFRASTRUCTURE = [kinds.ZONES, kinds.HOSTS, kinds.STORAGE_POOLS, kinds.TEMPLATE_PLACEMENTS, kinds.CERTIFICATES]
WISHES = [kinds.TEMPLATES, kinds.TEMPLATE_DEPLOYMENTS]
#: A Template's file is called after its uid, which the API server draws.
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True, slots=True)
class Tenant:
    """`connection` may do anything with templates and deployments of `namespace`, and make Secrets there."""

    world: Simulation
    namespace: str
    connection: Kube

    def create(self, kind: kinds.Resource, name: str, spec: Object) -> None:
        self.connection.create(kind, resource(kind, name, spec, self.namespace), self.namespace).object()

    def ready(self, kind: kinds.Resource, name: str) -> tuple[str, str]:
        conditions = self.world.get(kind, name, self.namespace).get("status", {}).get("conditions", ())
        return next(((c["reason"], c["message"]) for c in conditions if c["type"] == "Ready"), ("", ""))


@functools.cache
def _rights_of_an_editor() -> list[Object]:
    """What the chart adds to Kubernetes' role `edit`."""
    documents = [each for each in yaml.safe_load_all(rendered("release", "operator")) if each]
    (role,) = (d for d in documents if d["kind"] == "ClusterRole" and d["metadata"]["name"].endswith("operator-edit"))
    return list(role["rules"])


@pytest.fixture
def tenant(fleet: harness.ControlPlane, world: Simulation) -> Iterator[Tenant]:
    namespace, user = world.create_namespace("mallory"), f"{world.prefix}-mallory"
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "update", "delete"]}
    rules = [*_rights_of_an_editor(), secrets]
    role: Object = {"metadata": {"name": "tenant"}, "rules": rules}
    binding: Object = {
        "metadata": {"name": "tenant"},
        "roleRef": {"apiGroup": ROLES.group, "kind": "Role", "name": "tenant"},
        "subjects": [{"apiGroup": ROLES.group, "kind": "User", "name": user}],
    }
    with world.kube() as admin, Kube(fleet.kubeconfig(user, ())) as connection:
        admin.create(ROLES, role, namespace).object()
        admin.create(BINDINGS, binding, namespace).object()
        made = Tenant(world, namespace, connection)
        until("the rights", lambda: connection.request("GET", kinds.TEMPLATES.path(None, namespace)).ok)
        yield made


def test_a_tenant_reaches_nothing_but_wishes_of_their_own(tenant: Tenant) -> None:
    connection, namespace = tenant.connection, tenant.namespace
    tenant.create(kinds.TEMPLATES, "mine", {"url": "https://images.example.org/x", "format": "RAW"})
    tenant.create(kinds.TEMPLATE_DEPLOYMENTS, "mine", {"templateRef": {"name": "mine"}, "zone": "zone"})
    for kind in INFRASTRUCTURE:
        body = resource(kind, "mine", {})
        for answer in (
            connection.create(kind, body),
            connection.patch(kind, "mine", {"spec": {}}),
            connection.patch(kind, "mine", {"status": {}}, subresource="status"),
            connection.delete(kind, "mine"),
            connection.request("GET", kind.path()),
        ):
            assert answer.code == 403, (kind.kind, answer.message)
    for kind in WISHES:
        # What is believed of a template, its digest above all, stands in its status.
        forged = {"status": {"digest": f"sha256:{'0' * 64}", "conditions": []}}
        assert connection.patch(kind, "mine", forged, namespace, subresource="status").code == 403
        assert connection.request("GET", kind.path()).code == 403
        elsewhere = tenant.world.namespace
        assert connection.create(kind, resource(kind, "mine", {}, elsewhere), elsewhere).code == 403
    for where in (namespace, tenant.world.namespace):
        assert connection.request("GET", kinds.SECRETS.path(None, where)).code == 403
        assert connection.create(kinds.JOBS, {"metadata": {"name": "mine"}}, where).code == 403
    # The labels by which zones and templates choose namespaces are not theirs to set.
    assert connection.patch(kinds.NAMESPACES, namespace, {"metadata": {"labels": {"team": "gold"}}}).code == 403


def test_no_zone_or_template_of_others_without_their_leave(tenant: Tenant) -> None:
    world = tenant.world
    world.create_zone(templateNamespaces={"matchLabels": {"team": "gold"}})
    world.add_host("kvm-1")
    world.start_controller()
    world.create_template("private")
    world.create_template("shared", allowedNamespaces={"matchLabels": {"team": "silver"}})
    tenant.create(kinds.TEMPLATES, "own", {"url": "https://images.example.org/x", "format": "RAW"})
    references: dict[str, Object] = {
        "own": {"name": "own"},
        "private": {"name": "private", "namespace": world.namespace},
        "shared": {"name": "shared", "namespace": world.namespace},
    }
    for name, reference in references.items():
        tenant.create(kinds.TEMPLATE_DEPLOYMENTS, name, {"templateRef": reference, "zone": world.zone})
    deployments = kinds.TEMPLATE_DEPLOYMENTS
    until("the refusal", lambda: tenant.ready(deployments, "own")[0] == "NamespaceNotAllowed")
    with world.kube() as admin:
        labels = {"metadata": {"labels": {"team": "gold"}}}
        admin.patch(kinds.NAMESPACES, tenant.namespace, labels).object()
    until("one's own, once the zone allows it", lambda: tenant.ready(deployments, "own")[0] == "Converged")
    for name in ("private", "shared"):
        assert tenant.ready(deployments, name)[0] == "TemplateNotAllowed"
    steps.settle(world)
    assert {p["spec"]["templateRef"]["name"] for p in world.placements()} == {"own"}
    assert [entry[1:] for entry in world.started] == [("fetch", 1)]


HOSTILE = (
    "../../../etc/cron.d/x",
    "..",
    "/etc/shadow",
    "a/../../b",
    "$(reboot)",
    "`reboot`",
    "\x1b[31mred",
    "%2e%2e%2f",
)


def test_nothing_that_a_tenant_writes_becomes_a_path(tenant: Tenant) -> None:
    documents: list[JobDocument] = []

    def look(document: JobDocument) -> JobResult | None:
        documents.append(document)
        return succeed(document)

    world = tenant.world
    world.behaviour = look
    steps.hosts_of_a_zone(world, 1)
    world.start_controller()
    for number, text in enumerate(HOSTILE):
        target = text.replace("\x1b", "").replace("/etc", "/..%2fetc")
        spec = {
            "url": f"https://images.example.org/{target}",
            "mirrors": [f"http://mirror.example.org/{target}"],
            "format": ("QCOW2", "ISO")[number % 2],
            "displayText": text,
            "details": {"path": text, text: "x"},
        }
        tenant.create(kinds.TEMPLATES, f"t{number}", spec)
        reference = {"templateRef": {"name": f"t{number}"}, "zone": world.zone}
        tenant.create(kinds.TEMPLATE_DEPLOYMENTS, f"t{number}", reference)
    ready = "Converged"
    for number in range(len(HOSTILE)):
        until(f"t{number}", lambda n=number: tenant.ready(kinds.TEMPLATE_DEPLOYMENTS, f"t{n}")[0] == ready)  # type: ignore[misc]
    uids = {item["metadata"]["uid"] for item in _templates(tenant)}
    fetched = [document for document in documents if document.verb == "fetch"]
    assert {document.template_uid for document in fetched} == uids
    for document in fetched:
        assert UID.fullmatch(document.template_uid)
        assert document.file_name in (document.template_uid, f"{document.template_uid}.iso")
        assert document.pool.path == POOL_PATH
    for placement in world.placements():
        directory, name = posixpath.split(placement["spec"]["path"])
        assert (directory, name.removesuffix(".iso") in uids) == (POOL_PATH, True)


def _templates(tenant: Tenant) -> list[Object]:
    return list(tenant.connection.request("GET", kinds.TEMPLATES.path(None, tenant.namespace)).object()["items"])


@pytest.mark.parametrize(
    "spec",
    [
        *({"url": url} for url in ("file:///etc/shadow", "ftp://a.example/x", "http:///etc/shadow", "/etc/shadow")),
        {"mirrors": ["file:///etc/shadow"]},
        {"format": "../QCOW2"},
        {"architecture": "../x86_64"},
        {"zones": ["../zone-1"]},
        *({field: "/etc/cron.d/x"} for field in ("path", "fileName", "pool", "host")),
        {"headersSecretRef": {"name": "../../kube-system/secrets/admin"}},
        {"headersSecretRef": {"name": "token", "namespace": "kube-system"}},
    ],
    ids=str,
)
def test_what_could_lead_elsewhere_is_refused_at_once(tenant: Tenant, spec: dict[str, Any]) -> None:
    whole = {"url": "https://images.example.org/x", "format": "RAW", **spec}
    body = resource(kinds.TEMPLATES, "hostile", whole, tenant.namespace)
    assert tenant.connection.create(kinds.TEMPLATES, body, tenant.namespace).code in (400, 422)


def test_a_secret_of_another_namespace_is_never_looked_for_there(tenant: Tenant) -> None:
    """The good one lies in the operator's own namespace, with origins that a tenant may serve from."""
    world = tenant.world
    steps.hosts_of_a_zone(world, 1)
    world.start_controller()
    annotations = {"directdownload.dev/origins": "https://images.example.org"}
    secret: Object = {
        "metadata": {"name": "token", "annotations": annotations},
        "type": "directdownload.dev/headers",
        "data": {"Authorization": "c2VjcmV0"},
    }
    with world.kube() as admin:
        admin.create(kinds.SECRETS, secret, world.namespace).object()
    spec = {"url": "https://images.example.org/x", "format": "RAW", **WITH_HEADERS}
    # Without strict checking, as an old client does it: what the schema does not know is dropped.
    spec["headersSecretRef"] = {"name": "token", "namespace": world.namespace}
    body = resource(kinds.TEMPLATES, "thief", spec, tenant.namespace)
    made = tenant.connection.request("POST", kinds.TEMPLATES.path(None, tenant.namespace), body).object()
    assert made["spec"]["headersSecretRef"] == {"name": "token"}
    tenant.create(kinds.TEMPLATE_DEPLOYMENTS, "thief", {"templateRef": {"name": "thief"}, "zone": world.zone})
    until("the refusal", lambda: tenant.ready(kinds.TEMPLATES, "thief")[0] == "SecretNotFound")
    assert f"{tenant.namespace}/token" in tenant.ready(kinds.TEMPLATES, "thief")[1]
    steps.settle(world)
    assert [*world.started, *world.kubelets.probed] == []
    assert [copy["metadata"]["name"] for copy in copies(world)] == ["token"]


def test_no_copy_of_a_secret_outlives_a_download_that_failed_or_a_controller_that_died(world: Simulation) -> None:
    world.behaviour = lambda document: fail(Reason.SOURCE_UNAVAILABLE)
    first = begin(world, 2, secret=True)
    until("failures", lambda: len(world.started) >= 4)
    world.behaviour = steps.hang
    until("downloads with a copy each", lambda: world.kubelets.running() and copies(world))
    steps.kill(world, first)
    with world.kube() as admin:
        admin.delete(kinds.TEMPLATES, "debian", namespace_of_headers(world)).object()
    delete_secret(world)
    world.behaviour = succeed
    world.start_controller("second")
    until("the placements to go", lambda: not world.placements())
    until("every copy to go", lambda: not copies(world))
    until("every job to go", lambda: not world.jobs() and not world.probes())


def test_a_secret_is_not_used_for_a_url_that_took_its_place(world: Simulation) -> None:
    """Made for one origin, then the Template is made anew under its name with a server of the tenant's."""
    begin(world, 1, secret=True)
    world.converged(1)
    with world.kube() as admin:
        admin.delete(kinds.TEMPLATES, "debian", namespace_of_headers(world)).object()
        until("it to go", lambda: admin.get(kinds.TEMPLATES, "debian", namespace_of_headers(world)).code == 404)
    until("its placements to go", lambda: not world.placements())
    number = len(world.started)
    evil = "http://evil.example.org/x"
    world.create_template(namespace=namespace_of_headers(world), allowedNamespaces={}, **{**WITH_HEADERS, "url": evil})

    def reason() -> str:
        conditions = world.get(kinds.TEMPLATES, "debian", namespace_of_headers(world)).get("status", {})
        return next((c["reason"] for c in conditions.get("conditions", ()) if c["type"] == "Ready"), "")

    until("the refusal", lambda: reason() == "SecretForbidden")
    steps.settle(world)
    assert (len(world.started), copies(world)) == (number, [])
