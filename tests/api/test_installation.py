"""What belongs to an installation but not to a release: the definitions, from first to last, and the roles of people.

By the program itself with the rights that the chart gives it, on a control plane of their own.
"""

import copy
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from tests.cluster import harness
from tests.world import cli_world, kube, samples
from tests.world.kube import Kube, Object
from tests.world.waiting import until

from directdownload.cluster import definitions, kinds
from directdownload.cluster.kinds import DEFINITIONS, Resource
from directdownload.resources import crd
from directdownload.resources.base import FINALIZER, GROUP

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

NAMES = [f"{kind.DEFINITION.plural}.{GROUP}" for kind in crd.KINDS]
REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False)


@pytest.fixture(scope="module")
def own() -> Iterator[harness.ControlPlane]:
    """Without the definitions, and with Kubernetes' controllers: one of them aggregates roles."""
    with harness.ControlPlane(controller_manager=True) as running:
        yield running


@pytest.fixture(scope="module")
def api(own: harness.ControlPlane) -> Iterator[Kube]:
    with Kube(own.kubeconfig()) as connection:
        yield connection


@pytest.fixture(scope="module")
def chart(own: harness.ControlPlane) -> list[Object]:
    """Applied to the control plane but for what would run."""
    found = [each for each in yaml.safe_load_all(kube.rendered("release", "default", hooks=True)) if each]
    applied = [each for each in found if each["kind"] not in ("Job", "Pod", "Deployment", "DaemonSet")]
    own.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(applied), check=True)
    return found


@pytest.fixture
def hook(own: harness.ControlPlane, chart: list[Object]) -> "Hook":
    (job,) = (each for each in chart if each["kind"] == "Job" and each["metadata"]["name"].endswith("-crds"))
    return Hook(own, job["spec"]["template"]["spec"])


class Hook:
    """The program as the pod of the hook runs it: its arguments, its account."""

    def __init__(self, own: harness.ControlPlane, pod: Object) -> None:
        (container,) = pod["containers"]
        self._arguments = container["args"]
        token = own.service_account_token(pod["serviceAccountName"], "default")
        self.kubeconfig = own.token_kubeconfig(token, "crds")

    def run(self) -> subprocess.CompletedProcess[str]:
        return directdownload(self.kubeconfig, *self._arguments)

    def lines(self) -> set[str]:
        done = self.run()
        assert done.returncode == 0, done.stderr
        return set(done.stdout.splitlines())


def directdownload(
    kubeconfig: pathlib.Path, *arguments: str, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    return cli_world.directdownload(*arguments, "--kubeconfig", str(kubeconfig), input=input)


def older(version: str = "0.0.9") -> list[Object]:
    """The definitions of an earlier version that knew less."""
    found = [crd.definition(kind) for kind in crd.KINDS]
    for each in found:
        each["metadata"]["annotations"] = {crd.VERSION_ANNOTATION: version} if version else {}
    schema = found[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del schema["sourcePolicy"]
    return found


def installed(own: harness.ControlPlane, documents: list[Object]) -> None:
    """As Helm puts crds/ there: by an apply of its own, as another manager."""
    own.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-"),
        input=yaml.safe_dump_all(documents),
        check=True,
    )


def stored(api: Kube, name: str = NAMES[0]) -> Object:
    return api.get(DEFINITIONS, name).object()


def knows_source_policy(api: Kube) -> bool:
    schema = stored(api)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return "sourcePolicy" in schema["properties"]["spec"]["properties"]


def test_the_hook_makes_the_definitions_and_then_has_nothing_to_do(
    own: harness.ControlPlane, api: Kube, hook: Hook
) -> None:
    own.kubectl("delete", "crd", *NAMES, "--ignore-not-found", check=True)
    assert hook.lines() == {f"{name}: created" for name in NAMES}
    # The hook has waited for that.
    assert all(definitions.is_established(stored(api, name)) for name in NAMES)
    versions = {name: stored(api, name)["metadata"]["resourceVersion"] for name in NAMES}
    assert hook.lines() == {f"{name}: unchanged" for name in NAMES}
    assert versions == {name: stored(api, name)["metadata"]["resourceVersion"] for name in NAMES}


@pytest.mark.parametrize(("version", "told"), [("0.0.9", "0.0.9"), ("", "unknown")])
def test_the_hook_upgrades_what_helm_has_installed(
    own: harness.ControlPlane, api: Kube, hook: Hook, version: str, told: str
) -> None:
    installed(own, older(version))
    if not version:
        # Of an earlier test, whose manager owns it.
        own.kubectl("annotate", "crd", NAMES[0], f"{crd.VERSION_ANNOTATION}-", check=True)
    assert not knows_source_policy(api)
    assert f"{NAMES[0]}: upgraded from version {told} to 0.2.0" in hook.lines()
    assert knows_source_policy(api)
    # What a later version no longer has goes, although Helm was its first owner.
    assert [crd.definition(kind)["spec"]["versions"] for kind in crd.KINDS] == [
        drop_defaults(stored(api, name)["spec"]["versions"]) for name in NAMES
    ]


def drop_defaults(versions: list[Object]) -> list[Object]:
    found = copy.deepcopy(versions)
    for version in found:
        for column in version.get("additionalPrinterColumns", ()):
            if not column.get("priority"):
                column.pop("priority", None)
    return found


def test_definitions_of_a_newer_version_are_left_as_they_are(own: harness.ControlPlane, api: Kube, hook: Hook) -> None:
    """An older schema would cut the fields of the newer one out of every object that is written."""
    newer = older("0.10.0")
    installed(own, newer)
    before = stored(api)
    assert f"{NAMES[0]}: kept, its version 0.10.0 is newer than 0.2.0" in hook.lines()
    assert stored(api) == before


def test_a_version_of_the_api_in_which_objects_are_stored_is_never_dropped(
    own: harness.ControlPlane, api: Kube, hook: Hook
) -> None:
    others = older()
    last = others[-1]["spec"]["versions"]
    last.insert(0, {**copy.deepcopy(last[0]), "name": "v1"})
    last[1]["storage"] = False
    installed(own, others)
    done = hook.run()
    api.patch(DEFINITIONS, NAMES[-1], {"status": {"storedVersions": ["v1alpha1"]}}, subresource="status").object()
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"Error: {NAMES[-1]}: objects are stored in version v1 of the API, which 0.2.0 does not know: nothing was "
        "changed; install a release that has it\n"
    )
    assert not knows_source_policy(api), "others were changed before the refusal"


