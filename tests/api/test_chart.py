"""The Helm chart against a real API server: values install or are refused in words, and nothing collides."""

import pathlib
import re
from typing import Any

import click
import pytest
import yaml
from tests.cluster import harness
from tests.world import kube
from tests.world.chart import DIGEST, MATRIX, NFS, documents, job_of, new_namespace, one, probe_of, tried
from tests.world.checkout import CHART, REPOSITORY
from tests.world.kube import Kube

from directdownload.cli import pods
from directdownload.cluster.kinds import JOBS

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)
#: (arguments, what helm must say)
REFUSED: list[tuple[str, str]] = [
    ("nonsense=1", "additional properties 'nonsense' not allowed"),
    ("agent.nonsense=1", "at '/agent': additional properties 'nonsense' not allowed"),
    ("agent.poolRoots=null", "at '/agent': missing property 'poolRoots'"),
    ("agent.poolRoots={}", "at '/agent/poolRoots/0': '' does not match pattern"),
    ("agent.poolRoots[0]=pools", "at '/agent/poolRoots/0': 'pools' does not match pattern"),
    ("agent.poolRoots[0]=/", "at '/agent/poolRoots/0': '/' does not match pattern"),
    ("agent.poolRoots[0]=/a/../b", "at '/agent/poolRoots/0': '/a/../b' does not match pattern"),
    ("agent.poolRoots[0]=/a/", "at '/agent/poolRoots/0': '/a/' does not match pattern"),
    ("agent.poolRoots={/a,/a}", "at '/agent/poolRoots': items at 0 and 1 are equal"),
    ("agent.capabilities[0]=SYS_ADMIN", "at '/agent/capabilities/0': value must be"),
    ("agent.maxUnavailable=0", "at '/agent/maxUnavailable'"),
    ("job.capabilities[0]=SYS_ADMIN", "at '/job/capabilities/0': value must be one of 'CHOWN'"),
    ("controller.replicas=-1", "at '/controller/replicas': minimum: got -1, want 0"),
    ("controller.replicas=two", "at '/controller/replicas': got string, want integer"),
    ("controller.resources.limits.memory=lots", "at '/controller/resources/limits/memory': 'lots' does not match"),
    ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
    ("image.repository=", "at '/image/repository': minLength: got 0, want 1"),
    ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always'"),
    ("log.level=loud", "at '/log/level': value must be one of 'debug'"),
    ("log.format=xml", "at '/log/format': value must be one of 'json', 'text'"),
    ("imagePullSecrets[0]=registry", "at '/imagePullSecrets/0': got string, want object"),
    ("seLinuxOptions.kind=x", "at '/seLinuxOptions': additional properties 'kind' not allowed"),
    ("headerSecrets.namespaces[0]=", "at '/headerSecrets/namespaces/0': '' does not match pattern"),
    ("headerSecrets.namespaces={a,a}", "at '/headerSecrets/namespaces': items at 0 and 1 are equal"),
    ("headerSecrets.namespaces[0]=*", "at '/headerSecrets/namespaces/0': '*' does not match pattern"),
    ("proxy.http=http://user:word@proxy:3128", "at '/proxy/http'"),
    ("proxy.https=https://proxy:3128", "at '/proxy/https'"),
    ("proxy.https=proxy:3128", "at '/proxy/https'"),
    ("proxy.noProxy=$(id)", "at '/proxy/noProxy'"),
    ("proxy.secretName=Proxy", "at '/proxy/secretName'"),
    ("metrics.authentication=maybe", "at '/metrics/authentication': got string, want boolean"),
    ("metrics.serviceMonitor.interval=often", "at '/metrics/serviceMonitor/interval': 'often' does not match pattern"),
    ("metrics.podMonitor.labels.a=1", "at '/metrics/podMonitor/labels/a': got number, want string"),
    ("metrics.tokenSecret.key=", "at '/metrics/tokenSecret/key': '' does not match pattern"),
    ("crds.upgrade=maybe", "at '/crds/upgrade': got string, want boolean"),
    ("rbac.create=true", "at '/rbac': additional properties 'create' not allowed"),
    ("controller.podDisruptionBudget.maxUnavailable=0", "at '/controller/podDisruptionBudget/maxUnavailable'"),
    ("controller.topologySpreadConstraints[0].maxSkew=1", "at '/controller/topologySpreadConstraints/0': missing prop"),
    ("commonLabels.app\\.kubernetes\\.io/name=x", "at '/commonLabels/app.kubernetes.io~1name': false schema"),
    (
        "controller.podLabels.app\\.kubernetes\\.io/component=x",
        "at '/controller/podLabels/app.kubernetes.io~1component'",
    ),
    ("job.podLabels.a=b c", "at '/job/podLabels/a': 'b c' does not match pattern"),
    ("job.hostNetwork=1", "at '/job/hostNetwork': got number, want boolean"),
    ("networkPolicy.job.to[0].ipBlock.cidr=10.0.0.1", "at '/networkPolicy/job/to/0/ipBlock/cidr'"),
    ("networkPolicy.job.to[0]=10.0.0.0/8", "at '/networkPolicy/job/to/0': got string, want object"),
    ("networkPolicy.metrics.to=x", "at '/networkPolicy/metrics': additional properties 'to' not allowed"),
    ("networkPolicy.apiServer.ports={}", "at '/networkPolicy/apiServer/ports/0'"),
    ("networkPolicy.dns.ports[0]=0", "at '/networkPolicy/dns/ports/0': minimum: got 0, want 1"),
    ("fullnameOverride=Direct_Download", "at '/fullnameOverride': 'Direct_Download' does not match pattern"),
]


