"""How the chart's pods run and whom they reach: security contexts, disruption budgets, network policies."""

import ipaddress
import json
import re

import pytest
from tests import denied_networks
from tests.world.chart import MATRIX, SERVICE_ACCOUNTS, documents, job_of, new_namespace, one, pods_of
from tests.world.checkout import REPOSITORY
from tests.world.kube import Kube, Object

from directdownload.cluster.kinds import PODS
from directdownload.download.sources import policy

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)


#: They need no host, so the strictest Pod Security standard admits them.
RESTRICTED = {"controller", "definitions", "test"}
DOCUMENTED = (REPOSITORY / "docs" / "install.md").read_text()


def judged(admin: Kube, level: str, *arguments: str) -> dict[str, str]:
    """What the API server's own Pod Security says to each pod in a namespace of this level; empty: admitted."""
    namespace = new_namespace(admin, enforce=level)
    answers = {}
    for component, pod in pods_of(namespace, *arguments).items():
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": pod["spec"]["serviceAccountName"]},
        }
        admin.create(SERVICE_ACCOUNTS, account, namespace)
        answer = admin.create(PODS, pod, namespace, dry=True)
        answers[component] = "" if answer.ok else answer.message.partition("violates PodSecurity ")[2]
    return answers


def test_security_contexts(admin: Kube) -> None:
    """Controller and hooks are restricted; agents and downloads baseline but for host directories."""
    restricted, baseline, privileged = (judged(admin, level) for level in ("restricted", "baseline", "privileged"))
    assert {component for component, refusal in restricted.items() if not refusal} == RESTRICTED
    assert {component for component, refusal in baseline.items() if not refusal} == RESTRICTED
    assert set(privileged.values()) == {""}
    for component in baseline.keys() - RESTRICTED:
        assert re.fullmatch(r'"baseline:latest": hostPath volumes \([^)]*\)', baseline[component]), component
        for words in re.findall(r"[a-zA-Z ]+(?= \(|$)", restricted[component].partition(": ")[2]):
            assert f"`{words.strip()}`" in DOCUMENTED, f"{component}: {words}"
    for component, pod in pods_of("default").items():
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, component
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, component
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], component
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, component
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys(), component


