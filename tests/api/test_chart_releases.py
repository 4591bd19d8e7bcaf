"""Releases of the chart beside each other, and the rights that one asks for."""

import pathlib
import re

import pytest
from tests.cluster import harness
from tests.world import kube
from tests.world.chart import documents, tried
from tests.world.checkout import CHART
from tests.world.kube import Object, unique

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)


def identities(found: list[Object]) -> set[tuple[str, str, str]]:
    return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in found}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "b"),
        ("direct-download-operator", "direct-download-operator-2"),
        ("x" * 52 + "a", "x" * 52 + "b"),
        ("1", "2"),
    ],
    ids=["short", "chart's name", "long", "digits"],
)
def test_two_releases_share_no_name(
    control_plane: harness.ControlPlane, namespace: str, first: str, second: str
) -> None:
    every = ("--set", "networkPolicy.enabled=true")
    one_release, other = (documents(release, namespace, *every, hooks=True) for release in (first, second))
    assert not identities(one_release) & identities(other)
    for found in (one_release, other):
        # Their names become label values.
        assert max(len(name) for kind, _, name in identities(found) if kind in ("Deployment", "DaemonSet")) <= 63
        tried(control_plane, found)


def test_install_upgrade_uninstall_of_two_releases(control_plane: harness.ControlPlane, tmp_path: pathlib.Path) -> None:
    """By Helm itself, which refuses to touch what another release owns; afterwards only the definitions are left."""
    releases = {unique("one"): unique("ns"), unique("two"): unique("ns")}
    access = ["--kubeconfig", str(control_plane.kubeconfig())]
    notes = ""
    for release, namespace in releases.items():
        where = ["--namespace", namespace, *access]
        # Without nodes no hook would ever end.
        notes = kube.helm("install", release, str(CHART), "--create-namespace", "--no-hooks", *where).stdout
    for release, namespace in releases.items():
        changes = ["--set", "controller.replicas=3", "--namespace", namespace, *access]
        kube.helm("upgrade", release, str(CHART), "--no-hooks", *changes)
    for release, namespace in releases.items():
        name = f"{release}-direct-download-operator-controller"
        shown = ["get", "deployment", name, "-n", namespace, "-o", "jsonpath={.spec.replicas}"]
        assert control_plane.kubectl(*shown, check=True).stdout == "3"
        kube.helm("uninstall", release, "--no-hooks", "--namespace", namespace, *access)
        kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
        left = control_plane.kubectl(
            "get", kinds, "-l", f"app.kubernetes.io/instance={release}", "-o", "name", check=True
        )
        assert left.stdout == ""
    # The command that the notes tell next does what it says.
    manifest = re.search(r"<<EOF\n(.*?)^EOF$", notes, re.DOTALL | re.MULTILINE)
    assert manifest is not None, notes
    control_plane.kubectl("apply", "--dry-run=server", "-f", "-", input=manifest[1], check=True)


def test_every_rule_of_rbac_has_its_reason() -> None:
    """A comment right above each rule, in the source of the templates."""
    given, without = 0, []
    for path in sorted((CHART / "templates").rglob("*.yaml")):
        lines = path.read_text().splitlines()
        rules = [number for number, line in enumerate(lines) if re.match(r"- (apiGroups|nonResourceURLs):", line)]
        given += len(rules)
        without += [
            f"{path.name}, line {number + 1}: {lines[number]}"
            for number in rules
            if not re.match(r"# \w.{15,}", lines[number - 1])
        ]
    settings = "headerSecrets.namespaces={images},metrics.authentication=true,csi.enabled=true,peers.enabled=true"
    rendered = documents("release", "default", "--set", settings, hooks=True)
    assert given == sum(len(each.get("rules", ())) for each in rendered if each["kind"] in ("ClusterRole", "Role"))
    assert given
    assert without == []


def test_no_rule_of_rbac_has_a_wildcard_and_none_of_the_cluster_secrets() -> None:
    for role in documents("release", "default", hooks=True):
        forbidden = {"*", "escalate", "bind", "impersonate", *(("secrets",) if role["kind"] == "ClusterRole" else ())}
        for rule in role.get("rules", ()) if role["kind"] in ("ClusterRole", "Role") else ():
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & forbidden, f"{role['metadata']['name']}: {rule}"


def test_secrets_are_read_in_the_own_namespace_and_those_that_are_listed_and_nowhere_else() -> None:
    found = documents("release", "operator", "--set", "headerSecrets.namespaces={images,team}", hooks=True)
    about_secrets = {
        (each["kind"], each["metadata"].get("namespace"), tuple(rule["verbs"]), "resourceNames" in rule)
        for each in found
        if each["kind"] in ("ClusterRole", "Role")
        for rule in each["rules"]
        if "secrets" in rule["resources"]
    }
    assert about_secrets == {
        ("Role", "images", ("get",), False),
        ("Role", "team", ("get",), False),
        ("Role", "operator", ("create", "delete"), False),
        ("Role", "operator", ("get", "list", "watch"), False),
    }
    for each in found:
        if each["kind"] == "RoleBinding" and each["metadata"]["namespace"] != "operator":
            (subject,) = each["subjects"]
            assert (subject["name"], subject["namespace"]) == (
                "release-direct-download-operator-controller",
                "operator",
            )