@pytest.fixture(scope="module")
def namespace(admin: Kube) -> str:
    return new_namespace(admin)


def test_lint() -> None:
    kube.helm("lint", "--strict", str(CHART))


def test_definitions_are_current() -> None:
    made = {path.name: path.read_text() for path in (REPOSITORY / "crds").glob("*.yaml")}
    assert made
    assert {path.name: path.read_text() for path in (CHART / "crds").iterdir()} == made


@pytest.mark.parametrize("arguments", MATRIX.values(), ids=MATRIX.keys())
def test_values_make_valid_manifests(
    control_plane: harness.ControlPlane, admin: Kube, namespace: str, arguments: list[str]
) -> None:
    found = documents("release", namespace, *arguments, hooks=True)
    assert "Warning" not in tried(control_plane, found)
    everything = {**NFS, "headers_directory": "/var/run/directdownload/headers"}
    for job in (job_of(found), job_of(found, **everything), probe_of(found)):
        admin.create(JOBS, job, namespace, dry=True).object()


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=[value for value, _ in REFUSED])
def test_bad_values_are_refused_in_words(value: str, words: str) -> None:
    result = kube.helm("template", "release", str(CHART), "--set", value, check=False)
    assert result.returncode != 0
    assert words in result.stderr, result.stderr


def test_values_arrive(namespace: str) -> None:
    found = documents(
        "release",
        namespace,
        *("--set-json", 'agent.poolRoots=["/srv/a","/srv/b"]', "--set", f"image.digest={DIGEST},image.repository=r/x"),
        *("--set", "seLinuxOptions.type=spc_t,imagePullSecrets[0].name=registry,log.level=debug,controller.replicas=3"),
    )
    pods = {
        "controller": one(found, "Deployment")["spec"]["template"]["spec"],
        "agent": one(found, "DaemonSet")["spec"]["template"]["spec"],
        "job": job_of(found, pool="/srv/b/pool")["spec"]["template"]["spec"],
    }
    assert one(found, "Deployment")["spec"]["replicas"] == 3
    for component, pod in pods.items():
        (container,) = pod["containers"]
        assert container["image"] == f"r/x@{DIGEST}"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["securityContext"].get("seLinuxOptions") == (
            None if component == "controller" else {"type": "spc_t"}
        )
        roots = {
            mount["mountPath"]: (mount["mountPropagation"], mount.get("readOnly", False))
            for mount in container["volumeMounts"]
            if mount["name"].startswith("pool-root")
        }
        paths = {
            volume["hostPath"]["path"]: volume["hostPath"]["type"]
            for volume in pod["volumes"]
            if volume["name"].startswith("pool-root")
        }
        if component == "controller":
            assert roots == paths == {}
        else:
            # a download sees its own pool's root alone
            wanted = ("/srv/a", "/srv/b") if component == "agent" else ("/srv/b",)
            assert roots == dict.fromkeys(wanted, ("HostToContainer", False))
            assert paths == dict.fromkeys(wanted, "Directory")
        if component != "job":
            assert {"--pool-root=/srv/a", "--pool-root=/srv/b", "--log-level=debug"} <= set(container["args"])
    (download,) = job_of(found)["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value") for each in download["env"]}
    expected = {"DIRECTDOWNLOAD_LOG_FORMAT": "json", "DIRECTDOWNLOAD_LOG_LEVEL": "debug"}
    assert expected.items() <= given.items()


def test_the_job_template_keeps_the_contract_with_the_controller(namespace: str) -> None:
    found = documents("release", namespace)
    job = job_of(found)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["metadata"]["namespace"], container["name"]) == (namespace, "download")
    assert {key: job["spec"][key] for key in ("backoffLimit", "ttlSecondsAfterFinished")} == {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 86400,
    }
    expected = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "tolerations": [{"operator": "Exists"}],
        "serviceAccountName": "release-direct-download-operator-job",
    }
    assert {key: pod[key] for key in expected} == expected
    assert container["terminationMessagePolicy"] == "File"
    assert container["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"],
    }
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    state = "/var/lib/directdownload"
    assert mounts == {
        **{f"{state}/trust": True, f"{state}/seals": False},
        **{"/tmp": False, "/var/lib/libvirt/images": False},
    }
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels == job["metadata"]["labels"]
    expected = {"name": "direct-download-operator", "component": "job", "instance": "release"}
    assert {key: labels[f"app.kubernetes.io/{key}"] for key in expected} == expected
    mounted = one(found, "Deployment")["spec"]["template"]["spec"]
    assert {
        "name": "job-template",
        "configMap": {"name": one(found, "ConfigMap", "job-template")["metadata"]["name"]},
    } in mounted["volumes"]
    assert "--job-template=/etc/directdownload/job.yaml" in mounted["containers"][0]["args"]


