"""An installed chart, and those whom its admission policies and roles are about: agents, the controller, people."""

import contextlib
import dataclasses
from collections.abc import Iterator

import yaml
from tests.cluster import harness
from tests.world import kube
from tests.world.kube import Answer, Kube, Object, resource, unique
from tests.world.waiting import until

from directdownload.cluster.kinds import (
    CERTIFICATES,
    HOSTS,
    NODES,
    STORAGE_POOLS,
    TEMPLATE_DEPLOYMENTS,
    TEMPLATE_PLACEMENTS,
    TEMPLATES,
    ZONES,
    Resource,
)
from directdownload.resources import base

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
        "demands": [
            {"namespace": "default", "template": "t", "uid": "", "since": "2025-01-01T00:00:00Z", "volumes": 1}
        ],
        "peerRequest": {"csr": "c", "clientCSR": "d", "signingKey": "k"},
        "conditions": [SYNCED],
    },
    TEMPLATE_PLACEMENTS: {"progress": {"percent": 50}, "observed": {"present": True, "revision": "r"}},
}
#: What the controller has written, so that there is something to change and to take away.
CONTROLLERS: dict[Resource, Object] = {
    HOSTS: {
        **{"state": "Up", "nodeUID": "u", "architecture": "x86_64"},
        **{"observedGeneration": 1, "conditions": [READY]},
        "served": [
            {"namespace": "default", "template": "t", "uid": "", "since": "2025-01-01T00:00:00Z", "state": "Waiting"}
        ],
        "peer": {
            **{"serverCertificate": "s", "clientCertificate": "c", "bundle": "b", "keys": ["k"]},
            **{"notAfter": TIME, "trustDomain": "d", "port": 7443},
        },
    },
    TEMPLATE_PLACEMENTS: {
        "phase": "Ready",
        "attempts": 1,
        "conditions": [READY],
        "file": {"path": "/p", "digest": "sha256:" + 64 * "0", "content": "c"},
        "peers": {"role": "Peer", "unavailable": 1},
    },
}
#: Of another version.
TOMORROW = "ofTomorrow"


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


def fence(world: World) -> str:
    return f"{world.prefix}-node-fence"


def system_rules(world: World) -> str:
    return f"{world.prefix}-system-templates"


def report(agent: Kube, kind: Resource, name: str, status: Object | None = None) -> Answer:
    """What an agent does: server-side apply of the status; all that is its own if none is given."""
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
    return agent.apply(kind, {**body, "status": status or OWN[kind]}, base.AGENT, subresource="status")


def bind(world: World, role: Object, subjects: list[Object], namespace: str | None = None) -> None:
    """A role of these rules, bound to these subjects."""
    name = unique("role")
    kinds = (ROLES, ROLE_BINDINGS) if namespace else (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS)
    head = {"apiVersion": ROLES.api_version, "metadata": {"name": name}}
    world.admin.create(kinds[0], {**head, "kind": kinds[0].kind, **role}, namespace).object()
    reference = {"apiGroup": ROLES.group, "kind": kinds[0].kind, "name": name}
    binding = {**head, "kind": kinds[1].kind, "roleRef": reference, "subjects": subjects}
    world.admin.create(kinds[1], binding, namespace).object()


@contextlib.contextmanager
def installed(control_plane: harness.ControlPlane) -> Iterator[World]:
    """The chart for a while, alone: rules of the whole cluster would meet the tests of other files."""
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
    control_plane.kubectl("delete", "--wait=false", "-f", "-", input=manifests, check=True)