def test_the_account_of_the_hook_may_do_no_more(own: harness.ControlPlane, hook: Hook) -> None:
    installed(own, older())
    with Kube(hook.kubeconfig) as connection:
        path = DEFINITIONS.path()
        assert connection.request("GET", path).code == 403
        assert connection.request("GET", DEFINITIONS.path("others.example.org")).code == 403
        assert connection.delete(DEFINITIONS, NAMES[0]).code == 403
        assert connection.request("GET", kinds.SECRETS.path(None, "default")).code == 403
    nobody = directdownload(own.kubeconfig("nobody", ()), "crds", "apply")
    assert nobody.returncode == 3
    assert nobody.stderr.startswith(
        "Error: 'nobody' may not get customresourcedefinitions.apiextensions.k8s.io (cluster-"
    )


def test_what_is_printed_can_be_applied(own: harness.ControlPlane, api: Kube, hook: Hook) -> None:
    printed = cli_world.directdownload("crds", "print").stdout
    assert list(yaml.safe_load_all(printed)) == [crd.definition(kind) for kind in crd.KINDS]
    installed(own, older())
    own.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=printed, check=True)
    assert len(hook.lines()) == len(NAMES)
    assert knows_source_policy(api)


# --- their end


def test_they_are_not_deleted_under_a_controller_that_runs(
    own: harness.ControlPlane, api: Kube, chart: list[Object]
) -> None:
    """It would take the deletion of a template for a wish to remove its files."""
    kube.install_definitions(own)
    (deployment,) = (each for each in chart if each["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    metadata = {"name": "controller-0", "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    api.create(kinds.PODS, pod, "default").object()
    try:
        done = directdownload(own.kubeconfig(), "crds", "delete", "--yes")
    finally:
        own.kubectl("delete", "pod", "controller-0", "--force", check=True)
    assert done.returncode == 3
    assert "the controller controller-0 runs in namespace default" in done.stderr
    assert "helm uninstall release -n default --wait" in done.stderr
    assert stored(api)


def test_who_does_not_say_yes_deletes_nothing(own: harness.ControlPlane, api: Kube) -> None:
    kube.install_definitions(own)
    api.create(kinds.ZONES, kube.resource(kinds.ZONES, "zone-1", samples.MINIMAL[kinds.ZONES])).object()
    done = directdownload(own.kubeconfig(), "crds", "delete", input="n\n")
    assert done.returncode == 1
    assert "Delete 1 Zone, and their definitions; files on hosts stay. Continue?" in done.stderr
    assert stored(api)


# --- roles of people


def may(user: Kube, verb: str, resource: str, namespace: str) -> bool:
    scope = {} if resource in INFRASTRUCTURE else {"namespace": namespace}
    attributes = {"verb": verb, "group": GROUP, "resource": resource, **scope}
    review = {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, "spec": {"resourceAttributes": attributes}}
    return bool(user.request("POST", REVIEWS.path(), review).object()["status"]["allowed"])


TENANT = ("templates", "templatedeployments")
INFRASTRUCTURE = ("zones", "hosts", "storagepools", "directdownloadcertificates", "templateplacements")
#: role, is it bound in the whole cluster → verb, resources that it may, resources that it may not
RIGHTS: list[tuple[str, bool, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]] = [
    ("view", False, {"list": (TENANT, INFRASTRUCTURE), "create": ((), TENANT), "set-system": ((), ("templates",))}),
    ("view", True, {"list": ((*TENANT, *INFRASTRUCTURE), ()), "patch": ((), (*TENANT, *INFRASTRUCTURE))}),
    ("edit", False, {"create": (TENANT, INFRASTRUCTURE), "delete": (TENANT, ()), "set-system": ((), ("templates",))}),
    ("edit", True, {"list": ((*TENANT, *INFRASTRUCTURE), ()), "create": (TENANT, INFRASTRUCTURE)}),
    ("admin", False, {"create": (TENANT, INFRASTRUCTURE), "set-system": ((), ("templates",))}),
    ("admin", True, {"patch": (TENANT, INFRASTRUCTURE), "set-system": ((), ("templates",))}),
    ("release-direct-download-operator-edit", False, {"create": (TENANT, INFRASTRUCTURE)}),
    (
        "release-direct-download-operator-infrastructure-admin",
        True,
        {"list": ((*TENANT, *INFRASTRUCTURE), ()), "create": (INFRASTRUCTURE[:4], (*TENANT, "templateplacements"))},
    ),
    (
        "release-direct-download-operator-certificate-admin",
        True,
        {
            "create": (("directdownloadcertificates",), (*TENANT, "zones", "hosts")),
            "list": (("zones", "hosts"), TENANT),
        },
    ),
    ("release-direct-download-operator-infrastructure-view", True, {"list": (INFRASTRUCTURE, TENANT)}),
    (
        "release-direct-download-operator-system-templates",
        False,
        {"set-system": (("templates",), ()), "create": ((), TENANT)},
    ),
]


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize(
    ("role", "everywhere", "rights"), RIGHTS, ids=[f"{role}-{'all' if wide else 'one'}" for role, wide, _ in RIGHTS]
)
def test_roles_of_people(
    own: harness.ControlPlane,
    role: str,
    everywhere: bool,
    rights: dict[str, tuple[tuple[str, ...], tuple[str, ...]]],
) -> None:
    """The built-in roles have been completed by Kubernetes' own controller."""
    name = f"{role}-{everywhere}".lower()
    binding = "clusterrolebinding" if everywhere else "rolebinding"
    own.kubectl("create", binding, name, f"--clusterrole={role}", f"--user={name}", check=True)
    with Kube(own.kubeconfig(name, ())) as user:
        first = next((verb, granted[0]) for verb, (granted, _) in rights.items() if granted)
        until("the role to take effect", lambda: may(user, *first, "default"))
        for verb, (granted, refused) in rights.items():
            for resource in (*granted, *refused):
                assert may(user, verb, resource, "default") is (resource in granted), f"{verb} {resource}"
                if not everywhere:
                    assert not may(user, verb, resource, "kube-system"), f"{verb} {resource} elsewhere"


@pytest.mark.parametrize(("value", "suffixes"), [("createUserRoles", ()), ("aggregate", ("-view", "-edit"))])
def test_roles_of_people_can_be_left_out(value: str, suffixes: tuple[str, ...]) -> None:
    found = yaml.safe_load_all(kube.rendered("release", "default", "--set", f"rbac.{value}=false"))
    labels = {
        each["metadata"]["name"]: each["metadata"]["labels"] for each in found if each and each["kind"] == "ClusterRole"
    }
    assert {f"release-direct-download-operator{suffix}" for suffix in suffixes} <= labels.keys()
    assert ("release-direct-download-operator-view" in labels) is bool(suffixes)
    assert not any("aggregate" in key for each in labels.values() for key in each)


# --- and the end of all: what comes after this finds no definitions


def test_deleting_them_takes_objects_along_that_nobody_lets_go(own: harness.ControlPlane, api: Kube) -> None:
    kube.install_definitions(own)
    held = {**kube.resource(kinds.TEMPLATES, "debian", samples.MINIMAL[kinds.TEMPLATES], "default")}
    held["metadata"]["finalizers"] = [FINALIZER]
    api.create(kinds.TEMPLATES, held, "default").object()
    placement = kube.resource(kinds.TEMPLATE_PLACEMENTS, "p", samples.MINIMAL[kinds.TEMPLATE_PLACEMENTS])
    placement["metadata"]["finalizers"] = [FINALIZER]
    api.create(kinds.TEMPLATE_PLACEMENTS, placement).object()
    api.create(kinds.ZONES, kube.resource(kinds.ZONES, "zone-2", samples.MINIMAL[kinds.ZONES])).object()
    done = directdownload(own.kubeconfig(), "crds", "delete", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"templates.{GROUP}: deleted, 1 objects were held by a finalizer" in done.stdout
    assert [api.get(DEFINITIONS, name).code for name in NAMES] == [404] * len(NAMES)
    # Once more is no error.
    assert directdownload(own.kubeconfig(), "crds", "delete", "--yes").returncode == 0