def test_downloads_on_the_network_of_the_hosts(admin: Kube) -> None:
    """With NFS a capability takes the place of the sysctl, which the API server refuses there."""
    setting = ("--set", "job.hostNetwork=true")
    for component, refusal in judged(admin, "baseline", *setting).items():
        assert ("host namespaces (hostNetwork=true)" in refusal) is (component in ("job", "job for NFS", "probe"))
        assert "capabilit" not in refusal, "baseline admits NET_BIND_SERVICE"
    pods = pods_of("default", *setting)
    for component in ("job", "job for NFS", "probe"):
        assert pods[component]["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
        assert "sysctls" not in pods[component]["spec"]["securityContext"]
    (container,) = pods["job for NFS"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"]["add"][-1] == "NET_BIND_SERVICE"
    assert "hostNetwork" not in pods["controller"]["spec"].keys() | pods["agent"]["spec"].keys()


# --- disruptions and the network


@pytest.mark.parametrize(("replicas", "expected"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_a_budget_only_where_it_keeps_something(replicas: int, expected: int) -> None:
    """With one replica it would have nothing to keep; a controller that is ill anyway holds no drain up."""
    found = documents("release", "default", "--set", f"controller.replicas={replicas}")
    budgets = [each for each in found if each["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == expected
    for budget in budgets:
        pods = one(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= pods.items()
        assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_a_spread_without_selector_is_of_the_controllers() -> None:
    deployment = one(documents("release", "default", *MATRIX["spread"]), "Deployment")["spec"]["template"]
    zones, racks = deployment["spec"]["topologySpreadConstraints"]
    assert zones["labelSelector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()
    assert racks["labelSelector"] == {"matchLabels": {"a": "b"}}


def policies(*arguments: str) -> dict[str, Object]:
    """The NetworkPolicies by component, each of which selects just the pods of it."""
    found = documents("release", "default", "--set", "networkPolicy.enabled=true", *arguments, hooks=True)
    labels = {
        "controller": one(found, "Deployment")["spec"]["template"]["metadata"]["labels"],
        "agent": one(found, "DaemonSet")["spec"]["template"]["metadata"]["labels"],
        "job": job_of(found)["spec"]["template"]["metadata"]["labels"],
        "crds": one(found, "Job")["spec"]["template"]["metadata"]["labels"],
        "test": next(each for each in found if each["kind"] == "Pod")["metadata"]["labels"],
    }
    made = [each["spec"] for each in found if each["kind"] == "NetworkPolicy"]
    by_component = {
        component: [each for each in made if each["podSelector"]["matchLabels"].items() <= given.items()]
        for component, given in labels.items()
    }
    assert [len(matching) for matching in by_component.values()] == [1] * len(made)
    assert all(each["policyTypes"] == ["Ingress", "Egress"] for each in made)
    return {component: matching[0] for component, matching in by_component.items()}


def denied_by(blocks: dict[str, list[str]], address: str) -> list[str]:
    """The exceptions, by the block, that keep an address from being reached."""
    parsed = ipaddress.ip_address(address)
    return [each for exceptions in blocks.values() for each in exceptions if parsed in ipaddress.ip_network(each)]


def test_network_policies_let_no_more_through_than_is_needed() -> None:
    """What they say; that a plugin enforces them cannot be seen here."""
    assert not [each for each in documents("release", "default", hooks=True) if each["kind"] == "NetworkPolicy"]
    found = policies()
    ports = [[443, 6443], [53, 53]]
    for component in ("controller", "agent", "crds", "test"):
        assert [[port["port"] for port in rule["ports"]] for rule in found[component]["egress"]] == ports
    assert [component for component, policy in found.items() if "ingress" in policy] == ["test"]
    everywhere, dns = found["job"]["egress"]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in everywhere["to"] if "ipBlock" in peer}
    # What the source policy denies by itself, and no private range.
    made = denied_networks.networks()
    assert blocks == {"0.0.0.0/0": made["ipv4"], "::/0": made["ipv6"]}
    assert {str(network) for _, network in policy.DENIED} <= {*made["ipv4"], *made["ipv6"]}
    for source in ("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:1"):
        assert not denied_by(blocks, source), source
    for refused in ("169.254.1.1", "127.0.0.1", "fe80::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::"):
        assert denied_by(blocks, refused), refused
    assert {port["port"] for port in dns["ports"]} == {53}
    # What `helm test` serves is reached by downloads, and by nobody else.
    (rule,) = found["test"]["ingress"]
    assert rule["from"] == [{"podSelector": found["job"]["podSelector"]}]
    assert {"podSelector": found["test"]["podSelector"]} in everywhere["to"]


def test_network_policies_as_narrow_as_they_are_told() -> None:
    found = policies(*MATRIX["narrow network policies"])
    to_api, dns = found["controller"]["egress"]
    assert [peer["ipBlock"]["cidr"] for peer in to_api["to"]] == ["192.0.2.1/32", "fd00::1/128"]
    assert [port["port"] for port in to_api["ports"]] == [6443]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert dns["to"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "m"}}}
    for component in ("controller", "agent"):
        (rule,) = found[component]["ingress"]
        assert rule == {"ports": [{"protocol": "TCP", "port": "health"}], "from": [monitoring]}
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    assert found["job"]["egress"][0]["to"] == [block, {"podSelector": found["test"]["podSelector"]}]
    # Where metrics have a port of their own, it is that one.
    (rule,) = policies(*MATRIX["narrow network policies"], "--set", "metrics.authentication=true")["agent"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["metrics"]
    # Who leaves open where downloads go keeps them from the API server, where its addresses are given.
    addresses = [{"ipBlock": {"cidr": cidr}} for cidr in ("192.0.2.1/32", "198.51.100.0/24", "fd00::1/128")]
    given = [*addresses, {"podSelector": {}}]
    open_to = policies("--set-json", f"networkPolicy.apiServer.to={json.dumps(given)}")["job"]["egress"][0]["to"]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in open_to if "ipBlock" in peer}
    assert denied_by(blocks, "192.0.2.1") == ["192.0.2.1/32"]
    assert denied_by(blocks, "fd00::1") == ["fd00::1/128"]
    # In a wider range there may be servers of images.
    assert not denied_by(blocks, "198.51.100.1")
    # Downloads on the network of a host come from addresses that no selector knows.
    (rule,) = policies("--set", "job.hostNetwork=true")["test"]["ingress"]
    assert "from" not in rule


def test_labels_arrive_and_select_nothing() -> None:
    found = documents("release", "default", *MATRIX["labels"], hooks=True)
    assert [each for each in found if each["metadata"]["labels"].get("team") != "storage"] == []
    for kind, label in (("Deployment", "a"), ("DaemonSet", "c")):
        spec = one(found, kind)["spec"]
        assert label in spec["template"]["metadata"]["labels"]
        assert spec["selector"] == one(documents("release", "default"), kind)["spec"]["selector"]
    template = job_of(found)["spec"]["template"]["metadata"]
    assert (template["labels"]["e"], template["annotations"]["g"]) == ("f", "h")
