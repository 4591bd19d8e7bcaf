"""The chart's part of peers: nothing without `peers.enabled`, and with it a server in two containers on every host."""

import pathlib
import re
from typing import Any

import click
import pytest
import yaml
from tests.world.chart import documents, job_of, new_namespace, one, tried
from tests.world.checkout import REPOSITORY
from tests.world.kube import Kube, Object

from directdownload.agent.settings import Settings
from directdownload.cli import pods
from directdownload.resources import peers

ENABLED = ("--set", "peers.enabled=true")
POLICIES = (*ENABLED, "--set", "networkPolicy.enabled=true")
HOSTS = ("--set", "peers.nodeCIDRs={10.20.0.0/16,fd00:20::/64}")
JOB = {"app.kubernetes.io/component": "job"}


def rendered(*arguments: str) -> list[Object]:
    return documents("release", "system", *arguments, hooks=True)


def pod(*arguments: str) -> Object:
    spec: Object = one(rendered(*ENABLED, *arguments), "DaemonSet", "peer")["spec"]["template"]["spec"]
    return spec


def containers(*arguments: str) -> tuple[Object, Object]:
    opener, server = pod(*arguments)["containers"]
    assert (opener["name"], server["name"]) == ("opener", "server")
    return opener, server


def agent(*arguments: str) -> Object:
    spec: Object = one(rendered(*arguments), "DaemonSet", "agent")["spec"]["template"]["spec"]
    return spec


def policy(name: str, *arguments: str) -> Object:
    spec: Object = one(rendered(*POLICIES, *arguments), "NetworkPolicy", name)["spec"]
    return spec


def parameters(container: Object) -> dict[str, Any]:
    """The arguments as the command line reads them."""
    group, name, *arguments = container["args"]
    assert group == pods.peer.name
    return dict(pods.peer.commands[name].make_context(name, arguments).params)


def test_without_peers_nothing_of_them_is_rendered() -> None:
    values = ("--set", "networkPolicy.enabled=true,csi.enabled=true,headerSecrets.namespaces={default}")
    found = rendered(*values)
    assert "peer" not in re.sub(r"peers?\.directdownload|peerRequest|peerAddresses", "", str(found))
    assert rendered(*values, "--set", "peers.port=4711,peers.network=port", *HOSTS) == found


def test_the_opener_has_the_pools_and_no_more_than_the_right_to_read_them() -> None:
    opener, _ = containers("--set", "agent.poolRoots={/a,/b}")
    assert opener["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]},
    }
    mounts = {each["mountPath"]: each for each in opener["volumeMounts"]}
    assert [path for path, each in mounts.items() if not each.get("readOnly")] == ["/run/directdownload-peer"]
    assert mounts["/a"]["mountPropagation"] == mounts["/b"]["mountPropagation"] == "HostToContainer"
    assert "ports" not in opener
    given = parameters(opener)
    assert given["pool_roots"] == ("/a", "/b")


