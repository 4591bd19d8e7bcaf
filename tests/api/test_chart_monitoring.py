"""What the chart renders for Prometheus: endpoints that lead to ports of the pods, and nothing unless it is asked for.

The definitions of the Prometheus operator are not in the cluster of the tests, so these objects are compared by shape;
the e2e test `test_metrics.py` scrapes what they describe.
"""

import pathlib

import click
import pytest
import yaml
from tests.world import kube
from tests.world.kube import Object

from directdownload.cli import pods

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

MONITORS = "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true"
AUTHENTICATED = f"{MONITORS},metrics.authentication=true"
FULL_NAME = "release-direct-download-operator"


def documents(settings: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(kube.rendered("release", "there", "--set", settings)) if each]


def one(found: list[Object], kind: str, name: str) -> Object:
    (match,) = (each for each in found if each["kind"] == kind and each["metadata"]["name"] == f"{FULL_NAME}-{name}")
    return match


def test_nothing_of_it_is_there_unless_it_is_asked_for() -> None:
    found = documents("log.level=info")
    assert not {"Service", "ServiceMonitor", "PodMonitor", "Secret"} & {each["kind"] for each in found}
    assert not [each for each in found if "metrics" in each["metadata"]["name"]]
    for kind, name in (("Deployment", "controller"), ("DaemonSet", "agent")):
        (container,) = one(found, kind, name)["spec"]["template"]["spec"]["containers"]
        assert [port["name"] for port in container["ports"]] == ["health"]


@pytest.mark.parametrize("settings", [MONITORS, AUTHENTICATED])
def test_monitors_lead_to_ports_of_the_pods(settings: str) -> None:
    found = documents(settings)
    pods = {
        name: one(found, kind, name)["spec"]["template"]
        for kind, name in (("Deployment", "controller"), ("DaemonSet", "agent"))
    }
    ports = {
        name: {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        for name, pod in pods.items()
    }
    labels = {name: pod["metadata"]["labels"].items() for name, pod in pods.items()}
    service = one(found, "Service", "metrics")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= labels["controller"]
    assert not service["spec"]["selector"].items() <= labels["agent"]
    (port,) = service["spec"]["ports"]
    assert port["port"] == ports["controller"][port["targetPort"]]

    for monitor, endpoint in (
        (one(found, "ServiceMonitor", "controller"), "endpoints"),
        (one(found, "PodMonitor", "agent"), "podMetricsEndpoints"),
    ):
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["there"]}
        (described,) = monitor["spec"][endpoint]
        selected = monitor["spec"]["selector"]["matchLabels"].items()
        if endpoint == "endpoints":
            assert selected <= service["metadata"]["labels"].items()
            assert described["port"] == port["name"]
        else:
            assert selected <= labels["agent"]
            assert not selected <= labels["controller"]
            assert described["port"] in ports["agent"]
        assert described["path"] == "/metrics"
        assert described["relabelings"] == [
            {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
        ]
        if settings == MONITORS:
            assert described["scheme"] == "http"
            assert not {"authorization", "tlsConfig", "interval", "scrapeTimeout"} & described.keys()
        else:
            assert described["scheme"] == "https"
            assert described["tlsConfig"] == {"insecureSkipVerify": True}
            secret = one(found, "Secret", "metrics-reader")
            assert described["authorization"]["credentials"] == {"name": secret["metadata"]["name"], "key": "token"}


def test_the_token_of_the_chart_is_of_an_account_that_may_read_metrics_and_nothing_else() -> None:
    found = documents(AUTHENTICATED)
    secret = one(found, "Secret", "metrics-reader")
    assert secret["type"] == "kubernetes.io/service-account-token"
    account = one(found, "ServiceAccount", "metrics-reader")
    assert secret["metadata"]["annotations"] == {"kubernetes.io/service-account.name": account["metadata"]["name"]}
    (binding,) = (
        each
        for each in found
        if each["kind"].endswith("Binding")
        and account["metadata"]["name"] in [subject["name"] for subject in each.get("subjects", ())]
    )
    role = one(found, "ClusterRole", "metrics-reader")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]


