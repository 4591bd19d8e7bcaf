"""The kinds of objects that the product reads or writes, and where the API serves them.

Used by everything that calls `client.Api`. Kinds are fixed here, so that no discovery request is ever needed.
"""

from dataclasses import dataclass
from urllib.parse import quote

from directdownload.resources.base import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: `group` is empty for the core API; `plural` is its name in paths, RBAC rules and metrics."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str | None = None, namespace: str | None = None, subresource: str | None = None) -> str:
        """The path of a collection, an object or its subresource, percent-encoded.

        Without `namespace` the collection of all namespaces. For a cluster-scoped kind `namespace` is ignored.
        Raises ValueError for an object of a namespaced kind whose namespace is missing.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            root = f"{root}/namespaces/{quote(namespace, safe='')}"
        elif self.namespaced and name:
            raise ValueError(f"{self.kind} {name!r}: a namespaced object needs a namespace; pass namespace=")
        path = f"{root}/{self.plural}"
        if name:
            path = f"{path}/{quote(name, safe='')}"
        return f"{path}/{subresource}" if subresource else path


ZONES = Resource(GROUP, VERSION, "zones", "Zone", namespaced=False)
HOSTS = Resource(GROUP, VERSION, "hosts", "Host", namespaced=False)
STORAGE_POOLS = Resource(GROUP, VERSION, "storagepools", "StoragePool", namespaced=False)
TEMPLATES = Resource(GROUP, VERSION, "templates", "Template", namespaced=True)
TEMPLATE_DEPLOYMENTS = Resource(GROUP, VERSION, "templatedeployments", "TemplateDeployment", namespaced=True)
TEMPLATE_PLACEMENTS = Resource(GROUP, VERSION, "templateplacements", "TemplatePlacement", namespaced=False)
CERTIFICATES = Resource(GROUP, VERSION, "directdownloadcertificates", "DirectDownloadCertificate", namespaced=False)
#: The kinds of this product.
OURS = (ZONES, HOSTS, STORAGE_POOLS, TEMPLATES, TEMPLATE_DEPLOYMENTS, TEMPLATE_PLACEMENTS, CERTIFICATES)

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
JOBS = Resource("batch", "v1", "jobs", "Job", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
#: The same objects, with the field that selects those of one object (`involvedObject.uid`).
CORE_EVENTS = Resource("", "v1", "events", "Event", namespaced=True)
DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