def test_the_server_is_not_root_and_sees_no_pool() -> None:
    _, server = containers("--set", "agent.poolRoots={/a,/b}")
    assert server["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": peers.SERVER_UID,
        "runAsGroup": peers.SERVER_UID,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {each["mountPath"]: each["readOnly"] for each in server["volumeMounts"]} == {
        peers.SERVER_DIRECTORY: True,
        "/run/directdownload-peer": True,
    }


def test_the_two_meet_at_one_socket_and_read_what_the_agent_writes() -> None:
    spec = pod()
    volumes = {each["name"]: each for each in spec["volumes"]}
    opener, server = spec["containers"]
    of_opener, of_server = parameters(opener), parameters(server)
    assert of_opener["socket"] == of_server["opener_socket"] == peers.OPENER_SOCKET
    assert of_opener["directory"] == of_server["directory"] == peers.SERVER_DIRECTORY
    for container in (opener, server):
        mounted = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
        assert mounted[str(pathlib.PurePath(peers.OPENER_SOCKET).parent)]["emptyDir"]["medium"] == "Memory"
        assert mounted[peers.SERVER_DIRECTORY]["hostPath"]["path"] == peers.SERVER_DIRECTORY
    # The agent has given the files to this group, and is in it; the opener gives it the socket.
    assert spec["securityContext"]["supplementalGroups"] == [peers.SERVER_UID]
    assert agent(*ENABLED)["securityContext"]["supplementalGroups"] == [peers.SERVER_UID]
    (container,) = agent(*ENABLED)["containers"]
    given = pods.agent.make_context("agent", [*container["args"][1:], "--node-name=kvm-1"]).params
    assert given["peers"] is True
    state = Settings(**given).state_directory
    assert peers.SERVER_DIRECTORY.startswith(state)
    assert peers.CLIENT_DIRECTORY.startswith(state)


def test_the_pod_has_no_token_and_runs_wherever_an_agent_does_and_on_every_taint() -> None:
    values = (
        *("--set", "agent.tolerations=null,seLinuxOptions.type=spc_t,imagePullSecrets[0].name=registry"),
        *("--set", "agent.priorityClassName=system-node-critical"),
        *("--set-json", 'agent.nodeSelector={"example.org/kvm":"true"}'),
        *("--set-json", 'agent.affinity={"nodeAffinity":{}}'),
    )
    spec, of_agent = pod(*values), agent(*ENABLED, *values)
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "release-direct-download-operator-peer"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    for name in ("nodeSelector", "affinity", "imagePullSecrets", "priorityClassName"):
        assert spec[name] == of_agent[name], name
    assert spec["securityContext"]["seLinuxOptions"] == of_agent["securityContext"]["seLinuxOptions"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    bindings = [each for each in rendered(*ENABLED) if each["kind"].endswith("Binding") and "subjects" in each]
    assert not [each for each in bindings if each["subjects"][0]["name"] == spec["serviceAccountName"]]


@pytest.mark.parametrize("network", ["host", "port"])
def test_the_port_is_that_of_the_host_and_health_is_no_concern_of_its_network(network: str) -> None:
    values = ("--set", f"peers.network={network},peers.port=4711")
    spec = pod(*values)
    _, server = spec["containers"]
    assert spec.get("hostNetwork", False) is (network == "host")
    (port, health) = server["ports"]
    assert (port["containerPort"], port["hostPort"]) == (4711, 4711)
    given = parameters(server)
    assert health["containerPort"] == given["health_port"] == 4712
    assert "hostPort" not in health
    for probe in ("livenessProbe", "readinessProbe"):
        asked = server[probe]["httpGet"]
        assert asked["port"] == "health"
        assert asked.get("host") == ("127.0.0.1" if network == "host" else None)
    assert given["health_address"] == ("127.0.0.1" if network == "host" else "")
    (controller,) = one(rendered(*ENABLED, *values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--peers-port=4711" in controller["args"]


def test_the_controller_may_make_one_secret_and_replace_no_other() -> None:
    found = rendered(*ENABLED)
    (controller,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    arguments = [*controller["args"][1:], "--pod-name=a", "--pod-namespace=b"]
    arguments = [each for each in arguments if not each.startswith("--job-template")]
    parser = pods.controller.make_parser(click.Context(pods.controller))
    given, _, _ = parser.parse_args(arguments)
    rules = one(found, "Role", "controller")["rules"]
    writing = [
        (rule.get("resourceNames"), rule["verbs"])
        for rule in rules
        if "secrets" in rule["resources"] and rule["verbs"] != ["get", "list", "watch"]
    ]
    assert writing == [(None, ["create"]), ([given["peers_secret"]], ["update"])]


def test_servers_are_reached_by_hosts_and_downloads_only() -> None:
    server = policy("peer", *HOSTS)
    assert server["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in server
    (rule,) = server["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": peers.DEFAULT_PORT}]
    blocks, (pods_,) = rule["from"][:-1], rule["from"][-1:]
    assert [each["ipBlock"]["cidr"] for each in blocks] == ["10.20.0.0/16", "fd00:20::/64"]
    assert pods_["podSelector"]["matchLabels"].items() >= JOB.items()
    (open_rule,) = policy("peer")["ingress"]
    assert "from" not in open_rule


def test_downloads_reach_the_port_of_the_hosts_beside_their_sources() -> None:
    sources = ("--set-json", 'networkPolicy.job.to=[{"ipBlock":{"cidr":"192.0.2.0/24"}}]')
    rules = policy("job", *HOSTS, *sources)["egress"]
    (to_hosts,) = [each for each in rules if {"protocol": "TCP", "port": peers.DEFAULT_PORT} in each.get("ports", ())]
    assert [each["ipBlock"]["cidr"] for each in to_hosts["to"]] == ["10.20.0.0/16", "fd00:20::/64"]
    (to_any,) = [
        each for each in policy("job")["egress"] if {"protocol": "TCP", "port": 10471} in each.get("ports", ())
    ]
    assert "to" not in to_any


def test_the_template_of_jobs_stays_as_it_is() -> None:
    """The controller adds the directory of the client to those Jobs that read from hosts."""
    with_peers, without = (one(rendered(*each), "ConfigMap", "job-template") for each in (ENABLED, ()))
    assert with_peers == without
    assert peers.CLIENT_DIRECTORY not in str(job_of(rendered(*ENABLED)))


@pytest.mark.parametrize("network", ["host", "port"])
def test_the_api_server_takes_all_of_it(admin: Kube, control_plane: Any, network: str) -> None:
    namespace = new_namespace(admin)
    found = documents("release", namespace, *POLICIES, *HOSTS, "--set", f"peers.network={network},csi.enabled=true")
    tried(control_plane, found)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("peers.port=80", "port"),
        ("peers.port=65535", "port"),
        ("peers.network=pod", "network"),
        ("peers.nodeCIDRs={10.0.0.1}", "nodeCIDRs"),
        ("peers.on=1", "on"),
    ],
)
def test_bad_values_are_refused(value: str, words: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(words)):
        documents("release", "system", "--set", value)


def test_the_default_port_is_that_of_the_code() -> None:
    values = yaml.safe_load((REPOSITORY / "charts" / "direct-download-operator" / "values.yaml").read_text())
    assert values["peers"]["port"] == peers.DEFAULT_PORT
    assert values["peers"]["enabled"] is False