def test_a_probe_keeps_of_the_job_template_what_it_needs(namespace: str) -> None:
    (container,) = probe_of(documents("release", namespace))["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SETUID", "SETGID"]}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    trust, headers = "/var/lib/directdownload/trust", "/var/run/directdownload/headers"
    assert mounts == {trust: True, headers: True, "/tmp": False}


def test_a_proxy_is_for_downloads_only_and_its_password_in_no_manifest(namespace: str) -> None:
    found = documents("release", namespace, *MATRIX["a proxy"])
    address = {"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://[fd00::1]:3128", "NO_PROXY": ".x,10.0.0.0/8"}
    (container,) = job_of(found)["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert {name: given[name] for name in address} == address
    for kind in ("Deployment", "DaemonSet"):
        assert "PROXY" not in yaml.safe_dump(one(found, kind))
    found = documents("release", namespace, *MATRIX["a proxy with a password"])
    (container,) = job_of(found)["spec"]["template"]["spec"]["containers"]
    assert {"name": "HTTP_PROXY", "value": "http://other:3128/"} in container["env"]
    reference = {"secretKeyRef": {"name": "proxy", "key": "url"}}
    assert {"name": "HTTPS_PROXY", "valueFrom": reference} in container["env"]
    (container,) = job_of(documents("release", namespace))["spec"]["template"]["spec"]["containers"]
    assert not [each["name"] for each in container["env"] if "PROXY" in each["name"]]


@pytest.mark.parametrize("command", [pods.controller, pods.agent], ids=["controller", "agent"])
def test_the_programs_take_the_arguments_of_the_chart(
    command: click.Command, namespace: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed by the command itself, with the environment that the manifest gives it."""
    found = documents("release", namespace, *MATRIX["pool roots"], *MATRIX["logs"])
    kind = "Deployment" if command is pods.controller else "DaemonSet"
    (container,) = one(found, kind)["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], "value")
    (tmp_path / "job.yaml").write_text(one(found, "ConfigMap", "job-template")["data"]["job.yaml"])
    name, *arguments = (each.replace("/etc/directdownload", str(tmp_path)) for each in container["args"])
    assert name == command.name
    given = command.make_context(name, arguments).params
    assert given["pool_roots"] == ("/srv/pools", "/mnt/a b", "/data/.hidden")
    assert (given["log_format"], given["log_level"]) == ("text", "debug")
    assert {"name": "health", "containerPort": given["health_port"]} in container["ports"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    if kind == "Deployment":
        assert given["lease_name"] == "release-direct-download-operator-controller"


def test_a_changed_job_template_restarts_the_controller(namespace: str) -> None:
    def annotations(*arguments: str) -> Any:
        return one(documents("release", namespace, *arguments), "Deployment")["spec"]["template"]["metadata"][
            "annotations"
        ]

    assert annotations() == annotations()
    assert annotations() != annotations("--set", "job.resources.limits.memory=1Gi")
    assert annotations() == annotations("--set", "agent.maxUnavailable=3")


def test_the_notes_tell_what_comes_next_and_what_the_values_mean() -> None:
    def notes(*settings: str) -> str:
        dry = ["--dry-run=client", "--namespace", "images", *(word for each in settings for word in ("--set", each))]
        return kube.helm("install", "mine", str(CHART), *dry).stdout.partition("NOTES:")[2]

    usual = notes()
    name = "mine-direct-download-operator"
    assert f"kubectl -n images rollout status deployment/{name}-controller" in usual
    assert "kubectl label namespace images pod-security.kubernetes.io/enforce=privileged" in usual
    assert "helm test mine --namespace images" in usual
    assert f"has the role {name}-system-templates" in usual
    assert "helm uninstall keeps files on hosts, keystores and all custom resources" in usual
    depending = {
        "crds.upgrade=false": "directdownload crds print | kubectl apply",
        "networkPolicy.enabled=true": "Network policies are on: nobody may read metrics",
        "job.hostNetwork=true": "NetworkPolicies do not apply to them",
    }
    assert [words for words in depending.values() if words in usual] == []
    told = notes(*depending, "rbac.createUserRoles=false")
    assert [words for words in depending.values() if words not in told] == []
    assert "has the role" not in told


def test_every_value_has_a_comment() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r" *(\w+):", line)
        # A group, whose values follow, may do without.
        group = line.endswith(":") and re.match(r" +(#|\w+:)", lines[number + 1])
        if key is None or key[1] in ("requests", "limits") or (group and key[1] != "resources"):
            continue
        assert lines[number - 1].strip().startswith("# "), f"values.yaml, line {number + 1}: {line}"