def test_controller_and_agent_may_ask_for_reviews_and_get_nothing_else_by_it() -> None:
    before, after = documents("log.level=info"), documents("metrics.authentication=true")
    roles = [each for each in after if each["kind"] in ("Role", "ClusterRole")]
    more = [each for each in roles if each not in before]
    assert {each["metadata"]["name"] for each in more} == {
        f"{FULL_NAME}-metrics-authentication",
        f"{FULL_NAME}-metrics-reader",
    }
    rules = one(after, "ClusterRole", "metrics-authentication")["rules"]
    assert {(rule["apiGroups"][0], *rule["resources"], *rule["verbs"]) for rule in rules} == {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }
    subjects = one(after, "ClusterRoleBinding", "metrics-authentication")["subjects"]
    assert {each["name"] for each in subjects} == {f"{FULL_NAME}-controller", f"{FULL_NAME}-agent"}


def test_a_token_and_a_certificate_of_ones_own() -> None:
    found = documents(
        f"{AUTHENTICATED},metrics.tokenSecret.name=prometheus,metrics.tokenSecret.key=bearer,metrics.tls.secretName=pair"
    )
    assert not [each for each in found if each["kind"] == "Secret"]
    (described,) = one(found, "PodMonitor", "agent")["spec"]["podMetricsEndpoints"]
    assert described["authorization"]["credentials"] == {"name": "prometheus", "key": "bearer"}
    authority = {"secret": {"name": "pair", "key": "ca.crt"}}
    assert described["tlsConfig"] == {"serverName": f"{FULL_NAME}-metrics.there.svc", "ca": authority}
    for kind, name in (("Deployment", "controller"), ("DaemonSet", "agent")):
        pod = one(found, kind, name)["spec"]["template"]["spec"]
        (volume,) = (each for each in pod["volumes"] if each["name"] == "metrics-certificate")
        assert volume["secret"]["secretName"] == "pair"
        (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"])
        assert mount["readOnly"]
        assert f"--metrics-certificate={mount['mountPath']}" in pod["containers"][0]["args"]


@pytest.mark.parametrize("command", [pods.controller, pods.agent], ids=["controller", "agent"])
def test_the_programs_serve_metrics_at_the_port_that_is_named_so(
    command: click.Command, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = documents(f"{AUTHENTICATED},metrics.tls.secretName=pair")
    kind = "Deployment" if command is pods.controller else "DaemonSet"
    (container,) = one(found, kind, str(command.name))["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], "value")
    mounted = {"/etc/directdownload-metrics": str(tmp_path), "/etc/directdownload/job.yaml": str(tmp_path / "job.yaml")}
    (tmp_path / "job.yaml").touch()
    name, *arguments = container["args"]
    for path, here in mounted.items():
        arguments = [argument.replace(path, here) for argument in arguments]
    given = command.make_context(name, arguments).params
    assert {"name": "metrics", "containerPort": given["metrics_port"]} in container["ports"]
    assert {"name": "health", "containerPort": given["health_port"]} in container["ports"]
    assert given["metrics_certificate"] == tmp_path


def test_values_of_the_monitors_arrive() -> None:
    found = documents(
        f"{MONITORS},metrics.serviceMonitor.interval=15s,metrics.serviceMonitor.scrapeTimeout=5s,"
        "metrics.podMonitor.interval=1m,metrics.podMonitor.labels.release=prometheus,"
        "metrics.podMonitor.relabelings[0].targetLabel=cluster,metrics.podMonitor.relabelings[0].replacement=a,"
        "metrics.serviceMonitor.metricRelabelings[0].action=drop,"
        "metrics.serviceMonitor.metricRelabelings[0].sourceLabels={__name__},"
        "metrics.serviceMonitor.metricRelabelings[0].regex=python_.*"
    )
    (service,) = one(found, "ServiceMonitor", "controller")["spec"]["endpoints"]
    assert (service["interval"], service["scrapeTimeout"]) == ("15s", "5s")
    assert service["metricRelabelings"] == [{"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}]
    monitor = one(found, "PodMonitor", "agent")
    (pod,) = monitor["spec"]["podMetricsEndpoints"]
    assert pod["interval"] == "1m"
    assert pod["relabelings"][1:] == [{"targetLabel": "cluster", "replacement": "a"}]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
